"""Copies of frozen records with other values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from coordinator.core.model import Counters, Device, DeviceState, Job, JobState, changed
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
