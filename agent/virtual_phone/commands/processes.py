"""Processes: ps, pgrep, pidof and kill."""

import re
from collections.abc import Mapping

from agent.virtual_phone.commands.text import compile_posix
from agent.virtual_phone.numerals import whole_number
from agent.virtual_phone.processes import Process
from agent.virtual_phone.shell import Call, Command

_PS_HELP = "usage: ps [-AadefLlnwZ]\n\nList processes.\n\n-A\tAll\n-e\tSynonym for -A\n-f\tFull listing\n"
_PGREP_HELP = "usage: pgrep [-cL] [PATTERN]\n\nSearch for process(es).\n\n-f\tCheck full command line for PATTERN\n"
_PIDOF_HELP = "usage: pidof [-s] [NAME]...\n\nPrint the PIDs of all processes with the given names.\n"
_HEADING = "USER            PID   PPID     VSZ    RSS WCHAN            ADDR S NAME"


async def _ps(call: Call) -> int:
    if "--help" in call.arguments:
        await call.say(_PS_HELP)
        return 0
    unknown = [word for word in call.arguments if word not in ("-A", "-e", "-ef", "-f")]
    if unknown:
        return await call.refuse_unknown(" ".join(unknown), f"ps: Unknown option '{unknown[0].lstrip('-')}'")
    processes = call.phone.processes.all()
    if not call.arguments:  # without -A only the shell's own
        processes = [process for process in processes if process.user == "shell"]
    await call.say(_HEADING + "\n" + "".join(_row(process) for process in processes))
    return 0


def _row(process: Process) -> str:
    parent = 0 if process.pid == 1 else 1
    return f"{process.user:<12} {process.pid:>6} {parent:>6}  100000  50000 0                   0 S {process.name}\n"


async def _pgrep(call: Call) -> int:
    if "--help" in call.arguments:
        await call.say(_PGREP_HELP)
        return 0
    patterns = [word for word in call.arguments if word != "-f"]
    if len(patterns) != 1 or patterns[0].startswith("-"):
        return await call.refuse_unknown(" ".join(call.arguments), "pgrep: Needs 1 argument")
    try:
        pattern = compile_posix(patterns[0], is_extended=True)
    except re.error as error:
        return await call.fail(f"pgrep: bad regex: {error}")
    return await _print_pids(call, [process for process in call.phone.processes.all() if pattern.search(process.name)])


async def _pidof(call: Call) -> int:
    if "--help" in call.arguments:
        await call.say(_PIDOF_HELP)
        return 0
    names = [word for word in call.arguments if word != "-s"]
    found = [process for name in names if (process := call.phone.processes.find(name))]
    return await _print_pids(call, found)


async def _print_pids(call: Call, processes: list[Process]) -> int:
    await call.say("".join(f"{process.pid}\n" for process in processes))
    return 0 if processes else 1


async def _kill(call: Call) -> int:
    code = 0
    for word in (word for word in call.arguments if not word.startswith("-")):
        pid = whole_number(word)
        process = call.phone.processes.find_pid(pid) if pid is not None else None
        if process is None:
            code = await call.fail(f"kill: {word}: No such process")
        elif call.phone.packages.find(process.name) is None:
            code = await call.fail(f"kill: {word}: Operation not permitted")
        else:
            call.phone.stop(process.name)
    return code


COMMANDS: Mapping[str, Command] = {"ps": _ps, "pgrep": _pgrep, "pidof": _pidof, "kill": _kill}
