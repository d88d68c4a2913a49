"""The programs and services of the phone that a shell can call, by name."""

from collections.abc import Mapping

from agent.virtual_phone.commands import (
    activity,
    basics,
    dumps,
    filesystem,
    interaction,
    package,
    processes,
    settings,
    text,
)
from agent.virtual_phone.commands.dispatch import run_cmd
from agent.virtual_phone.shell import Command

COMMANDS: Mapping[str, Command] = {
    **basics.COMMANDS,
    **filesystem.COMMANDS,
    **text.COMMANDS,
    **processes.COMMANDS,
    **package.COMMANDS,
    **activity.COMMANDS,
    **dumps.COMMANDS,
    **settings.COMMANDS,
    **interaction.COMMANDS,
    "cmd": run_cmd,
}
