"""The JUnit report: what CI services make of jobs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from qgjob.cli import junit
from qgjob.errors import UsageError
from tests.cli import records

FAILURE = {"reason": "TEST_FAILED", "message": "expected Welcome", "blame": "test"}


def case_of(title: str, status: str = "passed", error: str | None = None) -> dict[str, Any]:
    return {"id": title, "title": title, "status": status, "seconds": 1.5, "error": error, "attempt": 1}


SKIPPED = case_of("later", "skipped")


def job(job_id: int, status: str, **fields: object) -> dict[str, Any]:
    return {**records.job(job_id), "status": status, **fields}


def parsed(*jobs: dict[str, Any]) -> ET.Element:
    return ET.fromstring(junit.report(jobs))


def children(element: ET.Element) -> list[tuple[str, list[str]]]:
    return [(case.get("name", ""), [child.tag for child in case]) for case in element.iter("testcase")]


def test_a_suite_is_a_job_and_a_case_a_test() -> None:
    report = parsed(
        job(
            7,
            "failed",
            tests=[case_of("logs in"), case_of("fails", "failed", "Error: no\nat x"), SKIPPED],
        ),
        job(8, "completed", tests=[case_of("buys")]),
    )
    assert children(report) == [("logs in", []), ("fails", ["failure"]), ("later", ["skipped"]), ("buys", [])]
    assert {name: report.get(name) for name in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
        "time": "6.000",
    }
    failure = report.find(".//failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("Error: no", "Error: no\nat x")
    assert [suite.get("name") for suite in report] == ["tests/login.spec.js"] * 2


@pytest.mark.parametrize(
    ("status", "tests", "expected"),
    [
        ("failed", [], ["failure"]),
        ("timed_out", [case_of("hangs", "timed_out")], ["failure"]),
        ("timed_out", [case_of("hangs")], ["failure"]),
        ("errored", [case_of("logs in")], ["error"]),
        ("cancelled", [], ["skipped"]),
        ("running", [], ["error"]),
        ("completed", [], []),
    ],
)
def test_what_no_test_explains_is_a_case_of_its_own(
    status: str, tests: list[dict[str, Any]], expected: list[str]
) -> None:
    report = parsed(job(7, status, tests=tests, failure_reason=FAILURE if status != "completed" else None))
    assert [child.tag for case in report.iter("testcase") for child in case] == expected
    assert len(report.findall(".//testcase")) >= 1


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        ("running", "error", ("UNFINISHED", "the test was running when it was last heard of")),
        ("interrupted", "error", ("INTERRUPTED", "the test was interrupted")),
        ("failed", "failure", ("FAILED", "the test failed and said nothing")),
        ("timed_out", "failure", ("TIMED_OUT", "the test ran out of time")),
    ],
)
def test_a_test_that_left_no_error_has_a_reason_in_the_report(status: str, kind: str, told: tuple[str, str]) -> None:
    (found,) = parsed(job(7, "running", tests=[case_of("buys", status)])).iter(kind)
    assert (found.get("type"), found.get("message")) == told


def test_a_job_that_passed_on_a_retry_is_marked_flaky() -> None:
    attempts = [{"failure_reason": FAILURE}, {"failure_reason": None}]
    flaky = {"flaky": True, "attempt": 2, "attempts": attempts}
    report = parsed(job(7, "completed", tests=[case_of("logs in")], **flaky))
    told = report.find(".//flakyFailure")
    assert told is not None
    assert (told.get("type"), told.get("message")) == ("TEST_FAILED", "expected Welcome")
    assert report.get("failures") == "0"
    properties = {one.get("name"): one.get("value") for one in report.iter("property")}
    assert (properties["flaky"], properties["attempts"], properties["job"]) == ("true", "2", "7")
    two = parsed(job(7, "completed", tests=[case_of("a"), case_of("b")], **flaky))
    assert two.find(".//flakyFailure") is None
    assert two.find(".//property[@name='flaky']") is not None


def test_text_that_xml_cannot_hold_is_left_out() -> None:
    error = "\x1b[31mred\x1b[0m \x00\ufffe<&>\n\U0001f600"
    report = parsed(job(7, "failed", tests=[case_of("a\x0b<b>", "failed", error)]))
    failure = report.find(".//failure")
    assert failure is not None
    assert failure.text == "red <&>\n\U0001f600"
    assert report.find(".//testcase[@name='a<b>']") is not None


def test_a_report_without_a_folder_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no report can be written"):
        junit.check_place(tmp_path / "missing" / "report.xml")
    junit.check_place(tmp_path / "report.xml")
