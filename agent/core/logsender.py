"""What to send of one attempt's log: the pure rules of the uploader.

Bytes are sent in order inside a window; the receiver answers with the size that it has made durable. Less than was
sent before is a gap, or a new stream: sending goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WINDOW_BYTES = 1_024 * 1_024
MAX_CHUNK_BYTES = 64 * 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSender:
    """How far one attempt's log has come."""

    acked: int = 0
    sent: int = 0
    is_finish_sent: bool = False
    is_closed: bool = False

    @property
    def is_unanswered(self) -> bool:
        """Whether something was sent that the receiver has not said a word to."""
        return self.sent > self.acked or self.is_finish_sent

    def next_chunk(self, written: int) -> tuple[int, int] | None:
        """Return (offset, length) of the next chunk, None when the window is full or all is sent."""
        length = min(MAX_CHUNK_BYTES, written - self.sent, self.acked + WINDOW_BYTES - self.sent)
        return (self.sent, length) if length > 0 and not self.is_closed else None

    def sent_chunk(self, length: int) -> LogSender:
        """Return the state after a chunk left."""
        return LogSender(
            acked=self.acked, sent=self.sent + length, is_finish_sent=self.is_finish_sent, is_closed=self.is_closed
        )

    def may_finish(self, final_size: int | None) -> bool:
        """Whether the end can be announced now."""
        return final_size is not None and self.sent >= final_size and not self.is_finish_sent and not self.is_closed

    def finish_sent(self) -> LogSender:
        """Return the state after the end was announced."""
        return replace(self, is_finish_sent=True)

    def answered(self, committed: int, *, is_closed: bool) -> LogSender:
        """Return the state after an answer.

        A size below what was acknowledged before means that bytes were lost. So does none at all, whatever was said
        before: the log begins anew, and the answer that would have named a larger size may have been left out.
        """
        if committed < self.acked or committed == 0:
            return replace(self, acked=committed, sent=committed, is_finish_sent=False, is_closed=is_closed)
        sent = max(self.sent, committed)
        is_closed = is_closed or self.is_closed
        return LogSender(acked=committed, sent=sent, is_finish_sent=self.is_finish_sent, is_closed=is_closed)

    def reconnected(self) -> LogSender:
        """Return the state on a new stream: whatever was on its way is sent again."""
        return replace(self, sent=self.acked, is_finish_sent=False)
