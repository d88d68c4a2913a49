from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coordinator import space as space_module
from coordinator.config import ConfigError
from coordinator.core.errors import StorageFull
from coordinator.main import parsed_size
from coordinator.space import BALLAST, MIB, PROBE, Space


def space_with(directory: Path, free: int, *others: Path, min_free: int = 512 * MIB) -> Space:
    return Space(directory, others, min_free=min_free, ballast_bytes=4 * MIB, read_free=lambda _: free)


async def test_refusal_says_how_much_is_free_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        StorageFull, match=rf"511 MiB free in {tmp_path}, and 512 MiB are to stay.*free space"
    ) as refusal:
        await space_with(tmp_path, 512 * MIB - 1).check_new()
    assert refusal.value.reason == "STORAGE_FULL"
    await space_with(tmp_path, 512 * MIB).check_new()


async def test_every_directory_needs_the_room(tmp_path: Path) -> None:
    free = {tmp_path: 999 * MIB, tmp_path / "logs": 1 * MIB}
    with pytest.raises(StorageFull, match="logs"):
        await Space(tmp_path, (tmp_path / "logs",), min_free=512 * MIB, read_free=free.__getitem__).check_new()


async def test_logs_that_have_begun_may_use_what_is_closed_to_new_work_but_not_all(tmp_path: Path) -> None:
    await space_with(tmp_path, 4 * MIB).check_growth()
    with pytest.raises(StorageFull, match="logs stay with their agents"):
        await space_with(tmp_path, 4 * MIB - 1).check_growth()


async def test_database_that_cannot_be_written_to_takes_nothing(tmp_path: Path) -> None:
    space = space_with(tmp_path, 999 * MIB)
    space.is_writable = False
    for check in (space.check_new, space.check_growth):
        with pytest.raises(StorageFull, match="serves reads alone"):
            await check()
    with pytest.raises(StorageFull, match="serves reads alone"):
        space.check_writable()


async def test_new_work_is_checked_by_a_look_of_its_own(tmp_path: Path) -> None:
    free = iter((600 * MIB, 511 * MIB))
    space = Space(tmp_path, min_free=512 * MIB, read_free=lambda _: next(free), look_interval_s=0)
    await space.check_new()
    with pytest.raises(StorageFull):
        await space.check_new()


async def test_new_work_that_comes_at_once_shares_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "SHARED_LOOK_S", 3_600)
    looks: list[Path] = []

    def look(directory: Path) -> int:
        looks.append(directory)
        return 600 * MIB

    space = Space(tmp_path, min_free=512 * MIB, read_free=look, look_interval_s=3_600)
    for _ in range(100):
        await space.check_new()
    assert looks == [tmp_path]


async def test_logs_that_grow_share_a_look(tmp_path: Path) -> None:
    looks: list[Path] = []

    def look(directory: Path) -> int:
        looks.append(directory)
        return 600 * MIB

    space = Space(tmp_path, min_free=512 * MIB, read_free=look, look_interval_s=3_600)
    for _ in range(100):
        await space.check_growth()
    assert looks == [tmp_path]


async def test_disk_that_hangs_holds_up_nobody_and_counts_as_it_was_last_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_module, "LONGEST_LOOK_S", 0.1)
    answers = threading.Event()
    looks: list[Path] = []

    def look(directory: Path) -> int:
        looks.append(directory)
        if len(looks) > 1:
            assert answers.wait(timeout=60)
            return 600 * MIB
        return 511 * MIB

    space = Space(tmp_path, min_free=512 * MIB, read_free=look, look_interval_s=0)
    try:
        async with asyncio.timeout(60):
            for _ in range(100):
                with pytest.raises(StorageFull):
                    await space.check_new()
        assert len(looks) == 2
    finally:
        answers.set()
    assert space._looking is not None
    await space._looking
    await space.check_new()


async def test_disk_that_cannot_be_asked_is_told_once_and_counts_as_it_was_last_seen(tmp_path: Path) -> None:
    looks: list[Path] = []

    def look(directory: Path) -> int:
        looks.append(directory)
        if len(looks) > 1:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return 511 * MIB

    space = Space(tmp_path, min_free=512 * MIB, read_free=look, look_interval_s=0)
    with capture_logs() as told:
        for _ in range(3):
            with pytest.raises(StorageFull):
                await space.check_new()
    assert [(line["event"], line["reason"]) for line in told] == [("space_unknown", os.strerror(errno.ESTALE))]


def test_ballast_takes_real_room_and_is_given_back_but_for_the_last_reserve(tmp_path: Path) -> None:
    space = space_with(tmp_path, 999 * MIB)
    space.keep_ballast()
    ballast = tmp_path / BALLAST
    assert ballast.stat().st_blocks * 512 >= 4 * MIB
    assert space.give_back()
    assert ballast.stat().st_size == MIB
    assert not space.give_back()
    assert space.give_back_all()
    assert ballast.stat().st_size == 0
    assert not space.give_back_all()
    space.keep_ballast()
    assert ballast.stat().st_size == 4 * MIB


def test_ballast_is_not_made_of_the_room_that_is_to_stay(tmp_path: Path) -> None:
    space_with(tmp_path, 515 * MIB).keep_ballast()
    assert not (tmp_path / BALLAST).exists()


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_disk_that_cannot_be_looked_at_has_no_ballast_and_ends_nothing(tmp_path: Path, code: int) -> None:
    def fail(_directory: Path) -> int:
        raise OSError(code, os.strerror(code))

    with capture_logs() as told:
        Space(tmp_path, min_free=0, read_free=fail).keep_ballast()
    assert [(line["event"], line["reason"]) for line in told] == [("no_ballast", os.strerror(code))]


def test_probe_leaves_nothing_behind(tmp_path: Path) -> None:
    assert space_with(tmp_path, 0).can_write()
    assert not (tmp_path / PROBE).exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1_000), ("512MiB", 512 * MIB), ("512 mib", 512 * MIB), ("2G", 2 * 10**9), ("3KB", 3_000)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parsed_size("--min-free", text) == size


@pytest.mark.parametrize("text", ["", "-1", "lots", "1.5G", "5PB", "9" * 16])
def test_what_is_no_size_is_refused_by_its_flag(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--min-free .*is not a size"):
        parsed_size("--min-free", text)
