"""How the program refuses to start, and how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from coordinator.config import Config
from coordinator.core.model import Settings
from coordinator.leadership import Sole
from coordinator.main import app
from coordinator.process import EX_SOFTWARE, serve
from coordinator.server import Server
from coordinator.store import StoreUnreadable


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--heartbeat", "nan"), "--heartbeat nan is out of range"),
        (("--heartbeat", "inf", "--lease-ttl", "inf"), "--heartbeat inf is out of range"),
        (("--orphan-limit", "1e300"), "--orphan-limit 1e+300 is out of range"),
        (("--heartbeat", "5", "--lease-ttl", "14"), "shorter than three heartbeats"),
        (("--listen", "0.0.0.0:0"), "refusing to listen on 0.0.0.0 without"),
        (("--min-free", "lots"), "--min-free lots is not a size"),
        (("--retain", "a while"), "--retain a while is not a span of time"),
        (("--retain", "5s"), "--retain 5s is too short"),
        (("--retain-size", "-1"), "--retain-size -1 is not a size"),
        (("--retain-artifacts", "soon"), "--retain-artifacts soon is not a span of time"),
        (("--retain-artifacts-size", "much"), "--retain-artifacts-size much is not a size"),
        (("--storage", "gs://bucket"), "gs://bucket is not s3://BUCKET or s3://BUCKET/PREFIX"),
        (("--listen", "nowhere"), "is not HOST:PORT"),
        (("--database-url", "mysql://x"), "databases of the kind 'mysql' are not supported"),
    ],
)
def test_wrong_start_is_one_clear_line_and_exit_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["serve", "--data-dir", str(tmp_path), *arguments])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_takeover_that_the_database_refuses_ends_the_process_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stand_by(_self: Server) -> bool:
        return False

    def fail(_self: Server) -> None:
        raise StoreUnreadable("the server is starting up")

    async def win_at_once(_self: Sole) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(Server, "_is_first", stand_by)
    monkeypatch.setattr(Server, "_open_house", fail)
    monkeypatch.setattr(Sole, "win", win_at_once)
    database = f"sqlite:///{tmp_path / 'qgjob.db'}"
    config = Config(listen="127.0.0.1:0", data_dir=tmp_path, database_url=database, settings=Settings())
    with capture_logs() as told:
        assert await serve(config) == EX_SOFTWARE
    assert [line["event"] for line in told if line["log_level"] == "error"] == ["takeover_failed"]
