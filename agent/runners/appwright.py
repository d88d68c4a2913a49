"""Runs real AppWright, wherever its sessions are."""

from __future__ import annotations

import asyncio
import functools
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path

from agent.appium import Toolbox
from agent.artifacts import LeftBehind
from agent.blobs import BlobUnusable
from agent.bundles import Bundles, BundleUnusable
from agent.core.model import (
    MICROSECONDS,
    Blame,
    Failure,
    Installation,
    LeasedJob,
    LeaseKey,
    LeaseSpec,
    Outcome,
)
from agent.journal import Claim
from agent.process import start
from agent.runners.appwright_left import left_in
from agent.runners.appwright_merge import INTERRUPTED, Cut, merge, pack
from agent.runners.appwright_project import NODE_FILES, ProjectUnusable, check_project, playwright
from agent.runners.appwright_report import ReporterEvent, Seen, TestEvent, event_pipe, verdict_of
from agent.runners.appwright_rest import LIST_OPTIONS, Rest, rest_of
from agent.runners.protocol import Observer, RunFailed, Stop, Verdict, until_stopped
from agent.runners.station import Station

TIMEOUT_GRACE_S = 5.0
KEPT_ATTEMPTS = 5
INSTALLING = b"Installing the Node packages of the bundle, which this agent does not have yet ...\n"
CUT_STATUS: Mapping[Outcome | None, str] = {Outcome.TIMED_OUT: "timedOut", Outcome.ERRORED: "failed"}
"""What becomes, in a report, of a test that was at work when its run was ended."""


class _End(Enum):
    """Why a run ended."""

    ITS_OWN = auto()
    STOPPED = auto()
    TIMED_OUT = auto()
    DEVICE_LOST = auto()


