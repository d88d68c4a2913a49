"""``am``: the activity manager's command line."""

from collections.abc import Mapping

from agent.virtual_phone.badging import complete_name
from agent.virtual_phone.commands.options import Options, OptionUnknown, read_options
from agent.virtual_phone.packages import InstalledPackage
from agent.virtual_phone.phone import SETTINGS_HELPER_PACKAGE, ActivityUnknown
from agent.virtual_phone.shell import Call, Command
from agent.virtual_phone.uiautomator.server import (
    SERVER_PACKAGE,
    SERVER_PORT,
    UiAutomatorServer,
)

SERVICE_MISSING = 20
UNKNOWN_COMMAND = 255
_INTENT_VALUES = {"-n", "-a", "-c", "-d", "-t", "-f", "-p", "--user", "--display"}
_INTENT_EXTRAS = {"--es", "--ei", "--ez", "--el", "--ef", "-e", "--esn"}
_START_FLAGS = {"-W", "-S", "-D", "-R", "--activity-clear-top", "--activity-single-top"}
_CLIPBOARD_ACTION = "io.appium.settings.clipboard.get"


async def run_am(call: Call) -> int:
    """Run ``am`` or ``cmd activity``."""
    if not call.phone.is_booted:
        return await call.fail("cmd: Can't find service: activity", SERVICE_MISSING)
    name, *arguments = call.arguments or [""]
    command = _SUBCOMMANDS.get(name)
    if command is None:
        return await call.refuse_unknown(name, f"Error: unknown command '{name}'", UNKNOWN_COMMAND)
    call.name, call.arguments = name, arguments
    try:
        return await command(call)
    except OptionUnknown as error:
        return await call.refuse_unknown(error.option, f"Error: Unknown option: {error.option}", UNKNOWN_COMMAND)


def _read_intent(arguments: list[str], *, flags: set[str]) -> Options:
    """Sort an intent's arguments; an extra takes a key and a value, which are left out."""
    kept: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument in _INTENT_EXTRAS:
            next(remaining, None)
            if argument != "--esn":
                next(remaining, None)
        else:
            kept.append(argument)
    return read_options(kept, flags=flags, valued=_INTENT_VALUES)


async def _start(call: Call) -> int:
    options = _read_intent(call.arguments, flags=_START_FLAGS)
    component = options.values.get("-n") or (options.rest[0] if options.rest else "")
    package, separator, activity = component.partition("/")
    if not separator:
        resolved = _resolve(call, options, package)
        if resolved is None:
            return await call.fail("Error: Activity not started, unable to resolve Intent { }")
        package, activity = resolved
    if "-S" in options.flags:
        call.phone.stop(package)
    action = f"act={options.values['-a']} " if "-a" in options.values else ""
    await call.say(f"Starting: Intent {{ {action}cmp={package}/{activity} }}\n")
    try:
        is_new = call.phone.launch(package, activity)
    except ActivityUnknown as error:
        await call.complain("Error type 3")
        return await call.fail(f"Error: {error}")
    if not is_new:
        await call.say("Warning: Activity not started, its current task has been brought to the front\n")
    if "-W" in options.flags:
        state = "COLD" if is_new else "HOT"
        await call.say(f"Status: ok\nLaunchState: {state}\nActivity: {package}/{activity}\nTotalTime: 120\nComplete\n")
    return 0


def _resolve(call: Call, options: Options, package: str) -> tuple[str, str] | None:
    """Find the activity for an intent without a component: the launcher's entry of the package that it names."""
    installed = call.phone.packages.find(options.values.get("-p", package))
    activity = installed.badging.launchable_activity if installed else None
    return (installed.name, activity) if installed and activity else None


async def _start_service(call: Call) -> int:
    options = _read_intent(call.arguments, flags={"--foreground"})
    component = options.values.get("-n") or (options.rest[0] if options.rest else "")
    package, _, service = component.partition("/")
    installed = call.phone.packages.find(package)
    if installed is None or complete_name(package, service) not in installed.badging.services:
        await call.say(f"Starting service: Intent {{ cmp={component} }}\n")
        return await call.fail("Error: Not found; no service started.")
    call.phone.start_service(package, complete_name(package, service))
    await call.say(f"Starting service: Intent {{ cmp={component} }}\n")
    return 0


async def _stop_service(call: Call) -> int:
    options = _read_intent(call.arguments, flags=set())
    package, _, service = (options.values.get("-n") or (options.rest[0] if options.rest else "")).partition("/")
    running = call.phone.foreground_services.get(package, set())
    name = complete_name(package, service)
    was_running = name in running
    running.discard(name)
    await call.say("Service stopped\n" if was_running else "Service not stopped: was not running.\n")
    return 0


