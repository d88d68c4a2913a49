"""What a file tells of the app in it, and how the folder of an app becomes a file."""

from __future__ import annotations

import os
import plistlib
import zipfile
from pathlib import Path

import pytest

from qgjob.appfile import AppFile, pack_app, read_app_file


def archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, b"")
    return path


@pytest.mark.parametrize(
    ("names", "platform"),
    [
        (("classes.dex", "AndroidManifest.xml"), "android"),
        (("Payload/", "Payload/Shop.app/Shop", "Payload/Shop.app/Info.plist"), "ios"),
        (("Shop.app/Info.plist",), "ios"),
        (("Shop.app/Frameworks/Pay.framework/Info.plist", "Shop.app/Frameworks/x.app/Info.plist"), ""),
        (("base/manifest/AndroidManifest.xml", "BundleConfig.pb"), ""),
        ((), ""),
    ],
)
def test_platform_is_told_by_what_lies_in_the_file(tmp_path: Path, names: tuple[str, ...], platform: str) -> None:
    assert read_app_file(archive(tmp_path / "app", *names)).platform == platform


def test_file_that_is_no_archive_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "app.ipa").write_bytes(b"PK\x03\x04 and no more")
    assert read_app_file(tmp_path / "app.ipa") == AppFile()


@pytest.mark.parametrize(
    ("platforms", "kind"),
    [
        (["iPhoneSimulator"], "emulator"),
        (["iPhoneOS"], "device"),
        (["iPhoneOS", "iPhoneSimulator"], ""),
        ([], ""),
        (7, ""),
        (None, ""),
    ],
)
def test_app_of_ios_says_for_which_devices_it_was_built(tmp_path: Path, platforms: object, kind: str) -> None:
    info = {} if platforms is None else {"CFBundleSupportedPlatforms": platforms}
    with zipfile.ZipFile(tmp_path / "app.ipa", "w") as packed:
        packed.writestr("Payload/Shop.app/Info.plist", plistlib.dumps(info))
    assert read_app_file(tmp_path / "app.ipa") == AppFile(platform="ios", kind=kind)


def app(folder: Path) -> Path:
    """The folder of an app as Xcode makes it: a program that can be run, a link, files."""
    (folder / "Base.lproj").mkdir(parents=True)
    for name in ("Info.plist", "Shop", "Base.lproj/Main.strings"):
        (folder / name).write_text(name)
    (folder / "Shop").chmod(0o755)
    (folder / "Current").symlink_to("Base.lproj")
    return folder


def test_same_folder_gives_the_same_bytes_whenever_it_was_made(tmp_path: Path) -> None:
    one, two = app(tmp_path / "one" / "Shop.app"), app(tmp_path / "two" / "Shop.app")
    os.utime(two / "Shop", (1, 1))
    pack_app(one, tmp_path / "one.zip")
    pack_app(two, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert read_app_file(tmp_path / "one.zip").platform == "ios"


def test_packed_folder_keeps_links_and_what_can_be_run(tmp_path: Path) -> None:
    pack_app(app(tmp_path / "Shop.app"), tmp_path / "app.zip")
    with zipfile.ZipFile(tmp_path / "app.zip") as packed:
        modes = {entry.filename: entry.external_attr >> 16 for entry in packed.infolist()}
        assert packed.read("Shop.app/Current") == b"Base.lproj"
    assert modes == {
        "Shop.app/Base.lproj/Main.strings": 0o100644,
        "Shop.app/Current": 0o120777,
        "Shop.app/Info.plist": 0o100644,
        "Shop.app/Shop": 0o100755,
    }


@pytest.mark.parametrize("name", ["Shop.app", "Shop"])
def test_folder_that_is_no_app_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match="is no app of iOS"):
        pack_app(tmp_path / name, tmp_path / "app.zip")
