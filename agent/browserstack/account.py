"""Whose sessions are used: the name and the key of a BrowserStack account, and where its API and its hub are.

The key is read once, from a file or from the agent's own environment, and goes into nothing but the header of requests:
no test, command line, log or file of ours ever holds it.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

API_URL = "https://api-cloud.browserstack.com"
HUB_URL = "https://hub.browserstack.com/wd/hub"
FROM_ENVIRONMENT = "env"
USERNAME, ACCESS_KEY = "BROWSERSTACK_USERNAME", "BROWSERSTACK_ACCESS_KEY"
MOST_BYTES = 4_096
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

_WORD = re.compile(r"[!-9;-~]{1,256}")
"""What an account's name and its key are made of: what can be seen, but no colon."""


class AccountUnusable(Exception):
    """There are no credentials, or they would not be safe; the sentence says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account."""

    username: str
    access_key: str = field(repr=False)
    api_url: str = API_URL
    hub_url: str = HUB_URL

    def __post_init__(self) -> None:
        """Refuse addresses over which the key would travel in the open.

        Raises:
            AccountUnusable: One of them is neither HTTPS nor this host.
        """
        for url in (self.api_url, self.hub_url):
            parts = urlsplit(url)
            is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
            if not is_safe or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
                raise AccountUnusable(f"{url} is no address that credentials may be sent to; use https://HOST[/PATH]")

    @property
    def name(self) -> str:
        """What the account is called among the agents of a lab."""
        return f"{self.username}@{urlsplit(self.api_url).hostname}"

    @property
    def authorization(self) -> str:
        """The value of the header with which requests are made."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.access_key}".encode()).decode()


def read_account(source: str, api_url: str = API_URL, hub_url: str = HUB_URL) -> Account:
    """Return the account of `env`, or of a file with USERNAME:ACCESS_KEY in its only line.

    Raises:
        AccountUnusable: It cannot be read, or others can read it as well.
    """
    if source == FROM_ENVIRONMENT:
        username, key = os.environ.get(USERNAME, ""), os.environ.get(ACCESS_KEY, "")
        if not _WORD.fullmatch(username) or not _WORD.fullmatch(key):
            raise AccountUnusable(f"{USERNAME} and {ACCESS_KEY} are not set; set both, or name a file with them")
    else:
        username, key = _read(Path(source))
    return Account(username=username, access_key=key, api_url=api_url.rstrip("/"), hub_url=hub_url.rstrip("/"))


def _read(path: Path) -> tuple[str, str]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MOST_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        raise AccountUnusable(f"cannot read {path}: {error.strerror}") from error
    if mode & stat.S_IRWXO:
        raise AccountUnusable(f"everybody on this host can use {path}; run `chmod 600 {path}`")
    username, _, key = text.partition(":")
    if not _WORD.fullmatch(username) or not _WORD.fullmatch(key):
        raise AccountUnusable(f"{path} does not hold one line USERNAME:ACCESS_KEY")
    return username, key
