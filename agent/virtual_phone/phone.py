"""The phone: its identity, what runs on it, and what is in front."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from agent.virtual_phone.app import App
from agent.virtual_phone.badging import complete_name, read_badging
from agent.virtual_phone.faults import OFFLINE_DROP, Fault, FaultKind, Faults
from agent.virtual_phone.files import FileStore
from agent.virtual_phone.logcat import Logcat
from agent.virtual_phone.packages import InstalledPackage, PackageManager, ReadBadging
from agent.virtual_phone.phonelog import PackageLog, PhoneLog
from agent.virtual_phone.processes import Process, ProcessTable
from agent.virtual_phone.screens import ScreenSet, load_screens
from agent.virtual_phone.system import SystemState
from agent.virtual_phone.transport import Stream

LAUNCHER_PACKAGE = "com.android.launcher3"
LAUNCHER_ACTIVITY = "com.android.launcher3.uioverrides.QuickstepLauncher"
# Appium's helper has no screen: it starts, does its work in a service, and leaves the front to others.
SETTINGS_HELPER_PACKAGE = "io.appium.settings"
SETTINGS_HELPER_SERVICE = "io.appium.settings.ForegroundService"
DISPLAY_DENSITY = 420
DEFAULT_BATTERY_PERCENT = 87
REBOOT_SECONDS = 2.0

KEY_HOME = 3
KEY_BACK = 4
KEY_POWER = 26
KEY_DELETE = 67
KEY_SLEEP = 223
KEY_WAKE_UP = 224
HIGHEST_KEY = 320

Listener = Callable[[Stream], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneIdentity:
    """What a phone is: the facts that a host can read and that do not change."""

    serial: str = "VPHONE0001"
    model: str = "Virtual_Phone"
    manufacturer: str = "qgjob"
    sdk: int = 33
    release: str = "13"
    abis: tuple[str, ...] = ("arm64-v8a", "armeabi-v7a", "armeabi")

    @property
    def product(self) -> str:
        """The product's short name."""
        return self.model.lower().replace(" ", "_")


class ActivityUnknown(Exception):
    """No such activity, or in no such package."""

    def __init__(self, component: str) -> None:
        super().__init__(component)
        self.component = component

    def __str__(self) -> str:
        return f"Activity class {{{self.component}}} does not exist."


def _do_nothing() -> None:
    return


