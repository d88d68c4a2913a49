"""Keeps GitHub's runner from obeying a log: it takes commands from whatever a step prints.

A line that begins with `::`, spaces aside, is a command, and so is `##[` anywhere. GitHub's own way to print such text
is a pair of lines around it (`::stop-commands::`). A mark in the line itself needs no second line that might come late
from another pipe, get lost in a `grep`, or never come because somebody ended the program.
"""

from __future__ import annotations

import codecs
import os
import re
import stat

# A space here is one for .NET: any of Unicode, after which a line ends at CR, LF or both.
_SPACES = r"[^\S\r\n]*"
_BEGIN = re.compile(rf"([\r\n]{_SPACES})(?=::)")
_OPEN = re.compile(rf"(?<=[\r\n]){_SPACES}:?\Z|#{{1,2}}\Z")
_MOST_HELD = 4_096


def is_wanted(descriptor: int) -> bool:
    """Whether GitHub's runner may read what is written there; a file it does not read."""
    return os.environ.get("GITHUB_ACTIONS") == "true" and not stat.S_ISREG(os.fstat(descriptor).st_mode)


def marked(text: str, descriptor: int) -> str:
    """Return whole lines for a descriptor: with a backslash where the runner would take them for commands."""
    return _marked("\n" + text)[1:] if is_wanted(descriptor) else text


def _marked(text: str) -> str:
    return _BEGIN.sub(r"\1\\", text).replace("##[", r"#\#[")


class Harmless:
    """Marks the commands in a stream of bytes, which may be cut in two anywhere. All other bytes stay as they are."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
        self._last = "\n"
        self._held = ""
        """The beginning of what may become a command."""

    def feed(self, data: bytes, *, is_end: bool = False) -> bytes:
        """Return what can be told now."""
        text = self._last + self._held + self._decoder.decode(data, final=is_end)
        begun = None if is_end else _OPEN.search(text)
        if begun is None:
            self._held = ""
        elif len(text) - begun.start() > _MOST_HELD:
            # So many spaces make no line that anybody reads; what follows them shall be no command all the same.
            text, self._held = text + "\\", ""
        else:
            text, self._held = text[: begun.start()], text[begun.start() :]
        shown = _marked(text)[1:]
        self._last = text[-1]
        return shown.encode("utf-8", "surrogateescape")
