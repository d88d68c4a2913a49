"""What the AppWright runner does with a spec of which some tests are done, without Playwright and without a phone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.appium import Toolbox
from agent.artifacts import LeftBehind
from agent.blobs import BlobCache
from agent.bundles import Bundles, BundleUnusable, NodePackages
from agent.core.model import (
    NO_FENCE,
    AttemptId,
    Blame,
    Installation,
    JobId,
    LeasedJob,
    LeaseId,
    LeaseKey,
    LeaseSpec,
    Outcome,
    TestResult,
)
from agent.journal import Claim, Journal
from agent.runners.appwright import INSTALLING, AppwrightRunner, _End
from agent.runners.appwright_rest import LIST_OPTIONS
from agent.runners.protocol import Observer, Stop, Verdict

LISTING = {"a": "four.spec.ts \u203a one", "b": "four.spec.ts \u203a two", "c": "four.spec.ts \u203a three"}
JOB = LeasedJob(attempt_id=AttemptId(7), job_id=JobId(1), attempt_number=2, test="four.spec.ts", timeout_us=60_000_000)


class ReadyStation:
    """A place where every session could be made, and none is."""

    name = "slot"

    async def check(self, *, may_restart: bool) -> None:
        raise AssertionError(f"nothing is prepared, and it is checked ({may_restart})")

    async def install(self, lease: LeaseSpec) -> Installation:
        raise AssertionError(f"nothing is prepared, and {lease} is installed")

    async def ready(self, job: LeasedJob) -> None:
        pass

    def environment(self) -> dict[str, str]:
        return {}

    async def begin(self, job: LeasedJob, observer: Observer) -> None:
        pass

    async def end(self, out: Path) -> tuple[LeftBehind, ...]:
        return ()

    async def explain(self, verdict: Verdict) -> Verdict:
        return verdict

    async def lost(self) -> None:
        pass

    async def is_there(self) -> bool:
        return True

    async def is_ready(self) -> bool:
        return True

    async def reset(self) -> None:
        pass

    async def close(self) -> None:
        pass


class Runner(AppwrightRunner):
    """A runner whose Playwright lists what it is told to, and runs as many tests as it is told to."""

    def __init__(self, project: Path, listing: dict[str, str]) -> None:
        tools = Toolbox(project=project, state_dir=project)
        bundles = Bundles(BlobCache(project / "blobs", ".apk", 1_000), NodePackages(project / "packages", {}))
        claim = Claim("slot", -1, Journal(project / "processes"))
        super().__init__(station=ReadyStation(), tools=tools, bundles=bundles, claim=claim)
        self._listing = listing
        self.ran: list[str] | None = None
        """The lines that Playwright was told to keep to; None before a run, and empty for a whole spec."""
        self.runs_tests = 0
        self.stopped_when = ""
        self.said = b""

    async def _play(
        self,
        key: LeaseKey,
        job: LeasedJob,
        spec: Path,
        out: Path,
        options: tuple[str, ...],
        observer: Observer,
        stop: Stop,
    ) -> tuple[int, _End]:
        if options == LIST_OPTIONS:
            if self.stopped_when == "it lists":
                stop.ask(0)
                return 143, _End.STOPPED
            (out / "listing.json").write_text(json.dumps(self._listing))
            return 0, _End.ITS_OWN
        if self.stopped_when == "it loads":
            stop.ask(0)
            return 143, _End.STOPPED
        self.ran = Path(options[1]).read_text().splitlines() if options else []
        told = ({"event": "begin", "tests": self.runs_tests}, {"event": "end", "status": "passed"})
        with (out / "events").open("wb", buffering=0) as pipe:
            pipe.write(b"".join(json.dumps(event).encode() + b"\n" for event in told))
        return 0, _End.ITS_OWN

    async def resume(self, *done: str, bundle_digest: str = "") -> Verdict:
        def say(data: bytes) -> None:
            self.said += data

        def see(test: TestResult, _is_resumable: bool) -> None:
            raise AssertionError(f"no test is told of, and here is {test}")

        key = LeaseKey(lease_id=LeaseId(1), fence=NO_FENCE)
        job = replace(JOB, done=done, bundle_digest=bundle_digest)
        return await self.run(key, job, Observer(output=say, test=see), Stop())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "four.spec.ts").touch()
    return tmp_path


async def test_only_what_was_not_done_is_run_and_the_log_says_so(project: Path) -> None:
    runner = Runner(project, LISTING)
    runner.runs_tests = 2
    assert (await runner.resume("a")).outcome is Outcome.PASSED
    assert runner.ran == [LISTING["b"], LISTING["c"]]
    assert runner.said == b"qgjob: 1 of 3 tests were done by an earlier attempt\n"


async def test_spec_of_which_nothing_is_left_passes_without_a_run(project: Path) -> None:
    runner = Runner(project, LISTING)
    assert (await runner.resume("a", "b", "c")).outcome is Outcome.PASSED
    assert runner.ran is None


async def test_spec_that_must_not_be_cut_is_run_whole(project: Path) -> None:
    runner = Runner(project, {})
    runner.runs_tests = 3
    assert (await runner.resume("a")).outcome is Outcome.PASSED
    assert runner.ran == []


async def test_pass_of_fewer_tests_than_were_left_is_not_believed(project: Path) -> None:
    runner = Runner(project, LISTING)
    runner.runs_tests = 1
    verdict = await runner.resume("a")
    assert verdict.failure is not None
    assert (verdict.outcome, verdict.failure.reason) == (Outcome.ERRORED, "RUN_BROKEN")


@pytest.mark.parametrize("when", ["it lists", "it loads"])
async def test_run_that_is_stopped_before_its_first_test_keeps_what_was_done_before(project: Path, when: str) -> None:
    runner = Runner(project, LISTING)
    runner.stopped_when = when
    verdict = await runner.resume("a")
    assert (verdict.outcome, verdict.is_resumable) == (None, True)


@pytest.mark.parametrize("are_there", [False, True])
async def test_log_of_a_job_says_that_its_packages_are_waited_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, are_there: bool
) -> None:
    async def lay_out(
        _: Bundles, _org: str, _digest: str, _key: LeaseKey, _user: str, _folder: Path, on_install: Callable[[], None]
    ) -> None:
        if not are_there:
            on_install()
        raise BundleUnusable("PACKAGES_FAILED", "npm ci failed", Blame.HOST)

    monkeypatch.setattr(Bundles, "lay_out", lay_out)
    runner = Runner(project, LISTING)
    verdict = await runner.resume(bundle_digest="ab" * 32)
    assert runner.said == (b"" if are_there else INSTALLING)
    assert verdict.failure is not None
    assert verdict.failure.reason == "PACKAGES_FAILED"
