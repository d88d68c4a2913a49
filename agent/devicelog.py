"""What a device logs, from a moment on."""

from __future__ import annotations

import re

from agent.android import Adb

MAX_CHARACTERS = 16 * 1_024 * 1_024
"""Of a log that is kept; of a longer one the end."""
LOG_TIMEOUT_S = 30.0
_STAMP = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d")


async def device_time(adb: Adb) -> str:
    """Return the time by the device's clock as its log writes it; empty where the device does not tell."""
    code, text = await adb.run("shell", "date '+%m-%d %H:%M:%S'")
    found = _STAMP.fullmatch(text.strip())
    return f"{found[0]}.000" if code == 0 and found is not None else ""


async def log_since(adb: Adb, since: str) -> str:
    """Return what the device has logged since a time of its clock; empty where it does not answer."""
    if not since:
        return ""
    code, text = await adb.run("logcat", "-d", "-v", "threadtime", "-T", since, timeout_s=LOG_TIMEOUT_S)
    return text[-MAX_CHARACTERS:] if code == 0 else ""
