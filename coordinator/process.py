"""The process of a coordinator: what it takes of its host, the signals that end it, and how it is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
from collections.abc import Iterator
from importlib.metadata import version
from typing import NoReturn

import structlog

from coordinator.config import Config, ConfigError
from coordinator.core.errors import NotLeader
from coordinator.server import Server
from coordinator.store import SchemaTooNew, StaleEpoch

EX_SOFTWARE = 70
EX_TEMPFAIL = 75
"""Of a coordinator that does not lead any more."""
LONGEST_LEAVE_S = 5.0
WANTED_FILES = 32_768
"""Enough for the agents and followers of a large lab; every connection holds one."""
COLLECTION_THRESHOLDS = (20_000, 10, 10)
"""New objects between two looks at them; Python's own 700 took a tenth of the processor."""


async def serve(config: Config) -> int:
    """Serve until a signal ends it, and return the exit code.

    Raises:
        ConfigError: What was asked for cannot be served.
        StoreError: The database cannot be used.
    """
    release = version("qgjob")
    server = Server(config, release)
    with _sparing_collections():
        address = await server.start()
    stopping = _stop_on_signal(asyncio.get_running_loop())
    http = f" http={server.http_address}" if server.http_address is not None else ""
    role = "" if server.leads else " role=standby"
    print(f"ready grpc={address}{http}{role}", flush=True)  # noqa: T201 - the promised line on stdout
    out = structlog.get_logger("coordinator")
    epoch = server.engine.epoch if server.leads else None
    out.info(
        "standing_by" if epoch is None else "serving",
        release=release,
        address=address,
        http=server.http_address,
        data_dir=str(config.data_dir),
        epoch=epoch,
    )
    try:
        await server.wait(stopping)
    except (NotLeader, StaleEpoch) as error:
        await _leave(server, error)
    except (ConfigError, SchemaTooNew):  # found at a takeover
        raise
    except Exception:  # noqa: BLE001 - the top of the program
        event, story = _failure(server)
        out.exception(event, story=story)
        return EX_SOFTWARE
    finally:
        await server.stop()
    out.info("stopped")
    return 0


def _failure(server: Server) -> tuple[str, str]:
    """Return what is told of the end of a server: event and story."""
    if server.is_alive:
        return "http_failed", "The HTTP port cannot be served, so the process ends"
    if server.leads:
        return "engine_failed", "Nothing more can be made durable, so the process ends; start it again"
    return "takeover_failed", "The queue could not be taken over, so the process ends; started again it stands by"


async def _leave(server: Server, error: Exception) -> NoReturn:
    """End the process of a coordinator that does not lead any more, as surely as a kill would.

    A database that does not answer would hold an orderly end up, and nothing that is left in memory counts.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LONGEST_LEAVE_S):
            await server.fall_silent(NotLeader(str(error)))
    structlog.get_logger("coordinator").error(
        "not_leading", reason=str(error), story="The process ends; started again it stands by"
    )
    os._exit(EX_TEMPFAIL)


@contextlib.contextmanager
def _sparing_collections() -> Iterator[None]:
    """Collect no garbage while a queue is taken up, and look less often afterwards, never at what is there by then.

    Next to nothing here is a cycle, and with a million jobs in memory each look at all of them is a pause.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*COLLECTION_THRESHOLDS)
        gc.enable()


def raise_file_limit() -> None:
    """Let thousands of agents and followers connect: each holds a file, and many hosts begin with 1,024."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if most == resource.RLIM_INFINITY else min(WANTED_FILES, most)
    if now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _stop_on_signal(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Return what the first SIGTERM or Ctrl-C sets; the second ends the process at once, and loses nothing told."""
    stopping = asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def told() -> None:
        stopping.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, told)
    return stopping
