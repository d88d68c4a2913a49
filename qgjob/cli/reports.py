"""HTML reports of jobs in the user's cache, for a browser."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qgjob.cli.progress import showing_progress
from qgjob.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qgjob.client import Client
    from qgjob.v1.artifact_pb2 import Artifact

MERGED, OWN = "merged/html-report", "html-report"
"""Folders of reports: of all attempts up to one, and of one alone."""
PAGE = "index.html"
KEPT_REPORTS = 20
"""The reports of so many jobs stay in the cache."""


def keep_report(opened: Client, job_id: int, attempt: int) -> Path:
    """Bring the HTML report of a job into the cache, and return its first page.

    Args:
        opened: The coordinator.
        job_id: The job.
        attempt: Of which attempt; 0 for the last that has one.

    Raises:
        NotFound: There is no report.
    """
    from qgjob.artifacts import download

    files = chosen_report(opened.list_artifacts(job_id).artifacts, attempt)
    if not files:
        whose = f"attempt {attempt} of job {job_id}" if attempt else f"job {job_id}"
        raise NotFound(
            f"{whose} has no HTML report",
            hint=f"`qgjob artifacts list {job_id}` shows what there is; attempts bring it after they have ended",
        )
    folder = _folder(opened.target) / str(job_id)
    with showing_progress(f"report of job {job_id}") as tell:
        paths = download(opened, job_id, files, folder, tell)
    _forget_oldest(folder)
    return next(path for path, file in zip(paths, files, strict=True) if file.name.endswith(f"report/{PAGE}"))


def chosen_report(artifacts: Sequence[Artifact], attempt: int) -> list[Artifact]:
    """Return the files of the report that says most: of the last attempt, and merged over attempts where that is."""
    pages = [
        (one.attempt_number, folder == MERGED, folder)
        for one in artifacts
        for folder in (MERGED, OWN)
        if one.name == f"{folder}/{PAGE}" and attempt in (0, one.attempt_number)
    ]
    if not pages:
        return []
    number, _, folder = max(pages)
    return [one for one in artifacts if one.attempt_number == number and one.name.startswith(f"{folder}/")]


def _folder(target: str) -> Path:
    """Return the folder of one coordinator's reports: another one has other jobs under the same numbers."""
    from platformdirs import user_cache_path

    return user_cache_path("qgjob") / "reports" / re.sub(r"[^A-Za-z0-9.-]", "_", target)


def _forget_oldest(newest: Path) -> None:
    os.utime(newest)
    folders = sorted(newest.parent.parent.glob("*/*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in folders[KEPT_REPORTS:]:
        shutil.rmtree(folder, ignore_errors=True)


def open_in_browser(page: Path) -> bool:
    """Open a file in the user's browser; return whether there is one. A browser within the terminal is none."""
    import webbrowser

    has_display = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if not has_display and not os.environ.get("BROWSER"):
        return False
    try:
        return webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        return False
