"""A whole grid of real processes on loopback: coordinator, agents, and the command line."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0
MOST_PAUSE_S = 0.2
LOOK_S = 10.0
"""After which an HTTP port is taken for one that does not answer."""
BIN = Path(sys.executable).parent
COORDINATOR = (str(BIN / "qgjob-coordinator"),)
AGENT = (str(BIN / "qgjob-agent"),)
CLIENT = (str(BIN / "qgjob"),)

QUICK = ("--heartbeat", "0.2", "--lease-ttl", "1.5", "--signal-grace", "1", "--preempt-grace", "2")
PATIENT = ("--heartbeat", "0.2", "--lease-ttl", "10", "--signal-grace", "1", "--preempt-grace", "2")
"""For tests in which no lease may run out, however slowly a busy machine starts a coordinator again."""


def eventually(is_so: Callable[[], object], what: str, *, seconds: float = DEADLINE_S) -> None:
    """Wait until a condition of another process holds, at first with short pauses.

    Raises:
        AssertionError: It did not in time.
    """
    deadline, pause_s = time.monotonic() + seconds, 0.02
    while not is_so():
        assert time.monotonic() < deadline, f"in {seconds:g} s it did not happen: {what}"
        threading.Event().wait(pause_s)
        pause_s = min(1.25 * pause_s, MOST_PAUSE_S)


class Program:
    """One process of the grid, its diagnostics in a file."""

    def __init__(self, name: str, command: list[str], directory: Path, env: dict[str, str]) -> None:
        self.name = name
        self._command = command
        self._env = env
        self.diagnostics = directory / f"{name}.err"
        self.output = directory / f"{name}.out"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Program:
        with self.diagnostics.open("ab") as err, self.output.open("wb") as out:
            self.process = subprocess.Popen(
                self._command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=self._env, start_new_session=True
            )
        return self

    def ready_line(self) -> str:
        """Wait for the promised line on stdout and return it."""
        eventually(lambda: self._line() or self._has_ended(), f"{self.name} says that it is ready")
        assert self._line(), f"{self.name} ended:\n{self.diagnostics.read_text()}"
        return self._line()

    def _line(self) -> str:
        lines = [line for line in self.output.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return next((line.strip() for line in lines if "ready" in line), "")

    def _has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def wait(self) -> int:
        """Wait for the end that comes by itself, and return the exit code."""
        eventually(self._has_ended, f"{self.name} ends")
        assert self.process is not None
        return int(self.process.returncode)

    def wait_for_death(self) -> None:
        """Wait until it was killed by what it met."""
        assert self.wait() == -signal.SIGKILL, self.diagnostics.read_text()[-4000:]

    def kill(self) -> None:
        """kill -9 of the process alone, and reap it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def kill_group(self) -> None:
        """kill -9 of its whole process group, and reap it."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM, and wait for the end."""
        if self.process is None or self.process.poll() is not None:
            return self.process.returncode if self.process is not None else 0
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError(f"{self.name} did not stop:\n{self.diagnostics.read_text()[-4000:]}") from None


