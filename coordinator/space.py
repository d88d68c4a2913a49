"""Room on disk: what is refused when it gets short, so that what was accepted can still be finished.

New work and new logs are refused first, then the growth of logs, which agents keep until it is taken. The database may
use all there is; when it meets a full disk all the same, a file of ballast is given back to it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from coordinator.complaints import Complaints
from coordinator.core.errors import StorageFull

MIB = 1_024 * 1_024
BALLAST_BYTES = 32 * MIB
LAST_RESERVE_BYTES = MIB
"""Stays of the ballast until a start needs it: SQLite cannot even be read without a little room."""
PROBE_BYTES = 4 * MIB
"""More than the last reserve, so that giving that back does not pass for room."""
LOOK_INTERVAL_S = 1.0
SHARED_LOOK_S = 0.1
"""So old may be what new work goes by: many that come at once share a look, and none fills a disk in that time."""
LONGEST_LOOK_S = 1.0
"""So long is waited for a look; a disk that answers does so in far less."""
BALLAST = "ballast"
PROBE = "probe"


class Space:
    """The room where database and logs lie. What is awaited belongs to the event loop, the rest to any thread."""

    def __init__(
        self,
        directory: Path,
        others: Sequence[Path] = (),
        *,
        min_free: int,
        ballast_bytes: int = BALLAST_BYTES,
        read_free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
        look_interval_s: float = LOOK_INTERVAL_S,
    ) -> None:
        """Watch directories.

        Args:
            directory: Where the ballast lies; it should share its file system with the database.
            others: Further directories that need room.
            min_free: Bytes below which nothing new is taken in.
            ballast_bytes: Size of the ballast, and what logs leave to the database.
            read_free: Tells the free bytes of a directory's file system; may take its time.
            look_interval_s: How old what is known may be when a log that has begun grows, or new work comes if it is
                shorter than usual.
        """
        self._directory = directory
        self._directories = (directory, *others)
        self._min_free = min_free
        self._ballast_bytes = ballast_bytes
        self._read_free = read_free
        self._look_interval_s = look_interval_s
        self._free: dict[Path, int] = {}
        """As last seen; nothing of what could never be looked at."""
        self._looking: asyncio.Task[None] | None = None
        self._looked_s = -look_interval_s
        """Monotonic time at which the last look began."""
        self._complaints = Complaints()
        self.is_writable = True
        """Whether the database takes anything at all; the engine tells."""

    async def check_new(self) -> None:
        """Look whether there is room for new work.

        Raises:
            StorageFull: There is not.
        """
        self.check_writable()
        await self._look(at_most_old_s=min(SHARED_LOOK_S, self._look_interval_s))
        self._check(self._min_free, "nothing new is taken in; free space there, or lower --min-free")

    async def check_room(self, size: int) -> None:
        """Look whether there is room for something new of a size.

        Raises:
            StorageFull: There is not.
        """
        self.check_writable()
        await self._look(at_most_old_s=self._look_interval_s)
        self._check(
            self._min_free + size,
            "the upload has no room; free space there, or lower --min-free",
        )

    async def check_growth(self) -> None:
        """Look whether there is room for what belongs to accepted work, apart from the database's own.

        Raises:
            StorageFull: There is not.
        """
        self.check_writable()
        await self._look(at_most_old_s=self._look_interval_s)
        self._check(min(self._min_free, self._ballast_bytes), "logs stay with their agents; free space there")

    def check_writable(self) -> None:
        """Check that the database takes anything at all.

        Raises:
            StorageFull: It does not.
        """
        if not self.is_writable:
            raise StorageFull(
                f"the coordinator cannot write to {self._directory}: its disk is full, it serves reads alone; "
                "free space there, and it goes on by itself"
            )

    def _check(self, least: int, consequence: str) -> None:
        for directory, free in self._free.items():
            if free < least:
                raise StorageFull(
                    f"the coordinator has {free // MIB} MiB free in {directory}, and {least // MIB} MiB are to stay: "
                    f"{consequence}",
                    free=free,
                    least=least,
                )

    async def _look(self, at_most_old_s: float) -> None:
        """Look anew in a thread unless what is known is young enough.

        A file system that hangs holds up nobody for long: what was seen last counts until it answers.
        """
        now_s = time.monotonic()
        if self._looking is None or (self._looking.done() and now_s - self._looked_s >= at_most_old_s):
            self._looking = asyncio.create_task(asyncio.to_thread(self._read))
            self._looked_s = now_s
        if not self._looking.done():
            await asyncio.wait((self._looking,), timeout=max(0, self._looked_s + LONGEST_LOOK_S - now_s))

    def _read(self) -> None:
        for directory in self._directories:
            try:
                self._free[directory] = self._read_free(directory)
            except OSError as error:
                reason = error.strerror or str(error)
                self._complaints.add("space_unknown", str(directory), directory=str(directory), reason=reason)

    # Ballast

    def keep_ballast(self) -> None:
        """Make the ballast whole where there is room beside it for what is to stay free.

        What hinders that is told, and does not matter to the caller: it is tried again.
        """
        try:
            self._fill_ballast()
        except OSError as error:
            structlog.get_logger("coordinator").warning("no_ballast", reason=error.strerror or str(error))

    def _fill_ballast(self) -> None:
        missing = self._ballast_bytes - self._held()
        if missing > 0 and self._read_free(self._directory) - missing >= self._min_free:
            _fill(self._directory / BALLAST, self._ballast_bytes)

    def _held(self) -> int:
        try:
            return (self._directory / BALLAST).stat().st_size
        except FileNotFoundError:
            return 0

    def give_back(self) -> bool:
        """Give the ballast back, all but the last reserve; return whether that was anything."""
        return self._shrink(LAST_RESERVE_BYTES)

    def give_back_all(self) -> bool:
        """Give back what is left of the ballast; return whether that was anything."""
        return self._shrink(0)

    def _shrink(self, size: int) -> bool:
        held = self._held()
        if held <= size:
            return False
        os.truncate(self._directory / BALLAST, size)
        structlog.get_logger("coordinator").error(
            "ballast_given_back", story=f"the disk is full; {self._directory} needs space now", bytes=held - size
        )
        return True

    def can_write(self) -> bool:
        """Whether there is ballast, or a file of some size can be written and removed again."""
        if self._held() >= self._ballast_bytes:
            return True
        path = self._directory / PROBE
        try:
            _fill(path, PROBE_BYTES)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return False
        finally:
            path.unlink(missing_ok=True)
        return True


def _fill(path: Path, size: int) -> None:
    """Make a file that really has its space; bytes that compress to nothing would not."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            for _ in range(0, size, MIB):
                file.write(os.urandom(min(MIB, size)))
        file.flush()
        os.fsync(file.fileno())
