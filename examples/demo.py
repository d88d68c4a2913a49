"""The tour of `make demo`: three specs of one build, and a failing one of another, go through the whole grid.

All four are submitted before the agent starts, so the order that is shown is the scheduler's own. At the end the demo
checks what it has shown, and fails where a promise was not kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from agent.appium import AppiumFailed
from agent.virtual_phone.apk import build_apk
from examples import node_packages
from examples.stage import NotKept, Stage, say, telling, title

EXAMPLE = Path(__file__).parent / "wikipedia"
PACKAGE = "org.example.wikipedia"
BUILD_BYTES = 60_000_000
"""About what a real app weighs: installing it takes its time."""
LONGEST_S = 300

Job = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """The devices that the tour runs on."""

    name: str
    agent: tuple[str, ...]
    """The options of the agent that brings them."""
    build: str
    """What the device's own record calls the build of the three specs."""
    record: Callable[[str], list[tuple[str, str]]]
    """Returns what a device wrote down itself: installs and starts, each with the build."""
    failing: tuple[str, ...] = ()
    """Options that make the failing spec fail, where the spec itself cannot."""


def virtual_phones(stage: Stage) -> Lab:
    """Lay out an AppWright project with two builds; its phones will be virtual, everything else is real.

    Raises:
        NpmFailed: The Node packages cannot be installed.
        AppiumFailed: Appium's driver cannot be installed.
    """
    with telling("Node packages (AppWright, Playwright, Appium: minutes the first time)"):
        workspace = node_packages.lay_out(EXAMPLE, stage.folder / "wikipedia")
    with telling("Appium's UiAutomator2 driver"):
        node_packages.install_driver(workspace, stage.folder / "agent")
    with telling("Two builds of a small app, aligned and signed"):
        build = build_apk(workspace / "apps" / "xyz123.apk", PACKAGE, 1, "1.0", BUILD_BYTES)
        build_apk(workspace / "apps" / "abc456.apk", PACKAGE, 2, "2.0", BUILD_BYTES)

    def record(device: str) -> list[tuple[str, str]]:
        number = int(device.removeprefix("virtual-").partition("@")[0])
        log = stage.folder / "agent" / "virtual-phones" / f"VPHONE{number:04d}.packages.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [(line["event"], line["sha256"]) for line in lines if line["package"] == PACKAGE]

    return Lab(
        name="two virtual phones",
        agent=("--virtual-phones", "2", "--workspace", "wikipedia", "--build-source", "apps/{app_version_id}.apk"),
        build=hashlib.sha256(build.read_bytes()).hexdigest(),
        record=record,
    )


def simulated_devices(stage: Stage) -> Lab:
    """Return devices that only pretend, for machines without the tools of the real thing."""

    def record(device: str) -> list[tuple[str, str]]:
        lines = [json.loads(line) for line in (stage.folder / "agent" / "device-truth.jsonl").read_text().splitlines()]
        mine = [line for line in lines if line["device"] == device and line["event"] != "end"]
        return [(line["event"].upper(), line.get("app_version_id", "")) for line in mine]

    return Lab(
        name="two simulated devices",
        agent=("--simulate", "emulator=2"),
        build="xyz123",
        record=record,
        failing=("--env", "QGJOB_SIM_OUTCOME=failed"),
    )


def choose_lab(stage: Stage) -> Lab:
    """Return the best that this machine can do."""
    if missing := node_packages.missing_tools():
        say(f"On simulated devices, because this is missing for real AppWright: {', '.join(missing)}")
        return simulated_devices(stage)
    try:
        return virtual_phones(stage)
    except (node_packages.NpmFailed, AppiumFailed) as error:
        say(f"On simulated devices, because npm's packages cannot be had: {error}")
        return simulated_devices(stage)


