"""Who signed an APK.

The certificate lies in the signing block before the zip's directory (schemes 2 and 3) or, for old phones, in a PKCS #7
file under ``META-INF`` (scheme 1). Whether the signature is valid is left to the packaging tools: a phone that draws
its own screens runs no code that must be trusted. Source: "APK Signature Scheme v2" in Android's documentation.
"""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

MAX_BLOCK_BYTES = 16 * 1024 * 1024
MAX_CERTIFICATES_FILE_BYTES = 1024 * 1024
_MAGIC = b"APK Sig Block 42"
_SCHEMES = (0xF05368C0, 0x7109871A)  # 3 before 2: where both are there, phones of today look at the later one
_FOOTER = struct.Struct("<Q16s")
_PAIR = struct.Struct("<QI")
_SUFFIXES = (".RSA", ".DSA", ".EC")
_SEQUENCE, _FIRST_FIELD = 0x30, 0xA0
_UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)
"""What reading a damaged entry raises."""


class _Malformed(Exception):
    """The bytes do not have the form that they should have."""


def signer(path: Path, archive: zipfile.ZipFile) -> str | None:
    """Return the SHA-256 of the first certificate that an APK is signed with, in hexadecimal digits; None if unsigned.

    Args:
        path: the APK.
        archive: the same, opened as a zip.
    """
    try:
        certificate = _from_block(path, archive.start_dir) or _from_archive(archive)
    except _Malformed:
        return None
    return hashlib.sha256(certificate).hexdigest() if certificate else None


def _from_block(path: Path, end: int) -> bytes | None:
    with path.open("rb") as file:
        if end < _FOOTER.size:
            return None
        file.seek(end - _FOOTER.size)
        size, magic = _FOOTER.unpack(file.read(_FOOTER.size))
        if magic != _MAGIC:
            return None
        if not _FOOTER.size <= size <= min(end, MAX_BLOCK_BYTES):
            raise _Malformed
        file.seek(end - size)
        pairs = dict(_pairs(file.read(size - _FOOTER.size)))
    for scheme in _SCHEMES:
        if scheme in pairs:
            signed_data = _first(_first(_first(pairs[scheme])))
            digests = _first(signed_data)
            return _first(_first(signed_data[4 + len(digests) :]))
    return None


def _pairs(block: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _PAIR.size <= len(block):
        length, key = _PAIR.unpack_from(block, at)
        if length < 4 or at + 8 + length > len(block):
            raise _Malformed
        yield key, block[at + _PAIR.size : at + 8 + length]
        at += 8 + length


def _first(data: bytes) -> bytes:
    """Return the first of the entries in `data`, each of which has its length before it."""
    if len(data) < 4:
        raise _Malformed
    (length,) = struct.unpack_from("<I", data)
    if 4 + length > len(data):
        raise _Malformed
    return data[4 : 4 + length]


def _from_archive(archive: zipfile.ZipFile) -> bytes | None:
    for entry in archive.infolist():
        if not (entry.filename.startswith("META-INF/") and entry.filename.endswith(_SUFFIXES)):
            continue
        if entry.file_size > MAX_CERTIFICATES_FILE_BYTES:
            raise _Malformed
        try:
            message = archive.read(entry)
        except _UNREADABLE as error:
            raise _Malformed from error
        return _certificate_of(message)
    return None


def _certificate_of(message: bytes) -> bytes:
    """Return the first certificate of a PKCS #7 message: ContentInfo > SignedData > [0] certificates."""
    signed_data = _field(_field(_field(message, _SEQUENCE), _FIRST_FIELD), _SEQUENCE)
    for kind, whole, _ in _fields(_field(signed_data, _FIRST_FIELD)):
        if kind == _SEQUENCE:
            return whole
    raise _Malformed


def _field(data: bytes, wanted: int) -> bytes:
    """Return the content of the first field of a kind."""
    for kind, _, content in _fields(data):
        if kind == wanted:
            return content
    raise _Malformed


def _fields(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the kind, the whole bytes and the content of each field of a DER structure."""
    at = 0
    while at + 2 <= len(data):
        kind, length, start = data[at], data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, start = int.from_bytes(data[start : start + count], "big"), start + count
        if start + length > len(data):
            raise _Malformed
        yield kind, data[at : start + length], data[start : start + length]
        at = start + length
