"""What the operator is told of builds on their way to accounts of clouds."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from coordinator.core.model import SECOND_US, AgentId, Upload, changed
from coordinator.core.step import PutUpload
from coordinator.story import Story

BEGUN = Upload(account="lab@cloud", digest="ab" * 32, agent=AgentId("cloud-1"), begin_us=10 * SECOND_US)
BROUGHT = changed(BEGUN, end_us=52 * SECOND_US, url="bs://1")
GIVEN_UP = changed(BEGUN, end_us=52 * SECOND_US)
FIELDS = {"account": "lab@cloud", "build": "abababababab", "agent": "cloud-1"}


def told(*uploads: Upload) -> list[dict[str, Any]]:
    story = Story()
    with capture_logs() as lines:
        for upload in uploads:
            story.tell([PutUpload(upload)])
    assert all(line.items() >= FIELDS.items() for line in lines)
    return [dict(line) for line in lines]


def test_upload_is_told_when_it_begins_and_when_the_build_is_there() -> None:
    begun, done = told(BEGUN, BROUGHT)
    assert (begun["event"], begun["log_level"]) == ("upload_begun", "info")
    assert (done["event"], done["url"], done["took_s"]) == ("upload_done", "bs://1", 42.0)


def test_upload_that_ends_without_the_build_being_there_is_a_warning() -> None:
    _, given_up = told(BEGUN, GIVEN_UP)
    assert (given_up["event"], given_up["log_level"]) == ("upload_given_up", "warning")
    assert given_up["story"].startswith("cloud-1 ended its claim or stayed away")


def test_build_that_was_found_without_an_upload_is_told_only_to_who_wants_all() -> None:
    (found,) = told(BROUGHT)
    assert (found["event"], found["log_level"]) == ("build_found", "debug")


def test_build_that_is_forgotten_long_after_it_was_brought_is_no_upload_that_was_given_up() -> None:
    assert [one["event"] for one in told(BEGUN, BROUGHT, changed(BROUGHT, url=""))] == ["upload_begun", "upload_done"]


def test_upload_of_an_earlier_life_is_taken_up_and_told_to_its_end() -> None:
    story = Story()
    with capture_logs() as lines:
        story._uploads.tell_restored([BEGUN, changed(BROUGHT, digest="cd" * 32)])
        story.tell([PutUpload(BROUGHT)])
    assert [line["event"] for line in lines] == ["upload_taken_up", "upload_done"]
