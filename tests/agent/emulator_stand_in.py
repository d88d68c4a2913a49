"""Plays the program `emulator`: a virtual phone, of which the adb server is told once, as emulators tell of themselves.

What it was called with is kept in `calls` beside it; while there is a file `hangs` there, it never boots; with a file
`fails` it ends at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
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
        command += ["--fault", "boot_incomplete"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as phone:
        assert phone.stdout is not None
        phone.stdout.readline()
        with contextlib.suppress(OSError):  # adb may be away, and emulators do not mind
            tell_adb(port)
        return phone.wait()


def tell_adb(port: int) -> None:
    request = f"host:emulator:{port}"
    with socket.create_connection(("127.0.0.1", int(os.environ["ANDROID_ADB_SERVER_PORT"])), 5.0) as server:
        server.sendall(f"{len(request):04x}{request}".encode())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
