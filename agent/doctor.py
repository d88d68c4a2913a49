"""`qgjob-agent doctor`: whether an agent with these settings could work here. Nothing is installed or started."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from importlib.metadata import version
from pathlib import Path

from agent.appium import UIAUTOMATOR2, XCUITEST
from agent.browserstack.client import Client, CloudFailed
from agent.cloud import account_of
from agent.config import CloudConfig, Config, ConfigError
from agent.doctor_android import examine_devices, examine_emulators
from agent.doctor_ios import examine_ios
from agent.doctor_tools import AAPT, ADB, JAVA, NODE, examine_aapt2, examine_driver, examine_npm, examine_program
from agent.runners.appwright_project import ProjectUnusable, check_project
from agent.spool import is_in_use
from qgjob.checkup import Check, check_coordinator, check_of_error, failed, passed, warned
from qgjob.errors import ClientError

GIB = 1_024**3
LEAST_FREE_BYTES = GIB
"""Appium's driver, the Node packages of a project or two, and what tests leave behind."""
LEAST_FREE_TO_SIMULATE_BYTES = 64 * 1_024 * 1_024


def examine(config: Config) -> list[Check]:
    """Return what was found."""
    checks = [_state_dir(config), _disk(config), *(_coordinator(address, config) for address in config.coordinators)]
    if config.simulate:
        counted = ", ".join(f"{count} {kind}" for kind, count in config.simulate)
        checks.append(passed("simulated", counted))
    if config.workspace is not None or config.is_for_bundles:
        checks += asyncio.run(_examine_tests(config))
    return checks


async def _examine_tests(config: Config) -> list[Check]:
    """Look at what tests need to run on the devices of this host, or of a cloud."""
    checks = [await examine_program(NODE), await examine_npm(is_needed=config.is_for_bundles)]
    if config.workspace is not None:
        checks.append(_project(config.workspace))
    if config.cloud is not None:
        return [*checks, await asyncio.to_thread(_browserstack, config.cloud)]
    driver = UIAUTOMATOR2 if config.ios is None else XCUITEST
    checks.append(examine_driver(driver, config.state_dir / driver.home))
    if config.ios is not None:
        return [*checks, *await examine_ios(config.ios)]
    checks += await asyncio.gather(*map(examine_program, (ADB, AAPT, JAVA)))
    checks.append(examine_aapt2())
    if config.emulators:
        checks.append(await examine_emulators(config.emulators))
    if config.virtual_phones:
        return [*checks, passed("devices", f"{config.virtual_phones} virtual phones")]
    return [*checks, *await examine_devices(config.adb_port, is_alone=not config.emulators)]


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
        return warned("state", f"an agent works in {config.state_dir} now", hint)
    return passed("state", f"agent {config.name} keeps logs and results in {config.state_dir}")


def _disk(config: Config) -> Check:
    """Look whether there is room for what the agent keeps."""
    has_tests = config.workspace is not None or config.is_for_bundles
    least = LEAST_FREE_BYTES if has_tests else LEAST_FREE_TO_SIMULATE_BYTES
    try:
        free = shutil.disk_usage(config.state_dir).free
        builds = sum(path.stat().st_size for path in (config.state_dir / "builds").glob("*"))
    except OSError as error:
        return failed("disk", f"{config.state_dir} cannot be looked at: {error}", "choose another --state-dir")
    told = f"{free / GIB:.1f} GiB are free for {config.state_dir}"
    if free < least:
        return failed("disk", told, f"free some: {least / GIB:.1f} GiB are wanted, or choose another --state-dir")
    wanted = config.build_cache_bytes - builds + least
    if has_tests and free < wanted:
        hint = (
            f"registered builds may come to {config.build_cache_bytes / GIB:.1f} GiB; free some, or set --build-cache"
        )
        return warned("disk", told, hint)
    return passed("disk", told)


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
        return warned("browserstack", f"{used}, and {plan.queued} wait there", hint)
    return passed("browserstack", f"{client.account.name}: {used}")
