"""What a run of AppWright leaves in its folder that is of use to people, the most important first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agent.artifacts import LeftBehind
from agent.core.model import ArtifactKind

JUNIT = "junit.xml"
REPORT = "report.json"
DEVICE_LOG = "device.log"
APPIUM_LOG = "appium.log"
SESSIONS = "sessions.json"
"""What is kept of the sessions at a cloud: where their videos and logs are."""
HTML_REPORT = "html-report"
TEST_RESULTS = "test-results"
MOST_FILES = 2_000
"""Of a folder; what a test leaves beyond is not looked at."""

_SINGLE = (
    (JUNIT, ArtifactKind.JUNIT),
    (REPORT, ArtifactKind.JSON_REPORT),
    (SESSIONS, ArtifactKind.OTHER),
    (DEVICE_LOG, ArtifactKind.DEVICE_LOG),
)
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
_FILMS = frozenset({".mp4", ".webm", ".mov"})


def left_in(out: Path, links: tuple[LeftBehind, ...] = (), *, has_failed: bool) -> tuple[LeftBehind, ...]:
    """Return what a run has left; it blocks while it looks.

    Args:
        out: The folder of the run.
        links: What its station says of where more is kept. A test may write whatever it likes into the folder, but
            nobody is led to an address of its choice.
        has_failed: Whether the run did anything but pass: then Appium's log is of use.
    """
    single = [*_SINGLE, *([(APPIUM_LOG, ArtifactKind.APPIUM_LOG)] if has_failed else [])]
    left = [LeftBehind(path=out / name, name=name, kind=kind) for name, kind in single if (out / name).is_file()]
    left += links
    left += _folder(out, HTML_REPORT, ArtifactKind.HTML_REPORT)
    left += _folder(out, TEST_RESULTS, None)
    return tuple(left)


def left_of_report(out: Path, folder: str) -> tuple[LeftBehind, ...]:
    """Return the reports in a folder of a run, under its name; it blocks while it looks."""
    single = ((f"{folder}/{JUNIT}", ArtifactKind.JUNIT), (f"{folder}/{REPORT}", ArtifactKind.JSON_REPORT))
    left = [LeftBehind(path=out / name, name=name, kind=kind) for name, kind in single if (out / name).is_file()]
    return (*left, *_folder(out, f"{folder}/{HTML_REPORT}", ArtifactKind.HTML_REPORT))


def _folder(out: Path, name: str, kind: ArtifactKind | None) -> Iterator[LeftBehind]:
    """Yield the files of a folder and those below it, of one kind, or each of its own."""
    count = 0
    # Links are not followed: what they lead to was there before the run.
    for folder, folders, files in os.walk(out / name):
        folders.sort()
        for file in sorted(files):
            count += 1
            if count > MOST_FILES:
                return
            path = Path(folder) / file
            is_hidden = file.startswith(".last-run")
            if not path.is_symlink() and not is_hidden:
                yield LeftBehind(path=path, name=path.relative_to(out).as_posix(), kind=kind or kind_of(path))


def kind_of(path: Path) -> ArtifactKind:
    """Return what a file is that a test has left."""
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        return ArtifactKind.SCREENSHOT
    if suffix in _FILMS:
        return ArtifactKind.VIDEO
    return ArtifactKind.TRACE if path.name == "trace.zip" else ArtifactKind.OTHER
