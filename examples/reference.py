"""Writes docs/reference.md: every command and option of the three programs, as the programs themselves tell them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

import agent.main
import coordinator.main
import qgjob.cli.main

PLACE = Path(__file__).parent.parent / "docs" / "reference.md"
HEAD = """# Reference

Every command and option, as `--help` tells them; `make reference` writes this page anew. [cli.md](cli.md) says what
comes of them: output, exit codes, settings.
"""
# What --help of the whole program has: the same for each.
OF_ALL = frozenset({"help", "install_completion", "show_completion"})


def reference() -> str:
    """Return the page."""
    parts = [HEAD]
    for app in (qgjob.cli.main.app, coordinator.main.app, agent.main.app):
        command = get_command(app)
        parts += _command(command, command.make_context(str(command.name), [], resilient_parsing=True))
    return "\n".join(parts)


def _command(command: Any, context: Any) -> Iterator[str]:  # noqa: ANN401 - click's, which Typer does not export
    """Yield a command's part of the page, and then those of the commands below it."""
    below = (
        [command.get_command(context, name) for name in command.list_commands(context)] if _is_group(command) else []
    )
    told = [
        (param, *record)
        for param in command.get_params(context)
        if param.name not in OF_ALL and (record := param.get_help_record(context)) is not None
    ]
    # A group without options of its own only leads on.
    if told or not below:
        yield f"## {context.command_path}\n"
        yield f"{_plain(command.help or '')}\n"
        yield f"    {' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n"
        if told:
            yield "| option | meaning |\n|---|---|"
            yield "\n".join(f"| `{_cell(name)}` | {_cell(meaning)} |" for _, name, meaning in told) + "\n"
    for one in below:
        yield from _command(one, one.make_context(one.name, [], parent=context, resilient_parsing=True))


def _is_group(command: Any) -> bool:  # noqa: ANN401 - click's, which Typer does not export
    return hasattr(command, "list_commands")


def _plain(text: str) -> str:
    """Return help as paragraphs of one line each."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*" if "`" not in text else "*").replace("  [", " [")


def main(arguments: list[str]) -> None:
    """Write the page, or with --check end with 1 where it is not what it would be."""
    if arguments != ["--check"]:
        PLACE.write_text(reference(), encoding="utf-8")
    elif PLACE.read_text(encoding="utf-8") != reference():
        sys.exit("error: docs/reference.md is not what the programs tell\nhint: run `make reference`")


if __name__ == "__main__":
    main(sys.argv[1:])
