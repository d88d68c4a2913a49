"""What the spool keeps through kills and full disks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.begun import BegunAttempts
from agent.core.model import (
    AttemptId,
    AttemptResult,
    Blame,
    Failure,
    Fence,
    LeaseId,
    LeaseKey,
    LogSummary,
    Memory,
    Outcome,
    TestResult,
    TestState,
)
from agent.core.step import ForgetCluster, ForgetResults, KeepResult, RememberCluster
from agent.spool import LogWriter, Spool, SpoolBusy, SpooledLog
from tests.small_disk import fill, free, small_disk

KEY = LeaseKey(lease_id=LeaseId(1), fence=Fence(epoch=2, number=3))
ONE = AttemptId(1)


@pytest.fixture
def open_spool(tmp_path: Path) -> Iterator[Callable[[], Spool]]:
    """Opens the folder as one life of the agent after the other."""
    with contextlib.ExitStack() as lives:

        def open_again() -> Spool:
            lives.close()
            return lives.enter_context(contextlib.closing(Spool(tmp_path)))

        yield open_again


def result(attempt: int) -> AttemptResult:
    return AttemptResult(
        attempt_id=AttemptId(attempt),
        key=KEY,
        outcome=Outcome.FAILED,
        failure=Failure(reason="TEST_FAILED", message="boom", blame=Blame.TEST),
        tests=(TestResult(id="t", title="logs in", state=TestState.FAILED, duration_us=5, error="boom"),),
        log=LogSummary(size=3, sha256="x"),
        duration_us=7,
        build_digest="d",
        is_resumable=True,
    )


def files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("spool.lock", "reserve", "begun.journal")
    )


def test_results_and_cluster_are_recalled_as_they_were_kept(open_spool: Callable[[], Spool], tmp_path: Path) -> None:
    spool = open_spool()
    spool.commit((RememberCluster(cluster_id="c", epoch=4), KeepResult(result=result(2)), KeepResult(result=result(1))))
    memory = open_spool().recall()
    assert (memory.cluster_id, memory.epoch, memory.results) == ("c", 4, (result(1), result(2)))
    spool.commit((ForgetResults(attempt_ids=(ONE,)),))
    assert open_spool().recall().results == (result(2),)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_unreadable_result_does_not_stop_the_start(open_spool: Callable[[], Spool], tmp_path: Path, text: str) -> None:
    open_spool().commit((KeepResult(result=result(2)),))
    (tmp_path / "results" / f"{1:020d}.json").write_text(text)
    assert open_spool().recall().results == (result(2),)
    assert (tmp_path / "results" / f"{1:020d}.broken").read_text() == text


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cluster_id": 1, "epoch": "x"}'])
def test_unreadable_cluster_is_put_aside_and_learnt_anew(
    open_spool: Callable[[], Spool], tmp_path: Path, text: str
) -> None:
    open_spool().commit((KeepResult(result=result(2)),))
    (tmp_path / "cluster.json").write_text(text)
    memory = open_spool().recall()
    assert (memory.cluster_id, memory.epoch, memory.results) == ("", 0, (result(2),))
    assert (tmp_path / "cluster.broken").read_text() == text
    assert not (tmp_path / "cluster.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"size": "5", "sha256": 1}'])
def test_log_whose_end_cannot_be_read_is_summed_up_anew(
    open_spool: Callable[[], Spool], tmp_path: Path, text: str
) -> None:
    spool = open_spool()
    writer = spool.open_log(ONE, KEY)
    writer.append(b"whole")
    summary = spool.end_log(ONE, writer)
    (tmp_path / "logs" / "1.end").write_text(text)
    again = open_spool()
    again.recall()
    (log,) = again.logs()
    assert log.summary == summary


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"lease_id": 1, "fence": {"epoch": 2}}'])
def test_log_whose_lease_cannot_be_read_is_put_aside_alone(
    open_spool: Callable[[], Spool], tmp_path: Path, text: str
) -> None:
    spool = open_spool()
    for attempt in (ONE, AttemptId(2)):
        writer = spool.open_log(attempt, KEY)
        writer.append(b"whole")
        spool.end_log(attempt, writer)
        spool.commit((KeepResult(result=result(attempt)),))
    (tmp_path / "logs" / "1.lease").write_text(text)
    again = open_spool()
    again.recall()
    assert [log.attempt for log in again.logs()] == [AttemptId(2)]
    assert (tmp_path / "logs" / "1.log.broken").read_bytes() == b"whole"
    assert (tmp_path / "logs" / "1.lease.broken").read_text() == text


def test_file_that_is_no_log_of_an_attempt_is_put_aside(open_spool: Callable[[], Spool], tmp_path: Path) -> None:
    open_spool()
    for name in ("notes.log", "notes.lease"):
        (tmp_path / "logs" / name).write_text("mine")
    again = open_spool()
    again.recall()
    assert list(again.logs()) == []
    assert (tmp_path / "logs" / "notes.log.broken").read_text() == "mine"


def test_log_of_a_killed_agent_is_ended_at_the_next_start(open_spool: Callable[[], Spool], tmp_path: Path) -> None:
    writer = open_spool().open_log(ONE, KEY)
    writer.append(b"as far as it came")
    writer.close()  # the kernel does it for a killed process
    again = open_spool()
    again.recall()
    (log,) = again.logs()
    assert (log.attempt, log.key) == (ONE, KEY)
    assert log.summary == LogSummary(size=17, sha256=hashlib.sha256(b"as far as it came").hexdigest())


def test_log_that_lost_bytes_after_its_end_is_summed_up_anew(open_spool: Callable[[], Spool], tmp_path: Path) -> None:
    spool = open_spool()
    writer = spool.open_log(ONE, KEY)
    writer.append(b"whole")
    spool.end_log(ONE, writer)
    (tmp_path / "logs" / "1.log").write_bytes(b"who")
    again = open_spool()
    again.recall()
    (log,) = again.logs()
    assert log.summary == LogSummary(size=3, sha256=hashlib.sha256(b"who").hexdigest())


def test_what_a_kill_between_two_files_leaves_is_swept(open_spool: Callable[[], Spool], tmp_path: Path) -> None:
    open_spool()
    for name in ("logs/1.lease", "logs/2.end", "logs/3.new", "logs/4.log", "results/5.new"):
        (tmp_path / name).write_text("half")
    again = open_spool()
    assert again.recall().results == ()
    assert list(again.logs()) == []
    assert files(tmp_path) == []


def test_result_is_kept_only_when_its_name_is_durable_too(
    open_spool: Callable[[], Spool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool()
    folder = tmp_path / "results"
    held: list[list[str]] = []

    def fsync(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")) == folder:
            held.append(files(folder))

    monkeypatch.setattr(os, "fsync", fsync)
    spool.commit((KeepResult(result=result(1)),))
    assert held == [[f"{1:020d}.json"]]


def test_forgotten_log_leaves_nothing_though_its_test_still_writes(
    open_spool: Callable[[], Spool], tmp_path: Path
) -> None:
    spool = open_spool()
    writer = spool.open_log(ONE, KEY)
    writer.append(b"some")
    spool.forget_log(ONE)
    writer.append(b"more")
    assert spool.end_log(ONE, writer).size == 8
    spool.commit((KeepResult(result=result(1)), ForgetResults(attempt_ids=(ONE,))))
    assert files(tmp_path) == []


def test_new_attempt_never_inherits_the_end_of_an_older_one(open_spool: Callable[[], Spool], tmp_path: Path) -> None:
    spool = open_spool()
    spool.end_log(ONE, spool.open_log(ONE, KEY))
    writer = spool.open_log(ONE, KEY)
    log = spool.find_log(ONE)
    writer.close()
    assert log is not None
    assert log.summary is None


def test_another_database_empties_the_spool(open_spool: Callable[[], Spool], tmp_path: Path) -> None:
    spool = open_spool()
    spool.end_log(ONE, spool.open_log(ONE, KEY))
    spool.commit((KeepResult(result=result(1)), ForgetCluster(cluster_id="c")))
    assert files(tmp_path) == []


def test_full_disk_cuts_the_log_and_says_so() -> None:
    writer = LogWriter(Path("/dev/full"), lambda: None)
    writer.append(b"lost")
    writer.append(b"more")
    assert writer.lost == "No space left on device"
    assert writer.size == 0
    with pytest.raises(OSError, match="No space left"):
        writer.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 16) as disk:
        yield disk


def test_log_on_a_full_disk_says_where_bytes_are_missing_and_its_result_is_kept(disk: Path) -> None:
    with contextlib.closing(Spool(disk)) as spool:
        writer = spool.open_log(ONE, KEY)
        writer.append(b"before\n")
        fill(disk)
        writer.append(b"x" * 100_000)
        writer.append(b"after\n")
        summary = spool.end_log(ONE, writer)
        spool.commit((KeepResult(result=result(1)),))
        assert spool.recall().results == (result(1),)
        log = spool.find_log(ONE)
        assert log is not None
        kept = log.path.read_bytes()
    assert log.summary == summary == LogSummary(size=len(kept), sha256=hashlib.sha256(kept).hexdigest())
    assert kept.startswith(b"before\n")
    assert kept.endswith(
        b"\n[qgjob: the rest of the log is missing, the agent could not keep it: No space left on device]\n"
    )
    assert b"after" not in kept


def test_nothing_is_begun_on_a_disk_that_could_not_keep_its_result(disk: Path) -> None:
    with contextlib.closing(Spool(disk)) as spool:
        fill(disk)
        with pytest.raises(OSError, match="No space left"):
            spool.open_log(ONE, KEY)
        assert list(spool.logs()) == []
        free(disk)
        spool.end_log(ONE, spool.open_log(ONE, KEY))
        assert [log.attempt for log in spool.logs()] == [ONE]


def test_results_of_what_runs_fit_into_the_reserve(disk: Path) -> None:
    with contextlib.closing(Spool(disk)) as spool:
        writer = spool.open_log(ONE, KEY)
        fill(disk)
        spool.commit(tuple(KeepResult(result=result(number)) for number in range(1, 501)))
        assert len(spool.recall().results) == 500
        spool.end_log(ONE, writer)


def test_two_agents_never_share_a_spool(open_spool: Callable[[], Spool], tmp_path: Path) -> None:
    open_spool()
    with pytest.raises(SpoolBusy, match=str(tmp_path)):
        Spool(tmp_path)


def begun_of(spool: Spool) -> list[tuple[int, LeaseKey, int]]:
    return [(begun.attempt_id, begun.key, begun.log.size) for begun in spool.recall().begun]


def test_attempt_that_was_begun_is_known_to_every_life_until_its_result_is_kept(
    open_spool: Callable[[], Spool],
) -> None:
    spool = open_spool()
    writer = spool.open_log(ONE, KEY)
    writer.append(b"half a li")
    writer.close()
    for _ in range(2):
        assert begun_of(open_spool()) == [(ONE, KEY, 9)]
    open_spool().commit((KeepResult(result=result(1)),))
    memory = open_spool().recall()
    assert ([kept.attempt_id for kept in memory.results], memory.begun) == ([ONE], ())


def test_attempt_whose_loss_is_acknowledged_is_forgotten(open_spool: Callable[[], Spool]) -> None:
    open_spool().open_log(ONE, KEY).close()
    spool = open_spool()
    assert begun_of(spool)
    spool.commit((ForgetResults(attempt_ids=(ONE,)),))
    assert begun_of(open_spool()) == []


def test_kill_between_the_result_and_the_end_of_the_attempt_loses_neither(
    open_spool: Callable[[], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool()
    spool.open_log(ONE, KEY).close()

    def killed(_begun: BegunAttempts, _attempt: AttemptId) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(BegunAttempts, "end", killed)
        with pytest.raises(KeyboardInterrupt):
            spool.commit((KeepResult(result=result(1)),))
    memory = open_spool().recall()
    assert ([kept.outcome for kept in memory.results], memory.begun) == ([Outcome.FAILED], ())


def test_attempts_of_another_database_are_forgotten(open_spool: Callable[[], Spool]) -> None:
    spool = open_spool()
    spool.open_log(ONE, KEY).close()
    spool.commit((ForgetCluster(cluster_id="old"),))
    assert begun_of(open_spool()) == []


@pytest.mark.parametrize("lease", ["", "{"])
def test_lease_that_the_power_took_before_its_log_had_ended_is_restored(
    open_spool: Callable[[], Spool], tmp_path: Path, lease: str
) -> None:
    writer = open_spool().open_log(ONE, KEY)
    writer.append(b"half a li")
    writer.close()
    (tmp_path / "logs" / "1.lease").write_text(lease)
    again = open_spool()
    again.recall()
    assert [(log.attempt, log.key) for log in again.logs()] == [(ONE, KEY)]


def test_log_that_is_forgotten_with_its_database_while_it_is_looked_at_is_none(
    open_spool: Callable[[], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool()
    spool.end_log(ONE, spool.open_log(ONE, KEY))
    read = Path.read_bytes

    def read_late(path: Path) -> bytes:
        spool.commit((ForgetCluster(cluster_id="old"),))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_late)
    assert spool.find_log(ONE) is None


def test_logs_of_another_database_vanish_together(
    open_spool: Callable[[], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = open_spool()
    for number in (1, 2):
        spool.end_log(AttemptId(number), spool.open_log(AttemptId(number), KEY))
    seen: list[list[SpooledLog]] = []
    remove = shutil.rmtree

    def look_and_remove(folder: Path) -> None:
        seen.append(list(spool.logs()))
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", look_and_remove)
    spool.commit((ForgetCluster(cluster_id="old"),))
    assert seen
    assert not any(seen)


def test_kill_in_the_middle_of_forgetting_a_database_leaves_nothing(
    open_spool: Callable[[], Spool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def die(_folder: Path) -> None:
        raise Killed

    spool = open_spool()
    spool.end_log(ONE, spool.open_log(ONE, KEY))
    monkeypatch.setattr(shutil, "rmtree", die)
    with pytest.raises(Killed):
        spool.commit((ForgetCluster(cluster_id="old"),))
    monkeypatch.undo()
    assert open_spool().recall() == Memory()
    assert files(tmp_path) == []
