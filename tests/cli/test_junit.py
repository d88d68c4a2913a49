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


def attempt_of(number: int, outcome: str, reason: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"number": number, "outcome": outcome, "device": f"phone-{number}", "failure_reason": reason}


LOST = {"reason": "DEVICE_LOST", "message": "phone-1 went away", "blame": "device"}


def failed_in(number: int, title: str, error: str) -> dict[str, Any]:
    return {**case_of(title, "failed", error), "attempt": number}


def test_a_test_that_passed_on_a_retry_has_the_failures_of_all_attempts_before() -> None:
    report = parsed(
        job(
            7,
            "completed",
            flaky=True,
            attempt=3,
            attempts=[attempt_of(1, "failed", FAILURE), attempt_of(2, "failed", FAILURE), attempt_of(3, "passed")],
            tests=[case_of("logs in"), case_of("buys")],
            earlier_failures=[failed_in(1, "buys", "Error: no\nat x"), failed_in(2, "buys", "Error: still no")],
        )
    )
    assert children(report) == [("logs in", []), ("buys", ["flakyFailure", "flakyFailure"])]
    first, second = report.iter("flakyFailure")
    assert (first.get("message"), second.get("message")) == ("Error: no", "Error: still no")
    assert [(child.tag, child.text) for child in first] == [
        ("stackTrace", "Error: no\nat x"),
        ("system-out", "attempt 1 on phone-1"),
    ]
    assert (report.get("failures"), report.get("errors")) == ("0", "0")
    properties = {one.get("name"): one.get("value") for one in report.iter("property")}
    assert (properties["flaky"], properties["attempts"], properties["job"]) == ("true", "3", "7")


def test_a_test_that_never_passed_has_its_first_failure_and_the_reruns() -> None:
    last = {**case_of("buys", "timed_out", "Error: slow"), "attempt": 3, "seconds": 9.0}
    report = parsed(
        job(
            7,
            "failed",
            attempt=3,
            attempts=[attempt_of(number, "failed", FAILURE) for number in (1, 2, 3)],
            failure_reason=FAILURE,
            tests=[last],
            earlier_failures=[failed_in(1, "buys", "Error: no"), failed_in(2, "buys", "Error: still no")],
        )
    )
    (case,) = report.iter("testcase")
    told = [(child.tag, child.get("message")) for child in case]
    reruns = [("rerunFailure", "Error: still no"), ("rerunFailure", "Error: slow")]
    assert told == [("failure", "Error: no"), *reruns]
    assert [rerun.get("time") for rerun in case.iter("rerunFailure")] == ["1.500", "9.000"]
    assert (report.get("tests"), report.get("failures")) == ("1", "1")


def test_a_test_that_was_cut_off_after_a_failure_is_a_failure_and_an_error_again() -> None:
    cut = {**case_of("buys", "interrupted"), "attempt": 2}
    lost = {"attempts": [attempt_of(1, "failed", FAILURE), attempt_of(2, "lost", LOST)], "attempt": 2}
    earlier = [failed_in(1, "buys", "Error: no")]
    report = parsed(job(7, "errored", failure_reason=LOST, tests=[cut], earlier_failures=earlier, **lost))
    assert children(report) == [("buys", ["failure", "rerunError"])]


@pytest.mark.parametrize(
    ("outcome", "status", "expected"),
    [
        ("errored", "completed", ["flakyError"]),
        ("failed", "completed", ["flakyFailure"]),
        ("lost", "errored", ["error", "rerunError"]),
    ],
)
def test_an_attempt_that_failed_outside_of_the_only_case_is_told_there(
    outcome: str, status: str, expected: list[str]
) -> None:
    is_over = status == "completed"
    attempts = [attempt_of(1, outcome, LOST), attempt_of(2, "passed" if is_over else "errored")]
    tests = [case_of("logs in")] if is_over else []
    reason = None if is_over else {"reason": "INSTALL_FAILED", "message": "no room", "blame": "device"}
    report = parsed(job(7, status, tests=tests, attempt=2, attempts=attempts, failure_reason=reason))
    (case,) = report.iter("testcase")
    assert [child.tag for child in case] == expected
    assert (case[-1].get("type"), case[-1].get("message")) == ("DEVICE_LOST", "phone-1 went away")


def test_an_attempt_that_failed_outside_of_several_tests_is_told_beside_them() -> None:
    attempts = [attempt_of(1, "lost", LOST), attempt_of(2, "passed")]
    tests = [case_of("a"), case_of("b")]
    report = parsed(job(7, "completed", flaky=True, tests=tests, attempt=2, attempts=attempts))
    assert children(report) == [("a", []), ("b", [])]
    assert report.findtext(".//system-err") == "attempt 1 on phone-1: DEVICE_LOST: phone-1 went away"


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
