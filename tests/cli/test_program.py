"""The program itself: what it loads, and what it says when it is used wrongly."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
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


@pytest.mark.parametrize("name", ["qgjob", "qgjob-coordinator", "qgjob-agent"])
def test_every_program_tells_its_release(name: str) -> None:
    program = Path(sys.executable).parent / name
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"{name} {version('qgjob')}\n"


@pytest.mark.parametrize("module", ["coordinator.main", "agent.main"])
def test_the_release_and_help_of_a_server_load_nothing_heavy(module: str) -> None:
    heavy = ("grpc", "google.protobuf", "rich", "asyncio", "sqlalchemy", "structlog")
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    loaded = set(done.stdout.split())
    assert module in loaded
    assert [name for name in heavy if name in loaded] == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            ("qgjob-coordinator", "serve", "--lisen", "x"),
            "error: there is no option --lisen\nhint: did you mean --listen?\n",
        ),
        (("qgjob-coordinator", "srve"), "error: no such command 'srve'\nhint: did you mean 'serve'?\n"),
        (
            ("qgjob-coordinator", "serve", "--heartbeat", "soon"),
            "error: invalid value for '--heartbeat': 'soon' is no number\nhint: see `qgjob-coordinator serve --help`\n",
        ),
        (
            ("qgjob-coordinator", "serve", "--listen", "0.0.0.0:0"),
            "error: refusing to listen on 0.0.0.0 in the clear: whoever reaches it can run code on your lab\n"
            "hint: listen on 127.0.0.1, or add --insecure on a network that you trust\n",
        ),
        (
            ("qgjob-agent", "run", "--simulat", "x"),
            "error: there is no option --simulat\nhint: did you mean --simulate?\n",
        ),
        (
            ("qgjob-agent", "run"),
            "error: this agent would have no device\nhint: add --workspace DIR with an AppWright project, or"
            " --simulate emulator=2 to try the grid out\n",
        ),
    ],
)
def test_a_server_started_wrongly_says_so_in_a_line_and_a_hint(
    command: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(program), *command[1:]],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={"HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


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
