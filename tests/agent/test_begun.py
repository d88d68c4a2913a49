"""What the journal of begun attempts keeps through kills, full disks and damage."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent import begun
from agent.begun import BegunAttempts
from agent.core.model import AttemptId, Fence, LeaseId, LeaseKey

KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=2, number=3))
OTHER = LeaseKey(lease_id=LeaseId(4), fence=Fence(epoch=2, number=9))
ONE, TWO, THREE = AttemptId(1), AttemptId(2), AttemptId(3)
Open = Callable[[], BegunAttempts]
PATIENCE_S = 60.0


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    """Opens the journal as one life of the agent after the other."""
    with contextlib.ExitStack() as lives:

        def open_again() -> BegunAttempts:
            lives.close()
            return lives.enter_context(
                contextlib.closing(BegunAttempts(tmp_path / "begun.journal", tmp_path / "begun"))
            )

        yield open_again


def test_attempts_are_open_from_their_begin_to_their_end_in_every_life(reopen: Open) -> None:
    journal = reopen()
    journal.begin(TWO, OTHER)
    journal.begin(ONE, KEY)
    journal.begin(THREE, KEY)
    journal.end(THREE)
    for _ in range(2):
        assert list(reopen().open_attempts().items()) == [(ONE, KEY), (TWO, OTHER)]


def test_attempt_that_begins_again_is_open_under_its_last_lease(reopen: Open) -> None:
    journal = reopen()
    journal.begin(ONE, KEY)
    journal.end(ONE)
    journal.begin(ONE, OTHER)
    assert reopen().open_attempts() == {ONE: OTHER}


def test_end_of_an_attempt_that_never_began_writes_nothing(reopen: Open, tmp_path: Path) -> None:
    reopen().end(ONE)
    assert (tmp_path / "begun.journal").read_bytes() == b""


def test_begin_returns_once_its_line_is_synced(reopen: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = reopen()
    synced: list[int] = []
    monkeypatch.setattr(begun, "_sync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    journal.begin(ONE, KEY)
    assert synced == [(tmp_path / "begun.journal").stat().st_size]


def test_journal_that_cannot_be_opened_anew_is_written_on(
    reopen: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = reopen()
    journal.begin(ONE, KEY)

    def refuse(path: Path) -> int:
        raise OSError(24, "Too many open files", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(begun, "_open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            journal.forget_all()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)  # takes the lowest number that is free
    journal.begin(TWO, KEY)
    os.close(other)
    assert (tmp_path / "other").read_bytes() == b"", "its number must not have been the journal's"
    assert TWO in reopen().open_attempts()


def test_journal_whose_new_name_cannot_be_synced_is_the_one_that_is_written_on(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = reopen()
    journal.begin(ONE, KEY)

    def refuse(folder: Path) -> None:
        raise OSError(5, "Input/output error", str(folder))

    with monkeypatch.context() as patched:
        patched.setattr(begun, "sync_folder", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            journal.forget_all()
    journal.begin(TWO, KEY)
    assert reopen().open_attempts() == {TWO: KEY}


def test_attempts_that_begin_during_a_sync_share_the_next(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = reopen()
    is_syncing, may_end = threading.Event(), threading.Event()
    syncs: list[int] = []

    def sync(descriptor: int) -> None:
        syncs.append(os.fstat(descriptor).st_size)
        is_syncing.set()
        assert may_end.wait(PATIENCE_S)

    monkeypatch.setattr(begun, "_sync", sync)
    appended = threading.Semaphore(0)
    append = BegunAttempts._append

    def append_and_tell(self: BegunAttempts, line: bytes) -> None:
        append(self, line)
        appended.release()

    monkeypatch.setattr(BegunAttempts, "_append", append_and_tell)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(journal.begin, ONE, KEY)
        assert is_syncing.wait(PATIENCE_S)
        others = [threads.submit(journal.begin, AttemptId(number), KEY) for number in range(2, 10)]
        for _ in range(9):
            assert appended.acquire(timeout=PATIENCE_S)
        may_end.set()
        for one in (first, *others):
            one.result(PATIENCE_S)
    assert len(syncs) == 2
    assert len(reopen().open_attempts()) == 9


def test_line_that_was_cut_off_has_not_begun_and_spoils_nothing(reopen: Open, tmp_path: Path) -> None:
    reopen().begin(ONE, KEY)
    with (tmp_path / "begun.journal").open("ab") as file:
        file.write(b'{"begun":2,"key":{"lease')
    journal = reopen()
    assert journal.open_attempts() == {ONE: KEY}
    journal.begin(THREE, KEY)
    assert reopen().open_attempts() == {ONE: KEY, THREE: KEY}


@pytest.mark.parametrize("line", [b"\xff", b"{", b"[]", b"{}", b'{"begun":2}', b'{"begun":"x","key":{}}'])
def test_line_that_cannot_be_read_is_kept_aside_and_costs_no_other(reopen: Open, tmp_path: Path, line: bytes) -> None:
    reopen().begin(ONE, KEY)
    path = tmp_path / "begun.journal"
    path.write_bytes(damaged := line + b"\n" + path.read_bytes())
    assert reopen().open_attempts() == {ONE: KEY}
    assert path.with_suffix(".broken").read_bytes() == damaged
    assert line not in path.read_bytes().splitlines()


def test_half_a_line_on_a_full_disk_is_taken_back(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = reopen()
    journal.begin(ONE, KEY)
    write, written = os.write, iter([5])

    def write_half(descriptor: int, data: memoryview) -> int:
        if (length := next(written, 0)) == 0:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:length])

    with monkeypatch.context() as patches:
        patches.setattr(os, "write", write_half)
        with pytest.raises(OSError, match="No space left"):
            journal.begin(TWO, KEY)
    assert journal.open_attempts() == {ONE: KEY}
    journal.begin(THREE, KEY)
    assert reopen().open_attempts() == {ONE: KEY, THREE: KEY}


def test_journal_that_has_grown_is_written_anew_with_what_is_open(
    reopen: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begun, "MOST_BYTES", 200)
    journal = reopen()
    journal.begin(ONE, KEY)
    for number in range(2, 20):
        journal.begin(AttemptId(number), KEY)
        journal.end(AttemptId(number))
    assert (tmp_path / "begun.journal").stat().st_size < 400
    assert journal.open_attempts() == reopen().open_attempts() == {ONE: KEY}


def test_attempts_of_another_database_are_forgotten_durably(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = reopen()
    journal.begin(ONE, KEY)
    synced: list[int] = []
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    journal.forget_all()
    assert len(synced) == 2  # the empty file, and its name
    assert reopen().open_attempts() == {}


def test_attempts_that_an_earlier_release_left_are_taken_over(reopen: Open, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    folder.mkdir()
    (folder / f"{1:020d}.json").write_text('{"lease_id": 1, "fence": {"epoch": 2, "number": 3}}')
    for _ in range(2):
        assert reopen().open_attempts() == {ONE: KEY}
    assert not folder.exists()


def test_file_of_an_earlier_release_that_cannot_be_read_is_put_aside(reopen: Open, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    folder.mkdir()
    (folder / f"{1:020d}.json").write_text("{}")
    assert reopen().open_attempts() == {}
    assert (folder / f"{1:020d}.broken").read_text() == "{}"
