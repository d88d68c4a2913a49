"""Crashes of an app, as the device's own log tells of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.android import Adb

_LINE = re.compile(
    r"^(?P<stamp>\d\d-\d\d \d\d:\d\d:\d\d\.\d+)\s+(?P<pid>\d+)\s+\d+ [EF] (?P<tag>\S+)\s*: (?P<text>.*)$"
)


@dataclass(frozen=True, slots=True)
class Crash:
    """One death of an app, known by when and as which process it died."""

    stamp: str
    pid: str
    cause: str


def parse_crashes(log: str, package: str) -> list[Crash]:
    """Return the crashes of a package in a log of the format `threadtime`, Java's and native ones."""
    lines = [found for line in log.splitlines() if (found := _LINE.match(line.rstrip())) is not None]
    crashes = []
    for number, line in enumerate(lines):
        text = line["text"]
        if line["tag"] == "AndroidRuntime" and text.startswith(f"Process: {package},"):
            after = lines[number + 1]["text"] if number + 1 < len(lines) else "no cause given"
            crashes.append(Crash(line["stamp"], line["pid"], after))
        elif line["tag"] == "DEBUG" and f">>> {package} <<<" in text:
            crashes.append(Crash(line["stamp"], line["pid"], "it died in native code"))
    return crashes


async def crashes_of(adb: Adb, package: str) -> list[Crash]:
    """Return the crashes of a package that the device still knows of; none where it does not answer."""
    code, text = await adb.run("logcat", "-d", "-b", "crash", "-v", "threadtime")
    return parse_crashes(text, package) if code == 0 else []
