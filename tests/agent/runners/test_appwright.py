"""The AppWright runner without a phone: the project, the environment, the working directory."""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from agent.android import Adb, Apk
from agent.appium import UIAUTOMATOR2, Toolbox
from agent.blobs import BlobCache
from agent.builds import BuildSource
from agent.bundles import Bundles, NodePackages
from agent.core.model import NO_FENCE, AttemptId, JobId, LeasedJob, LeaseId, LeaseKey, Outcome, TestResult
from agent.downloads import Downloads
from agent.journal import Claim, Journal
from agent.ports import DevicePorts
from agent.runners.appwright import KEPT_ATTEMPTS, AppwrightRunner
from agent.runners.appwright_care import Care, CareOptions
from agent.runners.appwright_device import DeviceStation
from agent.runners.appwright_project import ProjectUnusable, build_path, check_project
from agent.runners.protocol import Observer, Stop


def package(workspace: Path, name: str, text: str) -> None:
    folder = workspace / "node_modules" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What a project with AppWright looks like from outside."""
    workspace = tmp_path / "project"
    (workspace / "tests").mkdir(parents=True)
    (workspace / "appwright.config.ts").touch()
    (workspace / "tests" / "login.spec.ts").touch()
    for name, version in (("appwright", "0.1.46"), ("@playwright/test", "1.59.1"), ("appium", "2.19.0")):
        package(workspace, name, json.dumps({"version": version}))
    shutil.copytree(Path(__file__).with_name("appwright_newer") / "dist", workspace / "node_modules/appwright/dist")
    return workspace


def test_project_as_it_should_be_is_taken(project: Path) -> None:
    assert check_project(project) == project / "appwright.config.ts"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("appwright", '{"version": "0.1.30"}', "AppWright 0.1.30 .* this release runs 0.1.1, 0.1.45, 0.1.46"),
        ("appwright", "{", "cannot be read; run `npm ci`"),
        ("appwright", "{}", "cannot be read; run `npm ci`"),
        ("@playwright/test", '{"version": "1.60.0"}', 'pin "@playwright/test": "1.59.1"'),
        ("@playwright/test", '{"version": "next"}', 'pin "@playwright/test": "1.59.1"'),
    ],
)
def test_project_that_cannot_work_is_named_with_what_to_do(project: Path, name: str, text: str, words: str) -> None:
    package(project, name, text)
    with pytest.raises(ProjectUnusable, match=words):
        check_project(project)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("appwright.config.ts", "point --workspace at an AppWright project"),
        ("node_modules/appwright/package.json", "has no AppWright; run `npm ci`"),
        ("node_modules/appwright/dist/providers/appium.js", "is not as it was released: there is no dist/providers"),
        ("node_modules/@playwright/test/package.json", "@playwright/test is missing"),
        ("node_modules/appium/package.json", "has no Appium; run `npm ci`"),
    ],
)
def test_what_a_project_lacks_is_named_with_what_to_do(project: Path, missing: str, words: str) -> None:
    (project / missing).unlink()
    with pytest.raises(ProjectUnusable, match=words):
        check_project(project)


def job(test: str = "tests/login.spec.ts", attempt: int = 1, env: dict[str, str] | None = None) -> LeasedJob:
    return LeasedJob(
        attempt_id=AttemptId(attempt),
        job_id=JobId(1),
        attempt_number=1,
        test=test,
        env=tuple((env or {}).items()),
        timeout_us=60_000_000,
    )


class Runner(AppwrightRunner):
    """A runner whose Appium is said to run and whose build is said to be installed."""

    def __init__(self, project: Path, state: Path) -> None:
        tools = Toolbox(project=project, state_dir=state)
        adb = Adb("127.0.0.1:5601", 5_999)
        claim = Claim("127.0.0.1:5601", -1, Journal(state / "processes"))
        source = BuildSource(
            "{app_version_id}.apk", project, functools.partial(build_path, tools, "emulator"), Downloads(state)
        )
        blobs = BlobCache(state / "builds", ".apk", 1_000)
        bundles = Bundles(blobs, NodePackages(state / "packages", {}))
        care = Care(adb, None, CareOptions())
        station = DeviceStation(
            adb=adb, tools=tools, source=source, blobs=blobs, slot=0, provider="emulator", claim=claim, care=care
        )
        station._apk = Apk(path=project / "v.apk", digest="d", package="org.example", activity=".Main")
        station._appium._ports = DevicePorts(UIAUTOMATOR2.ports, 1, 0, state)
        super().__init__(station=station, tools=tools, bundles=bundles, claim=claim)

    def environment(self, leased: LeasedJob, out: Path) -> dict[str, str]:
        return self._environment(leased, out)

    def workspace(self) -> Path:
        return self._workspace()

    def make_room(self, leased: LeasedJob) -> Path:
        return self._make_room(leased)


@pytest.fixture
def runner(project: Path, tmp_path: Path) -> Runner:
    return Runner(project, tmp_path / "state")


def test_nothing_of_the_agents_environment_reaches_a_test(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QGJOB_TOKEN", "AWS_SECRET_ACCESS_KEY", "NODE_OPTIONS", "BROWSERSTACK_ACCESS_KEY", "LD_PRELOAD"):
        monkeypatch.setenv(name, "secret")
    env = runner.environment(job(env={"COLOUR": "blue"}), tmp_path)
    assert "secret" not in env.values()
    assert env["COLOUR"] == "blue"


def test_secrets_are_in_a_tests_environment(runner: Runner, tmp_path: Path) -> None:
    secretive = replace(job(env={"COLOUR": "blue"}), secrets=(("PASSWORD", "hunter2"), ("NODE_OPTIONS", "theirs")))
    env = runner.environment(secretive, tmp_path)
    assert (env["COLOUR"], env["PASSWORD"], env["NODE_OPTIONS"]) == ("blue", "hunter2", "")
    assert "hunter2" not in repr(secretive)


def test_jobs_own_environment_never_wins_over_ours(runner: Runner, tmp_path: Path) -> None:
    ours = runner.environment(job(), tmp_path)
    assert runner.environment(job(env=dict.fromkeys(ours, "theirs")), tmp_path) == ours
    assert ours["NODE_OPTIONS"] == ""


def test_working_directory_is_a_slots_own_and_follows_the_project(runner: Runner, project: Path) -> None:
    folder = runner.workspace()
    (folder / "left-behind").touch()
    (folder / "tests").unlink()
    (folder / "tests").symlink_to("/nowhere")
    (project / "left-behind").mkdir()
    (project / "playwright-report").mkdir()
    assert runner.workspace() == folder
    assert (folder / "tests").resolve() == (project / "tests").resolve()
    assert (folder / "left-behind").is_symlink()
    assert not (folder / "playwright-report").exists()


def test_only_the_last_attempts_are_kept_on_disk(runner: Runner) -> None:
    folders = [runner.make_room(job(attempt=number)) for number in range(8, 16)]
    assert [folder.name for folder in folders if folder.exists()] == [str(n) for n in range(16 - KEPT_ATTEMPTS, 16)]


@pytest.mark.parametrize("test", ["tests/nowhere.spec.ts", "tests", "../project/../../etc/passwd", "x" * 300, "a\0b"])
async def test_spec_that_is_no_file_of_the_project_is_said_to_be_missing(runner: Runner, test: str) -> None:
    key = LeaseKey(lease_id=LeaseId(1), fence=NO_FENCE)
    verdict = await runner.run(key, job(test), Observer(output=no_output, test=no_test), Stop())
    assert verdict.failure is not None
    assert (verdict.outcome, verdict.failure.reason) == (Outcome.FAILED, "SPEC_NOT_FOUND")


def no_output(data: bytes) -> None:
    raise AssertionError(f"nothing runs, and it wrote {data!r}")


def no_test(test: TestResult, _is_resumable: bool) -> None:
    raise AssertionError(f"nothing runs, and it told of {test}")
