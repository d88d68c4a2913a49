"""Installs the Node packages of an example, and the Appium driver of the agent, once each and for good."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from agent.appium import Toolbox
from agent.appium import install_driver as install_pinned_driver
from examples.tools import missing_tools

__all__ = ["ROOT", "install", "install_driver", "lay_out", "missing_tools"]

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "node"
AGENT_STATE = ROOT / ".cache" / "agent-state"
INSTALL_TIMEOUT_S = 600
MOST_SAID = 200


class NpmFailed(Exception):
    """The packages of an example cannot be installed; the sentence is npm's own."""


def install(project: Path) -> Path:
    """Return the node_modules of a project's lock file, installed if they are not there yet.

    Raises:
        NpmFailed: They cannot be had.
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
            _npm_ci(folder)
            done.touch()
    return folder / "node_modules"


def _npm_ci(folder: Path) -> None:
    # The longest pause between npm's tries would be a minute, long after a missing network is plain.
    command = ["npm", "ci", "--no-audit", "--no-fund", "--no-progress", "--loglevel=error"]
    command += ["--fetch-retry-maxtimeout=10000"]
    try:
        subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=INSTALL_TIMEOUT_S,
        )
    except subprocess.CalledProcessError as error:
        raise NpmFailed(" ".join(error.stderr.split())[:MOST_SAID]) from error
    except subprocess.TimeoutExpired as error:
        raise NpmFailed(f"npm took longer than {INSTALL_TIMEOUT_S} s") from error


def lay_out(project: Path, workspace: Path) -> Path:
    """Copy an example to a workspace of its own, with its Node packages, and return the workspace."""
    shutil.copytree(project, workspace, ignore=shutil.ignore_patterns("node_modules"))
    (workspace / "node_modules").symlink_to(install(project))
    return workspace


def install_driver(workspace: Path, agent_state: Path) -> None:
    """Give an agent that is yet to start the pinned Appium driver, from a copy that all examples share.

    Raises:
        agent.appium.AppiumFailed: It cannot be installed.
    """
    shared = Toolbox(project=workspace, state_dir=AGENT_STATE)
    asyncio.run(install_pinned_driver(shared))
    agent_state.mkdir(parents=True, exist_ok=True)
    (agent_state / "appium-home").symlink_to(shared.appium_home())
