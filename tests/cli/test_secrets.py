"""`--secret`: where the value comes from, and that no refusal tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qgjob.cli import fields
from qgjob.errors import UsageError
from qgjob.v1.job_service_pb2 import SubmitJobsRequest, SubmitJobsResponse
from tests.cli.coordinator_stand_in import StandIn
from tests.cli.records import job_message

QGJOB = str(Path(sys.executable).parent / "qgjob")


def test_a_value_comes_from_the_environment_or_the_command_line(stand_in: StandIn) -> None:
    stand_in.submits = [lambda request: SubmitJobsResponse(jobs=[job_message(7)])]
    submit = ("submit", "--org-id", "q", "--app-version-id", "x", "--test", "a.spec.ts", "--env", "STAGE=beta")
    env = {**os.environ, "QGJOB_COORDINATOR": stand_in.address, "PASSWORD": "hunter2"}
    command = [QGJOB, *submit, "--secret", "PASSWORD", "--secret", "KEY=a=b=c"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    (request,) = stand_in.asked
    assert isinstance(request, SubmitJobsRequest)
    (spec,) = request.jobs
    assert (dict(spec.env), dict(spec.secrets)) == ({"STAGE": "beta"}, {"PASSWORD": "hunter2", "KEY": "a=b=c"})
    assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize("secrets", [{"PIN": "12"}, {"LD_X": "hunter2"}, {"A": "hunter2\udc80"}, {"B C": "hunter2"}])
def test_no_refusal_tells_a_value(secrets: dict[str, str]) -> None:
    with pytest.raises(UsageError) as refusal:
        fields.secrets(secrets, {})
    said = f"{refusal.value} {refusal.value.hint}"
    assert next(iter(secrets)) in said
    assert not any(value[:7] in said for value in secrets.values())
