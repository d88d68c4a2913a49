"""Who is let in over the wire: TLS, tokens, roles."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from coordinator.config import Config, TlsFiles
from coordinator.core.model import Settings
from coordinator.server import Server
from qgjob import channel as client_channel
from qgjob.access import Access
from qgjob.client import Client
from qgjob.errors import UsageError
from qgjob.v1 import agent_service_pb2_grpc, job_service_pb2, job_service_pb2_grpc
from qgjob.v1.job_pb2 import JobFilter
from tests.rpc.grid import AgentOnTheWire, refusal

CLIENT, AGENT, OWNER = "client-token-0123456789", "agent-token-0123456789", "owner-token-0123456789"
TOKENS = f"""
# name role token
ci     client        {CLIENT}
lab-1  agent         {AGENT}   # the Mac mini
owner  client,agent  {OWNER}
"""


class Lab:
    """A coordinator that serves, and what is needed to be let in."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.tokens = directory / "tokens"
        self.tokens.write_text(TOKENS)
        self.config = Config(
            listen="127.0.0.1:0",
            data_dir=directory,
            database_url=f"sqlite:///{directory / 'qgjob.db'}",
            settings=Settings(),
            token_file=self.tokens,
        )

    def with_tls(self, *, asks_for_certificates: bool = False) -> Lab:
        folder = self.config.data_dir
        files = TlsFiles(certificate=folder / "cert.pem", key=folder / "key.pem")
        self.write_certificate(files)
        if asks_for_certificates:
            files = replace(files, ca=folder / "ca.pem")
            self.authority.cert_pem.write_to_path(folder / "ca.pem")
        self.config = replace(self.config, tls=files)
        return self

    def write_certificate(self, files: TlsFiles, name: str = "127.0.0.1") -> None:
        issued = self.authority.issue_cert(name)
        issued.private_key_pem.write_to_path(files.key)
        issued.cert_chain_pems[0].write_to_path(files.certificate)

    async def start(self) -> str:
        self.server = Server(self.config, "0.1.0")
        return await self.server.start()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    await lab.server.stop()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def listed(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> object:
    stub = job_service_pb2_grpc.JobServiceStub(channel)
    return await stub.ListJobs(job_service_pb2.ListJobsRequest(), metadata=metadata)


def agent(channel: grpc.aio.Channel, token: str) -> AgentOnTheWire:
    return AgentOnTheWire(agent_service_pb2_grpc.AgentServiceStub(channel).Connect(metadata=bearer(token)))


@pytest.mark.parametrize(
    "metadata",
    [(), bearer("guessed-token-0123456789"), bearer(""), (("authorization", f"Basic {CLIENT}"),)],
    ids=["none", "unknown", "empty", "other scheme"],
)
async def test_call_without_a_known_token_is_refused(lab: Lab, metadata: tuple[tuple[str, str], ...]) -> None:
    async with grpc.aio.insecure_channel(await lab.start()) as channel:
        code, sentence, info = await refusal(listed(channel, metadata))
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert "guessed" not in sentence


async def test_token_opens_what_its_role_may_do_and_nothing_else(lab: Lab) -> None:
    async with grpc.aio.insecure_channel(await lab.start()) as channel:
        await listed(channel, bearer(CLIENT))
        await listed(channel, bearer(OWNER))
        code, _, info = await refusal(listed(channel, bearer(AGENT)))
        assert (code, info.reason, info.metadata["name"]) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "PERMISSION_DENIED",
            "lab-1",
        )
        code, _, info = await agent(channel, CLIENT).status()
        assert (code, info.metadata["role"]) == (grpc.StatusCode.PERMISSION_DENIED, "agent")
        await agent(channel, AGENT).hello()


async def test_health_is_open_and_reflection_is_not(lab: Lab) -> None:
    async with grpc.aio.insecure_channel(await lab.start()) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]  # it knows no asyncio
        call = stub.ServerReflectionInfo()  # refused before it says anything
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_new_token_counts_and_a_broken_file_changes_nothing(lab: Lab) -> None:
    async with grpc.aio.insecure_channel(await lab.start()) as channel:
        lab.tokens.write_text("newcomer client another-token-0123456789")
        await listed(channel, bearer("another-token-0123456789"))
        assert (await refusal(listed(channel, bearer(CLIENT))))[0] is grpc.StatusCode.UNAUTHENTICATED
        lab.tokens.write_text("what is this")
        await listed(channel, bearer("another-token-0123456789"))
        os.unlink(lab.tokens)
        await listed(channel, bearer("another-token-0123456789"))


