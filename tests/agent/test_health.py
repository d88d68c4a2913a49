"""What makes a device unfit for a batch, judged by what devices print."""

from __future__ import annotations

import pytest

from agent.android import Adb
from agent.core.model import Blame, Vitals
from agent.crashes import parse_crashes
from agent.devices.reconnections import MOST_TRIES, Reconnections
from agent.health import Limits, complaint, judged, vitals_of

SOUND = {
    "serial": "\nR58M\n",
    "booted": "\n1\n",
    "sdk": "\n34\n",
    "battery": "\n  AC powered: false\n  USB powered: false\n  level: 87\n  scale: 100\n  temperature: 271\n",
    "storage": "\nFilesystem 1K-blocks     Used Available Use% Mounted on\n"
    "/dev/block/dm-5 112000000 60000000 52000000  54% /data/user/0\n",
    "packages": "\npackage:android\n",
    "power": "\n  mWakefulness=Awake\n",
    "window": "\n  mShowingLockscreen=false mDreamingLockscreen=false\n  KeyguardStateMonitor\n    mIsShowing=false\n",
}


def test_sound_device_is_fit_and_tells_how_it_is() -> None:
    assert judged("R58M", SOUND, "R58M", Limits()) is None
    assert vitals_of(SOUND) == Vitals(
        api_level=34, battery_percent=87, temperature_decidegrees=271, free_bytes=52_000_000 * 1_024
    )


def test_device_that_tells_nothing_has_no_vitals() -> None:
    assert vitals_of({"battery": "Can't find service: battery", "storage": "df: /data: No such file"}) == Vitals()


@pytest.mark.parametrize(
    ("section", "told", "reason", "fix"),
    [
        ("serial", "OTHER", "DEVICE_WRONG_SERIAL", "R58M was leased"),
        ("booted", "", "DEVICE_BOOTING", "restart it"),
        ("packages", "cmd: Can't find service: package", "DEVICE_PACKAGE_MANAGER_DOWN", "restart it"),
        ("storage", "/dev/block/dm-5 1000 1000 1024 99% /data", "DEVICE_STORAGE_LOW", "free some space on it"),
        ("battery", "  USB powered: false\n  level: 4\n", "DEVICE_BATTERY_LOW", "charge it"),
        ("battery", "  USB powered: true\n  level: 80\n  temperature: 520\n", "DEVICE_TOO_HOT", "let it cool down"),
        ("power", "  mWakefulness=Asleep", "DEVICE_LOCKED", "unlock it"),
        ("window", "  mDreamingLockscreen=true", "DEVICE_LOCKED", "unlock it"),
        ("window", "  KeyguardStateMonitor\n    mIsShowing=true", "DEVICE_LOCKED", "unlock it"),
    ],
)
def test_each_complaint_has_its_own_reason_and_its_fix(section: str, told: str, reason: str, fix: str) -> None:
    found = judged("R58M", {**SOUND, section: f"\n{told}\n"}, "R58M", Limits())
    assert found is not None
    assert (found.reason, found.blame) == (reason, Blame.DEVICE)
    assert fix in found.message


def test_low_battery_on_a_charger_is_no_complaint() -> None:
    assert judged("R58M", {**SOUND, "battery": "  USB powered: true\n  level: 4\n"}, None, Limits()) is None


def test_phone_that_hides_its_serial_number_is_believed() -> None:
    assert judged("R58M", {**SOUND, "serial": "\n\n"}, "R58M", Limits()) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((1, "error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set"), "DEVICE_UNAUTHORIZED"),
        ((1, "error: device offline"), "DEVICE_OFFLINE"),
        ((1, "error: no permissions (missing udev rules?)"), "DEVICE_NO_PERMISSIONS"),
        ((1, "error: device 'R58M' not found"), "DEVICE_LOST"),
        ((0, "recovery\n"), "DEVICE_LOST"),
    ],
)
async def test_what_adb_calls_it_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str], reason: str
) -> None:
    async def run(_adb: Adb, *_arguments: str, **_options: float) -> tuple[int, str]:
        return answer

    monkeypatch.setattr(Adb, "run", run)
    found = await complaint(Adb("R58M", 1), None, Limits())
    assert found is not None
    assert found.reason == reason


async def test_device_that_answers_no_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_adb: Adb, *arguments: str, **_options: float) -> tuple[int, str]:
        return (0, "device\n") if arguments == ("get-state",) else (124, "adb shell took longer than 20 s")

    monkeypatch.setattr(Adb, "run", run)
    found = await complaint(Adb("R58M", 1), None, Limits())
    assert found is not None
    assert found.reason == "DEVICE_SILENT"


CRASH_LOG = """--------- beginning of crash
11-24 16:00:01.100  4242  4242 E AndroidRuntime: FATAL EXCEPTION: main
11-24 16:00:01.100  4242  4242 E AndroidRuntime: Process: org.example.app, PID: 4242
11-24 16:00:01.100  4242  4242 E AndroidRuntime: java.lang.IllegalStateException: no feed
11-24 16:00:01.100  4242  4242 E AndroidRuntime: \tat org.example.app.Main.onClick(Main.java:42)
11-24 16:00:02.000  5151  5151 E AndroidRuntime: FATAL EXCEPTION: main
11-24 16:00:02.000  5151  5151 E AndroidRuntime: Process: org.example.application, PID: 5151
11-24 16:00:02.000  5151  5151 E AndroidRuntime: java.lang.Error: another app
11-24 16:00:03.000  6161  6161 F DEBUG   : pid: 6161, tid: 6161, name: example.app  >>> org.example.app <<<
"""


def test_crashes_are_those_of_the_app_alone_in_java_and_native_code() -> None:
    crashes = parse_crashes(CRASH_LOG, "org.example.app")
    assert [(crash.pid, crash.cause) for crash in crashes] == [
        ("4242", "java.lang.IllegalStateException: no feed"),
        ("6161", "it died in native code"),
    ]


def test_offline_device_is_reconnected_a_few_times_with_waits_that_double() -> None:
    reconnections, taken = Reconnections(0.0), []
    for second in range(1_000):
        if reconnections.take(float(second)):
            taken.append(second)
    assert taken == [5, 15, 35, 75, 155]
    assert len(taken) == MOST_TRIES
    assert not reconnections.are_left
