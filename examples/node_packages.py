"""Installs the Node packages of an example once, into a cache that is keyed by its lock file."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "node"
INSTALL_TIMEOUT_S = 600
TOOLS = ("node", "npm", "java", "adb", "aapt", "aapt2", "apksigner", "zipalign", "keytool")


def missing_tools() -> list[str]:
    """Return the tools that AppWright on virtual phones needs and that are not on PATH."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def install(project: Path) -> Path:
    """Return the node_modules of a project's lock file, installed if they are not there yet.

    Raises:
        subprocess.CalledProcessError: npm failed; its output was shown.
    """
    lock = project / "package-lock.json"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = CACHE / digest
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{digest}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(project / name, folder / name)
            subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
                cwd=folder,
                check=True,
                timeout=INSTALL_TIMEOUT_S,
            )
            done.touch()
    return folder / "node_modules"


def lay_out(project: Path, workspace: Path) -> Path:
    """Copy an example to a workspace of its own, with its Node packages, and return the workspace."""
    shutil.copytree(project, workspace, ignore=shutil.ignore_patterns("node_modules"))
    (workspace / "node_modules").symlink_to(install(project))
    return workspace
