from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.logfile import MAX_LOG_BYTES, LogFile, LogPart, LogState, Span, Take, spans
from coordinator.core.model import AgentId, Attempt, AttemptId, AttemptOutcome, DeviceId, JobId, LeaseId


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


TRUTH = bytes(range(256)) * 4


@given(st.lists(st.tuples(st.integers(0, 1_100), st.integers(0, 300)), max_size=60))
def test_whatever_order_chunks_come_in_the_log_is_a_prefix_of_the_truth(chunks: list[tuple[int, int]]) -> None:
    log, stored = LogFile(), b""
    for offset, length in chunks:
        data = TRUTH[offset : offset + length]
        log, take = log.taken(offset, len(data))
        stored += data[take.skip : take.skip + take.length]
        assert log.size == len(stored)
    assert TRUTH.startswith(stored)


@given(st.data())
def test_sender_that_goes_on_from_the_answer_completes_the_log(data: st.DataObject) -> None:
    log, stored = LogFile(), b""
    while log.size < len(TRUTH):
        offset = data.draw(st.integers(max(0, log.size - 50), log.size), label="offset")
        chunk = TRUTH[offset : offset + data.draw(st.integers(60, 300), label="length")]
        log, take = log.taken(offset, len(chunk))
        stored += chunk[take.skip : take.skip + take.length]
    log = log.announced(len(TRUTH), sha256(TRUTH))
    assert log.is_due
    assert log.judged(sha256(stored)).state is LogState.COMPLETE


def test_chunk_at_the_end_is_taken_whole() -> None:
    assert LogFile(size=10).taken(10, 5) == (LogFile(size=15), Take(0, 5))


def test_overlap_is_trimmed() -> None:
    assert LogFile(size=10).taken(7, 5) == (LogFile(size=12), Take(3, 2))


@pytest.mark.parametrize("offset", [11, 1_000, 2**62, -1])
def test_gap_takes_nothing(offset: int) -> None:
    assert LogFile(size=10).taken(offset, 5) == (LogFile(size=10), Take())


def test_echo_takes_nothing() -> None:
    assert LogFile(size=10).taken(2, 8) == (LogFile(size=10), Take())


def test_closed_log_takes_nothing() -> None:
    for state in (LogState.COMPLETE, LogState.TRUNCATED):
        closed = LogFile(size=10, state=state)
        assert closed.taken(10, 5) == (closed, Take())


def test_nothing_is_taken_past_the_announced_end() -> None:
    log, take = LogFile(size=10).announced(12, "").taken(10, 5)
    assert (log.size, take, log.state) == (12, Take(0, 2), LogState.OPEN)
    assert log.is_due
    assert log.taken(12, 3) == (log, Take())


def test_log_past_the_limit_is_cut_and_closed() -> None:
    log, take = LogFile(size=MAX_LOG_BYTES - 3).taken(MAX_LOG_BYTES - 3, 5)
    assert take == Take(0, 3)
    assert (log.size, log.state) == (MAX_LOG_BYTES, LogState.TRUNCATED)


def test_log_that_is_announced_past_the_limit_is_closed() -> None:
    assert LogFile().announced(MAX_LOG_BYTES + 1, "").state is LogState.TRUNCATED


def test_log_of_the_limit_itself_can_be_complete() -> None:
    log, _ = LogFile(size=MAX_LOG_BYTES - 3).announced(MAX_LOG_BYTES, "aa").taken(MAX_LOG_BYTES - 3, 3)
    assert log.judged("aa").state is LogState.COMPLETE


def test_empty_log_is_complete_when_announced() -> None:
    log = LogFile().announced(0, sha256(b""))
    assert log.is_due
    assert log.judged(sha256(b"")).state is LogState.COMPLETE


def test_log_waits_for_its_announced_end() -> None:
    assert not LogFile(size=9).announced(10, "aa").is_due
    assert not LogFile(size=9).is_due


