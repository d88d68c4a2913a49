"""What the program heeds of its surroundings: settings of files and variables, the locale, a CI service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from qgjob.cli import ci, main
from qgjob.v1.job_pb2 import JOB_STATE_COMPLETED, JOB_STATE_RUNNING, LOG_STATE_COMPLETE, LOG_STATE_OPEN, Job
from qgjob.v1.job_service_pb2 import SubmitJobsRequest, SubmitJobsResponse
from qgjob.v1.log_pb2 import LogChunk, LogCut
from qgjob.v1.log_service_pb2 import FollowLogsRequest
from tests.cli.coordinator_stand_in import StandIn
from tests.cli.records import job_message

QGJOB = str(Path(sys.executable).parent / "qgjob")
NOBODY = "127.0.0.1:1"
ASCII_ONLY = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""The C locale, which Python would else take for UTF-8."""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A user who has set nothing."""
    (tmp_path / "config" / "qgjob").mkdir(parents=True)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("QGJOB_", "LC_"))}
    return {**plain, "XDG_CONFIG_HOME": str(tmp_path / "config")}


def run(env: dict[str, str], *arguments: str | bytes, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([QGJOB, *arguments], capture_output=True, env=env, cwd=folder, timeout=60, check=False)


def write_settings(env: dict[str, str], text: str) -> None:
    (Path(env["XDG_CONFIG_HOME"]) / "qgjob" / "config.toml").write_text(text, encoding="utf-8")


# Settings


@pytest.mark.parametrize("way", ["before the command", "after it", "by its variable"])
def test_a_profile_is_chosen_wherever_it_is_named(env: dict[str, str], stand_in: StandIn, way: str) -> None:
    write_settings(
        env, f'coordinator = "{NOBODY}"\n[profiles.lab]\ncoordinator = "{stand_in.address}"\noutput = "id"\n'
    )
    stand_in.stored = [job_message(7)]
    command = ["jobs", "list"]
    if way == "by its variable":
        env = {**env, "QGJOB_PROFILE": "lab"}
    elif way == "after it":
        command = [*command, "--profile", "lab"]
    else:
        command = ["--profile", "lab", *command]
    done = run(env, *command)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"7\n", b"")


def test_a_profile_that_nobody_wrote_is_named_with_its_file(env: dict[str, str]) -> None:
    write_settings(env, f'coordinator = "{NOBODY}"\n')
    done = run(env, "jobs", "list", "--profile", "lba")
    place = Path(env["XDG_CONFIG_HOME"]) / "qgjob" / "config.toml"
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"error: there is no profile 'lba' in {place}\nhint: add a table [profiles.lba]\n"


def test_the_output_is_chosen_by_flag_then_variable_then_what_stdout_is(env: dict[str, str], stand_in: StandIn) -> None:
    env["QGJOB_COORDINATOR"] = stand_in.address
    stand_in.stored = [job_message(7)]
    assert json.loads(run(env, "jobs", "list").stdout)[0]["id"] == 7
    env["QGJOB_OUTPUT"] = "jsonl"
    assert run(env, "jobs", "list").stdout.startswith(b'{"id": 7, ')
    assert run(env, "jobs", "list", "-o", "id").stdout == b"7\n"
    assert run(env, "jobs", "list", "--json").stdout.startswith(b"[\n")


def test_an_output_that_does_not_exist_is_named_with_where_it_came_from(env: dict[str, str]) -> None:
    done = run({**env, "QGJOB_OUTPUT": "yaml"}, "jobs", "list")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (
        "error: output 'yaml' (from QGJOB_OUTPUT) is unknown\nhint: use one of table, json, jsonl, id\n"
    )


# The locale


def odd_job() -> Job:
    job = job_message(7, test="tests/größe ☃.spec.js")
    job.spec.labels["übung"] = "日本"
    return job


def test_a_locale_without_utf8_gets_json_that_says_the_same(env: dict[str, str], stand_in: StandIn) -> None:
    env |= {"QGJOB_COORDINATOR": stand_in.address, **ASCII_ONLY}
    stand_in.stored = [odd_job()]
    done = run(env, "jobs", "list")
    assert (done.returncode, done.stderr) == (0, b"")
    (job,) = json.loads(done.stdout.decode("ascii"))
    assert (job["test"], job["labels"]) == ("tests/größe ☃.spec.js", {"übung": "日本"})


def test_a_locale_without_utf8_gets_a_table_and_progress_with_escapes(env: dict[str, str], stand_in: StandIn) -> None:
    env |= {"QGJOB_COORDINATOR": stand_in.address, **ASCII_ONLY}
    ended = odd_job()
    ended.state = JOB_STATE_COMPLETED
    ended.end_time.FromJsonString("2026-01-02T03:04:18Z")
    stand_in.stored = [ended]
    stand_in.watches = [lambda request: iter([ended])]
    done = run(env, "jobs", "list", "-o", "table")
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"tests/gr\xf6\xdfe \u2603.spec.js" in done.stdout
    waited = run(env, "jobs", "wait", "7", "-o", "id")
    assert (waited.returncode, waited.stdout) == (0, b"7\n")
    assert waited.stderr == b"job 7 gr\\xf6\\xdfe \\u2603.spec.js: completed\n"


def test_a_locale_without_utf8_changes_no_byte_of_a_log(env: dict[str, str], stand_in: StandIn) -> None:
    log = "größe ☃\n".encode() + b"\xff\xfe no text\n"

    def tell(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=log)
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)

    stand_in.follows = [tell]
    done = run({**env, "QGJOB_COORDINATOR": stand_in.address, **ASCII_ONLY}, "logs", "7")
    assert (done.returncode, done.stdout, done.stderr) == (0, log, b"")


def test_files_are_read_and_written_as_utf8_whatever_the_locale(
    env: dict[str, str], stand_in: StandIn, tmp_path: Path
) -> None:
    ended = odd_job()
    ended.state = JOB_STATE_COMPLETED
    ended.end_time.FromJsonString("2026-01-02T03:04:18Z")
    stand_in.submits = [lambda request: SubmitJobsResponse(jobs=[odd_job()])]
    stand_in.watches = [lambda request: iter([ended])]
    write_settings(env, f'coordinator = "{stand_in.address}"\norg_id = "größe"\n')
    (tmp_path / "manifest.toml").write_text(
        'app_version_id = "x"\n[[specs]]\ntest = "tests/größe ☃.spec.js"\n', encoding="utf-8"
    )
    done = run(
        {**env, **ASCII_ONLY}, "submit", "--from", "manifest.toml", "--junit", "r.xml", "-o", "id", folder=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, b"7\n")
    asked = stand_in.asked[0]
    assert isinstance(asked, SubmitJobsRequest)
    assert (asked.jobs[0].org_id, asked.jobs[0].test) == ("größe", "tests/größe ☃.spec.js")
    assert "größe ☃.spec.js" in (tmp_path / "r.xml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("test", "more"),
    [("tests/größe.spec.js".encode(), ASCII_ONLY), (b"tests/gr\xf6\xdfe.spec.js", {"LC_ALL": "C.UTF-8"})],
    ids=["no UTF-8 locale", "no UTF-8 typed"],
)
def test_a_name_that_cannot_be_read_is_refused_with_what_to_do(
    env: dict[str, str], test: bytes, more: dict[str, str]
) -> None:
    done = run({**env, **more}, "submit", "--org-id=q", "--app-version-id=x", b"--test=" + test)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: test 'tests/gr\\udc")
    assert done.stderr.endswith(b"' is not UTF-8\nhint: check the locale of your shell\n")


# A CI service


def test_a_wait_in_ci_gives_signs_of_life_and_elsewhere_none(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    has_beaten = threading.Event()
    hearts = 0

    def quick(read: Callable[[], str]) -> AbstractContextManager[None]:
        nonlocal hearts
        hearts += 1

        def tell() -> str:
            told = read()
            if "running" in told:
                has_beaten.set()
            return told

        return heartbeat(tell, every_s=0.01)

    def watch(request: object) -> Iterator[Job]:
        yield job_message(7, state=JOB_STATE_RUNNING)
        if is_in_ci:
            assert has_beaten.wait(60)
        ended = job_message(7, state=JOB_STATE_COMPLETED)
        ended.end_time.FromJsonString("2026-01-02T03:04:18Z")
        yield ended

    heartbeat = ci.heartbeat
    monkeypatch.setattr(ci, "heartbeat", quick)
    # The program sets these for its whole process; that of the tests has other uses for them.
    monkeypatch.setattr(main, "heed_first_interrupt", lambda: None)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.setenv("QGJOB_COORDINATOR", stand_in.address)
    monkeypatch.setattr(sys, "argv", ["qgjob", "jobs", "wait", "7", "-o", "id"])
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE"):
        monkeypatch.delenv(name, raising=False)
    for is_in_ci in (True, False):
        if is_in_ci:
            monkeypatch.setenv("GITLAB_CI", "true")
        else:
            monkeypatch.delenv("GITLAB_CI")
        stand_in.watches = [watch]
        with pytest.raises(SystemExit) as ended:
            main.main()
        shown = capsys.readouterr()
        assert (ended.value.code, shown.out) == (0, "7\n")
        assert ("waiting: 1 running\n" in shown.err) is is_in_ci
        assert hearts == 1, "only in CI there is one"