class Grid:
    """A coordinator, and what talks to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = ""
        self.client: Sequence[str] = CLIENT
        """What a command of a user begins with."""
        self.http_address = ""
        self._programs: list[Program] = []
        home = directory / "home"
        home.mkdir(parents=True, exist_ok=True)
        keep = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT") if name in os.environ}
        self.env = {**keep, "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "NO_COLOR": "1"}

    def coordinator(self, *options: str, program: Sequence[str] = COORDINATOR) -> Program:
        """Start the coordinator; again on the same port and data after a kill."""
        started = self.one_coordinator("coordinator", self.address or "127.0.0.1:0", *options, program=program)
        ready = dict(word.split("=") for word in started.ready_line().split()[1:])
        self.address, self.http_address = ready["grpc"], ready.get("http", "")
        self.env["QGJOB_COORDINATOR"] = self.address
        return started

    def one_coordinator(self, name: str, listen: str, *options: str, program: Sequence[str] = COORDINATOR) -> Program:
        """Start one of several on the same data, by a name of its own, and wait until it serves or stands by."""
        command = [*program, "serve", "--listen", listen, "--http", "127.0.0.1:0"]
        command += ["--data-dir", str(self.directory / "coordinator"), *(options or QUICK)]
        started = self.start(name, command)
        started.ready_line()
        return started

    def agent(self, name: str = "lab", *options: str, program: Sequence[str] = AGENT) -> Program:
        """Start an agent of simulated devices and wait until it is ready."""
        command = [*program, "run", "--coordinator", self.address, "--name", name]
        command += ["--state-dir", str(self.directory / f"agent-{name}"), *(options or ("--simulate", "emulator=2"))]
        started = self.start(f"agent-{name}", command)
        started.ready_line()
        return started

    def start(self, name: str, command: list[str]) -> Program:
        """Start any program beside the others; it is stopped with them."""
        program = Program(name, command, self.directory, self.env).start()
        self._programs.append(program)
        return program

    def run(
        self, *arguments: str, code: int | None = 0, seconds: float = DEADLINE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run one qgjob command to its end; what it printed is kept in `client.out`."""
        done = subprocess.run(
            [*self.client, *arguments], capture_output=True, text=True, env=self.env, timeout=seconds, check=False
        )
        with (self.directory / "client.out").open("a") as printed:
            printed.write(done.stdout + done.stderr)
        if code is not None:
            assert done.returncode == code, (
                f"qgjob {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def follow(self, *arguments: str) -> subprocess.Popen[str]:
        """Start one qgjob command and leave it running."""
        return subprocess.Popen(
            [*self.client, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def json(self, *arguments: str) -> Any:  # noqa: ANN401 - whatever the command prints
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def submit(self, *tests: str, app: str = "xyz123", options: tuple[str, ...] = ()) -> list[int]:
        flags = [flag for test in tests for flag in ("--test", test)]
        jobs = self.json("submit", "--org-id", "qualgent", "--app-version-id", app, *flags, *options)
        return [job["id"] for job in jobs]

    # Looks. A command is a process that starts for a third of a second, and tests look often while they wait: the
    # HTTP port, where it answers, tells the same.

    def job(self, job_id: int) -> dict[str, Any]:
        told = self._look(f"/jobs/{job_id}")
        found: dict[str, Any] = (
            self.json("status", "job", "--job-id", str(job_id)) if told is None else json.loads(told)
        )
        return found

    def devices(self) -> list[dict[str, Any]]:
        return self._list("devices")

    def agents(self) -> list[dict[str, Any]]:
        return self._list("agents")

    def log(self, job_id: int, attempt: int | None = None) -> str:
        """Return what there is of the log of a job, or of one of its attempts."""
        told = self._look(f"/jobs/{job_id}/logs" + ("" if attempt is None else f"?attempt={attempt}"))
        options = () if attempt is None else ("--attempt", str(attempt))
        return self.run("logs", str(job_id), *options).stdout if told is None else told.decode()

    def _list(self, what: str) -> list[dict[str, Any]]:
        told = self._look(f"/{what}")
        found: list[dict[str, Any]] = self.json(what, "list") if told is None else json.loads(told)
        return found

    def _look(self, path: str) -> bytes | None:
        """Return what the HTTP port tells; None where it cannot be asked, and a command must find out more."""
        if not self.http_address or self.client != CLIENT:
            return None
        with closing(http.client.HTTPConnection(self.http_address, timeout=LOOK_S)) as connection:
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                told = answer.read()
            except (OSError, http.client.HTTPException):
                return None
        return told if answer.status == http.HTTPStatus.OK else None

    def status(self, job_id: int) -> str:
        return str(self.job(job_id)["status"])

    def stop(self) -> None:
        """Stop every program, also when one of them does not stop by itself."""
        with ExitStack() as stops:
            for program in self._programs:
                if program.process is not None and program.process.poll() is None:
                    stops.callback(program.stop)

    def processes(self) -> list[str]:
        """Return the command lines of what runs with this grid's home directory: ours, and what they started."""
        mark = f"HOME={self.env['HOME']}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                pass  # it has just ended, or is somebody else's
        return found


@contextmanager
def running_grid(directory: Path) -> Iterator[Grid]:
    """A grid that is stopped at the end, whatever happened."""
    grid = Grid(directory)
    try:
        yield grid
    finally:
        grid.stop()
