"""Colours of states: everywhere the same, and never without the word."""

from __future__ import annotations

import pytest

from qgjob.cli import render, styles
from qgjob.cli.terminal import STDERR
from qgjob.v1.agent_pb2 import AgentState
from qgjob.v1.device_pb2 import DeviceState
from qgjob.v1.job_pb2 import AttemptOutcome, JobState, TestState


@pytest.fixture
def in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.usefixtures("in_colour")
@pytest.mark.parametrize("enum", [JobState, DeviceState, AgentState, AttemptOutcome, TestState])
def test_every_state_has_a_colour(enum: type[JobState]) -> None:
    from qgjob.resources import word

    for state in (word(enum, value) for value in enum.values() if value):
        shown = styles.painted(state)
        assert shown.startswith("\x1b["), state
        assert state in shown


@pytest.mark.usefixtures("in_colour")
def test_an_agent_that_drains_has_the_colour_of_what_drains() -> None:
    draining = styles.painted("draining")
    assert styles.painted("connected, draining") == draining.replace("draining", "connected, draining")


@pytest.mark.usefixtures("in_colour")
def test_a_message_has_the_colour_that_a_table_has(capsys: pytest.CaptureFixture[str]) -> None:
    styles.say_with_state("job 7 a\x1b[31m.spec.ts: ", "failed", " on \x1b[32mphone")
    shown = styles.painted("failed", STDERR)
    assert capsys.readouterr().err == f"job 7 a.spec.ts: {shown} on phone\n"
    assert shown == styles.painted("failed")


def test_no_color_and_a_pipe_leave_the_word_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert styles.painted("failed") == "failed"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert styles.painted("failed") == "failed"


@pytest.mark.usefixtures("in_colour")
def test_the_state_of_one_job_why_it_waits_and_the_devices_of_the_queue_are_coloured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.explanation_lines({"id": 7, "status": "queued", "message": "no device"})
    lanes = [{"lane": "high", "active": 0, "queued": 0, "running": 0}]
    totals: dict[str, object] = {
        "installs_avoided": 0,
        "seconds_saved": 0.0,
        "expected_drain_time": None,
        "batches": [],
    }
    render.queue_block({"lanes": lanes, "running": [], "waiting": [], "devices": {"idle": 2}, **totals})
    shown = capsys.readouterr().out
    assert f"Job 7 ({styles.painted('queued')})" in shown
    assert f"Devices: 2 {styles.painted('idle')}" in shown
