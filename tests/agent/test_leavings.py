"""What a run left over: kept at once, merged with what came before, and never in the way of anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import grpc
import pytest

from agent.artifacts import ArtifactSpool, LeftBehind
from agent.core.model import AgentId, ArtifactKind, AttemptId, LeaseKey, Outcome
from agent.leavings import Leavings
from agent.runners.protocol import MergeFailed, Verdict
from agent.runners.results import Results
from tests.agent.test_app import START

TEXT = LeftBehind(name="a.txt", kind=ArtifactKind.OTHER, content=b"text")
REPORT = LeftBehind(name="report.json", kind=ArtifactKind.JSON_REPORT, content=b"{}")
FAILED = Verdict(outcome=Outcome.FAILED, left_behind=(REPORT,))
RETRIED = replace(START, job=replace(START.job, attempt_number=2, secrets=(("TOKEN", "hunter2"),)))


def no_channel() -> grpc.aio.Channel:
    raise AssertionError("nothing is sent before there is an uploader")


@pytest.fixture
def spool(tmp_path: Path) -> ArtifactSpool:
    return ArtifactSpool(tmp_path / "artifacts")


@pytest.fixture
def leavings(spool: ArtifactSpool) -> Leavings:
    return Leavings(spool, no_channel, AgentId("lab"))


def earlier_are(leavings: Leavings, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    async def fetch(_attempt: AttemptId, _key: LeaseKey, folder: Path) -> list[Path]:
        return [folder / name for name in names]

    monkeypatch.setattr(leavings._earlier, "fetch", fetch)


async def kept(leavings: Leavings, spool: ArtifactSpool) -> list[list[str]]:
    """The names of each parcel, once all is kept."""
    await asyncio.wait(leavings._keeping)
    return [[file.name for file in parcel.files] for parcel in spool.parcels()]


async def test_results_are_kept_with_what_a_run_left_and_alone_never(leavings: Leavings, spool: ArtifactSpool) -> None:
    leavings.take(START, Verdict(outcome=Outcome.PASSED), Results())
    assert not leavings._keeping
    leavings.take(START, FAILED, Results())
    assert await kept(leavings, spool) == [["results.json", "report.json"]]


async def test_report_of_all_attempts_is_a_parcel_of_its_own_without_secrets(
    leavings: Leavings, spool: ArtifactSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier_are(leavings, monkeypatch, "attempt-1.zip")
    merged: list[list[str]] = []

    async def merge(earlier: Sequence[Path]) -> tuple[LeftBehind, ...]:
        merged.append([path.name for path in earlier])
        return (replace(TEXT, name="merged/junit.xml", content=b"it said hunter2"),)

    leavings.take(RETRIED, replace(FAILED, merge=merge), Results())
    assert await kept(leavings, spool) == [["results.json", "report.json"], ["merged/junit.xml"]]
    assert merged == [["attempt-1.zip"]]
    parcel = list(spool.parcels())[1]
    assert parcel.path(parcel.files[0]).read_bytes() == b"it said ***"


async def test_nothing_is_merged_of_a_first_attempt_or_where_no_other_left_anything(
    leavings: Leavings, spool: ArtifactSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def merge(_earlier: Sequence[Path]) -> NoReturn:
        raise AssertionError("there is nothing to merge")

    earlier_are(leavings, monkeypatch)
    for action in (START, RETRIED):
        leavings.take(action, replace(FAILED, merge=merge), Results())
        assert await kept(leavings, spool) == [["results.json", "report.json"]]


async def test_report_that_cannot_be_made_costs_nothing_else(
    leavings: Leavings, spool: ArtifactSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier_are(leavings, monkeypatch, "attempt-1.zip")
    for error in (MergeFailed("the spec has changed"), ValueError("a mistake")):

        async def merge(_earlier: Sequence[Path], error: Exception = error) -> NoReturn:
            raise error

        leavings.take(RETRIED, replace(FAILED, merge=merge), Results())
        assert await kept(leavings, spool) == [["results.json", "report.json"]]


async def test_run_that_was_ended_from_outside_gets_its_report_unless_it_goes_on_elsewhere(
    leavings: Leavings, spool: ArtifactSpool
) -> None:
    async def merge(earlier: Sequence[Path]) -> tuple[LeftBehind, ...]:
        assert earlier == []
        return (replace(REPORT, name="merged/report.json"),)

    stopped = Verdict(outcome=None, left_behind=(TEXT,), merge=merge)
    leavings.take(START, stopped, Results())
    assert await kept(leavings, spool) == [["results.json", "a.txt"]]
    leavings.take(START, replace(stopped, outcome=Outcome.TIMED_OUT), Results())
    assert await kept(leavings, spool) == [["results.json", "a.txt"], ["merged/report.json"]]
