"""Coordinator, agent and command line with TLS and tokens, as they talk from host to host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.e2e.grid import QUICK, Grid, eventually, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

CLIENT, AGENT = "client-token-0123456789", "agent-token-0123456789"
SIMULATED = ("--simulate", "emulator=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    """A coordinator that asks for tokens over TLS; the command line is let in."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "stranger.pem")
    (tmp_path / "tokens").write_text(f"ci client {CLIENT}\nlab-1 agent {AGENT}\n")
    (tmp_path / "agent-token").write_text(AGENT)
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with running_grid(tmp_path) as grid:
        grid.coordinator(*QUICK, *tls, "--token-file", str(tmp_path / "tokens"))
        grid.env |= {"QGJOB_TLS_CA": str(tmp_path / "ca.pem"), "QGJOB_TOKEN": CLIENT}
        yield grid


def shown(grid: Grid) -> tuple[str, ...]:
    return ("--tls-ca", str(grid.directory / "ca.pem"), "--token-file", str(grid.directory / "agent-token"))


def test_job_runs_over_tls_with_tokens_and_its_log_is_followed(grid: Grid) -> None:
    grid.agent("lab-1", *SIMULATED, *shown(grid))
    submit = ("submit", "--org-id", "q", "--app-version-id", "v", "--test", "t.spec.ts", "--wait", "--follow")
    assert grid.run(*submit, "--env", "QGJOB_SIM_LOG_LINES=5").stdout.count("\n") >= 5


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"QGJOB_TOKEN": ""}, 4, "the call has none"),
        ({"QGJOB_TOKEN": "guessed-token-0123456789"}, 4, "does not know the token"),
        ({"QGJOB_TOKEN": AGENT}, 4, "the token of lab-1 is not one of role client"),
        ({"QGJOB_TLS_CA": "{directory}/stranger.pem"}, 6, "its certificate is not of the authority"),
        ({"QGJOB_TLS_CA": "{directory}/nowhere.pem"}, 2, "cannot read"),
        ({"QGJOB_TLS_CA": ""}, 6, "no coordinator answers"),
    ],
    ids=["no token", "unknown token", "agent's token", "stranger's CA", "no such file", "no TLS"],
)
def test_whoever_is_not_let_in_gets_one_clear_line(grid: Grid, change: dict[str, str], code: int, words: str) -> None:
    grid.env |= {name: value.format(directory=grid.directory) for name, value in change.items()}
    told = grid.run("jobs", "list", code=code).stderr.splitlines()
    assert [line.partition(":")[0] for line in told] == ["error", "hint"]
    assert words in told[0]


def test_agent_without_its_token_says_so_and_is_let_in_when_the_file_is_mended(grid: Grid) -> None:
    (grid.directory / "agent-token").write_text("not-yet-known-0123456789")
    agent = grid.agent("lab-1", *SIMULATED, *shown(grid))
    eventually(lambda: "does not know the token" in agent.diagnostics.read_text(), "the agent says why")
    (grid.directory / "agent-token").write_text(AGENT)
    eventually(lambda: [one["state"] for one in grid.agents()] == ["connected"], "the agent is let in")


def test_agent_says_in_plain_words_whose_certificate_it_does_not_trust(grid: Grid) -> None:
    stranger = ("--tls-ca", str(grid.directory / "stranger.pem"), "--token-file", str(grid.directory / "agent-token"))
    agent = grid.agent("lab-1", *SIMULATED, *stranger)
    words = "no TLS with the coordinator: its certificate is not of the authority that is trusted here"
    eventually(lambda: words in agent.diagnostics.read_text(), "the agent says why")


def test_agent_goes_on_when_its_token_file_is_gone_for_a_moment(grid: Grid) -> None:
    token = grid.directory / "agent-token"
    away = token.rename(grid.directory / "away")
    token.write_text("not-yet-known-0123456789")
    agent = grid.agent("lab-1", *SIMULATED, *shown(grid))
    eventually(lambda: "does not know the token" in agent.diagnostics.read_text(), "the agent is refused")
    token.unlink()
    eventually(lambda: "No such file" in agent.diagnostics.read_text(), "the agent misses its file")
    away.rename(token)
    eventually(lambda: [one["state"] for one in grid.agents()] == ["connected"], "the agent is let in")
