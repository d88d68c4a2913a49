"""Help: what stands there for a value, and how a number outside its bounds is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer._click.exceptions import BadParameter
from typer._click.types import FloatRange, IntRange
from typer.main import get_command
from typer.testing import CliRunner

import agent.main
import coordinator.main
import qgjob.cli.main
from qgjob.cli.exits import Exit
from qgjob.cli.main import EXIT_CODES
from qgjob.counts import counted
from qgjob.parameters import Bounded

PROGRAMS: dict[str, typer.Typer] = {
    "qgjob": qgjob.cli.main.app,
    "qgjob-agent": agent.main.app,
    "qgjob-coordinator": coordinator.main.app,
}
OF_A_LIBRARY = re.compile(r"<\w+( range)?>|<=?x|x[<>]=?|[{}]")


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401 - click's, unexported
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_of_every_command_names_values_as_people_do_and_fits_80_columns(program: str) -> None:
    paths = list(commands(get_command(PROGRAMS[program])))
    assert len(paths) > 2
    for path in paths:
        shown = CliRunner().invoke(PROGRAMS[program], [*path, "-h"], env={"COLUMNS": "80"})
        assert shown.exit_code == 0, path
        assert shown.stdout.startswith("Usage: ")
        for line in shown.stdout.splitlines():
            plain = line.replace("{app_version_id}", "APP")
            assert not OF_A_LIBRARY.search(plain), f"{program} {' '.join(path)}: {line}"
            assert len(line) <= 80


@pytest.mark.parametrize(
    ("bounds", "placeholder", "typed", "said"),
    [
        (IntRange(0, 16), "0-16", "17", "17 is more than 16"),
        (IntRange(1, 2**63 - 1), "N", "0", "0 is less than 1"),
        (IntRange(1, 2**63 - 1), "N", str(2**63), f"{2**63} is more than {2**63 - 1}"),
        (FloatRange(0.5), "N", "0.25", "0.25 is less than 0.5"),
    ],
)
def test_bounds_are_numbers_and_no_inequality(
    bounds: IntRange | FloatRange, placeholder: str, typed: str, said: str
) -> None:
    bounded = Bounded(bounds)
    assert bounded.placeholder == placeholder
    with pytest.raises(BadParameter, match=re.escape(said)):
        bounded.convert(typed, None, None)
    assert bounded.convert("1", None, None) == 1


def test_a_number_of_things_is_told_as_people_say_it() -> None:
    assert [counted(count, "job") for count in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]
    assert [counted(count, "retry") for count in (1, 3)] == ["1 retry", "3 retries"]


def test_help_and_the_page_tell_every_exit_code() -> None:
    told = {int(code) for code in re.findall(r"\b\d+\b", EXIT_CODES)}
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert told == table == {code.value for code in Exit}
