from __future__ import annotations

from pathlib import Path

from agent.appium import _CappedLog, _mark, _read_since
from agent.artifacts import LeftBehind
from agent.core.model import ArtifactKind
from agent.runners.appwright_left import left_in


def write(out: Path, *names: str) -> None:
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)


def test_reports_come_first_then_logs_then_what_the_tests_left_each_by_its_kind(tmp_path: Path) -> None:
    write(tmp_path, "junit.xml", "report.json", "device.log", "appium.log", "html-report/index.html", "rest", "events")
    write(tmp_path, "html-report/data/1.png", "test-results/.last-run.json", "test-results/login/screenshot.png")
    write(tmp_path, "test-results/login/trace.zip", "test-results/login/film.webm", "test-results/login/notes.txt")
    (tmp_path / "test-results" / "link.png").symlink_to("/etc/hostname")
    (tmp_path / "test-results" / "linked").symlink_to("/etc")
    left = left_in(tmp_path, has_failed=True)
    assert [(one.name, one.kind) for one in left] == [
        ("junit.xml", ArtifactKind.JUNIT),
        ("report.json", ArtifactKind.JSON_REPORT),
        ("device.log", ArtifactKind.DEVICE_LOG),
        ("appium.log", ArtifactKind.APPIUM_LOG),
        ("html-report/index.html", ArtifactKind.HTML_REPORT),
        ("html-report/data/1.png", ArtifactKind.HTML_REPORT),
        ("test-results/login/film.webm", ArtifactKind.VIDEO),
        ("test-results/login/notes.txt", ArtifactKind.OTHER),
        ("test-results/login/screenshot.png", ArtifactKind.SCREENSHOT),
        ("test-results/login/trace.zip", ArtifactKind.TRACE),
    ]
    assert all(one.path == tmp_path / one.name for one in left)


def test_file_of_sessions_that_a_test_wrote_leads_nobody_anywhere(tmp_path: Path) -> None:
    planted = '[{"id": "a1", "video_url": "https://evil.example/video"}]'
    (tmp_path / "sessions.json").write_text(planted)
    assert [(one.name, one.kind) for one in left_in(tmp_path, has_failed=False)] == [
        ("sessions.json", ArtifactKind.OTHER)
    ]


def test_links_of_the_station_are_left_before_the_pages_of_the_report(tmp_path: Path) -> None:
    write(tmp_path, "sessions.json", "html-report/index.html")
    url = "https://cloud.example/v"
    link = LeftBehind(name="sessions/a1/video.url", kind=ArtifactKind.LINK, content=f"{url}\n".encode(), url=url)
    left = left_in(tmp_path, (link,), has_failed=False)
    assert [one.name for one in left] == ["sessions.json", "sessions/a1/video.url", "html-report/index.html"]


def test_log_of_appium_is_left_only_where_the_run_did_not_pass(tmp_path: Path) -> None:
    write(tmp_path, "junit.xml", "appium.log")
    assert [one.name for one in left_in(tmp_path, has_failed=False)] == ["junit.xml"]
    assert left_in(tmp_path / "nowhere", has_failed=True) == ()


def test_log_of_a_server_is_read_from_a_mark_on_through_restarts_and_a_file_that_was_full(tmp_path: Path) -> None:
    path = tmp_path / "appium.log"
    nothing = _mark(path)
    log = _CappedLog(path)
    log.write(b"before\n")
    mark = _mark(path)
    log.write(b"one\n")
    log.close()
    again = _CappedLog(path)
    again.write(b"two\n")
    assert _read_since(path, mark) == b"one\ntwo\n"
    assert _read_since(path, nothing) == b"before\none\ntwo\n"
    path.rename(path.with_suffix(".log.1"))
    path.write_bytes(b"three\n")
    assert _read_since(path, mark) == b"one\ntwo\nthree\n"
    again.close()
