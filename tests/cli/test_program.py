"""The program itself: what it loads, and what it says when it is used wrongly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

QGJOB = str(Path(sys.executable).parent / "qgjob")

HEAVY = ("grpc", "google.protobuf", "rich", "asyncio", "sqlalchemy", "pydantic", "structlog", "importlib.metadata")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([QGJOB, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['qgjob', '--help']\n"
        "from qgjob.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stderr.split())
    assert "qgjob.cli.main" in loaded
    assert [name for name in HEAVY if name in loaded] == []


SUBMIT = ("submit", "--org-id", "q", "--app-version-id", "x", "--test", "a")


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
        ((*SUBMIT, "--secret", "NOBODY_SET_THIS"), "hint: export it"),
        ((*SUBMIT, "--secret", "=x"), "without a name"),
        ((*SUBMIT, "--secret", "PIN=123"), "secret 'PIN' has fewer than 4 characters"),
        ((*SUBMIT, "--secret", "LD_PRELOAD=long"), "secret 'LD_PRELOAD' is refused"),
        ((*SUBMIT, "--secret", "A=long", "--env", "A=x"), "with --env and with --secret"),
        ((*SUBMIT, "--secret", "A=long", "--secret", "A=other"), "'A' is given twice"),
        (("submit", "--org-id", "q", "--app-version-id", "x" * 100_000, "--test", "a"), "has 100000 characters"),
        (("jobs", "list", "--priority", "high"), "'high' is no whole number"),
        (("jobs", "wait"), "no job to wait for"),
        (("submit", "tests/a.spec.ts"), "there is no place for tests/a.spec.ts"),
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
    done = run("submit", "--quux")
    assert (done.returncode, done.stderr) == (2, "error: there is no option --quux\nhint: see `qgjob submit --help`\n")


@pytest.mark.parametrize("name", ["qgjob", "qgjob-coordinator", "qgjob-agent"])
def test_every_program_tells_its_release(name: str) -> None:
    program = Path(sys.executable).parent / name
    nobody = {**os.environ, "QGJOB_COORDINATOR": "127.0.0.1:1"}
    done = subprocess.run(
        [str(program), "--version"], capture_output=True, text=True, timeout=60, check=True, env=nobody
    )
    assert done.stdout == f"{name} {version('qgjob')}\n"
    assert done.stderr == ("coordinator: no coordinator answers at 127.0.0.1:1\n" if name == "qgjob" else "")


@pytest.mark.parametrize("module", ["coordinator.main", "agent.main"])
def test_the_release_and_help_of_a_server_load_nothing_heavy(module: str) -> None:
    heavy = ("grpc", "google.protobuf", "rich", "asyncio", "sqlalchemy", "structlog", "fastapi", "prometheus_client")
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
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
            "error: refusing to listen on 0.0.0.0 without --tls-cert with --tls-key and --token-file:"
            " whoever reaches it can run code on your lab\n"
            "hint: add what is missing, listen on 127.0.0.1, or add --insecure on a network that you trust\n",
        ),
        (
            (
                *("qgjob-coordinator", "serve", "--listen", "127.0.0.1:0"),
                *("--database-url", "postgresql+psycopg://127.0.0.1:1/x"),
            ),
            "error: database postgresql+psycopg://127.0.0.1:1/x: connection failed:"
            ' connection to server at "127.0.0.1",'
            " port 1 failed: Connection refused Is the server running on that host and accepting TCP/IP connections?\n"
            "hint: check --database-url, QGJOB_DATABASE_URL or DATABASE_URL: does it name a database that answers?\n",
        ),
        (
            ("qgjob-agent", "run", "--virtual-phones", "2"),
            "error: virtual phones have nothing to run\nhint: add --workspace DIR with an AppWright project\n",
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
        timeout=60,
        check=False,
        env={"HOME": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.parametrize(
    ("options", "variables", "wins"),
    [
        ((), {"DATABASE_URL": "third"}, "third"),
        ((), {"DATABASE_URL": "third", "QGJOB_DATABASE_URL": "second"}, "second"),
        (("--database-url", "postgresql+psycopg://127.0.0.1:1/first"), {"QGJOB_DATABASE_URL": "second"}, "first"),
    ],
    ids=["DATABASE_URL", "QGJOB_DATABASE_URL", "flag"],
)
def test_the_database_is_named_by_flag_then_our_variable_then_the_usual_one(
    options: tuple[str, ...], variables: dict[str, str], wins: str, tmp_path: Path
) -> None:
    named = {name: f"postgresql+psycopg://127.0.0.1:1/{database}" for name, database in variables.items()}
    command = [str(Path(sys.executable).parent / "qgjob-coordinator"), "serve", "--listen", "127.0.0.1:0", *options]
    done = subprocess.run(
        [*command, "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"HOME": str(tmp_path), **named},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: database postgresql+psycopg://127.0.0.1:1/{wins}: connection failed: ")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("simulate = 5", "simulate = 5 is no text"),
        ('sim_test_seconds = "x"', "sim_test_seconds = 'x' is no number"),
        ("adb_port = 1.5", "adb_port = 1.5 is no whole number"),
        ("virtual_phones = true", "virtual_phones = True is no whole number"),
        ("drain_grace = -1", "drain_grace = -1 is out of range"),
        ('nme = "x"', "nme is no setting"),
        ("x = [", "is no TOML"),
    ],
)
def test_a_broken_agent_toml_is_one_clear_line(line: str, said: str, tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(line + "\n")
    program = Path(sys.executable).parent / "qgjob-agent"
    command = [str(program), "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {config}")
    assert said in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


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


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("--version", 0, "coordinator: the coordinator at {} did not answer in time"),
        ("doctor", 6, "the coordinator at {} did not answer in time"),
    ],
)
def test_who_asks_how_things_are_does_not_wait_long_for_an_address_that_swallows_calls(
    command: str, code: int, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [QGJOB, "--coordinator", address, command], capture_output=True, text=True, timeout=12, check=False
        )
    assert done.returncode == code
    assert said.format(address) in done.stdout + done.stderr


def run_with(defect: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program with a function of `qgjob jobs list` that does something else."""
    code = f"""
import sys, threading
import qgjob.cli.jobs
from qgjob.cli.main import main

def defect(*_):
    {defect}

qgjob.cli.jobs.chosen_format = defect
sys.argv = {["qgjob", "jobs", "list", *arguments]!r}
main()
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_bug_of_the_program_is_told_as_one_and_is_no_verdict() -> None:
    done = run_with("raise KeyError('state')")
    assert done.returncode == 70
    assert done.stdout == ""
    assert done.stderr == (
        "error: a bug in qgjob, not a fault of the lab or of a test: KeyError: 'state'\n"
        f"hint: report it with what the same command prints with --debug; this is qgjob {version('qgjob')}\n"
    )


def test_debug_shows_the_trace_of_a_bug_before_the_same_line_and_code() -> None:
    done = run_with("raise KeyError('state')", "--debug")
    assert done.returncode == 70
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.splitlines()[-2:] == [
        "error: a bug in qgjob, not a fault of the lab or of a test: KeyError: 'state'",
        f"hint: report it with the trace above; this is qgjob {version('qgjob')}",
    ]


def test_debug_changes_no_exit_code() -> None:
    done = run("--coordinator", "127.0.0.1:1", "jobs", "list", "--debug")
    assert done.returncode == 6
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    assert done.stderr.splitlines()[-2] == "error: no coordinator answers at 127.0.0.1:1"


def test_a_bug_on_a_thread_is_told_without_a_trace() -> None:
    done = run_with("thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join(); sys.exit(7)")
    assert done.returncode == 7
    assert done.stderr.startswith("error: a bug in qgjob, not a fault of the lab or of a test: ZeroDivisionError: ")
    assert "Traceback" not in done.stderr


def test_a_result_that_cannot_be_written_is_this_computers_fault() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [QGJOB, "config", "view"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 74
    assert done.stderr == "error: No space left on device\nhint: look at this computer; the lab and its jobs go on\n"


@pytest.mark.parametrize(("closing", "out"), [("2>&-", "coordinator"), (">&-", "")])
def test_a_stream_that_the_caller_closed_is_no_bug(closing: str, out: str) -> None:
    command = f"'{QGJOB}' config view -o jsonl {closing}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert out in done.stdout
    command = f"'{QGJOB}' --coordinator 127.0.0.1:1 jobs list {closing}"
    assert subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False).returncode == 6
