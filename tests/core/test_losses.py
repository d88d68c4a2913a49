"""Agents that die under their work: what has run is lost and counted, and a job that kills them all is given up."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.model import Attempt, AttemptOutcome, Failure, JobState, SessionId
from coordinator.core.step import PutAttempt, Step
from tests.core.lab import Lab, spec

E1 = "emulator-1@lab"
LOST = Failure(reason="AGENT_LOST", message="the agent ended while the test ran")


class Remembering(Lab):
    """A lab that keeps what became of every attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: dict[int, Attempt] = {}

    def _note(self, step: Step) -> None:
        super()._note(step)
        self.attempts.update(
            (write.attempt.id, write.attempt) for write in step.writes if isinstance(write, PutAttempt)
        )

    def history(self) -> list[tuple[AttemptOutcome | None, str | None]]:
        return [(one.outcome, one.failure.reason if one.failure else None) for one in self.attempts.values()]


def test_run_whose_start_was_never_heard_of_is_lost_and_counts() -> None:
    lab = Lab()
    lab.submit(spec("killer"), spec("innocent"))
    agent = lab.connect(boot="boot-1")
    lease = agent.adopt(E1)
    agent.lose()
    lost = replace(agent.result(lease, lease.attempts[0], AttemptOutcome.LOST, LOST), session=SessionId(2))
    lab.connect(boot="boot-2", results=(lost,))
    assert (lab.job(1).lab_failures, lab.job(2).lab_failures) == (1, 0)


def test_job_that_kills_three_agents_in_a_row_ends_errored_with_its_history() -> None:
    lab = Remembering()
    lab.submit(spec("killer"))
    for life in range(3):
        agent = lab.connect(boot=f"boot-{life}")
        agent.start(agent.adopt(E1))
        agent.lose()
    assert lab.job(1).state is JobState.RUNNING
    lab.connect(boot="boot-3")
    assert lab.job(1).state is JobState.ERRORED
    assert lab.history() == [(AttemptOutcome.LOST, "AGENT_LOST")] * 3
