"""`qgjob-agent doctor`: whether an agent with these settings could work here. Nothing is installed or started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from importlib.metadata import version
from pathlib import Path

from agent.browserstack.client import Client, CloudFailed
from agent.cloud import account_of
from agent.config import CloudConfig, Config, ConfigError
from agent.devices.adb import AdbUnavailable, track
from agent.doctor_ios import examine_ios
from agent.runners.appwright_project import ProjectUnusable, check_project
from agent.spool import is_in_use
from qgjob.checkup import Check, Finding, check_coordinator, check_of_error, failed, passed
from qgjob.errors import ClientError

NODE = {"node": "Node 20", "npm": "Node 20 with npm"}
TOOLS = {"adb": "adb", "aapt": "aapt", "java": "a Java runtime, 17 or newer"}
"""What must be on PATH for tests on Android devices, and what brings it."""
ADB_PATIENCE_S = 10.0


def examine(config: Config) -> list[Check]:
    """Return what was found."""
    checks = [_state_dir(config), *(_coordinator(address, config) for address in config.coordinators)]
    if config.simulate:
        counted = ", ".join(f"{count} {kind}" for kind, count in config.simulate)
        checks.append(passed("simulated", counted))
    if config.workspace is not None or config.is_for_bundles:
        checks += [_project(config.workspace)] if config.workspace is not None else [*map(_tool, NODE)]
        if config.cloud is not None:
            return [*checks, _browserstack(config.cloud)]
        if config.ios is not None:
            return [*checks, *asyncio.run(examine_ios(config.ios))]
        checks += map(_tool, TOOLS)
        checks += [_emulators(config)] if config.emulators else []
        checks.append(
            passed("devices", f"{config.virtual_phones} virtual phones")
            if config.virtual_phones
            else asyncio.run(_devices(config.adb_port, is_alone=not config.emulators))
        )
    return checks


def _state_dir(config: Config) -> Check:
    if not os.access(config.state_dir, os.W_OK | os.X_OK):
        return failed("state", f"{config.state_dir} cannot be written", "choose another --state-dir")
    try:
        is_taken = is_in_use(config.state_dir)
    except OSError as error:
        return failed("state", f"{config.state_dir} cannot be used: {error.strerror}", "choose another --state-dir")
    if is_taken:
        # Most likely the one that is meant, at work: no fault, but a second one would be refused.
        hint = "before another one is started, stop it, or give that one another --name or --state-dir"
        return Check(
            name="state", finding=Finding.WARNING, message=f"an agent works in {config.state_dir} now", hint=hint
        )
    return passed("state", f"agent {config.name} keeps logs and results in {config.state_dir}")


def _coordinator(address: str, config: Config) -> Check:
    try:
        return check_coordinator(address, config.access, version("qgjob"), is_agent=True)
    except ClientError as error:
        return check_of_error("coordinator", error)


def _project(workspace: Path) -> Check:
    try:
        return passed("project", str(check_project(workspace)))
    except ProjectUnusable as error:
        return failed("project", str(error))


def _tool(name: str) -> Check:
    found = shutil.which(name)
    return passed(name, found) if found else failed(name, "is not on PATH", f"install {(NODE | TOOLS)[name]}")


def _browserstack(cloud: CloudConfig) -> Check:
    try:
        client = Client(account_of(cloud), patience_s=0)
        plan = client.plan(threading.Event())
    except ConfigError as error:
        return failed("browserstack", str(error), error.hint)
    except CloudFailed as error:
        hint = "" if error.is_refusal_of_credentials else "the agent asks again until it answers"
        return failed("browserstack", str(error), hint)
    used = f"{plan.running} of {plan.most} sessions are in use"
    if not plan.most:
        return failed("browserstack", "the plan of the account allows no session", "buy App Automate for it")
    if plan.queued:
        hint = "somebody else works beyond the plan; sessions of this agent begin when they are through"
        return Check(
            name="browserstack", finding=Finding.WARNING, message=f"{used}, and {plan.queued} wait there", hint=hint
        )
    return passed("browserstack", f"{client.account.name}: {used}")


def _emulators(config: Config) -> Check:
    counted = ", ".join(f"{count} of {avd}" for avd, count in config.emulators)
    found = shutil.which("emulator")
    if found is None:
        return failed("emulator", "is not on PATH", f"install the Android emulator, which shall boot {counted}")
    return passed("emulator", f"{found} boots {counted} when work comes")


async def _devices(port: int, *, is_alone: bool) -> Check:
    changes = track(port)
    states: dict[str, str] = {}
    try:
        async with asyncio.timeout(ADB_PATIENCE_S), contextlib.aclosing(changes):
            states = await anext(changes, {})
    except (OSError, AdbUnavailable, TimeoutError):
        hint = "the agent starts one; until then nothing is known of devices"
        return Check(name="devices", finding=Finding.WARNING, message=f"no adb server on port {port}", hint=hint)
    told = ", ".join(f"{udid} ({state})" for udid, state in sorted(states.items()))
    if is_alone and not any(state == "device" for state in states.values()):
        return failed("devices", told or "none", "connect one and allow USB debugging, or start an emulator")
    return passed("devices", told or "none besides")
