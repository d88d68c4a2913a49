"""What people read: whole texts, written by hand."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qgjob import resources
from qgjob.cli import lab_tables, printing, render, words
from tests.cli.records import ago, job, job_message

QUIET: dict[str, object] = {"expected_drain_time": None, "batches": [], "devices": {}}


def lanes(**counts: tuple[int, int]) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = []
    for lane in ("high", "normal", "low"):
        queued, running = counts.get(lane, (0, 0))
        listed.append({"lane": lane, "active": queued + running, "queued": queued, "running": running})
    return listed


def test_the_queue_has_the_layout_that_users_know(capsys: pytest.CaptureFixture[str]) -> None:
    running = job(
        3,
        "tests/checkout.spec.js",
        seconds_ago=250,
        priority=4,
        status="running",
        device="emulator-1",
        start_time=ago(120),
    )
    render.queue_block(
        {
            "lanes": lanes(high=(0, 1), normal=(2, 0)),
            "running": [running],
            "waiting": [job(1, seconds_ago=185), job(2, "tests/signup.spec.js", seconds_ago=42.7)],
            "installs_avoided": 2,
            "seconds_saved": 10.0,
            **QUIET,
        }
    )
    assert capsys.readouterr().out == (
        "Queue Status Summary\n"
        "High Priority Queue:   1 active (0 queued, 1 running)\n"
        "Normal Priority Queue: 2 active (2 queued, 0 running)\n"
        "Low Priority Queue:    0 active (0 queued, 0 running)\n"
        "\n"
        "Active Jobs\n"
        "Running:\n"
        "  Job 3 (P4) - checkout.spec.js on emulator-1 (2m in queue)\n"
        "Waiting in Queue:\n"
        "  Job 1 (P3) - login.spec.js (3m in queue)\n"
        "  Job 2 (P3) - signup.spec.js (42s in queue)\n"
        "\n"
        "Time saved: 10s (avoided 2 app installations)\n"
    )


def test_the_queue_tells_batches_devices_and_when_it_should_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    batch = {"device": "emulator-1", "org_id": "qualgent", "app_version_id": "xyz123", "jobs_done": 2, "jobs_left": 3}
    render.queue_block(
        {
            "lanes": lanes(),
            "running": [],
            "waiting": [],
            "installs_avoided": 1,
            "seconds_saved": 5.0,
            "batches": [batch] * 22,
            "devices": {"idle": 1, "leased": 22},
            "expected_drain_time": ago(-240.9),
        }
    )
    shown = capsys.readouterr().out.partition("qgjob submit`.\n")[2]
    assert shown == (
        "\n"
        "Batches:\n" + "  emulator-1: xyz123 of qualgent, 2 done, 3 to go\n" * 20 + "  ... and 2 more\n"
        "\n"
        "Devices: 1 idle, 22 leased\n"
        "Expected to be empty: in about 4m\n"
        "Time saved: 5s (avoided 1 app installation)\n"
    )


def test_an_empty_queue_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    empty = {"lanes": lanes(), "running": [], "waiting": [], "installs_avoided": 0, "seconds_saved": 0.0, **QUIET}
    render.queue_block(empty)
    assert capsys.readouterr().out.endswith("\nActive Jobs\nNone. Submit a test with `qgjob submit`.\n")


def test_jobs_beyond_what_the_coordinator_lists_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    render.queue_block(
        {
            "lanes": lanes(normal=(7, 0)),
            "running": [],
            "waiting": [job(1)],
            "installs_avoided": 0,
            "seconds_saved": 0.0,
            **QUIET,
        }
    )
    assert "  ... and 6 more\n" in capsys.readouterr().out


def test_a_long_queue_does_not_flood_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    running = [job(number, status="running", device="emulator-1", start_time=ago(1)) for number in range(1, 31)]
    waiting = [job(number) for number in range(31, 1_031)]
    render.queue_block(
        {
            "lanes": lanes(normal=(2_000, 30)),
            "running": running,
            "waiting": waiting,
            "installs_avoided": 0,
            "seconds_saved": 0.0,
            **QUIET,
        }
    )
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 50
    assert [line for line in shown if "more" in line] == ["  ... and 10 more", "  ... and 1980 more"]


def test_a_job_sent_back_to_its_queue_is_told_as_waiting_since_its_submit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = job(1, seconds_ago=3_900, start_time=ago(3_890))
    render.queue_block(
        {
            "lanes": lanes(normal=(1, 0)),
            "running": [],
            "waiting": [again],
            "installs_avoided": 0,
            "seconds_saved": 0.0,
            **QUIET,
        }
    )
    assert "  Job 1 (P3) - login.spec.js (1h 5m in queue)\n" in capsys.readouterr().out


def test_a_job_sent_back_to_its_queue_is_shown_on_no_device_and_as_running_no_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = job(1, device="emulator-1@lab", agent="lab", seconds_ago=3_900, start_time=ago(3_890))
    render.jobs_table([again])
    render.job_block(again, is_verbose=False)
    told = capsys.readouterr().out
    assert "emulator-1" not in told
    assert "Started" not in told
    assert told.splitlines()[1].split()[-1] == "-"
    render.jobs_table([{**again, "status": "running"}])
    told = capsys.readouterr().out
    assert "emulator-1@lab" in told
    assert told.splitlines()[1].split()[-2:] == ["1h", "4m"]


def test_a_failed_job_tells_its_test_its_reason_and_whose_fault_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    record = job(
        7,
        status="failed",
        create_time="2026-01-02T03:04:05.000Z",
        start_time="2026-01-02T03:04:17.500Z",
        end_time="2026-01-02T03:06:20.000Z",
        device="emulator-1@lab",
        agent="lab",
        attempt=1,
        failure_reason={"reason": "TEST_FAILED", "message": "expected Welcome", "blame": "test"},
        tests=[
            {"id": "a", "title": "login > works", "status": "passed", "seconds": 1.25, "error": None, "attempt": 1},
            {
                "id": "b",
                "title": "login > fails\x1b[31m",
                "status": "failed",
                "seconds": 61.0,
                "error": "expected Welcome\ngot nothing",
                "attempt": 1,
            },
        ],
    )
    render.job_block(record, is_verbose=False)
    shown = capsys.readouterr().out.splitlines()
    submitted = shown.pop(6)
    assert submitted.startswith("Submitted:      2026-01-02T03:04:05.000Z (")
    assert shown == [
        "Job:            7",
        "Status:         failed",
        "Test:           tests/login.spec.js",
        "App version:    xyz123 of qualgent",
        "Priority:       3 (normal lane)",
        "Target:         any",
        "Started:        2026-01-02T03:04:17.500Z (after 12s in queue)",
        "Ended:          2026-01-02T03:06:20.000Z (ran 2m 2s)",
        "Device:         emulator-1@lab of agent lab",
        "Reason:         TEST_FAILED: expected Welcome (blame: test)",
        "  passed      login > works (1.2s)",
        "  failed      login > fails (1m 1s)",
        "      expected Welcome",
        "      got nothing",
    ]


def test_tests_of_several_attempts_tell_which_one_ran_them(capsys: pytest.CaptureFixture[str]) -> None:
    tests = [
        {"id": title, "title": title, "status": "passed", "seconds": 1.0, "error": None, "attempt": attempt}
        for title, attempt in (("before", 1), ("after", 2))
    ]
    render.job_block(job(7, status="completed", attempt=2, tests=tests), is_verbose=False)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  passed      before (1s, attempt 1)",
        "  passed      after (1s, attempt 2)",
    ]


def test_verbose_tells_what_was_asked_for_and_all_that_happened(capsys: pytest.CaptureFixture[str]) -> None:
    lost = {
        "number": 1,
        "outcome": "lost",
        "device": "emulator-1@lab",
        "agent": "lab",
        "assign_time": "2026-01-02T03:04:06.500Z",
        "install_time": None,
        "install_seconds": None,
        "start_time": None,
        "end_time": "2026-01-02T03:06:20.000Z",
        "failure_reason": {"reason": "AGENT_LOST", "message": "its agent\nwas lost", "blame": "host"},
        "build_digest": "0123456789abcdef0123456789abcdef",
        "log": "truncated",
        "log_size": 0,
    }
    passed = {
        **lost,
        "number": 2,
        "outcome": "passed",
        "device": "emulator-2@lab",
        "assign_time": "2026-01-02T03:06:21.000Z",
        "install_time": "2026-01-02T03:06:24.500Z",
        "install_seconds": 3.2,
        "start_time": "2026-01-02T03:06:25.000Z",
        "end_time": "2026-01-02T03:06:35.000Z",
        "failure_reason": None,
    }
    test = {"id": "a", "title": "shop > pays", "status": "passed", "start_time": "2026-01-02T03:06:26.000Z"}
    tests = [
        {**test, "seconds": 4.0, "error": None, "attempt": 2},
        # Of an agent that does not tell when.
        {**test, "id": "b", "start_time": None, "seconds": 1.0, "error": None, "attempt": 2},
    ]
    record = job(7, attempts=[lost, passed], tests=tests)
    asked = {"labels": {"pr": "7", "suite": "smoke"}, "selector": {"model": "Pixel*"}, "run": "nightly", "retries": 2}
    times = {"create_time": "2026-01-02T03:04:05.000Z", "end_time": "2026-01-02T03:06:35.000Z"}
    render.job_block({**record, **asked, **times, "status": "completed"}, is_verbose=True)
    assert capsys.readouterr().out.partition("Limits:")[2] == (
        "         10m an attempt, 2 retries\n"
        "Run:            nightly\n"
        "Selector:       model=Pixel*\n"
        "Labels:         pr=7, suite=smoke\n"
        "  passed      shop > pays (4s)\n"
        "  passed      shop > pays (1s)\n"
        "Timeline:\n"
        "  +0s      queued\n"
        "  +1.5s    attempt 1 assigned to emulator-1@lab of agent lab\n"
        "  +2m 15s  attempt 1 lost: its agent was lost\n"
        "  +2m 16s  attempt 2 assigned to emulator-2@lab of agent lab\n"
        "  +2m 19s  attempt 2 had its build installed in 3.2s\n"
        "  +2m 20s  attempt 2 started, on build sha256 0123456789abcdef\n"
        "  +2m 25s    shop > pays: passed\n"
        "  +2m 30s  attempt 2 passed\n"
        "  +2m 30s  completed\n"
    )


def test_a_test_begins_as_long_after_its_attempt_as_the_agent_says() -> None:
    message = job_message(7)
    attempt = message.attempts.add(number=2)
    attempt.start_time.FromJsonString("2026-01-02T03:04:06.250Z")
    message.tests.add(id="told", attempt=2).start_offset.FromMilliseconds(1_500)
    message.tests.add(id="untold", attempt=2)
    message.tests.add(id="of an attempt that is not there", attempt=1).start_offset.FromMilliseconds(1)
    assert [one["start_time"] for one in resources.job(message)["tests"]] == ["2026-01-02T03:04:07.750Z", None, None]


@pytest.mark.parametrize(
    ("show", "said"),
    [
        (render.jobs_table, "No jobs. Submit one with `qgjob submit`.\n"),
        (lab_tables.devices_table, "No devices. Start an agent with `qgjob-agent run`.\n"),
        (lab_tables.agents_table, "No agents. Start one with `qgjob-agent run`.\n"),
        (
            lab_tables.builds_table,
            "No build was registered or installed yet. Upload one with `qgjob builds upload`.\n",
        ),
    ],
)
def test_an_empty_table_says_what_to_do_next_on_stderr(
    show: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(show)
    show([])
    assert capsys.readouterr() == ("", said)


def test_devices_and_agents_keep_their_whole_names_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    device = {
        "id": "browserstack-1@lab",
        "state": "leased",
        "kind": "browserstack",
        "job": 12,
        "model": "BrowserStack slot (simulated)",
        "platform": "android",
        "os_version": "14",
        "utilisation": 0.5,
        "reason": None,
    }
    lab_tables.devices_table([device])
    assert capsys.readouterr().out == (
        "ID                  State   Kind          Job  Used  Reason\n"
        "browserstack-1@lab  leased  browserstack  12   50%\n"
    )


DEVICE = {
    "id": "emulator-1@lab",
    "state": "idle",
    "kind": "emulator",
    "job": None,
    "model": "Pixel",
    "platform": "android",
    "os_version": "14",
    "utilisation": 0.5,
    "reason": None,
}


def test_reason_of_a_held_device_is_seen_on_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lab_tables.devices_table([{**DEVICE, "state": "quarantined", "reason": "its screen is broken"}])
    assert "its screen is broken" in capsys.readouterr().out


def test_phone_that_nobody_could_ask_yet_has_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    lab_tables.devices_table([{**DEVICE, "model": "", "os_version": ""}])
    assert capsys.readouterr().out.splitlines()[1].split() == ["emulator-1@lab", "idle", "emulator", "-", "50%", "-"]


def test_no_colour_means_no_control_sequence_at_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    lab_tables.devices_table([DEVICE])
    assert "\x1b[32midle" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    lab_tables.devices_table([DEVICE])
    assert "\x1b" not in capsys.readouterr().out


def test_a_terminal_without_the_ellipsis_gets_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    monkeypatch.setenv("COLUMNS", "50")
    render.jobs_table([job(1, "tests/a/long/way/down/login.spec.js")])
    assert b"  ~" in written.getvalue()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\u2029", "\x85"])
def test_a_line_end_in_a_name_does_not_break_the_table(end: str, capsys: pytest.CaptureFixture[str]) -> None:
    lab_tables.devices_table([{**DEVICE, "id": f"one{end}two@lab"}])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_json_escapes_the_controls_that_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    printing.jsonl_out({"test": "a\x9b31m\u202eb\x1b"})
    shown = capsys.readouterr().out
    assert shown == '{"test": "a\\u009b31m\\u202eb\\u001b"}\n'
    assert json.loads(shown) == {"test": "a\x9b31m\u202eb\x1b"}


@pytest.mark.parametrize(
    ("seconds", "fine", "rough"),
    [
        (-3.0, "0s", "0s"),
        (0.42, "0.4s", "0s"),
        (9.97, "9s", "9s"),
        (59.9, "59s", "59s"),
        (60.0, "1m", "1m"),
        (130.0, "2m 10s", "2m"),
        (601.0, "10m", "10m"),
        (3_600.0, "1h", "1h"),
        (7_500.0, "2h 5m", "2h 5m"),
        (172_800.0, "2d", "2d"),
    ],
)
def test_spans_read_as_people_say_them(seconds: float, fine: str, rough: str) -> None:
    assert (words.span(seconds), words.rough_span(seconds)) == (fine, rough)


UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


@given(st.floats(0, 10**9))
def test_a_rough_span_is_never_too_long_and_names_the_last_whole_unit(seconds: float) -> None:
    units = words.rough_span(seconds).split()
    told = sum(int(unit[:-1]) * UNITS[unit[-1]] for unit in units)
    smallest = UNITS[units[-1][-1]] if seconds < 3_600 or seconds >= 172_800 else 60
    assert 0 <= seconds - told < smallest


def test_what_is_overdue_may_come_any_moment() -> None:
    assert words.until("2026-01-02T03:04:05.000Z") == "any moment"
    assert words.until("2999-01-02T03:04:05.000Z").startswith("in about ")
    assert words.until(None) == "-"


def test_what_a_test_says_of_its_failure_is_one_line_that_no_terminal_obeys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    message = "Error: \x1b[31mexpected\x1b]0;a title\x07 Welcome, but saw\nsomething\telse"
    told = job(7, status="failed", labels={"suite": "\x1b[2Jsmoke"})
    told["failure_reason"] = {"reason": "TEST_FAILED", "message": message, "blame": "test"}
    render.job_block(told, is_verbose=True)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "Error: expected Welcome, but saw something else (blame: test)" in " ".join(shown.split())
    assert "suite=smoke" in shown
