"""``pm``: the package manager's command line, which ``adb install`` calls as ``cmd package``."""

import asyncio
from collections.abc import Mapping

from agent.virtual_phone.commands.options import Options, OptionUnknown, read_options
from agent.virtual_phone.faults import FaultKind
from agent.virtual_phone.numerals import whole_number
from agent.virtual_phone.packages import (
    MAX_APK_BYTES,
    STORAGE_CODE,
    InstallOptions,
    InstallRefused,
    PackageUnknown,
)
from agent.virtual_phone.shell import Call, Command

SERVICE_MISSING = 20
UNKNOWN_COMMAND = 255
_INSTALL_FLAGS = {"-r", "-R", "-d", "-t", "-g", "-f", "-s", "-l", "--full", "--dont-kill", "--force-sdk"}
_INSTALL_VALUES = {"-S", "-i", "--user", "--abi", "--install-location"}


async def run_pm(call: Call) -> int:
    """Run ``pm`` or ``cmd package``."""
    if not call.phone.is_booted:
        return await call.fail("cmd: Can't find service: package", SERVICE_MISSING)
    name, *arguments = call.arguments or [""]
    command = _SUBCOMMANDS.get(name)
    if command is None:
        return await call.refuse_unknown(name, f"Unknown command: {name}", UNKNOWN_COMMAND)
    call.name, call.arguments = name, arguments
    try:
        return await command(call)
    except PackageUnknown as error:
        return await call.fail(f"Error: {error}")
    except OptionUnknown as error:
        return await call.refuse_unknown(error.option, f"Error: Unknown option: {error.option}")


async def _install(call: Call) -> int:
    options = read_options(call.arguments, flags=_INSTALL_FLAGS, valued=_INSTALL_VALUES)
    try:
        content = await _receive(call, options)
        await call.phone.packages.install(
            content,
            InstallOptions(
                may_replace="-R" not in options.flags,
                may_downgrade="-d" in options.flags,
                may_be_test_only="-t" in options.flags,
                grants_permissions="-g" in options.flags,
            ),
        )
    except InstallRefused as error:
        await call.say(f"Failure [{error}]\n")
        return 1
    await call.say("Success\n")
    return 0


async def _receive(call: Call, options: Options) -> bytes:
    if "-S" not in options.values:
        return _read_from_phone(call, options)
    text = options.values["-S"]
    size = whole_number(text) or 0
    if not 0 < size <= MAX_APK_BYTES:
        raise InstallRefused("INSTALL_FAILED_INVALID_APK", f"size {text}")
    if call.phone.faults.active(FaultKind.STORAGE_FULL) or size > call.phone.files.free_bytes:
        raise InstallRefused(STORAGE_CODE, "Failed to allocate space for the session")
    try:
        return await call.stdin.readexactly(size)
    except asyncio.IncompleteReadError as error:
        raise InstallRefused("INSTALL_PARSE_FAILED_NOT_APK", f"only {len(error.partial)} of {size} bytes") from error


def _read_from_phone(call: Call, options: Options) -> bytes:
    if len(options.rest) != 1:
        raise InstallRefused("INSTALL_FAILED_INVALID_URI", "one path is needed")
    file = call.phone.files.get(options.rest[0])
    if file is None:
        raise InstallRefused("INSTALL_FAILED_INVALID_URI", f"Unable to open file: {options.rest[0]}")
    return file.content


async def _uninstall(call: Call) -> int:
    options = read_options(call.arguments, flags={"-k"}, valued={"--user", "--versionCode"})
    package = options.rest[0] if options.rest else ""
    call.phone.stop(package)
    try:
        call.phone.packages.uninstall(package)
    except PackageUnknown:
        await call.say("Failure [DELETE_FAILED_INTERNAL_ERROR]\n")
        return 1
    await call.say("Success\n")
    return 0


