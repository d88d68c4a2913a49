"""The sync service: ``adb push``, ``adb pull`` and ``adb ls``.

Requests and answers start with a four-letter id and a little-endian length or value. Source: ``SYNC.TXT`` and
``file_sync_protocol.h`` of the adb project.
"""

import errno
import stat
import struct

from agent.virtual_phone.files import FileStore, StorageFull
from agent.virtual_phone.numerals import whole_number
from agent.virtual_phone.transport import ProtocolError, Stream

MAX_PATH_BYTES = 1024
MAX_CHUNK_BYTES = 64 * 1024

_REQUEST = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<4sIII")
_STAT_V2 = struct.Struct("<4sIQQIIIIQqqq")
_ENTRY_V1 = struct.Struct("<4sIIII")
_ENTRY_V2 = struct.Struct("<4sIQQIIIIQqqqI")
_DIRECTORY_MODE = stat.S_IFDIR | 0o771


class SyncService:
    """Serves one sync stream over the phone's files."""

    def __init__(self, files: FileStore) -> None:
        self._files = files

    async def __call__(self, stream: Stream) -> None:
        """Answer requests until the host says QUIT or closes the stream."""
        while True:
            request, length = _REQUEST.unpack(await stream.readexactly(_REQUEST.size))
            if request == b"QUIT":
                return
            if length > MAX_PATH_BYTES:
                await _fail(stream, "path too long")
                return
            path = (await stream.readexactly(length)).decode("utf-8", "replace")
            if request == b"STAT":
                await self._stat(stream, path)
            elif request in (b"STA2", b"LST2"):
                await self._stat_v2(stream, request, path)
            elif request in (b"LIST", b"LIS2"):
                await self._list(stream, path, is_v2=request == b"LIS2")
            elif request == b"SEND":
                await self._receive_file(stream, path)
            elif request == b"RECV":
                await self._send_file(stream, path)
            else:
                await _fail(stream, f"unknown command {request!r}")
                return

    def _facts(self, path: str) -> tuple[int, int, int]:
        """Return mode, size in bytes and time of change; a mode of 0 says that nothing is there."""
        file = self._files.get(path)
        if file is not None:
            return file.mode, len(file.content), file.changed_at
        return (_DIRECTORY_MODE if self._files.is_directory(path) else 0), 0, 0

    async def _stat(self, stream: Stream, path: str) -> None:
        mode, size, changed_at = self._facts(path)
        await stream.write(_STAT_V1.pack(b"STAT", mode, size, changed_at))

    async def _stat_v2(self, stream: Stream, request: bytes, path: str) -> None:
        mode, size, changed_at = self._facts(path)
        error = 0 if mode else errno.ENOENT
        times = (changed_at, changed_at, changed_at)
        await stream.write(_STAT_V2.pack(request, error, 0, 0, mode, 1, 0, 0, size, *times))

    async def _list(self, stream: Stream, path: str, *, is_v2: bool) -> None:
        for name in self._files.children(path):
            mode, size, changed_at = self._facts(f"{path}/{name}")
            encoded = name.encode()
            if is_v2:
                times = (changed_at, changed_at, changed_at)
                entry = _ENTRY_V2.pack(b"DNT2", 0, 0, 0, mode, 1, 0, 0, size, *times, len(encoded))
            else:
                entry = _ENTRY_V1.pack(b"DENT", mode, size, changed_at, len(encoded))
            await stream.write(entry + encoded)
        await stream.write(b"DONE" + bytes((_ENTRY_V2 if is_v2 else _ENTRY_V1).size - 4))

    async def _receive_file(self, stream: Stream, path_and_mode: str) -> None:
        path, _, mode_text = path_and_mode.rpartition(",")
        mode = whole_number(mode_text)
        content = bytearray()
        problem = ""
        while True:
            request, value = _REQUEST.unpack(await stream.readexactly(_REQUEST.size))
            if request == b"DONE":
                break
            if request != b"DATA" or value > MAX_CHUNK_BYTES:
                raise ProtocolError(f"sync {request!r} of {value} bytes inside a file")
            chunk = await stream.readexactly(value)
            if len(content) + len(chunk) > self._files.free_bytes:
                # Keep reading to the end: the host sends everything before it looks at the answer.
                problem = "couldn't write: No space left on device"
            elif not problem:
                content += chunk
        problem = problem or self._store(path, bytes(content), 0o644 if mode is None else mode, changed_at=value)
        if problem:
            await _fail(stream, problem)
        else:
            await stream.write(_REQUEST.pack(b"OKAY", 0))

    def _store(self, path: str, content: bytes, mode: int, *, changed_at: int) -> str:
        if not path.startswith("/"):
            return f"couldn't create file: Read-only file system: {path}"
        try:
            self._files.write(path, content, permissions=mode, changed_at=changed_at)
        except StorageFull as error:
            return f"couldn't write: {error}"
        except IsADirectoryError:
            return "couldn't create file: Is a directory"
        return ""

    async def _send_file(self, stream: Stream, path: str) -> None:
        file = self._files.get(path)
        if file is None:
            reason = "Is a directory" if self._files.is_directory(path) else "No such file or directory"
            await _fail(stream, f"open failed: {reason}")
            return
        for start in range(0, len(file.content), MAX_CHUNK_BYTES):
            chunk = file.content[start : start + MAX_CHUNK_BYTES]
            await stream.write(_REQUEST.pack(b"DATA", len(chunk)) + chunk)
        await stream.write(_REQUEST.pack(b"DONE", 0))


async def _fail(stream: Stream, reason: str) -> None:
    message = reason.encode()
    await stream.write(_REQUEST.pack(b"FAIL", len(message)) + message)
