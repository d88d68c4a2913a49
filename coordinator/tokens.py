"""Who may talk to this coordinator: a file of names, what they may do, and their tokens.

A line holds three words, `NAME ROLES TOKEN`; ROLES is `client`, `agent`, or both with a comma. What follows a `#` is
for people. The file is read again when it changes; while it cannot be read or is wrong, the tokens from before count.
Only digests of tokens stay in memory, and a token is looked up by its digest, so that no comparison tells by its time
how much of a guess was right.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import structlog

from coordinator.config import ConfigError
from coordinator.core.errors import PermissionDenied, Unauthenticated

MIN_TOKEN_CHARACTERS = 16
MAX_FILE_BYTES = 1_024 * 1_024


class Role(StrEnum):
    """What the holder of a token may do."""

    CLIENT = "client"
    """Submit, look, cancel, operate."""
    AGENT = "agent"
    """Hold devices, run batches, bring results and logs."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose token it is."""

    name: str
    roles: frozenset[Role]


def parse_tokens(text: str) -> dict[str, Holder]:
    """Return SHA-256 of a token -> its holder.

    Raises:
        ValueError: A line is wrong; the sentence names the line, never its content.
    """
    holders: dict[str, Holder] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 3:
            raise ValueError(f"line {number} is not NAME ROLES TOKEN")
        name, roles, token = words
        unknown = sorted(set(roles.split(",")) - set(Role))
        if unknown:
            raise ValueError(f"line {number}: role {unknown[0]!r} is unknown; use {' or '.join(Role)}")
        if len(token) < MIN_TOKEN_CHARACTERS:
            raise ValueError(f"line {number}: the token has less than {MIN_TOKEN_CHARACTERS} characters")
        if not token.isascii() or not token.isprintable():
            raise ValueError(f"line {number}: the token holds characters that no call can carry")
        digest = _digest(token)
        if digest in holders:
            raise ValueError(f"line {number}: the token is that of {holders[digest].name}")
        holders[digest] = Holder(name, frozenset(Role(role) for role in roles.split(",")))
    if not holders:
        raise ValueError("it holds no token")
    return holders


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class TokenFile:
    """The tokens of a file, as it is now."""

    def __init__(self, path: Path) -> None:
        """Read the file for the first time.

        Raises:
            ConfigError: It cannot be read, or is wrong.
        """
        self._path = path
        try:
            self._version = _version(path)
            self._holders = _read(path)
            self._trouble = ""
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", "check --token-file") from error
        except ValueError as error:
            raise ConfigError(f"{path}: {error}", "a line is NAME ROLES TOKEN, as in `ci client 3f9c...`") from error

    def holder_of(self, token: str) -> Holder | None:
        """Return whose token it is, None for one that nobody has."""
        self._refresh()
        return self._holders.get(_digest(token))

    def check(self, authorization: str, role: Role) -> None:
        """Check that what a caller shows as authorization is a token for a role.

        Raises:
            Unauthenticated: It is none, or one that nobody has.
            PermissionDenied: It is the token of another role.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("this coordinator asks for a token, and the call has none")
        holder = self.holder_of(token.strip())
        if holder is None:
            raise Unauthenticated("this coordinator does not know the token")
        if role not in holder.roles:
            raise PermissionDenied(f"the token of {holder.name} is not one of role {role}", name=holder.name, role=role)

    def _refresh(self) -> None:
        try:
            version = _version(self._path)
            if version == self._version:
                return
            self._version = version
            self._holders = _read(self._path)
        except (OSError, ValueError) as error:
            if str(error) == self._trouble:
                return  # told already: calls come by the thousand
            self._trouble = str(error)
            structlog.get_logger("coordinator").error(
                "tokens_not_read", path=str(self._path), reason=str(error), story="The tokens from before still count"
            )
        else:
            self._trouble = ""
            structlog.get_logger("coordinator").info("tokens_read", path=str(self._path), tokens=len(self._holders))


def _version(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _read(path: Path) -> dict[str, Holder]:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    return parse_tokens(path.read_text(encoding="utf-8"))
