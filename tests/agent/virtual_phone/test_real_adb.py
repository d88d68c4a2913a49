"""The real adb binary against virtual phones: one lab for all tests, healed after each."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

import agent.android
from agent.android import Adb, Apk
from agent.core.model import AgentId, Blame, DeviceFacts
from agent.crashes import crashes_of
from agent.devices import reconnections
from agent.devices.adb import AdbDiscovery, track
from agent.doctor_android import examine_devices
from agent.health import Limits, complaint
from agent.runners.appwright_care import LAST_TESTED, Care, CareOptions
from agent.runners.protocol import RunFailed
from agent.virtual_phone.apk import build_apk, make_keystore
from agent.virtual_phone.daemon import LOOPBACK
from agent.virtual_phone.errors import FaultInvalid
from agent.virtual_phone.faults import FaultKind
from agent.virtual_phone.lab import DIRECTORY_NAME, LabOptions, VirtualLab

PACKAGE = "org.example.demo"
ACTIVITY = f"{PACKAGE}.MainActivity"
SOON = 60.0

pytestmark = [pytest.mark.android_tools, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True)
class Apks:
    first: Path
    second: Path
    stranger: Path
    broken: Path


@pytest.fixture(scope="module")
def apks(tmp_path_factory: pytest.TempPathFactory) -> Apks:
    """Two versions of an app, the second of another signer, too, and a file that is no APK."""
    directory = tmp_path_factory.mktemp("apks")
    key = directory / "key.p12"
    make_keystore(key)
    (directory / "broken.apk").write_bytes(b"no APK at all")
    return Apks(
        first=build_apk(directory / "first.apk", PACKAGE, 1, "1.0", 300_000, keystore=key),
        second=build_apk(directory / "second.apk", PACKAGE, 2, "2.0", keystore=key),
        stranger=build_apk(directory / "stranger.apk", PACKAGE, 2, "2.0"),
        broken=directory / "broken.apk",
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VirtualLab]:
    directory = tmp_path_factory.mktemp("state") / DIRECTORY_NAME
    async with VirtualLab(2, directory, LabOptions(first_port=0)) as lab:
        yield lab


@pytest_asyncio.fixture(loop_scope="module")
async def lab(running: VirtualLab) -> AsyncIterator[VirtualLab]:
    """Two phones without faults and without the app."""
    yield running
    for phone in running.phones:
        for kind in FaultKind:
            await phone.end_fault(kind)
    await seen(running, lambda states: list(states.values()) == ["device", "device"])
    for number in range(2):
        await adb(running, number, "uninstall", PACKAGE)


async def adb(lab: VirtualLab, number: int, *arguments: str) -> tuple[int, str, str]:
    """Run adb on a phone; return exit code, output and error output."""
    process = await asyncio.create_subprocess_exec(
        "adb", "-H", LOOPBACK, "-P", str(lab.adb_port), "-s", lab.udids[number], *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), SOON)
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def the_app(path: Path) -> Apk:
    return Apk(path=path, digest=digest(path) if path.exists() else "", package=PACKAGE, activity=ACTIVITY)


async def seen(lab: VirtualLab, is_so: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Follow `adb track-devices` until the states of the phones are as wanted, and return them."""
    async with asyncio.timeout(SOON):
        async with contextlib.aclosing(track(lab.adb_port)) as changes:
            async for states in changes:
                if is_so(states):
                    return states
    raise AssertionError("the adb server went away")


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what no message tells of."""
    async with asyncio.timeout(SOON):
        while not await is_so():  # noqa: ASYNC110 - the condition is another process's
            await asyncio.sleep(0.05)


async def held(lab: VirtualLab, number: int) -> str | None:
    """The SHA-256 of the app that a phone holds, by the phone's own sha256sum."""
    return await Adb(lab.udids[number], lab.adb_port).installed_digest(PACKAGE)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_phones_are_listed_each_with_its_own_identity(lab: VirtualLab) -> None:
    assert await lab.states() == dict.fromkeys(lab.udids, "device")
    serials = [(await adb(lab, number, "shell", "getprop", "ro.serialno"))[1].strip() for number in range(2)]
    assert serials == ["VPHONE0001", "VPHONE0002"]
    models = [(await adb(lab, number, "shell", "getprop", "ro.product.model"))[1].strip() for number in range(2)]
    assert len(set(models)) == 2


