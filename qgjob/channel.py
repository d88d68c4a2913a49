"""The channels to the coordinators: one for each address, of which one is used at a time."""

from __future__ import annotations

import functools
import re
import threading
from typing import TYPE_CHECKING, cast

from qgjob import links
from qgjob.access import RELEASE_KEY, Access, MetadataChannel, is_loopback
from qgjob.errors import UsageError

if TYPE_CHECKING:
    import grpc

MAX_MESSAGE_BYTES = 4 * 1_024 * 1_024
_HOST = re.compile(r"\[[0-9a-fA-F:.]+\]|[^:\s\[\]]+")
NO_ACCESS = Access()


class Coordinators:
    """The coordinators of one lab. Any of several threads may find that one of them doesn't serve."""

    def __init__(self, target: str, access: Access = NO_ACCESS) -> None:
        """Open a channel to each address; nothing is connected before it is used.

        Args:
            target: HOST:PORT, or several with commas between them; the first is tried first.
            access: TLS and token, the same for all.

        Raises:
            UsageError: One of them is no address, or what is to be shown there cannot be.
        """
        addresses = tuple(dict.fromkeys(address.strip() for address in target.split(",")))
        for address in addresses:
            _host(address)
        self.shown = ", ".join(addresses)
        """How messages name them."""
        self._channels = [open_channel(address, access) for address in addresses]
        self._used = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def channel(self) -> grpc.Channel:
        """The one that is used now."""
        return self._channels[self._used]

    def leave(self, channel: grpc.Channel) -> None:
        """Go on to the next address, unless somebody else has left this one already."""
        with self._lock:
            if channel is self.channel:
                self._used = (self._used + 1) % len(self._channels)

    def close(self) -> None:
        """Close every channel."""
        for channel in self._channels:
            channel.close()


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
        *links.CHANNEL,
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
    carried = MetadataChannel(channel, lambda: ((RELEASE_KEY, _release()), *access.metadata()))
    return cast("grpc.Channel", carried)


@functools.cache
def _release() -> str:
    from importlib.metadata import version

    return version("qgjob")


def _host(target: str) -> str:
    host, _, port = target.rpartition(":")
    if not _HOST.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(f"{target!r} is no address of a coordinator", hint="use HOST:PORT, such as lab.example:50051")
    return host.strip("[]")
