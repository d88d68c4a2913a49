"""Builds a small but valid APK: for tests, and for demonstrations that must not download anything.

The result is aligned and signed, so that Android's packaging tools and Appium take it for what it is. It contains no
code: only a phone that draws its screens itself, as the virtual one does, can "run" it.
"""

import random
import shutil
import struct
import subprocess
import tempfile
import zipfile
from pathlib import Path

from agent.virtual_phone.axml import Element, encode
from agent.virtual_phone.errors import BuildToolFailed, ToolMissing

MAIN_ACTION = "android.intent.action.MAIN"
LAUNCHER_CATEGORY = "android.intent.category.LAUNCHER"
MINIMUM_SDK = 24
TARGET_SDK = 33
TOOL_TIMEOUT_SECONDS = 60
KEYSTORE_PASSWORD = "android"  # noqa: S105 - the well-known password of every debug keystore
KEY_ALIAS = "androiddebugkey"

# A fixed time makes the same arguments give the same unsigned bytes; it is the earliest that a zip can express.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_EMPTY_RESOURCE_TABLE = struct.pack("<HHII", 0x0002, 12, 12 + 28, 0) + struct.pack(
    "<HHIIIIII", 0x0001, 28, 28, 0, 0, 1 << 8, 0, 0
)


def build_apk(
    path: Path,
    package: str,
    version_code: int,
    version_name: str,
    padding_bytes: int = 0,
    *,
    activity: str = ".MainActivity",
    label: str = "Demo",
    permissions: tuple[str, ...] = ("android.permission.INTERNET",),
    is_test_only: bool = False,
    keystore: Path | None = None,
) -> Path:
    """Write a signed APK to `path` and return `path`.

    Args:
        path: where the APK goes; replaced if it exists.
        package: the application id, such as ``org.example.demo``.
        version_code: Android's integer version, 1 to 2147483647.
        version_name: the version that people read.
        padding_bytes: incompressible bytes to add as an asset, to make the file as large as a real one.
        activity: the activity that the launcher starts; a leading dot stands for the package.
        label: the name under the launcher's icon.
        permissions: the permissions that the app asks for.
        is_test_only: whether only ``adb install -t`` may install it.
        keystore: a keystore to sign with, made on first use; without one, a new key is made for this APK. Versions
            of one app should share a keystore, as a phone refuses an update that is signed by another key.

    Raises:
        ToolMissing: ``zipalign``, ``apksigner`` or ``keytool`` is not installed.
        BuildToolFailed: one of them refused.
        ValueError: `version_code` is out of range.
    """
    if not 0 < version_code < 1 << 31:
        raise ValueError(f"version_code must be in 1..2147483647, not {version_code}")
    manifest = encode(
        _manifest(package, version_code, version_name, activity, label, permissions, is_test_only=is_test_only)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="apk-") as scratch:
        unsigned = Path(scratch, "unsigned.apk")
        aligned = Path(scratch, "aligned.apk")
        _write_zip(unsigned, manifest, padding_bytes)
        _run("zipalign", "-f", "4", str(unsigned), str(aligned))
        key = keystore or Path(scratch, "debug.keystore")
        if not key.exists():
            make_keystore(key)
        _sign(aligned, key)
        shutil.move(aligned, path)
    return path


def make_keystore(path: Path) -> None:
    """Make a keystore with one debug key; raises `ToolMissing` or `BuildToolFailed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["-genkeypair", "-keystore", str(path), "-storetype", "PKCS12", "-storepass", KEYSTORE_PASSWORD]
    arguments += ["-alias", KEY_ALIAS, "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000"]
    _run("keytool", *arguments, "-dname", "CN=Android Debug, O=Android, C=US")


def _manifest(
    package: str,
    version_code: int,
    version_name: str,
    activity: str,
    label: str,
    permissions: tuple[str, ...],
    *,
    is_test_only: bool,
) -> Element:
    launcher = Element(
        tag="intent-filter",
        children=(
            Element(tag="action", android={"name": MAIN_ACTION}),
            Element(tag="category", android={"name": LAUNCHER_CATEGORY}),
        ),
    )
    name = package + activity if activity.startswith(".") else activity
    flags: dict[str, bool] = {"testOnly": True} if is_test_only else {}
    application = Element(
        tag="application",
        android={"label": label, "debuggable": True, **flags},
        children=(Element(tag="activity", android={"name": name, "exported": True}, children=(launcher,)),),
    )
    return Element(
        tag="manifest",
        android={"versionCode": version_code, "versionName": version_name},
        plain={"package": package},
        children=(
            Element(tag="uses-sdk", android={"minSdkVersion": MINIMUM_SDK, "targetSdkVersion": TARGET_SDK}),
            *(Element(tag="uses-permission", android={"name": permission}) for permission in permissions),
            application,
        ),
    )


def _write_zip(path: Path, manifest: bytes, padding_bytes: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        _add(archive, "AndroidManifest.xml", manifest, zipfile.ZIP_DEFLATED)
        _add(archive, "resources.arsc", _EMPTY_RESOURCE_TABLE, zipfile.ZIP_STORED)
        if padding_bytes:
            padding = random.Random(padding_bytes).randbytes(padding_bytes)  # noqa: S311 - filler, not a secret
            _add(archive, "assets/padding.bin", padding, zipfile.ZIP_STORED)


def _add(archive: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    entry = zipfile.ZipInfo(name, date_time=_ZIP_TIME)
    entry.compress_type = compression
    archive.writestr(entry, content)


def _sign(path: Path, keystore: Path) -> None:
    arguments = ["sign", "--ks", str(keystore), "--ks-key-alias", KEY_ALIAS]
    arguments += ["--ks-pass", f"pass:{KEYSTORE_PASSWORD}", "--key-pass", f"pass:{KEYSTORE_PASSWORD}"]
    _run("apksigner", *arguments, str(path))
    path.with_name(path.name + ".idsig").unlink(missing_ok=True)


def _run(tool: str, *arguments: str) -> None:
    executable = shutil.which(tool)
    if executable is None:
        raise ToolMissing(tool)
    done = subprocess.run(
        [executable, *arguments], capture_output=True, text=True, timeout=TOOL_TIMEOUT_SECONDS, check=False
    )
    if done.returncode:
        raise BuildToolFailed(tool, done.returncode, (done.stderr or done.stdout).strip())