async def _force_stop(call: Call) -> int:
    options = read_options(call.arguments, valued={"--user"})
    for package in options.rest:
        call.phone.stop(package)
        for installed in call.phone.packages.all():  # stopping a test package stops what it instruments, and vice versa
            for runner in installed.badging.instrumentations:
                if package == installed.name:
                    call.phone.stop(runner.target)
    return 0


async def _kill(call: Call) -> int:
    options = read_options(call.arguments, valued={"--user"})
    front, _ = call.phone.focus
    for package in options.rest:
        if package != front:  # only what is in the background may be killed
            call.phone.stop(package)
    return 0


async def _broadcast(call: Call) -> int:
    options = _read_intent(call.arguments, flags={"--receiver-foreground", "--receiver-permission"})
    action = options.values.get("-a", "")
    package, _, receiver = options.values.get("-n", "").partition("/")
    await call.say(f"Broadcasting: Intent {{ act={action} flg=0x400000 }}\n")
    installed = call.phone.packages.find(package)
    is_received = installed is not None and complete_name(package, receiver) in installed.badging.receivers
    if is_received and package == SETTINGS_HELPER_PACKAGE and action == _CLIPBOARD_ACTION:
        # Appium's helper answers through the broadcast's result.
        await call.say(f'Broadcast completed: result=-1, data="{call.phone.system.clipboard_base64}"\n')
        return 0
    if is_received:
        call.phone.log.unknown("broadcast", action)
    await call.say("Broadcast completed: result=0\n")
    return 0


async def _instrument(call: Call) -> int:
    flags = {"-w", "-r", "--no-window-animation", "--no-hidden-api-checks", "--no-isolated-storage"}
    arguments = [*call.arguments]
    while "-e" in arguments:
        at = arguments.index("-e")
        del arguments[at : at + 3]
    options = read_options(arguments, flags=flags, valued={"--user", "--abi"})
    component = options.rest[0] if options.rest else ""
    target = _instrumented(call, component)
    if target is None:
        await call.say(
            f"INSTRUMENTATION_STATUS: Error=Unable to find instrumentation info for: ComponentInfo{{{component}}}\n"
            "INSTRUMENTATION_STATUS: id=ActivityManagerService\nINSTRUMENTATION_STATUS_CODE: -1\n"
        )
        return await call.fail(f"android.util.AndroidException: INSTRUMENTATION_FAILED: {component}")
    if target.name != SERVER_PACKAGE:
        return await call.refuse_unknown(component, f"INSTRUMENTATION_FAILED: {component}")
    return await _run_server(call, target)


def _instrumented(call: Call, component: str) -> InstalledPackage | None:
    package, _, runner = component.partition("/")
    installed = call.phone.packages.find(package)
    if installed is None:
        return None
    for instrumentation in installed.badging.instrumentations:
        if instrumentation.name == complete_name(package, runner):
            return call.phone.packages.find(instrumentation.target)
    return None


async def _run_server(call: Call, target: InstalledPackage) -> int:
    phone = call.phone
    phone.stop(target.name)
    process = phone.processes.start(target.name, target.user_id)
    server = UiAutomatorServer(phone)
    phone.listeners[SERVER_PORT] = server.serve
    try:
        await call.say("INSTRUMENTATION_STATUS: class=io.appium.uiautomator2.server.test.AppiumUiAutomator2Server\n")
        await call.say("INSTRUMENTATION_STATUS: test=startServer\nINSTRUMENTATION_STATUS_CODE: 1\n")
        await process.ended.wait()
    finally:
        if phone.listeners.get(SERVER_PORT) == server.serve:
            del phone.listeners[SERVER_PORT]
        if phone.processes.find(target.name) is process:
            phone.stop(target.name)
    await call.say("INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n")
    return 0


async def _get_current_user(call: Call) -> int:
    await call.say("0\n")
    return 0


_SUBCOMMANDS: Mapping[str, Command] = {
    "start": _start,
    "start-activity": _start,
    "startservice": _start_service,
    "start-service": _start_service,
    "startforegroundservice": _start_service,
    "start-foreground-service": _start_service,
    "stopservice": _stop_service,
    "stop-service": _stop_service,
    "force-stop": _force_stop,
    "kill": _kill,
    "broadcast": _broadcast,
    "instrument": _instrument,
    "get-current-user": _get_current_user,
}
COMMANDS: Mapping[str, Command] = {"am": run_am}
