"""Short commands: what they say, and that nothing of them is left when nobody waits for them any more."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from agent.process import capture

PATIENCE_S = 60


async def test_command_is_told_with_its_code_and_all_that_it_printed() -> None:
    assert await capture(("sh", "-c", "echo out; echo err >&2; exit 3"), timeout_s=PATIENCE_S) == (3, "out\nerr\n")


async def test_command_that_nobody_waits_for_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    script = f"exec 3>{told}; sleep 600 & echo begun >&3; wait"
    running = asyncio.create_task(capture(("sh", "-c", script), timeout_s=PATIENCE_S))
    with await asyncio.to_thread(told.open) as held:
        assert await asyncio.to_thread(held.readline) == "begun\n"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        # It ends where nobody holds it any more.
        assert await asyncio.wait_for(asyncio.to_thread(held.read), PATIENCE_S) == ""


async def test_command_that_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError):
        await capture(("sleep", "600"), timeout_s=0.01)


async def test_what_has_left_the_commands_group_keeps_nobody_waiting(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    script = f"setsid sh -c 'echo $$ > {told}; exec sleep 600' & sleep 600"
    running = asyncio.create_task(capture(("sh", "-c", script), timeout_s=PATIENCE_S))
    left = int(await asyncio.to_thread(told.read_text))
    try:
        running.cancel()
        ended, _ = await asyncio.wait((running,), timeout=PATIENCE_S)
        assert ended, "it is waited for"
        assert running.cancelled()
    finally:
        os.kill(left, signal.SIGKILL)
        await asyncio.gather(running, return_exceptions=True)
