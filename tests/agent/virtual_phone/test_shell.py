"""The phone's shell: what it reads, what it refuses, and that nothing it is told can break it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.virtual_phone.commands import COMMANDS
from agent.virtual_phone.faults import parse_fault
from agent.virtual_phone.shell import NOT_FOUND, ShellSyntaxError, parse
from tests.agent.virtual_phone.factories import ACTIVITY, PACKAGE, install, make_phone, shell


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ("echo one two", "one two\n"),
        ("echo 'a  b'  c", "a  b c\n"),
        ('echo "a  b"', "a  b\n"),
        ("echo a\\ \\ b", "a  b\n"),
        ("echo -n x; echo y", "xy\n"),
        ("A=3; echo $A ${A} '$A' \"$A\"", "3 3 $A 3\n"),
        ("true && echo yes || echo no", "yes\n"),
        ("false && echo yes || echo no", "no\n"),
        ("! false && echo negated", "negated\n"),
        ("false; echo $?", "1\n"),
        ("echo a | cat | wc -c", "2\n"),
        ("echo hidden > /dev/null; echo shown", "shown\n"),
        ("echo a > /sdcard/f; echo b >> /sdcard/f; cat /sdcard/f", "a\nb\n"),
        ("cat < /sdcard/none 2> /dev/null; echo $?", "1\n"),
        ("nothing 2>&1 | grep -c inaccessible", "1\n"),
        ("echo one # a comment", "one\n"),
        ("echo one\necho two", "one\ntwo\n"),
        ("head -n 0 < /data/local/tmp/lines", ""),
        ("head -n 1 < /data/local/tmp/lines", "1\n"),
        ("tail -n 1 /data/local/tmp/lines", "3\n"),
        ("ls /data/local/tmp/*", "/data/local/tmp/lines\n"),
        ("echo '/data/local/tmp/*'", "/data/local/tmp/*\n"),
        ("getprop ro.build.version.sdk", "33\n"),
        ("getprop no.such.property", "\n"),
        ("[ -f /data/local/tmp/lines ] && echo there", "there\n"),
        ("exit 3; echo never", ""),
    ],
)
async def test_line_is_run_as_a_shell_would(line: str, output: str) -> None:
    phone = make_phone()
    phone.files.write("/data/local/tmp/lines", b"1\n2\n3\n")
    assert (await shell(phone, line))[1] == output


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("exit 7", 7),
        ("exit 256", 0),
        ("false", 1),
        ("true | false", 1),
        ("false | true", 0),
        ("cat /none", 1),
        ("no_such_program --flag", NOT_FOUND),
        ("/system/bin/no_such_program", NOT_FOUND),
        ("toybox no_such_program", NOT_FOUND),
    ],
)
async def test_exit_code_is_that_of_the_last_command(line: str, code: int) -> None:
    assert (await shell(make_phone(), line))[0] == code


async def test_unknown_command_fails_as_on_a_phone_and_is_written_down(tmp_path: Path) -> None:
    phone = make_phone(tmp_path)
    code, output, errors = await shell(phone, "frobnicate --all")
    assert (code, output) == (127, "")
    assert errors == "/system/bin/sh: frobnicate: inaccessible or not found\n"
    phone.shut_down()
    assert "UNKNOWN shell-command frobnicate --all" in (tmp_path / "phone.log").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "pm frobnicate",
        "pm install --frobnicate /x",
        "am frobnicate",
        "cmd frobnicate",
        "cmd package frobnicate",
        "dumpsys frobnicate",
        "settings frobnicate global x",
        "svc frobnicate",
        "wm frobnicate",
        "input frobnicate",
        "ime frobnicate",
        "grep -Z x",
        "ls -Q",
        "monkey --frobnicate 1",
        "am instrument -w org.example.demo/.NoRunner",
    ],
)
async def test_unknown_part_of_a_known_command_fails_with_a_text(line: str) -> None:
    phone = make_phone()
    await install(phone)
    code, output, errors = await shell(phone, line)
    assert code != 0
    assert errors or output


@pytest.mark.parametrize(
    "line", ["echo 'open", 'echo "open', "a &", "&& a", "a | | b", "a >", "(a)", "`a`", "$(a)", "a;;"]
)
async def test_line_that_cannot_be_read_is_a_syntax_error(line: str) -> None:
    phone = make_phone()
    with pytest.raises(ShellSyntaxError):
        parse(line)
    code, _, errors = await shell(phone, line)
    assert code == 1
    assert "syntax error" in errors


@given(st.text(max_size=60))
def test_any_text_is_read_or_is_a_syntax_error(line: str) -> None:
    try:
        pipelines = parse(line)
    except ShellSyntaxError:
        return
    assert all(pipeline.commands for pipeline in pipelines)


ODD_WORDS = (
    "-", "--", "-1", "0", "999", "²", "9" * 5000, "1e400", "-n", "-c", "-p", "-f", "-d", "-l", "-S", "-t", "-e", "/",
    "/sdcard", "/data/local/tmp/x", "/none", "..", "%s", "'[a'", "']'", "!", "=", "'*'", "list", "get", "put", "delete",
    "global", "secure", "default_input_method", "android_id", PACKAGE, f"{PACKAGE}/{ACTIVITY}", "install", "uninstall",
    "clear", "path", "packages", "start", "-W", "keyevent", "tap", "swipe", "+%Q", "+%", "'((('", "whitelist", "size",
    "night", "--user", "enable", "wifi", "''",
)  # fmt: skip
ENDLESS = {"sleep", "logcat"}
LINES = st.builds(
    lambda name, words, target: " ".join([name, *words]) + target,
    st.sampled_from(sorted(set(COMMANDS) - ENDLESS)),
    st.lists(st.sampled_from(ODD_WORDS), max_size=4),
    st.sampled_from(["", "", " > /sdcard/out", " > /sdcard", " | wc -l"]),
)


@given(lines=st.lists(LINES, min_size=20, max_size=20), is_full=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_no_command_breaks_whatever_its_arguments(lines: list[str], is_full: bool) -> None:
    phone = make_phone()
    await install(phone)
    phone.files.write("/data/local/tmp/x", b"hello\n1\n")
    if is_full:
        phone.begin(parse_fault("storage_full"))
    for line in lines:
        code, _, _ = await shell(phone, line, b"some input\n")
        assert 0 <= code <= 255


async def test_system_process_survives_who_may_not_end_it() -> None:
    phone = make_phone()
    for line in ("am force-stop com.android.systemui", "pm uninstall com.android.systemui", "pm clear system_server"):
        await shell(phone, line)
    assert phone.processes.find("com.android.systemui") is not None
    assert phone.processes.find("system_server") is not None


async def test_app_is_started_stopped_cleared_and_removed() -> None:
    phone = make_phone()
    await install(phone)
    assert (await shell(phone, f"am start -W -n {PACKAGE}/.MainActivity"))[0] == 0
    assert phone.focus == (PACKAGE, ACTIVITY)
    assert (await shell(phone, f"pidof {PACKAGE}"))[0] == 0
    assert (await shell(phone, f"am force-stop {PACKAGE}"))[0] == 0
    assert (await shell(phone, f"pidof {PACKAGE}"))[0] == 1
    phone.packages.get(PACKAGE).data["kept"] = "1"
    assert (await shell(phone, f"pm clear {PACKAGE}"))[1] == "Success\n"
    assert phone.packages.get(PACKAGE).data == {}
    assert (await shell(phone, "pm list packages"))[1] == f"package:{PACKAGE}\n"
    assert (await shell(phone, f"pm uninstall {PACKAGE}"))[1] == "Success\n"
    assert (await shell(phone, f"pm path {PACKAGE}"))[:2] == (1, "")


@pytest.mark.parametrize(
    "line",
    [
        "am start -n org.nowhere/.Main",
        f"am start -n {PACKAGE}/.NoSuchActivity",
        "am start-service org.nowhere/.Service",
        "pm clear org.nowhere",
        "pm uninstall org.nowhere",
        "pm grant org.nowhere android.permission.CAMERA",
        f"pm grant {PACKAGE} android.permission.CAMERA",
        "monkey -p org.nowhere 1",
    ],
)
async def test_what_is_not_there_cannot_be_started_or_changed(line: str) -> None:
    phone = make_phone()
    await install(phone)
    assert (await shell(phone, line))[0] != 0


async def test_without_its_services_a_phone_that_boots_knows_no_package_manager() -> None:
    phone = make_phone()
    phone.begin(parse_fault("boot_incomplete"))
    assert (await shell(phone, "getprop sys.boot_completed"))[1] == "\n"
    for line in ("pm list packages", "am start -n a/.b", "cmd package list packages", "dumpsys battery"):
        assert (await shell(phone, line))[0] != 0
