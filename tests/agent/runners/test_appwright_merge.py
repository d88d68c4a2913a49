"""The events of several attempts as those of one, without Playwright: what it makes of them is tested with phones."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from agent.core.model import ArtifactKind
from agent.runners.appwright_merge import Cut, combined, pack, read_run
from agent.runners.protocol import MergeFailed

Event = dict[str, Any]
CUT = Cut(status="timedOut", message="it ran too long")


def project(*tests: str) -> Event:
    entries = [{"testId": test, "title": test} for test in tests]
    suites = [{"title": "a.spec.ts", "entries": [{"title": "inner", "entries": entries}]}]
    return {"method": "onProject", "params": {"project": {"name": "qgjob", "suites": suites}}}


def began(test: str, result: str, start: int = 0) -> Event:
    return {
        "method": "onTestBegin",
        "params": {"testId": test, "result": {"id": result, "retry": 0, "startTime": start}},
    }


def ended(test: str, result: str, status: str = "passed") -> Event:
    return {"method": "onTestEnd", "params": {"test": {"testId": test}, "result": {"id": result, "status": status}}}


def run(tmp_path: Path, number: int, tests: str, *events: Event, end: tuple[str, int] | None = None) -> Path:
    """Pack the events of an attempt; without an end it was cut off."""
    folder = tmp_path / str(number)
    (folder / "blob").mkdir(parents=True)
    told: list[Event] = [{"method": "onBlobReportMetadata", "params": {"version": 2}}]
    told += [{"method": "onConfigure", "params": {"config": {"rootDir": f"/attempt-{number}"}}}, project(*tests)]
    told += [{"method": "onBegin"}, *events]
    if end is not None:
        result = {"status": end[0], "startTime": end[1], "duration": 10}
        told.append({"method": "onEnd", "params": {"result": result}})
    (folder / "blob" / "report.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in told))
    packed = pack(folder)
    assert packed is not None
    return packed.path


def merged(*paths: Path) -> list[tuple[str, Any]]:
    """What is told of results, and how it ends."""
    told: list[tuple[str, Any]] = []
    for event in combined([read_run(path) for path in paths], CUT):
        match event["method"]:
            case "onTestBegin":
                told.append((event["params"]["testId"], event["params"]["result"]["retry"]))
            case "onTestEnd":
                told.append((event["params"]["test"]["testId"], event["params"]["result"]["status"]))
            case "onEnd":
                told.append(("end", event["params"]["result"]))
            case _:
                pass
    return told


def test_spec_that_was_cut_off_and_went_on_is_whole_and_the_test_that_was_cut_counts_once(tmp_path: Path) -> None:
    first = run(tmp_path, 1, "abc", began("a", "1", 100), ended("a", "1"), began("b", "2"))
    second = run(
        tmp_path, 2, "bc", began("b", "3"), ended("b", "3"), began("c", "4"), ended("c", "4"), end=("passed", 500)
    )
    result = {"status": "passed", "startTime": 0, "duration": 510}
    assert merged(first, second) == [
        ("a", 0),
        ("a", "passed"),
        ("b", 0),
        ("b", "passed"),
        ("c", 0),
        ("c", "passed"),
        ("end", result),
    ]
    (told,) = [event for event in combined([read_run(first), read_run(second)], CUT) if event["method"] == "onProject"]
    assert told == project("a", "b", "c"), "the whole spec, and not its rest"


def test_time_that_ran_out_before_the_next_test_began_is_told_of_that_test(tmp_path: Path) -> None:
    cut_off = run(tmp_path, 1, "abc", began("a", "1", 100), ended("a", "1"), end=("interrupted", 200))
    result = {"status": "timedout", "startTime": 100, "duration": 110}
    assert merged(cut_off) == [("a", 0), ("a", "passed"), ("b", 0), ("b", "timedOut"), ("end", result)]
    told = [event for event in combined([read_run(cut_off)], CUT) if event["method"] == "onTestEnd"]
    assert told[-1]["params"]["result"]["errors"] == [{"message": "it ran too long"}]


def test_run_that_tells_of_a_failure_gets_no_other(tmp_path: Path) -> None:
    cut_off = run(tmp_path, 1, "ab", began("a", "1"), ended("a", "1", "failed"), end=("failed", 200))
    assert merged(cut_off)[:-1] == [("a", 0), ("a", "failed")]


def test_test_that_passed_on_a_retry_has_a_try_for_each_attempt(tmp_path: Path) -> None:
    first = run(tmp_path, 1, "a", began("a", "1"), ended("a", "1", "failed"), end=("failed", 1))
    second = run(tmp_path, 2, "a", began("a", "2"), ended("a", "2", "interrupted"), end=("interrupted", 2))
    third = run(tmp_path, 3, "a", began("a", "3"), ended("a", "3"), end=("passed", 3))
    told = merged(first, second, third)
    assert told[:-1] == [("a", 0), ("a", "failed"), ("a", 1), ("a", "passed")]
    assert told[-1][1]["status"] == "passed"


def test_spec_that_has_changed_between_its_attempts_is_not_merged(tmp_path: Path) -> None:
    first = run(tmp_path, 1, "ab", end=("failed", 1))
    second = run(tmp_path, 2, "bc", end=("passed", 1))
    with pytest.raises(MergeFailed, match="has changed"):
        merged(first, second)


@pytest.mark.parametrize("version", [1, 3, None])
def test_report_of_an_unknown_playwright_is_not_read(tmp_path: Path, version: int | None) -> None:
    path = tmp_path / "report.zip"
    with zipfile.ZipFile(path, "w") as archive:
        told = {"method": "onBlobReportMetadata", "params": {"version": version}}
        archive.writestr("report.jsonl", json.dumps(told))
    with pytest.raises(MergeFailed, match="2 is known"):
        read_run(path)


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.zip"
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(MergeFailed, match="cannot be read"):
        read_run(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("report.jsonl", '[1]\n{"method": ')
    with pytest.raises(MergeFailed, match="no onBlobReportMetadata"):
        read_run(path)


def test_only_what_lies_in_the_folder_of_the_run_is_packed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "blob").mkdir(parents=True)
    (out / "test-results").mkdir()
    (out / "test-results" / "1.png").write_bytes(b"png")
    (out / "test-results" / "link").symlink_to("/etc/hostname")
    (out / "blob" / "report.jsonl").write_text("{}\n")
    attached = [
        (out / "test-results" / "1.png", "resources/1.png"),
        (out / "test-results" / "1.png", "../elsewhere.png"),
        (out / "test-results" / "link", "resources/link.txt"),
        (Path("/etc/hostname"), "resources/host.txt"),
        (out / "nowhere", "resources/2.png"),
    ]
    lines = [json.dumps({"originalPath": str(path), "zipEntryPath": name}) for path, name in attached]
    (out / "blob" / "attachments.jsonl").write_text("\n".join(lines))
    packed = pack(out)
    assert packed is not None
    assert (packed.name, packed.kind) == ("blob.zip", ArtifactKind.BLOB_REPORT)
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.namelist() == ["report.jsonl", "resources/1.png"]
    assert pack(tmp_path / "empty") is None


def test_test_that_was_at_work_when_its_run_was_ended_has_the_reason(tmp_path: Path) -> None:
    first = run(tmp_path, 1, "ab", began("a", "1", 10), ended("a", "1"), began("b", "2", 30))
    told = merged(first)
    assert told[:-1] == [("a", 0), ("a", "passed"), ("b", 0), ("b", "timedOut")]
    assert told[-1] == ("end", {"status": "timedout", "startTime": 10, "duration": 20})
    (cut,) = [event for event in combined([read_run(first)], CUT) if event["method"] == "onTestEnd"][1:]
    assert cut["params"]["result"]["errors"] == [{"message": "it ran too long"}]


def test_test_that_playwright_itself_calls_interrupted_has_the_reason_too(tmp_path: Path) -> None:
    told = merged(run(tmp_path, 1, "a", began("a", "1"), ended("a", "1", "interrupted"), end=("interrupted", 0)))
    assert told == [("a", 0), ("a", "timedOut"), ("end", {"status": "timedout", "startTime": 0, "duration": 10})]
