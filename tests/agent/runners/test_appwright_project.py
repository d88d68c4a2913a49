"""What a real Playwright makes of a project's config."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.appium import Toolbox
from agent.runners.appwright_project import ProjectUnusable, build_path
from examples import node_packages

EXAMPLE = node_packages.ROOT / "examples" / "wikipedia"

pytestmark = [pytest.mark.appwright, pytest.mark.timeout(600)]


@pytest.fixture
def tools(tmp_path: Path) -> Toolbox:
    return Toolbox(project=node_packages.lay_out(EXAMPLE, tmp_path / "project"), state_dir=tmp_path / "state")


def write_config(tools: Toolbox, text: str) -> None:
    (tools.project / "appwright.config.ts").write_text(text)


async def test_build_path_is_read_from_the_config_and_leaves_nothing_behind(tools: Toolbox) -> None:
    before = sorted(tools.project.iterdir())
    assert await build_path(tools, "emulator") == tools.project / "apps" / "wikipedia.apk"
    assert sorted(tools.project.iterdir()) == before


async def test_config_that_cannot_be_loaded_is_named_with_its_error(tools: Toolbox) -> None:
    write_config(tools, 'throw new Error("no licence for this lab");')
    with pytest.raises(ProjectUnusable, match=r"cannot be loaded: .*no licence for this lab"):
        await build_path(tools, "emulator")


async def test_config_without_a_build_says_where_to_name_one(tools: Toolbox) -> None:
    write_config(
        tools, 'export default { projects: [{ use: { platform: "android", device: { provider: "emulator" } } }] };'
    )
    with pytest.raises(ProjectUnusable, match="names no buildPath; name one there, or give --build-source"):
        await build_path(tools, "emulator")


async def test_config_without_an_android_project_says_so(tools: Toolbox) -> None:
    write_config(tools, "export default { projects: [] };")
    with pytest.raises(ProjectUnusable, match="no Android project with provider emulator or local-device"):
        await build_path(tools, "emulator")
