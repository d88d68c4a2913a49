"""What every command shares: settings, a client, output, and errors as people read them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from qgjob.cli import completion, printing, terminal
from qgjob.cli.globals import FORMATS, GLOBALS
from qgjob.errors import ClientError, UsageError
from qgjob.resources import Resource

if TYPE_CHECKING:
    from qgjob.client import Client
    from qgjob.config import Setting

Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FORMAT",
        help="table, json, jsonl or id; default: a table on a terminal, else JSON.",
        autocompletion=completion.formats,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="The same as -o json.")]


def chosen_format(output: str | None, is_json: bool) -> str:
    """Return the output format: flag, then QGJOB_OUTPUT and files, then what stdout is.

    Raises:
        UsageError: There is no such format.
    """
    found = _asked_format(output, is_json)
    if found is None:
        return "table" if sys.stdout.isatty() else "json"
    if found.value not in FORMATS:
        raise UsageError(
            f"output {found.value!r} (from {found.source}) is unknown", hint=f"use one of {', '.join(FORMATS)}"
        )
    return found.value


def is_format_asked_for(output: str | None, is_json: bool) -> bool:
    """Whether somebody chose a format, so that stdout is for the result in it and for nothing else."""
    return _asked_format(output, is_json) is not None


def _asked_format(output: str | None, is_json: bool) -> Setting | None:
    from qgjob.config import settings

    return settings({"output": "json" if is_json else output}, GLOBALS.profile).get("output")


def _tell_lost(error: ClientError) -> None:
    terminal.say(f"the connection was lost ({error}); trying again")


@contextmanager
def client(on_lost: Callable[[ClientError], None] = _tell_lost) -> Iterator[Client]:
    """Open the coordinator that the settings name."""
    from qgjob.client import Client
    from qgjob.config import access_of, settings

    found = settings(GLOBALS.flags(), GLOBALS.profile)
    with Client(found["coordinator"].value, access=access_of(found), on_lost=on_lost) as opened:
        yield opened


def dashboard() -> str:
    """Return the address of the coordinator's pages; empty where the settings name none.

    Raises:
        UsageError: They name something else.
    """
    from qgjob.config import dashboard_of, settings

    return dashboard_of(settings({}, GLOBALS.profile))


def organisation() -> str | None:
    """Return the organisation that the settings name, None where they name none."""
    from qgjob.config import settings

    found = settings({}, GLOBALS.profile).get("org_id")
    return found.value if found is not None else None


def show(
    records: list[Resource],
    output: str,
    table: Callable[[list[Resource]], None],
    *,
    key: str = "id",
) -> None:
    """Print a list: JSON array, one JSON object a line, ids, or a table."""
    match output:
        case "json":
            printing.json_out(records)
        case "jsonl":
            for record in records:
                printing.jsonl_out(record)
        case "id":
            for record in records:
                printing.line_out(str(record[key]))
        case _:
            table(records)


def show_one(record: Resource, output: str, block: Callable[[Resource], None], *, key: str = "id") -> None:
    """Print one item: a JSON object, its id, or what a person reads."""
    match output:
        case "json":
            printing.json_out(record)
        case "jsonl":
            printing.jsonl_out(record)
        case "id":
            printing.line_out(str(record[key]))
        case _:
            block(record)
