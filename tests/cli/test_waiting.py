"""`--wait` and `--follow` as a script sees them: stdout, stderr and the exit code of the real program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from qgjob.v1.job_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_COMPLETED,
    JOB_STATE_ERRORED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_TIMED_OUT,
    LOG_STATE_COMPLETE,
    LOG_STATE_OPEN,
    Job,
    JobState,
)
from qgjob.v1.job_service_pb2 import (
    CancelJobsRequest,
    CancelJobsResponse,
    SubmitJobsRequest,
    SubmitJobsResponse,
    WatchJobsRequest,
)
from qgjob.v1.log_pb2 import LogChunk, LogCut
from qgjob.v1.log_service_pb2 import FollowLogsRequest
from tests.cli.coordinator_stand_in import Dropped, Refused, StandIn
from tests.cli.pseudo_terminal import INTERRUPTIBLE
from tests.cli.records import job_message

QGJOB = str(Path(sys.executable).parent / "qgjob")
SUBMIT = ("submit", "--org-id", "qualgent", "--app-version-id", "xyz123", "--test", "tests/login.spec.js")


def start(stand_in: StandIn, *arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "QGJOB_COORDINATOR": stand_in.address}
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, QGJOB, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def run(stand_in: StandIn, *arguments: str) -> tuple[int, str, str]:
    process = start(stand_in, *arguments)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def accept(request: SubmitJobsRequest) -> SubmitJobsResponse:
    return SubmitJobsResponse(jobs=[job_message(7)])


def ended(state: JobState.ValueType) -> Job:
    job = job_message(7, state=state)
    job.device, job.agent, job.attempt = "emulator-1@lab", "lab", 1
    job.start_time.FromJsonString("2026-01-02T03:04:06Z")
    job.end_time.FromJsonString("2026-01-02T03:04:18Z")
    if state != JOB_STATE_COMPLETED:
        job.failure.reason, job.failure.message = "TEST_FAILED", "expected Welcome"
    return job


def running() -> Job:
    job = job_message(7, state=JOB_STATE_RUNNING)
    job.device, job.agent, job.attempt = "emulator-1@lab", "lab", 1
    return job


@pytest.mark.parametrize(
    ("state", "word", "code"),
    [
        (JOB_STATE_COMPLETED, "completed", 0),
        (JOB_STATE_FAILED, "failed", 1),
        (JOB_STATE_TIMED_OUT, "timed_out", 1),
        (JOB_STATE_ERRORED, "errored", 3),
        (JOB_STATE_CANCELLED, "cancelled", 7),
    ],
)
def test_the_exit_code_of_a_wait_is_the_verdict(
    stand_in: StandIn, state: JobState.ValueType, word: str, code: int
) -> None:
    stand_in.submits = [accept]
    stand_in.watches = [lambda request: iter([job_message(7), running(), ended(state)])]
    done, out, err = run(stand_in, *SUBMIT, "--wait")
    assert done == code
    assert [(job["id"], job["status"]) for job in json.loads(out)] == [(7, word)]
    reason = [] if state == JOB_STATE_COMPLETED else ["  TEST_FAILED: expected Welcome"]
    assert err.splitlines() == [
        "job 7 login.spec.js: queued",
        "job 7 login.spec.js: running on emulator-1@lab",
        f"job 7 login.spec.js: {word} on emulator-1@lab after 12s",
        *reason,
    ]


def test_a_dropped_connection_is_told_once_and_no_line_comes_twice(stand_in: StandIn) -> None:
    def breaks(request: WatchJobsRequest) -> Iterator[Job]:
        yield running()
        raise Dropped

    def drops(request: WatchJobsRequest) -> Iterator[Job]:
        raise Dropped

    stand_in.watches = [breaks, drops, lambda request: iter([running(), ended(JOB_STATE_COMPLETED)])]
    done, _, err = run(stand_in, "jobs", "wait", "7")
    assert done == 0
    assert err.splitlines() == [
        "job 7 login.spec.js: running on emulator-1@lab",
        f"the connection was lost (no coordinator answers at {stand_in.address}); trying again",
        "job 7 login.spec.js: completed on emulator-1@lab after 12s",
    ]


def test_a_verdict_counts_though_nobody_reads_the_progress(stand_in: StandIn) -> None:
    def change(request: WatchJobsRequest) -> Iterator[Job]:
        yield running()
        stand_in.heard.wait(30)
        yield ended(JOB_STATE_FAILED)

    stand_in.watches = [change]
    process = start(stand_in, "jobs", "wait", "7", "-o", "id")
    assert process.stderr is not None
    assert process.stderr.readline() == "job 7 login.spec.js: running on emulator-1@lab\n"
    process.stderr.close()
    stand_in.heard.set()
    assert process.stdout is not None
    assert (process.stdout.read(), process.wait(30)) == ("7\n", 1)
    process.stdout.close()


def test_a_followed_log_is_passed_through_byte_for_byte(stand_in: StandIn) -> None:
    def breaks(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=b"one\ntw")
        raise Dropped

    def ends(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=4, data=b"two\x1b[31m\nthree")
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)

    stand_in.follows = [breaks, ends]
    done, out, _ = run(stand_in, "logs", "7", "--follow")
    assert (done, out) == (0, "one\ntwo\x1b[31m\nthree")


def test_a_followed_log_that_cannot_be_written_is_no_bug_and_leaves_the_verdict(stand_in: StandIn) -> None:
    def log(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=b"one\n")
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)

    stand_in.watches = [lambda request: iter([running(), ended(JOB_STATE_FAILED)])]
    stand_in.follows = [log]
    env = {**os.environ, "QGJOB_COORDINATOR": stand_in.address}
    with open("/dev/full", "w") as full:
        command = [QGJOB, "jobs", "wait", "7", "--follow"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env, timeout=60, check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "error: the log of job 7 cannot be written: No space left on device" in lines
    assert "hint: look at this computer; `qgjob logs 7` has the whole log" in lines
    assert "a bug" not in done.stderr


@pytest.mark.parametrize(("state", "code"), [(JOB_STATE_COMPLETED, 0), (JOB_STATE_ERRORED, 3)])
def test_progress_that_cannot_be_written_changes_neither_verdict_nor_result(
    stand_in: StandIn, state: JobState.ValueType, code: int
) -> None:
    stand_in.watches = [lambda request: iter([running(), ended(state)])]
    env = {**os.environ, "QGJOB_COORDINATOR": stand_in.address}
    with open("/dev/full", "w") as full:
        command = [QGJOB, "jobs", "wait", "7", "-o", "id"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, text=True, env=env, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, "7\n")


@pytest.mark.parametrize("command", [("jobs", "wait", "7"), SUBMIT], ids=["wait", "submit"])
def test_a_followed_log_leaves_stdout_to_the_result_where_a_format_was_chosen(
    stand_in: StandIn, command: tuple[str, ...]
) -> None:
    def log(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=b"one\ntwo\n")
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)

    stand_in.submits = [accept]
    stand_in.watches = [lambda request: iter([running(), ended(JOB_STATE_FAILED)])]
    stand_in.follows = [log]
    done, out, err = run(stand_in, *command, "--follow", "-o", "json")
    assert done == 1
    assert [(job["id"], job["status"]) for job in json.loads(out)] == [(7, "failed")]
    lines = err.splitlines()
    assert [line for line in lines if line in ("one", "two")] == ["one", "two"]


def test_json_after_a_wait_has_the_attempts_of_the_jobs(stand_in: StandIn) -> None:
    kept = ended(JOB_STATE_COMPLETED)
    kept.attempts.add(number=1, device="emulator-1@lab")
    stand_in.stored = [kept]
    stand_in.watches = [lambda request: iter([ended(JOB_STATE_COMPLETED)])]
    done, out, err = run(stand_in, "jobs", "wait", "7", "-o", "json")
    (job,) = json.loads(out)
    assert (done, err.count("warning")) == (0, 0)
    assert [one["device"] for one in job["attempts"]] == ["emulator-1@lab"]
    assert [(list(one.filter.ids), one.with_history) for one in stand_in.lists] == [([7], True)]


def test_that_nothing_waits_or_runs_is_said(stand_in: StandIn) -> None:
    assert run(stand_in, "jobs", "active", "-o", "table") == (0, "", "No job waits or runs.\n")


def test_a_list_asks_for_what_happened_to_its_jobs_only_where_it_is_told(stand_in: StandIn) -> None:
    for output in ("json", "jsonl", "table", "id"):
        assert run(stand_in, "jobs", "list", "-o", output)[0] == 0
    assert [request.with_history for request in stand_in.lists] == [True, True, False, False]


def test_a_report_that_cannot_be_written_is_told_and_changes_no_verdict(stand_in: StandIn, tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"

    def fail(request: WatchJobsRequest) -> Iterator[Job]:
        # While the wait goes on its place is taken.
        report.mkdir()
        yield ended(JOB_STATE_FAILED)

    stand_in.watches = [fail]
    done, out, err = run(stand_in, "jobs", "wait", "7", "--junit", str(report), "-o", "id")
    assert (done, out) == (1, "7\n")
    assert err.splitlines()[-1] == f"warning: cannot write {report}: Is a directory"


def test_a_report_goes_without_what_the_coordinator_no_longer_tells(stand_in: StandIn, tmp_path: Path) -> None:
    flaky = ended(JOB_STATE_COMPLETED)
    flaky.flaky, flaky.attempt = True, 2
    stand_in.watches = [lambda request: iter([flaky])]
    done, _, err = run(stand_in, "jobs", "wait", "7", "--junit", str(tmp_path / "junit.xml"))
    assert done == 0
    assert err.splitlines()[-1].startswith("warning: the report lacks the earlier attempts of job 7: ")
    assert 'tests="1"' in (tmp_path / "junit.xml").read_text()


def test_a_wait_that_times_out_says_so_and_how_to_go_on(stand_in: StandIn) -> None:
    def hang(request: WatchJobsRequest) -> Iterator[Job]:
        yield running()
        stand_in.released.wait(30)

    stand_in.submits = [accept]
    stand_in.watches = [hang]
    done, out, err = run(stand_in, *SUBMIT, "--wait", "--wait-timeout", "1s", "-o", "id")
    assert (done, out) == (8, "7\n")
    assert err.splitlines()[-2:] == [
        "error: the wait timed out; 1 of 1 job goes on",
        "hint: wait again with `qgjob jobs wait 7`",
    ]


@pytest.mark.parametrize("has_begun", [True, False], ids=["while it runs", "before anything is told"])
def test_a_wait_that_ends_by_an_error_tells_ids_report_and_how_to_go_on(
    stand_in: StandIn, tmp_path: Path, has_begun: bool
) -> None:
    def refuse(request: WatchJobsRequest) -> Iterator[Job]:
        if has_begun:
            yield running()
        raise Refused(grpc.StatusCode.INTERNAL, "INTERNAL", "the store is broken")

    stand_in.submits = [accept]
    stand_in.watches = [refuse]
    report = tmp_path / "junit.xml"
    done, out, err = run(stand_in, *SUBMIT, "--wait", "-o", "id", "--junit", str(report))
    assert (done, out) == (3, "7\n")
    assert err.splitlines()[-2:] == [
        "error: the store is broken",
        "hint: the coordinator's diagnostics say more; wait again with `qgjob jobs wait 7`",
    ]
    assert 'tests="1" failures="0" errors="1"' in report.read_text()


def test_a_cancel_that_fails_on_an_interrupt_tells_how_to_go_on(stand_in: StandIn) -> None:
    def refuse(request: CancelJobsRequest) -> CancelJobsResponse:
        raise Refused(grpc.StatusCode.INTERNAL, "INTERNAL", "the store is broken")

    stand_in.cancels = [refuse]
    code, err = interrupted(stand_in, "--cancel-on-interrupt", "-o", "id")
    assert code == 3
    assert err.splitlines()[-1].endswith("; wait again with `qgjob jobs wait 7`")


def interrupted(
    stand_in: StandIn, *options: str, signals: tuple[signal.Signals, ...] = (signal.SIGINT,)
) -> tuple[int, str]:
    """Ctrl-C, or other signals, as soon as the job runs."""

    def hang(request: WatchJobsRequest) -> Iterator[Job]:
        yield running()
        stand_in.released.wait(30)

    stand_in.submits = [accept]
    stand_in.watches = [hang, lambda request: iter([ended(JOB_STATE_COMPLETED)])]
    process = start(stand_in, *SUBMIT, "--wait", *options)
    assert process.stderr is not None
    assert process.stderr.readline() == "job 7 login.spec.js: running on emulator-1@lab\n"
    for number in signals:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_ctrl_c_detaches_and_the_printed_command_takes_the_wait_up_again(stand_in: StandIn) -> None:
    assert interrupted(stand_in) == (130, "detached; the jobs go on. Wait again with `qgjob jobs wait 7`\n")
    assert not [request for request in stand_in.asked if isinstance(request, CancelJobsRequest)]
    assert run(stand_in, "jobs", "wait", "7")[0] == 0


def test_ctrl_c_cancels_where_that_was_asked_for(stand_in: StandIn) -> None:
    assert interrupted(stand_in, "--cancel-on-interrupt") == (130, "cancel requested: 7\n")
    assert CancelJobsRequest(job_ids=[7]) in stand_in.asked


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)],
    ids=["Ctrl-C twice", "TERM and Ctrl-C"],
)
def test_signals_that_come_at_once_are_one_interrupt(
    stand_in: StandIn, signals: tuple[signal.Signals, signal.Signals]
) -> None:
    assert interrupted(stand_in, "--cancel-on-interrupt", signals=signals) == (130, "cancel requested: 7\n")


def test_ctrl_c_before_an_answer_says_how_to_submit_nothing_twice(stand_in: StandIn) -> None:
    def hang(request: SubmitJobsRequest) -> SubmitJobsResponse:
        stand_in.heard.set()
        stand_in.released.wait(30)
        return accept(request)

    stand_in.submits = [hang]
    process = start(stand_in, *SUBMIT)
    assert stand_in.heard.wait(30)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    (request,) = stand_in.asked
    assert isinstance(request, SubmitJobsRequest)
    assert process.returncode == 130
    assert err == (
        f"interrupted before the coordinator answered; repeat the same submit with --idempotency-key"
        f" {request.request_id}: nothing is submitted twice\n"
    )


def test_who_made_up_a_key_is_told_that_a_lost_submit_can_be_repeated() -> None:
    submit = ["--coordinator", "127.0.0.1:1", *SUBMIT, "--idempotency-key", "nightly"]
    done = subprocess.run([QGJOB, *submit], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 6
    assert done.stderr.endswith("; repeat the same submit with --idempotency-key nightly: nothing is submitted twice\n")


def test_nobody_at_the_address_is_exit_6_with_a_hint() -> None:
    done = subprocess.run(
        [QGJOB, "--coordinator", "127.0.0.1:1", "jobs", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 6
    assert done.stderr.splitlines() == [
        "error: no coordinator answers at 127.0.0.1:1",
        "hint: start one with `qgjob-coordinator serve`, or name yours with --coordinator or QGJOB_COORDINATOR",
    ]


def test_a_cancel_of_what_runs_says_that_it_was_taken(stand_in: StandIn) -> None:
    def take(request: CancelJobsRequest) -> CancelJobsResponse:
        stopping = running()
        stopping.cancel_requested = True
        return CancelJobsResponse(jobs=[stopping, job_message(8, state=JOB_STATE_CANCELLED)])

    stand_in.cancels = [take]
    code, out, err = run(stand_in, "jobs", "cancel", "7", "8")
    assert (code, err) == (0, "cancel requested: 7\n")
    assert [job["status"] for job in json.loads(out)] == ["running", "cancelled"]


def test_jobs_and_a_label_are_cancelled_together_and_each_job_is_told_once(stand_in: StandIn) -> None:
    stand_in.cancels = [
        lambda request: CancelJobsResponse(
            jobs=[job_message(one, state=JOB_STATE_CANCELLED) for one in request.job_ids]
        ),
        lambda request: CancelJobsResponse(
            jobs=[
                job_message(one, state=JOB_STATE_CANCELLED) for one in (8, 9) if request.filter.labels == {"run": "1"}
            ]
        ),
    ]
    code, out, _ = run(stand_in, "jobs", "cancel", "7", "8", "--label", "run=1", "-o", "id")
    assert (code, out) == (0, "7\n8\n9\n")


def test_a_run_without_jobs_is_not_found(stand_in: StandIn) -> None:
    assert run(stand_in, "jobs", "wait", "--run", "nightly") == (
        5,
        "",
        "error: no job belongs to run 'nightly'\nhint: `qgjob jobs list` shows what there is\n",
    )


def test_a_run_is_waited_for_in_the_order_of_its_submit(stand_in: StandIn) -> None:
    stand_in.stored = [job_message(job_id, state=JOB_STATE_COMPLETED) for job_id in (9, 8)]
    stand_in.watches = [lambda request: iter(stand_in.stored)]
    code, out, _ = run(stand_in, "jobs", "wait", "8", "--run", "nightly", "-o", "id")
    assert (code, out) == (0, "8\n9\n")


def test_an_empty_list_is_an_empty_array(stand_in: StandIn) -> None:
    assert run(stand_in, "jobs", "list") == (0, "[]\n", "")


def test_a_queued_job_is_told_with_its_place(stand_in: StandIn) -> None:
    queued = job_message(7, state=JOB_STATE_QUEUED)
    queued.queue_position = 3
    stand_in.watches = [lambda request: iter([queued, ended(JOB_STATE_COMPLETED)])]
    assert run(stand_in, "jobs", "wait", "7")[2].splitlines()[0] == "job 7 login.spec.js: queued (place 3)"
