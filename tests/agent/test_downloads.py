"""Builds behind URLs, against a server that does what the test says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.builds import BuildSource, BuildUnusable
from agent.core.model import Blame
from agent.downloads import DownloadMissing, Downloads, shown


class Server(ThreadingHTTPServer):
    """Serves one file under every path."""

    content = b"first"
    status = 200
    cut = 0
    """Bytes at the end that are not sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, int]] = []
        """(path, answered status)."""
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        etag = f'"{len(self.server.content)}"'
        is_known = self.headers["If-None-Match"] == etag
        status = 304 if is_known and self.server.status == 200 else self.server.status
        self.server.asked.append((self.path, status))
        self.send_response(status)
        body = self.server.content if status == 200 else b""
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - self.server.cut])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base has it
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_file_is_fetched_again_only_when_it_has_changed(server: Server, tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    url = f"{server.url}/app.apk"
    assert (await downloads.get(url)).read_bytes() == b"first"
    assert (await Downloads(tmp_path).get(url)).read_bytes() == b"first"
    server.content = b"second one"
    assert (await downloads.get(url)).read_bytes() == b"second one"
    assert [status for _, status in server.asked] == [200, 304, 200]


async def test_answer_that_is_cut_leaves_what_was_there(server: Server, tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    path = await downloads.get(f"{server.url}/app.apk")
    server.content, server.cut = b"second one", 3
    with pytest.raises(OSError, match="7 of 10 bytes"):
        await downloads.get(f"{server.url}/app.apk")
    assert path.read_bytes() == b"first"


async def test_server_that_fails_and_one_that_has_nothing_are_told_apart(server: Server, tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    server.status = 404
    with pytest.raises(DownloadMissing, match=f"{server.url}/app.apk answers 404"):
        await downloads.get(f"{server.url}/app.apk")
    server.status = 502
    with pytest.raises(OSError, match="answers 502"):
        await downloads.get(f"{server.url}/app.apk")
    with pytest.raises(OSError, match="refused"):
        await downloads.get("http://127.0.0.1:1/app.apk")


@pytest.mark.parametrize(
    ("status", "reason", "blame"), [(404, "BUILD_NOT_FOUND", Blame.BUILD), (500, "BUILD_SOURCE_FAILED", Blame.HOST)]
)
async def test_source_of_urls_names_the_version_and_says_whose_fault_it_is(
    server: Server, tmp_path: Path, status: int, reason: str, blame: Blame
) -> None:
    async def ask_project() -> Path:
        raise AssertionError("there is a source")

    server.status = status
    template = f"{server.url}/builds/{{app_version_id}}.apk?token=secret"
    source = BuildSource(template, tmp_path, ask_project, Downloads(tmp_path / "downloads"))
    with pytest.raises(BuildUnusable) as failed:
        await source.find("v1/../2 beta")
    assert (failed.value.failure.reason, failed.value.failure.blame) == (reason, blame)
    assert "secret" not in failed.value.failure.message
    assert server.asked == [("/builds/v1%2F..%2F2%20beta.apk?token=secret", status)]


def test_what_may_be_secret_in_a_url_is_not_shown() -> None:
    assert shown("https://user:word@ci.example:8443/a/b.apk?token=1#x") == "https://ci.example:8443/a/b.apk"
