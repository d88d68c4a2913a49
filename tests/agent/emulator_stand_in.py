"""Plays the program `emulator`: a virtual phone, of which the adb server is told as emulators tell of themselves.

What it was called with is kept in `calls` beside it; while there is a file `hangs` there, it takes that away and never
boots; with a file `fails` it ends at once.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path


def install_stand_in(directory: Path) -> Path:
    """Put the stand-in into a folder under the name of the real program, and return its path."""
    directory.mkdir()
    program = directory / "emulator"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$0" "$@"\n')
    program.chmod(0o755)
    return program


def main(program: Path, arguments: list[str]) -> int:
    """Run until the phone ends."""
    folder = program.parent
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    if (folder / "fails").exists():
        sys.stdout.write("PANIC: Cannot find AVD system path\n")
        return 1
    port = int(arguments[arguments.index("-port") + 1]) + 1
    command = [sys.executable, "-m", "agent.virtual_phone", "--port", str(port), "--serial", f"EMU{port}"]
    if (folder / "hangs").exists():
        (folder / "hangs").unlink()
        command += ["--fault", "boot_incomplete"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as phone:
        assert phone.stdout is not None
        phone.stdout.readline()
        while phone.poll() is None and not is_known(port):
            # As long as adb has not forgotten the last phone at this port, it takes no new one.
            ask(f"host:emulator:{port}")
            time.sleep(0.2)
        return phone.wait()


def is_known(port: int) -> bool:
    return ask(f"host-serial:emulator-{port - 1}:get-state") == b"OKAY0006device"


def ask(request: str) -> bytes:
    with socket.create_connection(("127.0.0.1", int(os.environ["ANDROID_ADB_SERVER_PORT"]))) as server:
        server.sendall(f"{len(request):04x}{request}".encode())
        server.settimeout(5.0)
        return b"".join(iter(lambda: server.recv(64), b""))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
