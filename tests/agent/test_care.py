"""What a device is put through between batches and by a canary, judged by what devices print."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from agent.android import Adb, Apk
from agent.appium import AppiumServer, Toolbox
from agent.blobs import BlobCache
from agent.builds import BuildSource
from agent.core.model import NO_FENCE, DeviceId, LeaseId, LeaseKey, LeaseSpec
from agent.downloads import Downloads
from agent.journal import Claim, Journal
from agent.runners.appwright_care import Care, CareOptions
from agent.runners.appwright_device import DeviceStation
from agent.runners.protocol import RunFailed

APK = Apk(path=Path("app.apk"), digest="d" * 64, package="org.example", activity="org.example.Main")
LEASE = LeaseSpec(
    key=LeaseKey(lease_id=LeaseId(1), fence=NO_FENCE),
    revision=1,
    device_id=DeviceId("R58M"),
    org_id="acme",
    app_version_id="v1",
    jobs=(),
)


@pytest.mark.parametrize(
    ("answer", "is_started"),
    [
        ((0, "Starting: Intent { cmp=org.example/.ErrorScreen }\nStatus: ok\nComplete\n"), True),
        (
            (0, "Starting: Intent { cmp=org.example/.Main }\nError type 3\nError: Activity class does not exist.\n"),
            False,
        ),
        ((124, "adb shell took longer than 20 s"), False),
        ((1, ""), False),
    ],
)
async def test_start_of_an_app_is_judged_by_what_android_says_of_it(
    monkeypatch: pytest.MonkeyPatch, answer: tuple[int, str], is_started: bool
) -> None:
    async def run(_adb: Adb, *_arguments: str, **_options: float) -> tuple[int, str]:
        return answer

    monkeypatch.setattr(Adb, "run", run)
    trying = Care(Adb("R58M", 1), None, CareOptions()).try_out(APK)
    with contextlib.nullcontext() if is_started else pytest.raises(RunFailed, match="does not start"):
        await trying


class Phone:
    """Answers what adb is asked as a phone does that holds the app, and remembers it all."""

    def __init__(self, starts_apps: str) -> None:
        self.asked: list[str] = []
        self._starts_apps = starts_apps

    async def run(self, *arguments: str, **_options: float) -> tuple[int, str]:
        """In place of `Adb.run`."""
        words = " ".join(arguments).removeprefix("shell ")
        self.asked.append(words)
        answers = {"pm path": f"package:/data/app/{APK.package}/base.apk", "sha256sum": f"{APK.digest}  base.apk"}
        answers |= {"am start": self._starts_apps, "cat": ""}
        return 0, next((answer for begin, answer in answers.items() if words.startswith(begin)), "")


@pytest.fixture
def station(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceStation:
    """A phone whose build is found and whose Appium runs."""

    async def find(_source: BuildSource, _app_version_id: str) -> Apk:
        return APK

    async def ensure(_server: AppiumServer) -> None:
        """It runs."""

    monkeypatch.setattr(BuildSource, "find", find)
    monkeypatch.setattr(AppiumServer, "ensure", ensure)
    adb = Adb("R58M", 1)
    return DeviceStation(
        adb=adb,
        tools=Toolbox(project=tmp_path, state_dir=tmp_path),
        source=BuildSource("", tmp_path, None, Downloads(tmp_path)),
        blobs=BlobCache(tmp_path, ".apk", 1_000),
        slot=0,
        provider="local-device",
        claim=Claim("R58M", -1, Journal(tmp_path / "processes")),
        care=Care(adb, None, CareOptions()),
    )


@pytest.mark.parametrize("is_canary", [True, False])
async def test_canary_alone_starts_the_app_and_fails_where_it_does_not_start(
    station: DeviceStation, monkeypatch: pytest.MonkeyPatch, is_canary: bool
) -> None:
    phone = Phone(starts_apps="Error type 3\nError: Activity class does not exist.\n")
    monkeypatch.setattr(Adb, "run", lambda _adb, *arguments, **options: phone.run(*arguments, **options))
    refused = pytest.raises(RunFailed, match=r"R58M does not start org\.example: Error: Activity class does not exist")
    with refused if is_canary else contextlib.nullcontext():
        await station.install(replace(LEASE, is_canary=is_canary))
    assert ("am start -W -n org.example/org.example.Main" in phone.asked) is is_canary


@pytest.mark.parametrize("hangs", ["cat", "pm clear", "am force-stop"])
@pytest.mark.parametrize("answer", [(124, "adb shell took longer than 20 s"), (1, "error: device offline\n")])
async def test_device_that_does_not_answer_keeps_its_note_of_the_last_app(
    monkeypatch: pytest.MonkeyPatch, hangs: str, answer: tuple[int, str]
) -> None:
    asked: list[str] = []

    async def run(_adb: Adb, *arguments: str, **_options: float) -> tuple[int, str]:
        words = " ".join(arguments).removeprefix("shell ")
        asked.append(words)
        if words.startswith(hangs):
            return answer
        return 0, "org.example.last\n" if words.startswith("cat") else ""

    monkeypatch.setattr(Adb, "run", run)
    with pytest.raises(RunFailed, match="cannot be cleaned of its last app"):
        await Care(Adb("R58M", 1), None, CareOptions()).clean_up(APK.package)
    assert not any(words.startswith("echo") for words in asked)
