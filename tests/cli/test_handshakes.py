"""What a client says of a connection that fails over TLS, with the real words of gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import trustme

from qgjob.access import Access
from qgjob.client import Client
from qgjob.errors import Unreachable

AUTHORITY = trustme.CA()
DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(tzinfo=None)

Serve = Callable[[grpc.ServerCredentials | None], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server without services, for no call gets that far; returns its address."""
    servers: list[grpc.Server] = []

    def start(credentials: grpc.ServerCredentials | None) -> str:
        server = grpc.server(ThreadPoolExecutor(1))
        servers.append(server)
        add = server.add_insecure_port
        port = add("127.0.0.1:0") if credentials is None else server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


def credentials(
    name: str = "127.0.0.1", *, begin: timedelta = -DAY, end: timedelta = DAY, asks: bool = False
) -> grpc.ServerCredentials:
    issued = AUTHORITY.issue_cert(name, not_before=NOW + begin, not_after=NOW + end)
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    authority = AUTHORITY.cert_pem.bytes() if asks else None
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=asks)


def refused(address: str, access: Access) -> Unreachable:
    # Each fault is seen at the first try; that it is tried again is shown elsewhere.
    with Client(address, access=access, call_patience_s=0) as client, pytest.raises(Unreachable) as caught:
        client.list_agents()
    return caught.value


@pytest.fixture
def trusting(tmp_path: Path) -> Access:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "ca.pem")
    return Access(tls_ca=str(tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (credentials("lab.example"), "its certificate is for another name"),
        (credentials(begin=-2 * DAY, end=-DAY), "its certificate has expired"),
        (credentials(begin=DAY, end=2 * DAY), "its certificate is not valid yet"),
        (None, "it does not speak TLS"),
    ],
    ids=["other name", "expired", "not yet valid", "in the clear"],
)
def test_fault_of_the_coordinators_tls_is_named(
    serve: Serve, trusting: Access, server: grpc.ServerCredentials | None, words: str
) -> None:
    address = serve(server)
    error = refused(address, trusting)
    assert (str(error), error.reason) == (f"no TLS with the coordinator at {address}: {words}", "TLS_FAILED")


def test_stranger_is_not_trusted(serve: Serve, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    error = refused(serve(credentials()), Access(tls_ca=str(tmp_path / "other.pem")))
    assert str(error).endswith("its certificate is not of the authority that is trusted here")


def test_client_in_the_clear_is_told_of_tls(serve: Serve) -> None:
    address = serve(credentials())
    error = refused(address, Access())
    assert str(error).endswith(f"the coordinator at {address} closed the connection at once")
    assert "give --tls-ca" in error.hint


def test_client_without_a_certificate_is_told_of_its_options(serve: Serve, trusting: Access) -> None:
    error = refused(serve(credentials(asks=True)), trusting)
    assert str(error).endswith("closed the connection at once")
    assert "--tls-cert and --tls-key" in error.hint
