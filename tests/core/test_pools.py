"""What is found sort by sort is what a look at every device finds."""

from __future__ import annotations

import itertools

import pytest

from coordinator.core.families import Signature
from coordinator.core.model import DeviceId, DeviceKind, Lane, Target
from coordinator.core.pools import Pools, misses
from tests.core.lab import Lab, emulator

SELECTORS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("model", "Pixel*"),),
    (("model", "Nokia"), ("rack", "a")),
    (("platform", "ios"),),
    (("id", "e1@lab"),),
    (("udid", "p*"), ("rack", "b")),
    (("id", "nobody"), ("model", "pixel 8")),
)


@pytest.fixture(scope="module")
def lab() -> Lab:
    lab = Lab()
    lab.connect(
        "lab",
        emulator("e1"),
        emulator("e2", labels={"rack": "a"}),
        emulator("e3", is_usable=False),
        emulator("p1", kind=DeviceKind.DEVICE, model="Galaxy S24", labels={"rack": "b"}),
        emulator("p2", kind=DeviceKind.DEVICE, platform="ios", model="iPhone 15"),
        emulator("k1", lanes=(Lane.HIGH,), orgs=("acme",)),
        emulator("slot", kind=DeviceKind.BROWSERSTACK, model="*"),
    )
    return lab


def signatures() -> list[Signature]:
    avoided: tuple[tuple[DeviceId, ...], ...] = ((), (DeviceId("e1@lab"),))
    ways = itertools.product(Target, SELECTORS, avoided, (False, True))
    return [Signature(target, selector, avoid, None, spills, "") for target, selector, avoid, spills in ways]


def test_devices_that_match_are_those_that_match_one_by_one(lab: Lab) -> None:
    pools, devices = lab.scheduler.ledger.fleet.pools, lab.scheduler.ledger.fleet.devices.values()
    counts = set()
    for signature in signatures():
        one_by_one = [device.id for device in devices if pools.matches(device, signature)]
        assert sorted(device.id for device in pools.matching(signature)) == sorted(one_by_one), signature
        counts.add(len(one_by_one))
    assert {0, 1, 5} <= counts


def test_nearest_device_is_the_first_of_those_that_lack_least(lab: Lab) -> None:
    pools, devices = lab.scheduler.ledger.fleet.pools, lab.scheduler.ledger.fleet.devices.values()
    for signature in signatures():
        lacks = {device.id: misses(device.facts, signature.target, signature.selector) for device in devices}
        least = min(lacks, key=lambda device_id: (len(lacks[device_id]), device_id))
        found = pools.nearest(signature)
        assert found is not None
        assert (found[0].id, found[1]) == (least, lacks[least]), signature


def test_without_devices_none_is_nearest() -> None:
    assert Pools().nearest(signatures()[0]) is None
