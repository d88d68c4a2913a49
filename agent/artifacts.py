"""What attempts left behind, on this host's disk until the coordinator has it.

One folder for each attempt holds the files under numbers and, once they are all there, `manifest.json`. Secrets are
masked before: they lie in memory alone, so a folder without a manifest is dropped at the next start.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import re
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from agent.core.model import ArtifactKind, AttemptId, Fence, LeaseId, LeaseKey
from agent.disk import UNREADABLE, put_aside, replace_file
from agent.mask import masked
from agent.masked_files import CannotMask, is_masked_on_copy, masked_bytes, masked_copy, spellings

MAX_FILES = 1_000
MAX_FILE_BYTES = 512 * 1_024 * 1_024
MAX_ATTEMPT_BYTES = 1_024 * 1_024 * 1_024
MAX_SPOOL_BYTES = 5 * 1_024 * 1_024 * 1_024
"""Of all attempts together: what comes beyond is not kept, so that a coordinator that is away costs no whole disk."""
MAX_PART_BYTES = 180
MAX_NAME_BYTES = 500
MAX_PARTS = 16
MANIFEST = "manifest.json"
TEXTS = {".log": "text/plain", ".md": "text/markdown", ".jsonl": "application/x-ndjson", ".webm": "video/webm"}

_BAD_CHARACTERS = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\\:*?"<>|]')
_PARCEL = re.compile(r"\d{1,19}\.\d")
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """A file that a run has left on this host."""

    name: str
    """What it shall be called: a relative path with "/"."""
    kind: ArtifactKind
    path: Path = Path()
    """Where it lies."""
    content: bytes | None = None
    """What is in it, where it lies nowhere."""
    url: str = ""
    """Of a link: where it leads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptFile:
    """A file that waits for the coordinator."""

    file: str
    """Its name in the folder of its attempt."""
    name: str
    kind: ArtifactKind
    content_type: str
    size: int
    digest: str
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What waits of one attempt."""

    attempt: AttemptId
    key: LeaseKey
    folder: Path
    files: tuple[KeptFile, ...]

    def path(self, kept: KeptFile) -> Path:
        """Return where a file lies."""
        return self.folder / kept.file


class ArtifactSpool:
    """A directory of parcels. Its methods block; those that write are called one at a time for each attempt."""

    def __init__(self, directory: Path, *, most_bytes: int = MAX_SPOOL_BYTES) -> None:
        """Take up what earlier lives have left; what they had not finished is dropped."""
        self._directory = directory
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._size = 0
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in directory.iterdir():
            if not (folder / MANIFEST).is_file():
                shutil.rmtree(folder, ignore_errors=True)
        self._size = sum(kept.size for parcel in self.parcels() for kept in parcel.files)

    def keep(
        self, attempt: AttemptId, key: LeaseKey, left: Sequence[LeftBehind], secrets: Sequence[str], part: int = 1
    ) -> list[str]:
        """Keep what a run has left, without its secrets, the most important first.

        Args:
            attempt: The run.
            key: The lease that it ran under.
            left: Its files.
            secrets: What is masked in them.
            part: Which of the parcels of the attempt this is, from 1.

        Returns:
            A sentence for each file that is not kept.

        Raises:
            OSError: It cannot be written.
        """
        folder = self._directory / f"{attempt}.{part}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        kept, lost = list[KeptFile](), list[str]()
        names = set[str]()
        size = 0
        for one in left:
            try:
                file = self._keep_one(folder, one, len(kept), size, secrets)
            except (CannotMask, _NotKept) as error:
                lost.append(f"{one.name}: {error}")
                continue
            if file is not None:
                file = replace(file, name=_unique(file.name, names))
                kept.append(file)
                size += file.size
        if kept:
            with self._lock:
                self._write(Parcel(attempt=attempt, key=key, folder=folder, files=tuple(kept)))
                self._size += size
        else:
            shutil.rmtree(folder, ignore_errors=True)
        return lost

    def _keep_one(
        self, folder: Path, one: LeftBehind, number: int, before: int, secrets: Sequence[str]
    ) -> KeptFile | None:
        """Keep one file; None where there is nothing in it."""
        size = len(one.content) if one.content is not None else _size_of(one.path)
        if not size:
            return None
        if size > MAX_FILE_BYTES:
            raise _NotKept(f"it is larger than {MAX_FILE_BYTES} bytes")
        if number >= MAX_FILES:
            raise _NotKept(f"the attempt has left more than {MAX_FILES} files")
        if before + size > MAX_ATTEMPT_BYTES or self._size + before + size > self._most_bytes:
            raise _NotKept("there is no room for it until the coordinator has taken what waits")
        path = folder / f"{number:04d}"
        if one.content is not None:
            path.write_bytes(masked_bytes(one.content, spellings(secrets)))
        elif secrets and is_masked_on_copy(one.path):
            masked_copy(one.path, path, secrets)
        else:
            _link_or_copy(one.path, path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = safe_name(masked(one.name, secrets) if secrets else one.name)
        return KeptFile(
            file=path.name,
            name=name,
            kind=one.kind,
            content_type=content_type_of(name),
            size=path.stat().st_size,
            digest=digest,
            url=path.read_text().removesuffix("\n") if one.url else "",  # as it is masked in the bytes
        )

    def _write(self, parcel: Parcel) -> None:
        files = [asdict(file) for file in parcel.files]
        replace_file(parcel.folder / MANIFEST, {"key": asdict(parcel.key), "files": files})

    def parcels(self) -> Iterator[Parcel]:
        """Yield what waits, the oldest attempt first. What cannot be read is put aside."""
        folders = [folder for folder in self._directory.iterdir() if _PARCEL.fullmatch(folder.name)]
        for folder in sorted(folders, key=_number_and_part):
            manifest = folder / MANIFEST
            try:
                yield _parcel(folder, json.loads(manifest.read_bytes()))
            except FileNotFoundError:
                continue  # it is being kept, or was forgotten just now
            except UNREADABLE as error:
                put_aside(manifest, manifest.with_suffix(".broken"), error)

    def forget_file(self, parcel: Parcel, done: KeptFile) -> Parcel:
        """Free the space of a file that the coordinator has or does not want; return what is left of the parcel."""
        left = replace(parcel, files=tuple(file for file in parcel.files if file != done))
        with self._lock:
            if not parcel.folder.exists():
                return left  # all was forgotten meanwhile
            self._size -= done.size
            if left.files:
                self._write(left)
                left.path(done).unlink(missing_ok=True)
            else:
                shutil.rmtree(parcel.folder, ignore_errors=True)
        return left

    def forget_all(self) -> None:
        """Drop everything: it belongs to another database."""
        with self._lock:
            for folder in self._directory.iterdir():
                shutil.rmtree(folder, ignore_errors=True)
            self._size = 0


class _NotKept(Exception):
    """A file is not kept; says why."""


def _size_of(path: Path) -> int:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise _NotKept("it is no plain file")
    return found.st_size


def safe_name(name: str) -> str:
    """Return a name such as coordinators take: a relative path that every file system has room for."""
    parts = [_safe_part(part) for part in _BAD_CHARACTERS.sub("_", name).split("/") if part not in ("", ".", "..")]
    parts = parts[-MAX_PARTS:] or ["file"]
    while len("/".join(parts).encode()) > MAX_NAME_BYTES:
        parts = parts[1:]
    return "/".join(parts)


def _safe_part(part: str) -> str:
    part = part.strip(" ").rstrip(".") or "_"
    if _RESERVED.match(part):
        part = f"_{part}"
    if len(part.encode()) <= MAX_PART_BYTES:
        return part
    # The end says more: it has the file's kind.
    return part.encode()[-MAX_PART_BYTES:].decode(errors="ignore").strip(" ") or "_"


def _unique(name: str, names: set[str]) -> str:
    """Return a name that none of the others has, whatever file system they come to lie on, and add it to them."""
    stem, dot, suffix = name.rpartition(".")
    chosen, number = name, 1
    while chosen.casefold() in names:
        number += 1
        chosen = f"{stem}-{number}.{suffix}" if dot and "/" not in suffix else f"{name}-{number}"
    names.add(chosen.casefold())
    return chosen


def content_type_of(name: str) -> str:
    """Return the media type of a file by its name."""
    suffix = Path(name).suffix.lower()
    known = TEXTS.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    is_text = known.startswith("text/") or known in ("application/json", "application/xml")
    return f"{known}; charset=utf-8" if is_text else known


def _link_or_copy(path: Path, to: Path) -> None:
    """Give a file a second name where that can be: nobody writes to what a run that is over has left."""
    try:
        os.link(path, to, follow_symlinks=False)
    except OSError:
        shutil.copyfile(path, to, follow_symlinks=False)


def _number_and_part(folder: Path) -> tuple[int, int]:
    number, _, part = folder.name.partition(".")
    return int(number), int(part)


def _parcel(folder: Path, value: dict[str, Any]) -> Parcel:
    key = value["key"]
    fence = Fence(epoch=int(key["fence"]["epoch"]), number=int(key["fence"]["number"]))
    files = tuple(KeptFile(**{**file, "kind": ArtifactKind(file["kind"])}) for file in value["files"])
    lease = LeaseKey(lease_id=LeaseId(int(key["lease_id"])), fence=fence)
    return Parcel(attempt=AttemptId(_number_and_part(folder)[0]), key=lease, folder=folder, files=files)


def warn_lost(attempt: AttemptId, lost: Sequence[str], most: int = 5) -> None:
    """Tell of files that are not kept."""
    for sentence in lost[:most]:
        structlog.get_logger("agent").warning("artifact_not_kept", attempt=attempt, reason=sentence)
    if len(lost) > most:
        structlog.get_logger("agent").warning("artifacts_not_kept", attempt=attempt, more=len(lost) - most)
