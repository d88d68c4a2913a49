"""The package manager's rules, on APKs that need no packaging tools."""

from __future__ import annotations

import hashlib

import pytest

from agent.virtual_phone.packages import InstallOptions, InstallRefused
from tests.agent.virtual_phone.factories import PACKAGE, apk, install, make_phone, shell


async def refusal(given: bytes, *, over: bytes | None = None, options: InstallOptions | None = None) -> str:
    """Install an APK, if wanted over another, and return the code with which it is refused."""
    phone = make_phone()
    if over is not None:
        await phone.packages.install(over, InstallOptions())
    before = [(item.sha256, item.badging) for item in phone.packages.all()]
    with pytest.raises(InstallRefused) as refused:
        await phone.packages.install(given, options or InstallOptions())
    assert [(item.sha256, item.badging) for item in phone.packages.all()] == before, (
        "a refused install changed something"
    )
    return refused.value.code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"signer": None}, "INSTALL_PARSE_FAILED_NO_CERTIFICATES"),
        ({"minimum_sdk": 34}, "INSTALL_FAILED_OLDER_SDK"),
        ({"abis": ["x86_64"]}, "INSTALL_FAILED_NO_MATCHING_ABIS"),
        ({"is_test_only": True}, "INSTALL_FAILED_TEST_ONLY"),
    ],
)
async def test_app_that_the_phone_cannot_run_is_refused(changes: dict[str, object], code: str) -> None:
    assert await refusal(apk(**changes)) == code


async def test_bytes_that_are_no_apk_are_refused() -> None:
    assert await refusal(b"no APK at all") == "INSTALL_PARSE_FAILED_NOT_APK"


async def test_update_of_another_signer_is_refused() -> None:
    code = await refusal(apk(version_code=2, signer="bb" * 32), over=apk(version_code=1))
    assert code == "INSTALL_FAILED_UPDATE_INCOMPATIBLE"


async def test_older_version_is_refused_unless_a_downgrade_is_asked_for() -> None:
    assert await refusal(apk(version_code=1), over=apk(version_code=2)) == "INSTALL_FAILED_VERSION_DOWNGRADE"
    phone = make_phone()
    await install(phone, version_code=2)
    await phone.packages.install(apk(version_code=1), InstallOptions(may_downgrade=True))
    assert phone.packages.get(PACKAGE).badging.version_code == 1


async def test_installed_app_is_not_replaced_when_that_is_forbidden() -> None:
    code = await refusal(apk(), over=apk(), options=InstallOptions(may_replace=False))
    assert code == "INSTALL_FAILED_ALREADY_EXISTS"


async def test_update_keeps_the_data_and_the_user_of_the_app() -> None:
    phone = make_phone()
    await install(phone, version_code=1)
    old = phone.packages.get(PACKAGE)
    old.data["note"] = "kept"
    await install(phone, version_code=2)
    new = phone.packages.get(PACKAGE)
    assert (new.data, new.user_id, new.badging.version_code) == ({"note": "kept"}, old.user_id, 2)


async def test_stream_that_ends_early_is_no_install() -> None:
    phone = make_phone()
    code, output, _ = await shell(phone, "cmd package install -r -S 100", b"too short")
    assert (code, output) == (1, "Failure [INSTALL_PARSE_FAILED_NOT_APK: only 9 of 100 bytes]\n")
    assert phone.packages.all() == []


@pytest.mark.parametrize("size", ["0", "-1", "x", "²", "9" * 5000, str(10**12)])
async def test_absurd_size_is_refused_before_anything_is_read(size: str) -> None:
    code, output, _ = await shell(make_phone(), f"cmd package install -S {size}", b"x")
    assert code == 1
    assert output.startswith("Failure [INSTALL_FAILED_INVALID_APK")


async def test_phone_holds_the_very_bytes_that_were_installed() -> None:
    phone = make_phone()
    content = apk(version_code=3)
    code, output, _ = await shell(phone, f"cmd package install -r -S {len(content)}", content)
    assert (code, output) == (0, "Success\n")
    path = (await shell(phone, f"pm path {PACKAGE}"))[1].strip().removeprefix("package:")
    digest = hashlib.sha256(content).hexdigest()
    assert (await shell(phone, f"sha256sum {path}"))[1] == f"{digest}  {path}\n"
