"""Disk first: logs and results stay here until the coordinator has them.

One folder holds, for each attempt, `ID.log` (the bytes), `ID.times` (when they were written), `ID.lease` (the right to
them) and `ID.end` (length and SHA-256, written when the log is whole). Another one holds the results that were not
acknowledged. A journal tells which attempts have begun and have no result yet.

Nothing is begun without a file in reserve: when the disk is full, its room goes to the results of what runs, and to a
mark in each log where bytes are missing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.begun import BegunAttempts, checked, lease_key
from agent.core.model import (
    AttemptId,
    AttemptResult,
    BegunAttempt,
    Blame,
    Failure,
    LeaseKey,
    LogSummary,
    Memory,
    Outcome,
    TestResult,
    TestState,
)
from agent.core.step import ForgetCluster, ForgetResults, KeepResult, RememberCluster, Write
from agent.disk import UNREADABLE, put_aside, replace_file, sync_file
from agent.times import TimesWriter

MAX_LOG_BYTES = 64 * 1_024 * 1_024
CUT_MARK = b"\n[qgjob: the log was cut here, at 64 MiB]\n"
RESERVE_BYTES = 4 * 1_024 * 1_024
"""Room for about a thousand results."""
LOCK_NAME = "spool.lock"
TIMES = ".times"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledLog:
    """One attempt's log on disk."""

    attempt: AttemptId
    key: LeaseKey
    path: Path
    times: Path
    """When its bytes were written; logs of earlier releases have none."""
    summary: LogSummary | None
    """Length and hash when it is whole."""


class LogWriter:
    """Appends one attempt's output to disk. Called from the pump of a running test, it only ever writes.

    A disk that refuses costs the rest of the log, never the test; a mark says so where it was cut.
    """

    def __init__(self, path: Path, give_back: Callable[[], object]) -> None:
        """Begin a file.

        Args:
            path: Its name.
            give_back: Makes room for the mark.
        """
        self._times = TimesWriter(path.with_suffix(TIMES))
        self._file = path.open("wb", buffering=0)
        self._give_back = give_back
        self._hash = hashlib.sha256()
        self.size = 0
        self._is_cut = False
        self.lost: str | None = None
        """Why the rest of the log is missing; None when it is not."""

    def append(self, data: bytes) -> None:
        """Write output; what goes beyond the limit is dropped behind a mark."""
        if self._is_cut or not data:
            return
        room = MAX_LOG_BYTES - self.size
        if len(data) > room:
            self._is_cut = True
            data = data[:room] + CUT_MARK
        self._times.note(self.size)
        try:
            self._write(data)
        except OSError as error:
            self._is_cut, self.lost = True, error.strerror or str(error)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = self._file.write(left)
            self._hash.update(left[:written])
            self.size += written
            left = left[written:]

    @property
    def lost_times(self) -> str | None:
        """Why nobody will know when the rest was written; None when it is known."""
        return self._times.lost

    @property
    def summary(self) -> LogSummary:
        """Length and hash of what was written."""
        return LogSummary(size=self.size, sha256=self._hash.hexdigest())

    def close(self) -> LogSummary:
        """Make the log durable and return its length and hash."""
        self._times.close()
        with self._file:
            if self.lost is not None:
                self._give_back()
                self._write(
                    f"\n[qgjob: the rest of the log is missing, the agent could not keep it: {self.lost}]\n".encode()
                )
            os.fsync(self._file.fileno())
        return self.summary


class SpoolBusy(Exception):
    """Another agent works in this folder."""


