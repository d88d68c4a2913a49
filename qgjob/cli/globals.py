"""The options of the whole program, and what every command can print."""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("table", "json", "jsonl", "id")


@dataclass(slots=True)
class Globals:
    """The options before the command."""

    coordinator: str | None = None
    profile: str | None = None
    is_debugging: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None
    is_insecure: bool = False

    def flags(self) -> dict[str, str | None]:
        """Return what was given of the settings that say where to connect, and how."""
        return {
            "coordinator": self.coordinator,
            "tls_ca": self.tls_ca,
            "tls_cert": self.tls_cert,
            "tls_key": self.tls_key,
            "token_file": self.token_file,
            "insecure": "true" if self.is_insecure else None,
        }


GLOBALS = Globals()
