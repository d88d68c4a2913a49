"""The tour of `make demo`: a coordinator, an agent, three specs of one build and a failing one of another.

Everything is submitted before the agent starts, so the order that is shown is the scheduler's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
WAIT = "2m"


def say(text: str = "") -> None:
    """Print a line of the tour, in order with what the commands print."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Tour:
    """The processes of the demo, and the commands that are shown."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: list[subprocess.Popen[str]] = []
        self._env = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "QGJOB_ORG_ID": "qualgent"}

    def start(self, program: str, *arguments: str) -> str:
        """Start a program, wait for its ready line, and return it."""
        with (self._folder / f"{program}.log").open("w") as diagnostics:
            process = subprocess.Popen(
                [str(BIN / program), *arguments],
                stdout=subprocess.PIPE,
                stderr=diagnostics,
                stdin=subprocess.DEVNULL,
                text=True,
                env=self._env,
            )
        self._programs.append(process)
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.startswith("ready"):
            raise RuntimeError(f"{program} did not start:\n{(self._folder / f'{program}.log').read_text()}")
        say(f"$ {program} {' '.join(arguments)} &\n{line}")
        return line

    def point_at(self, address: str) -> None:
        """Let the commands that follow talk to this coordinator."""
        self._env["QGJOB_COORDINATOR"] = address

    def show(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
        """Show a command and what it prints."""
        say(f"\n$ qgjob {' '.join(arguments)}")
        done = subprocess.run([str(BIN / "qgjob"), *arguments], env=self._env, timeout=180, check=False)
        if done.returncode not in codes:
            raise RuntimeError(f"qgjob {' '.join(arguments)} ended with {done.returncode}")

    def read(self, *arguments: str) -> Any:  # noqa: ANN401 - whatever the command prints
        """Return what a command prints as JSON."""
        command = [str(BIN / "qgjob"), *arguments, "-o", "json"]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout)

    def submit(self, test: str, app: str, *options: str) -> int:
        """Show a submit and return the job."""
        arguments = ("submit", f"--app-version-id={app}", f"--test={test}", *options)
        say(f"$ qgjob {' '.join(arguments)}")
        (job,) = self.read(*arguments)
        say(f"  job {job['id']}, {job['status']}")
        return int(job["id"])

    def stop(self) -> None:
        """End everything that was started, the last first."""
        for process in reversed(self._programs):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            if process.stdout is not None:
                process.stdout.close()

    def story(self) -> None:
        """Print what the coordinator told of the batches."""
        for line in (self._folder / "qgjob-coordinator.log").read_text().splitlines():
            if 'story="' in line and ("event=batch" in line or "event=time" in line):
                say("  " + line.partition('story="')[2].partition('"')[0])


def missing_tools() -> list[str]:
    """Return the tools that real AppWright on virtual phones would need and that are not here."""
    return [tool for tool in ("node", "npm", "java", "adb", "aapt", "apksigner", "zipalign") if not shutil.which(tool)]


def walk(tour: Tour, folder: Path) -> None:
    """Take the tour."""
    ready = tour.start("qgjob-coordinator", "serve", "--listen", "127.0.0.1:0", "--data-dir", str(folder / "data"))
    address = ready.partition("grpc=")[2].split()[0]
    tour.point_at(address)
    say("\nFour jobs, before any device is there:")
    login = tour.submit("tests/login.spec.ts", "xyz123", "--priority=3", "--env", "QGJOB_SIM_LOG_LINES=4")
    signup = tour.submit("tests/signup.spec.ts", "xyz123", "--priority=3")
    checkout = tour.submit("tests/checkout.spec.ts", "xyz123", "--priority=4")
    broken = tour.submit("tests/broken.spec.ts", "other", "--priority=3", "--env", "QGJOB_SIM_OUTCOME=failed")
    tour.show("queue", "status", "-o", "table")
    say("\nNow two devices come:")
    tour.start(
        "qgjob-agent", "run", "--coordinator", address, "--name", "demo", "--simulate", "emulator=2",
        "--state-dir", str(folder / "agent"),
    )  # fmt: skip
    say(f"\nThe log of job {login}, as it is written:")
    tour.show("logs", str(login), "--follow")
    tour.show("jobs", "wait", *map(str, (login, signup, checkout)), "--wait-timeout", WAIT, "-o", "id")
    tour.show("jobs", "wait", str(broken), "--wait-timeout", WAIT, "-o", "id", codes=(1,))
    tour.show("jobs", "recent", "-o", "table")
    tour.show("status", "job", f"--job-id={broken}", "-o", "table")
    tour.show("queue", "status", "-o", "table")
    tour.show("devices", "list", "-o", "table")
    say("\nWhat the coordinator told of its batches:")
    tour.story()
    check(tour, [login, signup, checkout], broken)


def check(tour: Tour, passing: list[int], broken: int) -> None:
    """Compare what happened with what the tour promised.

    Raises:
        RuntimeError: It was not so.
    """
    jobs = {job["id"]: job for job in tour.read("jobs", "list")}
    by_start = sorted(passing, key=lambda job: jobs[job]["start_time"])
    facts = {
        "the three specs of one build passed": all(jobs[job]["status"] == "completed" for job in passing),
        "they ran on one device": len({jobs[job]["device"] for job in passing}) == 1,
        "checkout, with the highest priority, ran first": by_start[0] == passing[2],
        "the failing spec failed, with its reason": jobs[broken]["status"] == "failed"
        and bool(jobs[broken]["failure_reason"]["message"]),
        "their build was installed once": [
            build["installs"] for build in tour.read("builds", "list") if build["app_version_id"] == "xyz123"
        ]
        == [1],
    }
    say()
    for fact, is_so in facts.items():
        say(f"{'ok ' if is_so else 'NOT'} {fact}")
    if not all(facts.values()):
        raise RuntimeError("the demo did not keep its word")


def main() -> int:
    """Run the demo."""
    missing = missing_tools()
    lack = f" ({', '.join(missing)} missing here)" if missing else ""
    say("This release runs the demo on simulated devices: real AppWright on virtual phones is not in it yet" + lack)
    say()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qgjob-demo-") as name:
        tour = Tour(Path(name))
        try:
            walk(tour, Path(name))
        finally:
            tour.stop()
    say(f"\nDone in {time.monotonic() - begun:.0f} s; everything that was started has been stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
