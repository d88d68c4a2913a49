"""`qgjob doctor`, and the coordinator's release beside ours."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from typing import TYPE_CHECKING

from qgjob.cli import printing, terminal
from qgjob.cli.exits import Exit, exit_of_error
from qgjob.cli.globals import GLOBALS
from qgjob.cli.session import Json, Output, chosen_format, client, show
from qgjob.errors import ClientError
from qgjob.program import stdout_width
from qgjob.resources import Resource

if TYPE_CHECKING:
    from qgjob.checkup import Check
    from qgjob.v1.device_pb2 import Device

WORKING = ("idle", "reserved", "leased")
MOST_TOLD = 3
"""Devices that cannot work, of which the reason is told."""


def doctor(output: Output = None, json: Json = False) -> None:
    """Look whether all is set up and the lab can work.

    Ends with 0 if so, with the code of the call that failed, or with 3 where no agent or no device works.
    """
    from qgjob import checkup

    chosen = chosen_format(output, json)
    checks: list[Check] = []
    code = Exit.OK
    try:
        checks.append(_settings())
        checks.append(_coordinator())
        checks += _lab()
    except ClientError as error:
        # What comes after would only fail of the same.
        checks.append(checkup.check_of_error("coordinator" if checks else "settings", error))
        code = exit_of_error(error)
    if code is Exit.OK and any(check.finding is checkup.Finding.FAILED for check in checks):
        code = Exit.LAB_FAULT
    _show(checks, chosen)
    sys.exit(code)


def _show(checks: list[Check], output: str) -> None:
    from qgjob import checkup

    def table(_records: list[Resource]) -> None:
        for line in checkup.lines(checks, stdout_width()):
            printing.line_out(terminal.clean(line))

    records = [{**dataclasses.asdict(check), "hint": check.hint or None} for check in checks]
    show(records, output, table, key="name")
    sys.stdout.flush()


def _settings() -> Check:
    from qgjob.checkup import passed
    from qgjob.config import access_of, dashboard_of, settings

    found = settings(GLOBALS.flags(), GLOBALS.profile)
    access = access_of(found)
    dashboard_of(found)  # Raises where a submit would.
    shown = ", ".join(
        [
            f"coordinator from {found['coordinator'].source}",
            "with TLS" if access.tls_ca else "without TLS",
            "with a token" if access.has_token else "without a token",
        ]
    )
    return passed("settings", shown)


def _coordinator() -> Check:
    from importlib.metadata import version

    from qgjob.checkup import check_coordinator
    from qgjob.config import access_of, settings

    found = settings(GLOBALS.flags(), GLOBALS.profile)
    return check_coordinator(found["coordinator"].value, access_of(found), version("qgjob"))


def _lab() -> list[Check]:
    from qgjob import resources
    from qgjob.checkup import failed, passed

    with client() as opened:
        agents = Counter(resources.agent(agent)["state"] for agent in opened.list_agents())
        devices = opened.list_devices()
    if agents["connected"]:
        checks = [passed("agents", _counted(agents))]
    else:
        checks = [failed("agents", _counted(agents) or "none", "start one with `qgjob-agent run` on a lab machine")]
    return [*checks, _devices(devices)]


def _devices(devices: list[Device]) -> Check:
    from qgjob import resources
    from qgjob.checkup import failed, passed, warned

    found = [resources.device(device) for device in devices]
    counted = _counted(Counter(device["state"] for device in found))
    unusable = [device for device in found if device["state"] not in WORKING]
    if not found:
        return failed("devices", "none", "an agent brings those of its machine")
    if len(unusable) == len(found):
        return failed("devices", counted, _reasons(unusable))
    return warned("devices", counted, _reasons(unusable)) if unusable else passed("devices", counted)


def _reasons(unusable: list[Resource]) -> str:
    """Return why devices do not work and what to do about it, of the first few."""
    told = [_reason(device) for device in unusable if device["reason"] or device["state"] == "quarantined"]
    more = "`qgjob devices list` tells of all"
    if len(told) <= MOST_TOLD and len(told) == len(unusable):
        return "; ".join(told)
    return "; ".join([*told[:MOST_TOLD], more])


def _reason(device: Resource) -> str:
    """Return why a device does not work. Reasons of agents say what to do; one that people have written may not."""
    told = f"{device['id']} is {device['state']}" + (f": {device['reason']}" if device["reason"] else "")
    if device["state"] == "quarantined":
        return f"{told} (once it is mended: `qgjob devices readmit {device['id']}`)"
    return told


def _counted(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def say_coordinators_release() -> None:
    """Print the release of the coordinator that the settings name; that there is none is no error."""
    from qgjob.checkup import ANSWER_S
    from qgjob.client import Client
    from qgjob.config import access_of, settings

    try:
        found = settings(GLOBALS.flags(), GLOBALS.profile)
        target = found["coordinator"].value
        with Client(target, access=access_of(found), call_patience_s=0) as opened:
            release = opened.release(timeout_s=ANSWER_S) or "of an unknown release"
            printing.line_out(f"coordinator {release} at {terminal.clean(target)}")
    except ClientError as error:
        terminal.say(f"coordinator: {error}")
