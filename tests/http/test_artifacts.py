"""Artifacts over HTTP: lists and files, and reports that can do no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.virtual_phone.screenshot import draw
from coordinator.http.artifacts import STORAGE
from qgjob.v1 import artifact_pb2, lease_pb2
from tests.http.grid import HttpGrid
from tests.http.test_dashboard import CHROMIUM, seen_in_a_browser
from tests.rpc.test_artifacts import attempted, messages, offer
from tests.rpc.test_builds import digest_of

PAGE = b"<html><head></head><script>document.title = 'a report'</script></html>"
CURIOUS = b"""<!DOCTYPE html><html><head></head><body><img src="data/1.png"><script>
const say = (text) => document.body.append(text + "; ");
localStorage.setItem("theme", "dark");
say("settings: " + localStorage.getItem("theme"));
say("origin: " + self.origin);
fetch("/jobs").then(() => say("jobs: read"), () => say("jobs: out of reach"));
document.images[0].decode().then(() => say("picture: seen"), () => say("picture: missing"));
</script></body></html>"""
REPORT = {"kind": artifact_pb2.ARTIFACT_KIND_HTML_REPORT, "content_type": "text/html; charset=utf-8"}
PICTURE = {"kind": artifact_pb2.ARTIFACT_KIND_HTML_REPORT, "content_type": "image/png"}


async def bring(grid: HttpGrid, lease: lease_pb2.LeaseSpec, name: str, data: bytes, **fields: object) -> None:
    await grid.artifacts.UploadArtifact(messages(offer(lease, name, data, **fields), data))


async def test_artifacts_are_listed_page_by_page_and_read_byte_for_byte(grid: HttpGrid) -> None:
    lease = await attempted(grid)
    text = {"kind": artifact_pb2.ARTIFACT_KIND_DEVICE_LOG, "content_type": "text/plain; charset=utf-8"}
    await bring(grid, lease, "logs/ä device.log", b"line\n" * 500_000, **text)
    await bring(grid, lease, "junit.xml", b"<xml/>")
    first = await grid.web.get("/jobs/1/artifacts?limit=1")
    assert [artifact["name"] for artifact in first.json()] == ["junit.xml"]
    (second,) = await grid.get(first.links["next"]["url"])
    assert (second["attempt"], second["kind"], second["sha256"]) == (1, "device_log", digest_of(b"line\n" * 500_000))
    answer = await grid.web.get(f"/jobs/1/artifacts/1/{second['name']}")
    assert answer.content == b"line\n" * 500_000
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20device.log"
    again = await grid.web.get(
        f"/jobs/1/artifacts/1/{second['name']}", headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


async def test_report_is_shown_in_a_sandbox_that_can_reach_nothing(grid: HttpGrid) -> None:
    lease = await attempted(grid)
    await bring(grid, lease, "html-report/index.html", PAGE, **REPORT)
    await bring(grid, lease, "html-report/data/1.png", b"png", **PICTURE)
    led = await grid.web.get("/jobs/1/report")
    assert (led.status_code, led.headers["location"]) == (307, "/jobs/1/report/1/html-report/index.html")
    page = await grid.web.get(led.headers["location"])
    assert page.headers["content-disposition"] == "inline"
    assert page.content.replace(STORAGE, b"") == PAGE
    policy = page.headers["content-security-policy"].split("; ")
    assert policy[0] == "sandbox allow-scripts allow-popups allow-downloads", "without allow-same-origin"
    assert {"default-src 'none'", "connect-src data: blob:", "form-action 'none'"} <= set(policy)
    assert page.headers["x-content-type-options"] == "nosniff"
    picture = await grid.web.get("/jobs/1/report/1/html-report/data/1.png")
    assert (picture.content, picture.headers["content-disposition"]) == (b"png", "inline")
    assert picture.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


async def test_page_that_is_no_report_and_script_of_one_are_downloads(grid: HttpGrid) -> None:
    lease = await attempted(grid)
    await bring(grid, lease, "test-results/page.html", PAGE, content_type="text/html; charset=utf-8")
    await bring(grid, lease, "html-report/index.html", PAGE, **REPORT)
    await bring(grid, lease, "html-report/x.svg", b"<svg/>", **{**PICTURE, "content_type": "image/svg+xml"})
    for path in (
        "artifacts/1/test-results/page.html",
        "artifacts/1/html-report/index.html",
        "report/1/html-report/x.svg",
    ):
        answer = await grid.web.get(f"/jobs/1/{path}")
        assert answer.headers["content-disposition"].startswith("attachment; ")
        assert answer.headers["content-security-policy"].startswith("sandbox; ")
        assert answer.content in (PAGE, b"<svg/>"), "byte for byte"
    refused = await grid.web.get("/jobs/1/report/1/test-results/page.html")
    assert (refused.status_code, refused.json()["reason"]) == (404, "NOT_FOUND")


@pytest.mark.skipif(not CHROMIUM, reason="missing: chromium")
async def test_browser_shows_a_report_with_its_pictures_and_lets_it_reach_nothing(
    grid: HttpGrid, tmp_path: Path
) -> None:
    lease = await attempted(grid)
    await bring(grid, lease, "html-report/index.html", CURIOUS, **REPORT)
    await bring(grid, lease, "html-report/data/1.png", draw([]), **PICTURE)
    shown = await seen_in_a_browser(grid, "jobs/1/report", tmp_path / "profile")
    assert "settings: dark" in shown, "as Playwright's pages keep them"
    assert "picture: seen" in shown
    assert "origin: null" in shown
    assert "jobs: out of reach" in shown


async def test_what_is_not_there_is_a_problem(grid: HttpGrid) -> None:
    await attempted(grid)
    for path in (
        "/jobs/99/artifacts",
        "/jobs/99/report",
        "/jobs/1/report",
        "/jobs/1/artifacts/1/junit.xml",
        "/jobs/1/report/1/x",
    ):
        answer = await grid.web.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (404, "NOT_FOUND"), path
    for path in ("/jobs/1/artifacts?page_token=x", "/jobs/0/artifacts", "/jobs/1/artifacts/0/junit.xml"):
        answer = await grid.web.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_REQUEST"), path
