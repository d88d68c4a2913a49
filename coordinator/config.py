"""Flags, environment and TOML become one frozen config."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from coordinator.core.model import SECOND_US, Settings

MIN_FREE_BYTES = 512 * 1_024 * 1_024
MAX_UPLOAD_BYTES = 4 * 1_024 * 1_024 * 1_024


DATABASE = "qgjob.db"
"""File of the database in the data directory."""


class ConfigError(Exception):
    """The program was started with something that cannot work; the sentence says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Take the sentence, and what to do."""
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files of both ports."""

    certificate: Path
    key: Path
    ca: Path | None = None
    """Of clients, who must show a certificate then; None where a token is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How a coordinator runs."""

    listen: str
    data_dir: Path
    database_url: str
    settings: Settings
    http: str | None = None
    """HOST:PORT of the HTTP port; None for no such port."""
    is_insecure: bool = False
    tls: TlsFiles | None = None
    token_file: Path | None = None
    storage: str | None = None
    """s3://BUCKET/PREFIX of the logs; None for the data directory."""
    min_free: int = MIN_FREE_BYTES
    """Bytes of the disk below which nothing new is taken in."""
    max_upload: int = MAX_UPLOAD_BYTES
    """Bytes of the largest build that is taken in."""
    retain_us: int | None = None
    """How long ended jobs are kept; None for ever."""
    retain_artifacts_us: int | None = None
    """How long artifacts are kept; None for as long as their jobs."""
    retain_artifact_bytes: int | None = None
    """Of all artifacts together; None for any number."""
    leader_ttl_s: float = 10.0
    """How long a coordinator on PostgreSQL counts on leading after a renewal."""
    retain_bytes: int | None = None
    """Of all logs together; None for any number."""


def sqlite_in(directory: Path) -> str:
    """Return the URL of a data directory's own database."""
    return f"sqlite:///{directory / DATABASE}"


_SPAN = re.compile(r"(\d{1,6})\s*([smhdw])", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
FOR_EVER = "forever"
SHORTEST_RETENTION_S = 60


def parsed_retention(flag: str, text: str) -> int | None:
    """Return a span in microseconds: 90s, 12h, 30d, 8w; None for "forever".

    Raises:
        ConfigError: It is none, or under a minute.
    """
    if text.strip().lower() == FOR_EVER:
        return None
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{flag} {text} is not a span of time", f"use for example 30d, 12h, or {FOR_EVER}")
    seconds = int(match.group(1)) * _SECONDS[match.group(2).lower()]
    if seconds < SHORTEST_RETENTION_S:
        raise ConfigError(
            f"{flag} {text} is too short: clients still ask for jobs that have just ended", "use 1m or more"
        )
    return seconds * SECOND_US


def parsed_shares(flag: str, texts: list[str], most: int) -> dict[str, int]:
    """Return a number for each organisation that is named as ORG=NUMBER; the last one counts.

    Raises:
        ConfigError: One is not that, or its number is not from 1 to `most`.
    """
    numbers = {}
    for text in texts:
        org, separator, number = text.rpartition("=")
        if not separator or not org or not number.isdecimal() or not 1 <= int(number[:9]) <= most:
            raise ConfigError(f"{flag} {text} is not ORG=NUMBER", f"use a number from 1 to {most}, as in {flag} acme=4")
        numbers[org] = int(number)
    return numbers


def checked_tls(certificate: Path | None, key: Path | None, ca: Path | None) -> TlsFiles | None:
    """Return the TLS files, None where TLS is not wanted.

    Raises:
        ConfigError: One is given without the other.
    """
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None:
        missing = "--tls-cert" if certificate is None else "--tls-key"
        raise ConfigError(f"TLS needs {missing} too", "give --tls-cert and --tls-key, and --tls-ca to demand theirs")
    return TlsFiles(certificate=certificate, key=key, ca=ca)


def checked_listen(
    listen: str,
    *,
    is_insecure: bool,
    has_tls: bool,
    has_tokens: bool,
    flag: str = "--listen",
    example: str = "127.0.0.1:50051",
) -> str:
    """Return a HOST:PORT that may be listened on: beyond loopback with TLS and tokens alone.

    Raises:
        ConfigError: It is malformed, or beyond loopback without leave.
    """
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"{flag} {listen} is not HOST:PORT", f"use {example}; port 0 picks a free one")
    lacks = [
        flags
        for flags, is_given in (("--tls-cert with --tls-key", has_tls), ("--token-file", has_tokens))
        if not is_given
    ]
    if lacks and not is_insecure and not is_loopback(host.strip("[]")):
        raise ConfigError(
            f"refusing to listen on {host} without {' and '.join(lacks)}: whoever reaches it can run code on your lab",
            "add what is missing, listen on 127.0.0.1, or add --insecure on a network that you trust",
        )
    return listen


def is_loopback(host: str) -> bool:
    """Whether a host, without brackets, is this very one."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
