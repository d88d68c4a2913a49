"""Brings what attempts left behind to this host: whole files, verified, resumed where a stream broke.

`download(client, job_id, artifacts, folder)` lays them out as `attempt-1/NAME`. Names come from another host: what
would lead out of the folder is refused, whatever a coordinator let through.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from qgjob.client.patience import Patience
from qgjob.errors import LabError, Unreachable, UsageError

if TYPE_CHECKING:
    from qgjob.client import Client
    from qgjob.v1.artifact_pb2 import Artifact

PATIENCE_S = 60.0
"""How long a download that comes no further is tried again."""
HASH_BYTES = 1_024 * 1_024

Tell = Callable[[int, int], None]
"""Hears how many bytes of how many are there."""


def place_of(artifact: Artifact) -> PurePosixPath:
    """Return where an artifact lies among those of its job.

    Raises:
        LabError: Its name leads elsewhere.
    """
    path = PurePosixPath(artifact.name)
    is_outside = path.is_absolute() or any(part in ("", ".", "..") for part in artifact.name.split("/"))
    if is_outside or "\\" in artifact.name or ":" in artifact.name or not artifact.name.isprintable():
        raise LabError(f"the coordinator has an artifact of the name {artifact.name!r}, which is no safe path")
    return PurePosixPath(f"attempt-{artifact.attempt_number}") / path


def download(
    client: Client,
    job_id: int,
    artifacts: Iterable[Artifact],
    folder: Path,
    tell: Tell = lambda _got, _size: None,
) -> list[Path]:
    """Bring artifacts into a folder, which is made; files that are there with the same bytes are not fetched again.

    Raises:
        UsageError: A file cannot be written.
        ClientError: The coordinator refuses, or does not answer for long.
    """
    wanted = [(artifact, folder / place_of(artifact)) for artifact in artifacts]
    size = sum(artifact.size for artifact, _ in wanted)
    got = 0
    for artifact, path in wanted:
        try:
            _check_inside(folder, path)
            if not _is_there(artifact, path):
                path.parent.mkdir(parents=True, exist_ok=True)
                _fetch(client, job_id, artifact, path, lambda new, before=got: tell(before + new, size))  # type: ignore[misc]
        except OSError as error:
            raise UsageError(
                f"cannot write {path}: {error.strerror or error}", hint="choose another --to, or free space"
            ) from error
        got += artifact.size
        tell(got, size)
    return [path for _, path in wanted]


def _check_inside(folder: Path, path: Path) -> None:
    """Refuse a path that a link in the folder would lead out of it."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"{path} leads out of {folder} through a link", hint="choose an empty folder with --to")


def _is_there(artifact: Artifact, path: Path) -> bool:
    if not path.is_file() or path.is_symlink() or path.stat().st_size != artifact.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.digest


def _fetch(client: Client, job_id: int, artifact: Artifact, path: Path, tell: Callable[[int], None]) -> None:
    """Fetch one file under a name of its own, and give it the right one when it is whole."""
    descriptor, name = tempfile.mkstemp(prefix=".qgjob-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            digest = _Fetch(client, job_id, artifact, tell).write_to(file.write)
        if digest != artifact.digest:
            raise LabError(f"{artifact.name} came with other bytes than it has", hint="download it again")
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class _Fetch:
    """One artifact on its way, over as many streams as it takes."""

    def __init__(self, client: Client, job_id: int, artifact: Artifact, tell: Callable[[int], None]) -> None:
        self._client = client
        self._job_id = job_id
        self._artifact = artifact
        self._tell = tell
        self._hash = hashlib.sha256()
        self._got = 0

    def write_to(self, write: Callable[[bytes], object]) -> str:
        """Write all bytes; return their SHA-256."""
        patience = Patience(PATIENCE_S)
        while True:
            before = self._got
            try:
                self._read(write)
            except Unreachable:
                if self._got > before:
                    patience.renew()
                elif patience.is_over():
                    raise
                patience.wait()
            else:
                return self._hash.hexdigest()

    def _read(self, write: Callable[[bytes], object]) -> None:
        artifact = self._artifact
        pieces = self._client.fetch_artifact(self._job_id, artifact.attempt_number, artifact.name, offset=self._got)
        for piece in pieces:
            if piece.chunk.offset != self._got:
                raise LabError(f"bytes of {piece.chunk.offset} came instead of {self._got}", hint="try again")
            data = piece.chunk.data
            write(data)
            self._hash.update(data)
            self._got += len(data)
            self._tell(self._got)
        if self._got < artifact.size:
            raise Unreachable(f"{artifact.name} ended after {self._got} of {artifact.size} bytes", hint="try again")