async def test_certificate_of_a_trusted_authority_is_enough_for_tls(lab: Lab) -> None:
    address = await lab.with_tls().start()
    credentials = grpc.ssl_channel_credentials(lab.authority.cert_pem.bytes())
    async with grpc.aio.secure_channel(address, credentials) as channel:
        await listed(channel, bearer(CLIENT))


async def test_certificate_of_a_stranger_is_not_trusted(lab: Lab) -> None:
    address = await lab.with_tls().start()
    credentials = grpc.ssl_channel_credentials(trustme.CA().cert_pem.bytes())
    async with grpc.aio.secure_channel(address, credentials) as channel:
        assert (await refusal(listed(channel, bearer(CLIENT))))[0] is grpc.StatusCode.UNAVAILABLE


async def test_client_without_a_certificate_is_kept_out_where_one_is_asked_for(lab: Lab) -> None:
    address = await lab.with_tls(asks_for_certificates=True).start()
    authority = lab.authority.cert_pem.bytes()
    async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority)) as channel:
        assert (await refusal(listed(channel, bearer(CLIENT))))[0] is grpc.StatusCode.UNAVAILABLE
    own = lab.authority.issue_cert("ci.example")
    credentials = grpc.ssl_channel_credentials(authority, own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    async with grpc.aio.secure_channel(address, credentials) as channel:
        await listed(channel, bearer(CLIENT))


async def test_renewed_certificate_serves_without_a_restart_and_a_broken_one_changes_nothing(lab: Lab) -> None:
    address = await lab.with_tls().start()
    assert lab.config.tls is not None
    lab.config.tls.certificate.write_text("no certificate at all")
    credentials = grpc.ssl_channel_credentials(lab.authority.cert_pem.bytes())
    async with grpc.aio.secure_channel(address, credentials) as channel:
        await listed(channel, bearer(CLIENT))
    lab.authority = trustme.CA()
    lab.write_certificate(lab.config.tls)
    renewed = grpc.ssl_channel_credentials(lab.authority.cert_pem.bytes())
    async with grpc.aio.secure_channel(address, renewed) as channel:
        await listed(channel, bearer(CLIENT))


@pytest.mark.parametrize("release", ["0.0.9", "0.1.0", "0.2.0rc1"])
async def test_client_at_most_one_minor_release_apart_is_let_in(lab: Lab, release: str) -> None:
    async with grpc.aio.insecure_channel(await lab.start()) as channel:
        await listed(channel, (*bearer(CLIENT), ("qgjob-version", release)))


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("0.3.0", "the client has release 0.3.0, too new for this coordinator's 0.1.0; upgrade the coordinator"),
        ("1.0.0", "the client has release 1.0.0, too new for this coordinator's 0.1.0; upgrade the coordinator"),
        ("odd", "release 'odd' of the client cannot be read; install release 0.1.0 there"),
    ],
)
async def test_client_of_a_release_too_far_away_is_told_which_side_to_upgrade(
    lab: Lab, release: str, words: str
) -> None:
    async with grpc.aio.insecure_channel(await lab.start()) as channel:
        code, sentence, info = await refusal(listed(channel, (*bearer(CLIENT), ("qgjob-version", release))))
    assert (code, sentence) == (grpc.StatusCode.FAILED_PRECONDITION, words)
    assert (info.reason, info.metadata["accepted"]) == ("VERSION_UNSUPPORTED", "0.1.0")


async def test_release_is_told_only_to_who_has_a_token(lab: Lab) -> None:
    async with grpc.aio.insecure_channel(await lab.start()) as channel:
        code, _, _ = await refusal(listed(channel, (("qgjob-version", "9.0.0"),)))
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_every_call_of_the_client_carries_its_release(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    address = await lab.start()
    monkeypatch.setattr(client_channel, "_release", lambda: "9.0.0")
    with Client(address, access=Access(token=CLIENT)) as client:
        for call in (
            lambda: client.list_jobs(JobFilter(), 1),
            lambda: list(client.watch_jobs(JobFilter(ids=[1]))),
            lambda: list(client.follow_logs(1)),
        ):
            with pytest.raises(UsageError, match=r"the client has release 9\.0\.0, too new") as caught:
                await asyncio.to_thread(call)
            assert caught.value.hint == "releases may be one minor release apart"
