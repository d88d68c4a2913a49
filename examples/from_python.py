"""The client library at work: submit specs, show a log as it comes, wait, and list what became of them.

    python -m examples.from_python tests/login.spec.ts tests/signup.spec.ts

The coordinator is that of QGJOB_COORDINATOR, else the one on this host.
"""

from __future__ import annotations

import os
import sys
import uuid

from qgjob import resources
from qgjob.client import Client
from qgjob.errors import ClientError
from qgjob.v1.job_pb2 import JOB_STATE_COMPLETED, JobFilter, JobSpec


def main(tests: list[str]) -> int:
    """Run specs; return 0 if all passed."""
    run = f"library-{uuid.uuid4().hex[:8]}"
    specs = [JobSpec(org_id="qualgent", app_version_id="xyz123", test=test, run=run) for test in tests]
    with Client(os.environ.get("QGJOB_COORDINATOR", "127.0.0.1:50051")) as client:
        submitted = client.submit_jobs(specs)
        for warning in submitted.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        for piece in client.follow_logs(submitted.jobs[0].id):
            sys.stdout.buffer.write(piece.data)
        sys.stdout.flush()
        ended = client.wait_for_jobs([job.id for job in submitted.jobs], timeout_s=600)
        for job in client.list_jobs(JobFilter(run=run), limit=100):
            found = resources.job(job)
            print(f"job {found['id']} {found['test']}: {found['status']} on {found['device']}")
    return 0 if all(job.state == JOB_STATE_COMPLETED for job in ended) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:] or ["tests/login.spec.ts"]))
    except ClientError as error:
        sys.exit(f"error: {error}\nhint: {error.hint}")
