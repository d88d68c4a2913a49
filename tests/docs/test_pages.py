"""What the pages say is there: files, headings, commands, options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import agent.main
import coordinator.main
import qgjob.cli.main
from examples.reference import PLACE, reference

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PROGRAMS: dict[str, Any] = {
    "qgjob": qgjob.cli.main.app,
    "qgjob-agent": agent.main.app,
    "qgjob-coordinator": coordinator.main.app,
}
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The names by which GitHub knows a page's headings."""
    headings = HEADING.findall(CODE.sub("", page.read_text()))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command of ours in the code of a page, lines that go on joined."""
    for block in CODE.findall(page.read_text()):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            for part in re.split(r"  +|\||&(?= |$)|\$\(", line.removeprefix("$ ").removeprefix("- ").strip()):
                if part.split(" ", 1)[0].strip() in PROGRAMS:
                    lexer = shlex.shlex(part, posix=True, punctuation_chars=False)
                    lexer.whitespace_split = True
                    yield list(lexer)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link}: there is no {name}"
        assert target.is_relative_to(ROOT), f"{link} leads out of the project"
        assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_in_a_page_exists_with_its_options(page: Path) -> None:
    for program, *words in commands(page):
        command = get_command(PROGRAMS[program])
        options = set(options_of(command))
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
            options |= set(options_of(command))
        told = {word.split("=")[0].strip("[]") for word in words if re.match(r"\[?--[a-z]", word)}
        assert told <= options | {"--help"}, f"{program} {' '.join(words)}"


def options_of(command: Any) -> Iterator[str]:  # noqa: ANN401 - click's, unexported
    for param in command.params:
        yield from param.opts


def test_pages_are_found_with_their_commands() -> None:
    assert {"README.md", "cli.md", "ci.md"} <= {page.name for page in PAGES}
    found = [words for page in PAGES for words in commands(page)]
    assert len(found) > 40
    assert ["qgjob", "queue", "status"] in found


def test_the_reference_is_what_the_programs_tell() -> None:
    assert PLACE.read_text() == reference()
