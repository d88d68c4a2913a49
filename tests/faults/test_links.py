"""Links that break in every way, under load: work goes on, and nothing is lost, doubled or mixed up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
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

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


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
    "held": held,
    "slowed": slowed,
    "cut": Proxy.cut,
    "stranded": Proxy.strand,
    "truncated": spoilt(Proxy.truncate),
    "garbled": spoilt(Proxy.garble),
}
"""The gentle ones first: the connections that the others cost come back in their own time."""
FATAL = ("stranded", "cut", "truncated", "garbled")
"""A connection does not live through these."""
QUICK_FAULTS = tuple(fault for fault in FAULTS if fault != "stranded")
"""A stranded link is noticed after a quarter of a minute: tests/faults/test_half_open.py has it for `make test`."""


def via(proxy: Proxy) -> tuple[str, ...]:
    """Options that lead an agent through a proxy: the last --coordinator counts."""
    return ("--coordinator", proxy.address)


def strike(proxy: Proxy, fault: str, rounds: int) -> None:
    """Let a fault strike between spells of peace, and see that it was what it is called after."""
    before = proxy.accepted
    for _ in range(rounds):
        pause(0.5)
        FAULTS[fault](proxy)
    if fault in FATAL:
        eventually(lambda: proxy.accepted > before, f"who lost a {fault} link comes back")
    else:
        assert proxy.accepted == before, f"a link did not live through being {fault}"


def agents_links_break(directory: Path, faults: Iterable[str], rounds: int) -> None:
    with ExitStack() as stack:
        grid = stack.enter_context(running_grid(directory))
        grid.coordinator(*PACE)
        proxy = stack.enter_context(Proxy(grid.address, SEED).running())
        for name in AGENTS:
            grid.agent(name, *DEVICES, *via(proxy))
        # An agent is ready before it is connected.
        eventually(lambda: proxy.accepted == len(AGENTS), "the agents are connected")
        load = Load(grid.address, SEED)
        stack.callback(load.close)
        with load.running():
            for fault in faults:
                strike(proxy, fault, rounds)
        load.wait_until_all_ended(90)
        with Client(grid.address) as client:
            assert Verdict.gather(client, directory, load).keeps_every_promise() > 0


def users_links_break(directory: Path, faults: Iterable[str], rounds: int) -> None:
    with ExitStack() as stack:
        grid = stack.enter_context(running_grid(directory))
        grid.coordinator(*PACE)
        grid.agent("one", *DEVICES)
        proxy = stack.enter_context(Proxy(grid.address, SEED).running())
        load = Load(proxy.address, SEED)
        stack.callback(load.close)
        with load.running():
            eventually(lambda: load.accepted, "the user's connection is there")
            for fault in faults:
                strike(proxy, fault, rounds)
        load.wait_until_all_ended(90)
        with Client(grid.address) as client:
            assert Verdict.gather(client, directory, load).keeps_every_promise() > 0


def test_agents_links_may_break_in_every_way_under_load(tmp_path: Path) -> None:
    agents_links_break(tmp_path, QUICK_FAULTS, rounds=1)


def test_users_links_may_break_and_no_job_is_submitted_twice(tmp_path: Path) -> None:
    users_links_break(tmp_path, [fault for fault in QUICK_FAULTS if fault in FATAL], rounds=1)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
def test_agents_links_may_break_in_one_way_again_and_again(tmp_path: Path, fault: str) -> None:
    agents_links_break(tmp_path, [fault], ROUNDS)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FATAL)
def test_users_links_may_break_in_one_way_again_and_again(tmp_path: Path, fault: str) -> None:
    users_links_break(tmp_path, [fault], ROUNDS)
