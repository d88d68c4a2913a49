"""``dumpsys``: the states of the system's services, in the parts that hosts read."""

import datetime
from collections.abc import Callable, Mapping

from agent.virtual_phone.app import DISPLAY_HEIGHT, DISPLAY_WIDTH
from agent.virtual_phone.packages import InstalledPackage
from agent.virtual_phone.phone import DISPLAY_DENSITY, Phone
from agent.virtual_phone.shell import Call, Command

Dump = Callable[[Phone, list[str]], str | None]
_CHARGING, _DISCHARGING = 2, 3


async def _dumpsys(call: Call) -> int:
    if call.arguments == ["-l"]:
        await call.say("Currently running services:\n" + "".join(f"  {name}\n" for name in sorted(_DUMPS)))
        return 0
    name, *arguments = call.arguments or [""]
    dump = _DUMPS.get(name)
    if dump is None or not call.phone.is_booted:
        return await call.refuse_unknown(" ".join(call.arguments), f"Can't find service: {name}")
    text = dump(call.phone, arguments)
    if text is None:
        return await call.refuse_unknown(" ".join(call.arguments), f"Bad {name} command, or no such data: {arguments}")
    await call.say(text)
    return 0


def _dump_package(phone: Phone, arguments: list[str]) -> str | None:
    if len(arguments) != 1:
        return None
    installed = phone.packages.find(arguments[0])
    if installed is None:
        return f"Unable to find package: {arguments[0]}\n"
    return _activities(installed) + "Packages:\n" + _package(installed)


def _activities(installed: InstalledPackage) -> str:
    activity = installed.badging.launchable_activity
    if activity is None:
        return ""
    return (
        "Activity Resolver Table:\n  Non-Data Actions:\n      android.intent.action.MAIN:\n"
        f"        a1b2c3 {installed.name}/{activity} filter d4e5f6\n"
        '          Action: "android.intent.action.MAIN"\n'
        '          Category: "android.intent.category.LAUNCHER"\n\n'
    )


def _package(installed: InstalledPackage) -> str:
    badging = installed.badging
    requested = "".join(f"      {permission}\n" for permission in badging.permissions)
    granted = "".join(
        f"        {name}: granted={str(name in installed.granted_permissions).lower()}, flags=[ USER_SET]\n"
        for name in badging.permissions
    )
    return (
        f"  Package [{installed.name}] (1a2b3c4):\n"
        f"    userId={installed.user_id}\n"
        f"    codePath={installed.path.removesuffix('/base.apk')}\n"
        f"    versionCode={badging.version_code} minSdk={badging.minimum_sdk} targetSdk={badging.target_sdk}\n"
        f"    versionName={badging.version_name or 'null'}\n"
        f"    firstInstallTime={_time(installed.first_installed_at)}\n"
        f"    lastUpdateTime={_time(installed.updated_at)}\n"
        f"    requested permissions:\n{requested}"
        "    install permissions:\n"
        "    User 0: ceDataInode=1 installed=true hidden=false suspended=false stopped=false\n"
        f"      runtime permissions:\n{granted}\n"
    )


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _dump_window(phone: Phone, arguments: list[str]) -> str | None:
    if arguments not in ([], ["displays"], ["windows"]):
        return None
    package, activity = phone.focus
    screen_on = str(phone.system.is_awake).lower()
    keyboard = phone.front is not None and phone.front.focus is not None
    return (
        "WINDOW MANAGER DISPLAY CONTENTS (dumpsys window displays)\n"
        f"  Display: mDisplayId=0\n    init={DISPLAY_WIDTH}x{DISPLAY_HEIGHT} {DISPLAY_DENSITY}dpi "
        f"cur={DISPLAY_WIDTH}x{DISPLAY_HEIGHT} app={DISPLAY_WIDTH}x{DISPLAY_HEIGHT}\n"
        f"  mCurrentFocus=Window{{1f2e3d u0 {package}/{activity}}}\n"
        f"  mFocusedApp=ActivityRecord{{4c5b6a u0 {package}/{activity} t12}}\n"
        "  mShowingLockscreen=false mDreamingLockscreen=false isStatusBarKeyguard=false\n"
        "  KeyguardStateMonitor\n    mIsShowing=false\n  mInputRestricted=false\n"
        f"  mScreenOnFully={screen_on}\n  mAwake={screen_on}\n  mInputMethodShown={str(keyboard).lower()}\n"
        f"  SurfaceOrientation: {int(phone.system.is_landscape)}\n"
    )


