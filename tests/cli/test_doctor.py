"""What `qgjob doctor` says of devices."""

from __future__ import annotations

from qgjob.checkup import Finding
from qgjob.cli.doctor import _devices
from qgjob.v1.device_pb2 import DEVICE_STATE_IDLE, DEVICE_STATE_OFFLINE, DEVICE_STATE_QUARANTINED, Device, DeviceState


def a_device(name: str, state: DeviceState.ValueType, reason: str = "") -> Device:
    device = Device(state=state)
    device.facts.id, device.facts.reason = name, reason
    return device


def test_a_device_that_cannot_work_is_named_with_what_to_do() -> None:
    found = _devices(
        [
            a_device("a", DEVICE_STATE_IDLE),
            a_device("b", DEVICE_STATE_QUARANTINED),
            a_device("c", DEVICE_STATE_OFFLINE, "unlock the phone"),
        ]
    )
    assert found.finding is Finding.WARNING
    assert found.hint == (
        "b is quarantined (once it is mended: `qgjob devices readmit b`); c is offline: unlock the phone"
    )


def test_of_many_devices_that_cannot_work_some_are_named_and_the_list_has_the_others() -> None:
    found = _devices([a_device(name, DEVICE_STATE_OFFLINE, "gone") for name in "abcd"])
    assert found.finding is Finding.FAILED
    assert found.hint == (
        "a is offline: gone; b is offline: gone; c is offline: gone; `qgjob devices list` tells of all"
    )
