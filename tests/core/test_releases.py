"""Which releases may work together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from coordinator.core.releases import misfit

numbers = some.integers(0, 50)


def release(major: int, minor: int, patch: int = 0) -> str:
    return f"{major}.{minor}.{patch}"


@given(numbers, numbers, numbers, numbers)
def test_one_minor_release_apart_is_accepted_both_ways(major: int, minor: int, patch: int, other: int) -> None:
    older, newer = release(major, minor, patch), release(major, minor + 1, other)
    assert misfit(older, newer) is misfit(newer, older) is misfit(older, release(major, minor, other)) is None


@given(numbers, numbers, some.integers(2, 50))
def test_the_older_side_is_told_to_upgrade(major: int, minor: int, apart: int) -> None:
    older, newer = release(major, minor), release(major, minor + apart)
    assert str(misfit(newer, older)).endswith("upgrade the agent")
    assert str(misfit(older, newer)).endswith("upgrade the coordinator")


@given(numbers, numbers, numbers)
def test_another_major_release_never_fits(major: int, minor: int, other: int) -> None:
    assert str(misfit(release(major + 1, minor), release(major, other))).endswith("upgrade the agent")
    assert str(misfit(release(major, minor), release(major + 1, other))).endswith("upgrade the coordinator")


@pytest.mark.parametrize("odd", ["", "1", "one.two", "1.", "-1.2", "1.2\n", "9999999.1"])
def test_release_that_cannot_be_read_is_named(odd: str) -> None:
    assert "cannot be read; install release 1.2.3 there" in str(misfit("1.2.3", odd))


@pytest.mark.parametrize("preview", ["1.3.0.dev4", "1.3.0rc1", "1.3"])
def test_preview_counts_as_its_minor_release(preview: str) -> None:
    assert misfit("1.2.9", preview) is None
