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
        port = _free_port()
        env = {
            **os.environ,
            DATABASE: database,
            BROKER: f"redis+socket://{redis}",
            LOGS: str(folder / "logs"),
        }
        options = ("--port", "0", "--unixsocket", str(redis), "--dir", str(folder), "--save", "", "--appendonly", "yes")
        stack.enter_context(_running(folder, env, str(BIN / "redis-server"), *options, "--appendfsync", fsync))
        eventually(lambda: _answers(socket.AF_UNIX, str(redis)), "Redis answers")
        api = ("-m", "uvicorn", "benchmarks.classic.api:app", "--port", str(port), "--no-access-log", "--log-level")
        stack.enter_context(_running(folder, env, sys.executable, *api, "warning"))
        eventually(lambda: _answers(socket.AF_INET, ("127.0.0.1", port)), "the API answers")
        if workers:
            worker = ("-m", "celery", "-A", "benchmarks.classic.tasks", "worker", "--concurrency", str(workers))
            quiet = ("--loglevel", "error", "--without-gossip", "--without-mingle", "--without-heartbeat")
            stack.enter_context(_running(folder, env, sys.executable, *worker, *quiet))
        yield Classic(url=f"http://127.0.0.1:{port}", database=database, folder=folder)


@contextmanager
def _running(folder: Path, env: dict[str, str], *command: str) -> Iterator[None]:
    with (folder / "diagnostics").open("ab") as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _answers(family: int, address: object) -> bool:
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0  # type: ignore[arg-type]  # an address of the family


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
