"""A typed client of the coordinator, for the command line and for programs.

    with Client("127.0.0.1:50051") as client:
        login = JobSpec(org_id="qualgent", app_version_id="xyz123", test="tests/login.spec.ts")
        submitted = client.submit_jobs([login])
        for job in client.watch_jobs(JobFilter(ids=[submitted.jobs[0].id])):
            print(job.id, job.state)

Calls that the coordinator may have missed are repeated under the same idempotency key; streams are resumed where they
broke, so nothing is lost and nothing comes twice.
"""

from __future__ import annotations

from qgjob.client.jobs import Client
from qgjob.client.logpieces import LogPiece
from qgjob.client.submits import MAX_JOBS_PER_CALL, repeat_hint

__all__ = ["MAX_JOBS_PER_CALL", "Client", "LogPiece", "repeat_hint"]
