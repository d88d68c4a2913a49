"""The control channel: JSON lines on the phone's standard input, answered by JSON lines on its standard output.

Requests are ``{"begin": "FAULT"}`` (see ``faults``), ``{"end": "KIND"}`` and ``{"query": true}``; the answer to each is
``{"ok": true, ...}`` or ``{"ok": false, "error": "..."}``. When the input ends, the phone ends.
"""

import json
from typing import Any

from agent.virtual_phone.errors import FaultInvalid
from agent.virtual_phone.faults import FaultKind, parse_fault
from agent.virtual_phone.phone import Phone

MAX_REQUEST_BYTES = 64 * 1024


def answer(phone: Phone, line: bytes) -> dict[str, Any]:
    """Do what one line asks and return the answer."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or len(request) != 1:
            raise FaultInvalid("a request is an object with one key: begin, end or query")
        (verb, value), *_ = request.items()
        return {"ok": True, **_obey(phone, verb, value)}
    except (ValueError, RecursionError) as error:
        return {"ok": False, "error": f"not JSON: {error}"}
    except FaultInvalid as error:
        return {"ok": False, "error": str(error)}


def _obey(phone: Phone, verb: str, value: object) -> dict[str, Any]:
    if verb == "begin" and isinstance(value, str):
        phone.begin(parse_fault(value))
        return {}
    if verb == "end" and isinstance(value, str):
        if value not in list(FaultKind):
            raise FaultInvalid(f"unknown fault {value!r}")
        return {"had_it": phone.heal(FaultKind(value))}
    if verb == "query":
        package, activity = phone.focus
        installed = {item.name: item.badging.version_name for item in phone.packages.all()}
        return {"front": f"{package}/{activity}", "packages": installed, "battery": phone.battery_percent}
    raise FaultInvalid(f"unknown request {verb!r}")