def is_in_use(directory: Path) -> bool:
    """Whether an agent works in a folder. Nothing is made there.

    Raises:
        OSError: It cannot be looked at.
    """
    path = directory / LOCK_NAME
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Spool:
    """The folder of an agent, which it has to itself until it ends.

    Raises:
        SpoolBusy: Another agent has it.
        OSError: It cannot be written to.
    """

    def __init__(self, directory: Path) -> None:
        self._logs = directory / "logs"
        self._results = directory / "results"
        self._cluster = directory / "cluster.json"
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (directory / LOCK_NAME).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise SpoolBusy(f"another agent works in {directory}") from None
        self._reserve = directory / "reserve"
        self._begun = BegunAttempts(directory / "begun.journal", directory / "begun")

    @property
    def _folders(self) -> tuple[Path, ...]:
        return (self._logs, self._results)

    def close(self) -> None:
        """Leave the folder to another agent."""
        self._begun.close()
        self._lock.close()

    def recall(self) -> Memory:
        """Return what earlier lives have left, and finish the logs that they could not."""
        self._restore_leases()
        self._sweep()
        for path in sorted(self._logs.glob("*.log")):
            if self._is_ours(path) and not self._is_whole(path):
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                self._end(path, LogSummary(size=path.stat().st_size, sha256=sha256))
        cluster_id, epoch = self._recall_cluster()
        results = tuple(self._recall_results())
        begun = tuple(self._recall_begun({result.attempt_id for result in results}))
        return Memory(cluster_id=cluster_id, epoch=epoch, results=results, begun=begun)

    # What cannot be read is put aside, for it would stop every start of the agent.

    def _recall_cluster(self) -> tuple[str, int]:
        """Return the database and epoch that were last heard of; the next Welcome tells them anew."""
        if not self._cluster.exists():
            return "", 0
        try:
            known = json.loads(self._cluster.read_bytes())
            return checked(known["cluster_id"], str), checked(known["epoch"], int)
        except UNREADABLE as error:
            put_aside(self._cluster, self._cluster.with_suffix(".broken"), error)
            return "", 0

    def _recall_results(self) -> Iterator[AttemptResult]:
        for path in sorted(self._results.glob("*.json")):
            try:
                yield _result(json.loads(path.read_bytes()))
            except UNREADABLE as error:
                put_aside(path, path.with_suffix(".broken"), error)

    def _recall_begun(self, ended: set[AttemptId]) -> Iterator[BegunAttempt]:
        for attempt, key in self._begun.open_attempts().items():
            if attempt in ended:  # killed before it was forgotten
                self._begun.end(attempt)
                continue
            log = self.find_log(attempt)
            summary = log.summary if log is not None and log.summary is not None else LogSummary()
            yield BegunAttempt(attempt_id=attempt, key=key, log=summary)

    def _restore_leases(self) -> None:
        """Write the leases of logs anew that had not ended: until then the journal alone keeps them durably."""
        for attempt, key in self._begun.open_attempts().items():
            if (path := self._logs / f"{attempt}.log").exists():
                self._write(path.with_suffix(".lease"), asdict(key))

    def _is_ours(self, path: Path) -> bool:
        """Whether a log names its attempt and its lease: nobody would take it in without."""
        lease = path.with_suffix(".lease")
        try:
            int(path.stem)
            lease_key(json.loads(lease.read_bytes()))
        except UNREADABLE as error:
            for file in (path, lease):
                put_aside(file, file.with_name(f"{file.name}.broken"), error)
            return False
        return True

    def _is_whole(self, path: Path) -> bool:
        """Whether a log was ended, as can still be read, and has the length that it had then."""
        end = path.with_suffix(".end")
        if not end.exists():
            return False
        try:
            return _summary(json.loads(end.read_bytes())).size == path.stat().st_size
        except UNREADABLE:
            return False

    def _sweep(self) -> None:
        """Remove what a kill in the middle has left: half-written files, and files of a log that is forgotten."""
        self._sweep_forgotten()
        for folder in self._folders:
            for path in folder.glob("*.new"):
                path.unlink()
        for path in (*self._logs.glob("*.lease"), *self._logs.glob("*.end"), *self._logs.glob(f"*{TIMES}")):
            if not path.with_suffix(".log").exists():
                path.unlink()
        for path in self._logs.glob("*.log"):
            if not path.with_suffix(".lease").exists():
                path.unlink()

    def commit(self, writes: tuple[Write, ...]) -> None:
        """Make the machine's writes durable."""
        for write in writes:
            match write:
                case RememberCluster():
                    self._write(self._cluster, {"cluster_id": write.cluster_id, "epoch": write.epoch})
                case ForgetCluster():
                    self._forget_all()
                case KeepResult():
                    name = _file_name(write.result.attempt_id)
                    self._write(self._results / name, asdict(write.result))
                    self._end_attempt(write.result.attempt_id)
                case ForgetResults():
                    for attempt in write.attempt_ids:
                        self._end_attempt(attempt)
                        (self._results / _file_name(attempt)).unlink(missing_ok=True)

    def _end_attempt(self, attempt: AttemptId) -> None:
        self._with_reserve(lambda: self._begun.end(attempt))

    def _forget_all(self) -> None:
        """Drop all at once: who reads a log meanwhile finds it whole, or not at all."""
        self._begun.forget_all()
        self._sweep_forgotten()
        for folder in self._folders:
            folder.rename(_forgotten(folder))
            folder.mkdir(mode=0o700)
        self._sweep_forgotten()

    def _sweep_forgotten(self) -> None:
        for folder in self._folders:
            if _forgotten(folder).exists():
                shutil.rmtree(_forgotten(folder))

    def open_log(self, attempt: AttemptId, key: LeaseKey) -> LogWriter:
        """Write down that an attempt begins, and begin its log. Nothing of the attempt may run before.

        Raises:
            OSError: There is no room for what may come of it.
        """
        self._keep_reserve()
        path = self._logs / f"{attempt}.log"
        path.with_suffix(".end").unlink(missing_ok=True)
        lease = json.dumps(asdict(key))
        # Not synced before the log ends: until then the journal keeps the same.
        self._with_reserve(lambda: path.with_suffix(".lease").write_text(lease))
        self._with_reserve(lambda: self._begun.begin(attempt, key))
        return LogWriter(path, self._give_back)

    def end_log(self, attempt: AttemptId, writer: LogWriter) -> LogSummary:
        """Close the log of an attempt and keep its length and hash, unless nobody wants it any more."""
        summary = writer.close()
        path = self._logs / f"{attempt}.log"
        if path.exists():
            self._with_reserve(lambda: sync_file(path.with_suffix(".lease")))
            self._end(path, summary)
        return summary

    def _end(self, path: Path, summary: LogSummary) -> None:
        self._write(path.with_suffix(".end"), asdict(summary))

    def logs(self) -> Iterator[SpooledLog]:
        """Yield the logs that the coordinator does not have whole."""
        for path in sorted(self._logs.glob("*.log"), key=lambda path: int(path.stem)):
            log = self.find_log(AttemptId(int(path.stem)))
            if log is not None:
                yield log

    def find_log(self, attempt: AttemptId) -> SpooledLog | None:
        """Return one spooled log, None when it was forgotten."""
        path = self._logs / f"{attempt}.log"
        if not path.exists() or not path.with_suffix(".lease").exists():
            return None
        end = path.with_suffix(".end")
        try:
            summary = _summary(json.loads(end.read_bytes())) if end.exists() else None
            key = lease_key(json.loads(path.with_suffix(".lease").read_bytes()))
        except FileNotFoundError:
            return None  # forgotten just now
        return SpooledLog(attempt=attempt, key=key, path=path, times=path.with_suffix(TIMES), summary=summary)

    def forget_log(self, attempt: AttemptId) -> None:
        """Free the space of a log that the coordinator has, or will never want."""
        for suffix in (".log", TIMES, ".end", ".lease"):
            (self._logs / f"{attempt}{suffix}").unlink(missing_ok=True)

    def _write(self, path: Path, value: object) -> None:
        self._with_reserve(lambda: replace_file(path, value))

    def _with_reserve(self, write: Callable[[], object]) -> None:
        """Write durably; on a full disk with the room that was held in reserve."""
        try:
            write()
        except OSError as error:
            if error.errno != errno.ENOSPC or not self._give_back():
                raise
            write()

    def _keep_reserve(self) -> None:
        if self._reserve.exists():
            return
        try:
            with self._reserve.open("wb") as file:
                _take_room(file.fileno(), RESERVE_BYTES)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            raise

    def _give_back(self) -> bool:
        """Free what was held in reserve; return whether there was any."""
        if not self._reserve.exists():
            return False
        self._reserve.unlink()
        return True


def _forgotten(folder: Path) -> Path:
    return folder.with_suffix(".forgotten")


def _file_name(attempt: AttemptId) -> str:
    return f"{attempt:020d}.json"


def _take_room(descriptor: int, size: int) -> None:
    """Give a file real room; bytes that compress to nothing would take none."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.write(descriptor, os.urandom(size))
    os.fsync(descriptor)


def _summary(value: dict[str, Any]) -> LogSummary:
    return LogSummary(size=checked(value["size"], int), sha256=checked(value["sha256"], str))


def _result(value: dict[str, Any]) -> AttemptResult:
    failure = value["failure"]
    return AttemptResult(
        attempt_id=AttemptId(value["attempt_id"]),
        key=lease_key(value["key"]),
        outcome=Outcome(value["outcome"]),
        failure=Failure(**{**failure, "blame": Blame(failure["blame"])}) if failure is not None else None,
        tests=tuple(TestResult(**{**test, "state": TestState(test["state"])}) for test in value["tests"]),
        log=_summary(value["log"]),
        duration_us=value["duration_us"],
        build_digest=value["build_digest"],
        # An older release could not resume, and wrote nothing of it.
        is_resumable=bool(value.get("is_resumable", False)),
    )
