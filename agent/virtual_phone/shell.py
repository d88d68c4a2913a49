"""Reads and runs the phone's shell command lines.

A part of what ``/system/bin/sh`` understands: simple commands with assignments and redirections, pipes, ``;``, ``&&``,
``||``, ``!``, quotes, ``$NAME``, ``${NAME}``, ``$?`` and the patterns ``*`` and ``?``. What it does not understand is a
syntax error, as an unfinished quote would be, and is written to the phone's log.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from agent.virtual_phone.bytestream import ByteQueue, ByteReader
from agent.virtual_phone.numerals import whole_number
from agent.virtual_phone.phone import Phone

NOT_FOUND = 127
SYNTAX_ERROR = 1
MAX_LINE_CHARACTERS = 1024 * 1024
PIPE_BYTES = 64 * 1024

_SPECIAL = set(" \t\r\n;&|<>()'\"\\$`#")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_UNSUPPORTED = "(){}`"
_ENDS_PLAIN = _SPECIAL | set(_UNSUPPORTED)

Output = Callable[[bytes], Awaitable[None]]


class ShellSyntaxError(Exception):
    """A line that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a word: text, or the name of a variable; what is quoted is not split and is no pattern."""

    text: str
    is_variable: bool = False
    is_quoted: bool = False


Word = tuple[Part, ...]
_NEGATION: Word = (Part(text="!"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirection:
    """One redirection: descriptor 0, 1 or 2, to another descriptor or to a file."""

    descriptor: int
    target: Word
    is_append: bool = False
    to_descriptor: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleCommand:
    """A command with its words, in the order they were written."""

    words: tuple[Word, ...]
    redirections: tuple[Redirection, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Commands, each reading what the one before writes; `operator` says when it runs: ``;``, ``&&`` or ``||``."""

    operator: str
    is_negated: bool
    commands: tuple[SimpleCommand, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    operator: str = ""
    word: Word = ()


class _Lexer:
    """Cuts a line into operators and words."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._at = 0

    def tokens(self) -> list[_Token]:
        tokens: list[_Token] = []
        while (token := self._next()) is not None:
            tokens.append(token)
        return tokens

    def _peek(self, ahead: int = 0) -> str:
        return self._line[self._at + ahead : self._at + ahead + 1]

    def _next(self) -> _Token | None:
        while self._peek() and self._peek() in " \t\r":
            self._at += 1
        if self._peek() == "#":
            end = self._line.find("\n", self._at)
            self._at = len(self._line) if end < 0 else end
        if not self._peek():
            return None
        return self._operator() or _Token(word=self._word())

    def _operator(self) -> _Token | None:
        redirection = re.compile(r"[012]?(?:>>|>&[12]|>|<)").match(self._line, self._at)
        operator = redirection or re.compile(r"&&|\|\||;;?|\||&|\n").match(self._line, self._at)
        if operator is None:
            return None
        if operator[0] == ";;":
            raise ShellSyntaxError("unexpected ';;'")
        self._at = operator.end()
        return _Token(operator=";" if operator[0] == "\n" else operator[0])

    def _word(self) -> Word:
        parts: list[Part] = []
        while (character := self._peek()) and character not in " \t\r\n;&|<>":
            if character in _UNSUPPORTED:
                raise ShellSyntaxError(f"unexpected '{character}'")
            if character == "'":
                parts.append(Part(text=self._quoted_single(), is_quoted=True))
            elif character == '"':
                parts += self._quoted_double()
            elif character == "\\":
                parts.append(Part(text=self._peek(1), is_quoted=True))
                self._at += 2
            elif character == "$":
                parts.append(self._variable(is_quoted=False))
            else:
                parts.append(Part(text=self._plain()))
        return tuple(parts)

    def _plain(self) -> str:
        start = self._at
        self._at += 1
        while self._peek() and self._peek() not in _ENDS_PLAIN:
            self._at += 1
        return self._line[start : self._at]

    def _quoted_single(self) -> str:
        end = self._line.find("'", self._at + 1)
        if end < 0:
            raise ShellSyntaxError("no closing quote")
        text = self._line[self._at + 1 : end]
        self._at = end + 1
        return text

    def _quoted_double(self) -> list[Part]:
        parts = [Part(text="", is_quoted=True)]
        self._at += 1
        while (character := self._peek()) != '"':
            if not character:
                raise ShellSyntaxError("no closing quote")
            if character == "`" or self._line.startswith("$(", self._at):
                raise ShellSyntaxError(f"unexpected '{character}'")
            if character == "$":
                parts.append(self._variable(is_quoted=True))
                continue
            if character == "\\" and self._peek(1) and self._peek(1) in '"\\$`':
                self._at += 1
            parts.append(Part(text=self._peek(), is_quoted=True))
            self._at += 1
        self._at += 1
        return parts

    def _variable(self, *, is_quoted: bool) -> Part:
        if self._peek(1) == "?":
            self._at += 2
            return Part(text="?", is_variable=True, is_quoted=is_quoted)
        if braced := re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*|\?)\}").match(self._line, self._at):
            self._at = braced.end()
            return Part(text=braced[1], is_variable=True, is_quoted=is_quoted)
        if name := _NAME.match(self._line, self._at + 1):
            self._at = name.end()
            return Part(text=name[0], is_variable=True, is_quoted=is_quoted)
        if self._peek(1) in ("(", "{"):
            raise ShellSyntaxError(f"unexpected '{self._peek(1)}'")
        self._at += 1
        return Part(text="$", is_quoted=True)


def parse(line: str) -> list[Pipeline]:
    """Return the pipelines of a line; raises `ShellSyntaxError`."""
    if len(line) > MAX_LINE_CHARACTERS:
        raise ShellSyntaxError("line too long")
    tokens = _Lexer(line).tokens()
    pipelines: list[Pipeline] = []
    operator, current = ";", list[_Token]()
    for token in [*tokens, _Token(operator=";")]:
        if token.operator == "&":
            raise ShellSyntaxError("unexpected '&'")
        if token.operator not in (";", "&&", "||"):
            current.append(token)
            continue
        if current:
            pipelines.append(_pipeline(operator, current))
        elif token.operator != ";" or operator != ";":
            raise ShellSyntaxError(f"unexpected '{token.operator}'")
        operator, current = token.operator, []
    return pipelines


def _pipeline(operator: str, tokens: list[_Token]) -> Pipeline:
    is_negated = tokens[0].word == _NEGATION
    groups: list[list[_Token]] = [[]]
    for token in tokens[1:] if is_negated else tokens:
        if token.operator == "|":
            groups.append([])
        else:
            groups[-1].append(token)
    return Pipeline(
        operator=operator, is_negated=is_negated, commands=tuple(_simple_command(group) for group in groups)
    )


def _simple_command(tokens: list[_Token]) -> SimpleCommand:
    if not tokens:
        raise ShellSyntaxError("unexpected '|'")
    words: list[Word] = []
    redirections: list[Redirection] = []
    remaining = iter(tokens)
    for token in remaining:
        if not token.operator:
            words.append(token.word)
            continue
        descriptor = int(token.operator[0]) if token.operator[0] in "012" else (0 if "<" in token.operator else 1)
        if ">&" in token.operator:
            redirections.append(Redirection(descriptor=descriptor, target=(), to_descriptor=int(token.operator[-1])))
            continue
        target = next(remaining, None)
        if target is None or target.operator:
            raise ShellSyntaxError("unexpected 'newline'")
        redirections.append(
            Redirection(descriptor=descriptor, target=target.word, is_append=token.operator.endswith(">>"))
        )
    return SimpleCommand(words=tuple(words), redirections=tuple(redirections))


@dataclass(slots=True, kw_only=True)
class Call:
    """A command that is being run: its arguments, and the streams it reads and writes."""

    phone: Phone
    name: str
    arguments: list[str]
    stdin: ByteReader
    stdout: Output
    stderr: Output

    async def say(self, text: str) -> None:
        """Write text to the output."""
        if text:
            await self.stdout(text.encode())

    async def complain(self, text: str) -> None:
        """Write a line to the error output."""
        await self.stderr(text.encode() + b"\n")

    async def fail(self, text: str, code: int = 1) -> int:
        """Write a line to the error output and return the exit code."""
        await self.complain(text)
        return code

    async def refuse_unknown(self, what: str, text: str, code: int = 1) -> int:
        """Fail, and write to the phone's log that this phone does not know what it was asked for."""
        self.phone.log.unknown("shell", f"{self.name} {what}".strip())
        return await self.fail(text, code)


Command = Callable[[Call], Awaitable[int]]


class _Exit(Exception):
    """The shell is left with a code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _EmptyReader:
    """An input that has nothing."""

    async def read(self, limit: int) -> bytes:
        del limit
        return b""

    async def readexactly(self, count: int) -> bytes:
        raise asyncio.IncompleteReadError(b"", count)

    async def readuntil(self, separator: bytes, limit: int) -> bytes:
        del separator, limit
        raise asyncio.IncompleteReadError(b"", None)


class _Pipe:
    """What one command of a pipeline writes and the next one reads."""

    def __init__(self) -> None:
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.reader = ByteQueue(PIPE_BYTES, on_room=self._has_room.set)

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), PIPE_BYTES):
            await self._has_room.wait()
            self.reader.feed(data[start : start + PIPE_BYTES])
            if not self.reader.has_room:
                self._has_room.clear()


@dataclass(slots=True, kw_only=True)
class Shell:
    """One shell: runs lines with a table of commands, and keeps variables and the last exit code between them."""

    phone: Phone
    commands: Mapping[str, Command]
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": "/system/bin", "HOME": "/", "USER": "shell"})
    last_code: int = 0

    async def run(self, line: str, stdin: ByteReader, stdout: Output, stderr: Output) -> int:
        """Run a line and return its exit code."""
        try:
            for pipeline in parse(line):
                await self._run_pipeline(pipeline, stdin, stdout, stderr)
        except ShellSyntaxError as error:
            self.phone.log.unknown("shell-syntax", line)
            await stderr(f"/system/bin/sh: syntax error: {error}\n".encode())
            self.last_code = SYNTAX_ERROR
        except _Exit as leaving:
            self.last_code = leaving.code
        return self.last_code

    async def _run_pipeline(self, pipeline: Pipeline, stdin: ByteReader, stdout: Output, stderr: Output) -> None:
        if (pipeline.operator == "&&" and self.last_code) or (pipeline.operator == "||" and not self.last_code):
            return
        writers: list[asyncio.Task[int]] = []
        try:
            for command in pipeline.commands[:-1]:
                pipe = _Pipe()
                writers.append(asyncio.create_task(self._run_into(pipe, command, stdin, stderr)))
                stdin = pipe.reader
            code = await self._run_simple(pipeline.commands[-1], stdin, stdout, stderr)
        finally:
            for writer in writers:  # those that go on writing have lost their reader
                writer.cancel()
            ends = await asyncio.gather(*writers, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        self.last_code = int(not code) if pipeline.is_negated else code

    async def _run_into(self, pipe: _Pipe, command: SimpleCommand, stdin: ByteReader, stderr: Output) -> int:
        try:
            return await self._run_simple(command, stdin, pipe.write, stderr)
        except _Exit as leaving:
            return leaving.code
        finally:
            pipe.reader.feed_eof()

    async def _run_simple(self, command: SimpleCommand, stdin: ByteReader, stdout: Output, stderr: Output) -> int:
        words = [text for word in command.words for text in self._expand(word)]
        while words and (assignment := _ASSIGNMENT.match(words[0])):
            self.variables[assignment[1]] = words.pop(0)[assignment.end() :]
        redirected = _Redirected(self.phone, stdin, stdout, stderr)
        for redirection in command.redirections:
            problem = redirected.apply(redirection, "".join(self._expand(redirection.target)))
            if problem:
                await stderr(f"/system/bin/sh: {problem}\n".encode())
                return 1
        if not words:
            return 0
        code = await self._dispatch(words, redirected)
        problem = redirected.finish()
        if problem:
            await stderr(f"/system/bin/sh: {problem}\n".encode())
            return 1
        return code

    async def _dispatch(self, words: list[str], streams: "_Redirected") -> int:
        name, *arguments = words
        if name == "exit":
            code = whole_number(arguments[0]) if arguments else None
            raise _Exit(self.last_code if code is None else code & 0xFF)
        if name == "exec" and arguments:
            raise _Exit(await self._dispatch(arguments, streams))
        if name in ("export", "unset"):
            self._declare(name, arguments)
            return 0
        command = self.commands.get(name.removeprefix("/system/bin/"))
        if command is None:
            self.phone.log.unknown("shell-command", " ".join(words))
            await streams.stderr(f"/system/bin/sh: {name}: inaccessible or not found\n".encode())
            return NOT_FOUND
        call = Call(
            phone=self.phone,
            name=name,
            arguments=arguments,
            stdin=streams.stdin,
            stdout=streams.stdout,
            stderr=streams.stderr,
        )
        return await command(call)

    def _declare(self, how: str, arguments: list[str]) -> None:
        for argument in arguments:
            name, separator, value = argument.partition("=")
            if how == "unset":
                self.variables.pop(name, None)
            elif separator:
                self.variables[name] = value

    def _expand(self, word: Word) -> list[str]:
        text = "".join(self._value(part) for part in word)
        is_plain = not any(part.is_quoted for part in word)
        if is_plain and any(part.is_variable for part in word):
            return text.split()
        if is_plain and ("*" in text or "?" in text) and text.startswith("/"):
            return self.phone.files.matching(text) or [text]
        return [text]

    def _value(self, part: Part) -> str:
        if not part.is_variable:
            return part.text
        return str(self.last_code) if part.text == "?" else self.variables.get(part.text, "")


class _Redirected:
    """The three streams of a command after its redirections; what goes to a file is written when it has ended."""

    def __init__(self, phone: Phone, stdin: ByteReader, stdout: Output, stderr: Output) -> None:
        self._phone = phone
        self._captured: dict[str, bytearray] = {}
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def apply(self, redirection: Redirection, path: str) -> str:
        """Redirect; return what is wrong, or nothing."""
        if redirection.to_descriptor is not None:
            output = self.stdout if redirection.to_descriptor == 1 else self.stderr
        elif redirection.descriptor == 0:
            return self._read_from(path)
        elif not path:
            return "missing file name"
        elif path == "/dev/null":
            output = _discard
        else:
            output = self._capture(path, is_append=redirection.is_append)
        if redirection.descriptor == 1:
            self.stdout = output
        else:
            self.stderr = output
        return ""

    def finish(self) -> str:
        """Write what goes to files; return what is wrong, or nothing."""
        for path, content in self._captured.items():
            try:
                self._phone.files.write(path, bytes(content))
            except OSError as error:
                return f"can't create {path}: {error.strerror or error}"
        return ""

    def _read_from(self, path: str) -> str:
        if path == "/dev/null":
            self.stdin = _EmptyReader()
            return ""
        file = self._phone.files.get(path)
        if file is None:
            return f"can't open {path}: No such file or directory"
        queue = ByteQueue(len(file.content) + 1)
        queue.feed(file.content)
        queue.feed_eof()
        self.stdin = queue
        return ""

    def _capture(self, path: str, *, is_append: bool) -> Output:
        present = self._phone.files.get(path) if is_append else None
        content = self._captured.setdefault(path, bytearray(present.content if present else b""))
        limit = self._phone.files.capacity_bytes

        async def write(data: bytes) -> None:
            if len(content) + len(data) <= limit:
                content.extend(data)

        return write


async def _discard(data: bytes) -> None:
    del data
