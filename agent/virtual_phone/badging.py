"""Reads what an APK says about itself, with ``aapt``."""

import asyncio
import re
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from agent.virtual_phone.errors import ToolMissing
from agent.virtual_phone.signatures import signer

AAPT_TIMEOUT_SECONDS = 60

_PACKAGE = re.compile(r"^package: name='([^']+)' versionCode='(\d*)' versionName='([^']*)'", re.MULTILINE)
_LAUNCHABLE = re.compile(r"^launchable-activity: name='([^']+)'", re.MULTILINE)
_LABEL = re.compile(r"^application-label:'([^']*)'", re.MULTILINE)
_MINIMUM_SDK = re.compile(r"^sdkVersion:'(\d+)'", re.MULTILINE)
_TARGET_SDK = re.compile(r"^targetSdkVersion:'(\d+)'", re.MULTILINE)
_PERMISSION = re.compile(r"^uses-permission: name='([^']+)'", re.MULTILINE)
_TEST_ONLY = re.compile(r"^testOnly='-1'", re.MULTILINE)
_NATIVE_CODE = re.compile(r"^(?:alt-)?native-code: (.+)$", re.MULTILINE)
_QUOTED = re.compile(r"'([^']*)'")
_TREE_ELEMENT = re.compile(r"^\s*E: (\S+)")
_TREE_ATTRIBUTE = re.compile(r'^\s*A: (?:android:)?(\w+)(?:\([^)]*\))?="([^"]*)"')


class ApkUnreadable(Exception):
    """The bytes are not an APK; carries the code that Android's installer gives."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrumentation:
    """A test runner inside an APK, and the package it instruments."""

    name: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Badging:
    """An APK's own description; names of components are complete, with their package; for `signer` see `signatures`."""

    package: str
    version_code: int
    version_name: str
    label: str
    launchable_activity: str | None
    minimum_sdk: int
    target_sdk: int
    permissions: tuple[str, ...]
    abis: tuple[str, ...]
    is_test_only: bool
    signer: str | None
    activities: frozenset[str]
    services: frozenset[str]
    receivers: frozenset[str]
    instrumentations: tuple[Instrumentation, ...]


async def read_badging(content: bytes) -> Badging:
    """Return what an APK says about itself.

    Raises:
        ToolMissing: ``aapt`` is not installed.
        ApkUnreadable: the bytes are not an APK.
    """
    aapt = shutil.which("aapt")
    if aapt is None:
        raise ToolMissing("aapt")
    with tempfile.NamedTemporaryFile(prefix="virtual-phone-", suffix=".apk") as scratch:
        await asyncio.to_thread(Path(scratch.name).write_bytes, content)
        signed_by = await asyncio.to_thread(_signer, Path(scratch.name))
        badging = await _run(aapt, "dump", "badging", scratch.name)
        tree = await _run(aapt, "dump", "xmltree", scratch.name, "AndroidManifest.xml")
    return parse(badging, tree, signed_by=signed_by)


def parse(badging: str, tree: str, *, signed_by: str | None) -> Badging:
    """Return the facts in the output of ``aapt dump badging`` and ``aapt dump xmltree``; raises `ApkUnreadable`."""
    identity = _PACKAGE.search(badging)
    if identity is None:
        raise ApkUnreadable("INSTALL_PARSE_FAILED_BAD_MANIFEST", "no package name in the manifest")
    package, version_code, version_name = identity.groups()
    components = _components(tree, package)
    written = next((facts for tag, facts in components if tag == "application"), {})
    native = _NATIVE_CODE.search(badging)
    return Badging(
        package=package,
        version_code=int(version_code or 0),
        version_name=version_name,
        # aapt leaves a label out that stands in the manifest itself instead of being a resource.
        label=_first(_LABEL, badging) or written.get("label", package),
        launchable_activity=_first(_LAUNCHABLE, badging),
        minimum_sdk=int(_first(_MINIMUM_SDK, badging) or 1),
        target_sdk=int(_first(_TARGET_SDK, badging) or _first(_MINIMUM_SDK, badging) or 1),
        permissions=tuple(_PERMISSION.findall(badging)),
        abis=tuple(_QUOTED.findall(native[1])) if native else (),
        is_test_only=_TEST_ONLY.search(badging) is not None,
        signer=signed_by,
        activities=_names(components, "activity", "activity-alias"),
        services=_names(components, "service"),
        receivers=_names(components, "receiver"),
        instrumentations=tuple(
            Instrumentation(name=facts["name"], target=facts.get("targetPackage", ""))
            for tag, facts in components
            if tag == "instrumentation" and "name" in facts
        ),
    )


def complete_name(package: str, name: str) -> str:
    """Return a component's class name with its package: ``.Main`` and ``Main`` are short for ``package.Main``."""
    if name.startswith("."):
        return package + name
    return name if "." in name else f"{package}.{name}"


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return found[1] if found else None


def _components(tree: str, package: str) -> list[tuple[str, dict[str, str]]]:
    components: list[tuple[str, dict[str, str]]] = []
    for line in tree.splitlines():
        if element := _TREE_ELEMENT.match(line):
            components.append((element[1], {}))
        elif components and (attribute := _TREE_ATTRIBUTE.match(line)):
            name, value = attribute.groups()
            components[-1][1][name] = complete_name(package, value) if name == "name" else value
    return components


def _names(components: list[tuple[str, dict[str, str]]], *tags: str) -> frozenset[str]:
    return frozenset(facts["name"] for tag, facts in components if tag in tags and "name" in facts)


def _signer(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return signer(path, archive)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:  # what zipfile says to garbage
        raise ApkUnreadable("INSTALL_PARSE_FAILED_NOT_APK", f"Failed to parse APK: {error}") from error


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(AAPT_TIMEOUT_SECONDS):
            output, complaint = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        reason = complaint.decode(errors="replace").strip().splitlines()
        raise ApkUnreadable("INSTALL_PARSE_FAILED_NOT_APK", reason[-1] if reason else "Failed to parse APK")
    return output.decode(errors="replace")
