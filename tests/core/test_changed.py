"""Frozen records: how they are made, and copies with other values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from coordinator.core.model import Counters, Device, DeviceState, Job, JobState, changed
from coordinator.core.records import changer, drafted
from tests.core.lab import Lab, emulator, spec


def some_job_and_device() -> tuple[Job, Device]:
    """Return records of a lab at work, which have most of their fields set."""
    lab = Lab()
    lab.submit(spec("a"))
    lab.connect("lab", emulator("emulator-1"))
    ledger = lab.scheduler.ledger
    return next(iter(ledger.jobs.values())), next(iter(ledger.fleet.devices.values()))


def test_changed_record_is_what_replace_makes_of_it() -> None:
    job, device = some_job_and_device()
    assert changed(job, state=JobState.QUEUED, attempt=None) == replace(job, state=JobState.QUEUED, attempt=None)
    assert changed(device, state=DeviceState.LEASED) == replace(device, state=DeviceState.LEASED)
    assert changed(Counters(epoch=3), next_job=9) == replace(Counters(epoch=3), next_job=9)


def test_changed_record_keeps_every_field_that_was_not_named_and_leaves_the_old_one_alone() -> None:
    job, _ = some_job_and_device()
    copy = changed(job, preemptions=2)
    for one in fields(Job):
        if one.name != "preemptions":
            assert getattr(copy, one.name) is getattr(job, one.name)
    assert (copy.preemptions, job.preemptions) == (2, 0)


def test_changed_record_is_of_the_same_kind_and_frozen_again() -> None:
    job, _ = some_job_and_device()
    copy = changed(job, preemptions=1)
    assert type(copy) is Job
    with pytest.raises(FrozenInstanceError):
        copy.preemptions = 3  # type: ignore[misc]


def test_changing_a_field_that_the_record_has_not_is_refused() -> None:
    job, _ = some_job_and_device()
    with pytest.raises(AttributeError, match="priority"):
        changed(job, priority=3)


def test_changer_makes_what_replace_makes_of_a_record() -> None:
    job, _ = some_job_and_device()
    requeued = changer(Job, "state", "preemptions")
    copy = requeued(job, JobState.QUEUED, 2)
    assert copy == replace(job, state=JobState.QUEUED, preemptions=2)
    assert (copy.preemptions, job.preemptions) == (2, 0)
    with pytest.raises(FrozenInstanceError):
        copy.preemptions = 3  # type: ignore[misc]


def test_changer_wants_a_value_for_each_of_its_fields() -> None:
    job, _ = some_job_and_device()
    with pytest.raises(TypeError, match="preemptions"):
        changer(Job, "state", "preemptions")(job, JobState.QUEUED)


def test_changer_refuses_a_field_that_the_record_has_not() -> None:
    with pytest.raises(AssertionError, match="Job has no priority"):
        changer(Job, "priority")


@dataclass(frozen=True, slots=True)
class Slow:
    """Has a field of each sort."""

    name: str
    size: int = 3
    marks: Mapping[str, str] = field(default_factory=dict)
    owner: str = field(kw_only=True)
    hold: str | None = field(default=None, kw_only=True, compare=False)


@drafted
@dataclass(frozen=True, slots=True)
class Quick:
    """The same, made as a draft."""

    name: str
    size: int = 3
    marks: Mapping[str, str] = field(default_factory=dict)
    owner: str = field(kw_only=True)
    hold: str | None = field(default=None, kw_only=True, compare=False)


def values(record: Slow | Quick) -> list[object]:
    return [getattr(record, one.name) for one in fields(record)]


def test_record_that_is_made_as_a_draft_has_the_values_that_it_would_have_had() -> None:
    assert values(Quick("a", owner="x")) == values(Slow("a", owner="x"))
    assert values(Quick("a", 5, {"b": "c"}, owner="x", hold="h")) == values(
        Slow("a", 5, {"b": "c"}, owner="x", hold="h")
    )
    assert Quick("a", owner="x").marks is not Quick("a", owner="x").marks, "a default that is made is made each time"


def test_record_that_is_made_as_a_draft_is_frozen_and_equal_by_its_fields() -> None:
    record = Quick("a", owner="x", hold="h")
    assert type(record) is Quick
    assert record == replace(record, hold=None)
    assert record != replace(record, size=4)
    with pytest.raises(FrozenInstanceError):
        record.size = 9  # type: ignore[misc]


def test_record_that_is_made_as_a_draft_refuses_what_it_would_have_refused() -> None:
    with pytest.raises(TypeError, match="owner"):
        Quick("a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Quick("a", 3, {}, "x")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        Quick("a", owner="x", colour="red")  # type: ignore[call-arg]
