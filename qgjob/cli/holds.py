"""`qgjob agents drain|resume|forget`, `qgjob devices quarantine|drain|readmit`: keep work off, and let it in again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from qgjob.cli import completion, fields, lab_tables, printing, terminal
from qgjob.cli.command import Command
from qgjob.cli.exits import Exit
from qgjob.cli.session import Json, Output, chosen_format, client, show_one
from qgjob.resources import Resource

if TYPE_CHECKING:
    from qgjob.client import Client
    from qgjob.v1.device_pb2 import Device

LOOK_S = 0.5

Name = Annotated[
    str, typer.Argument(help="The agent, as `qgjob agents list` has it.", autocompletion=completion.agents)
]
DeviceId = Annotated[
    str, typer.Argument(help="The device, as `qgjob devices list` has it.", autocompletion=completion.devices)
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="What people are told.")]


def add_to(*, agents: typer.Typer, devices: typer.Typer) -> None:
    """Add the commands to their groups."""
    agents.command("drain", cls=Command)(drain_agent)
    agents.command("resume", cls=Command)(resume_agent)
    agents.command("forget", cls=Command)(forget_agent)
    devices.command("quarantine", cls=Command)(quarantine_device)
    devices.command("drain", cls=Command)(drain_device)
    devices.command("readmit", cls=Command)(readmit_device)


def drain_agent(
    name: Name,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline", metavar="SPAN", help="End what still runs after this, as in 30m; it runs again elsewhere."
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the agent holds nothing.")] = False,
    output: Output = None,
    json: Json = False,
) -> None:
    """Give an agent no new work, and wait until it holds none. Nothing counts as failed by it."""
    chosen = chosen_format(output, json)
    deadline_s = fields.span_s(deadline, "deadline") if deadline is not None else None
    with client() as opened:
        opened.drain_agent(name)
        if no_wait:
            drained = _agent(opened, name)
        else:
            try:
                drained = _wait_until_drained(opened, name, deadline_s, chosen)
            except KeyboardInterrupt:
                terminal.say(f"detached; {name} goes on draining. `qgjob agents resume {name}` lets it work again")
                sys.exit(Exit.INTERRUPTED)
    if chosen != "jsonl" or no_wait:
        show_one(drained, chosen, lambda agent: terminal.say(_story(agent)), key="name")


def _wait_until_drained(opened: Client, name: str, deadline_s: float | None, chosen: str) -> Resource:
    begun = time.monotonic()
    told: tuple[object, ...] = ()
    while True:
        agent = _agent(opened, name)
        jobs = [device["job"] for device in _devices(opened, name) if device["job"]]
        news = (agent["batches"], jobs)
        if news != told:
            told = news
            if chosen == "jsonl":
                printing.jsonl_out({**agent, "jobs": jobs})
            else:
                terminal.say(_progress(agent, jobs))
        if not agent["batches"]:
            return agent
        if deadline_s is not None and time.monotonic() - begun >= deadline_s:
            terminal.say("the deadline has passed: what still runs is ended, and runs again elsewhere")
            opened.drain_agent(name, interrupt=True)
            deadline_s = None
        time.sleep(LOOK_S)


def _agent(opened: Client, name: str) -> Resource:
    from qgjob import resources

    return next(resources.agent(agent) for agent in opened.list_agents() if agent.id == name)


def _devices(opened: Client, name: str) -> list[Resource]:
    from qgjob import resources

    return [resources.device(device) for device in opened.list_devices() if device.agent == name]


def _progress(agent: Resource, jobs: list[int]) -> str:
    if not agent["batches"]:
        return f"{agent['name']} holds no batch"
    running = f", job {', '.join(map(str, jobs))} running" if jobs else ""
    batches = "1 batch" if agent["batches"] == 1 else f"{agent['batches']} batches"
    return f"{agent['name']} still holds {batches}{running}"


def _story(agent: Resource) -> str:
    if agent["batches"]:
        return f"{agent['name']} is draining. `qgjob agents list` shows how many batches it still holds"
    return f"{agent['name']} is drained. `qgjob agents resume {agent['name']}` lets it work again"


def resume_agent(name: Name, output: Output = None, json: Json = False) -> None:
    """Let a drained agent work again. Devices that are held one by one stay held."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        agent = resources.agent(opened.resume_agent(name))
    show_one(agent, chosen, lambda one: terminal.say(f"{one['name']} gets work again"), key="name")


def forget_agent(name: Name, output: Output = None, json: Json = False) -> None:
    """Forget an agent that will not come back, and its devices. What it ran is kept."""
    from qgjob import resources

    chosen = chosen_format(output, json)
    with client() as opened:
        agent = resources.agent(opened.forget_agent(name))
    show_one(agent, chosen, lambda one: terminal.say(_forgotten(one)), key="name")


def _forgotten(agent: Resource) -> str:
    count = agent["devices"]
    if not count:
        return f"{agent['name']} is forgotten; it had no devices"
    theirs = "is its device" if count == 1 else f"are its {count} devices"
    return f"{agent['name']} is forgotten, and so {theirs}"


def quarantine_device(device: DeviceId, reason: Reason = "", output: Output = None, json: Json = False) -> None:
    """Keep new work off a device with which something is wrong. What runs on it ends."""
    _show_device(lambda opened: opened.quarantine_device(device, reason), output, is_json=json)


def drain_device(device: DeviceId, reason: Reason = "", output: Output = None, json: Json = False) -> None:
    """Keep new work off a device that is needed for something else. What runs on it ends."""
    _show_device(lambda opened: opened.drain_device(device, reason), output, is_json=json)


Gone = Annotated[
    bool, typer.Option("--gone", help="Its host will not come back: let another have a device that is fencing.")
]


def readmit_device(device: DeviceId, gone: Gone = False, output: Output = None, json: Json = False) -> None:
    """Let a held device work again."""
    readmitted = _show_device(lambda opened: opened.readmit_device(device, host_is_gone=gone), output, is_json=json)
    if readmitted["state"] == "fencing":
        terminal.say(_fencing(readmitted, is_said_gone=gone))


def _fencing(device: Resource, *, is_said_gone: bool) -> str:
    waits = f"{device['id']} waits until its agent, {device['agent']}, has confirmed that nothing runs on it any more"
    if is_said_gone:
        return f"{waits}; that agent is connected, so its host is not gone"
    return f"{waits}. If its host is gone for good: qgjob devices readmit {device['id']} --gone"


def _show_device(ask: Callable[[Client], Device], output: str | None, *, is_json: bool) -> Resource:
    from qgjob import resources

    chosen = chosen_format(output, is_json)
    with client() as opened:
        device = resources.device(ask(opened))
    show_one(device, chosen, lambda one: lab_tables.devices_table([one]))
    return device
