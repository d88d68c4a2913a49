"""Links that break in every way, under load: work goes on, and nothing is lost, doubled or mixed up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from qgjob.client import Client
from tests.e2e.grid import eventually, running_grid
from tests.faults.checker import Verdict
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.test_kills import AGENTS, DEVICES, PACE

ROUNDS = 3
SEED = 1

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def pause(seconds: float) -> None:
    """Let work go on for a while under (or after) a fault."""
    threading.Event().wait(seconds)


def held(proxy: Proxy) -> None:
    proxy.hold()
    pause(1.5)
    proxy.release()


def slowed(proxy: Proxy) -> None:
    proxy.delay(0.15)
    pause(1.5)
    proxy.delay(0)


def spoilt(spoil: Callable[[Proxy], None]) -> Callable[[Proxy], None]:
    """A fault that strikes the next chunk, seen through until it did."""

    def strike(proxy: Proxy) -> None:
        before = proxy.spoilt
        spoil(proxy)
        eventually(lambda: proxy.spoilt > before, "a chunk came by to be spoilt")

    return strike


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "cut": Proxy.cut,
    "stranded": Proxy.strand,
    "truncated": spoilt(Proxy.truncate),
    "garbled": spoilt(Proxy.garble),
    "held": held,
    "slowed": slowed,
}
FATAL = ("cut", "stranded", "truncated", "garbled")
"""A connection does not live through these."""


def rounds(fault: str) -> int:
    """A stranded link may take half a minute to be noticed: one is enough."""
    return 1 if fault == "stranded" else ROUNDS


def via(proxy: Proxy) -> tuple[str, ...]:
    """Options that lead an agent through a proxy: the last --coordinator counts."""
    return ("--coordinator", proxy.address)


@pytest.mark.parametrize("fault", FAULTS)
def test_agents_links_may_break_under_load(tmp_path: Path, fault: str) -> None:
    with ExitStack() as stack:
        grid = stack.enter_context(running_grid(tmp_path))
        grid.coordinator(*PACE)
        proxy = stack.enter_context(Proxy(grid.address, SEED).running())
        for name in AGENTS:
            grid.agent(name, *DEVICES, *via(proxy))
        # An agent is ready before it is connected.
        eventually(lambda: proxy.accepted == len(AGENTS), "the agents are connected")
        before = proxy.accepted
        load = Load(grid.address, SEED)
        stack.callback(load.close)
        with load.running():
            for _ in range(rounds(fault)):
                pause(0.5)
                FAULTS[fault](proxy)
        load.wait_until_all_ended(90)
        assert (proxy.accepted > before) is (fault in FATAL), "the fault did not do what it is called after"
        with Client(grid.address) as client:
            verdict = Verdict.gather(client, tmp_path, load.accepted)
            verdict.nothing_is_lost_or_doubled()
            verdict.each_attempt_ended_once()
            verdict.no_device_ran_two_tests()
            verdict.no_attempt_ran_twice()
            assert verdict.logs_equal_what_devices_wrote() > 0


@pytest.mark.parametrize("fault", FATAL)
def test_users_links_may_break_and_no_job_is_submitted_twice(tmp_path: Path, fault: str) -> None:
    with ExitStack() as stack:
        grid = stack.enter_context(running_grid(tmp_path))
        grid.coordinator(*PACE)
        grid.agent("one", *DEVICES)
        proxy = stack.enter_context(Proxy(grid.address, SEED).running())
        load = Load(proxy.address, SEED)
        stack.callback(load.close)
        with load.running():
            for _ in range(rounds(fault)):
                pause(0.5)
                FAULTS[fault](proxy)
        load.wait_until_all_ended(90)
        assert proxy.accepted > 1, "the user's connection was never hit: this run proves nothing"
        with Client(grid.address) as client:
            Verdict.gather(client, tmp_path, load.accepted).nothing_is_lost_or_doubled()
