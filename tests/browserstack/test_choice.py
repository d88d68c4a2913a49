"""Which device a job gets."""

from __future__ import annotations

import pytest

from agent.browserstack.choice import NothingOffered, choose
from agent.browserstack.client import CloudDevice

DEVICES = (
    CloudDevice(name="Google Pixel 8", os_version="14.0"),
    CloudDevice(name="Google Pixel 7", os_version="13.0"),
    CloudDevice(name="Samsung Galaxy S9", os_version="9.0"),
    CloudDevice(name="Samsung Galaxy S23", os_version="13.0"),
    CloudDevice(name="iPhone 15", os_version="17", platform="ios"),
)


@pytest.mark.parametrize(
    ("selector", "name"),
    [
        ({}, "Google Pixel 8"),
        ({"model": "*galaxy*"}, "Samsung Galaxy S23"),
        ({"os_version": "13"}, "Google Pixel 7"),
        ({"os_version": "13.0"}, "Google Pixel 7"),
        ({"os_version": "13*", "model": "Samsung*"}, "Samsung Galaxy S23"),
        ({"os_version": "9"}, "Samsung Galaxy S9"),
        ({"platform": "ios"}, "iPhone 15"),
    ],
)
def test_newest_system_among_those_that_are_allowed_is_taken(selector: dict[str, str], name: str) -> None:
    assert choose(DEVICES, selector).name == name


def test_what_is_not_offered_is_told_with_what_comes_nearest() -> None:
    with pytest.raises(NothingOffered, match=r"has Samsung\* with android 9.0, 13.0, but not with 15"):
        choose(DEVICES, {"model": "Samsung*", "os_version": "15"})
    with pytest.raises(NothingOffered, match="no android device whose name is Nokia"):
        choose(DEVICES, {"model": "Nokia"})