def walk(stage: Stage, lab: Lab) -> dict[str, bool]:
    """Take the tour, and return what was promised with whether it came true."""
    title("A coordinator: it owns the queue")
    ready = stage.start("qgjob-coordinator", "serve", "--listen", "127.0.0.1:0", "--data-dir", "data")
    stage.env["QGJOB_COORDINATOR"] = ready.partition("grpc=")[2].split()[0]

    title("Four jobs, before there is any device")
    login = submit(stage, "login", "xyz123", "--priority=3")
    signup = submit(stage, "signup", "xyz123", "--priority=3")
    checkout = submit(stage, "checkout", "xyz123", "--priority=4")
    broken = submit(stage, "broken", "abc456", "--priority=3", *lab.failing)
    say()
    stage.show("queue", "status")

    title(f"An agent: it brings {lab.name}, and the work begins")
    stage.start("qgjob-agent", "run", "--name", "demo", "--state-dir", "agent", *lab.agent)

    title(f"The log of job {checkout}, while it is written: priority 4 goes first")
    first_line = stage.follow(checkout)
    say()
    stage.show("devices", "list")

    title("All four come to their end; the exit code is 1, because one test failed")
    stage.show("jobs", "wait", *map(str, (login, signup, checkout, broken)), code=1)
    say()
    stage.show("status", "job", f"--job-id={broken}")

    title("One install served three specs")
    stage.show("queue", "status")
    say("\nThe coordinator's own story of it:")
    for story in stage.stories("batch_claimed", "batch_done", "time_saved"):
        say(f"  {story}")
    jobs = {job["id"]: job for job in stage.read("jobs", "list")}
    device = jobs[checkout]["device"]
    record = lab.record(device)
    say(f"\nWhat {device} wrote down itself:")
    for event, build in record:
        say(f"  {event:<9}{build[:16]}")
    failed = stage.read("status", "job", f"--job-id={broken}")
    return promises(stage, lab, [jobs[job] for job in (checkout, login, signup)], failed, first_line)


def submit(stage: Stage, spec: str, app: str, *options: str) -> int:
    """Show a submit and return the job."""
    arguments = ("submit", f"--app-version-id={app}", f"--test=tests/{spec}.spec.ts", *options)
    say(f"$ qgjob {' '.join(arguments)}")
    (job,) = stage.read(*arguments)
    say(f"  job {job['id']}: {job['status']}")
    return int(job["id"])


def promises(stage: Stage, lab: Lab, batch: list[Job], broken: Job, first_line: datetime) -> dict[str, bool]:
    """Compare what happened with what the README says of it. The first job of the batch should have run first."""
    device = batch[0]["device"]
    installs = [build for event, build in lab.record(device) if event == "INSTALL"]
    error = broken["tests"][0]["error"].splitlines()[0] if broken["tests"] else ""
    queue = stage.read("queue", "status")
    return {
        "the three specs of one build passed": all(job["status"] == "completed" for job in batch),
        "they ran on one device": {job["device"] for job in batch} == {device},
        "checkout, with the highest priority, ran first": min(batch, key=lambda job: job["start_time"]) is batch[0],
        "the device's own record has one install, of their build": installs == [lab.build],
        "two installs were avoided": queue["installs_avoided"] == 2 and queue["seconds_saved"] > 0,
        "the log was seen while the test ran": first_line < datetime.fromisoformat(batch[0]["end_time"]),
        "the failing spec ran on the other device": broken["device"] not in (None, device),
        "it failed with the error that its test gave": broken["status"] == "failed"
        and error != ""
        and error in broken["failure_reason"]["message"]
        and error in stage.text("logs", str(broken["id"])),
    }


def check(facts: dict[str, bool]) -> None:
    """Say of each promise whether it was kept.

    Raises:
        NotKept: One was not.
    """
    title("What was promised")
    for fact, is_so in facts.items():
        say(f"{'ok ' if is_so else 'NOT'}  {fact}")
    if not all(facts.values()):
        raise NotKept("the demo did not keep its word")


def main() -> int:
    """Run the demo; return the exit code."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    begun = time.monotonic()
    try:
        with Stage() as stage:
            lab = choose_lab(stage)
            stage.limit(LONGEST_S)
            check(walk(stage, lab))
    except NotKept as error:
        say(f"\nerror: {error}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted; nothing is left running.")
        return 130
    say(f"\nDone in {time.monotonic() - begun:.0f} s on {lab.name}; nothing is left running.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
