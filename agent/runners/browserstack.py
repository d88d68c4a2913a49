"""A slot of BrowserStack as a station: the build is uploaded there, and each test gets a session of the account."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from agent.artifacts import LeftBehind
from agent.blobs import BlobCache, BlobUnusable
from agent.browserstack.apps import Apps, UploadedApp
from agent.browserstack.choice import NothingOffered, choose
from agent.browserstack.client import Client, CloudDevice, CloudFailed, CloudSession
from agent.browserstack.gateway import Gateway, Visit
from agent.browserstack.pace import GivenUp, off_loop
from agent.builds import BuildSource, BuildUnusable, digest_of
from agent.core.model import MICROSECONDS, Blame, Failure, Installation, LeasedJob, LeaseSpec, Outcome
from agent.runners.appwright_left import SESSIONS
from agent.runners.browserstack_links import links_to
from agent.runners.protocol import Observer, RunFailed, Verdict

DEVICES_TRUSTED_S = 3_600.0
CHOSEN_BY = frozenset({"model", "os_version"})
"""Of a selector, what says which device; without them the project's own choice counts, if it has one."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """What all slots of one account share."""

    client: Client
    apps: Apps
    gateway: Gateway
    offers: Offers


class Offers:
    """The devices that BrowserStack offers, asked for once an hour."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._devices: tuple[CloudDevice, ...] = ()
        self._since = 0.0

    def get(self, given_up: threading.Event) -> tuple[CloudDevice, ...]:
        """Return them.

        Raises:
            CloudFailed: They cannot be had.
        """
        with self._lock:
            if not self._devices or self._clock() - self._since > DEVICES_TRUSTED_S:
                self._devices = self._client.devices(given_up)
                self._since = self._clock()
            return self._devices


class CloudStation:
    """One session at a time of those that the plan allows."""

    def __init__(self, name: str, cloud: Cloud, source: BuildSource, blobs: BlobCache) -> None:
        self._name = name
        self._cloud = cloud
        self._source = source
        self._blobs = blobs
        self._app: UploadedApp | None = None
        self._digest = ""
        self._build = ""
        """How the sessions of a batch are grouped at BrowserStack."""
        self._device: CloudDevice | None = None
        self._is_chosen = False
        self._visit: Visit | None = None
        self._path = ""
        self._job: LeasedJob | None = None

    @property
    def name(self) -> str:
        """The id of the slot."""
        return self._name

    # Preparing

    async def check(self, *, may_restart: bool) -> None:
        """Look whether BrowserStack answers.

        Raises:
            RunFailed: It does not, or not to these credentials.
        """
        del may_restart  # nobody can restart a cloud
        await self._ask(self._cloud.client.plan)

    async def install(self, lease: LeaseSpec) -> Installation:
        """Upload the build of a lease, unless BrowserStack has it.

        Raises:
            RunFailed: There is no build, or BrowserStack does not take it.
        """
        begun = time.monotonic()
        try:
            path = await self._find(lease)
            self._digest = lease.build_digest or await asyncio.to_thread(digest_of, path)
        except (BlobUnusable, BuildUnusable) as error:
            raise RunFailed(error.failure) from error
        digest = self._digest
        self._app = await self._answered(self._cloud.apps.ensure(digest, path, self._name))
        self._build = f"{lease.org_id} {lease.app_version_id}"
        spent_us = int((time.monotonic() - begun) * MICROSECONDS) if self._app.is_new else 0
        return Installation(digest=digest, is_new=self._app.is_new, duration_us=spent_us)

    async def _find(self, lease: LeaseSpec) -> Path:
        if lease.build_digest:
            return await self._blobs.get(lease.build_digest, lease.key, self._name)
        return await self._source.locate(lease.app_version_id)

    async def _ask(self, request: Callable[[threading.Event], Result]) -> Result:
        """Ask BrowserStack off the event loop."""
        return await self._answered(off_loop(request))

    async def _answered(self, asking: Awaitable[Result]) -> Result:
        """Wait for an answer of BrowserStack; its failures are the host's."""
        try:
            return await asking
        except CloudFailed as error:
            raise RunFailed(_failure("CLOUD_FAILED", str(error), Blame.HOST)) from error
        except OSError as error:
            raise RunFailed(_failure("BUILD_UNREADABLE", f"the build cannot be read: {error}", Blame.HOST)) from error
        except GivenUp as error:
            raise RunFailed(_failure("CLOUD_FAILED", "the wait for BrowserStack was given up", Blame.HOST)) from error

    # Running

    async def ready(self, job: LeasedJob) -> None:
        """Choose the device for a job.

        Raises:
            RunFailed: BrowserStack has none that the job allows; or does not answer.
        """
        selector = dict(job.selector)
        devices = await self._ask(self._cloud.offers.get)
        try:
            self._device = choose(devices, selector)
        except NothingOffered as error:
            raise RunFailed(_failure("DEVICE_NOT_OFFERED", str(error), Blame.TEST)) from error
        self._is_chosen = not CHOSEN_BY.isdisjoint(selector)

    def environment(self) -> dict[str, str]:
        """Return what the wrapper must know: where to ask, and for what. Nothing in it opens the account."""
        assert self._app is not None
        assert self._device is not None
        job = self._job
        label = _label(job) if job is not None else ""
        return {
            "QGJOB_PROVIDER": "browserstack",
            "QGJOB_GATEWAY": f"{self._cloud.gateway.address}{self._path}",
            "QGJOB_BUILD_PATH": self._app.url,
            "QGJOB_DEVICE": json.dumps(
                {"name": self._device.name, "osVersion": self._device.os_version, "isChosen": self._is_chosen}
            ),
            "QGJOB_CAPABILITIES": json.dumps({"buildName": self._build, "sessionName": label}),
        }

    async def begin(self, job: LeasedJob, observer: Observer) -> None:
        """Let the run into the gateway."""
        loop = asyncio.get_running_loop()

        def say(line: str) -> None:
            loop.call_soon_threadsafe(observer.output, f"qgjob: {line}\n".encode())

        self._job = job
        self._visit = Visit(_label(job), say, self._name)
        self._path = self._cloud.gateway.begin(self._visit)

    async def end(self, out: Path) -> tuple[LeftBehind, ...]:
        """End the session that is left, and tell where videos and logs of all are: in a file, and by links."""
        path, self._path, self._job = self._path, "", None
        sessions = await asyncio.to_thread(self._cloud.gateway.end, path)
        if sessions:
            await asyncio.to_thread(_keep, sessions, out / SESSIONS)
        return tuple(links_to(sessions))

    async def explain(self, verdict: Verdict) -> Verdict:
        """Blame no test for what BrowserStack did not do."""
        assert self._visit is not None
        visit = self._visit
        if verdict.failure is None:
            return verdict
        if verdict.failure.reason == "SESSION_FAILED":
            self._cloud.apps.doubt(self._digest)
        if visit.troubles and verdict.failure.reason != "TIMED_OUT":
            message = f"{visit.troubles[-1]}; {verdict.failure.message}"
            return Verdict(outcome=Outcome.ERRORED, failure=_failure("CLOUD_FAILED", message, Blame.HOST))
        if verdict.outcome is Outcome.TIMED_OUT and not visit.sessions:
            message = (
                "the job's timeout passed before BrowserStack had a session for it; its log says for what it waited"
            )
            return Verdict(outcome=Outcome.ERRORED, failure=_failure("CLOUD_BUSY", message, Blame.HOST))
        where = f" (session {visit.sessions[-1]})" if visit.sessions else ""
        return replace(verdict, failure=replace(verdict.failure, message=f"{verdict.failure.message}{where}"))

    async def lost(self) -> None:
        """A cloud is never lost for good: whatever goes wrong there is told by the requests."""
        await asyncio.Event().wait()

    async def is_there(self) -> bool:
        """Whether the device is there: the reports of the tests tell if not."""
        return True

    async def is_ready(self) -> bool:
        """Whether sessions can be asked for: the gateway is a part of this agent."""
        return True

    async def reset(self) -> None:
        """End the session. Nobody may wait for one any more."""
        if self._visit is not None:
            self._visit.given_up.set()

    async def close(self) -> None:
        """Nothing is kept warm."""


def _label(job: LeasedJob) -> str:
    return f"job {job.job_id}: {job.test}"


def _keep(sessions: tuple[CloudSession, ...], path: Path) -> None:
    path.write_text(json.dumps([asdict(session) for session in sessions], indent=1) + "\n", encoding="utf-8")


def _failure(reason: str, message: str, blame: Blame) -> Failure:
    return Failure(reason=reason, message=message, blame=blame)
