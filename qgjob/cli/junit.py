"""A JUnit report of jobs: a suite for each job, a case for each test, with the failures of all attempts."""

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
_BAD = frozenset({"failed", "timed_out", "interrupted", "running"})
_LAB_OUTCOMES = frozenset({"errored", "lost"})
"""Of attempts that came to no verdict about the test."""
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
    cases = [_case(job, tries) for tries in _tries(job)]
    if not _is_explained(job, cases):
        cases.append(_case_of_job(job))
    suite.extend(cases)
    _add_earlier_reasons(suite, job, cases)
    kinds = [child.tag for case in cases for child in case]
    counts = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(cases)))
    for name, kind in counts.items():
        suite.set(name, str(kinds.count(kind)))
    suite.set("time", _seconds(sum(float(case.get("time", "0")) for case in cases)))
    return suite


def _tries(job: Resource) -> list[list[Resource]]:
    """Return, of each test, the results that tell something: where attempts failed, and the last, the oldest first."""
    earlier: dict[str, list[Resource]] = {}
    for failed in job["earlier_failures"]:
        earlier.setdefault(failed["id"], []).append(failed)
    return [[*earlier.get(test["id"], ()), test] for test in job["tests"]]


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


def _case(job: Resource, tries: list[Resource]) -> ET.Element:
    """Return the case of a test, with its failures as Maven Surefire tells those of tests that run again.

    One that did not pass in the end has its first failure as any other, and those after it as reruns.
    """
    *earlier, last = tries
    first = tries[0] if last["status"] in _BAD else last
    case = ET.Element("testcase", classname=_text(job["test"]), name=_text(last["title"]))
    case.set("time", _seconds(first["seconds"]))
    kind = _OUTCOMES.get(first["status"])
    if kind is not None:
        told = ET.SubElement(case, kind)
        told.attrib.update(_reason_of(first))
        told.text = _text(first["error"]) if first["error"] else None
    again = tries[1:] if first is not last else earlier
    for one in again:
        prefix = "rerun" if last["status"] in _BAD else "flaky"
        told = ET.SubElement(case, f"{prefix}{_OUTCOMES[one['status']].capitalize()}", _reason_of(one))
        told.set("time", _seconds(one["seconds"]))
        _add_trace(told, _text(one["error"] or ""), _place(job, one["attempt"]))
    return case


def _reason_of(test: Resource) -> dict[str, str]:
    """Return what a test says of its failure, as attributes."""
    if test["error"]:
        return {"message": _text(test["error"]).partition("\n")[0]}
    if test["status"] in _WITHOUT_ERROR:
        reason, message = _WITHOUT_ERROR[test["status"]]
        return {"type": reason, "message": message}
    return {}


def _add_trace(told: ET.Element, trace: str, place: str) -> None:
    ET.SubElement(told, "stackTrace").text = trace
    ET.SubElement(told, "system-out").text = place


def _place(job: Resource, number: int) -> str:
    """Say which attempt it was, and where it ran."""
    device = next((one["device"] for one in job["attempts"] if one["number"] == number), None)
    return _text(f"attempt {number} on {device}" if device else f"attempt {number}")


def _add_earlier_reasons(suite: ET.Element, job: Resource, cases: list[ET.Element]) -> None:
    """Tell of earlier attempts that went wrong outside of the tests; of several tests it was none in particular."""
    told = {test["attempt"] for test in (*job["earlier_failures"], *job["tests"]) if test["status"] in _BAD}
    earlier = [one for one in job["attempts"][:-1] if one["failure_reason"] and one["number"] not in told]
    if len(cases) == 1:
        prefix = "rerun" if any(child.tag in ("failure", "error") for child in cases[0]) else "flaky"
        for one in earlier:
            kind = "Error" if one["outcome"] in _LAB_OUTCOMES else "Failure"
            again = ET.SubElement(cases[0], prefix + kind, _attributes_of(one["failure_reason"]))
            _add_trace(again, _text(one["failure_reason"]["message"]), _place(job, one["number"]))
    elif earlier:
        reasons = ((_place(job, one["number"]), one["failure_reason"]) for one in earlier)
        lines = (f"{place}: {reason['reason']}: {reason['message']}" for place, reason in reasons)
        ET.SubElement(suite, "system-err").text = _text("\n".join(lines))


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
    told = ET.SubElement(case, kind, _attributes_of(reason))
    told.text = told.get("message")


def _attributes_of(reason: Resource) -> dict[str, str]:
    return {"type": _text(reason["reason"]), "message": _text(reason["message"])}


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _text(text: str) -> str:
    """Return text as XML can hold it."""
    return _NOT_XML.sub("", clean(text))
