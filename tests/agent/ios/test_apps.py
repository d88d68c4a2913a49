"""Apps of iOS that are unpacked on a host: once each, with what can be run, and nothing outside of their folder."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from agent.builds import BuildUnusable, digest_of
from agent.ios.apps import KEPT_APPS, IosApps, unpack_app
from agent.ios.installs import Installs
from qgjob.appfile import pack_app
from tests.agent.ios.conftest import BUNDLE, app_folder, ipa


@pytest.fixture
def apps(tmp_path: Path) -> IosApps:
    return IosApps(tmp_path / "apps")


async def test_app_is_unpacked_once_and_says_what_it_is(apps: IosApps, tmp_path: Path) -> None:
    build = ipa(tmp_path / "shop.ipa", app_folder(tmp_path / "Shop.app", platform="iPhoneOS"))
    app = await apps.get(build, "one")
    assert (app.bundle_id, app.is_for_simulators, app.is_for_devices) == (BUNDLE, False, True)
    assert app.digest == digest_of(build)
    assert os.access(app.folder / "Shop", os.X_OK)
    assert not os.access(app.folder / "Info.plist", os.X_OK)
    (app.folder / "seen").touch()
    assert (await apps.get(build, "two")).folder == app.folder
    assert (app.folder / "seen").exists()


async def test_folder_of_xcode_and_its_packed_form_are_one_build(apps: IosApps, tmp_path: Path) -> None:
    folder = app_folder(tmp_path / "Shop.app")
    (folder / "Current").symlink_to("Shop")
    pack_app(folder, tmp_path / "shop.zip")
    app = await apps.get(folder, "one")
    assert app == await apps.get(tmp_path / "shop.zip", "one")
    assert os.readlink(app.folder / "Current") == "Shop"
    assert app.is_for_simulators


async def test_apps_in_use_stay_and_of_the_others_the_last(apps: IosApps, tmp_path: Path) -> None:
    builds = []
    for number in range(KEPT_APPS + 3):
        folder = app_folder(tmp_path / f"{number}" / "Shop.app", content=str(number))
        pack_app(folder, tmp_path / f"{number}.zip")
        builds.append(tmp_path / f"{number}.zip")
    first = await apps.get(builds[0], "holder")
    others = [await apps.get(build, "changing") for build in builds[1:]]
    assert first.folder.exists()
    assert not others[0].folder.exists()
    assert all(app.folder.exists() for app in others[-KEPT_APPS:])


def archive(path: Path, *entries: tuple[str, str, int]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, content, mode in (("Payload/Shop.app/Info.plist", "", 0o644), *entries):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            packed.writestr(entry, content)
    return path


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (("Payload/Shop.app/../../../evil", "x", stat.S_IFREG | 0o644), "lies outside of the app"),
        (("Payload/Shop.app/link", "/etc/passwd", stat.S_IFLNK | 0o777), "leads out of the app"),
        (("Payload/Shop.app/link", "../../../../secrets", stat.S_IFLNK | 0o777), "leads out of the app"),
    ],
)
def test_app_that_reaches_out_of_its_folder_is_refused(tmp_path: Path, entry: tuple[str, str, int], words: str) -> None:
    with pytest.raises(BuildUnusable, match=words):
        unpack_app(archive(tmp_path / "evil.ipa", entry), tmp_path / "in" / "to")
    assert not (tmp_path / "evil").exists()


async def test_file_that_is_no_app_is_refused_with_what_to_do(apps: IosApps, tmp_path: Path) -> None:
    (tmp_path / "a.apk").write_bytes(b"no archive")
    (tmp_path / "folder").mkdir()
    for build, words in (
        (tmp_path / "a.apk", "is no app of iOS that can be used: File is not a zip file; build it again"),
        (tmp_path / "folder", "is no app of iOS"),
        (archive(tmp_path / "torn.ipa"), "has no readable Info.plist"),
        (ipa(tmp_path / "odd.ipa", app_folder(tmp_path / "Odd.app", bundle="--device")), "names no bundle id"),
    ):
        with pytest.raises(BuildUnusable, match=words) as refused:
            await apps.get(build, "one")
        assert refused.value.failure.reason == "BUILD_INVALID"


def test_limit_of_an_app_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.ios.apps.MOST_FILES", 1)
    build = archive(tmp_path / "a.ipa", ("Payload/Shop.app/more", "", stat.S_IFREG | 0o644))
    with pytest.raises(BuildUnusable, match="over 1 files"):
        unpack_app(build, tmp_path / "into")


def test_build_at_another_place_than_ours_is_nobodys(tmp_path: Path) -> None:
    installs = Installs(tmp_path, "UDID")
    installs.note(BUNDLE, "/Application/1/Shop.app", "d1")
    known = Installs(tmp_path, "UDID")
    assert known.held(BUNDLE, "/Application/1/Shop.app") == "d1"
    assert known.held(BUNDLE, "/Application/2/Shop.app") is None
    assert known.held(BUNDLE, None) is None
    assert Installs(tmp_path, "OTHER").held(BUNDLE, "/Application/1/Shop.app") is None
    known.forget(BUNDLE)
    assert installs.held(BUNDLE, "/Application/1/Shop.app") is None


def test_torn_record_of_installs_costs_an_install(tmp_path: Path) -> None:
    (tmp_path / "UDID.json").write_text('{"org.example.shop": {"pla')
    assert Installs(tmp_path, "UDID").held(BUNDLE, "/Application/1/Shop.app") is None