async def test_app_is_installed_updated_and_removed_on_one_phone_only(lab: VirtualLab, apks: Apks) -> None:
    for path in (apks.first, apks.first, apks.second):
        code, output, _ = await adb(lab, 0, "install", "-r", "-g", str(path))
        assert (code, output.split()[-1]) == (0, "Success")
        assert await held(lab, 0) == digest(path)
    assert await held(lab, 1) is None
    assert (await adb(lab, 0, "shell", "dumpsys package " + PACKAGE + " | grep versionName"))[1].strip() == (
        "versionName=2.0"
    )
    assert (await adb(lab, 0, "uninstall", PACKAGE))[1].strip() == "Success"
    assert await held(lab, 0) is None


@pytest.mark.parametrize(
    ("before", "given", "said"),
    [
        (None, "broken", "INSTALL_PARSE_FAILED_NOT_APK"),
        ("second", "first", "INSTALL_FAILED_VERSION_DOWNGRADE"),
        ("first", "stranger", "INSTALL_FAILED_UPDATE_INCOMPATIBLE"),
    ],
)
async def test_install_that_a_phone_refuses_leaves_what_was_there(
    lab: VirtualLab, apks: Apks, before: str | None, given: str, said: str
) -> None:
    present = getattr(apks, before) if before else None
    if present:
        await adb(lab, 0, "install", str(present))
    code, output, errors = await adb(lab, 0, "install", "-r", str(getattr(apks, given)))
    assert code == 1
    assert said in output + errors
    assert await held(lab, 0) == (digest(present) if present else None)


@pytest.mark.parametrize(("before", "given"), [("second", "first"), ("first", "stranger")])
async def test_agent_installs_a_build_that_does_not_update_what_is_there(
    lab: VirtualLab, apks: Apks, before: str, given: str
) -> None:
    phone = Adb(lab.udids[0], lab.adb_port)
    for name in (before, given):
        path: Path = getattr(apks, name)
        await phone.install(the_app(path))
        assert await held(lab, 0) == digest(path)


async def test_files_are_pushed_listed_and_pulled_unchanged(lab: VirtualLab, tmp_path: Path) -> None:
    content = os.urandom(700_000)
    (tmp_path / "up").write_bytes(content)
    assert (await adb(lab, 0, "push", str(tmp_path / "up"), "/sdcard/Download/deep/file"))[0] == 0
    assert (await adb(lab, 0, "shell", "ls", "/sdcard/Download/deep"))[1] == "file\n"
    assert (await adb(lab, 0, "pull", "/sdcard/Download/deep/file", str(tmp_path / "down")))[0] == 0
    assert (tmp_path / "down").read_bytes() == content
    code, output, errors = await adb(lab, 0, "pull", "/sdcard/none", str(tmp_path / "none"))
    assert code == 1
    assert "'/sdcard/none'" in output + errors


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("exit 42", 42, "", ""),
        ("echo out; echo err >&2; false", 1, "out\n", "err\n"),
        ("frobnicate --all", 127, "", "/system/bin/sh: frobnicate: inaccessible or not found\n"),
        ("(true)", 1, "", "/system/bin/sh: syntax error: unexpected '('\n"),
    ],
)
async def test_shell_tells_exit_code_and_keeps_outputs_apart(
    lab: VirtualLab, line: str, code: int, out: str, err: str
) -> None:
    assert await adb(lab, 0, "shell", line) == (code, out, err)


async def test_screenshot_is_a_picture(lab: VirtualLab, tmp_path: Path) -> None:
    assert (await adb(lab, 0, "shell", "screencap -p /sdcard/screen.png"))[0] == 0
    await adb(lab, 0, "pull", "/sdcard/screen.png", str(tmp_path / "screen.png"))
    assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG\r\n")


async def test_port_of_the_host_is_forwarded_only_to_who_listens(lab: VirtualLab) -> None:
    code, port, _ = await adb(lab, 0, "forward", "tcp:0", "tcp:6790")
    assert code == 0
    reader, writer = await asyncio.open_connection(LOOPBACK, int(port))
    writer.write(b"GET /status HTTP/1.1\r\n\r\n")
    assert await asyncio.wait_for(reader.read(), SOON) == b"", "no UiAutomator2 server runs on this phone"
    writer.close()
    await writer.wait_closed()


