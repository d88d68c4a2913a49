"""JSON shapes as the coordinator's answers become them, for tests of what is printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from qgjob import resources
from qgjob.v1.job_pb2 import JOB_STATE_QUEUED, LANE_NORMAL, TARGET_ANY, Job, JobSpec, JobState


def job_message(job_id: int, test: str = "tests/login.spec.js", state: JobState.ValueType = JOB_STATE_QUEUED) -> Job:
    """A job as the coordinator sends it."""
    spec = JobSpec(org_id="qualgent", app_version_id="xyz123", test=test, priority=3, target=TARGET_ANY)
    spec.timeout.FromSeconds(600)
    message = Job(id=job_id, spec=spec, state=state, lane=LANE_NORMAL)
    message.create_time.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    return message


def job(job_id: int, test: str = "tests/login.spec.js", *, seconds_ago: float = 0, **fields: object) -> dict[str, Any]:
    """The JSON of a queued job that was submitted so long ago; `fields` replace what differs."""
    record = resources.job(job_message(job_id, test))
    return {**record, "create_time": ago(seconds_ago), **fields}


def ago(seconds: float) -> str:
    """An instant of the past as JSON has it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
