"""Builds that are missing or broken are named before a device is touched."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from agent.builds import BuildSource, BuildUnusable
from agent.downloads import Downloads


def source(folder: Path, template: str = "{app_version_id}.apk") -> BuildSource:
    """A source of a project that says that its own build lies in own.apk."""

    async def ask_project() -> Path:
        return folder / "own.apk"

    return BuildSource(template, folder, ask_project, Downloads(folder / "downloads"))


async def reason(source: BuildSource, version: str = "v1") -> tuple[str, str]:
    with pytest.raises(BuildUnusable) as caught:
        await source.find(version)
    return caught.value.failure.reason, caught.value.failure.message


@pytest.mark.parametrize("version", ["v1", "x" * 300])
async def test_missing_build_says_where_it_was_looked_for(tmp_path: Path, version: str) -> None:
    code, message = await reason(source(tmp_path), version)
    assert code == "BUILD_NOT_FOUND"
    assert f"{tmp_path}/{version}.apk is missing" in message


@pytest.mark.parametrize("version", ["../secret", "..", "a/b", "a\\b", ".hidden"])
async def test_version_never_leads_out_of_the_folder(tmp_path: Path, version: str) -> None:
    code, message = await reason(source(tmp_path), version)
    assert (code, "cannot be part of a path" in message) == ("BUILD_NOT_FOUND", True)


async def test_file_that_is_no_archive_is_no_apk(tmp_path: Path) -> None:
    (tmp_path / "v1.apk").write_bytes(b"PK\x03\x04 but no archive")
    assert (await reason(source(tmp_path)))[0] == "BUILD_INVALID"


async def test_archive_without_a_manifest_is_no_apk(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "v1.apk", "w") as archive:
        archive.writestr("classes.dex", b"")
    assert (await reason(source(tmp_path)))[0] == "BUILD_INVALID"


async def test_folder_is_no_apk(tmp_path: Path) -> None:
    (tmp_path / "v1.apk").mkdir()
    assert (await reason(source(tmp_path)))[0] == "BUILD_INVALID"


async def test_without_a_template_the_project_is_asked(tmp_path: Path) -> None:
    code, message = await reason(source(tmp_path, template=""), "../anything")
    assert code == "BUILD_NOT_FOUND"
    assert f"{tmp_path}/own.apk is missing; put it there, or mend the project's buildPath" in message
