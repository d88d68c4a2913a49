"""Draws what the display shows, coarsely: each element is a box."""

import struct
import zlib

from agent.virtual_phone.app import DISPLAY_HEIGHT, DISPLAY_WIDTH, STATUS_BAR_HEIGHT, Bounds

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BIT_DEPTH = 8
_GREYSCALE = 0
_BACKGROUND = 250
_STATUS_BAR = 90
_BOX = 215
_NO_FILTER = b"\0"


def draw(boxes: list[Bounds]) -> bytes:
    """Return a PNG of the display with a grey box for each of the bounds."""
    plain = _NO_FILTER + bytes([_BACKGROUND]) * DISPLAY_WIDTH
    rows = [plain] * DISPLAY_HEIGHT
    rows[:STATUS_BAR_HEIGHT] = [_NO_FILTER + bytes([_STATUS_BAR]) * DISPLAY_WIDTH] * STATUS_BAR_HEIGHT
    for box in boxes:
        row = bytearray(plain)
        row[1 + box.left : 1 + box.right] = bytes([_BOX]) * (box.right - box.left)
        rows[box.top : box.bottom] = [bytes(row)] * (box.bottom - box.top)
    header = struct.pack(">IIBBBBB", DISPLAY_WIDTH, DISPLAY_HEIGHT, _BIT_DEPTH, _GREYSCALE, 0, 0, 0)
    pixels = zlib.compress(b"".join(rows), level=1)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
