"""An agent that cannot work says so at its start: one line, what to do, exit 2."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.spool import Spool

PROGRAM = Path(sys.executable).parent / "qgjob-agent"


def start(tmp_path: Path, *options: str, word: str = "run") -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), word, "--state-dir", str(tmp_path / "state"), "--coordinator", "127.0.0.1:1", *options]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "COLUMNS": "300"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def project(tmp_path: Path, versions: dict[str, str]) -> tuple[str, ...]:
    workspace = tmp_path / "project"
    workspace.mkdir()
    (workspace / "appwright.config.ts").touch()
    for name, version in versions.items():
        folder = workspace / "node_modules" / name
        folder.mkdir(parents=True)
        (folder / "package.json").write_text(json.dumps({"version": version}))
    return ("--workspace", str(workspace), "--build-source", "apps/{app_version_id}.apk")


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines] in (["error"], ["error", "hint"]), done.stderr
    return done.stderr


def test_folder_without_a_project_is_refused(tmp_path: Path) -> None:
    options = ("--workspace", str(tmp_path), "--build-source", "a.apk")
    assert "point --workspace at an AppWright project" in refused(start(tmp_path, *options))


def test_project_without_appwright_is_refused(tmp_path: Path) -> None:
    assert "has no AppWright; run `npm ci` there" in refused(start(tmp_path, *project(tmp_path, {})))


def test_unknown_appwright_is_refused(tmp_path: Path) -> None:
    told = refused(start(tmp_path, *project(tmp_path, {"appwright": "0.1.47"})))
    assert "AppWright 0.1.47" in told
    assert "this release runs 0.1.1, 0.1.45, 0.1.46" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('virtual_phones = "two"', "virtual_phones = 'two' is no whole number"),
        ("simulate = 3", "simulate = 3 is no text"),
        ("drain_grace = true", "drain_grace = True is no number"),
        ('simulate = "emulator=1"\nlanes = "high,urgent"', "--lanes: 'urgent' is no lane"),
        ('simulate = "emulator=1"\norgs = "acme,,globex"', "'acme,,globex' names nothing, or something twice"),
        ("phones = 2", "phones is no setting"),
        ("allow_reboot = 1", "allow_reboot = 1 is neither true nor false"),
        ('emulators = "Pixel 8"', "'Pixel 8' is not AVD=COUNT"),
        ('emulators = "A=2"\nemulator_reset = "wipe"', "only one copy of each AVD can be wiped"),
        ("name = ", "is no TOML"),
    ],
)
def test_setting_that_makes_no_sense_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    assert words in refused(start(tmp_path, "--config", str(tmp_path / "agent.toml")))


def test_state_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "logs").write_text("a file where a folder belongs")
    told = refused(start(tmp_path, "--simulate", "emulator=1"))
    assert "cannot write to" in told
    assert "choose another --state-dir" in told


def test_doctor_tells_of_an_agent_that_works_in_the_folder(tmp_path: Path) -> None:
    with contextlib.closing(Spool(tmp_path / "state")):
        told = start(tmp_path, "--simulate", "emulator=1", word="doctor").stdout
        assert f"warning  state        an agent works in {tmp_path / 'state'} now" in told
    assert "ok       state" in start(tmp_path, "--simulate", "emulator=1", word="doctor").stdout


def test_doctor_says_where_the_emulator_is_missing(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('emulators = "Pixel_8=2"')
    options = (*project(tmp_path, {})[:2], "--adb-port", "1", "--config", str(tmp_path / "agent.toml"))
    told = start(tmp_path, *options, word="doctor").stdout
    assert "failed   emulator     is not on PATH\n" in told
    assert "install the Android emulator, which shall boot 2 of Pixel_8" in told
