"""Copies files without the secrets that they hold: texts, archives of texts, and reports that carry an archive.

What is neither is copied as it is: a secret in the pixels of a picture is not found. What should be masked and cannot
be read is not copied at all.
"""

from __future__ import annotations

import base64
import binascii
import html
import io
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from agent.mask import Mask

BLOCK_BYTES = 1_024 * 1_024
SNIFFED_BYTES = 8_192
MAX_UNPACKED_BYTES = 128 * 1_024 * 1_024
"""Of an archive that is masked; a larger one is not kept."""
MAX_REPORT_BYTES = 64 * 1_024 * 1_024
"""Of a page with an archive in it."""
MAX_DEPTH = 3
"""Of archives in archives."""
MEDIA = frozenset(
    {".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".webm", ".mov", ".woff", ".woff2", ".ttf", ".ico"}
)
"""Copied as they are where their bytes are no text."""

_ZIP = b"PK\x03\x04"
_BODY = re.compile(rb'("(?:body|base64)"\s*:\s*")([A-Za-z0-9+/]{4,}={0,2})(?=")')
"""What a test attached, as reports in JSON carry it."""
_CARRIED = re.compile(rb"(data:application/zip;base64,)([A-Za-z0-9+/=]+)")


class CannotMask(Exception):
    """A file may hold secrets that cannot be found in it; says why."""


def is_masked_on_copy(path: Path) -> bool:
    """Whether a file is of a kind that is masked; a text stays one under any name."""
    with path.open("rb") as file:
        return not _is_media(path.name, file.read(SNIFFED_BYTES))


def _is_media(name: str, head: bytes) -> bool:
    if Path(name).suffix.lower() not in MEDIA:
        return False
    try:
        # The head may end within a character.
        return b"\0" in head or not head.decode(errors="strict" if len(head) < SNIFFED_BYTES else "ignore")
    except UnicodeDecodeError:
        return True


def masked_copy(path: Path, to: Path, secrets: Iterable[str]) -> None:
    """Copy a file without secrets.

    Raises:
        CannotMask: It cannot be read as what it seems to be.
        OSError: It cannot be read or written.
    """
    values = spellings(secrets)
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
    if head.startswith(_ZIP):
        to.write_bytes(_masked_archive(path.read_bytes(), values))
    elif path.suffix.lower() in (".html", ".htm"):
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise CannotMask("it is too large a page to be searched for secrets")
        to.write_bytes(_masked_page(path.read_bytes(), values))
    elif path.suffix.lower() in (".json", ".jsonl"):
        if path.stat().st_size > MAX_REPORT_BYTES:
            raise CannotMask("it is too large a report to be searched for secrets")
        to.write_bytes(masked_bytes(_with_masked_bodies(path.read_bytes(), values), values))
    else:
        _copy_masked(path, to, values)


def _with_masked_bodies(data: bytes, values: Iterable[str]) -> bytes:
    """Mask what a report carries in Base64. What no secret is found in stays as it is."""

    def masked(found: re.Match[bytes]) -> bytes:
        try:
            body = base64.b64decode(found[2], validate=True)
        except binascii.Error:
            return found[0]
        told = masked_bytes(body, values)
        return found[0] if told == body else found[1] + base64.b64encode(told)

    return _BODY.sub(masked, data)


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return secrets as they stand in texts, in JSON, and in XML and HTML."""
    found = dict[str, None]()
    for secret in secrets:
        for line in (secret, *secret.splitlines()):
            in_json = json.dumps(line)[1:-1], json.dumps(line, ensure_ascii=False)[1:-1]
            # JavaScript leaves more characters as they are than Python does, and archives hold JSON within JSON.
            in_json_twice = json.dumps(in_json[1], ensure_ascii=False)[1:-1]
            for spelling in (line, *in_json, in_json_twice, html.escape(line, quote=False), html.escape(line)):
                found[spelling] = None
    return tuple(found)


def _copy_masked(path: Path, to: Path, values: Iterable[str]) -> None:
    mask = Mask(values)
    with path.open("rb") as file, to.open("wb") as copy:
        while block := file.read(BLOCK_BYTES):
            copy.write(mask.feed(block))
        copy.write(mask.feed(b"", is_end=True))


def masked_bytes(data: bytes, values: Iterable[str]) -> bytes:
    """Return bytes without any of some spellings."""
    mask = Mask(values)
    return mask.feed(data) + mask.feed(b"", is_end=True)


def _masked_page(data: bytes, values: tuple[str, ...]) -> bytes:
    """Mask a page, and the archive that reports of Playwright carry in it."""
    pieces, place = [], 0
    for carried in _CARRIED.finditer(data):
        try:
            archive = base64.b64decode(carried[2], validate=True)
        except binascii.Error as error:
            raise CannotMask("the archive in it cannot be read") from error
        masked = base64.b64encode(_masked_archive(archive, values))
        pieces += [masked_bytes(data[place : carried.start()], values), carried[1], masked]
        place = carried.end()
    if not pieces and b"playwrightReportBase64" in data:
        raise CannotMask("it is a report of a Playwright whose reports this release cannot read")
    return b"".join((*pieces, masked_bytes(data[place:], values)))


def _masked_archive(data: bytes, values: tuple[str, ...], depth: int = 1) -> bytes:
    if depth > MAX_DEPTH:
        raise CannotMask("it holds archives within archives within archives")
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as copy:
            if sum(member.file_size for member in archive.infolist()) > MAX_UNPACKED_BYTES:
                raise CannotMask("it is too large an archive to be searched for secrets")
            for member in archive.infolist():
                content = archive.read(member)
                if content.startswith(_ZIP):
                    content = _masked_archive(content, values, depth + 1)
                elif not _is_media(member.filename, content[:SNIFFED_BYTES]):
                    content = masked_bytes(_with_masked_bodies(content, values), values)
                copy.writestr(member.filename, content)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise CannotMask("it is an archive that cannot be read") from error
    return out.getvalue()
