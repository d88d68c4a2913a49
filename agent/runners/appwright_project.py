"""What a workspace is: an AppWright project that this release can run, and where its own build lies."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path

from agent.appium import Toolbox
from agent.process import capture
from agent.runners.appwright_shape import ShapeUnknown, shape_of

FIRST_UNUSABLE_PLAYWRIGHT = (1, 60)
TOOLBOX = Path(__file__).parents[1] / "toolbox"
"""The lock file of what an agent without a workspace needs to run bundles."""
NODE_FILES = Path(__file__).with_name("appwright_node")
CONFIG = "appwright.config.ts"
LOAD_TIMEOUT_S = 60.0


class ProjectUnusable(Exception):
    """The workspace is no AppWright project that this release can run; the sentence says what to do."""


def check_project(workspace: Path) -> Path:
    """Return the config of an AppWright project.

    Raises:
        ProjectUnusable: AppWright is missing, or is of a version or a shape that this release does not know.
    """
    config = workspace / CONFIG
    if not config.is_file():
        raise ProjectUnusable(f"{workspace} has no {CONFIG}; point --workspace at an AppWright project")
    check_packages(workspace)
    return config


def check_packages(workspace: Path) -> None:
    """Check that a folder's Node packages are such that this release can run a project with them.

    Raises:
        ProjectUnusable: AppWright is missing, or is of a version or a shape that this release does not know.
    """
    found = _version(workspace, "appwright")
    if found is None:
        raise ProjectUnusable(f"{workspace} has no AppWright; run `npm ci` there")
    try:
        shape_of(workspace / "node_modules" / "appwright", found)
    except ShapeUnknown as error:
        raise ProjectUnusable(str(error)) from error
    playwright = _version(workspace, "@playwright/test")
    if playwright is None or _minor(playwright) >= FIRST_UNUSABLE_PLAYWRIGHT:
        raise ProjectUnusable(
            f"@playwright/test {playwright or 'is missing'} in {workspace}: AppWright {found} needs an older one;"
            ' pin "@playwright/test": "1.59.1" in package.json and run `npm install`'
        )
    if _version(workspace, "appium") is None:
        raise ProjectUnusable(f"{workspace} has no Appium; run `npm ci` there")
    if shutil.which("node") is None:
        raise ProjectUnusable("node is not on PATH; install Node 20")


def _version(workspace: Path, package: str) -> str | None:
    manifest = workspace / "node_modules" / package / "package.json"
    if not manifest.is_file():
        return None
    try:
        return str(json.loads(manifest.read_bytes())["version"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ProjectUnusable(f"{manifest} cannot be read; run `npm ci` in {workspace}") from error


def _minor(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version; what is no number is newer than all."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found is not None else (999, 0)


def playwright(workspace: Path) -> tuple[str, str]:
    """Return the command of a project's Playwright."""
    return "node", str(workspace / "node_modules" / "@playwright" / "test" / "cli.js")


async def build_path(tools: Toolbox, provider: str, platform: str = "android") -> Path:
    """Return where the project itself says that its app lies, for devices of a provider.

    Only Playwright can load a project's config, so it is asked to list tests, of which the config that asks has none.

    Raises:
        ProjectUnusable: The config cannot be loaded, or names no build.
    """
    config = (tools.project / CONFIG).resolve()
    with tempfile.TemporaryDirectory(prefix="qgjob-") as folder:
        answer = Path(folder) / "build.json"
        env = {
            **tools.environment(),
            "QGJOB_USER_CONFIG": str(config),
            "QGJOB_PROVIDER": provider,
            "QGJOB_PLATFORM": platform,
            "QGJOB_OUT": str(answer),
            "PWTEST_CACHE_DIR": str(Path(folder) / "compiled"),
        }
        command = (*playwright(tools.project), "test", "--list", "--config", str(NODE_FILES / "build_path.config.cjs"))
        try:
            _, text = await capture(command, env=env, timeout_s=LOAD_TIMEOUT_S)
        except (OSError, TimeoutError) as error:
            raise ProjectUnusable(f"{config} cannot be loaded: {str(error) or 'it takes too long'}") from error
        if not answer.exists():
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            raise ProjectUnusable(f"{config} cannot be loaded: {lines[0][:300] if lines else 'it says nothing'}")
        found = json.loads(answer.read_bytes())
    if not isinstance(found, str) or not found:
        raise ProjectUnusable(f"{config} names no buildPath; name one there, or give --build-source")
    if "://" in found:
        raise ProjectUnusable(f"the buildPath of {config} is {found}, which is no file; give --build-source")
    return Path(found)
