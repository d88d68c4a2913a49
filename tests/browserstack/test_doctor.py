"""What an agent's doctor says of an account."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import CloudConfig, Config
from agent.core.model import AgentId
from agent.doctor import examine
from qgjob.checkup import Check, Finding
from tests.browserstack.stand_in import ACCESS_KEY, USERNAME, StandIn

Look = Callable[..., Check]


@pytest.fixture
def look(stand_in: StandIn, tmp_path: Path) -> Look:
    """Look at the stand-in's account with some key."""

    def look(key: str = ACCESS_KEY, mode: int = 0o600) -> Check:
        credentials = tmp_path / "credentials"
        credentials.write_text(f"{USERNAME}:{key}")
        credentials.chmod(mode)
        cloud = CloudConfig(credentials=str(credentials), api_url=stand_in.url, hub_url=f"{stand_in.url}/wd/hub")
        config = Config(
            coordinators=(),
            name=AgentId("lab"),
            state_dir=tmp_path,
            simulate=(),
            sim_install_s=0,
            sim_test_s=0,
            drain_grace_s=0,
            is_for_bundles=True,
            cloud=cloud,
        )
        return examine(config)[-1]

    return look


def test_account_that_works_is_told_with_its_sessions(look: Look, stand_in: StandIn) -> None:
    stand_in.foreign = 1
    found = look()
    assert (found.finding, found.message) == (Finding.OK, "lab_user@127.0.0.1: 1 of 2 sessions are in use")


def test_wrong_key_an_open_file_an_outage_and_an_empty_plan_are_told_with_what_to_do(
    look: Look, stand_in: StandIn
) -> None:
    assert "refuses the credentials; mend --browserstack-credentials" in look("wrong").message
    assert "chmod 600" in look(mode=0o644).message
    stand_in.parallels = 0
    assert look().message == "the plan of the account allows no session"
    stand_in.is_out = True
    found = look()
    assert (found.finding, found.hint) == (Finding.FAILED, "the agent asks again until it answers")


def test_queue_at_browserstack_is_a_warning(look: Look, stand_in: StandIn) -> None:
    stand_in.queued = 3
    found = look()
    assert (found.finding, found.message) == (Finding.WARNING, "0 of 2 sessions are in use, and 3 wait there")
