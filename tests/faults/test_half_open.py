"""Links that stay open and carry nothing: both ends know in time, and the work goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.grid import Grid, Program, eventually, running_grid
from tests.faults.proxy import Proxy

SEED = 1
SEEN_WITHIN_S = 20.0
DEFAULTS = ("--heartbeat", "5", "--lease-ttl", "30")
PHONE = ("--simulate", "emulator=1", "--sim-install-seconds", "0")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def agent_state(grid: Grid) -> str:
    (agent,) = grid.agents()
    return str(agent["state"])


def both_ends_see_it(grid: Grid, agent: Program) -> None:
    """Wait until the agent has lost its session and the coordinator its agent, in the time that is promised."""
    begun = time.monotonic()
    seen: dict[str, float] = {}

    def look() -> bool:
        if "session_lost" in agent.diagnostics.read_text():
            seen.setdefault("agent", time.monotonic() - begun)
        if agent_state(grid) == "disconnected":
            seen.setdefault("coordinator", time.monotonic() - begun)
        return len(seen) == 2

    eventually(look, "both ends see that the link is dead", seconds=SEEN_WITHIN_S)
    print({end: f"saw it after {seconds:.1f} s" for end, seconds in seen.items()})  # noqa: T201


def test_half_open_link_is_seen_at_both_ends_in_time_and_costs_no_test(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        grid.coordinator(*DEFAULTS)
        with Proxy(grid.address, SEED).running() as proxy:
            agent = grid.agent("lab", *PHONE, "--coordinator", proxy.address)
            (job,) = grid.submit("a.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=20"))
            eventually(lambda: grid.status(job) == "running", "the test runs")
            proxy.sever()
            both_ends_see_it(grid, agent)
            proxy.mend()
            eventually(lambda: agent_state(grid) == "connected", "the agent comes back")
            eventually(lambda: grid.status(job) == "completed", "the test ends")
        assert [attempt["outcome"] for attempt in grid.job(job)["attempts"]] == ["passed"]