def test_hash_may_be_in_capitals() -> None:
    assert LogFile(size=1).announced(1, "AB").judged("ab").state is LogState.COMPLETE


def test_wrong_hash_truncates() -> None:
    assert LogFile(size=1).announced(1, "ab").judged("cd").state is LogState.TRUNCATED


def test_log_longer_than_announced_is_truncated() -> None:
    assert LogFile(size=2).announced(1, "ab").judged("ab").state is LogState.TRUNCATED


def test_wrong_hash_of_inherited_bytes_begins_the_log_anew_once() -> None:
    anew = LogFile(size=1, is_inherited=True).announced(1, "ab").judged("cd")
    assert anew == LogFile()


def test_refused_bytes_are_not_there() -> None:
    log, take = LogFile(size=10).taken(10, 5)
    assert log.without(take.length) == LogFile(size=10)


ENDED = Attempt(
    id=AttemptId(1),
    job=JobId(1),
    number=1,
    lease=LeaseId(1),
    device=DeviceId("pixel"),
    agent=AgentId("host"),
    assign_us=1,
    start_us=2,
    end_us=3,
    outcome=AttemptOutcome.FAILED,
    log_size=7,
)


@pytest.mark.parametrize(
    ("attempt", "log", "quiet_us", "state"),
    [
        (replace(ENDED, outcome=None), LogFile(), 10**9, LogState.OPEN),
        (ENDED, LogFile(size=3), 99, LogState.OPEN),
        (ENDED, LogFile(size=3), 100, LogState.TRUNCATED),
        (ENDED, LogFile(size=7, state=LogState.COMPLETE), 100, LogState.COMPLETE),
        (replace(ENDED, log_size=0), LogFile(), 0, LogState.COMPLETE),
        (replace(ENDED, log_size=0), LogFile(size=2), 0, LogState.OPEN),
        (replace(ENDED, start_us=None, log_size=0), LogFile(), 0, LogState.COMPLETE),
        (replace(ENDED, outcome=AttemptOutcome.LOST, log_size=0), LogFile(), 99, LogState.OPEN),
        (replace(ENDED, outcome=AttemptOutcome.LOST, log_size=0), LogFile(), 100, LogState.TRUNCATED),
    ],
    ids=[
        "running",
        "ended, the rest is waited for",
        "ended, the rest never came",
        "complete",
        "ended, wrote nothing",
        "ended with nothing by its report, but something came",
        "never started",
        "lost, its agent may bring more",
        "lost for good",
    ],
)
def test_readers_are_told(attempt: Attempt, log: LogFile, quiet_us: int, state: LogState) -> None:
    assert log.state_for(attempt, quiet_us, patience_us=100) is state


@st.composite
def epochs(draw: st.DrawFn) -> list[LogPart]:
    """Parts as they come to be: each goes on, or begins before, where the ones before had come to."""
    parts: list[LogPart] = []
    end = 0
    for epoch in range(1, draw(st.integers(1, 6)) + 1):
        start = draw(st.integers(0, end))
        size = draw(st.integers(0, 8))
        parts.append(LogPart(attempt=AttemptId(1), epoch=epoch, start=start, size=size))
        end = start + size
    return parts


@given(epochs())
def test_each_byte_counts_from_the_last_part_that_was_begun_before_it(parts: list[LogPart]) -> None:
    written: list[int] = []
    for part in parts:
        assert part.size is not None
        written[part.start :] = [part.epoch] * part.size
    seen: list[int] = []
    for span in spans(parts):
        assert span.part.start == len(seen)
        assert span.until is not None
        seen += [span.part.epoch] * (span.until - span.part.start)
    assert seen == written


def test_only_the_last_part_that_can_grow_has_no_end() -> None:
    first, second = (LogPart(attempt=AttemptId(1), epoch=epoch, start=start) for epoch, start in ((1, 0), (2, 7)))
    assert spans([first, second]) == [Span(first, 7), Span(second, None)]
