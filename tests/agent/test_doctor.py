"""What `qgjob-agent doctor` says of programs, of Appium's driver, of the disk and of AVDs: with stand-ins on PATH."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.appium import UIAUTOMATOR2
from agent.config import Config
from agent.core.model import AgentId
from agent.doctor import examine
from agent.doctor_android import examine_devices, examine_emulators
from agent.doctor_tools import JAVA, NODE, examine_aapt2, examine_driver, examine_npm, examine_program
from qgjob.checkup import Finding

Put = Callable[[str, str], Path]


class Usage(NamedTuple):
    """What `shutil.disk_usage` returns."""

    total: int
    used: int
    free: int


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Put a program on a PATH that has no other; it is given as what a shell does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("ANDROID_HOME", raising=False)

    def put(name: str, script: str) -> Path:
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return program

    return put


def config(state_dir: Path, *, is_for_bundles: bool = False) -> Config:
    return Config(
        coordinators=(),
        name=AgentId("lab"),
        state_dir=state_dir,
        simulate=(),
        sim_install_s=0,
        sim_test_s=0,
        drain_grace_s=0,
        is_for_bundles=is_for_bundles,
        virtual_phones=1,
    )


# Programs


@pytest.mark.parametrize(
    ("told", "release"),
    [
        ("echo v20.18.0", "20.18.0"),
        ("echo v24.1.0", "24.1.0"),
    ],
)
async def test_node_that_is_new_enough_is_told_with_its_release(put: Put, told: str, release: str) -> None:
    node = put("node", told)
    check = await examine_program(NODE)
    assert (check.finding, check.message) == (Finding.OK, f"{release} at {node}")


@pytest.mark.parametrize(
    ("told", "finding"),
    [
        ('openjdk version "17.0.15" 2025-04-15', Finding.OK),
        ('openjdk version "21" 2023-09-19', Finding.OK),
        ('java version "1.8.0_392"', Finding.FAILED),
        ('openjdk version "11.0.2" 2019-01-15', Finding.FAILED),
    ],
)
async def test_java_is_judged_by_its_first_number_as_it_was_counted_then(put: Put, told: str, finding: Finding) -> None:
    put("java", f"echo '{told}' >&2")  # it answers on stderr
    assert (await examine_program(JAVA)).finding is finding


async def test_old_node_is_told_with_what_to_install(put: Put) -> None:
    node = put("node", "echo v18.19.1")
    check = await examine_program(NODE)
    assert (check.finding, check.message) == (Finding.FAILED, f"18.19.1 at {node} is too old")
    assert check.hint == "install Node 20 or newer, and put it first on PATH"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 3", "does not tell its release: it says nothing"),
        ("echo 'no version information available'", "does not tell its release: no version information"),
        ("echo v20.0.0; exit 127", "does not tell its release"),
    ],
)
async def test_program_that_is_broken_is_no_program(put: Put, script: str, words: str) -> None:
    put("node", script)
    check = await examine_program(NODE)
    assert check.finding is Finding.FAILED
    assert words in check.message
    assert check.hint == "install Node 20 or newer anew"


async def test_program_that_cannot_be_started_is_told_with_the_systems_reason(put: Put) -> None:
    put("node", "").write_text("#!/no/such/shell\n")
    check = await examine_program(NODE)
    assert "cannot be run: " in check.message
    assert check.finding is Finding.FAILED


@pytest.mark.usefixtures("put")
async def test_missing_npm_ends_an_agent_for_bundles_alone_and_limits_one_with_a_workspace() -> None:
    assert (await examine_npm(is_needed=True)).finding is Finding.FAILED
    limited = await examine_npm(is_needed=False)
    assert limited.finding is Finding.WARNING
    assert limited.hint == "install npm, which comes with Node; until then no bundle can be run"


def test_aapt2_is_looked_for_where_appium_looks(put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = examine_aapt2()
    assert (missing.finding, "installs the app anew" in missing.hint) == (Finding.WARNING, True)
    on_path = put("aapt2", "exit 0")
    assert examine_aapt2().message == str(on_path)
    for release in ("33.0.0", "34.0.0"):
        (tmp_path / "sdk" / "build-tools" / release).mkdir(parents=True)
        (tmp_path / "sdk" / "build-tools" / release / "aapt2").touch()
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path / "sdk"))
    assert examine_aapt2().message == str(tmp_path / "sdk/build-tools/34.0.0/aapt2")


# Appium's driver


def install(home: Path, text: str) -> None:
    folder = home / "node_modules" / UIAUTOMATOR2.package
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(text)
    (home / "complete").touch()


@pytest.mark.parametrize(
    ("manifest", "finding", "words"),
    [
        (json.dumps({"version": UIAUTOMATOR2.version}), Finding.OK, f"uiautomator2-driver {UIAUTOMATOR2.version} in"),
        (json.dumps({"version": "2.0.0"}), Finding.WARNING, "is to take the place of 2.0.0"),
        ("{}", Finding.WARNING, "is not installed yet"),
        (None, Finding.WARNING, "is not installed yet"),
    ],
)
def test_driver_is_told_as_it_is_and_as_the_agent_will_have_it(
    tmp_path: Path, manifest: str | None, finding: Finding, words: str
) -> None:
    if manifest is not None:
        install(tmp_path, manifest)
    check = examine_driver(UIAUTOMATOR2, tmp_path)
    assert check.finding is finding
    assert words in check.message
    assert bool(check.hint) is (finding is not Finding.OK)


def test_driver_that_was_not_installed_to_the_end_is_none(tmp_path: Path) -> None:
    install(tmp_path, json.dumps({"version": UIAUTOMATOR2.version}))
    (tmp_path / "complete").unlink()
    assert "is not installed yet" in examine_driver(UIAUTOMATOR2, tmp_path).message


# The disk


@pytest.mark.usefixtures("put")
@pytest.mark.parametrize(
    ("free_mib", "is_for_bundles", "finding"),
    [
        (12 * 1_024, True, Finding.OK),
        (5 * 1_024, True, Finding.WARNING),
        (900, True, Finding.FAILED),
        (900, False, Finding.OK),
        (60, False, Finding.FAILED),
    ],
)
def test_disk_must_have_room_for_what_the_agent_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, is_for_bundles: bool, finding: Finding
) -> None:
    usage = Usage(1 << 50, 0, free_mib * 1_024 * 1_024)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    (disk,) = (check for check in examine(config(tmp_path, is_for_bundles=is_for_bundles)) if check.name == "disk")
    assert disk.finding is finding
    assert bool(disk.hint) is (finding is not Finding.OK)


@pytest.mark.usefixtures("put")
def test_builds_that_are_kept_already_need_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1 << 50, 0, 8 * 1_024**3))
    (tmp_path / "builds").mkdir()
    with (tmp_path / "builds" / "one.apk").open("wb") as sparse:
        sparse.truncate(4 * 1_024**3)
    (disk,) = (check for check in examine(config(tmp_path, is_for_bundles=True)) if check.name == "disk")
    assert disk.finding is Finding.OK


# AVDs and devices


async def test_avd_that_is_not_there_is_told_with_how_to_make_it(put: Put) -> None:
    missing = await examine_emulators((("Pixel_8", 2),))
    assert (missing.finding, missing.hint) == (
        Finding.FAILED,
        "install the Android emulator, which shall boot 2 of Pixel_8",
    )
    emulator = put("emulator", '[ "$1" = -list-avds ] && printf "Pixel_8\\nTablet\\n"')
    well = await examine_emulators((("Pixel_8", 2), ("Tablet", 1)))
    assert (well.finding, well.message) == (
        Finding.OK,
        f"{emulator} boots 2 of Pixel_8, 1 of Tablet when work comes",
    )
    lacking = await examine_emulators((("Pixel_8", 2), ("Pixel_9", 1)))
    assert (lacking.finding, lacking.message) == (Finding.FAILED, f"{emulator} knows no AVD named Pixel_9")
    assert "avdmanager create avd" in lacking.hint


async def test_emulator_that_cannot_list_its_avds_is_told_with_its_last_word(put: Put) -> None:
    put("emulator", "echo first; echo PANIC: no AVD system path; exit 1")
    check = await examine_emulators((("Pixel_8", 1),))
    assert check.finding is Finding.FAILED
    assert "PANIC: no AVD system path" in check.message


async def test_devices_are_not_known_before_an_adb_server_runs() -> None:
    (check,) = await examine_devices(1, is_alone=True)
    assert (check.finding, check.message) == (Finding.WARNING, "no adb server on port 1")


async def test_device_that_a_server_knows_is_told_where_there_is_no_adb_to_ask_it_with(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("other", "")  # no adb is on PATH

    async def track(_port: int) -> AsyncIterator[dict[str, str]]:
        yield {"R58M": "device"}

    monkeypatch.setattr("agent.doctor_android.track", track)
    (check,) = await examine_devices(1, is_alone=True)
    assert (check.finding, check.hint) == (Finding.FAILED, "install adb")
    assert check.message.startswith("R58M cannot be asked: adb cannot be run")
