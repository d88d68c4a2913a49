"""What a shell is told to complete with: words, and ids of jobs, devices, agents and runs as the lab has them now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from qgjob.cli.fields import STATUSES, TARGETS
from qgjob.cli.globals import FORMATS, GLOBALS
from qgjob.counts import counted
from qgjob.errors import ClientError

if TYPE_CHECKING:
    from qgjob.client import Client

Suggestions = list[tuple[str, str]]
"""Words, each with a line about it."""

MOST_SUGGESTED = 30
MOST_SEARCHED = 200
"""The newest jobs in which runs are looked for."""
ACTIVE = ("queued", "assigned", "running")
ENDED = ("completed", "failed", "errored", "timed_out", "cancelled")


def targets(incomplete: str) -> list[str]:
    """Suggest kinds of devices."""
    return [word for word in TARGETS if word.startswith(incomplete)]


def statuses(incomplete: str) -> list[str]:
    """Suggest states of jobs; after a comma one more."""
    before, comma, begun = incomplete.rpartition(",")
    given = before.split(",")
    return [f"{before}{comma}{word}" for word in STATUSES if word.startswith(begun) and word not in given]


def formats(incomplete: str) -> list[str]:
    """Suggest formats of output."""
    return [word for word in FORMATS if word.startswith(incomplete)]


def runs(context: typer.Context, incomplete: str) -> Suggestions:
    """Suggest runs that jobs were submitted for lately."""

    def read(opened: Client) -> Suggestions:
        from qgjob import resources
        from qgjob.v1.job_pb2 import JobFilter

        counts = Counter(
            job["run"] for job in resources.jobs(opened.list_jobs(JobFilter(), MOST_SEARCHED)) if job["run"]
        )
        return [(run, f"{counted(count, 'job')} of late") for run, count in counts.items()]

    return _suggested(context, incomplete, read)


def active_jobs(context: typer.Context, incomplete: str) -> Suggestions:
    """Suggest jobs that wait or run."""
    return _jobs(context, incomplete, ACTIVE)


def ended_jobs(context: typer.Context, incomplete: str) -> Suggestions:
    """Suggest jobs that have ended."""
    return _jobs(context, incomplete, ENDED)


def jobs(context: typer.Context, incomplete: str) -> Suggestions:
    """Suggest jobs."""
    return _jobs(context, incomplete, ())


def devices(context: typer.Context, incomplete: str) -> Suggestions:
    """Suggest devices."""

    def read(opened: Client) -> Suggestions:
        from qgjob import resources

        found = [resources.device(device) for device in opened.list_devices()]
        return [(device["id"], f"{device['state']} {device['kind']}") for device in found]

    return _suggested(context, incomplete, read)


def agents(context: typer.Context, incomplete: str) -> Suggestions:
    """Suggest agents."""

    def read(opened: Client) -> Suggestions:
        from qgjob import resources

        found = [resources.agent(agent) for agent in opened.list_agents()]
        return [(agent["name"], agent["state"]) for agent in found]

    return _suggested(context, incomplete, read)


def _jobs(context: typer.Context, incomplete: str, statuses: Sequence[str]) -> Suggestions:
    def read(opened: Client) -> Suggestions:
        from qgjob import resources
        from qgjob.cli import fields
        from qgjob.v1.job_pb2 import JobFilter

        wanted = JobFilter(states=fields.status_numbers(list(statuses)))  # type: ignore[arg-type]
        found = resources.jobs(opened.list_jobs(wanted, MOST_SUGGESTED))
        return [(str(job["id"]), f"{job['status']} {job['test']}") for job in found]

    return _suggested(context, incomplete, read)


def _suggested(context: typer.Context, incomplete: str, read: Callable[[Client], Suggestions]) -> Suggestions:
    from qgjob.client import Client
    from qgjob.config import access_of, settings

    given = context.find_root().params
    flags = {name: given.get(name) for name in GLOBALS.flags() if name != "insecure"}
    flags["insecure"] = "true" if given.get("insecure") else None
    try:
        found = settings(flags, given.get("profile"))
        with Client(found["coordinator"].value, access=access_of(found), call_patience_s=0) as opened:
            return [(word, told) for word, told in read(opened) if word.startswith(incomplete)]
    except ClientError:
        # Nobody wants to read of a lab that is away between the words of a command.
        return []
