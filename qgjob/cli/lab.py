"""`qgjob queue`, `devices`, `agents`, `config`: what stands in the lab, and how this client is set up."""

from __future__ import annotations

from typing import Annotated

import typer

from qgjob.cli import lab_tables, printing, render, terminal
from qgjob.cli.command import Command
from qgjob.cli.globals import GLOBALS
from qgjob.cli.session import Json, Output, chosen_format, client, show
from qgjob.cli.table import Column
from qgjob.errors import UsageError
from qgjob.resources import Resource

queue = typer.Typer(help="Show the queue.", no_args_is_help=True)
devices = typer.Typer(help="Show devices, and keep work off them.", no_args_is_help=True)
agents = typer.Typer(help="Show agents, and drain them.", no_args_is_help=True)
config = typer.Typer(help="Show the settings of this client.", no_args_is_help=True)


@queue.callback()
@devices.callback()
@agents.callback()
@config.callback()
def _group() -> None:
    """Keep the commands below commands of their own."""


@queue.command("status", cls=Command)
def queue_status(output: Output = None, json: Json = False) -> None:
    """Show lanes, what runs, what waits, and what batches have saved."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        status = resources.queue_status(opened.queue_status())
    if chosen == "table":
        render.queue_block(status)
    elif chosen == "jsonl":
        printing.jsonl_out(status)
    elif chosen == "id":
        for job in (*status["running"], *status["waiting"]):
            printing.line_out(str(job["id"]))
    else:
        printing.json_out(status)


@queue.command("monitor", cls=Command)
def monitor_queue(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on showing it; on a pipe a JSON object after every change.")
    ] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Show what `qgjob queue status` shows, once or as it changes."""
    if not watch:
        queue_status(output, json)
    else:
        _watch_queue(chosen_format(output, json))


def _watch_queue(output: str) -> None:
    from qgjob.cli import live, views
    from qgjob.cli.reader import needed_reader

    with needed_reader():
        if output == "table":
            live.show(views.read_queue)
        else:
            views.stream_queue()


@devices.command("list", cls=Command)
def list_devices(output: Output = None, json: Json = False) -> None:
    """List devices by id."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        show([resources.device(device) for device in opened.list_devices()], chosen, lab_tables.devices_table)


@agents.command("list", cls=Command)
def list_agents(output: Output = None, json: Json = False) -> None:
    """List agents by name."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        show([resources.agent(agent) for agent in opened.list_agents()], chosen, lab_tables.agents_table, key="name")


@config.command("view", cls=Command)
def view_config(output: Output = None, json: Json = False) -> None:
    """Show each setting and where it came from."""
    from qgjob.config import PROJECT_FILE, access_of, settings, uncounted

    chosen = chosen_format(output, json)
    found = settings({**GLOBALS.flags(), "output": output}, GLOBALS.profile)
    if names := uncounted(found):
        told = f"{', '.join(names)} in {PROJECT_FILE} do not count"
        terminal.say(f"warning: {told}: they are for the coordinator that it names itself")
    try:
        access_of(found)
    except UsageError as error:
        terminal.say(f"warning: {error}")
        terminal.say(f"hint: {error.hint}")
    records = [
        {"name": name, "value": "***" if name == "token" else one.value, "source": one.source}
        for name, one in found.items()
    ]

    def table(listed: list[Resource]) -> None:
        rows = [[str(one["name"]), str(one["value"]), str(one["source"])] for one in listed]
        columns = [Column(name, is_flexible=name != "Setting") for name in ("Setting", "Value", "From")]
        printing.table(columns, rows, empty="No settings.")

    show(list(records), chosen, table, key="name")
