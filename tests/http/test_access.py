"""Who is let in over HTTP: the same tokens, roles and certificates as over gRPC."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import trustme
from typer.testing import CliRunner

from coordinator.config import Config, ConfigError
from coordinator.main import app
from coordinator.server import Server
from tests.http.grid import PATIENCE_S
from tests.rpc.test_access import AGENT, CLIENT, OWNER, Lab


class WebLab(Lab):
    """A coordinator with tokens that serves both ports."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.config: Config = replace(self.config, http="127.0.0.1:0")

    async def serve(self, *, verify: ssl.SSLContext | None = None) -> httpx2.AsyncClient:
        await self.start()
        scheme = "http" if self.config.tls is None else "https"
        return httpx2.AsyncClient(
            base_url=f"{scheme}://{self.server.http_address}", verify=verify or False, timeout=PATIENCE_S
        )

    def trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[WebLab]:
    lab = WebLab(tmp_path)
    yield lab
    await lab.server.stop()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("guessed-token-0123456789"), {"Authorization": "Bearer"}, {"Authorization": f"Basic {CLIENT}"}],
    ids=["none", "unknown", "empty", "other scheme"],
)
async def test_request_without_a_known_token_is_refused(lab: WebLab, headers: dict[str, str]) -> None:
    async with await lab.serve() as web:
        for path in ("/jobs", "/metrics", "/jobs/1/logs", "/nowhere"):
            answer = await web.get(path, headers=headers)
            assert (answer.status_code, answer.json()["reason"]) == (401, "UNAUTHENTICATED")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "guessed" not in answer.text


async def test_token_opens_what_its_role_may_do_and_nothing_else(lab: WebLab) -> None:
    async with await lab.serve() as web:
        assert (await web.get("/jobs", headers=bearer(CLIENT))).status_code == 200
        assert (await web.get("/metrics", headers=bearer(OWNER))).status_code == 200
        answer = await web.get("/jobs", headers=bearer(AGENT))
    assert (answer.status_code, answer.json()["fields"]) == (403, {"name": "lab-1", "role": "client"})


async def test_health_the_dashboard_and_the_page_of_the_api_are_open(lab: WebLab) -> None:
    async with await lab.serve() as web:
        for path in (
            "/healthz",
            "/readyz",
            "/",
            "/dashboard/app.js",
            "/docs",
            "/openapi.json",
            "/docs/swagger-ui-bundle.js",
        ):
            assert (await web.get(path)).status_code == 200


async def test_new_token_counts_on_both_ports_at_once(lab: WebLab) -> None:
    async with await lab.serve() as web:
        lab.tokens.write_text("newcomer client another-token-0123456789")
        assert (await web.get("/jobs", headers=bearer("another-token-0123456789"))).status_code == 200
        assert (await web.get("/jobs", headers=bearer(CLIENT))).status_code == 401


async def test_tls_is_that_of_grpc_and_a_renewed_certificate_is_taken_up(lab: WebLab) -> None:
    lab.with_tls()
    async with await lab.serve(verify=lab.trust()) as web:
        assert (await web.get("/healthz")).status_code == 200
    stranger = trustme.CA()
    lab.authority, before = stranger, lab.authority
    assert lab.config.tls is not None
    lab.write_certificate(lab.config.tls)
    url = f"https://{lab.server.http_address}/healthz"
    async with httpx2.AsyncClient(verify=lab.trust()) as web:
        assert (await web.get(url)).status_code == 200
    lab.authority = before
    async with httpx2.AsyncClient(verify=lab.trust()) as web:
        with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
            await web.get(url)


async def test_client_without_a_certificate_is_not_let_in_where_one_is_asked_for(lab: WebLab) -> None:
    lab.with_tls(asks_for_certificates=True)
    ours = lab.trust()
    async with await lab.serve(verify=lab.trust()) as web:
        with pytest.raises(httpx2.TransportError):
            await web.get("/healthz")
    lab.authority.issue_cert("ci").configure_cert(ours)
    async with httpx2.AsyncClient(verify=ours) as web:
        assert (await web.get(f"https://{lab.server.http_address}/healthz")).status_code == 200


async def test_without_tokens_only_the_names_of_this_host_are_answered(lab: WebLab) -> None:
    lab.config = replace(lab.config, token_file=None)
    hosts = {"127.0.0.1:1": 200, "LocalHost": 200, "[::1]:8002": 200}
    strangers = {"evil.example": 403, "127.0.0.1.evil.example:8002": 403, "": 403}
    async with await lab.serve() as web:
        answers = {host: await web.get("/jobs", headers={"Host": host}) for host in hosts | strangers}
    assert {host: answer.status_code for host, answer in answers.items()} == hosts | strangers


def test_http_beyond_loopback_asks_for_tls_and_tokens(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--data-dir", str(tmp_path), "--http", "0.0.0.0:0"])
    assert done.exit_code == 2
    assert "refusing to listen on 0.0.0.0 without --tls-cert with --tls-key and --token-file" in done.stderr


@pytest.mark.parametrize("address", ["8002", "127.0.0.1:", "127.0.0.1:65536"])
def test_address_that_is_none_names_its_option(tmp_path: Path, address: str) -> None:
    done = CliRunner().invoke(app, ["serve", "--data-dir", str(tmp_path), "--http", address])
    assert (done.exit_code, f"--http {address} is not HOST:PORT" in done.stderr) == (2, True)


async def test_port_that_is_taken_is_said_at_start_and_grpc_is_not_left_behind(lab: WebLab) -> None:
    async with await lab.serve():
        other = replace(lab.config, http=lab.server.http_address, data_dir=lab.config.data_dir / "other")
        other.data_dir.mkdir()
        server = Server(replace(other, database_url=f"sqlite:///{other.data_dir / 'qgjob.db'}"), "0.1.0")
        with pytest.raises(ConfigError, match=f"cannot listen on {lab.server.http_address}") as caught:
            await server.start()
        await server.stop()
    assert "another --http" in caught.value.hint
