"""The stream to the coordinator: when it is opened again, for how long nobody has answered, and what that ends.

Keepalive sees dead links; the limit of silence sees a dead coordinator behind a proxy that lives.
"""

from agent.core.events import SessionLost
from agent.core.model import MICROSECONDS, Now, Pace
from agent.core.outbox import Outbox
from agent.core.step import CloseSession, OpenSession

FIRST_WINDOW_US = MICROSECONDS // 2
LAST_WINDOW_US = 10 * MICROSECONDS
JITTER_RANGE = 65_536
CLOUD_MARGIN_US = 10 * MICROSECONDS
"""How long before the expiry of its lease a slot of a cloud is given up; a third of a short time to live."""


def is_due(deadline_us: int | None, now: Now) -> bool:
    """Whether a deadline has come, if there is one."""
    return deadline_us is not None and deadline_us <= now.mono_us


class Link:
    """One stream at a time, numbered, and the heartbeats on it. Times are microseconds of the monotonic clock."""

    def __init__(self, outbox: Outbox) -> None:
        """Begin without a stream."""
        self._outbox = outbox
        self.pace = Pace()
        """As the coordinator told it last."""
        self.session = 0
        """The number of the latest stream."""
        self._opened_us = 0
        self._is_open = False
        """The stream is up; whether anybody answers on it is another question."""
        self._window_us = FIRST_WINDOW_US
        self._reconnect_us: int | None = None
        self._beat_us: int | None = None
        self._sequence = 0
        self._heard_us = 0
        self._beats: dict[int, int] = {}
        """When each heartbeat left that was not answered yet."""
        self._renewed_us = 0
        """When the last Hello or heartbeat left that was answered: the leases live from then at least."""
        self._cut_off_us: int | None = None

    # The stream

    def open(self) -> None:
        """Ask for the next stream."""
        self.session += 1
        self._outbox.actions.append(OpenSession(session=self.session))

    def note_opened(self, now: Now) -> None:
        """Take in that the latest stream is up."""
        self._heard_us = self._opened_us = now.mono_us
        self._is_open = True

    def note_lost(self, now: Now) -> None:
        """Take in that the latest stream has ended."""
        if self._outbox.is_connected:
            self._cut_off_us = now.mono_us
        self._is_open = self._outbox.is_connected = False

    def come_back(self, event: SessionLost, now: Now) -> None:
        """Say when the next stream is asked for."""
        if event.is_refused:
            self._window_us = LAST_WINDOW_US
        # A whole window with jitter in it, not a fixed step: thousands of agents must not come back at once.
        self._reconnect_us = now.mono_us + self._window_us * event.jitter // JITTER_RANGE
        # Within a third of a lease, so that one lost try does not cost it.
        widest_us = min(LAST_WINDOW_US, max(FIRST_WINDOW_US, self.pace.lease_ttl_us // 3))
        self._window_us = min(widest_us, self._window_us * 2)

    def note_heard(self, now: Now) -> None:
        """Take in that the coordinator has said something."""
        self._heard_us = now.mono_us

    def note_welcomed(self, pace: Pace, now: Now) -> None:
        """Take in that a coordinator has answered Hello."""
        self.pace = pace
        self._beats.clear()
        self._renewed_us = self._opened_us
        self._outbox.is_connected = True
        self._cut_off_us = None
        self._window_us = FIRST_WINDOW_US
        self._beat_us = now.mono_us + pace.heartbeat_us

    # Heartbeats

    def is_beat_due(self, now: Now) -> bool:
        """Whether a heartbeat is to be sent."""
        return self._outbox.is_connected and is_due(self._beat_us, now)

    def beat(self, now: Now) -> int:
        """Note that a heartbeat leaves, and return its number."""
        self._sequence += 1
        self._beats[self._sequence] = now.mono_us
        self._beat_us = now.mono_us + self.pace.heartbeat_us
        return self._sequence

    def note_answered(self, sequence: int) -> None:
        """Take in that a heartbeat was answered."""
        left_us = self._beats.pop(sequence, None)
        if left_us is not None:
            self._renewed_us = max(self._renewed_us, left_us)
        for older in [number for number in self._beats if number < sequence]:
            del self._beats[older]

    # Time

    def expire(self, now: Now) -> None:
        """Ask for the next stream, when it is time."""
        if is_due(self._reconnect_us, now):
            self._reconnect_us = None
            self.open()

    def end_silence(self, now: Now) -> None:
        """Close a stream on which nobody has answered for too long."""
        if self._is_open and now.mono_us - self._heard_us > self._silence_us:
            self._heard_us = now.mono_us
            self._outbox.actions.append(CloseSession(session=self.session, reason="the coordinator is silent"))

    def take_orphan(self, now: Now) -> bool:
        """Whether nobody has been there for longer than leases are gone on with; said once."""
        if not is_due(self._orphan_end_us, now):
            return False
        self._cut_off_us = None
        return True

    @property
    def cloud_end_us(self) -> int:
        """When the leases of clouds that go on are given up, if there are any."""
        margin_us = min(CLOUD_MARGIN_US, self.pace.lease_ttl_us // 3)
        return self._renewed_us + self.pace.lease_ttl_us - margin_us

    def deadlines(self) -> list[int]:
        """Return when something is to be done for want of an event."""
        due = [self._heard_us + self._silence_us + 1] if self._is_open else []
        if self._reconnect_us is not None:
            due.append(self._reconnect_us)
        if self._outbox.is_connected and self._beat_us is not None:
            due.append(self._beat_us)
        if (orphan_end_us := self._orphan_end_us) is not None:
            due.append(orphan_end_us)
        return due

    @property
    def _silence_us(self) -> int:
        """How long one may be silent that should answer heartbeats: then half a lease is left to come back."""
        return self.pace.lease_ttl_us // 2

    @property
    def _orphan_end_us(self) -> int | None:
        return None if self._cut_off_us is None else self._cut_off_us + self.pace.orphan_limit_us
