"""Runs one virtual phone as a process of its own."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from agent.virtual_phone.daemon import AdbDaemon, NoFreePort
from agent.virtual_phone.errors import VirtualPhoneError
from agent.virtual_phone.faults import Fault, parse_fault
from agent.virtual_phone.phone import Phone, PhoneIdentity
from agent.virtual_phone.phone_control import MAX_REQUEST_BYTES, answer
from agent.virtual_phone.phonelog import PackageLog, PhoneLog
from agent.virtual_phone.screens import DEFAULT_FILE, load_screens

EXIT_FAILED = 1


def _parser() -> argparse.ArgumentParser:
    identity = PhoneIdentity()
    parser = argparse.ArgumentParser(
        prog="python -m agent.virtual_phone", description="Run a virtual Android phone that adb can connect to."
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 picks a free one (default)")
    parser.add_argument("--search", action="store_true", help="take the first free port from --port on")
    parser.add_argument("--serial", default=identity.serial, help="serial number (default %(default)s)")
    parser.add_argument("--model", default=identity.model, help="model (default %(default)s)")
    parser.add_argument("--manufacturer", default=identity.manufacturer, help="manufacturer (default %(default)s)")
    parser.add_argument("--sdk", type=int, default=identity.sdk, help="API level (default %(default)s)")
    parser.add_argument("--release", default=identity.release, help="Android version (default %(default)s)")
    parser.add_argument("--screens", type=Path, default=DEFAULT_FILE, help="TOML file with the screens of the app")
    parser.add_argument("--log", type=Path, help="log file")
    parser.add_argument("--package-log", type=Path, help="JSON lines about installs and launches")
    parser.add_argument("--fault", action="append", default=[], help="a fault to begin with, repeatable: KIND[=VALUE]")
    parser.add_argument("--control", action="store_true", help="read requests from stdin; end when it ends")
    return parser


def run() -> int:
    """Run a phone with the arguments of the process; return its exit code."""
    arguments = _parser().parse_args()
    try:
        return asyncio.run(_run(arguments))
    except (VirtualPhoneError, NoFreePort, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_FAILED


async def _run(arguments: argparse.Namespace) -> int:
    faults = [parse_fault(text) for text in arguments.fault]
    phone = Phone(
        PhoneIdentity(
            serial=arguments.serial,
            model=arguments.model,
            manufacturer=arguments.manufacturer,
            sdk=arguments.sdk,
            release=arguments.release,
        ),
        screens=load_screens(arguments.screens),
        log=PhoneLog(arguments.log),
        package_log=PackageLog(arguments.package_log),
    )
    daemon = AdbDaemon(phone)
    ended = _end_on_signals()
    try:
        await _serve(arguments, phone, daemon, faults, ended)
    finally:
        await daemon.close()
        phone.shut_down()
    return 0


async def _serve(
    arguments: argparse.Namespace, phone: Phone, daemon: AdbDaemon, faults: list[Fault], ended: asyncio.Event
) -> None:
    await daemon.start(arguments.port, searches=arguments.search)
    for fault in faults:
        phone.begin(fault)
    phone.log.note("READY", f"{phone.identity.serial} on port {daemon.port}")
    _print({"ready": True, "port": daemon.port, "serial": phone.identity.serial, "pid": os.getpid()})
    waits: list[asyncio.Task[bool]] = [asyncio.create_task(_wait(ended))]
    if arguments.control:
        waits.append(asyncio.create_task(_obey_stdin(phone)))
    _, unfinished = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in unfinished:
        wait.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)


async def _wait(ended: asyncio.Event) -> bool:
    return await ended.wait()


def _end_on_signals() -> asyncio.Event:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    return ended


async def _obey_stdin(phone: Phone) -> bool:
    """Answer requests until the input ends; that is also how a phone notices that its parent was killed."""
    reader = asyncio.StreamReader(limit=MAX_REQUEST_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return True
        except asyncio.LimitOverrunError as error:
            await reader.readexactly(error.consumed)
            continue
        _print(answer(phone, line))


def _print(message: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone; its end of stdin says so next
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
