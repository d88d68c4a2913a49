"""Which batch makes room for urgent work, and which is left to end."""

from __future__ import annotations

from coordinator.core.model import RevokeReason
from tests.core.lab import Lab, snapshots, spec

E1 = "emulator-1@lab"


def test_urgent_job_does_not_wait_behind_a_running_test_of_its_own_build() -> None:
    lab = Lab()
    agent = lab.connect()
    lab.submit(spec("tests/slow.spec.ts", priority=1))
    lease = agent.adopt(E1)
    attempt = agent.start(lease)
    lab.submit(spec("tests/urgent.spec.ts", priority=5))
    assert snapshots(lab.sends)[-1].revoked == ((attempt, RevokeReason.PREEMPT),)


def test_urgent_job_joins_a_running_batch_of_its_build_that_makes_no_room() -> None:
    lab = Lab()
    agent = lab.connect()
    lab.submit(spec("tests/slow.spec.ts", priority=3))
    agent.start(agent.adopt(E1))
    urgent = lab.submit(spec("tests/urgent.spec.ts", priority=5)).job_ids[0]
    assert lab.jobs_of(lab.lease_on(E1))[-1] == urgent
