from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog

from examples import tools

ANDROID_TOOLS = ("adb", "aapt", "apksigner", "zipalign", "keytool")
NEEDS = {"appwright": tuple(tools.PACKAGES), "android_tools": ANDROID_TOOLS}
MISSING = tools.missing_tools()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what cannot run here. In CI that is a failure: a skip would hide that it was not tested."""
    for marker, needed in NEEDS.items():
        missing = [tool for tool in needed if tool in MISSING]
        if item.get_closest_marker(marker) is None or not missing:
            continue
        reason = f"missing: {', '.join(missing)}; `make tools` installs it"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def _fresh_diagnostics() -> Iterator[None]:
    """A program's entry points diagnostics at the stderr of the test that called it, which is closed after it."""
    yield
    structlog.reset_defaults()
