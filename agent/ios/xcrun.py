"""Runs Apple's tools: `xcrun simctl` for simulators, `xcrun devicectl` for devices.

What they print for people changes with each Xcode; what they tell as JSON is what Apple calls their interface.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.journal import Claim
from agent.process import start

TIMEOUT_S = 30.0
MOST_SAID = 300
KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG", "DEVELOPER_DIR")


class XcrunFailed(Exception):
    """A tool refused, or took too long; the sentence is its own, as far as there is one."""


class Xcrun:
    """The tools of this host. A command under a claim holds the device until it has ended, whatever ends its agent."""

    def __init__(self, claim: Claim | None = None) -> None:
        """`claim` is the right to the device that is worked on."""
        self._claim = claim

    async def simctl(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> bytes:
        """Run a command of simctl, and return what it printed.

        Raises:
            XcrunFailed: It failed.
        """
        code, told, complaints = await _run(("simctl", *arguments), timeout_s)
        if code != 0:
            raise XcrunFailed(_sentence(complaints or told) or f"simctl {arguments[0]} ended with {code}")
        return told

    async def devicectl(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> Mapping[str, Any]:
        """Run a command of devicectl, and return the result that it told as JSON.

        Raises:
            XcrunFailed: It failed, or told something that nobody understands.
        """
        with tempfile.TemporaryDirectory(prefix="qgjob-") as folder:
            answer = Path(folder) / "answer.json"
            options = ("--timeout", str(int(timeout_s)), "--quiet", "--json-output", str(answer))
            code, told, complaints = await _run(("devicectl", *arguments, *options), timeout_s + 5)
            return _result(answer, code, complaints or told)

    async def install(self, *command: str, of: str, timeout_s: float) -> None:
        """Run a command that installs: supervised, for one that outlived its agent would land in the next one's tests.

        Args:
            command: What xcrun runs.
            of: What is installed, for the journal.
            timeout_s: How long it may take.

        Raises:
            XcrunFailed: It failed.
        """
        said = bytearray()
        env = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        try:
            install = await start(
                (_program(), *command),
                env=env,
                directory=Path(tempfile.gettempdir()),
                output=said.extend,
                claim=self._claim,
                what=f"install of {of}",
            )
        except OSError as error:
            raise XcrunFailed(f"xcrun cannot be started: {error}") from error
        try:
            async with asyncio.timeout(timeout_s):
                code = await asyncio.shield(install.wait())
        except TimeoutError:
            raise XcrunFailed(f"the install took longer than {timeout_s:g} s") from None
        finally:
            await install.stop(0)
        if code != 0:
            raise XcrunFailed(_sentence(bytes(said)) or f"{' '.join(command[:4])} ended with {code}")


def _program() -> str:
    return shutil.which("xcrun") or "xcrun"


async def _run(arguments: tuple[str, ...], timeout_s: float) -> tuple[int, bytes, bytes]:
    """Return the exit code, stdout and stderr: the tools write warnings there beside an answer that is whole."""
    try:
        process = await asyncio.create_subprocess_exec(
            _program(),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise XcrunFailed(f"xcrun cannot be started: {error.strerror}; install Xcode") from error
    try:
        async with asyncio.timeout(timeout_s):
            told, complaints = await process.communicate()
    except TimeoutError:
        raise XcrunFailed(f"xcrun {' '.join(arguments[:2])} took longer than {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, told, complaints


def _result(answer: Path, code: int, said: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(answer.read_bytes())
        if told["info"]["outcome"] == "success" and isinstance(told["result"], dict):
            return dict(told["result"])
        description = told["error"]["userInfo"]["NSLocalizedDescription"]["string"]
    except FileNotFoundError:
        description = _sentence(said) or f"devicectl ended with {code} and told nothing"
    except (ValueError, KeyError, TypeError):
        description = _sentence(said) or "devicectl told something that this release does not understand"
    raise XcrunFailed(str(description)[:MOST_SAID])


def _sentence(said: bytes) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:MOST_SAID] if lines else ""
