"""Brings the spooled logs out, around the real LogSender, as agent/uploader.py does."""

from __future__ import annotations

from agent.core.logsender import LogSender
from agent.core.model import AttemptId
from tests.sim.logs import Chunk, Finished, Stored
from tests.sim.network import Side, Stream
from tests.sim.spool import Spool
from tests.sim.world import SECOND_US, Act, Process

RETRY_US = SECOND_US // 2
MAX_RETRY_US = 5 * SECOND_US


class Uploader:
    """One stream for all logs of an agent process."""

    def __init__(self, process: Process, spool: Spool, connect: Act) -> None:
        self._process = process
        self._spool = spool
        self._connect = connect
        self._senders: dict[AttemptId, LogSender] = {attempt: LogSender() for attempt in spool.logs}
        self._stream: Stream | None = None
        self._delay_us = RETRY_US
        self._flushed: Act | None = None

    def start(self) -> None:
        self._connect(Side(self._process, self), self._opened)

    def note(self, attempt: AttemptId) -> None:
        """Send what a log has grown by."""
        self._senders.setdefault(attempt, LogSender())
        self._send(attempt)

    def flush(self, flushed: Act) -> None:
        """Tell when the coordinator has every log whole."""
        self._flushed = flushed
        self._check_flushed()

    def _check_flushed(self) -> None:
        if self._flushed is not None and not self._senders:
            self._flushed()

    def _opened(self, stream: Stream) -> None:
        self._stream = stream
        self._delay_us = RETRY_US
        self._senders = {attempt: sender.reconnected() for attempt, sender in self._senders.items()}
        for attempt in list(self._senders):
            self._send(attempt)

    def broken(self, stream: Stream) -> None:
        self._stream = None
        self._process.later(self._delay_us, self.start)
        self._delay_us = min(MAX_RETRY_US, self._delay_us * 2)

    def _send(self, attempt: AttemptId) -> None:
        """Send what the window allows of one log, and its end."""
        log = self._spool.logs.get(attempt)
        if log is None:
            del self._senders[attempt]
            self._check_flushed()
            return
        if self._stream is None:
            return
        sender = self._senders[attempt]
        written = log.summary.size if log.summary is not None else len(log.data)
        while chunk := sender.next_chunk(written):
            offset, length = chunk
            sender = sender.sent_chunk(length)
            data = bytes(log.data[offset : offset + length])
            self._stream.send_up(Chunk(attempt, log.key, offset, data), is_spared=True)
        if log.summary is not None and sender.may_finish(log.summary.size):
            sender = sender.finish_sent()
            finished = Finished(attempt, log.key, log.summary.size, log.summary.sha256)
            self._stream.send_up(finished, is_spared=True)
        self._senders[attempt] = sender

    def received(self, stream: Stream, message: object) -> None:
        assert isinstance(message, Stored)
        sender = self._senders.get(message.attempt)
        if sender is None:
            return
        sender = sender.answered(message.size, is_closed=message.is_closed)
        if sender.is_closed:
            del self._senders[message.attempt]
            self._spool.forget_log(message.attempt)
            self._check_flushed()
        else:
            self._senders[message.attempt] = sender
            self._send(message.attempt)
