"""How a lab speaks to one phone: JSON lines on the phone's standard input, answered by JSON lines on its output.

Requests are ``{"begin": "FAULT"}`` (see ``faults``), ``{"end": "KIND"}`` and ``{"query": true}``, each with an ``"id"``
that its answer repeats: who stopped waiting for an answer must not take it for the next one. The answer to each is
``{"ok": true, ...}`` or ``{"ok": false, "error": "..."}``. When the input ends, the phone ends.
"""

import json
from typing import Any

from agent.virtual_phone.errors import FaultInvalid
from agent.virtual_phone.faults import parse_fault, parse_kind
from agent.virtual_phone.phone import Phone

MAX_REQUEST_BYTES = 64 * 1024


def answer(phone: Phone, line: bytes) -> dict[str, Any]:
    """Do what one line asks and return the answer."""
    request: object = None
    try:
        request = json.loads(line)
        return {"ok": True, **_obey(phone, request), "id": _id_of(request)}
    except (ValueError, RecursionError) as error:
        return {"ok": False, "error": f"not JSON: {error}", "id": None}
    except FaultInvalid as error:
        return {"ok": False, "error": str(error), "id": _id_of(request)}


def _id_of(request: object) -> object:
    return request.get("id") if isinstance(request, dict) else None


def _obey(phone: Phone, request: object) -> dict[str, Any]:
    asked = {key: value for key, value in request.items() if key != "id"} if isinstance(request, dict) else {}
    match asked:
        case {"begin": str(text)} if len(asked) == 1:
            phone.begin(parse_fault(text))
            return {}
        case {"end": str(text)} if len(asked) == 1:
            return {"had_it": phone.heal(parse_kind(text))}
        case {"query": True} if len(asked) == 1:
            return _state(phone)
        case _:
            raise FaultInvalid("a request is an object with an id and one of begin, end and query")


def _state(phone: Phone) -> dict[str, Any]:
    package, activity = phone.focus
    return {
        "front": f"{package}/{activity}",
        "packages": {item.name: item.badging.version_name for item in phone.packages.all()},
        "battery": phone.battery_percent,
        "faults": [str(fault) for fault in phone.faults.all()],
    }
