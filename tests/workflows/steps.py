"""Runs the `run:` steps of a workflow's job or of an action as GitHub would: each under bash, with GitHub's files."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PATIENCE_S = 120.0
SHELLS = {None: ["bash", "-e"], "bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"]}
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


@dataclass(frozen=True, slots=True)
class Ran:
    """A step that has run."""

    name: str
    code: int
    said: str
    """What it wrote to stdout and stderr."""


class Steps:
    """The steps of one job, in a workspace of their own."""

    def __init__(self, folder: Path, env: Mapping[str, str], context: Mapping[str, str]) -> None:
        """Take what the runner would bring.

        Args:
            folder: Where the workspace and GitHub's files are made.
            env: The environment of the first step.
            context: What expressions name, as in `github.run_id`.
        """
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self._context = dict(context)
        self._files = {name: folder / name.lower() for name in ("ENV", "PATH", "OUTPUT", "STEP_SUMMARY")}
        for file in self._files.values():
            file.touch()
        self._env = {**env, **{f"GITHUB_{name}": str(file) for name, file in self._files.items()}}
        self._has_failed = False
        self.ran: list[Ran] = []

    @property
    def summary(self) -> str:
        return self._files["STEP_SUMMARY"].read_text()

    @property
    def outputs(self) -> dict[str, str]:
        return _assignments(self._files["OUTPUT"])

    def set_env(self, values: Mapping[str, Any]) -> None:
        """Set what a workflow or job says of the environment."""
        for name, value in values.items():
            self._env[name] = self._context[f"env.{name}"] = self._filled_in(str(value))

    def set_inputs(self, values: Mapping[str, str]) -> None:
        """Set what the caller of an action gives it."""
        self._context |= {f"inputs.{name}": self._filled_in(value) for name, value in values.items()}

    def run(self, step: Mapping[str, Any]) -> None:
        """Run one step where its condition holds; one that uses another action is not ours to run."""
        if "run" not in step or not self._holds(str(step.get("if", "success()"))):
            return
        env = {**self._env, **{name: self._filled_in(str(value)) for name, value in step.get("env", {}).items()}}
        done = subprocess.run(
            [*SHELLS[step.get("shell")], "-c", step["run"]],
            cwd=self.workspace,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        self.ran.append(Ran(step["name"], done.returncode, done.stdout))
        self._has_failed = self._has_failed or done.returncode != 0
        added = self._files["PATH"].read_text().split()
        self._env |= _assignments(self._files["ENV"])
        self._env["PATH"] = os.pathsep.join([*reversed(added), self._env["PATH"]])

    def _filled_in(self, text: str) -> str:
        return _EXPRESSION.sub(lambda found: self._value(found[1]), text)

    def _value(self, expression: str) -> str:
        for term in expression.split("||"):
            name = term.strip()
            value = name.strip("'") if name.startswith("'") else self._context.get(name, "")
            if value:
                return value
        return ""

    def _holds(self, condition: str) -> bool:
        known = {"success()": not self._has_failed, "failure()": self._has_failed, "always()": True}
        if condition in known:
            return known[condition]
        left, right = condition.split(" == ")
        return not self._has_failed and self._value(left) == self._value(right)


def _assignments(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def read(path: Path) -> dict[str, Any]:
    """Return a workflow or an action."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found
