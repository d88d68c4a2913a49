"""The channel to the coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from qgjob.access import Access, AuthorisedChannel, is_loopback
from qgjob.errors import UsageError

if TYPE_CHECKING:
    import grpc

MAX_MESSAGE_BYTES = 4 * 1_024 * 1_024
NO_ACCESS = Access()


def open_channel(target: str, access: Access = NO_ACCESS) -> grpc.Channel:
    """Return a channel that sees a lost link and reconnects by itself.

    Args:
        target: HOST:PORT; a host of IPv6 stands in brackets.
        access: TLS and token.

    Raises:
        UsageError: That is no address, or what is to be shown there cannot be.
    """
    import grpc

    host = _host(target)
    access.check(host)
    options = (
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A proxy for the world outside must not be asked for a coordinator on this very host.
        ("grpc.enable_http_proxy", 0 if is_loopback(host) else 1),
    )
    credentials = access.credentials()
    if credentials is None:
        channel = grpc.insecure_channel(target, options=options)
    else:
        channel = grpc.secure_channel(target, credentials, options=options)
    return cast("grpc.Channel", AuthorisedChannel(channel, access)) if access.has_token else channel


def _host(target: str) -> str:
    host, separator, port = target.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(f"{target!r} is no address of a coordinator", hint="use HOST:PORT, such as lab.example:50051")
    return host.strip("[]")
