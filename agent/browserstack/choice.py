"""Which of BrowserStack's devices a job gets."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from agent.browserstack.client import CloudDevice


class NothingOffered(Exception):
    """BrowserStack has no such device; the sentence says what comes nearest."""


def choose(devices: Sequence[CloudDevice], selector: Mapping[str, str]) -> CloudDevice:
    """Return the device with the newest system among those that a selector allows; of several, the first by name.

    Args:
        devices: What is offered.
        selector: Shell-style patterns for `model`, `os_version` and `platform`, whatever their case. A version stands
            for its later parts too: 13 is met by 13.0.

    Raises:
        NothingOffered: None is allowed.
    """
    platform = selector.get("platform", "android")
    model, version = selector.get("model", "*"), selector.get("os_version", "*")
    named = [one for one in devices if _meets(one.name, model) and _meets(one.platform, platform)]
    found = [one for one in named if _meets(one.os_version, version) or _meets(one.os_version, f"{version}.*")]
    if found:
        return min(found, key=lambda one: ([-part for part in _parts(one.os_version)], one.name))
    if named:
        offered = ", ".join(sorted({one.os_version for one in named}, key=_parts)[:10])
        raise NothingOffered(f"BrowserStack has {model} with {platform} {offered}, but not with {version}")
    raise NothingOffered(f"BrowserStack has no {platform} device whose name is {model}; see its list of devices")


def _meets(value: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(value.lower(), pattern.lower())


def _parts(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
