"""What is simulated with thawed records is what is simulated with frozen ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from coordinator.core.model import Now
from tests.sim.test_simulation import fingerprint
from tests.sim.thaw import thaw_records

SEED = 20
"""One whose recovery is compared as well."""
PRINT_THAWED_FINGERPRINT = f"""
from tests.sim.thaw import thaw_records
thaw_records()
from coordinator.core.model import Now
from tests.sim.test_simulation import fingerprint
now = Now(mono_us=1, wall_us=2)
now.mono_us = 3
assert now == Now(mono_us=3, wall_us=2)
print(fingerprint({SEED}))
"""


def test_history_is_the_same_when_records_are_thawed() -> None:
    thawed = subprocess.run(
        [sys.executable, "-c", PRINT_THAWED_FINGERPRINT], capture_output=True, text=True, check=True
    ).stdout.strip()

    assert thawed == fingerprint(SEED)


def test_records_that_are_frozen_already_are_not_thawed() -> None:
    with pytest.raises(RuntimeError, match="before the machines are imported"):
        thaw_records()
    with pytest.raises(AttributeError):
        Now(mono_us=1, wall_us=2).mono_us = 3  # type: ignore[misc]
