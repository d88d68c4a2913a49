"""Artifacts on a terminal, and the report that is chosen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qgjob import resources
from qgjob.artifacts import download
from qgjob.cli import render, reports
from qgjob.cli.artifacts import list_artifacts
from qgjob.cli.reports import KEPT_REPORTS, chosen_report, open_in_browser
from qgjob.client import Client
from qgjob.errors import Unreachable
from qgjob.v1.artifact_pb2 import ARTIFACT_KIND_HTML_REPORT, ARTIFACT_KIND_JUNIT, ARTIFACT_KIND_LINK, Artifact
from qgjob.v1.artifact_service_pb2 import FetchArtifactResponse
from tests.cli import records


def an_artifact(name: str, attempt: int = 1, size: int = 1_500) -> Artifact:
    kind = ARTIFACT_KIND_HTML_REPORT if "html-report" in name else ARTIFACT_KIND_JUNIT
    artifact = Artifact(name=name, attempt_number=attempt, size=size, kind=kind)
    artifact.create_time.FromJsonString("2026-11-28T12:00:00Z")
    return artifact


REPORT = [an_artifact("html-report/data/1.png"), an_artifact("html-report/index.html")]


def told(*artifacts: Artifact) -> list[dict[str, Any]]:
    return [resources.artifact(artifact) for artifact in artifacts]


def test_table_has_a_report_as_one_line_and_says_what_it_hides(capsys: pytest.CaptureFixture[str]) -> None:
    render.artifacts_table(told(*REPORT, an_artifact("junit.xml", 2, 10)))
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "Attempt  Kind         Size     Name",
        "1        html_report  1.5 KiB  html-report/index.html",
        "2        junit        10 B     junit.xml",
    ]
    assert err == "1 file of reports are not shown; -o json has them all\n"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ([], "No artifacts. Attempts bring them after they have ended.\n"),
        (REPORT, "job 7 has left nothing behind that was asked for\n"),
    ],
    ids=["nothing was left", "nothing of this kind"],
)
def test_list_without_a_line_says_whether_anything_was_left(
    left: list[Artifact], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = SimpleNamespace(list_artifacts=lambda _: SimpleNamespace(artifacts=left))
    monkeypatch.setattr("qgjob.cli.artifacts.client", lambda: nullcontext(opened))
    list_artifacts(7, kind=["video"], output="table")
    assert capsys.readouterr() == ("", said)


def test_links_are_told_whole_below_the_table_and_in_the_status_of_their_job(
    capsys: pytest.CaptureFixture[str],
) -> None:
    link = an_artifact("sessions/a1/video.url", 1, 30)
    link.kind, link.url = ARTIFACT_KIND_LINK, "https://cloud.example/" + "a" * 100
    render.artifacts_table(told(link))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "1        link  30 B  sessions/a1/video.url",
        f"sessions/a1/video: {link.url}",
    ]
    job = records.job(1)
    job["artifacts"], job["artifacts_kept_seconds"] = told(link), None
    render.job_block(job, is_verbose=True)
    assert f"  sessions/a1/video: {link.url}" in capsys.readouterr().out.splitlines()


def test_verbose_job_tells_what_each_attempt_left_and_how_long_it_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    job = records.job(1)
    job["artifacts"] = told(*REPORT, an_artifact("junit.xml", 2, 10))
    job["artifacts_kept_seconds"] = 86_400.0
    render.job_block(job, is_verbose=True)
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "Artifacts:",
        "  attempt 1: 2 files, 2.9 KiB: html_report",
        "  attempt 2: 1 file, 10 B: junit",
        "  kept until 2026-11-29 12:00 UTC unless space gets short",
    ]
    job["artifacts_kept_seconds"] = None
    render.job_block(job, is_verbose=True)
    assert capsys.readouterr().out.endswith("  kept as long as the job\n")


def test_report_is_that_of_the_last_attempt_which_has_one_and_merged_where_that_is() -> None:
    merged = [an_artifact("merged/html-report/index.html", 2), an_artifact("merged/html-report/data/2.png", 2)]
    second = an_artifact("html-report/index.html", 2)
    assert chosen_report([*REPORT, an_artifact("junit.xml", 3)], 0) == REPORT
    assert chosen_report([*REPORT, second, *merged], 0) == merged
    assert chosen_report([*REPORT, second, *merged], 1) == REPORT
    assert chosen_report([*REPORT, second], 2) == [second]
    assert chosen_report(REPORT, 2) == []
    assert chosen_report([an_artifact("html-report/data/1.png")], 0) == []


def test_no_browser_of_a_terminal_is_taken_for_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    opened: list[str] = []

    def note(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr("webbrowser.open", note)
    assert not open_in_browser(tmp_path / "index.html")
    monkeypatch.setenv("DISPLAY", ":0")
    assert open_in_browser(tmp_path / "index.html")
    assert opened == [(tmp_path / "index.html").as_uri()]


def test_cache_keeps_the_reports_of_the_last_jobs(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    for job in range(KEPT_REPORTS + 3):
        (lab / str(job)).mkdir(parents=True)
        reports._forget_oldest(lab / str(job))
    assert len(list(lab.iterdir())) == KEPT_REPORTS
    assert not (lab / "0").exists()
    assert (lab / str(KEPT_REPORTS + 2)).exists()


class BreakingClient(Client):
    """Whose streams break after each piece of two bytes."""

    def __init__(self, whole: bytes) -> None:
        super().__init__("127.0.0.1:1")
        self.whole = whole
        self.offsets: list[int] = []

    def fetch_artifact(
        self, job_id: int, attempt_number: int, name: str, *, offset: int = 0
    ) -> Iterator[FetchArtifactResponse]:
        self.offsets.append(offset)
        piece = FetchArtifactResponse()
        piece.chunk.offset, piece.chunk.data = offset, self.whole[offset : offset + 2]
        yield piece
        if offset + 2 < len(self.whole):
            raise Unreachable("the stream broke")


def test_download_that_breaks_goes_on_at_the_byte_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qgjob.client.patience.FIRST_DELAY_S", 0.0)
    artifact = an_artifact("junit.xml", size=6)
    artifact.digest = hashlib.sha256(b"report").hexdigest()
    with BreakingClient(b"report") as client:
        (path,) = download(client, 1, [artifact], tmp_path, lambda _got, _of: None)
    assert path.read_bytes() == b"report"
    assert client.offsets == [0, 2, 4]