def _dump_battery(phone: Phone, arguments: list[str]) -> str | None:
    if arguments:
        return None
    state = _CHARGING if phone.is_charging else _DISCHARGING
    return (
        "Current Battery Service state:\n  AC powered: false\n"
        f"  USB powered: {str(phone.is_charging).lower()}\n  Wireless powered: false\n  Max charging current: 500000\n"
        f"  status: {state}\n  health: 2\n  present: true\n  level: {phone.battery_percent}\n  scale: 100\n"
        "  voltage: 4100\n  temperature: 270\n  technology: Li-ion\n"
    )


def _dump_power(phone: Phone, arguments: list[str]) -> str | None:
    if arguments:
        return None
    wakefulness = "Awake" if phone.system.is_awake else "Asleep"
    return (
        "POWER MANAGER (dumpsys power)\n\nPower Manager State:\n"
        f"  mWakefulness={wakefulness}\n  mIsPowered={str(phone.is_charging).lower()}\n"
        f"  mHoldingWakeLockSuspendBlocker=true\nDisplay Power: state={'ON' if phone.system.is_awake else 'OFF'}\n"
    )


def _dump_activity(phone: Phone, arguments: list[str]) -> str | None:
    match arguments:
        case ["services"]:
            return _services(phone, "")
        case ["services", name]:
            return _services(phone, name)
        case [] | ["activities"] | ["top"]:
            package, activity = phone.focus
            return (
                "ACTIVITY MANAGER ACTIVITIES (dumpsys activity activities)\n"
                f"  mResumedActivity: ActivityRecord{{4c5b6a u0 {package}/{activity} t12}}\n"
                f"  topResumedActivity=ActivityRecord{{4c5b6a u0 {package}/{activity} t12}}\n"
            )
        case _:
            return None


def _services(phone: Phone, name: str) -> str:
    package, _, service = name.partition("/")
    shown = "ACTIVITY MANAGER SERVICES (dumpsys activity services)\n"
    matching = [
        (owner, running)
        for owner, services in sorted(phone.foreground_services.items())
        for running in sorted(services)
        if package in ("", owner) and running.endswith(service)
    ]
    for owner, running in matching:
        short = running.removeprefix(owner)
        shown += f"  User 0 active services:\n  * ServiceRecord{{1a2b3c u0 {owner}/{short}}}\n"
        shown += f"    packageName={owner}\n    isForeground=true foregroundId=1\n"
    return shown if matching else shown + "  (nothing)\n"


def _dump_device_idle(phone: Phone, arguments: list[str]) -> str | None:
    match arguments:
        case ["whitelist"]:
            return "".join(f"user,{package},10100\n" for package in sorted(phone.system.idle_whitelist))
        case ["whitelist", change] if change[:1] in ("+", "-"):
            return _change_whitelist(phone, change[:1], change[1:])
        case _:
            return None


def _change_whitelist(phone: Phone, sign: str, package: str) -> str:
    if phone.packages.find(package) is None:
        return f"Unknown package: {package}\n"
    if sign == "+":
        phone.system.idle_whitelist.add(package)
        return f"Added: {package}\n"
    phone.system.idle_whitelist.discard(package)
    return f"Removed: {package}\n"


def _dump_input(phone: Phone, arguments: list[str]) -> str | None:
    return (
        None
        if arguments
        else f"INPUT MANAGER (dumpsys input)\n  SurfaceOrientation: {int(phone.system.is_landscape)}\n"
    )


def _dump_input_method(phone: Phone, arguments: list[str]) -> str | None:
    if arguments:
        return None
    is_shown = str(phone.front is not None and phone.front.focus is not None).lower()
    return (
        f"Current Input Method Manager state:\n  mCurMethodId={phone.system.input_method}\n"
        f"  mInputShown={is_shown}\n  mIsInputViewShown={is_shown}\n"
    )


def _dump_display(phone: Phone, arguments: list[str]) -> str | None:
    del phone
    return (
        None
        if arguments
        else f"DISPLAY MANAGER (dumpsys display)\n  mStableDisplaySize=Point({DISPLAY_WIDTH}, {DISPLAY_HEIGHT})\n"
    )


def _dump_surface_flinger(phone: Phone, arguments: list[str]) -> str | None:
    del phone
    return "Display 4619827259835644672 (HWC display 0): port=0 pnpId=GGL\n" if arguments == ["--display-id"] else None


_DUMPS: Mapping[str, Dump] = {
    "SurfaceFlinger": _dump_surface_flinger,
    "activity": _dump_activity,
    "battery": _dump_battery,
    "deviceidle": _dump_device_idle,
    "display": _dump_display,
    "input": _dump_input,
    "input_method": _dump_input_method,
    "package": _dump_package,
    "power": _dump_power,
    "window": _dump_window,
}
COMMANDS: Mapping[str, Command] = {"dumpsys": _dumpsys}
