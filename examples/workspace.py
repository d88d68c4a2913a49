"""Lays out the example as a project of its own, with its packages and a build, for an agent of virtual phones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from agent.appium import AppiumFailed
from agent.virtual_phone.apk import build_apk
from examples import node_packages

EXAMPLE = Path(__file__).parent / "wikipedia"
PACKAGE = "org.example.wikipedia"
BUILD_BYTES = 1_000_000


def main() -> int:
    """Lay it out; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.workspace", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the project goes; must not exist")
    parser.add_argument("--state-dir", type=Path, required=True, help="that of the agent, which finds its driver there")
    parser.add_argument("--app-version-id", default="xyz123", help="the name of the build")
    asked = parser.parse_args()
    try:
        workspace = node_packages.lay_out(EXAMPLE, asked.folder)
        node_packages.install_driver(workspace, asked.state_dir)
    except (node_packages.NpmFailed, AppiumFailed) as error:
        sys.stderr.write(f"error: npm's packages cannot be had: {error}\n")
        return 1
    build_apk(workspace / "apps" / f"{asked.app_version_id}.apk", PACKAGE, 1, "1.0", BUILD_BYTES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
