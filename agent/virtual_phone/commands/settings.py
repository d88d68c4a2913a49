"""System settings: settings, wm, svc, ime, appops, and the services that ``cmd`` reaches."""

from collections.abc import Mapping

from agent.virtual_phone.app import DISPLAY_HEIGHT, DISPLAY_WIDTH
from agent.virtual_phone.phone import DISPLAY_DENSITY
from agent.virtual_phone.shell import Call, Command
from agent.virtual_phone.system import DEFAULT_INPUT_METHOD, SETTING_NAMESPACES

UNKNOWN_COMMAND = 255
SERVICE_MISSING = 20
_ON_WORDS = {"enable": True, "disable": False, "enabled": True, "disabled": False, "yes": True, "no": False}
_BOOLEANS = {"true": True, "false": False}


async def run_settings(call: Call) -> int:
    """Run ``settings``."""
    if not call.phone.is_booted:
        return await call.fail("cmd: Can't find service: settings", SERVICE_MISSING)
    arguments = call.arguments[2:] if call.arguments[:1] == ["--user"] else call.arguments
    verb, namespace, *rest = (*arguments, "", "")
    rest = [word for word in rest if word]
    if verb not in ("get", "put", "delete", "list"):
        return await call.refuse_unknown(verb, f"Invalid command: {verb}", UNKNOWN_COMMAND)
    if namespace not in SETTING_NAMESPACES:
        return await call.fail(f"Invalid namespace '{namespace}'", UNKNOWN_COMMAND)
    return await _change_settings(call, verb, namespace, rest)


async def _change_settings(call: Call, verb: str, namespace: str, rest: list[str]) -> int:
    settings = call.phone.system.settings
    if verb == "list":
        await call.say(
            "".join(f"{key}={value}\n" for (space, key), value in sorted(settings.items()) if space == namespace)
        )
    elif not rest:
        return await call.fail("Bad arguments", UNKNOWN_COMMAND)
    elif verb == "get":
        await call.say(settings.get((namespace, rest[0]), "null") + "\n")
    elif verb == "delete":
        deleted = settings.pop((namespace, rest[0]), None)
        await call.say(f"Deleted {int(deleted is not None)} rows\n")
    elif len(rest) < 2:
        return await call.fail("Bad arguments", UNKNOWN_COMMAND)
    else:
        settings[(namespace, rest[0])] = rest[1]
    return 0


async def _wm(call: Call) -> int:
    match call.arguments:
        case ["size"]:
            await call.say(f"Physical size: {DISPLAY_WIDTH}x{DISPLAY_HEIGHT}\n")
        case ["density"]:
            await call.say(f"Physical density: {DISPLAY_DENSITY}\n")
        case ["dismiss-keyguard"]:
            call.phone.system.is_awake = True
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Unknown command", UNKNOWN_COMMAND)
    return 0


async def _svc(call: Call) -> int:
    match call.arguments:
        case ["wifi" | "data" | "bluetooth" as name, "enable" | "disable" as state]:
            call.phone.system.turn(_RADIO_SETTINGS[name], on=_ON_WORDS[state])
        case ["nfc", "enable" | "disable" as state]:
            call.phone.system.is_nfc_on = _ON_WORDS[state]
        case ["power", "stayon", "true" | "false" | "usb" | "ac" | "wireless"]:
            call.phone.system.settings[("global", "stay_on_while_plugged_in")] = call.arguments[2]
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Available commands: wifi, data, nfc, power", 1)
    return 0


_RADIO_SETTINGS = {"wifi": "wifi_on", "data": "mobile_data", "bluetooth": "bluetooth_on"}


def _input_methods(call: Call) -> list[str]:
    found = [DEFAULT_INPUT_METHOD]
    for installed in call.phone.packages.all():
        services = sorted(name for name in installed.badging.services if name.endswith("IME"))
        found += [f"{installed.name}/{name.removeprefix(installed.name)}" for name in services]
    return found


