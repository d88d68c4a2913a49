"""Builds for tests. One costs Java two and a half seconds of processor: each is made once in a process, then copied."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from agent.virtual_phone.apk import build_apk


def lay_apk(path: Path, package: str, version_code: int, version_name: str, padding_bytes: int = 0) -> Path:
    """Put a build there. The same build has the same bytes, and so the same signer, wherever it is put."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_content(package, version_code, version_name, padding_bytes))
    return path


@functools.cache
def _content(package: str, version_code: int, version_name: str, padding_bytes: int) -> bytes:
    with tempfile.TemporaryDirectory(prefix="apk-") as directory:
        apk = build_apk(Path(directory, "build.apk"), package, version_code, version_name, padding_bytes)
        return apk.read_bytes()
