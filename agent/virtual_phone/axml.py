"""Android's binary XML, as far as a manifest needs it.

A document is a chunk that holds a string pool, a map from attribute names to the framework's resource ids, and a
sequence of namespace and element chunks. Every chunk starts with its type, its header size and its size. Source:
``ResourceTypes.h`` of the Android framework.
"""

import struct
from dataclasses import dataclass, field

ANDROID_NAMESPACE = "http://schemas.android.com/apk/res/android"

# Resource ids of the attributes a manifest may carry, from the framework's public.xml.
ANDROID_ATTRIBUTES = {
    "label": 0x01010001,
    "name": 0x01010003,
    "debuggable": 0x0101000F,
    "exported": 0x01010010,
    "minSdkVersion": 0x0101020C,
    "versionCode": 0x0101021B,
    "versionName": 0x0101021C,
    "targetSdkVersion": 0x01010270,
    "testOnly": 0x01010272,
}

_XML = 0x0003
_STRING_POOL = 0x0001
_RESOURCE_MAP = 0x0180
_START_NAMESPACE = 0x0100
_END_NAMESPACE = 0x0101
_START_ELEMENT = 0x0102
_END_ELEMENT = 0x0103

_NONE = 0xFFFFFFFF
_UTF8_FLAG = 1 << 8
_TYPE_STRING = 0x03
_TYPE_INT_DEC = 0x10
_TYPE_INT_BOOLEAN = 0x12

Value = str | int | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """An element; attributes named in `android` belong to Android's namespace, those in `plain` to none."""

    tag: str
    android: dict[str, Value] = field(default_factory=dict)
    plain: dict[str, Value] = field(default_factory=dict)
    children: tuple["Element", ...] = ()


def encode(root: Element) -> bytes:
    """Return the binary document whose root is given; raises `KeyError` for an Android attribute without known id."""
    strings = _Strings(root)
    body = strings.encode() + strings.encode_resource_map()
    prefix, uri = strings.index("android"), strings.index(ANDROID_NAMESPACE)
    body += _node(_START_NAMESPACE, struct.pack("<II", prefix, uri))
    body += _encode_element(root, strings)
    body += _node(_END_NAMESPACE, struct.pack("<II", prefix, uri))
    return _chunk(_XML, b"", body)


class _Strings:
    """The string pool. Names of Android attributes come first: the resource map counts along them."""

    def __init__(self, root: Element) -> None:
        names = sorted(
            {name for element in _walk(root) for name in element.android}, key=ANDROID_ATTRIBUTES.__getitem__
        )
        self._resource_ids = [ANDROID_ATTRIBUTES[name] for name in names]
        self._android_names = {name: position for position, name in enumerate(names)}
        others = ["android", ANDROID_NAMESPACE]
        for element in _walk(root):
            values = (*element.android.values(), *element.plain.values())
            others += [element.tag, *element.plain, *(value for value in values if isinstance(value, str))]
        self._all = names + list(dict.fromkeys(others))
        self._others = {text: position for position, text in enumerate(self._all) if position >= len(names)}

    def index(self, text: str) -> int:
        return self._others[text]

    def android_name(self, name: str) -> int:
        return self._android_names[name]

    def resource_id(self, name: str) -> int:
        return ANDROID_ATTRIBUTES[name]

    def encode(self) -> bytes:
        offsets, data = b"", b""
        for text in self._all:
            offsets += struct.pack("<I", len(data))
            encoded = text.encode()
            data += _utf8_length(len(text.encode("utf-16-le")) // 2) + _utf8_length(len(encoded)) + encoded + b"\0"
        data += b"\0" * (-len(data) % 4)
        start_of_data = 28 + len(offsets)
        header = struct.pack("<IIIII", len(self._all), 0, _UTF8_FLAG, start_of_data, 0)
        return _chunk(_STRING_POOL, header, offsets + data)

    def encode_resource_map(self) -> bytes:
        return _chunk(_RESOURCE_MAP, b"", struct.pack(f"<{len(self._resource_ids)}I", *self._resource_ids))


def _walk(element: Element) -> list[Element]:
    return [element, *(found for child in element.children for found in _walk(child))]


def _utf8_length(length: int) -> bytes:
    return bytes([length]) if length < 0x80 else bytes([0x80 | length >> 8, length & 0xFF])


def _chunk(kind: int, header: bytes, body: bytes) -> bytes:
    return struct.pack("<HHI", kind, 8 + len(header), 8 + len(header) + len(body)) + header + body


def _node(kind: int, body: bytes) -> bytes:
    line_number, comment = 1, _NONE
    return _chunk(kind, struct.pack("<II", line_number, comment), body)


def _encode_element(element: Element, strings: _Strings) -> bytes:
    attributes = [
        (strings.index(ANDROID_NAMESPACE), strings.android_name(name), value)
        # Android looks attributes up in the order of their resource ids.
        for name, value in sorted(element.android.items(), key=lambda item: strings.resource_id(item[0]))
    ]
    attributes += [(_NONE, strings.index(name), value) for name, value in element.plain.items()]
    encoded = b"".join(_encode_attribute(namespace, name, value, strings) for namespace, name, value in attributes)
    tag = strings.index(element.tag)
    start = struct.pack("<IIHHHHHH", _NONE, tag, 20, 20, len(attributes), 0, 0, 0) + encoded
    inner = b"".join(_encode_element(child, strings) for child in element.children)
    return _node(_START_ELEMENT, start) + inner + _node(_END_ELEMENT, struct.pack("<II", _NONE, tag))


def _encode_attribute(namespace: int, name: int, value: Value, strings: _Strings) -> bytes:
    if isinstance(value, bool):
        raw, kind, data = _NONE, _TYPE_INT_BOOLEAN, _NONE if value else 0
    elif isinstance(value, int):
        raw, kind, data = _NONE, _TYPE_INT_DEC, value
    else:
        raw = data = strings.index(value)
        kind = _TYPE_STRING
    return struct.pack("<IIIHBBI", namespace, name, raw, 8, 0, kind, data)
