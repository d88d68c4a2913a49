"""What a test may find in its environment, and what of it is a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from coordinator.core.errors import InvalidRequest
from coordinator.core.model import NOTHING

MAX_ENTRIES: Final = 64
MAX_BYTES: Final = 32 * 1_024
MIN_SECRET: Final = 4
"""Characters: a shorter one would be found, and masked, all over a log, and is soon guessed from where it is."""
MAX_SHOWN: Final = 128

_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_REFUSED = re.compile(
    r"^(NODE_.*|LD_.*|DYLD_.*|PATH|ANDROID_.*|ADB_.*|APPIUM_.*|PLAYWRIGHT_.*|PW_TEST_.*|PWTEST_.*|QGJOB_(?!SIM_).*)$"
)


def environment(entries: Mapping[str, str], field: str = "env") -> Mapping[str, str]:
    """Return entries that may be the environment of a test.

    Raises:
        InvalidRequest: They are too many or too long, or the name of one is none or would change the lab's tools.
    """
    if not entries:
        return NOTHING
    if len(entries) > MAX_ENTRIES:
        raise InvalidRequest(field, f"{field} has {len(entries)} entries, and {MAX_ENTRIES} is the limit")
    found = dict(entries)  # a map of protobuf takes its time to go through
    size = sum(len(name.encode()) + len(value.encode()) for name, value in found.items())
    if size > MAX_BYTES:
        raise InvalidRequest(field, f"{field} has {size} bytes, and {MAX_BYTES} is the limit")
    for name, value in found.items():
        if not _NAME.fullmatch(name):
            raise InvalidRequest(field, f"{field} {name[:MAX_SHOWN]!r} is no name of an environment variable")
        if "\x00" in value:
            raise InvalidRequest(field, f"{field} {name[:MAX_SHOWN]} holds a NUL character")
        if _REFUSED.match(name):
            raise InvalidRequest(
                field, f"{field} {name[:MAX_SHOWN]} is refused: it would change the lab's tools; choose another name"
            )
    return MappingProxyType(dict(sorted(found.items())))


def secrets(entries: Mapping[str, str], env: Mapping[str, str]) -> Mapping[str, str]:
    """Return entries that may be secrets beside the rest of an environment.

    Raises:
        InvalidRequest: As for `environment`; or one is too short to be masked, or is in the environment already.
    """
    found = environment(entries, "secrets")
    for name, value in found.items():
        if len(value.strip()) < MIN_SECRET:
            raise InvalidRequest(
                "secrets", f"secrets {name[:MAX_SHOWN]} has fewer than {MIN_SECRET} characters, too few to be masked"
            )
        if name in env:
            raise InvalidRequest("secrets", f"secrets {name[:MAX_SHOWN]} is in env too; leave one of them out")
    return found
