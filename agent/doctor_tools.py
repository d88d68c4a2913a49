"""What `qgjob-agent doctor` says of the programs that tests need, and of Appium's driver."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.appium import Driver, installed_version
from agent.process import capture
from qgjob.checkup import Check, Finding, failed, passed, warned

ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that must be on PATH, and how its release is found out."""

    name: str
    fix: str
    """What is to be installed."""
    ask: tuple[str, ...] = ()
    """Arguments that make it tell its release; none where any will do."""
    oldest: int = 0
    """The first release that will do, by its first number."""


NODE = Program(name="node", fix="Node 20 or newer", ask=("--version",), oldest=20)
NPM = Program(name="npm", fix="npm, which comes with Node")
ADB = Program(name="adb", fix="adb (Android platform-tools)", ask=("version",))
AAPT = Program(name="aapt", fix="aapt (Android build-tools)")
JAVA = Program(name="java", fix="a Java runtime, 17 or newer", ask=("-version",), oldest=17)

_RELEASE = re.compile(r"(?:^v?|[Vv]ersion \"?)(\d+(?:\.\d+)*)", re.MULTILINE)


async def examine_program(program: Program) -> Check:
    """Look whether a program is there, answers, and is new enough."""
    found = shutil.which(program.name)
    if found is None:
        return failed(program.name, "is not on PATH", f"install {program.fix}")
    if not program.ask:
        return passed(program.name, found)
    try:
        code, text = await capture((found, *program.ask), timeout_s=ANSWER_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        reason = str(error) or f"it does not answer in {ANSWER_TIMEOUT_S:g} s"
        return failed(program.name, f"{found} cannot be run: {reason}", f"install {program.fix} anew")
    releases = _RELEASE.findall(text)
    if code != 0 or not releases:
        told = (text.strip().splitlines() or ["it says nothing"])[0]
        return failed(program.name, f"{found} does not tell its release: {told}", f"install {program.fix} anew")
    return _judged(program, releases[-1], found)  # adb tells that of its protocol first


def _judged(program: Program, release: str, found: str) -> Check:
    first = int(release.removeprefix("1.").partition(".")[0])  # Java called itself 1.8 before it became 9
    if first < program.oldest:
        return failed(
            program.name, f"{release} at {found} is too old", f"install {program.fix}, and put it first on PATH"
        )
    return passed(program.name, f"{release} at {found}")


async def examine_npm(*, is_needed: bool) -> Check:
    """Look for npm, without which a workspace that has its packages can be run, and no bundle."""
    check = await examine_program(NPM)
    if is_needed or check.finding is Finding.OK:
        return check
    return warned(check.name, check.message, f"{check.hint}; until then no bundle can be run")


def examine_aapt2() -> Check:
    """Look for aapt2 where Appium will: in the SDK, else on PATH."""
    home = os.environ.get("ANDROID_HOME")
    in_sdk = sorted(Path(home).glob("build-tools/*/aapt2")) if home else []
    found = str(in_sdk[-1]) if in_sdk else shutil.which("aapt2")
    if found is None:
        hint = "install aapt2 (Android build-tools); without it Appium installs the app anew for every session"
        return warned("aapt2", "is neither in ANDROID_HOME nor on PATH", hint)
    return passed("aapt2", found)


def examine_driver(driver: Driver, home: Path) -> Check:
    """Look whether Appium's driver lies in the agent's own APPIUM_HOME, in the release that is pinned."""
    wanted = f"{driver.package} {driver.version}"
    try:
        release = installed_version(home, driver)
    except OSError as error:
        return failed("driver", f"{home} cannot be read: {error.strerror}", "choose another --state-dir")
    if release == driver.version:
        return passed("driver", f"{wanted} in {home}")
    state = "is not installed yet" if release is None else f"is to take the place of {release}"
    hint = "the agent installs it at its start, and needs npm's registry for that"
    return warned("driver", f"{wanted} {state}", hint)
