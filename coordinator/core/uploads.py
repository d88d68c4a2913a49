"""Builds on their way to accounts of clouds: only one agent at a time brings one, and so each is uploaded once.

An agent claims a build for an account before it looks whether it is there. The first to come has the claim; the others
wait, and are told where the build is as soon as the first has said so. Leave to upload is given by turns, each of which
is one upload: no account sees more of them in a span than its cloud takes, whichever agents they come from. Who asked
for a turn while another one had the claim is told first where that has brought the build.

What is being uploaded is durable: after a restart the claim is still its agent's, who may be at it, though another one
connects first. A claim whose agent is away lasts as long as a lease would, because until then the agent goes on.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from coordinator.core.events import UploadClaim
from coordinator.core.model import SECOND_US, AgentId, DeviceId, Now, Upload, UploadKey, UploadStatus, changed

UPLOADS_IN_SPAN = 5
SPAN_US = 60 * SECOND_US
"""BrowserStack takes five uploads a minute of an account."""
HEED_US = 5 * SECOND_US
"""How long an agent has to take an address that it hears of after it asked to upload; then it gets its turn."""
REMEMBERED = 10_000
"""Builds at accounts that are remembered; those that were brought the longest ago are forgotten first."""
NO_LEAVE, MAY_LOOK, FIRST_UPLOAD = -1, 0, 1

Sharers = Mapping[AgentId, tuple[tuple[str, int], ...]]
News = tuple[AgentId, tuple[UploadStatus, ...], tuple[tuple[str, int], ...]]


@dataclass(slots=True)
class _Contest:
    """Who wants to bring a build."""

    claims: dict[AgentId, UploadClaim] = field(default_factory=dict)
    """The first to come stands first."""
    holder: AgentId | None = None
    turn: int = NO_LEAVE
    """What the holder has leave for."""
    number: int | None = None
    """Of the claim that has it; None while an earlier life alone knew."""
    kept_until_us: int | None = None
    """While the holder is away: lab time until when the claim is kept for it."""
    heeds_until_us: int | None = None
    """On the monotonic clock: until when the holder has no turn, because it asked without knowing the address."""


class Uploads:
    """All claims, and what is known of the builds at accounts."""

    def __init__(self, put: Callable[[Upload], None]) -> None:
        """`put` takes what has changed, to make it durable; what was given up is forgotten."""
        self.known: OrderedDict[UploadKey, Upload] = OrderedDict()
        """What was noted last comes last."""
        self._put = put
        self._contests: dict[UploadKey, _Contest] = {}
        self._turns: dict[str, deque[int]] = {}
        """When leave for the last uploads to an account was given, on the monotonic clock."""
        self._told: dict[AgentId, tuple[tuple[UploadStatus, ...], tuple[tuple[str, int], ...]]] = {}
        self._has_news = False
        self._kept_due_us: int | None = None
        self._turn_due_us: int | None = None
        """When something is to be settled though nobody says anything: in lab time, and on the monotonic clock."""

    def restore(self, uploads: Iterable[Upload], until_us: int) -> None:
        """Take up what an earlier life knew.

        Args:
            uploads: All of it.
            until_us: Lab time until when uploads that were under way are their agents'.
        """
        for upload in sorted(uploads, key=lambda one: (one.end_us or one.begin_us, one.key)):
            self.known[upload.key] = upload
            if upload.end_us is None:
                contest = _Contest(holder=upload.agent, turn=FIRST_UPLOAD, kept_until_us=until_us)
                self._contests[upload.key] = contest
                self._has_news = True

    # What agents say

    def greet(self, agent: AgentId) -> None:
        """Take in that an agent has a new stream, on which it was told nothing yet."""
        self._told.pop(agent, None)
        self._has_news = True

    def state(self, agent: AgentId, claims: tuple[UploadClaim, ...], now: Now) -> None:
        """Take in all claims of a connected agent."""
        stated = {claim.key: claim for claim in claims}
        for key in [key for key, contest in self._contests.items() if _takes_part(contest, agent)]:
            if key not in stated:
                self._withdraw(key, agent, "", now)
        for key, claim in stated.items():
            if claim.url:
                self._withdraw(key, agent, claim.url, now)
                continue
            if key in self._contests and _is_another(self._contests[key], agent, claim):
                self._withdraw(key, agent, "", now)
            contest = self._contests.setdefault(key, _Contest())
            contest.claims[agent] = claim
            if contest.holder == agent:
                contest.number, contest.kept_until_us = claim.number, None
        self._has_news = True

    def leave(self, agent: AgentId, until_us: int | None, now: Now) -> None:
        """Take in that an agent's stream has ended.

        Args:
            agent: The agent.
            until_us: Lab time until when what it uploads is kept for it; None if it is gone for good.
            now: Both clocks.
        """
        for key, contest in list(self._contests.items()):
            if contest.holder == agent and until_us is not None:
                contest.claims.pop(agent, None)
                contest.kept_until_us = until_us
            elif _takes_part(contest, agent):
                self._withdraw(key, agent, "", now)
        self._told.pop(agent, None)
        self._has_news = True

    def _withdraw(self, key: UploadKey, agent: AgentId, url: str, now: Now) -> None:
        """End an agent's part in a contest; its holder may say where the build is."""
        contest = self._contests.get(key)
        if contest is None:
            return
        contest.claims.pop(agent, None)
        if contest.holder == agent:
            contest.holder, contest.turn, contest.number = None, NO_LEAVE, None
            contest.kept_until_us, contest.heeds_until_us = None, None
            self._end(key, agent, url, now)
        if contest.holder is None and not contest.claims:
            del self._contests[key]

    def _end(self, key: UploadKey, agent: AgentId, url: str, now: Now) -> None:
        known = self.known.get(key)
        if url:
            begin_us = known.begin_us if known is not None and known.end_us is None else now.wall_us
            self._note(
                Upload(
                    account=key.account, digest=key.digest, agent=agent, begin_us=begin_us, end_us=now.wall_us, url=url
                )
            )
        elif known is not None and known.end_us is None:
            del self.known[key]
            self._put(changed(known, end_us=now.wall_us))

    def _note(self, upload: Upload) -> None:
        self.known.pop(upload.key, None)
        self.known[upload.key] = upload
        self._put(upload)
        if len(self.known) > REMEMBERED:
            oldest = next((one for one in self.known.values() if one.end_us is not None), None)
            if oldest is not None:
                del self.known[oldest.key]
                self._put(changed(oldest, url=""))

    # Time

    def next_expiry_us(self) -> int | None:
        """Return the lab time at which the first claim of an agent that is away ends."""
        if not self._contests:
            return None
        kept = (one.kept_until_us for one in self._contests.values() if one.kept_until_us is not None)
        return min(kept, default=None)

    def next_turn_us(self) -> int | None:
        """Return the monotonic time at which leave for an upload can be given that an account has no room for now."""
        if not self._contests:
            return None
        dues = (
            max(self._room_us(key.account), contest.heeds_until_us or 0)
            for key, contest in self._contests.items()
            if _wanted_turn(contest) is not None
        )
        return min((due_us for due_us in dues if due_us > 0), default=None)

    def _room_us(self, account: str) -> int:
        """Return the monotonic time from which on one more upload to an account may begin; 0 if it may already."""
        turns = self._turns.get(account)
        return turns[0] + SPAN_US if turns is not None and len(turns) >= UPLOADS_IN_SPAN else 0

    def settle(self, now: Now, lab_us: int) -> None:
        """End the claims of those who stayed away, and give leave to whoever is next.

        Asked after every fact, and mostly nothing has changed.
        """
        if not (self._has_news or _is_due(self._kept_due_us, lab_us) or _is_due(self._turn_due_us, now.mono_us)):
            return
        for key, contest in list(self._contests.items()):
            if contest.kept_until_us is not None and contest.kept_until_us <= lab_us:
                assert contest.holder is not None, f"{key} is kept for nobody"
                self._withdraw(key, contest.holder, "", now)
                self._has_news = True
        for key, contest in self._contests.items():
            if contest.holder is None:
                self._give_claim(key, contest, now)
            self._give_turn(key, contest, now)
        for account in list(self._turns):
            self._has_room(account, now.mono_us)  # and forget what was too long ago
        self._kept_due_us, self._turn_due_us = self.next_expiry_us(), self.next_turn_us()

    def _give_claim(self, key: UploadKey, contest: _Contest, now: Now) -> None:
        contest.holder, claim = next(iter(contest.claims.items()))
        contest.turn, contest.number = MAY_LOOK, claim.number
        known = self.known.get(key)
        if claim.turn > MAY_LOOK and known is not None and known.end_us is not None:
            contest.heeds_until_us = now.mono_us + HEED_US
        self._has_news = True

    def _give_turn(self, key: UploadKey, contest: _Contest, now: Now) -> None:
        wanted = _wanted_turn(contest)
        if wanted is None or not self._has_room(key.account, now.mono_us):
            return
        if contest.heeds_until_us is not None and now.mono_us < contest.heeds_until_us:
            return
        assert contest.holder is not None, f"{key} has no holder"
        self._turns.setdefault(key.account, deque()).append(now.mono_us)
        known = self.known.get(key)
        if known is None or known.end_us is not None:
            self._note(Upload(account=key.account, digest=key.digest, agent=contest.holder, begin_us=now.wall_us))
        contest.turn = wanted
        self._has_news = True

    def _has_room(self, account: str, mono_us: int) -> bool:
        """Whether one more upload to an account may begin now."""
        turns = self._turns.get(account)
        while turns and turns[0] + SPAN_US <= mono_us:
            turns.popleft()
        if turns is not None and not turns:
            del self._turns[account]
        return turns is None or len(turns) < UPLOADS_IN_SPAN

    # What agents are told

    def take_news(self, sharers: Callable[[], Sharers], is_changed: bool) -> Iterator[News]:
        """Yield the agents of which something has changed, how their claims stand, and which accounts they share.

        Args:
            sharers: Says which accounts connected agents share.
            is_changed: Whether that may have changed.
        """
        if not (self._has_news or is_changed):
            return
        self._has_news = False
        statuses: dict[AgentId, list[UploadStatus]] = {}
        for contest in self._contests.values():
            for agent, claim in contest.claims.items():
                statuses.setdefault(agent, []).append(self._status(claim, contest, agent))
        shared = sharers()
        for agent in {**dict.fromkeys(statuses), **dict.fromkeys(shared), **dict.fromkeys(self._told)}:
            told = (tuple(statuses.get(agent, ())), shared.get(agent, ()))
            if told != self._told.get(agent, ((), ())):
                self._told[agent] = told
                yield agent, *told

    def _status(self, claim: UploadClaim, contest: _Contest, agent: AgentId) -> UploadStatus:
        turn = contest.turn if contest.holder == agent else NO_LEAVE
        upload = self.known.get(claim.key)
        return UploadStatus(key=claim.key, number=claim.number, holder=contest.holder, turn=turn, upload=upload)

    # What people are told

    def awaited_on(self, device: DeviceId) -> Upload | None:
        """Return the upload that a slot waits for, None if it waits for none."""
        for key, contest in self._contests.items():
            known = self.known.get(key)
            is_under_way = known is not None and known.end_us is None
            if is_under_way and any(device in claim.devices for claim in contest.claims.values()):
                return known
        return None


def _is_due(due_us: int | None, now_us: int) -> bool:
    return due_us is not None and due_us <= now_us


def _takes_part(contest: _Contest, agent: AgentId) -> bool:
    return contest.holder == agent or agent in contest.claims


def _is_another(contest: _Contest, agent: AgentId, claim: UploadClaim) -> bool:
    """Whether an agent has ended its claim and begun this one, perhaps while its stream was lost."""
    before = contest.claims.get(agent)
    if before is not None:
        return before.number != claim.number
    return contest.holder == agent and contest.number not in (None, claim.number)


def _wanted_turn(contest: _Contest) -> int | None:
    """Return the turn that a holder asks for and does not have yet."""
    claim = contest.claims.get(contest.holder) if contest.holder is not None else None
    return claim.turn if claim is not None and claim.turn > contest.turn else None
