"""What the wrapper takes from the real AppWright, and does when that is another one than it knows."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.browserstack.client import Client
from agent.browserstack.gateway import Gateway, Visit
from agent.runners.appwright_project import NODE_FILES
from examples import node_packages
from tests.browserstack.stand_in import StandIn

EXAMPLE = node_packages.ROOT / "examples" / "wikipedia"

pytestmark = [pytest.mark.appwright, pytest.mark.timeout(600)]


def run(script: str, dist: Path, **env: str) -> subprocess.CompletedProcess[str]:
    head = f"const {{ patchBrowserStack, cloudDevice }} = require({json.dumps(str(NODE_FILES / 'browserstack.cjs'))});"
    command = ["node", "-e", f"const dist = {json.dumps(str(dist))}; {head} {script}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env={**PATH, **env})


PATH = {"PATH": os.environ["PATH"]}


@pytest.fixture
def dist() -> Path:
    return node_packages.install(EXAMPLE) / "appwright" / "dist"


@pytest.fixture
def gateway(client: Client) -> Iterator[Gateway]:
    gateway = Gateway(client)
    yield gateway
    gateway.close()


def test_picture_for_the_camera_is_uploaded_through_the_gateway(
    dist: Path, gateway: Gateway, stand_in: StandIn, tmp_path: Path
) -> None:
    picture = tmp_path / "card.png"
    picture.write_bytes(bytes(range(256)) * 1_000)
    path = gateway.begin(Visit("job 1", lambda line: None))
    script = (
        "patchBrowserStack(dist); const { uploadImageToBS } = require(dist + '/providers/browserstack/utils.js');"
        f" uploadImageToBS({json.dumps(str(picture))}).then((url) => console.log(url));"
    )
    done = run(script, dist, QGJOB_GATEWAY=f"{gateway.address}{path}", QGJOB_BUILD_PATH="bs://app")
    assert (done.stdout, done.stderr) == ("media://1\n", "")
    assert stand_in.media == [picture.read_bytes()]


def test_appwright_without_an_entry_point_is_refused_with_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "providers" / "browserstack"
    folder.mkdir(parents=True)
    (folder / "utils.js").write_text("exports.uploadImageToBS = () => {};")
    methods = " ".join(f"{name}() {{}}" for name in ("globalSetup", "createConfig", "syncTestDetails"))
    (folder / "index.js").write_text(f"exports.BrowserStackDeviceProvider = class {{ {methods} }};")
    done = run("patchBrowserStack(dist)", tmp_path)
    assert "QGJOB_UNKNOWN_APPWRIGHT this AppWright has no downloadVideo for BrowserStack" in done.stderr


@pytest.mark.parametrize(
    ("is_chosen", "own", "name"),
    [
        (False, {"provider": "emulator"}, "Google Pixel 8"),
        (False, {"provider": "browserstack", "name": "Pixel 4", "osVersion": "10.0"}, "Pixel 4"),
        (True, {"provider": "browserstack", "name": "Pixel 4", "osVersion": "10.0"}, "Google Pixel 8"),
        (False, {"provider": "browserstack"}, "Google Pixel 8"),
    ],
)
def test_projects_own_device_counts_unless_the_job_asks_for_one(
    tmp_path: Path, is_chosen: bool, own: dict[str, str], name: str
) -> None:
    offered = json.dumps({"name": "Google Pixel 8", "osVersion": "14.0", "isChosen": is_chosen})
    script = f"console.log(JSON.stringify(cloudDevice({json.dumps(own)})))"
    device = json.loads(run(script, tmp_path, QGJOB_DEVICE=offered).stdout)
    assert (device["provider"], device["name"]) == ("browserstack", name)
