"""Runs real AppWright on one Android device."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.android import Adb, Apk, InstallFailed
from agent.appium import AppiumFailed, AppiumServer, Toolbox
from agent.builds import BuildSource, BuildUnusable
from agent.core.model import (
    MICROSECONDS,
    Blame,
    Failure,
    Installation,
    LeasedJob,
    LeaseKey,
    LeaseSpec,
    Outcome,
    TestResult,
    TestState,
)
from agent.process import Supervised, start
from agent.runners.protocol import Observer, RunFailed, Verdict

SUPPORTED_APPWRIGHT = ("0.1.1",)
FIRST_UNUSABLE_PLAYWRIGHT = (1, 60)
NODE_FILES = Path(__file__).with_name("appwright_node")
TIMEOUT_GRACE_S = 5.0
MAX_EVENT_BYTES = 1_024 * 1_024

_STATES = {
    "passed": TestState.PASSED,
    "failed": TestState.FAILED,
    "skipped": TestState.SKIPPED,
    "timedOut": TestState.TIMED_OUT,
    "interrupted": TestState.INTERRUPTED,
}
_NO_SESSION = re.compile(
    r"new session|session could not|ECONNREFUSED|ECONNRESET|socket hang up|invalid session id"
    r"|session is either terminated|instrumentation process",
    re.IGNORECASE,
)


class ProjectUnusable(Exception):
    """The workspace is no AppWright project that this release can run; the sentence says what to do."""


def check_project(workspace: Path) -> Path:
    """Return the config of an AppWright project.

    Raises:
        ProjectUnusable: AppWright is missing, or is of a version that this release does not know.
    """
    config = workspace / "appwright.config.ts"
    if not config.is_file():
        raise ProjectUnusable(f"{workspace} has no appwright.config.ts; point --workspace at an AppWright project")
    found = _version(workspace, "appwright")
    if found is None:
        raise ProjectUnusable(f"{workspace} has no AppWright; run `npm ci` there")
    if found not in SUPPORTED_APPWRIGHT:
        known = ", ".join(SUPPORTED_APPWRIGHT)
        raise ProjectUnusable(f"AppWright {found} in {workspace} is not supported; this release runs {known}")
    playwright = _version(workspace, "@playwright/test")
    if playwright is None or tuple(int(part) for part in playwright.split(".")[:2]) >= FIRST_UNUSABLE_PLAYWRIGHT:
        raise ProjectUnusable(
            f"@playwright/test {playwright or 'is missing'} in {workspace}: AppWright {found} needs an older one;"
            ' pin "@playwright/test": "1.59.1" in package.json and run `npm install`'
        )
    if shutil.which("node") is None:
        raise ProjectUnusable("node is not on PATH; install Node 20")
    return config


def _version(workspace: Path, package: str) -> str | None:
    manifest = workspace / "node_modules" / package / "package.json"
    return str(json.loads(manifest.read_bytes())["version"]) if manifest.is_file() else None


@dataclass(slots=True)
class _Seen:
    """What the reporter told of a run."""

    begun: int | None = None
    failures: list[tuple[str, str]] | None = None
    errors: list[str] | None = None
    status: str | None = None

    def __post_init__(self) -> None:
        self.failures, self.errors = [], []


class AppwrightRunner:
    """One device's runner: its own Appium, its own working directory, one spec at a time."""

    def __init__(
        self,
        *,
        adb: Adb,
        tools: Toolbox,
        source: BuildSource,
        slot: int,
        is_emulator: bool,
        lock: int | None,
    ) -> None:
        self._adb = adb
        self._tools = tools
        self._source = source
        self._provider = "emulator" if is_emulator else "local-device"
        self._lock = lock
        self._directory = tools.state_dir / "slots" / re.sub(r"[^A-Za-z0-9._-]", "_", adb.udid)
        self._appium = AppiumServer(tools, slot, self._directory)
        self._apk: Apk | None = None
        self._run: Supervised | None = None
        self._is_stopped = False

    # Preparing

    async def prepare(self, lease: LeaseSpec) -> Installation:
        """Put the build of a lease on the device, unless it is there, and warm the device's Appium up.

        Raises:
            RunFailed: The build or the device does not allow it.
        """
        self._is_stopped = False
        try:
            check_project(self._tools.project)
            self._apk = await self._source.find(lease.app_version_id)
            installation = await self._install(self._apk)
            await self._appium.ensure()
        except ProjectUnusable as error:
            raise RunFailed(_failure("PROJECT_INVALID", str(error), Blame.HOST)) from error
        except (BuildUnusable, InstallFailed) as error:
            raise RunFailed(error.failure) from error
        except AppiumFailed as error:
            raise RunFailed(_failure("APPIUM_FAILED", str(error), Blame.HOST)) from error
        if self._is_stopped:
            raise RunFailed(_failure("INSTALL_STOPPED", "the preparation was stopped", Blame.NOBODY))
        return installation

    async def _install(self, apk: Apk) -> Installation:
        """Install, and look at what the device holds then: a stale build must never be tested."""
        if await self._adb.installed_digest(apk.package) == apk.digest:
            return Installation(digest=apk.digest, is_new=False, duration_us=0)
        begun = time.monotonic()
        await self._adb.install(apk)
        held = await self._adb.installed_digest(apk.package)
        if held != apk.digest:
            raise InstallFailed(
                _failure("INSTALL_FAILED", f"{self._adb.udid} holds another build after the install", Blame.DEVICE)
            )
        spent_us = int((time.monotonic() - begun) * MICROSECONDS)
        return Installation(digest=apk.digest, is_new=True, duration_us=spent_us)

    # Running

    async def run(self, key: LeaseKey, job: LeasedJob, observer: Observer) -> Verdict:
        """Run one spec to its end."""
        self._is_stopped = False
        spec = self._find_spec(job.test)
        if spec is None:
            message = f"{job.test} does not exist in the project; check the path"
            return Verdict(outcome=Outcome.FAILED, failure=_failure("SPEC_NOT_FOUND", message, Blame.TEST))
        try:
            await self._appium.ensure()
        except AppiumFailed as error:
            return Verdict(outcome=Outcome.ERRORED, failure=_failure("APPIUM_FAILED", str(error), Blame.HOST))
        out = self._directory / "attempts" / str(job.attempt_id)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        seen = _Seen()
        with _event_pipe(out / "events") as descriptor:
            events = asyncio.create_task(_read_events(descriptor, lambda event: _take(event, seen, job, observer)))
            try:
                code, has_timed_out = await self._play(job, spec, out, observer)
                # The reporter's last line may still lie in the pipe.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(events), 0.5)
            finally:
                events.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await events
        return await self._judge(job, seen, code, has_timed_out)

    def _find_spec(self, test: str) -> Path | None:
        project = self._tools.project.resolve()
        spec = (project / test).resolve()
        return spec if spec.is_file() and spec.is_relative_to(project) else None

    async def _play(self, job: LeasedJob, spec: Path, out: Path, observer: Observer) -> tuple[int, bool]:
        """Run Playwright, for as long as the job may take. Returns its exit code, and whether it took longer."""
        cli = self._tools.project / "node_modules" / "@playwright" / "test" / "cli.js"
        command = (
            "node",
            str(cli),
            "test",
            f"^{re.escape(str(spec))}$",
            "--config",
            str(NODE_FILES / "wrapper.config.cjs"),
            "--project",
            "qgjob",
        )
        self._run = await start(
            command,
            env=self._environment(job, out),
            directory=self._workspace(),
            output=observer.output,
            lock=self._lock,
        )
        waiting = asyncio.create_task(self._run.wait())
        try:
            done, _ = await asyncio.wait((waiting,), timeout=job.timeout_us / MICROSECONDS)
            if done:
                return waiting.result(), False
            await self._run.stop(TIMEOUT_GRACE_S)
            return await waiting, True
        finally:
            self._run = None

    def _workspace(self) -> Path:
        """Return this slot's own working directory: the project through links, with room for what runs leave behind.

        AppWright clears a folder of its working directory at every start; two devices must not share one.
        """
        folder = self._directory / "workspace"
        folder.mkdir(parents=True, exist_ok=True)
        for entry in self._tools.project.iterdir():
            link = folder / entry.name
            if entry.name not in ("playwright-report", "test-results") and not link.is_symlink():
                link.symlink_to(entry.resolve())
        return folder

    def _environment(self, job: LeasedJob, out: Path) -> dict[str, str]:
        assert self._apk is not None
        return {
            **dict(job.env),
            **self._tools.environment(),
            "QGJOB_USER_CONFIG": str((self._tools.project / "appwright.config.ts").resolve()),
            "QGJOB_OUT": str(out),
            "QGJOB_EVENTS": str(out / "events"),
            "QGJOB_UDID": self._adb.udid,
            "QGJOB_APPIUM_PORT": str(self._appium.port),
            "QGJOB_CAPABILITIES": json.dumps(self._appium.capabilities(self._adb.server_port)),
            "QGJOB_PROVIDER": self._provider,
            "QGJOB_BUILD_PATH": str(self._apk.path),
            "QGJOB_APP_PACKAGE": self._apk.package,
            "QGJOB_APP_ACTIVITY": self._apk.activity,
            "QGJOB_TEST_TIMEOUT_MS": str(job.timeout_us // 1_000),
        }

    # Judging

    async def _judge(self, job: LeasedJob, seen: _Seen, code: int, has_timed_out: bool) -> Verdict:
        if self._is_stopped:
            await self._appium.stop()
            return Verdict(outcome=None)
        if has_timed_out:
            # The session hangs as well: a fresh server is the quick way to a usable device.
            await self._appium.stop()
            seconds = job.timeout_us / MICROSECONDS
            message = f"{job.test} ran longer than its timeout of {seconds:g} s"
            return Verdict(outcome=Outcome.TIMED_OUT, failure=_failure("TIMED_OUT", message, Blame.TEST))
        if code == 0 and seen.status == "passed":
            return Verdict(outcome=Outcome.PASSED)
        if not await self._adb.is_online():
            message = f"{self._adb.udid} went away while {job.test} ran"
            return Verdict(outcome=Outcome.ERRORED, failure=_failure("DEVICE_LOST", message, Blame.DEVICE))
        return _verdict_of(job, seen, code)

    async def stop(self, grace_us: int) -> None:
        """End the current run's process group within the grace."""
        self._is_stopped = True
        if self._run is not None:
            await self._run.stop(grace_us / MICROSECONDS)

    async def close(self) -> None:
        """End the device's Appium."""
        await self._appium.stop()


def _verdict_of(job: LeasedJob, seen: _Seen, code: int) -> Verdict:
    assert seen.failures is not None
    assert seen.errors is not None
    if seen.failures:
        title, error = seen.failures[0]
        if all(_NO_SESSION.search(text) for _, text in seen.failures):
            message = f"no session on the device: {_first_line(error)}"
            return Verdict(outcome=Outcome.ERRORED, failure=_failure("SESSION_FAILED", message, Blame.HOST))
        message = f"{title}: {_first_line(error)}"
        return Verdict(outcome=Outcome.FAILED, failure=_failure("TEST_FAILED", message, Blame.TEST))
    if seen.begun is None:
        said = f": {_first_line(seen.errors[0])}" if seen.errors else "; its log says why"
        message = f"the project could not be loaded{said}"
        return Verdict(outcome=Outcome.FAILED, failure=_failure("PROJECT_INVALID", message, Blame.TEST))
    if seen.errors:
        message = f"{job.test} could not be loaded: {_first_line(seen.errors[0])}"
        return Verdict(outcome=Outcome.FAILED, failure=_failure("SPEC_INVALID", message, Blame.TEST))
    if seen.begun == 0:
        message = f"{job.test} holds no test"
        return Verdict(outcome=Outcome.FAILED, failure=_failure("NO_TESTS", message, Blame.TEST))
    message = f"Playwright ended with {code} and without a report"
    return Verdict(outcome=Outcome.ERRORED, failure=_failure("RUN_BROKEN", message, Blame.HOST))


def _first_line(text: str) -> str:
    """Return the first lines that say something, as one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:500] or "no reason given"


def _failure(reason: str, message: str, blame: Blame) -> Failure:
    return Failure(reason=reason, message=message, blame=blame)


def _take(event: dict[str, Any], seen: _Seen, job: LeasedJob, observer: Observer) -> None:
    """Take in one line of the reporter."""
    assert seen.failures is not None
    assert seen.errors is not None
    match event.get("event"):
        case "begin":
            seen.begun = int(event["tests"])
        case "test_begin":
            observer.test(_test(event, job, TestState.RUNNING))
        case "test_end":
            state = _STATES.get(event["status"], TestState.FAILED)
            if event["status"] == event["expected"] and state is TestState.FAILED:
                state = TestState.PASSED  # it was expected to fail, and did
            elif state in (TestState.FAILED, TestState.TIMED_OUT):
                seen.failures.append((event["title"], event["error"]))
            observer.test(_test(event, job, state))
        case "error":
            seen.errors.append(event["message"])
        case "end":
            seen.status = event["status"]
        case _:
            pass


def _test(event: dict[str, Any], job: LeasedJob, state: TestState) -> TestResult:
    return TestResult(
        id=event["id"],
        title=event["title"],
        state=state,
        duration_us=int(event.get("duration_ms", 0) * 1_000),
        error=event.get("error", "") if state is not TestState.PASSED else "",
        attempt=job.attempt_number,
    )


@contextlib.contextmanager
def _event_pipe(path: Path) -> Iterator[int]:
    """Make a named pipe and yield its reading end, which never meets an end of file."""
    os.mkfifo(path, 0o600)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


async def _read_events(descriptor: int, take: Callable[[dict[str, Any]], None]) -> None:
    """Read JSON lines until the reporter has said its last word."""
    loop = asyncio.get_running_loop()
    pending = b""
    while True:
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(descriptor)
        pending += os.read(descriptor, 65_536)
        *lines, pending = pending.split(b"\n")
        for line in lines:
            event = json.loads(line)
            take(event)
            if event.get("event") == "end":
                return
        if len(pending) > MAX_EVENT_BYTES:
            raise RuntimeError("the reporter wrote a line without an end")
