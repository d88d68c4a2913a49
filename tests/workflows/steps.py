"""Runs the `run:` steps of a workflow's job or of an action as GitHub would: each a script of bash, with its files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cli.pseudo_terminal import INTERRUPTIBLE
from tests.e2e.grid import eventually

PATIENCE_S = 300.0
SHELLS = {None: ["/bin/bash", "-e"], "bash": ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail"]}
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
        self._folder = folder
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
        if "run" in step and self._holds(str(step.get("if", "success()"))):
            self._end(step, self._start(step))

    def cancel(self, step: Mapping[str, Any], signal: int, is_due: Callable[[str], bool]) -> None:
        """Run one step, and signal its shell alone, as the runner does, once what the step has said is so."""
        process = self._start(step)
        try:
            eventually(lambda: is_due(self._said.read_text()), f"{step['name']} has come so far")
            process.send_signal(signal)
            self._end(step, process)
        finally:
            process.kill()
            process.wait(PATIENCE_S)

    @property
    def _said(self) -> Path:
        return self._folder / f"{len(self.ran)}.out"

    def _start(self, step: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        script = self._folder / f"{len(self.ran)}.sh"
        script.write_text(step["run"])
        with self._said.open("wb") as said:
            return subprocess.Popen(
                [sys.executable, "-c", INTERRUPTIBLE, *SHELLS[step.get("shell")], str(script)],
                cwd=self.workspace,
                env={**self._env, **{name: self._filled_in(str(value)) for name, value in step.get("env", {}).items()}},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def _end(self, step: Mapping[str, Any], process: subprocess.Popen[bytes]) -> None:
        code = process.wait(PATIENCE_S)
        self.ran.append(Ran(step["name"], code, self._said.read_text()))
        self._has_failed = self._has_failed or code != 0
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
