"""Phones without a process of their own, and APKs without packaging tools."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from agent.virtual_phone.badging import ApkUnreadable, Badging
from agent.virtual_phone.bytestream import ByteQueue
from agent.virtual_phone.commands import COMMANDS
from agent.virtual_phone.packages import InstallOptions
from agent.virtual_phone.phone import Phone, PhoneIdentity
from agent.virtual_phone.phonelog import PackageLog, PhoneLog
from agent.virtual_phone.screens import ScreenSet
from agent.virtual_phone.shell import Shell

PACKAGE = "org.example.demo"
ACTIVITY = f"{PACKAGE}.MainActivity"

BADGING = Badging(
    package=PACKAGE,
    version_code=1,
    version_name="1.0",
    label="Demo",
    launchable_activity=ACTIVITY,
    minimum_sdk=24,
    target_sdk=33,
    permissions=("android.permission.INTERNET",),
    abis=(),
    is_test_only=False,
    signer="aa" * 32,
    activities=frozenset({ACTIVITY}),
    services=frozenset(),
    receivers=frozenset(),
    instrumentations=(),
)


def apk(**changes: object) -> bytes:
    """Bytes that `read_fake` takes for an APK with these facts."""
    return json.dumps(changes).encode()


async def read_fake(content: bytes) -> Badging:
    try:
        return replace(BADGING, **json.loads(content))
    except ValueError as error:
        raise ApkUnreadable("INSTALL_PARSE_FAILED_NOT_APK", str(error)) from error


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def make_phone(
    directory: Path | None = None, *, screens: ScreenSet | None = None, clock: Clock | None = None, sdk: int = 33
) -> Phone:
    """A phone that reads fake APKs; with a directory it writes its logs there."""
    return Phone(
        PhoneIdentity(sdk=sdk),
        screens=screens,
        log=PhoneLog(directory / "phone.log" if directory else None),
        package_log=PackageLog(directory / "packages.jsonl" if directory else None),
        read=read_fake,
        clock=clock or Clock(),
    )


async def install(phone: Phone, **changes: object) -> None:
    await phone.packages.install(apk(**changes), InstallOptions())


async def shell(phone: Phone, line: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run a line in the phone's shell; return exit code, output and error output."""
    given = ByteQueue(len(stdin) + 1)
    given.feed(stdin)
    given.feed_eof()
    out, err = bytearray(), bytearray()

    async def take_output(data: bytes) -> None:
        out.extend(data)

    async def take_errors(data: bytes) -> None:
        err.extend(data)

    async with asyncio.timeout(60):
        code = await Shell(phone=phone, commands=COMMANDS).run(line, given, take_output, take_errors)
    return code, out.decode(errors="replace"), err.decode(errors="replace")
