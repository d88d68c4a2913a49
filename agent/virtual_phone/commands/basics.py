"""The small programs: echo, test, getprop and their like."""

import asyncio
import datetime
from collections.abc import Mapping

from agent.virtual_phone.shell import NOT_FOUND, Call, Command

MAX_SLEEP_SECONDS = 3600
_IDENTITY = "uid=2000(shell) gid=2000(shell) groups=2000(shell),1004(input),1007(log) context=u:r:shell:s0\n"
_KERNEL = "5.10.157-android13-4"


async def _true(call: Call) -> int:
    del call
    return 0


async def _false(call: Call) -> int:
    del call
    return 1


async def _echo(call: Call) -> int:
    has_no_newline = call.arguments[:1] == ["-n"]
    words = call.arguments[1:] if has_no_newline else call.arguments
    await call.say(" ".join(words) + ("" if has_no_newline else "\n"))
    return 0


async def _id(call: Call) -> int:
    await call.say("2000\n" if call.arguments == ["-u"] else _IDENTITY)
    return 0


async def _whoami(call: Call) -> int:
    await call.say("shell\n")
    return 0


async def _uname(call: Call) -> int:
    shown = {"-r": _KERNEL, "-m": "aarch64", "-a": f"Linux localhost {_KERNEL} #1 SMP PREEMPT aarch64"}
    await call.say(shown.get("".join(call.arguments), "Linux") + "\n")
    return 0


async def _uptime(call: Call) -> int:
    minutes, seconds = divmod(int(call.phone.uptime_seconds), 60)
    await call.say(f" up {minutes} min {seconds} s, load average: 0.10, 0.05, 0.01\n")
    return 0


async def _date(call: Call) -> int:
    now = datetime.datetime.now(datetime.UTC)
    pattern = call.arguments[-1] if call.arguments else "+%a %b %d %H:%M:%S UTC %Y"
    if not pattern.startswith("+"):
        return await call.fail("date: cannot set date: Operation not permitted")
    await call.say(now.strftime(pattern[1:].replace("%T", "%H:%M:%S")) + "\n")
    return 0


async def _sleep(call: Call) -> int:
    try:
        seconds = float(call.arguments[0])
    except (IndexError, ValueError):
        return await call.fail("sleep: Needs 1 argument")
    await asyncio.sleep(min(max(0.0, seconds), MAX_SLEEP_SECONDS))
    return 0


async def _getprop(call: Call) -> int:
    properties = call.phone.properties
    if call.arguments:
        default = call.arguments[1] if len(call.arguments) > 1 else ""
        await call.say(properties.get(call.arguments[0], default) + "\n")
    else:
        await call.say("".join(f"[{name}]: [{properties[name]}]\n" for name in sorted(properties)))
    return 0


async def _setprop(call: Call) -> int:
    if len(call.arguments) != 2:
        return await call.fail("setprop: Needs 2 arguments")
    name, value = call.arguments
    if not call.phone.set_property(name, value):
        return await call.fail(f"Failed to set property '{name}' to '{value}'.\nSee dmesg for error reason.")
    return 0


async def _test(call: Call) -> int:
    words = list(call.arguments)
    if call.name == "[":
        if words[-1:] != ["]"]:
            return await call.fail("/system/bin/sh: [: missing ]", 2)
        words.pop()
    is_negated = words[:1] == ["!"]
    answer = _evaluate(call, words[1:] if is_negated else words)
    if answer is None:
        return await call.refuse_unknown(" ".join(words), "/system/bin/sh: [: unexpected operator/operand", 2)
    return int(answer == is_negated)


def _evaluate(call: Call, words: list[str]) -> bool | None:
    files = call.phone.files
    match words:
        case []:
            return False
        case [text]:
            return bool(text)
        case ["-e", path]:
            return files.exists(path)
        case ["-f", path]:
            return files.get(path) is not None
        case ["-d", path]:
            return files.is_directory(path)
        case ["-s", path]:
            file = files.get(path)
            return file is not None and bool(file.content)
        case ["-z", text]:
            return not text
        case ["-n", text]:
            return bool(text)
        case [left, "=" | "==", right]:
            return left == right
        case [left, "!=", right]:
            return left != right
        case _:
            return None


async def _which(call: Call) -> int:
    # The table is complete only when all modules are imported, so it cannot be had at import time.
    from agent.virtual_phone.commands import COMMANDS

    found = [name for name in call.arguments if name in COMMANDS]
    await call.say("".join(f"/system/bin/{name}\n" for name in found))
    return 0 if len(found) == len(call.arguments) else 1


async def _toybox(call: Call) -> int:
    from agent.virtual_phone.commands import COMMANDS

    if not call.arguments:
        await call.say(" ".join(sorted(COMMANDS)) + "\n")
        return 0
    name = call.arguments[0]
    command = COMMANDS.get(name)
    if command is None or name == "toybox":
        return await call.refuse_unknown(name, f"toybox: Unknown command {name}", NOT_FOUND)
    call.name, call.arguments = name, call.arguments[1:]
    return await command(call)


COMMANDS: Mapping[str, Command] = {
    ":": _true,
    "true": _true,
    "false": _false,
    "cd": _true,
    "echo": _echo,
    "id": _id,
    "whoami": _whoami,
    "uname": _uname,
    "uptime": _uptime,
    "date": _date,
    "sleep": _sleep,
    "getprop": _getprop,
    "setprop": _setprop,
    "test": _test,
    "[": _test,
    "which": _which,
    "toybox": _toybox,
}