async def _ime(call: Call) -> int:
    system = call.phone.system
    match call.arguments:
        case ["list", *flags] if set(flags) <= {"-s", "-a"}:
            known = _input_methods(call) if "-a" in flags else sorted(system.enabled_input_methods)
            await call.say("".join(f"{name}\n" if "-s" in flags else f"{name}:\n  mId={name}\n" for name in known))
        case ["reset"]:
            system.input_method = DEFAULT_INPUT_METHOD
        case ["enable" | "disable" | "set" as verb, name]:
            return await _change_input_method(call, verb, name)
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Unknown command", UNKNOWN_COMMAND)
    return 0


async def _change_input_method(call: Call, verb: str, name: str) -> int:
    system = call.phone.system
    if name not in _input_methods(call):
        return await call.fail(f"Unknown input method {name} cannot be {verb}d for user #0", UNKNOWN_COMMAND)
    if verb == "disable":
        system.enabled_input_methods.discard(name)
    else:
        system.enabled_input_methods.add(name)
    if verb == "set":
        system.input_method = name
    await call.say(f"Input method {name}: now {'selected' if verb == 'set' else verb + 'd'} for user #0\n")
    return 0


async def _appops(call: Call) -> int:
    match call.arguments:
        case ["set", package, operation, mode]:
            if call.phone.packages.find(package) is None:
                return await call.fail(f"Error: No UID for {package} in user 0", UNKNOWN_COMMAND)
            call.phone.system.app_operations[(package, operation)] = mode
        case ["get", package, *_]:
            operations = call.phone.system.app_operations
            shown = [f"{name}: {mode}\n" for (owner, name), mode in sorted(operations.items()) if owner == package]
            await call.say("".join(shown) or "No operations.\n")
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Unknown command", UNKNOWN_COMMAND)
    return 0


async def _locksettings(call: Call) -> int:
    match call.arguments:
        case ["help"]:
            await call.say("lockSettings service commands:\n")
        case ["get-disabled"]:
            await call.say("true\n")
        case ["clear", *_]:
            await call.say("Lock credential cleared\n")
        case ["verify", *_]:
            await call.say("Lock credential verified successfully\n")
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Unknown command", UNKNOWN_COMMAND)
    return 0


async def _notification(call: Call) -> int:
    match call.arguments:
        case ["allow_listener", component]:
            call.phone.system.notification_listeners.add(component)
            return 0
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Unknown command", UNKNOWN_COMMAND)


async def _location(call: Call) -> int:
    match call.arguments:
        case ["is-location-enabled"]:
            await call.say(f"{str(call.phone.system.is_location_on).lower()}\n")
        case ["set-location-enabled", "true" | "false" as state]:
            call.phone.system.is_location_on = _BOOLEANS[state]
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Unknown command", UNKNOWN_COMMAND)
    return 0


async def _uimode(call: Call) -> int:
    system = call.phone.system
    match call.arguments:
        case ["night", "yes" | "no" as state]:
            system.is_night_mode = _ON_WORDS[state]
        case ["night"]:
            pass
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Unknown command", UNKNOWN_COMMAND)
    await call.say(f"Night mode: {'yes' if system.is_night_mode else 'no'}\n")
    return 0


async def _radio(call: Call) -> int:
    """Run the services whose only use is to turn a radio on or off."""
    arguments = (call.name, *call.arguments)
    match arguments:
        case ("wifi", "set-wifi-enabled", "enabled" | "disabled" as state):
            setting = "wifi_on"
        case ("phone", "data", "enable" | "disable" as state):
            setting = "mobile_data"
        case ("bluetooth_manager", "enable" | "disable" as state):
            setting = "bluetooth_on"
        case ("connectivity", "airplane-mode", "enable" | "disable" as state):
            setting = "airplane_mode_on"
        case _:
            return await call.refuse_unknown(" ".join(call.arguments), "Unknown command", UNKNOWN_COMMAND)
    call.phone.system.turn(setting, on=_ON_WORDS[state])
    return 0


SERVICES: Mapping[str, Command] = {
    "appops": _appops,
    "bluetooth_manager": _radio,
    "connectivity": _radio,
    "location": _location,
    "lock_settings": _locksettings,
    "notification": _notification,
    "phone": _radio,
    "uimode": _uimode,
    "wifi": _radio,
}
COMMANDS: Mapping[str, Command] = {
    "settings": run_settings,
    "wm": _wm,
    "svc": _svc,
    "ime": _ime,
    "appops": _appops,
    "locksettings": _locksettings,
}
