"""`logs --timestamps`: each line with the time at which it was written."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from qgjob.stamps import Stamper
from qgjob.v1.job_pb2 import LOG_STATE_COMPLETE, LOG_STATE_OPEN
from qgjob.v1.log_pb2 import LogChunk, LogCut, LogMark
from qgjob.v1.log_service_pb2 import FollowLogsRequest
from tests.cli.coordinator_stand_in import Dropped, StandIn

QGJOB = str(Path(sys.executable).parent / "qgjob")
STAMPS = ["1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.500Z", "1970-01-01T00:00:03.000Z"]


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_a_line_bears_the_time_of_its_first_byte_however_it_is_cut() -> None:
    stamper = Stamper()
    told = stamper.feed(0, b"one\rstill\ntw", [(0, at(0)), (9, at(1.5))])
    told += stamper.feed(12, b"o\n", [(9, at(1.5)), (13, at(3))])
    told += stamper.feed(14, b"\nthree", [(13, at(3))])
    assert told.decode() == f"{STAMPS[0]} one\rstill\n{STAMPS[1]} two\n{STAMPS[2]} \n{STAMPS[2]} three"
    assert not stamper.is_without_times


def test_a_line_before_the_first_known_time_has_none() -> None:
    stamper = Stamper()
    assert stamper.feed(0, b"one\ntwo\n", [(4, at(0))]).decode() == f"one\n{STAMPS[0]} two\n"
    assert stamper.is_without_times


def test_the_log_of_another_attempt_has_times_of_its_own() -> None:
    stamper = Stamper()
    stamper.feed(0, b"cut in the middle of a li", [(0, at(0))])
    stamper.begin()
    assert stamper.feed(0, b"one\n", []) == b"one\n"


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_without_times_nothing_changes(data: bytes, cuts: list[int]) -> None:
    stamper = Stamper()
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [stamper.feed(start, data[start:end], []) for start, end in itertools.pairwise(places)]
    assert b"".join(pieces) == data


def mark(offset: int, milliseconds: int) -> LogMark:
    message = LogMark(offset=offset)
    message.time.FromMilliseconds(milliseconds)
    return message


def run(stand_in: StandIn, *arguments: str) -> tuple[str, str]:
    env = {**os.environ, "QGJOB_COORDINATOR": stand_in.address}
    done = subprocess.run([QGJOB, *arguments], env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


def test_a_follower_that_is_cut_off_goes_on_in_the_middle_of_a_line(stand_in: StandIn) -> None:
    def breaks(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=b"one\ntw", marks=[mark(0, 0), mark(4, 1_500)])
        raise Dropped

    def ends(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=4, data=b"two\nthree\n", marks=[mark(4, 1_500), mark(8, 3_000)])
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)

    stand_in.follows = [breaks, ends]
    out, _ = run(stand_in, "logs", "7", "--follow", "--timestamps")
    assert out == f"{STAMPS[0]} one\n{STAMPS[1]} two\n{STAMPS[2]} three\n"
    assert [request.timestamps for request in stand_in.asked if isinstance(request, FollowLogsRequest)] == [True, True]


def test_lines_whose_time_nobody_kept_are_shown_without_and_that_is_said_once(stand_in: StandIn) -> None:
    def knows_no_times(request: FollowLogsRequest) -> Iterator[LogChunk | LogCut]:
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_OPEN)
        yield LogChunk(attempt_id=5, offset=0, data=b"one\n")
        yield LogChunk(attempt_id=5, offset=4, data=b"two\n")
        yield LogCut(attempt_id=5, attempt_number=1, state=LOG_STATE_COMPLETE)

    stand_in.follows = [knows_no_times]
    out, err = run(stand_in, "logs", "7", "--timestamps")
    assert out == "one\ntwo\n"
    assert err == "some lines have no time: the agent or the coordinator is of a release that kept none\n"
