from __future__ import annotations

import pytest

from agent.android import Adb
from agent.devicelog import device_time, log_since


@pytest.fixture
def adb(monkeypatch: pytest.MonkeyPatch) -> Adb:
    return Adb("phone-1", 5037)


def answering(monkeypatch: pytest.MonkeyPatch, adb: Adb, code: int, text: str) -> list[tuple[str, ...]]:
    asked: list[tuple[str, ...]] = []

    async def run(*arguments: str, timeout_s: float = 0) -> tuple[int, str]:
        asked.append(arguments)
        return code, text

    monkeypatch.setattr(adb, "run", run)
    return asked


async def test_log_is_asked_for_from_the_time_of_the_devices_own_clock(
    adb: Adb, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, adb, 0, "11-28 13:00:05\r\n")
    since = await device_time(adb)
    assert since == "11-28 13:00:05.000"
    asked = answering(monkeypatch, adb, 0, "a line\n")
    assert await log_since(adb, since) == "a line\n"
    assert asked == [("logcat", "-d", "-v", "threadtime", "-T", "11-28 13:00:05.000")]


async def test_device_that_does_not_tell_its_time_or_is_gone_has_no_log(
    adb: Adb, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code, text in ((1, "11-28 13:00:05"), (0, "date: bad format"), (0, "")):
        answering(monkeypatch, adb, code, text)
        assert await device_time(adb) == ""
    asked = answering(monkeypatch, adb, 0, "everything since the boot")
    assert await log_since(adb, "") == ""
    assert asked == []
    answering(monkeypatch, adb, 1, "error: device 'phone-1' not found")
    assert await log_since(adb, "11-28 13:00:05.000") == ""
