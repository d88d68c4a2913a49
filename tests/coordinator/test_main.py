"""How the program refuses to start."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.main import app


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--heartbeat", "nan"), "--heartbeat nan is out of range"),
        (("--heartbeat", "inf", "--lease-ttl", "inf"), "--heartbeat inf is out of range"),
        (("--orphan-limit", "1e300"), "--orphan-limit 1e+300 is out of range"),
        (("--heartbeat", "5", "--lease-ttl", "6"), "shorter than two heartbeats"),
        (("--listen", "0.0.0.0:0"), "refusing to listen on 0.0.0.0 without"),
        (("--min-free", "lots"), "--min-free lots is not a size"),
        (("--retain", "a while"), "--retain a while is not a span of time"),
        (("--retain", "5s"), "--retain 5s is too short"),
        (("--retain-size", "-1"), "--retain-size -1 is not a size"),
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
