"""What the uploader sends of a log, on paper."""

from __future__ import annotations

from agent.core.logsender import MAX_CHUNK_BYTES, WINDOW_BYTES, LogSender


def sent(sender: LogSender, written: int) -> tuple[LogSender, list[tuple[int, int]]]:
    """Send all that may be sent."""
    chunks = []
    while chunk := sender.next_chunk(written):
        chunks.append(chunk)
        sender = sender.sent_chunk(chunk[1])
    return sender, chunks


def test_chunks_follow_each_other_until_the_window_is_full() -> None:
    sender, chunks = sent(LogSender(), 2 * WINDOW_BYTES)
    assert chunks == [(start, MAX_CHUNK_BYTES) for start in range(0, WINDOW_BYTES, MAX_CHUNK_BYTES)]
    sender, chunks = sent(sender.answered(10, is_closed=False), 2 * WINDOW_BYTES)
    assert chunks == [(WINDOW_BYTES, 10)]


def test_end_is_announced_once_when_everything_was_sent() -> None:
    sender = LogSender()
    assert not sender.may_finish(5)
    sender, _ = sent(sender, 5)
    assert not sender.may_finish(None)
    assert sender.may_finish(5)
    assert not sender.finish_sent().may_finish(5)


def test_smaller_size_than_was_acknowledged_rewinds() -> None:
    sender, _ = sent(LogSender(), 100)
    sender = sender.answered(100, is_closed=False).finish_sent().answered(40, is_closed=False)
    assert sender.next_chunk(100) == (40, 60)
    assert not sender.is_finish_sent


def test_new_stream_sends_again_what_was_on_its_way() -> None:
    sender, _ = sent(LogSender(), 100)
    assert sender.answered(30, is_closed=False).reconnected().next_chunk(100) == (30, 70)


def test_log_that_begins_anew_is_sent_again_though_nothing_of_it_was_acknowledged_before() -> None:
    sender, _ = sent(LogSender(), 100)
    sender = sender.finish_sent().answered(0, is_closed=False)
    assert sender.next_chunk(100) == (0, 100)
    sender, _ = sent(sender, 100)
    assert sender.may_finish(100)


def test_closed_log_sends_nothing_more() -> None:
    sender = LogSender().answered(0, is_closed=True)
    assert sender.next_chunk(100) is None
    assert not sender.may_finish(0)
