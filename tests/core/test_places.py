"""What stands written, and who is in line, after a batch took work or a device found it."""

from __future__ import annotations

from coordinator.core.model import Rules, Settings, Target
from coordinator.core.step import PutLease
from tests.core.lab import Lab, emulator, spec


def test_batch_that_takes_more_after_its_last_job_is_written_with_it() -> None:
    lab = Lab(Settings(max_batch=1))
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a"), spec("b"))
    lease = agent.adopt("e1@lab")
    step = agent.run(lease)
    written = [write.lease for write in step.writes if isinstance(write, PutLease) and write.lease.id == lease.id]
    assert written[-1] == lab.lease_on("e1@lab")
    assert lab.jobs_of(written[-1]) == [2]
    assert all(one.attempts for one in written), "it is not written without work in between"


def test_family_whose_batch_took_its_last_job_is_not_offered_any_more() -> None:
    lab = Lab(Settings(max_batch=1, rules=Rules(split_installs=0, split_percent=0)))
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a"), spec("b"))
    lease = agent.adopt("e1@lab")
    family = lab.scheduler.ledger.queues.family(lab.scheduler.ledger.fleet.family_of(lease.id))
    assert family is not None
    (bucket,) = family.buckets.values()
    offered_as = bucket.rank
    assert offered_as is not None
    agent.run(lease)
    assert bucket.size == 0
    assert bucket.rank is None


def test_only_free_device_is_found_though_the_pool_that_came_first_cannot_use_it() -> None:
    lab = Lab()
    agent = lab.connect("lab", emulator("e1"))
    lab.submit(spec("a", target=Target.DEVICE), spec("b", target=Target.EMULATOR))
    assert lab.jobs_of(agent.adopt("e1@lab")) == [2]