class Phone:
    """A phone. Everything that a host can change about it is reached from here."""

    def __init__(
        self,
        identity: PhoneIdentity,
        *,
        screens: ScreenSet | None = None,
        log: PhoneLog | None = None,
        package_log: PackageLog | None = None,
        read: ReadBadging = read_badging,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Boot a phone with nothing installed.

        Args:
            identity: what the phone is.
            screens: what its apps show; the default is the file that comes with the package.
            log: where it writes what it was asked for.
            package_log: where it writes what was installed and started.
            read: how it reads an APK; the default is ``aapt``.
            clock: a monotonic clock, in seconds, for the uptime and for what appears late on a screen.
        """
        self.identity = identity
        self.log = log or PhoneLog(None)
        self.faults = Faults()
        self.files = FileStore()
        self.logcat = Logcat()
        self.processes = ProcessTable()
        self.system = SystemState()
        self.listeners: dict[int, Listener] = {}
        self.foreground_services: dict[str, set[str]] = {}
        self._package_log = package_log or PackageLog(None)
        self.packages = PackageManager(
            files=self.files,
            faults=self.faults,
            log=self._package_log,
            sdk=identity.sdk,
            abis=identity.abis,
            clock=time.time,
            read=read,
        )
        self.connectivity_changed: Callable[[], None] = _do_nothing
        self._screens = screens or load_screens()
        self._clock = clock
        self._booted_at = clock()
        self._properties = _properties(identity)
        self._apps: dict[str, App] = {}
        self._front: str | None = None
        self._healing: dict[FaultKind, asyncio.TimerHandle] = {}

    # What the phone says about itself

    @property
    def properties(self) -> dict[str, str]:
        """The system properties, as ``getprop`` shows them."""
        return self._properties | self._faulty_properties()

    def set_property(self, name: str, value: str) -> bool:
        """Set a property; False if it may not be changed."""
        if name.startswith("ro."):
            return False
        self._properties[name] = value
        return True

    @property
    def is_booted(self) -> bool:
        """Whether the system's services run."""
        return self.faults.active(FaultKind.BOOT_INCOMPLETE) is None

    @property
    def battery_percent(self) -> int:
        """The battery's level."""
        fault = self.faults.active(FaultKind.BATTERY)
        return int(fault.value) if fault else DEFAULT_BATTERY_PERCENT

    @property
    def is_charging(self) -> bool:
        """Whether it is on a charger."""
        return self.faults.active(FaultKind.BATTERY) is None

    @property
    def uptime_seconds(self) -> float:
        """How long ago the phone was started."""
        return self._clock() - self._booted_at

    # Faults

    def begin(self, fault: Fault) -> None:
        """Begin a fault; it replaces one of its kind."""
        self.log.note("FAULT", f"begin {fault.kind} {fault.value}")
        self.faults.put(fault)
        if fault.kind is FaultKind.STORAGE_FULL:
            self.files.is_declared_full = True
        self._stop_healing(fault.kind)
        if fault.after_taps is None:
            self._heal_later(fault)
            self.connectivity_changed()

    def heal(self, kind: FaultKind) -> bool:
        """End a fault; False if the phone did not have it."""
        self._stop_healing(kind)
        was_active = self.faults.remove(kind)
        if was_active:
            self.log.note("FAULT", f"end {kind}")
            if kind is FaultKind.STORAGE_FULL:
                self.files.is_declared_full = False
            self.connectivity_changed()
        return was_active

    def reboot(self) -> None:
        """Restart: every process ends and the phone is away for a moment."""
        self.log.note("REBOOT")
        for process in self.processes.all():
            if self.packages.find(process.name):
                self.stop(process.name)
        self._booted_at = self._clock() + REBOOT_SECONDS
        self.begin(Fault(kind=FaultKind.OFFLINE, value=OFFLINE_DROP, seconds=REBOOT_SECONDS))

    def shut_down(self) -> None:
        """End timers and close the logs."""
        for kind in list(self._healing):
            self._stop_healing(kind)
        self.log.close()
        self._package_log.close()

    # Apps

    @property
    def front(self) -> App | None:
        """The app in front, or None when the launcher is."""
        return self._apps.get(self._front) if self._front else None

    @property
    def focus(self) -> tuple[str, str]:
        """The package and the activity in front."""
        app = self.front
        return (app.package.name, app.activity) if app else (LAUNCHER_PACKAGE, LAUNCHER_ACTIVITY)

    def launch(self, package: str, activity: str) -> bool:
        """Start an app's activity, or bring it to the front if it runs.

        Returns whether a new process was started.

        Raises:
            ActivityUnknown: the package is not installed or has no such activity.
        """
        installed = self.packages.find(package)
        name = complete_name(package, activity)
        if installed is None or name not in installed.badging.activities:
            raise ActivityUnknown(f"{package}/{activity}")
        was_running = self.processes.find(package) is not None
        process = self.processes.start(package, installed.user_id)
        if not was_running:
            self.packages.launched(installed)
            self.logcat.write(980, "I", "ActivityManager", f"Start proc {process.pid}:{package}/u0a1 for {name}")
        if package == SETTINGS_HELPER_PACKAGE:
            self.start_service(package, SETTINGS_HELPER_SERVICE)
        else:
            self._bring_to_front(installed, name)
        return not was_running

    def start_service(self, package: str, service: str) -> Process:
        """Start a service in the foreground, without a screen; raises `PackageUnknown`."""
        process = self.processes.start(package, self.packages.get(package).user_id)
        self.foreground_services.setdefault(package, set()).add(service)
        return process

    def stop(self, package: str) -> bool:
        """End an app's process; False if it did not run."""
        self._apps.pop(package, None)
        self.foreground_services.pop(package, None)
        if self._front == package:
            self._front = None
        return self.processes.end(package)

    def go_home(self) -> None:
        """Show the launcher; the app that was in front goes on in the background."""
        self._front = None

    # What a user does

    def tap_element(self, index: int) -> None:
        """Tap an element of the app in front, unless a fault makes this the tap that ends it."""
        for fault in self.faults.tapped():
            self._strike(fault)
        app = self.front
        if app is not None:
            app.tap(index)

    def tap_icon(self, package: str) -> None:
        """Tap an app's icon in the launcher."""
        activity = self.packages.get(package).badging.launchable_activity
        if activity is not None:
            self.launch(package, activity)

    def press(self, key: int) -> None:
        """Press a key, by its Android key code; a key that nothing listens to does nothing."""
        app = self.front
        if key == KEY_HOME or (key == KEY_BACK and app is not None and not app.go_back()):
            self.go_home()
        elif key == KEY_DELETE and app is not None:
            app.erase()
        elif key == KEY_POWER:
            self.system.is_awake = not self.system.is_awake
        elif key in (KEY_SLEEP, KEY_WAKE_UP):
            self.system.is_awake = key == KEY_WAKE_UP

    def _bring_to_front(self, installed: InstalledPackage, activity: str) -> None:
        app = self._apps.get(installed.name)
        if app is None:
            app = App(installed, activity, self._screens, clock=self._clock, placeholders=self._placeholders(installed))
            self._apps[installed.name] = app
        self._front = installed.name

    def _placeholders(self, installed: InstalledPackage) -> dict[str, str]:
        return {
            "version": installed.badging.version_name,
            "version_code": str(installed.badging.version_code),
            "package": installed.name,
            "model": self.identity.model,
            "serial": self.properties["ro.serialno"],
        }

    def _strike(self, fault: Fault) -> None:
        """Let a fault happen that was waiting for its tap."""
        if fault.kind is FaultKind.CRASH:
            self.faults.remove(fault.kind)
            self._crash()
        else:
            self.begin(replace(fault, after_taps=None))

    def _crash(self) -> None:
        app = self.front
        if app is None:
            return
        process = self.processes.find(app.package.name)
        pid = process.pid if process else 0
        name = app.package.name
        self.logcat.write(
            pid,
            "E",
            "AndroidRuntime",
            f"FATAL EXCEPTION: main\nProcess: {name}, PID: {pid}\n"
            "java.lang.IllegalStateException: injected fault\n"
            f"\tat {app.activity}.onClick({app.activity.rpartition('.')[2]}.java:42)",
        )
        self.logcat.write(980, "W", "ActivityManager", f"Force finishing activity {name}/{app.activity}")
        self.logcat.write(980, "I", "ActivityManager", f"Process {name} (pid {pid}) has died: fg TOP")
        self.log.note("CRASH", name)
        self.stop(name)

    def _heal_later(self, fault: Fault) -> None:
        if fault.seconds is not None:
            loop = asyncio.get_running_loop()
            self._healing[fault.kind] = loop.call_later(fault.seconds, self.heal, fault.kind)

    def _stop_healing(self, kind: FaultKind) -> None:
        timer = self._healing.pop(kind, None)
        if timer is not None:
            timer.cancel()

    def _faulty_properties(self) -> dict[str, str]:
        faulty: dict[str, str] = {}
        if not self.is_booted:
            faulty |= {"sys.boot_completed": "", "dev.bootcomplete": "", "init.svc.bootanim": "running"}
        if serial := self.faults.active(FaultKind.SERIAL):
            faulty["ro.serialno"] = serial.value
        return faulty


def _properties(identity: PhoneIdentity) -> dict[str, str]:
    return {
        "dev.bootcomplete": "1",
        "init.svc.bootanim": "stopped",
        "persist.sys.locale": "en-US",
        "persist.sys.timezone": "UTC",
        "ro.build.characteristics": "default",
        "ro.build.fingerprint": f"{identity.manufacturer}/{identity.product}/{identity.product}:{identity.release}",
        "ro.build.type": "user",
        "ro.build.version.release": identity.release,
        "ro.build.version.sdk": str(identity.sdk),
        "ro.debuggable": "0",
        "ro.kernel.qemu": "0",
        "ro.product.brand": identity.manufacturer.lower(),
        "ro.product.cpu.abi": identity.abis[0],
        "ro.product.cpu.abilist": ",".join(identity.abis),
        "ro.product.device": identity.product,
        "ro.product.manufacturer": identity.manufacturer,
        "ro.product.model": identity.model,
        "ro.product.name": identity.product,
        "ro.secure": "1",
        "ro.serialno": identity.serial,
        "ro.sf.lcd_density": str(DISPLAY_DENSITY),
        "sys.boot_completed": "1",
    }
