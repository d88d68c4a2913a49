"""A JUnit report of jobs: a suite for each job, a case for each test, as the last attempt that ran it saw it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qgjob.cli.terminal import clean
from qgjob.errors import UsageError

Resource = dict[str, Any]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_OUTCOMES = {
    "failed": "failure",
    "timed_out": "failure",
    "interrupted": "error",
    "running": "error",
    "skipped": "skipped",
}
_WITHOUT_ERROR = {
    "failed": ("FAILED", "the test failed and said nothing"),
    "timed_out": ("TIMED_OUT", "the test ran out of time"),
    "interrupted": ("INTERRUPTED", "the test was interrupted"),
    "running": ("UNFINISHED", "the test was running when it was last heard of"),
}
"""Type and message where a test itself left none."""


def check_place(path: Path) -> None:
    """Check that a report can be written, before anything is run for it.

    Raises:
        UsageError: There is no such folder.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"no report can be written to {path}", hint="give --junit a file in a folder that exists")


def write(path: Path, jobs: Iterable[Resource]) -> None:
    """Write the report.

    Raises:
        UsageError: The file cannot be written.
    """
    try:
        path.write_bytes(report(jobs))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", hint="check --junit") from error


def report(jobs: Iterable[Resource]) -> bytes:
    """Return the report as XML."""
    suites = ET.Element("testsuites", name="qgjob")
    for job in jobs:
        suites.append(_suite(job))
    for name in ("tests", "failures", "errors", "skipped"):
        suites.set(name, str(sum(int(suite.get(name, "0")) for suite in suites)))
    suites.set("time", _seconds(sum(float(suite.get("time", "0")) for suite in suites)))
    ET.indent(suites)
    xml: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return xml + b"\n"


def _suite(job: Resource) -> ET.Element:
    suite = ET.Element("testsuite", name=_text(job["test"]), timestamp=job["start_time"] or job["create_time"])
    if job["device"]:
        suite.set("hostname", _text(job["device"]))
    _add_properties(suite, job)
    cases = [_case(job, test) for test in job["tests"]]
    if not _is_explained(job, cases):
        cases.append(_case_of_job(job))
    if job["flaky"] and len(job["tests"]) == 1:
        # Of several tests nobody remembers which of them it was.
        for attempt in job["attempts"]:
            if attempt["failure_reason"]:
                _add_reason(cases[0], "flakyFailure", attempt["failure_reason"])
    suite.extend(cases)
    kinds = [child.tag for case in cases for child in case]
    counts = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(cases)))
    for name, kind in counts.items():
        suite.set(name, str(kinds.count(kind)))
    suite.set("time", _seconds(sum(float(case.get("time", "0")) for case in cases)))
    return suite


def _add_properties(suite: ET.Element, job: Resource) -> None:
    facts = {
        "job": job["id"],
        "status": job["status"],
        "app_version_id": job["app_version_id"],
        "attempts": job["attempt"],
        "flaky": "true" if job["flaky"] else None,
        "run": job["run"],
        **{f"label.{name}": value for name, value in job["labels"].items()},
    }
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        if value is not None:
            ET.SubElement(properties, "property", name=_text(name), value=_text(str(value)))


def _case(job: Resource, test: Resource) -> ET.Element:
    case = ET.Element("testcase", classname=_text(job["test"]), name=_text(test["title"]))
    case.set("time", _seconds(test["seconds"]))
    kind = _OUTCOMES.get(test["status"])
    if kind is not None:
        told = ET.SubElement(case, kind)
        if test["error"]:
            error = _text(test["error"])
            told.set("message", error.partition("\n")[0])
            told.text = error
        elif test["status"] in _WITHOUT_ERROR:
            reason, message = _WITHOUT_ERROR[test["status"]]
            told.set("type", reason)
            told.set("message", message)
    return case


def _is_explained(job: Resource, cases: list[ET.Element]) -> bool:
    """Whether the tests alone say how the job ended."""
    if job["status"] == "completed":
        return bool(cases)
    return any(child.tag in ("failure", "error") for case in cases for child in case)


def _case_of_job(job: Resource) -> ET.Element:
    """Return a case for what happened outside the tests: nothing ran, or the end came from elsewhere."""
    case = ET.Element("testcase", classname=_text(job["test"]), name=_text(job["test"]), time="0")
    match job["status"]:
        case "completed":
            pass
        case "failed" | "timed_out":
            _add_reason(case, "failure", job["failure_reason"] or {"reason": job["status"].upper(), "message": ""})
        case "cancelled":
            ET.SubElement(case, "skipped", message="cancelled")
        case "errored":
            _add_reason(case, "error", job["failure_reason"] or {"reason": "ERRORED", "message": ""})
        case unfinished:
            _add_reason(case, "error", {"reason": "UNFINISHED", "message": f"the job is {unfinished} and goes on"})
    return case


def _add_reason(case: ET.Element, kind: str, reason: Resource) -> None:
    message = _text(reason["message"])
    told = ET.SubElement(case, kind, type=_text(reason["reason"]), message=message)
    told.text = message


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _text(text: str) -> str:
    """Return text as XML can hold it."""
    return _NOT_XML.sub("", clean(text))
