"""Files: ls, cat, rm, stat, df and the checksums."""

import datetime
import hashlib
import re
import stat
from collections.abc import Iterator, Mapping

from agent.virtual_phone.commands.options import OptionUnknown, read_options
from agent.virtual_phone.files import StorageFull, StoredFile
from agent.virtual_phone.shell import Call, Command

_KIBIBYTE = 1024
_PROC_NET_UNIX = "Num       RefCount Protocol Flags    Type St Inode Path\n"
_READ_BYTES = 64 * 1024
_OCTAL_MODE = re.compile(r"[0-7]{1,4}")
_SYMBOLIC_MODE = re.compile(r"[ugoa]*[-+=][rwxXst]*")


async def _refuse_option(call: Call, error: OptionUnknown) -> int:
    return await call.refuse_unknown(error.option, f"{call.name}: Unknown option '{error.option.lstrip('-')}'")


async def _ls(call: Call) -> int:
    letters = {letter for argument in call.arguments if argument.startswith("-") for letter in argument[1:]}
    paths = [argument for argument in call.arguments if not argument.startswith("-")] or ["/"]
    if unknown := letters - set("1aAdltrn"):
        return await _refuse_option(call, OptionUnknown(f"-{min(unknown)}"))
    code = 0
    for path in paths:
        if not call.phone.files.exists(path):
            code = await call.fail(f"ls: {path}: No such file or directory")
        elif call.phone.files.is_directory(path) and "d" not in letters:
            if len(paths) > 1:
                await call.say(f"{path}:\n")
            await call.say("".join(_list(call, path, is_long="l" in letters)))
        else:
            await call.say(_entry(call, path, path) if "l" in letters else f"{path}\n")
    return code


def _list(call: Call, path: str, *, is_long: bool) -> Iterator[str]:
    for name in call.phone.files.children(path):
        yield _entry(call, f"{path}/{name}", name) if is_long else f"{name}\n"


def _entry(call: Call, path: str, name: str) -> str:
    file = call.phone.files.get(path)
    if file is None:
        return f"drwxrwx--x 2 shell shell 3488 2009-01-01 00:00 {name}\n"
    when = datetime.datetime.fromtimestamp(file.changed_at, datetime.UTC).strftime("%Y-%m-%d %H:%M")
    return f"{stat.filemode(file.mode)} 1 shell shell {len(file.content)} {when} {name}\n"


async def _cat(call: Call) -> int:
    if not call.arguments:
        while piece := await call.stdin.read(_READ_BYTES):
            await call.stdout(piece)
        return 0
    code = 0
    for path in call.arguments:
        file = call.phone.files.get(path)
        if path == "/proc/net/unix":
            await call.say(_PROC_NET_UNIX)
        elif file is None:
            code = await call.fail(f"cat: {path}: {_why_no_file(call, path)}")
        else:
            await call.stdout(file.content)
    return code


def _why_no_file(call: Call, path: str) -> str:
    return "Is a directory" if call.phone.files.is_directory(path) else "No such file or directory"


async def _rm(call: Call) -> int:
    letters = {letter for argument in call.arguments if argument.startswith("-") for letter in argument[1:]}
    paths = [argument for argument in call.arguments if not argument.startswith("-")]
    if unknown := letters - set("rRfv"):
        return await _refuse_option(call, OptionUnknown(f"-{min(unknown)}"))
    files, code = call.phone.files, 0
    for path in paths:
        if files.is_directory(path) and letters & {"r", "R"}:
            files.remove_tree(path)
        elif files.is_directory(path):
            code = await call.fail(f"rm: {path}: is a directory")
        elif not files.remove(path) and "f" not in letters:
            code = await call.fail(f"rm: {path}: No such file or directory")
    return code


async def _mkdir(call: Call) -> int:
    try:
        options = read_options(call.arguments, flags={"-p"}, valued={"-m"})
    except OptionUnknown as error:
        return await _refuse_option(call, error)
    code = 0
    for path in options.rest:
        if call.phone.files.exists(path) and not options.flags:
            code = await call.fail(f"mkdir: '{path}': File exists")
        elif call.phone.files.get(path) is not None:
            code = await call.fail(f"mkdir: '{path}': Not a directory")
        else:
            call.phone.files.make_directory(path)
    return code


async def _touch(call: Call) -> int:
    paths = [argument for argument in call.arguments if not argument.startswith("-")]
    for path in paths:
        present = call.phone.files.get(path)
        if not call.phone.files.is_directory(path):
            call.phone.files.write(path, present.content if present else b"")
    return 0


