"""Starts the classic stack, every part in processes of its own, in a folder that goes away with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine

from benchmarks.classic.records import BROKER, DATABASE, LOGS, Base
from tests.e2e.grid import eventually
from tests.postgresql import running_postgresql

BIN = Path(sys.executable).parent
DURABLE = ("fsync=on", "synchronous_commit=on", "max_connections=100", "shared_buffers=128MB", "listen_addresses=")
"""What PostgreSQL acknowledges is on the disk, as what our SQLite does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classic:
    """A stack that runs."""

    url: str
    """Of the API."""
    database: str
    folder: Path


@contextmanager
def classic_stack(*, fsync: str, workers: int = 0) -> Iterator[Classic]:
    """Run the stack.

    Args:
        fsync: When Redis syncs its journal: "always" before it acknowledges, "everysec" as most run it.
        workers: Processes of Celery; none where nothing but submits is measured.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qgjob-classic-")))
        server = stack.enter_context(running_postgresql(DURABLE))
        database = server.url.replace("postgresql://", "postgresql+psycopg://", 1)
        Base.metadata.create_all(create_engine(database))
        (folder / "logs").mkdir()
        redis = folder / "redis.sock"
        env = {
            **os.environ,
            DATABASE: database,
            BROKER: f"redis+socket://{redis}",
            LOGS: str(folder / "logs"),
        }
        options = ("--port", "0", "--unixsocket", str(redis), "--dir", str(folder), "--save", "", "--appendonly", "yes")
        quiet = ("--loglevel", "warning", "--logfile", str(folder / "redis.log"))
        stack.enter_context(_running(folder, env, str(BIN / "redis-server"), *options, *quiet, "--appendfsync", fsync))
        eventually(lambda: _answers(redis), "Redis answers")
        api = stack.enter_context(_running(folder, env, sys.executable, "-m", "benchmarks.classic.api"))
        assert api.stdout is not None
        port = int(api.stdout.readline())
        if workers:
            worker = ["-m", "celery", "--quiet", "-A", "benchmarks.classic.tasks", "worker"]
            worker += ["--concurrency", str(workers), "--loglevel", "error"]
            worker += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
            # What it says at its start must not fill a pipe that nobody reads.
            worker += ["--logfile", str(folder / "worker.log")]
            stack.enter_context(_running(folder, env, sys.executable, *worker))
        yield Classic(url=f"http://127.0.0.1:{port}", database=database, folder=folder)


@contextmanager
def _running(folder: Path, env: dict[str, str], *command: str) -> Iterator[subprocess.Popen[str]]:
    with (folder / "diagnostics").open("ab") as out:
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=out, text=True, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
