"""Looks for a secret where none may be: in files, in archives, and on the command lines of what runs.

A secret is known in the spellings in which programs pass it on: as it is, quoted for an address, in hexadecimal, and in
base64, where what stands around it shifts it by up to two characters.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import io
import re
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

DEPTH = 4
"""So many archives may lie within each other."""
LOOK_S = 0.1
_CARRIED = re.compile(rb";base64,([A-Za-z0-9+/=\s]{64,})")
"""Files within pages, as an HTML report carries its data."""


def spellings(secret: str) -> frozenset[bytes]:
    """Return what a secret looks like, wherever it stands."""
    plain = secret.encode()
    found = {plain, quote(secret, safe="").encode(), plain.hex().encode()}
    for shift in range(3):
        # The first characters and the last depend on what stands beside the secret.
        inner = base64.b64encode(bytes(shift) + plain)[(0, 2, 3)[shift] : (len(plain) + shift) // 3 * 4]
        found |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return frozenset(found)


def holds(data: bytes, wanted: Iterable[bytes]) -> bool:
    """Return whether something is in bytes, or in an archive among them."""
    return any(word in content for content in _contents(data, DEPTH) for word in wanted)


def _contents(data: bytes, depth: int) -> Iterator[bytes]:
    yield data
    if depth == 0:
        return
    if zipfile.is_zipfile(io.BytesIO(data)):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from _contents(archive.read(name), depth - 1)
    if data.startswith(b"\x1f\x8b"):
        with contextlib.suppress(OSError, EOFError, zlib.error):
            yield from _contents(gzip.decompress(data), depth - 1)
    for carried in _CARRIED.findall(data):
        with contextlib.suppress(binascii.Error):
            yield from _contents(base64.b64decode(carried), depth - 1)


def files_with(folder: Path, wanted: Iterable[bytes], *, but: str) -> list[Path]:
    """Return the files below a folder that hold something in their name or content, but for those of one name."""
    words = tuple(wanted)
    found = []
    for path in folder.rglob("*"):
        if path.name == but or "node_modules" in path.parts:
            continue
        in_name = any(word in str(path).encode() for word in words)
        # What runs may have ended a file between being listed and being read.
        with contextlib.suppress(FileNotFoundError):
            if in_name or (path.is_file() and holds(path.read_bytes(), words)):
                found.append(path)
    return found


class ProcessWatch:
    """What was seen of the processes that know of a folder."""

    def __init__(self, folder: Path, wanted: Iterable[bytes]) -> None:
        self._mark = str(folder).encode()
        self._wanted = tuple(wanted)
        self.seen: set[bytes] = set()
        """Their command lines."""
        self.leaks: set[bytes] = set()
        """Those with the secret among their words, or in their environment."""

    def look(self) -> None:
        """Look at what runs now."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
            except OSError:
                continue  # it has just ended, or is somebody else's
            if self._mark in line or self._mark in environment:
                self.seen.add(line)
                if any(word in part for word in self._wanted for part in (line, environment)):
                    self.leaks.add(line)


@contextmanager
def watched_processes(folder: Path, wanted: Iterable[bytes]) -> Iterator[ProcessWatch]:
    """Look at the processes that know of a folder, again and again, until the block ends."""
    watch, is_over = ProcessWatch(folder, wanted), threading.Event()

    def look() -> None:
        while not is_over.wait(LOOK_S):
            watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        is_over.set()
        thread.join()
