"""Reaching the coordinator of a lab: calls that are repeated, streams that are resumed, pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc

from qgjob.access import Access
from qgjob.channel import NO_ACCESS, Coordinators
from qgjob.client.patience import Patience, seconds_left
from qgjob.errors import ClientError, error_of, has_reached, is_passing

CALL_TIMEOUT_S = 30.0
CALL_PATIENCE_S = 1.5
"""How long a call that nobody answers is repeated: a wrong address should be told soon."""
FAILOVER_PATIENCE_S = 20.0
"""The same where several coordinators are named: when one has died, another needs a moment to take over."""
RESTART_PATIENCE_S = 20.0
"""How long a call is repeated that a stopping coordinator or a standby refused, or whose link broke: another one will
serve, and to notice a dead link alone takes up to 16 s."""
STREAM_PATIENCE_S = 300.0
MAX_PAGE = 1_000


Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Page(Protocol):
    """What every page has."""

    @property
    def next_page_token(self) -> str:
        """Empty on the last page."""


SomePage = TypeVar("SomePage", bound=Page)


class Connection:
    """Calls and streams of a coordinator, or of the one of several that serves: repeated, and resumed."""

    def __init__(
        self,
        target: str,
        *,
        access: Access = NO_ACCESS,
        call_patience_s: float | None = None,
        patience_s: float = STREAM_PATIENCE_S,
        on_lost: Callable[[ClientError], None] | None = None,
    ) -> None:
        """Open a channel to each address.

        Args:
            target: The coordinator's HOST:PORT, or those of several with commas between them.
            access: TLS and token.
            call_patience_s: How long a call that nobody answers is tried again; the default is short, and longer where
                several coordinators are named.
            patience_s: How long a broken stream is tried again, from the last message that came.
            on_lost: Called when a stream breaks and is tried again, on the thread that reads it; once for all streams,
                until something is heard again.
        """
        self._coordinators = Coordinators(target, access)
        self.target = self._coordinators.shown
        usual_s = CALL_PATIENCE_S if len(self._coordinators) == 1 else FAILOVER_PATIENCE_S
        self._call_patience_s = usual_s if call_patience_s is None else call_patience_s
        self._patience_s = patience_s
        self._on_lost = on_lost
        self._is_closed = False
        self._has_heard = False
        self._is_lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether the channels were closed from this side."""
        return self._is_closed

    def close(self) -> None:
        """Close the channels; streams that still run on other threads end with a ClientError."""
        self._is_closed = True
        self._coordinators.close()

    @property
    def _channel(self) -> grpc.Channel:
        return self._coordinators.channel

    def _stream_patience(self) -> Patience:
        unproven_s = None if self._has_heard else self._call_patience_s
        return Patience(self._patience_s, unproven_s=unproven_s, least_tries=len(self._coordinators))

    def _call(self, call: Callable[[], Answer]) -> Answer:
        """Make a call that may be repeated; a coordinator that starts again is waited for a moment."""
        patience = Patience(self._call_patience_s, least_tries=len(self._coordinators))
        while True:
            channel = self._channel
            try:
                answer = call()
            except grpc.RpcError as error:
                failure = error_of(error, self.target)
                if has_reached(error):
                    patience.extend(RESTART_PATIENCE_S)
                if not is_passing(error) or patience.is_over():
                    raise failure from error
                self._coordinators.leave(channel)
                patience.wait(0 if _leads_elsewhere(failure, patience) else None)
            else:
                self._has_heard = True
                return answer

    def _resume(
        self, error: grpc.RpcError, channel: grpc.Channel, patience: Patience, deadline: float | None = None
    ) -> None:
        """Wait a moment before a broken stream is opened again, or raise what it died of."""
        failure = error_of(error, self.target)
        if has_reached(error):
            patience.extend(RESTART_PATIENCE_S)
        if self._is_closed or not is_passing(error) or patience.is_over():
            raise failure from error
        is_elsewhere = _leads_elsewhere(failure, patience)
        if not is_elsewhere:
            self._tell_lost(failure)
        self._coordinators.leave(channel)
        patience.wait(0 if is_elsewhere else seconds_left(deadline))
        if self._is_closed:
            raise failure from error

    def _tell_lost(self, failure: ClientError) -> None:
        if not self._is_lost and self._on_lost is not None:
            self._is_lost = True
            self._on_lost(failure)

    def _pages(
        self,
        read: Callable[[int, str], SomePage],
        items: Callable[[SomePage], Iterable[Item]],
        limit: int | None = None,
    ) -> Iterator[Item]:
        """Yield the items of page after page. A page that is too large for one message is asked for in halves."""
        token = ""
        most = MAX_PAGE
        left = limit
        while left is None or left > 0:
            size = most if left is None else min(most, left)
            try:
                page = self._call(lambda size=size, token=token: read(size, token))  # type: ignore[misc]
            except ClientError as error:
                if error.reason != "MESSAGE_TOO_LARGE" or size == 1:
                    raise
                most = size // 2
                continue
            for item in items(page):
                yield item
                left = None if left is None else left - 1
            token = page.next_page_token
            if not token:
                return


def _leads_elsewhere(failure: ClientError, patience: Patience) -> bool:
    """Whether a standby refused, and an address is left where the leader may be: nothing is waited for then."""
    return failure.reason == "NOT_LEADER" and patience.has_untried
