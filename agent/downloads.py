"""Builds behind URLs: fetched, and fetched again only when their server says that they have changed."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

TIMEOUT_S = 60.0
"""So long a server may say nothing."""
VALIDATORS = (("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since"))
NOT_MODIFIED = 304
MISSING = frozenset({403, 404, 410})
"""Stores of objects call what is not there forbidden."""


class DownloadMissing(Exception):
    """The server has nothing there; the sentence says where."""


def is_url(template: str) -> bool:
    """Whether a template of builds is one of URLs."""
    return template.startswith(("http://", "https://"))


class Downloads:
    """A directory with the newest of what lies behind each URL."""

    def __init__(self, directory: Path) -> None:
        """Use a directory; it is made when it is needed."""
        self._directory = directory
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, url: str) -> Path:
        """Return the file behind a URL as it is now; several that want it at once share one fetch.

        Raises:
            DownloadMissing: There is none.
            OSError: The server does not answer as it should, or the disk refuses.
        """
        async with self._locks.setdefault(url, asyncio.Lock()):
            return await asyncio.to_thread(self._get, url)

    def _get(self, url: str) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._directory / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.apk"
        known = path.with_suffix(".json")
        headers = json.loads(known.read_text()) if path.exists() and known.exists() else {}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - `is_url` lets nothing but HTTP pass
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the same
                known.unlink(missing_ok=True)
                _keep(answer, path)
                found = {ask: answer.headers[tell] for tell, ask in VALIDATORS if answer.headers[tell]}
                known.write_text(json.dumps(found))
        except urllib.error.HTTPError as error:
            with error:
                if error.code == NOT_MODIFIED:
                    return path
                if error.code in MISSING:
                    raise DownloadMissing(f"{shown(url)} answers {error.code}") from error
                raise OSError(f"{shown(url)} answers {error.code} {error.reason}") from error
        except (urllib.error.URLError, http.client.HTTPException) as error:
            raise OSError(f"{shown(url)}: {getattr(error, 'reason', error)}") from error
        return path


def _keep(answer: http.client.HTTPResponse, path: Path) -> None:
    """Put the whole of an answer in the place of a file."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        shutil.copyfileobj(answer, file)
        size = file.tell()
    wanted = answer.headers["Content-Length"]
    if wanted is not None and size != int(wanted):
        raise OSError(f"only {size} of {wanted} bytes came")
    part.replace(path)


def shown(url: str) -> str:
    """Return a URL without what in it may be secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