async def _chmod(call: Call) -> int:
    mode, *paths = [argument for argument in call.arguments if not argument.startswith("-")] or [""]
    if not paths:
        return await call.fail("chmod: Needs 2 arguments")
    octal = _OCTAL_MODE.fullmatch(mode)
    if octal is None and _SYMBOLIC_MODE.fullmatch(mode) is None:
        return await call.fail(f"chmod: bad mode '{mode}'")
    for path in paths:
        file = call.phone.files.get(path)
        if file is not None and octal:
            call.phone.files.write(path, file.content, permissions=int(octal[0], 8), changed_at=file.changed_at)
        elif not call.phone.files.exists(path):
            return await call.fail(f"chmod: {path}: No such file or directory")
    return 0


async def _copy(call: Call) -> int:
    """Run ``cp`` or ``mv`` of one file."""
    paths = [argument for argument in call.arguments if not argument.startswith("-")]
    if len(paths) != 2:
        return await call.fail(f"{call.name}: Needs 2 arguments")
    source, target = paths
    file = call.phone.files.get(source)
    if file is None:
        return await call.fail(f"{call.name}: {source}: No such file or directory")
    if call.phone.files.is_directory(target):
        target = f"{target}/{source.rpartition('/')[2]}"
    try:
        call.phone.files.write(target, file.content, permissions=file.permissions)
    except StorageFull as error:
        return await call.fail(f"{call.name}: {target}: {error}")
    if call.name == "mv":
        call.phone.files.remove(source)
    return 0


async def _stat(call: Call) -> int:
    try:
        options = read_options(call.arguments, valued={"-c"})
    except OptionUnknown as error:
        return await _refuse_option(call, error)
    code = 0
    for path in options.rest:
        file = call.phone.files.get(path)
        if file is None and not call.phone.files.is_directory(path):
            code = await call.fail(f"stat: '{path}': No such file or directory")
        else:
            await call.say(_describe(path, file, options.values.get("-c")) + "\n")
    return code


def _describe(path: str, file: StoredFile | None, template: str | None) -> str:
    mode = file.mode if file else stat.S_IFDIR | 0o771
    facts = {
        "%n": path,
        "%s": str(len(file.content) if file else 3488),
        "%a": f"{stat.S_IMODE(mode):o}",
        "%A": stat.filemode(mode),
        "%Y": str(file.changed_at if file else 0),
    }
    shown = template or "  File: %n\n  Size: %s\nAccess: (%a/%A)\nModify: %Y"
    for mark, value in facts.items():
        shown = shown.replace(mark, value)
    return shown


async def _checksum(call: Call) -> int:
    algorithm = call.name.removesuffix("sum")
    code = 0
    if not call.arguments:
        digest = hashlib.new(algorithm)
        while piece := await call.stdin.read(_READ_BYTES):
            digest.update(piece)
        await call.say(f"{digest.hexdigest()}  -\n")
    for path in call.arguments:
        file = call.phone.files.get(path)
        if file is None:
            code = await call.fail(f"{call.name}: {path}: {_why_no_file(call, path)}")
        else:
            await call.say(f"{hashlib.new(algorithm, file.content).hexdigest()}  {path}\n")
    return code


async def _df(call: Call) -> int:
    try:
        options = read_options(call.arguments, flags={"-h", "-k"})
    except OptionUnknown as error:
        return await _refuse_option(call, error)
    files = call.phone.files
    total, used = files.capacity_bytes // _KIBIBYTE, -(-files.used_bytes // _KIBIBYTE)
    percent = -(-100 * used // total)
    shown = [_human(size) if "-h" in options.flags else str(size) for size in (total, used, total - used)]
    heading = "Size  Used Avail" if "-h" in options.flags else "1K-blocks  Used Available"
    await call.say(f"Filesystem       {heading} Use% Mounted on\n")
    await call.say(f"/dev/block/dm-5  {' '.join(shown)}  {percent}% /data\n")
    return 0


def _human(kibibytes: int) -> str:
    return f"{kibibytes // _KIBIBYTE}M" if kibibytes >= _KIBIBYTE else f"{kibibytes}K"


COMMANDS: Mapping[str, Command] = {
    "ls": _ls,
    "cat": _cat,
    "rm": _rm,
    "mkdir": _mkdir,
    "touch": _touch,
    "chmod": _chmod,
    "cp": _copy,
    "mv": _copy,
    "stat": _stat,
    "df": _df,
    "md5sum": _checksum,
    "sha1sum": _checksum,
    "sha256sum": _checksum,
}