async def test_full_storage_refuses_app_and_file(lab: VirtualLab, apks: Apks) -> None:
    await lab.phones[0].begin_fault("storage_full")
    code, output, errors = await adb(lab, 0, "install", str(apks.first))
    assert code == 1
    assert "INSTALL_FAILED_INSUFFICIENT_STORAGE" in output + errors
    code, output, errors = await adb(lab, 0, "push", str(apks.first), "/sdcard/file")
    assert code == 1
    assert "No space left on device" in output + errors
    assert (await adb(lab, 1, "install", str(apks.first)))[0] == 0, "the other phone has room"


async def test_install_fails_as_often_as_asked(lab: VirtualLab, apks: Apks) -> None:
    await lab.phones[0].begin_fault("install_fails=INSTALL_FAILED_INTERNAL_ERROR,times=1")
    code, output, errors = await adb(lab, 0, "install", str(apks.first))
    assert code == 1
    assert "INSTALL_FAILED_INTERNAL_ERROR" in output + errors
    assert (await adb(lab, 0, "install", str(apks.first)))[0] == 0


async def test_slow_install_takes_its_time_and_then_succeeds(lab: VirtualLab, apks: Apks) -> None:
    await lab.phones[0].begin_fault("slow_install=0.7")
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert (await adb(lab, 0, "install", str(apks.first)))[0] == 0
    assert loop.time() - begun >= 0.7


async def test_phone_that_is_pulled_in_mid_command_is_gone_and_comes_back(lab: VirtualLab) -> None:
    udid = lab.udids[0]
    command = asyncio.create_task(adb(lab, 0, "shell", "echo begun; sleep 60; echo survived"))
    await seen(lab, lambda states: states.get(udid) == "device")
    await lab.phones[0].begin_fault("offline")
    states = await seen(lab, lambda states: states.get(udid) != "device")
    assert states[lab.udids[1]] == "device"
    assert "survived" not in (await command)[1]
    await lab.phones[0].end_fault("offline")
    await seen(lab, lambda states: states.get(udid) == "device")
    assert (await adb(lab, 0, "shell", "true"))[0] == 0


async def test_phone_is_lost_only_when_it_stays_away(lab: VirtualLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.android, "LOOK_S", 0.1)
    losing = asyncio.create_task(Adb(lab.udids[0], lab.adb_port).lost())
    done, _ = await asyncio.wait((losing,), timeout=0.5)
    assert not done
    await lab.phones[0].begin_fault("offline")
    await asyncio.wait_for(losing, SOON)


async def test_phone_that_hangs_answers_again_when_it_is_healed(lab: VirtualLab) -> None:
    await lab.phones[0].begin_fault("offline=hang")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await adb(lab, 0, "shell", "true")
    assert (await adb(lab, 1, "shell", "true"))[0] == 0
    await lab.phones[0].end_fault("offline")
    await eventually(lambda: _answers(lab, 0))


async def _answers(lab: VirtualLab, number: int) -> bool:
    return (await adb(lab, number, "shell", "true"))[0] == 0


async def test_phone_is_unauthorized_until_its_owner_agrees(lab: VirtualLab) -> None:
    udid = lab.udids[0]
    await lab.phones[0].begin_fault("unauthorized")
    await seen(lab, lambda states: states.get(udid) == "unauthorized")
    code, _, errors = await adb(lab, 0, "shell", "true")
    assert code == 1
    assert "unauthorized" in errors
    await lab.phones[0].end_fault("unauthorized")
    await seen(lab, lambda states: states.get(udid) == "device")


async def test_reboot_ends_the_apps_and_comes_back(lab: VirtualLab, apks: Apks) -> None:
    await adb(lab, 0, "install", str(apks.first))
    await adb(lab, 0, "shell", f"am start -n {PACKAGE}/.MainActivity")
    assert (await lab.phones[0].query())["front"].startswith(PACKAGE)
    await adb(lab, 0, "reboot")
    await seen(lab, lambda states: states.get(lab.udids[0]) != "device")
    await seen(lab, lambda states: states.get(lab.udids[0]) == "device")
    state = await lab.phones[0].query()
    assert not state["front"].startswith(PACKAGE)
    assert list(state["packages"]) == [PACKAGE]


async def test_misspelt_fault_is_refused_and_changes_nothing(lab: VirtualLab) -> None:
    with pytest.raises(FaultInvalid, match="unknown fault 'fire'"):
        await lab.phones[0].begin_fault("fire")
    assert (await lab.phones[0].query())["faults"] == []


