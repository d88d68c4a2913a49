"""Filters for pipes: grep, head, tail and wc."""

import re
from collections.abc import AsyncIterator, Mapping

from agent.virtual_phone.bytestream import ByteReader
from agent.virtual_phone.commands.options import OptionUnknown, read_options
from agent.virtual_phone.shell import Call, Command

DEFAULT_LINES = 10
MAX_LINE_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_POSIX_CLASSES = {
    "[:blank:]": r" \t",
    "[:space:]": r"\s",
    "[:digit:]": "0-9",
    "[:alpha:]": "A-Za-z",
    "[:alnum:]": "A-Za-z0-9",
}


def compile_posix(pattern: str, *, is_extended: bool, ignores_case: bool = False) -> re.Pattern[str]:
    """Return a POSIX regular expression in Python's terms; raises `re.error`."""
    for name, characters in _POSIX_CLASSES.items():
        pattern = pattern.replace(name, characters)
    if not is_extended:  # in basic expressions the bare characters are text and the escaped ones are operators
        pattern = re.sub(
            r"\\?[+?(){}|]", lambda found: found[0][1:] if len(found[0]) == 2 else "\\" + found[0], pattern
        )
    return re.compile(pattern, re.IGNORECASE if ignores_case else 0)


async def _grep(call: Call) -> int:
    letters = {letter for word in call.arguments if word.startswith("-") for letter in word[1:]}
    rest = [word for word in call.arguments if not word.startswith("-")]
    if unknown := letters - set("EFioqvcw"):
        return await call.refuse_unknown(min(unknown), f"grep: Unknown option '{min(unknown)}'", 2)
    if not rest:
        return await call.fail("grep: no REGEX", 2)
    try:
        text = re.escape(rest[0]) if "F" in letters else rest[0]
        pattern = compile_posix(text, is_extended=bool(letters & {"E", "F"}), ignores_case="i" in letters)
    except re.error as error:
        return await call.fail(f"grep: bad regex: {error}", 2)
    count = 0
    async for line in _lines(call, rest[1:]):
        found = pattern.search(line)
        if (found is None) == ("v" in letters):
            count += 1
            if not letters & {"q", "c"}:
                await call.say((found[0] if found and "o" in letters else line) + "\n")
    if "c" in letters:
        await call.say(f"{count}\n")
    return 0 if count else 1


async def _head(call: Call) -> int:
    return await _some_lines(call, is_head=True)


async def _tail(call: Call) -> int:
    return await _some_lines(call, is_head=False)


async def _some_lines(call: Call, *, is_head: bool) -> int:
    arguments = call.arguments
    if arguments and re.fullmatch(r"-\d+", arguments[0]):
        arguments = ["-n", arguments[0][1:], *arguments[1:]]
    try:
        options = read_options(arguments, valued={"-n"})
        limit = int(options.values.get("-n", DEFAULT_LINES))
    except OptionUnknown as error:
        return await call.refuse_unknown(error.option, f"{call.name}: Unknown option '{error.option[1:]}'")
    except ValueError:
        return await call.fail(f"{call.name}: not a number of lines")
    if limit <= 0:
        return 0
    kept: list[str] = []
    async for line in _lines(call, options.rest):
        kept.append(line)
        if is_head and len(kept) >= limit:
            break
        if not is_head and len(kept) > limit:
            kept.pop(0)
    await call.say("".join(f"{line}\n" for line in kept))
    return 0


async def _wc(call: Call) -> int:
    content = bytearray()
    while piece := await call.stdin.read(_READ_BYTES):
        content += piece
    counts = {"-l": content.count(b"\n"), "-w": len(content.split()), "-c": len(content)}
    if any(word not in counts for word in call.arguments):
        return await call.refuse_unknown(" ".join(call.arguments), f"wc: Unknown option in {call.arguments}")
    wanted = call.arguments or list(counts)
    await call.say(" ".join(str(counts[word]) for word in wanted) + "\n")
    return 0


async def _lines(call: Call, paths: list[str]) -> AsyncIterator[str]:
    if not paths:
        async for line in lines_of(call.stdin):
            yield line
    for path in paths:
        file = call.phone.files.get(path)
        if file is None:
            await call.complain(f"{call.name}: {path}: No such file or directory")
            continue
        for line in file.content.decode(errors="replace").splitlines():
            yield line


async def lines_of(reader: ByteReader) -> AsyncIterator[str]:
    """Yield the lines of an input, without their ends; a line longer than a mebibyte is cut."""
    rest = b""
    while piece := await reader.read(_READ_BYTES):
        *complete, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            complete.append(rest)
            rest = b""
        for line in complete:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


COMMANDS: Mapping[str, Command] = {"grep": _grep, "head": _head, "tail": _tail, "wc": _wc}
