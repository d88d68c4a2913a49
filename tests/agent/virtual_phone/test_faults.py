"""Faults: how they are written, and what a phone does that has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.virtual_phone.errors import FaultInvalid
from agent.virtual_phone.faults import FaultKind, parse_fault, parse_phone_faults
from agent.virtual_phone.packages import InstallRefused
from agent.virtual_phone.phone import LAUNCHER_PACKAGE
from agent.virtual_phone.phone_control import answer
from tests.agent.virtual_phone.factories import ACTIVITY, PACKAGE, install, make_phone, shell

WRITTEN = [
    "storage_full",
    "unauthorized",
    "crash,after_taps=3",
    "offline=drop,seconds=5.0",
    "offline=hang,after_taps=2",
    "install_fails=INSTALL_FAILED_INTERNAL_ERROR,package=org.example.demo,times=2",
    "slow_install=2.5",
    "battery=0",
    "serial=OTHER",
    "boot_incomplete",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_fault_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_fault(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "unknown fault"),
        ("fire", "known are install_fails"),
        ("storage_full=yes", "takes no value"),
        ("install_fails", "needs a value"),
        ("install_fails=BROKEN", "INSTALL_FAILED_INTERNAL_ERROR"),
        ("slow_install=soon", "must be a number"),
        ("slow_install=nan", "from 0 to"),
        ("slow_install=-1", "from 0 to"),
        ("offline=gone", "drop or hang"),
        ("offline,seconds=1e99", "from 0 to"),
        ("battery=101", "percentage"),
        ("battery=²", "percentage"),
        ("crash,after_taps=0", "above zero"),
        ("crash,after_taps=" + "9" * 5000, "above zero"),
        ("crash,times=1", "no option"),
        ("storage_full,seconds=1", "no option"),
    ],
)
def test_misspelt_fault_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(FaultInvalid, match=said):
        parse_fault(text)


@given(st.one_of(st.text(max_size=40), st.builds("{}={},{}={}".format, st.sampled_from(FaultKind), *[st.text()] * 3)))
def test_any_text_is_a_fault_or_invalid(text: str) -> None:
    try:
        fault = parse_fault(text)
    except FaultInvalid:
        return
    assert fault.kind in FaultKind


def test_faults_of_phones_are_read_by_number() -> None:
    faults = parse_phone_faults("2:storage_full; 1:battery=3;2:unauthorized", 2)
    assert faults == {1: ["storage_full", "unauthorized"], 0: ["battery=3"]}


@pytest.mark.parametrize(
    "text", ["", "1:crash;", "3:storage_full", "0:storage_full", "storage_full", "1:fire", ":", "x:crash"]
)
def test_fault_of_no_phone_is_refused(text: str) -> None:
    with pytest.raises(FaultInvalid):
        parse_phone_faults(text, 2)


async def test_install_fails_only_for_its_package_and_only_so_often(tmp_path: Path) -> None:
    phone = make_phone(tmp_path)
    phone.begin(parse_fault(f"install_fails=INSTALL_FAILED_MEDIA_UNAVAILABLE,package={PACKAGE},times=1"))
    await install(phone, package="org.example.other")
    with pytest.raises(InstallRefused, match="INSTALL_FAILED_MEDIA_UNAVAILABLE"):
        await install(phone)
    assert phone.packages.find(PACKAGE) is None
    await install(phone)
    phone.shut_down()
    log = [json.loads(line) for line in (tmp_path / "packages.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in log] == ["INSTALL", "INSTALL_FAILED", "INSTALL"]


async def test_full_storage_refuses_apps_and_files_until_it_is_freed() -> None:
    phone = make_phone()
    phone.begin(parse_fault("storage_full"))
    with pytest.raises(InstallRefused, match="INSTALL_FAILED_INSUFFICIENT_STORAGE"):
        await install(phone)
    code, _, errors = await shell(phone, "echo x > /sdcard/x")
    assert (code, errors) == (1, "/system/bin/sh: can't create /sdcard/x: No space left on device\n")
    assert (await shell(phone, "screencap /sdcard/x.png"))[0] == 1
    assert "100%" in (await shell(phone, "df"))[1]
    assert phone.heal(FaultKind.STORAGE_FULL)
    await install(phone)
    assert (await shell(phone, "echo x > /sdcard/x"))[0] == 0


async def test_crash_ends_the_app_at_the_tap_it_waits_for() -> None:
    phone = make_phone()
    await install(phone)
    phone.launch(PACKAGE, ACTIVITY)
    phone.begin(parse_fault("crash,after_taps=2"))
    phone.tap_element(0)
    assert phone.focus == (PACKAGE, ACTIVITY)
    phone.tap_element(0)
    assert phone.focus[0] == LAUNCHER_PACKAGE
    assert phone.processes.find(PACKAGE) is None
    log = (await shell(phone, "logcat -d"))[1]
    assert "FATAL EXCEPTION: main" in log
    assert f"Process: {PACKAGE}" in log
    assert phone.faults.all() == []


async def test_battery_and_serial_show_in_what_the_phone_says() -> None:
    phone = make_phone()
    for text in ("battery=4", "serial=OTHER"):
        phone.begin(parse_fault(text))
    assert "level: 4\n" in (await shell(phone, "dumpsys battery"))[1]
    assert (await shell(phone, "getprop ro.serialno"))[1] == "OTHER\n"


def test_phone_answers_a_request_with_its_id() -> None:
    phone = make_phone()
    assert answer(phone, b'{"begin": "battery=9", "id": 7}') == {"ok": True, "id": 7}
    state = answer(phone, b'{"query": true, "id": 8}')
    assert (state["id"], state["battery"], state["faults"]) == (8, 9, ["battery=9"])
    assert answer(phone, b'{"end": "battery", "id": 9}') == {"ok": True, "had_it": True, "id": 9}
    assert answer(phone, b'{"end": "battery", "id": 10}') == {"ok": True, "had_it": False, "id": 10}


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"3", b"{}", b"\xff", b"[" * 100_000, b'{"begin": 3}', b'{"begin": "fire"}', b'{"end": "fire"}',
     b'{"begin": "crash", "end": "crash"}', b'{"dance": true}'],
)  # fmt: skip
def test_request_that_is_none_is_answered_and_changes_nothing(line: bytes) -> None:
    phone = make_phone()
    refused = answer(phone, line)
    assert refused["ok"] is False
    assert refused["error"]
    assert phone.faults.all() == []
