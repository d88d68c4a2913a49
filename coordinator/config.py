"""Flags, environment and TOML become one frozen config."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from coordinator.core.model import Settings


class ConfigError(Exception):
    """The program was started with something that cannot work; the sentence says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Take the sentence, and what to do."""
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How a coordinator runs."""

    listen: str
    data_dir: Path
    database_url: str
    settings: Settings
    is_insecure: bool = False


def checked_listen(listen: str, is_insecure: bool) -> str:
    """Return a HOST:PORT that may be listened on.

    Raises:
        ConfigError: It is malformed, or beyond loopback without leave.
    """
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"--listen {listen} is not HOST:PORT", "use 127.0.0.1:50051; port 0 picks a free one")
    if not is_insecure and not _is_loopback(host.strip("[]")):
        raise ConfigError(
            f"refusing to listen on {host} in the clear: whoever reaches it can run code on your lab",
            "listen on 127.0.0.1, or add --insecure on a network that you trust",
        )
    return listen


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
