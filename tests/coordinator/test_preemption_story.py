"""What the operator is told of a preemption: which device, which victims, and for whom."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs

from coordinator.core.events import HoldRequested
from coordinator.core.model import AttemptOutcome, DeviceHold, DeviceId, JobId
from coordinator.core.step import Preemption, Step
from coordinator.story import Story
from tests.core.lab import Lab, spec

E1 = "emulator-1@lab"


class ToldLab(Lab):
    """A lab on paper whose operator hears of each step."""

    def __init__(self) -> None:
        self.story = Story()
        self.steps: list[Step] = []
        super().__init__()

    def _note(self, step: Step) -> None:
        super()._note(step)
        self.steps.append(step)
        self.story.tell(step.writes, step.preemptions)

    @property
    def preemptions(self) -> list[Preemption]:
        return [preemption for step in self.steps for preemption in step.preemptions]


def of(event: str, told: list[Any]) -> list[str]:
    return [one["story"] for one in told if one["event"] == event]


def test_a_preempted_job_is_told_with_the_job_that_it_made_room_for() -> None:
    lab = ToldLab()
    lab.submit(spec("slow", priority=1), spec("later", priority=1))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    with capture_logs() as told:
        lab.submit(spec("hotfix", priority=5, app_version_id="hot"))
        agent.adopt(E1, started=(running,))
        agent.finish(lease, running, AttemptOutcome.PREEMPTED)
    assert [(one.device, one.victims, one.waiting) for one in lab.preemptions] == [(E1, (JobId(1), JobId(2)), 3)]
    assert of("preemption_begun", told) == [
        f"Taking {E1} back from jobs 1, 2 for job 3; what has not ended is queued again"
    ]
    assert of("job_preempted", told) == [f"Preempted job 1 on {E1} for job 3; it is queued again"]


def test_the_rest_of_a_batch_is_told_with_the_higher_job_that_waits_for_its_device() -> None:
    lab = ToldLab()
    lab.submit(spec("slow", priority=3), spec("later", priority=3))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.submit(spec("other", priority=5, app_version_id="other"))
    with capture_logs() as told:
        agent.finish(lease, running)
    assert [(one.victims, one.waiting) for one in lab.preemptions] == [((JobId(2),), 3)]
    assert of("preemption_begun", told) == [
        f"Taking {E1} back from job 2 for job 3; what has not ended is queued again"
    ]


def test_a_preemption_that_an_earlier_life_began_is_told_without_the_job_that_waited() -> None:
    lab = ToldLab()
    lab.submit(spec("slow", priority=1))
    agent = lab.connect()
    lease = agent.adopt(E1)
    running = agent.start(lease)
    lab.submit(spec("hotfix", priority=5, app_version_id="hot"))
    lab.story = Story()
    with capture_logs() as told:
        agent.finish(lease, running, AttemptOutcome.PREEMPTED)
    assert of("job_preempted", told) == [f"Preempted job 1 on {E1}; it is queued again"]


def test_jobs_that_give_a_device_back_for_its_operator_make_room_for_nobody() -> None:
    lab = ToldLab()
    lab.submit(spec("slow", priority=1), spec("later", priority=1))
    agent = lab.connect()
    agent.start(agent.adopt(E1))
    lab.handle(HoldRequested(device=DeviceId(E1), hold=DeviceHold.DRAIN))
    assert lab.preemptions == []
