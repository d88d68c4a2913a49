"""The simulated runner's specs of several tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.blobs import BlobCache
from agent.core.model import (
    NO_FENCE,
    AttemptId,
    DeviceId,
    JobId,
    LeasedJob,
    LeaseId,
    LeaseKey,
    Outcome,
    TestResult,
    TestState,
)
from agent.runners.protocol import Observer, Stop, Verdict
from agent.runners.simulated import SimulatedRunner

KEY = LeaseKey(lease_id=LeaseId(1), fence=NO_FENCE)


class Bench:
    """A simulated device, and what was seen of its runs."""

    def __init__(self, folder: Path) -> None:
        blobs = BlobCache(folder / "blobs", ".apk", 1_000)
        self._runner = SimulatedRunner(
            DeviceId("e1"), blobs=blobs, install_s=0, test_s=0, truth=folder / "truth", left_behind=folder / "left"
        )
        self.stop = Stop()
        self.ended: list[TestResult] = []
        self.stop_at = ""
        """Title of the test at whose beginning the run is asked to end."""

    def _seen(self, test: TestResult, _is_resumable: bool) -> None:
        if test.state is not TestState.RUNNING:
            self.ended.append(test)
        elif test.title == self.stop_at:
            self.stop.ask(0)

    async def run(
        self, *done: str, outcome: str = "passed", tests: str = "3", number: int = 1, **steer: str
    ) -> Verdict:
        job = LeasedJob(
            attempt_id=AttemptId(1),
            job_id=JobId(1),
            attempt_number=number,
            test="tests/a.spec.ts",
            env=(("QGJOB_SIM_TESTS", tests), ("QGJOB_SIM_OUTCOME", outcome), *steer.items()),
            timeout_us=60_000_000,
            done=done,
        )
        return await self._runner.run(KEY, job, Observer(output=lambda _data: None, test=self._seen), self.stop)

    def seen(self) -> list[tuple[str, str]]:
        return [(test.title.removeprefix("a.spec.ts > "), str(test.state)) for test in self.ended]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_last_of_several_tests_has_the_outcome_and_the_others_pass(bench: Bench) -> None:
    verdict = await bench.run(outcome="failed")
    assert verdict.outcome is Outcome.FAILED
    assert bench.seen() == [("test 1", "passed"), ("test 2", "passed"), ("test 3", "failed")]


async def test_stopped_run_can_go_on_where_it_was_stopped(bench: Bench) -> None:
    bench.stop_at = "a.spec.ts > test 2"
    verdict = await bench.run()
    assert (verdict.outcome, verdict.is_resumable) == (None, True)
    assert bench.seen() == [("test 1", "passed"), ("test 2", "interrupted")]
    bench.stop, bench.stop_at = Stop(), ""
    done = bench.ended[0].id
    bench.ended.clear()
    assert (await bench.run(done)).outcome is Outcome.PASSED
    assert bench.seen() == [("test 2", "passed"), ("test 3", "passed")]


async def test_number_of_tests_is_bounded(bench: Bench) -> None:
    verdict = await bench.run(tests="0")
    assert verdict.failure is not None
    assert "use 1 to 1000" in verdict.failure.message


@pytest.mark.parametrize(("number", "outcome"), [(1, Outcome.FAILED), (2, Outcome.FAILED), (3, Outcome.PASSED)])
async def test_only_as_many_attempts_fail_as_a_job_asks_for(bench: Bench, number: int, outcome: Outcome) -> None:
    verdict = await bench.run(outcome="failed", number=number, QGJOB_SIM_FAILURES="2")
    assert verdict.outcome is outcome


async def test_a_number_of_failures_that_is_none_is_told(bench: Bench) -> None:
    verdict = await bench.run(outcome="failed", QGJOB_SIM_FAILURES="some")
    assert verdict.failure is not None
    assert verdict.failure.message.startswith("QGJOB_SIM_SECONDS, ")
    assert "'some'" in verdict.failure.message
