"""The program itself: what it loads, and what it says when it is used wrongly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

QGJOB = str(Path(sys.executable).parent / "qgjob")

HEAVY = ("grpc", "google.protobuf", "rich", "asyncio", "sqlalchemy", "pydantic", "structlog", "importlib.metadata")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([QGJOB, *arguments], capture_output=True, text=True, timeout=30, check=False)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['qgjob', '--help']\n"
        "from qgjob.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(done.stderr.split())
    assert "qgjob.cli.main" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("jobs", "lsit"), "did you mean 'list'?"),
        (("submit", "--app-version-id", "x", "--test", "a", "--prioritty", "3"), "--priority"),
        (("status", "job", "--job-id", "abc"), "'abc'"),
        (("submit", "--org-id", "q", "--app-version-id", "x", "--test", "a", "--priority", "9"), "priority 9"),
        (("submit", "--org-id", "q", "--app-version-id", "x", "--test", " "), "test is empty"),
        (("submit", "--org-id", "q", "--app-version-id", "x", "--test", "a", "--target", "toaster"), "'toaster'"),
        (("submit", "--org-id", "q", "--app-version-id", "x", "--test", "a", "--timeout", "soon"), "no span of time"),
        (("submit", "--org-id", "q", "--app-version-id", "x", "--test", "a", "--env", "nothing"), "not K=V"),
        (("submit", "--org-id", "q", "--app-version-id", "x", "--test", "a", "--env", "LD_PRELOAD=x"), "'LD_PRELOAD'"),
        (("submit", "--org-id", "q", "--app-version-id", "x" * 100_000, "--test", "a"), "has 100000 characters"),
        (("jobs", "list", "--priority", "high"), "'high' is no whole number"),
        (("jobs", "wait"), "no job to wait for"),
        (("jobs", "list", "-o", "xml"), "'xml'"),
        (("jobs", "cancel"), "nothing to cancel"),
    ],
)
def test_wrong_use_is_one_clear_line_and_exit_2(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_option_that_resembles_none_gets_no_wild_guess() -> None:
    done = run("submit", "--cunit")
    assert (done.returncode, done.stderr) == (2, "error: there is no option --cunit\nhint: see `qgjob submit --help`\n")


def test_several_jobs_give_the_worst_code() -> None:
    from qgjob.cli.exits import Exit, exit_of

    assert exit_of(["completed", "failed", "errored"]) is Exit.TEST_FAILED
    assert exit_of(["completed", "errored", "cancelled"]) is Exit.LAB_FAULT
    assert exit_of(["cancelled", "completed"]) is Exit.CANCELLED
    assert exit_of(["failed", "running"]) is Exit.WAIT_TIMED_OUT
    assert exit_of(["completed"]) is Exit.OK


def test_control_sequences_are_stripped_from_names() -> None:
    from qgjob.cli.terminal import clean

    assert clean("a\x1b[31mred\x1b[0m\x1b]0;title\x07b\x07\tc") == "aredb\tc"
