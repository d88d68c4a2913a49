"""What a user could do, and what one would see: input, monkey, screencap and logcat."""

import asyncio
from collections.abc import Mapping

from agent.virtual_phone.commands.options import OptionUnknown, read_options
from agent.virtual_phone.numerals import whole_number
from agent.virtual_phone.packages import PackageUnknown
from agent.virtual_phone.phone import HIGHEST_KEY
from agent.virtual_phone.shell import Call, Command
from agent.virtual_phone.uiautomator.gestures import screenshot, swipe, tap_at

_SOURCES = {"touchscreen", "keyboard", "dpad", "mouse"}
_KEY_NAMES = {"HOME": 3, "BACK": 4, "POWER": 26, "ENTER": 66, "DEL": 67, "MENU": 82, "SLEEP": 223, "WAKEUP": 224}
_LOGCAT_VALUES = {"-v", "-b", "-t", "-T", "-s", "-e", "-f"}


async def _input(call: Call) -> int:
    words = call.arguments[1:] if call.arguments[:1] and call.arguments[0] in _SOURCES else call.arguments
    match words:
        case ["keyevent", *keys]:
            return await _press_keys(call, [key for key in keys if key != "--longpress"])
        case ["text", text]:
            if call.phone.front is not None:
                call.phone.front.type_text(text.replace("%s", " "))
        case ["tap", x, y] if _are_numbers(x, y):
            tap_at(call.phone, int(float(x)), int(float(y)))
        case ["swipe", x1, y1, x2, y2, *_] if _are_numbers(x1, y1, x2, y2):
            swipe(call.phone, int(float(y1)) - int(float(y2)))
        case _:
            return await call.refuse_unknown(" ".join(words), f"Error: Unknown command: {' '.join(words)}", 255)
    return 0


def _are_numbers(*words: str) -> bool:
    return all(word.removeprefix("-").replace(".", "", 1).isdecimal() for word in words)


async def _press_keys(call: Call, keys: list[str]) -> int:
    for key in keys:
        code = _KEY_NAMES.get(key.removeprefix("KEYCODE_"), whole_number(key))
        if code is None or code > HIGHEST_KEY:
            return await call.refuse_unknown(key, f"Error: Invalid key: {key}", 255)
        call.phone.press(code)
    return 0


async def _monkey(call: Call) -> int:
    """Run monkey in its one useful form: start an app without knowing its activity."""
    words = [word for word in call.arguments if word != "-v"]
    try:
        options = read_options(words, valued={"-p", "-c", "-s", "--throttle", "--pct-syskeys"})
    except OptionUnknown as error:
        return await call.refuse_unknown(error.option, f"** Error: Unknown option: {error.option}")
    package = options.values.get("-p", "")
    if not package:
        return await call.refuse_unknown(" ".join(call.arguments), "monkey: only with -p PACKAGE on this phone")
    try:
        call.phone.tap_icon(package)
    except PackageUnknown:
        return await call.fail("** No activities found to run, monkey aborted.", 252)
    await call.say("Events injected: 1\n## Network stats: elapsed time=12ms\n")
    return 0


async def _screencap(call: Call) -> int:
    try:
        options = read_options(call.arguments, flags={"-p"}, valued={"-d"})
    except OptionUnknown as error:
        return await call.refuse_unknown(error.option, f"screencap: invalid option {error.option}")
    image = await asyncio.to_thread(screenshot, call.phone)
    if not options.rest:
        await call.stdout(image)
        return 0
    try:
        call.phone.files.write(options.rest[0], image)
    except OSError as error:
        return await call.fail(f"Error opening file: {options.rest[0]} ({error.strerror or error})")
    return 0


async def _logcat(call: Call) -> int:
    try:
        options = read_options(call.arguments, flags={"-d", "-c"}, valued=_LOGCAT_VALUES)
    except OptionUnknown as error:
        return await call.refuse_unknown(error.option, f"logcat: unknown option {error.option}")
    logcat = call.phone.logcat
    if "-c" in options.flags:
        logcat.clear()
        return 0
    count = whole_number(options.values["-t"]) if "-t" in options.values else None
    await call.say("--------- beginning of main\n")
    if "-d" in options.flags or "-t" in options.values:
        since = options.values.get("-T", "")
        lines = [line for line in logcat.lines() if line >= since]
        lines = lines[-count:] if count else lines
        await call.say("".join(f"{line}\n" for line in lines))
        return 0
    async for line in logcat.follow():
        await call.say(line + "\n")
    return 0


COMMANDS: Mapping[str, Command] = {
    "input": _input,
    "monkey": _monkey,
    "screencap": _screencap,
    "logcat": _logcat,
}
