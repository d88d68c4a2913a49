"""APKs: built, read and judged with Debian's packaging tools."""

from __future__ import annotations

import re
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.virtual_phone.apk import build_apk, make_keystore
from agent.virtual_phone.badging import ApkUnreadable, Badging, read_badging
from agent.virtual_phone.errors import BuildToolFailed, ToolMissing
from agent.virtual_phone.signatures import signer

PACKAGE = "org.example.demo"

pytestmark = pytest.mark.android_tools


@dataclass(frozen=True)
class Apks:
    """Signed twice: with one key in schemes 2 and 3, and with that key in scheme 1 only; and not at all."""

    new: Path
    old: Path
    unsigned: Path
    keystore: Path


@pytest.fixture(scope="module")
def apks(tmp_path_factory: pytest.TempPathFactory) -> Apks:
    directory = tmp_path_factory.mktemp("apks")
    keystore = directory / "key.p12"
    make_keystore(keystore)
    new = build_apk(directory / "new.apk", PACKAGE, 7, "1.7-beta", 5000, is_test_only=True, keystore=keystore)
    unsigned = directory / "unsigned.apk"
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(unsigned, "w") as target:
        for entry in (entry for entry in source.infolist() if not entry.filename.startswith("META-INF/")):
            target.writestr(entry, source.read(entry))
    old = directory / "old.apk"
    key = ["--ks", str(keystore), "--ks-pass", "pass:android", "--ks-key-alias", "androiddebugkey"]
    schemes = ["--v1-signing-enabled", "true", "--v2-signing-enabled", "false", "--v3-signing-enabled", "false"]
    command = ["apksigner", "sign", *key, *schemes, "--min-sdk-version", "21", "--out", str(old), str(unsigned)]
    subprocess.run(command, check=True, capture_output=True)
    return Apks(new, old, unsigned, keystore)


async def test_built_apk_says_what_it_was_built_with(apks: Apks) -> None:
    badging = await read_badging(apks.new.read_bytes())
    assert badging == Badging(
        package=PACKAGE,
        version_code=7,
        version_name="1.7-beta",
        label="Demo",
        launchable_activity=f"{PACKAGE}.MainActivity",
        minimum_sdk=24,
        target_sdk=33,
        permissions=("android.permission.INTERNET",),
        abis=(),
        is_test_only=True,
        signer=badging.signer,
        activities=frozenset({f"{PACKAGE}.MainActivity"}),
        services=frozenset(),
        receivers=frozenset(),
        instrumentations=(),
    )


def printed_signer(path: Path) -> str:
    done = subprocess.run(
        ["apksigner", "verify", "--print-certs", "--min-sdk-version", "21", str(path)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = re.search(r"certificate SHA-256 digest: ([0-9a-f]{64})", done.stdout)
    assert found is not None
    return found[1]


async def test_signer_is_the_one_that_apksigner_prints_in_whatever_scheme(apks: Apks) -> None:
    printed = printed_signer(apks.new)
    assert (await read_badging(apks.new.read_bytes())).signer == printed
    with zipfile.ZipFile(apks.old) as archive:
        assert any(name.endswith(".RSA") for name in archive.namelist())
    assert (await read_badging(apks.old.read_bytes())).signer == printed


async def test_unsigned_apk_has_no_signer(apks: Apks) -> None:
    assert (await read_badging(apks.unsigned.read_bytes())).signer is None


def test_each_apk_without_a_keystore_has_a_signer_of_its_own(apks: Apks, tmp_path: Path) -> None:
    other = build_apk(tmp_path / "other.apk", PACKAGE, 8, "2.0")
    with zipfile.ZipFile(other) as archive:
        found = signer(other, archive)
    assert found == printed_signer(other)
    assert found != printed_signer(apks.new)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "NOT_APK"),
        (b"no APK at all", "NOT_APK"),
        (b"PK\x05\x06" + bytes(18), "INSTALL_PARSE_FAILED"),  # a zip without a file
    ],
)
async def test_bytes_that_are_no_apk_are_refused(content: bytes, said: str) -> None:
    with pytest.raises(ApkUnreadable, match=said):
        await read_badging(content)


async def test_apk_whose_manifest_is_garbage_is_refused(apks: Apks, tmp_path: Path) -> None:
    path = tmp_path / "garbage.apk"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("AndroidManifest.xml", b"\x00" * 64)
    with pytest.raises(ApkUnreadable, match="INSTALL_PARSE_FAILED"):
        await read_badging(path.read_bytes())


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("which", ["new", "old"])
def test_damaged_apk_has_a_signer_or_none_or_is_no_zip(
    apks: Apks, tmp_path: Path, which: str, data: st.DataObject
) -> None:
    content = bytearray(getattr(apks, which).read_bytes())
    start = len(content) * 2 // 5  # the padding comes first, and does not matter
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(start, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(start, len(content))) :]
    path = tmp_path / "damaged.apk"
    path.write_bytes(content)
    try:
        with zipfile.ZipFile(path) as archive:
            found = signer(path, archive)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # what `read_badging` takes for no APK
    assert found is None or len(found) == 64


def test_certificates_that_cannot_be_unpacked_sign_nothing(tmp_path: Path) -> None:
    path = tmp_path / "damaged.apk"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/CERT.RSA", b"certificate " * 64)
    content = bytearray(path.read_bytes())
    begin = content.index(b"META-INF/CERT.RSA") + len(b"META-INF/CERT.RSA")
    content[begin : begin + 4] = b"\xff" * 4
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        assert signer(path, archive) is None


async def test_missing_tool_is_named_with_its_package(apks: Apks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    with pytest.raises(ToolMissing, match=r"aapt is not on PATH .*apt-get install aapt"):
        await read_badging(apks.new.read_bytes())


def test_tool_that_refuses_is_named_with_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "key.p12").write_bytes(b"no keystore")
    with pytest.raises(BuildToolFailed, match="apksigner ended with"):
        build_apk(tmp_path / "x.apk", PACKAGE, 1, "1.0", keystore=tmp_path / "key.p12")


@pytest.mark.parametrize("version_code", [0, -1, 1 << 31])
def test_version_code_that_android_does_not_take_is_refused(tmp_path: Path, version_code: int) -> None:
    with pytest.raises(ValueError, match="version_code"):
        build_apk(tmp_path / "x.apk", PACKAGE, version_code, "1.0")
