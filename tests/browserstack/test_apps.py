"""Builds at BrowserStack: each is uploaded once, by whichever slot and agent comes first."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from agent.browserstack import apps as apps_module
from agent.browserstack.apps import TRUSTED_S, Apps, UploadedApp, custom_id_of
from agent.browserstack.claims import Claims
from agent.browserstack.client import Client, CloudFailed
from agent.core.model import MICROSECONDS, UploadClaim, UploadStatus
from tests.browserstack.stand_in import StandIn

ACCOUNT = "lab_user@127.0.0.1"
DIGEST = "ab" * 32
SLOT = "browserstack-1@lab"


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    """The coordinator's side of an agent's claims, written by hand."""

    claims: Claims
    stated: list[tuple[UploadClaim, ...]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.claims.connect(self._hear)
        self.claims.share(is_shared=True)

    def _hear(self, claims: tuple[UploadClaim, ...]) -> None:
        self.stated.append(claims)
        self.changed.set()

    async def hears(self, turn: int) -> UploadClaim:
        """Wait until the only claim asks for a turn."""
        while not (self.stated and self.stated[-1] and self.stated[-1][0].turn == turn):
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 30)
        (claim,) = self.stated[-1]
        return claim

    def tell(self, claim: UploadClaim, **changes: object) -> None:
        """Say how a claim stands."""
        fields: dict[str, object] = {"holder": "lab", "turn": claim.turn, **changes}
        key = {"account": claim.account, "digest": claim.digest, "number": claim.number}
        status = UploadStatus(**{**key, **fields})  # type: ignore[arg-type]
        self.claims.take((status,), ((ACCOUNT, 2),))


@pytest.fixture
def build(tmp_path: Path) -> Path:
    path = tmp_path / "app.apk"
    path.write_bytes(b"a build" * 100_000)
    return path


def alone(client: Client, clock: Clock | None = None) -> Apps:
    """The builds of an agent whose coordinator knows of no claims."""
    clock = clock or Clock()
    return Apps(client, Claims(ACCOUNT, clock), clock)


async def test_build_is_uploaded_once_and_found_by_every_agent(stand_in: StandIn, client: Client, build: Path) -> None:
    apps = alone(client)
    first = await apps.ensure(DIGEST, build, SLOT)
    assert (first.is_new, stand_in.contents[first.url]) == (True, build.read_bytes())
    assert stand_in.apps[first.url]["custom_id"] == custom_id_of(DIGEST) == f"qgjob-{DIGEST}"
    known = UploadedApp(url=first.url, is_new=False)
    assert await apps.ensure(DIGEST, build, SLOT) == known
    assert await alone(Client(stand_in.account())).ensure(DIGEST, build, SLOT) == known
    assert len(stand_in.uploads) == 1


async def test_many_slots_that_want_one_build_at_once_share_its_upload(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    stand_in.upload_s = 0.2
    apps = alone(client)
    await asyncio.gather(*(apps.ensure(DIGEST, build, f"browserstack-{number}@lab") for number in range(5)))
    assert len(stand_in.uploads) == 1


async def test_build_that_expired_is_uploaded_again_when_it_is_doubted_or_was_not_asked_for_long(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    clock = Clock()
    apps = alone(client, clock)
    await apps.ensure(DIGEST, build, SLOT)
    stand_in.forget_apps()
    assert not (await apps.ensure(DIGEST, build, SLOT)).is_new, "it is believed to be there"
    apps.doubt(DIGEST)
    assert (await apps.ensure(DIGEST, build, SLOT)).is_new
    stand_in.forget_apps()
    clock.now += TRUSTED_S
    assert (await apps.ensure(DIGEST, build, SLOT)).is_new


async def test_upload_that_is_refused_for_a_reason_that_passes_is_made_again(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    stand_in.failing["upload"] = 2
    assert (await alone(client).ensure(DIGEST, build, SLOT)).is_new
    assert len(stand_in.uploads) == 1


async def test_uploads_that_others_have_used_up_are_waited_for_until_their_minute_is_over(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    stand_in.uploads_a_minute = 1
    stand_in.note_upload()
    bringing = asyncio.create_task(alone(client).ensure(DIGEST, build, SLOT))
    await asyncio.to_thread(stand_in.wait_for_refused_upload)
    assert not stand_in.apps
    stand_in.uploads.clear()  # the minute is over
    assert (await bringing).is_new
    assert apps_module.UPLOAD_PATIENCE_S > 2 * 60


async def test_upload_that_stays_refused_is_given_up_in_the_end(
    stand_in: StandIn, client: Client, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.uploads_a_minute = 0
    monkeypatch.setattr(apps_module, "UPLOAD_PATIENCE_S", 0.0)
    with pytest.raises(CloudFailed, match="429: Rate limit exceeded"):
        await alone(client).ensure(DIGEST, build, SLOT)


async def test_build_that_is_refused_for_good_is_not_uploaded_again(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    stand_in.refuses_builds = True
    with pytest.raises(CloudFailed, match="422: Invalid app"):
        await alone(client).ensure(DIGEST, build, SLOT)
    assert [path for _, path in stand_in.requests].count("/app-automate/upload") == 1


async def test_nothing_is_looked_for_and_nothing_uploaded_without_leave(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    desk = Desk(Claims(ACCOUNT))
    apps = Apps(client, desk.claims)
    bringing = asyncio.create_task(apps.ensure(DIGEST, build, SLOT))
    claim = await desk.hears(turn=0)
    assert (claim.account, claim.digest, claim.devices) == (ACCOUNT, DIGEST, (SLOT,))
    desk.tell(claim, turn=-1, holder="other", upload_age_us=7)
    assert not stand_in.requests
    desk.tell(claim)
    claim = await desk.hears(turn=1)
    assert not stand_in.uploads
    desk.tell(claim)
    app = await bringing
    assert app.is_new
    assert desk.stated[-2:] == [(replace(claim, url=app.url),), ()]


async def test_upload_is_tried_again_however_long_the_wait_for_leave_was(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    clock = Clock()
    desk = Desk(Claims(ACCOUNT, clock))
    bringing = asyncio.create_task(Apps(client, desk.claims, clock).ensure(DIGEST, build, SLOT))
    desk.tell(await desk.hears(turn=0))
    claim = await desk.hears(turn=1)
    clock.now += 2 * apps_module.UPLOAD_PATIENCE_S
    stand_in.failing["upload"] = 1
    desk.tell(claim)
    desk.tell(await desk.hears(turn=2))
    assert (await bringing).is_new


async def test_build_that_another_agent_has_brought_is_taken_by_its_word(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    clock = Clock(now=10_000.0)
    desk = Desk(Claims(ACCOUNT, clock))
    apps = Apps(client, desk.claims, clock)
    bringing = asyncio.create_task(apps.ensure(DIGEST, build, SLOT))
    claim = await desk.hears(turn=0)
    desk.tell(claim, turn=-1, holder="other", upload_age_us=7)
    desk.tell(claim, turn=-1, holder="", url="bs://theirs", url_age_us=60 * MICROSECONDS)
    assert await bringing == UploadedApp(url="bs://theirs", is_new=False)
    assert desk.stated[-1] == ()
    assert not stand_in.requests
    clock.now += TRUSTED_S - 61
    assert (await apps.ensure(DIGEST, build, SLOT)).url == "bs://theirs", "it is as old here as it was there"
    clock.now += 1
    asking = asyncio.create_task(apps.ensure(DIGEST, build, SLOT))
    again = await desk.hears(turn=0)
    assert again.number > claim.number
    asking.cancel()


async def test_build_that_another_agent_brings_while_this_one_waits_for_its_turn_is_not_uploaded_again(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    clock = Clock(now=10_000.0)
    desk = Desk(Claims(ACCOUNT, clock))
    bringing = asyncio.create_task(Apps(client, desk.claims, clock).ensure(DIGEST, build, SLOT))
    desk.tell(await desk.hears(turn=0))
    claim = await desk.hears(turn=1)
    clock.now += 60
    desk.tell(claim, turn=0, url="bs://theirs", url_age_us=2 * MICROSECONDS)
    desk.tell(claim, turn=1, upload_age_us=0)  # and at once the turn, before the agent could say a word
    assert await bringing == UploadedApp(url="bs://theirs", is_new=False)
    assert not stand_in.uploads
    assert desk.stated[-2:] == [(replace(claim, url="bs://theirs"),), ()]


@pytest.mark.parametrize("has_arrived", [True, False])
async def test_build_is_looked_for_again_when_another_agent_had_the_claim_and_gave_it_up(
    stand_in: StandIn, client: Client, build: Path, has_arrived: bool
) -> None:
    desk = Desk(Claims(ACCOUNT))
    bringing = asyncio.create_task(Apps(client, desk.claims).ensure(DIGEST, build, SLOT))
    desk.tell(await desk.hears(turn=0))
    claim = await desk.hears(turn=1)
    desk.tell(claim, turn=-1, holder="other", upload_age_us=7)
    if has_arrived:
        await asyncio.to_thread(client.upload, build, custom_id_of(DIGEST), threading.Event())
    desk.tell(claim)
    app = await bringing
    assert (app.is_new, len(stand_in.uploads)) == (not has_arrived, 1)


async def test_build_is_looked_for_again_when_another_agent_had_the_claim_while_this_one_looked(
    stand_in: StandIn, client: Client, build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(Claims(ACCOUNT))
    looks, may_answer = asyncio.Event(), threading.Event()
    loop, find = asyncio.get_running_loop(), client.find_app

    def find_late(custom_id: str, given_up: threading.Event) -> str | None:
        found = find(custom_id, given_up)
        loop.call_soon_threadsafe(looks.set)
        assert may_answer.wait(60)
        return found

    monkeypatch.setattr(client, "find_app", find_late)
    bringing = asyncio.create_task(Apps(client, desk.claims).ensure(DIGEST, build, SLOT))
    claim = await desk.hears(turn=0)
    desk.tell(claim)
    await looks.wait()
    desk.tell(claim, turn=-1, holder="other", upload_age_us=7)
    await asyncio.to_thread(client.upload, build, custom_id_of(DIGEST), threading.Event())
    may_answer.set()
    desk.tell(await desk.hears(turn=1))
    app = await bringing
    assert (app.is_new, len(stand_in.uploads)) == (False, 1)


async def test_address_from_before_this_agent_looked_keeps_it_from_no_upload(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    clock = Clock(now=10_000.0)
    desk = Desk(Claims(ACCOUNT, clock))
    apps = Apps(client, desk.claims, clock)
    apps._doubted[DIGEST] = "bs://gone"
    bringing = asyncio.create_task(apps.ensure(DIGEST, build, SLOT))
    desk.tell(await desk.hears(turn=0), url="bs://gone", url_age_us=MICROSECONDS)
    claim = await desk.hears(turn=1)
    desk.tell(claim, turn=0, url="bs://gone", url_age_us=MICROSECONDS)
    assert not bringing.done()
    desk.tell(claim)
    assert (await bringing).is_new


async def test_address_that_is_old_or_doubted_is_not_taken(stand_in: StandIn, client: Client, build: Path) -> None:
    clock = Clock(now=10_000.0)
    desk = Desk(Claims(ACCOUNT, clock))
    apps = Apps(client, desk.claims, clock)
    bringing = asyncio.create_task(apps.ensure(DIGEST, build, SLOT))
    desk.tell(await desk.hears(turn=0), url="bs://old", url_age_us=int(TRUSTED_S + 1) * MICROSECONDS)
    desk.tell(await desk.hears(turn=1))
    url = (await bringing).url
    assert url in stand_in.apps
    apps.doubt(DIGEST)
    asking = asyncio.create_task(apps.ensure(DIGEST, build, SLOT))
    desk.tell(await desk.hears(turn=0), url=url)
    assert (await asking).url == url, "it was looked for, and is there"
    assert [path for _, path in stand_in.requests].count(f"/app-automate/recent_apps/{custom_id_of(DIGEST)}") == 2


async def test_word_on_a_claim_that_ended_is_none_on_the_next(stand_in: StandIn, client: Client, build: Path) -> None:
    desk = Desk(Claims(ACCOUNT))
    apps = Apps(client, desk.claims)
    first = asyncio.create_task(apps.ensure(DIGEST, build, SLOT))
    ended = await desk.hears(turn=0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(apps.ensure(DIGEST, build, SLOT))
    claim = await desk.hears(turn=0)
    desk.tell(ended, turn=1)
    desk.tell(claim, turn=-1)
    assert not stand_in.requests
    second.cancel()


async def test_coordinator_of_an_earlier_release_keeps_nobody_waiting(
    stand_in: StandIn, client: Client, build: Path
) -> None:
    desk = Desk(Claims(ACCOUNT))
    bringing = asyncio.create_task(Apps(client, desk.claims).ensure(DIGEST, build, SLOT))
    await desk.hears(turn=0)
    desk.claims.share(is_shared=False)
    assert (await bringing).is_new


def test_agents_of_an_account_share_what_it_may_ask_in_a_second(client: Client) -> None:
    claims = Claims(ACCOUNT)
    told: list[int] = []
    claims.on_sharing(told.append)
    claims.take((), ((ACCOUNT, 3), ("other@cloud", 9)))
    claims.take((), ())
    assert told == [3, 1]