class AppwrightRunner:
    """Runs the specs of one station: in its own working directory, one spec at a time."""

    def __init__(self, *, station: Station, tools: Toolbox, bundles: Bundles, claim: Claim) -> None:
        self._station = station
        self._tools = tools
        self._bundles = bundles
        self._org_id = ""
        self._project = tools.project
        """What the attempt runs: the configured workspace, or a bundle's copy."""
        self._claim = claim
        self._directory = slot_directory(tools, station.name)

    # Preparing

    async def prepare(self, lease: LeaseSpec, stop: Stop) -> Installation:
        """Put the build of a lease where the tests will find it, unless it is there.

        Raises:
            RunFailed: The build or the station does not allow it, or it was stopped.
        """
        self._org_id = lease.org_id
        return await until_stopped(self._prepare(lease), stop)

    async def _prepare(self, lease: LeaseSpec) -> Installation:
        await self._station.check(may_restart=lease.is_canary)
        if lease.is_canary and not lease.app_version_id:
            return Installation(digest="", is_new=False, duration_us=0)
        try:
            if self._tools.has_workspace:
                check_project(self._tools.project)
            return await self._station.install(lease)
        except ProjectUnusable as error:
            raise RunFailed(_failure("PROJECT_INVALID", str(error), Blame.HOST)) from error

    # Running

    async def run(self, key: LeaseKey, job: LeasedJob, observer: Observer, stop: Stop) -> Verdict:
        """Run one spec to its end."""
        try:
            self._project = await until_stopped(self._find_project(key, job, observer), stop)
        except RunFailed as error:
            return _verdict_without_run(error, stop)
        spec = self._find_spec(job.test)
        if spec is None:
            message = f"{job.test} does not exist in the project; check the path"
            return Verdict(outcome=Outcome.FAILED, failure=_failure("SPEC_NOT_FOUND", message, Blame.TEST))
        try:
            await until_stopped(self._station.ready(job), stop)
        except RunFailed as error:
            return _verdict_without_run(error, stop)
        out = await asyncio.to_thread(self._make_room, job)
        rest = None
        if job.done:
            _, end = await self._play(key, job, spec, out, LIST_OPTIONS, observer, stop)
            if end is not _End.ITS_OWN:
                return await self._judge(job, Seen(is_divisible=True), 1, end, stop)
            rest = rest_of(out / "listing.json", job.done)
        if rest is not None:
            observer.output(f"{rest.told()}\n".encode())
            if not rest.lines:
                return Verdict(outcome=Outcome.PASSED)
        await self._station.begin(job, observer)
        links: tuple[LeftBehind, ...] = ()
        try:
            verdict = await self._run(key, job, spec, out, rest, observer, stop)
        finally:
            links = await self._station.end(out)
        verdict = await self._station.explain(verdict)
        return await asyncio.to_thread(self._with_left, verdict, links, out, spec)

    def _with_left(self, verdict: Verdict, links: tuple[LeftBehind, ...], out: Path, spec: Path) -> Verdict:
        """Say what a run has left. The events of one that passed are needed for the report of all attempts alone."""
        has_failed = verdict.outcome is not Outcome.PASSED
        left = left_in(out, links, has_failed=has_failed)
        packed = pack(out)
        if packed is None:
            return replace(verdict, left_behind=left)
        reason = verdict.failure.message if verdict.failure is not None else "the run was ended"
        cut = Cut(status=CUT_STATUS.get(verdict.outcome, INTERRUPTED), message=reason)
        merging = functools.partial(merge, self._tools, spec.parent, out, cut)
        return replace(verdict, left_behind=(*left, packed) if has_failed else left, merge=merging)

    async def _run(
        self, key: LeaseKey, job: LeasedJob, spec: Path, out: Path, rest: Rest | None, observer: Observer, stop: Stop
    ) -> Verdict:
        """Run a spec, or the rest of it."""
        seen = Seen(is_divisible=rest is not None)

        def take(event: ReporterEvent) -> None:
            seen.take(event)
            if isinstance(event, TestEvent):
                observer.test(event.result(job.attempt_number), seen.is_divisible)

        with event_pipe(out / "events", take) as events:
            options = rest.options(out) if rest is not None else ()
            code, end = await self._play(key, job, spec, out, options, observer, stop)
            # Nobody writes any more, and the reporter's last word may still lie in the pipe.
            events.read()
        if rest is not None and end is _End.ITS_OWN and seen.begun not in (None, len(rest.lines)):
            message = f"Playwright ran {seen.begun} tests of {job.test} where {len(rest.lines)} were left"
            return Verdict(outcome=Outcome.ERRORED, failure=_failure("RUN_BROKEN", message, Blame.HOST))
        return await self._judge(job, seen, code, end, stop)

    async def _find_project(self, key: LeaseKey, job: LeasedJob, observer: Observer) -> Path:
        """Return the project of a job; that of a bundle is a clean copy in this slot's working directory."""

        def tell_install() -> None:
            observer.output(INSTALLING)

        if not job.bundle_digest:
            if not self._tools.has_workspace:
                message = "this agent has no workspace; submit the project with --bundle"
                raise RunFailed(_failure("PROJECT_INVALID", message, Blame.TEST))
            return self._tools.project
        try:
            user = self._station.name
            folder = self._working_directory
            await self._bundles.lay_out(self._org_id, job.bundle_digest, key, user, folder, tell_install)
            check_project(self._working_directory)
        except (BlobUnusable, BundleUnusable) as error:
            raise RunFailed(error.failure) from error
        except ProjectUnusable as error:
            raise RunFailed(_failure("PROJECT_INVALID", f"in the bundle, {error}", Blame.TEST)) from error
        return self._working_directory

    def _make_room(self, job: LeasedJob) -> Path:
        """Return an empty folder for what a run leaves behind; only the last ones are kept."""
        attempts = self._directory / "attempts"
        attempts.mkdir(parents=True, exist_ok=True)
        older = sorted((path for path in attempts.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
        for path in older[: max(0, len(older) - KEPT_ATTEMPTS + 1)]:
            shutil.rmtree(path, ignore_errors=True)
        out = attempts / str(job.attempt_id)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return out

    def _find_spec(self, test: str) -> Path | None:
        project = self._project.resolve()
        try:
            spec = (project / test).resolve()
            return spec if spec.is_file() and spec.is_relative_to(project) else None
        except (OSError, ValueError, RuntimeError):
            return None  # no path at all: too long, a loop of links

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
        """Run Playwright while the job may run and the device is there; return its exit code, and why it ended.

        Without its device a spec may go on until its timeout, which would be blamed on the test.
        """
        wrapper = NODE_FILES / "wrapper.config.cjs"
        command = (
            *playwright(self._project),
            "test",
            f"^{re.escape(str(spec))}$",
            "--config",
            str(wrapper),
            "--project",
            "qgjob",
            *options,
        )
        run = await start(
            command,
            env=self._environment(job, out),
            directory=await asyncio.to_thread(self._workspace),
            output=observer.output,
            claim=self._claim,
            what=f"attempt {job.attempt_id} (lease {key.lease_id}, fence {key.fence.epoch}.{key.fence.number})",
        )
        ending = asyncio.create_task(run.wait())
        stopping = asyncio.create_task(stop.wait())
        losing = asyncio.create_task(self._station.lost())
        try:
            limit_s = job.timeout_us / MICROSECONDS
            await asyncio.wait((ending, stopping, losing), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return await ending, _End.ITS_OWN
            await run.stop(stop.grace_us / MICROSECONDS if stop.is_asked else TIMEOUT_GRACE_S)
            if stop.is_asked:
                return await ending, _End.STOPPED
            return await ending, _End.DEVICE_LOST if losing.done() else _End.TIMED_OUT
        finally:
            stopping.cancel()
            losing.cancel()

    @property
    def _working_directory(self) -> Path:
        return self._directory / "workspace"

    def _workspace(self) -> Path:
        """Return this slot's own working directory: the project through links, with room for what runs leave behind.

        AppWright clears a folder of its working directory at every start; two devices must not share one.
        """
        folder = self._working_directory
        if self._project == folder:
            return folder
        # Made anew each time: an earlier run may have left files in it, and the project may be another one by now.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for entry in self._tools.project.iterdir():
            if entry.name not in ("playwright-report", "test-results"):
                (folder / entry.name).symlink_to(entry.resolve())
        return folder

    def _environment(self, job: LeasedJob, out: Path) -> dict[str, str]:
        """Build a test's environment from nothing. Ours wins over the job's own, whatever a coordinator let through."""
        return {
            **job.environment,
            **self._tools.environment(),
            **self._station.environment(),
            "QGJOB_USER_CONFIG": str((self._project / "appwright.config.ts").resolve()),
            "QGJOB_OUT": str(out),
            "QGJOB_EVENTS": str(out / "events"),
            "QGJOB_LISTING": str(out / "listing.json"),
            "QGJOB_TEST_TIMEOUT_MS": str(job.timeout_us // 1_000),
            # Playwright keeps what it compiled in one folder for all; two devices share nothing.
            "PWTEST_CACHE_DIR": str(self._directory / "compiled"),
            # These win over the config, and a report that is served never ends its run.
            "PLAYWRIGHT_HTML_OPEN": "never",
            "PW_TEST_HTML_REPORT_OPEN": "never",
            "NODE_OPTIONS": "",
        }

    # Judging

    async def _judge(self, job: LeasedJob, seen: Seen, code: int, end: _End, stop: Stop) -> Verdict:
        if end is _End.DEVICE_LOST:
            return await self._device_lost(job)
        if end is _End.TIMED_OUT:
            # The session hangs as well: a fresh server is the quick way to a usable device.
            await self._station.reset()
            seconds = job.timeout_us / MICROSECONDS
            message = f"{job.test} ran longer than its timeout of {seconds:g} s"
            return Verdict(outcome=Outcome.TIMED_OUT, failure=_failure("TIMED_OUT", message, Blame.TEST))
        if code == 0 and seen.status == "passed":
            return Verdict(outcome=Outcome.PASSED)
        if stop.is_asked:
            await self._station.reset()
            return Verdict(outcome=None, is_resumable=seen.is_divisible)
        if not await self._station.is_there():
            return await self._device_lost(job)
        return verdict_of(job.test, seen, code, is_server_up=await self._station.is_ready())

    async def _device_lost(self, job: LeasedJob) -> Verdict:
        await self._station.reset()  # its session is with a device that is gone
        message = f"{self._station.name} went away while {job.test} ran"
        return Verdict(outcome=Outcome.ERRORED, failure=_failure("DEVICE_LOST", message, Blame.DEVICE))

    async def close(self) -> None:
        """End what the station keeps warm."""
        await self._station.close()


def slot_directory(tools: Toolbox, name: str) -> Path:
    """Return the folder on this host that belongs to one station."""
    return tools.state_dir / "slots" / re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _verdict_without_run(error: RunFailed, stop: Stop) -> Verdict:
    if stop.is_asked:
        return Verdict(outcome=None)
    is_own = error.failure.blame is Blame.TEST
    return Verdict(outcome=Outcome.FAILED if is_own else Outcome.ERRORED, failure=error.failure)


def _failure(reason: str, message: str, blame: Blame) -> Failure:
    return Failure(reason=reason, message=message, blame=blame)
