"""A Mac that is played: `xcrun` on PATH, and apps to install."""

from __future__ import annotations

import json
import os
import plistlib
import zipfile
from pathlib import Path

import pytest

from tests.agent.ios.xcrun_stand_in import install_stand_in

BOOTED = "3F2A91C0-54B7-4C1D-9D1E-7B0E6A1C2D01"
"""An iPhone 15 with iOS 17.2 that runs."""
SHUT = "C1D80E44-7A16-4E0B-B0A2-5D2F8C9E4A03"
"""An iPhone 15 with iOS 18.0 that does not."""
PHONE = "00008120-000A11223344401E"
BUNDLE = "org.example.shop"


class Mac:
    """The stand-in, as tests see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def calls(self, verb: str = "") -> list[str]:
        """What was called so far, or what of it holds a word."""
        path = self.folder / "calls"
        calls = path.read_text().splitlines() if path.exists() else []
        return [call for call in calls if not verb or verb in call.split()]

    def fail(self, **faults: str) -> None:
        """Let commands fail; `device_install` stands for `devicectl device install`."""
        named = {command.replace("_", " ").replace("  ", "_"): sentence for command, sentence in faults.items()}
        (self.folder / "faults").write_text(json.dumps(named))

    def phones(self) -> dict[str, object]:
        told: dict[str, object] = json.loads((self.folder / "phones").read_text())
        return told


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    folder = install_stand_in(tmp_path / "mac")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Mac(folder)


def app_folder(folder: Path, *, bundle: str = BUNDLE, platform: str = "iPhoneSimulator", content: str = "1") -> Path:
    """Make the folder of an app as Xcode does."""
    folder.mkdir(parents=True)
    info = {
        "CFBundleIdentifier": bundle,
        "CFBundleExecutable": "Shop",
        "CFBundleSupportedPlatforms": [platform] if platform else [],
    }
    (folder / "Info.plist").write_bytes(plistlib.dumps(info))
    (folder / "Shop").write_text(content)
    (folder / "Shop").chmod(0o755)
    return folder


def ipa(path: Path, folder: Path) -> Path:
    """Make an .ipa of the folder of an app."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"Payload/{folder.name}/{file.relative_to(folder)}")
    return path