async def _list(call: Call) -> int:
    what, *arguments = call.arguments or [""]
    lister = _LISTS.get(what)
    if lister is None:
        return await call.refuse_unknown(what, f"Error: unknown list type '{what}'", UNKNOWN_COMMAND)
    call.arguments = arguments
    return await lister(call)


async def _list_packages(call: Call) -> int:
    flags = {"-f", "-3", "-s", "-e", "-d", "-i", "-U", "--show-versioncode"}
    options = read_options(call.arguments, flags=flags, valued={"--user"})
    fragment = options.rest[0] if options.rest else ""
    for installed in call.phone.packages.all():
        if fragment not in installed.name or options.flags & {"-s", "-d"}:
            continue
        line = f"package:{installed.path}={installed.name}" if "-f" in options.flags else f"package:{installed.name}"
        if "--show-versioncode" in options.flags:
            line += f" versionCode:{installed.badging.version_code}"
        if "-U" in options.flags:
            line += f" uid:{installed.user_id}"
        await call.say(line + "\n")
    return 0


async def _list_instrumentation(call: Call) -> int:
    for installed in call.phone.packages.all():
        for runner in installed.badging.instrumentations:
            await call.say(f"instrumentation:{installed.name}/{runner.name} (target={runner.target})\n")
    return 0


async def _list_features(call: Call) -> int:
    await call.say("feature:android.hardware.touchscreen\nfeature:android.hardware.wifi\n")
    return 0


async def _list_users(call: Call) -> int:
    await call.say("Users:\n\tUserInfo{0:Owner:c13} running\n")
    return 0


async def _path(call: Call) -> int:
    options = read_options(call.arguments, valued={"--user"})
    installed = call.phone.packages.find(options.rest[0] if options.rest else "")
    if installed is None:
        return 1
    await call.say(f"package:{installed.path}\n")
    return 0


async def _clear(call: Call) -> int:
    options = read_options(call.arguments, valued={"--user"})
    package = options.rest[0] if options.rest else ""
    call.phone.stop(package)
    try:
        call.phone.packages.clear(package)
    except PackageUnknown:
        await call.say("Failed\n")
        return 1
    await call.say("Success\n")
    return 0


async def _grant(call: Call) -> int:
    """Run ``pm grant`` or ``pm revoke``."""
    options = read_options(call.arguments, valued={"--user"})
    if len(options.rest) != 2:
        return await call.fail("Error: needs a package and a permission")
    package, permission = options.rest
    installed = call.phone.packages.get(package)
    if permission not in installed.badging.permissions:
        text = f"Package {package} has not requested permission {permission}"
        return await call.fail(
            f"Exception occurred while executing '{call.name}':\njava.lang.SecurityException: {text}", 255
        )
    if call.name == "grant":
        installed.granted_permissions.add(permission)
    else:
        installed.granted_permissions.discard(permission)
    return 0


async def _resolve_activity(call: Call) -> int:
    options = read_options(call.arguments, flags={"--brief"}, valued={"--user", "-a", "-c"})
    installed = call.phone.packages.find(options.rest[-1] if options.rest else "")
    activity = installed.badging.launchable_activity if installed else None
    if installed is None or activity is None:
        await call.say("No activity found\n")
        return 0
    await call.say(
        f"priority=0 preferredOrder=0 match=0x108000 specificIndex=-1 isDefault=true\n{installed.name}/{activity}\n"
    )
    return 0


async def _get_install_location(call: Call) -> int:
    await call.say("0[auto]\n")
    return 0


_LISTS: Mapping[str, Command] = {
    "package": _list_packages,
    "packages": _list_packages,
    "instrumentation": _list_instrumentation,
    "features": _list_features,
    "users": _list_users,
}
_SUBCOMMANDS: Mapping[str, Command] = {
    "install": _install,
    "uninstall": _uninstall,
    "list": _list,
    "path": _path,
    "clear": _clear,
    "grant": _grant,
    "revoke": _grant,
    "resolve-activity": _resolve_activity,
    "get-install-location": _get_install_location,
}
COMMANDS: Mapping[str, Command] = {"pm": run_pm}