async def control(lab: VirtualLab, *arguments: str) -> tuple[int, str, str]:
    state_dir = lab.phones[0].log_path.parents[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent.virtual_phone.control", "--state-dir", str(state_dir), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_faults_are_begun_listed_and_ended_from_outside(lab: VirtualLab) -> None:
    assert await control(lab, "begin", "virtual-2@lab", "battery=5") == (0, "", "")
    code, listed, _ = await control(lab, "list")
    assert code == 0
    assert [line.split() for line in listed.splitlines()] == [
        ["virtual-1", "VPHONE0001", lab.udids[0], "device", "-"],
        ["virtual-2", "VPHONE0002", lab.udids[1], "device", "battery=5"],
    ]
    assert (await control(lab, "end", "VPHONE0002", "battery"))[:2] == (0, "")
    assert (await control(lab, "end", lab.udids[1], "battery"))[:2] == (0, f"{lab.udids[1]} did not have it\n")
    code, _, errors = await control(lab, "begin", "virtual-9", "battery=5")
    assert (code, errors) == (1, "error: no phone virtual-9; there are virtual-1, virtual-2\n")
    code, _, errors = await control(lab, "begin", "virtual-1", "fire")
    assert code == 1
    assert "known are install_fails" in errors


async def test_dead_adb_server_is_started_again_where_it_was(lab: VirtualLab) -> None:
    port = lab.adb_port
    os.kill(int((await server_pids(port))[0]), signal.SIGKILL)
    await eventually(lambda: _answers(lab, 0))
    await eventually(lambda: _answers(lab, 1))
    assert lab.adb_port == port


async def test_phone_that_goes_offline_and_comes_back_costs_no_adb_server(
    lab: VirtualLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnections, "FIRST_WAIT_S", 0.1)
    before = await server_pids(lab.adb_port)
    told = asyncio.Queue[tuple[DeviceFacts, ...]]()
    looking = asyncio.create_task(AdbDiscovery(AgentId("lab"), lab.adb_port).run(told.put_nowait))

    async def until_usable(count: int) -> None:
        async with asyncio.timeout(SOON):
            while sum(facts.usable for facts in await told.get()) != count:
                pass

    try:
        await until_usable(2)
        await lab.phones[0].begin_fault("offline")
        await until_usable(1)
        await lab.phones[0].end_fault("offline")
        await until_usable(2)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    assert await server_pids(lab.adb_port) == before


async def test_every_fault_may_be_there_from_the_start(tmp_path: Path, apks: Apks) -> None:
    faults = ["unauthorized", "offline", "storage_full", "install_fails=INSTALL_FAILED_MEDIA_UNAVAILABLE",
              "boot_incomplete", "serial=OTHER"]  # fmt: skip
    options = LabOptions(first_port=0, faults={number: [fault] for number, fault in enumerate(faults)})
    async with VirtualLab(len(faults), tmp_path, options) as lab:
        states = await lab.states()
        assert [states.get(udid) for udid in lab.udids] == ["unauthorized", None, *["device"] * 4]
        assert "INSUFFICIENT_STORAGE" in "".join((await adb(lab, 2, "install", str(apks.first)))[1:])
        assert "MEDIA_UNAVAILABLE" in "".join((await adb(lab, 3, "install", str(apks.first)))[1:])
        assert (await adb(lab, 4, "shell", "getprop sys.boot_completed; pm list packages"))[:2] == (20, "\n")
        assert (await adb(lab, 5, "shell", "getprop ro.serialno"))[1] == "OTHER\n"
        await lab.phones[0].end_fault("unauthorized")
        await lab.phones[1].end_fault("offline")
        await seen(lab, lambda states: [states.get(udid) for udid in lab.udids] == ["device"] * 6)


LAB_THAT_IS_KILLED = """
import asyncio, sys
from pathlib import Path
from agent.virtual_phone.lab import LabOptions, VirtualLab

async def main():
    async with VirtualLab(2, Path(sys.argv[1]), LabOptions(first_port=0)) as lab:
        print(lab.adb_port, *(phone.pid for phone in lab.phones), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_phones_and_adb_server_end_with_a_killed_owner_and_nothing_brings_the_server_back(tmp_path: Path) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LAB_THAT_IS_KILLED, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    port, *phones = map(int, (await asyncio.wait_for(owner.stdout.readline(), SOON)).split())
    servers = await server_pids(port)
    assert servers
    owner.kill()
    await owner.wait()

    async def are_gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in (*phones, *servers))

    await eventually(are_gone)
    code, _ = await Adb("127.0.0.1:1", port).run("get-state")
    assert code != 0
    with socket.socket() as probe:
        assert probe.connect_ex((LOOPBACK, port)) != 0, "an adb command started a server of its own"


async def server_pids(port: int) -> list[int]:
    """The processes of the private adb server of a port, but for its guard."""
    wanted = ["-P", str(port), "nodaemon", "server"]
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_text().split("\0")[:-1] if entry.name.isdecimal() else []
        except OSError:
            continue
        if words[1:] == wanted:
            found.append(int(entry.name))
    return found


# The agent's care of a phone


async def ailing(lab: VirtualLab, fault: str, serial: str | None = None) -> str | None:
    """Return the reason why the first phone is not fit while it has a fault, which then ends."""
    await lab.phones[0].begin_fault(fault)
    try:
        found = await complaint(Adb(lab.udids[0], lab.adb_port), serial, Limits())
    finally:
        await lab.phones[0].end_fault(fault.partition("=")[0])
    return None if found is None else found.reason


async def test_phone_without_faults_is_fit_and_each_fault_has_its_own_reason(lab: VirtualLab) -> None:
    phone = Adb(lab.udids[0], lab.adb_port)
    assert await complaint(phone, "VPHONE0001", Limits()) is None
    assert await ailing(lab, "storage_full") == "DEVICE_STORAGE_LOW"
    assert await ailing(lab, "battery=4") == "DEVICE_BATTERY_LOW"
    assert await ailing(lab, "boot_incomplete") == "DEVICE_BOOTING"
    assert await ailing(lab, "serial=OTHER", "VPHONE0001") == "DEVICE_WRONG_SERIAL"


async def test_unauthorized_phone_is_not_fit_and_says_why(lab: VirtualLab) -> None:
    await lab.phones[0].begin_fault("unauthorized")
    await seen(lab, lambda states: states.get(lab.udids[0]) == "unauthorized")
    found = await complaint(Adb(lab.udids[0], lab.adb_port), None, Limits())
    assert found is not None
    assert found.reason == "DEVICE_UNAUTHORIZED"


async def test_phone_that_sleeps_is_woken_before_a_batch(lab: VirtualLab) -> None:
    phone = Adb(lab.udids[0], lab.adb_port)
    await phone.run("shell", "input keyevent SLEEP")
    assert await complaint(phone, None, Limits()) is None
    assert "mWakefulness=Awake" in (await phone.run("shell", "dumpsys power"))[1]


async def test_crash_of_an_app_is_found_in_the_phones_log(lab: VirtualLab, apks: Apks) -> None:
    phone = Adb(lab.udids[0], lab.adb_port)
    await adb(lab, 0, "install", str(apks.first))
    await phone.run("shell", f"monkey -p {PACKAGE} 1")
    before = await crashes_of(phone, PACKAGE)
    await lab.phones[0].begin_fault("crash")
    await phone.run("shell", "input tap 500 400")
    (crash,) = [one for one in await crashes_of(phone, PACKAGE) if one not in before]
    assert crash.cause == "java.lang.IllegalStateException: injected fault"


@pytest.mark.parametrize(("removes", "is_kept"), [(False, True), (True, False)])
async def test_last_batchs_app_is_ended_and_removed_if_that_is_wanted_whoever_ran_it(
    lab: VirtualLab, apks: Apks, removes: bool, is_kept: bool
) -> None:
    def care() -> Care:
        """Each is one more life of the agent: nothing is in its memory."""
        return Care(Adb(lab.udids[0], lab.adb_port), None, CareOptions(removes_apps=removes))

    await adb(lab, 0, "install", str(apks.first))
    await care().clean_up(PACKAGE)
    await adb(lab, 0, "shell", f"monkey -p {PACKAGE} 1")
    assert (await adb(lab, 0, "shell", "pidof", PACKAGE))[0] == 0
    await care().clean_up("org.example.next")
    assert (await adb(lab, 0, "shell", "pidof", PACKAGE))[0] == 1
    assert (await held(lab, 0) is not None) is is_kept


async def test_app_of_the_next_batch_keeps_its_place_and_is_only_ended(lab: VirtualLab, apks: Apks) -> None:
    phone = Adb(lab.udids[0], lab.adb_port)
    await adb(lab, 0, "install", str(apks.first))
    await Care(phone, None, CareOptions(removes_apps=True)).clean_up(PACKAGE)
    await adb(lab, 0, "shell", f"monkey -p {PACKAGE} 1")
    await Care(phone, None, CareOptions(removes_apps=True)).clean_up(PACKAGE)
    assert (await adb(lab, 0, "shell", "pidof", PACKAGE))[0] == 1
    assert await held(lab, 0) is not None


async def test_foreign_words_in_the_note_of_the_last_app_are_no_command(lab: VirtualLab, apks: Apks) -> None:
    await adb(lab, 0, "install", str(apks.first))
    await adb(lab, 0, "shell", f"echo '{PACKAGE}; rm -r /sdcard' > {LAST_TESTED}")
    await Care(Adb(lab.udids[0], lab.adb_port), None, CareOptions(removes_apps=True)).clean_up("org.example.next")
    assert await held(lab, 0) is not None
    assert (await adb(lab, 0, "shell", f"cat {LAST_TESTED}"))[1].strip() == "org.example.next"


async def test_canary_starts_the_app_and_ends_it_again(lab: VirtualLab, apks: Apks) -> None:
    await adb(lab, 0, "install", str(apks.first))
    launches = lab.phones[0].package_log_path.read_text().count('"LAUNCH"')
    await Care(Adb(lab.udids[0], lab.adb_port), None, CareOptions()).try_out(the_app(apks.first))
    assert lab.phones[0].package_log_path.read_text().count('"LAUNCH"') == launches + 1
    assert (await adb(lab, 0, "shell", "pidof", PACKAGE))[0] == 1


async def test_phone_that_starts_no_app_fails_its_canary_with_what_it_said(lab: VirtualLab, apks: Apks) -> None:
    care = Care(Adb(lab.udids[0], lab.adb_port), None, CareOptions())
    with pytest.raises(RunFailed, match=f"does not start {PACKAGE}: Error") as failed:
        await care.try_out(the_app(apks.first))  # it is not installed
    assert (failed.value.failure.reason, failed.value.failure.blame) == ("DEVICE_STARTS_NO_APP", Blame.DEVICE)


async def test_doctor_tells_of_each_phone_with_what_mends_it(lab: VirtualLab) -> None:
    async def told(*, is_alone: bool) -> list[tuple[str, str, str]]:
        checks = await examine_devices(lab.adb_port, is_alone=is_alone)
        return [(check.finding, check.message, check.hint) for check in checks]

    first, second = sorted(lab.udids)
    assert await told(is_alone=True) == [("ok", f"{first} can be used", ""), ("ok", f"{second} can be used", "")]
    await lab.phones[lab.udids.index(second)].begin_fault("storage_full")
    await lab.phones[lab.udids.index(first)].begin_fault("unauthorized")
    await seen(lab, lambda states: states.get(first) == "unauthorized")
    fixes = [
        (f"{first} is unauthorized", "unlock the phone and allow USB debugging from this computer"),
        (f"{second} has 0 MB free, and 100 are wanted", "free some space on it"),
    ]
    assert await told(is_alone=True) == [("failed", *fix) for fix in fixes]
    assert await told(is_alone=False) == [("warning", *fix) for fix in fixes]
    await lab.phones[lab.udids.index(second)].end_fault("storage_full")
    assert [finding for finding, _, _ in await told(is_alone=True)] == ["warning", "ok"]


async def test_phone_that_does_not_get_well_is_restarted_only_where_that_is_allowed(lab: VirtualLab) -> None:
    def restarts() -> int:
        return lab.phones[0].log_path.read_text().count(" REBOOT")

    phone, before = Adb(lab.udids[0], lab.adb_port), restarts()
    await lab.phones[0].begin_fault("boot_incomplete")
    with pytest.raises(RunFailed, match="has not booted"):
        await Care(phone, None, CareOptions()).check(may_restart=True)
    with pytest.raises(RunFailed, match="has not booted"):
        await Care(phone, None, CareOptions(may_restart=True)).check(may_restart=False)
    assert restarts() == before
    checking = asyncio.create_task(Care(phone, None, CareOptions(may_restart=True)).check(may_restart=True))

    async def has_restarted() -> bool:
        return restarts() == before + 1

    await eventually(has_restarted)
    await lab.phones[0].end_fault("boot_incomplete")
    await asyncio.wait_for(checking, 60)
