"""What attempts leave behind: a record for each file, whose bytes are a blob.

An artifact belongs to its attempt for good: it is recorded once, under the fence of the lease that ran the attempt, and
nothing takes its place. Names are paths that people will have on their disks, so whatever could lead elsewhere there is
refused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from coordinator.core.errors import InvalidRequest
from coordinator.core.model import AttemptId, JobId

MAX_NAME_BYTES = 512
MAX_PARTS = 16
MAX_PART_BYTES = 200
"""File systems take 255; whoever downloads may add to it."""
MAX_CONTENT_TYPE = 100
MAX_URL = 1_024
MAX_FILE_BYTES = 512 * 1_024 * 1_024
MAX_FILES = 1_000
"""Of an attempt."""
MAX_ATTEMPT_BYTES = 1_024 * 1_024 * 1_024

REPORT_PAGES = ("html-report/index.html", "merged/html-report/index.html")
"""First pages of HTML reports: of an attempt alone, and of all of its job up to it."""

_BAD_CHARACTERS = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\\:*?"<>|]')
"""Control characters, those that turn text round, and what some file system does not take."""
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\.|$)")
_URL = re.compile(r"https://[A-Za-z0-9.-]+(:\d{1,5})?/[!-~]*")
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]*/[a-z0-9][a-z0-9.+-]*(; charset=utf-8)?")


class ArtifactKind(StrEnum):
    """What a file is to whoever looks for it."""

    RESULTS = "results"
    JUNIT = "junit"
    JSON_REPORT = "json_report"
    HTML_REPORT = "html_report"
    BLOB_REPORT = "blob_report"
    SCREENSHOT = "screenshot"
    VIDEO = "video"
    TRACE = "trace"
    DEVICE_LOG = "device_log"
    APPIUM_LOG = "appium_log"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file of an attempt."""

    job: JobId
    attempt: AttemptId
    attempt_number: int
    name: str
    kind: ArtifactKind
    content_type: str
    size: int
    digest: str
    create_us: int
    url: str = ""
    """Of a link."""


def checked_name(name: str) -> str:
    """Return the name of an artifact: a relative path with "/", inside wherever it is put.

    Raises:
        InvalidRequest: It is none.
    """
    parts = name.split("/")
    if len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or len(parts) > MAX_PARTS:
        raise InvalidRequest("name", f"a name of an artifact has at most {MAX_NAME_BYTES} bytes and {MAX_PARTS} parts")
    if _BAD_CHARACTERS.search(name):
        raise InvalidRequest("name", f"{name!r} holds characters that the name of an artifact may not hold")
    for part in parts:
        if part in ("", ".", "..") or part != part.strip(" ") or part.endswith(".") or _RESERVED.match(part):
            raise InvalidRequest("name", f"{name!r} is no relative path that every file system takes")
        if len(part.encode()) > MAX_PART_BYTES:
            raise InvalidRequest("name", f"a part of {name!r} has more than {MAX_PART_BYTES} bytes")
    return name


def checked_url(kind: ArtifactKind, url: str) -> str:
    """Return the address of a link; other artifacts have none.

    Raises:
        InvalidRequest: It is no address that people could be sent to, or not the kind's to have.
    """
    if kind is not ArtifactKind.LINK:
        if url:
            raise InvalidRequest("url", f"only a link has an address, and this is of kind {kind}")
        return ""
    if len(url) > MAX_URL or _URL.fullmatch(url) is None:
        raise InvalidRequest("url", f"{url[:100]!r} is no address https://... of at most {MAX_URL} characters")
    return url


def check_link(artifact: Artifact) -> None:
    """Check that what is stored of a link is its address: whoever reads the one is led where the other leads.

    Raises:
        InvalidRequest: The bytes are others than the address and a newline.
    """
    if artifact.kind is not ArtifactKind.LINK:
        return
    content = f"{artifact.url}\n".encode()
    if (artifact.size, artifact.digest) != (len(content), hashlib.sha256(content).hexdigest()):
        raise InvalidRequest("digest", f"the bytes of the link {artifact.name!r} are not its url and a newline")


def checked_content_type(content_type: str) -> str:
    """Return a media type.

    Raises:
        InvalidRequest: It is none.
    """
    if len(content_type) > MAX_CONTENT_TYPE or _CONTENT_TYPE.fullmatch(content_type) is None:
        raise InvalidRequest("content_type", f"{content_type[:MAX_CONTENT_TYPE]!r} is no media type such as image/png")
    return content_type
