"""What can go wrong with a phone, on demand.

A fault is written ``kind``, ``kind=value`` or ``kind=value,option=value``; the same text is used by ``--fault`` and by
the control channel. Kinds, what their value is, and what happens:

=================  =========================  ========================================================================
kind               value                      what happens
=================  =========================  ========================================================================
install_fails      an ``INSTALL_FAILED_*``    installs end with this code
slow_install       seconds                    every install takes this much longer
storage_full       none                       no file can be written, no app installed; ``df`` says 100 %
offline            ``drop`` or ``hang``       the cable is pulled, or the phone stops answering (default ``drop``)
unauthorized       none                       the phone's owner does not allow the host
crash              none                       the app in front dies
boot_incomplete    none                       the phone never finishes booting
battery            percent                    the battery's level, no charger
serial             text                       the phone says it has another serial number
=================  =========================  ========================================================================

Options: ``package=NAME`` (install faults: only this package), ``times=N`` (install_fails: only so often),
``after_taps=N`` (crash, offline: when the N-th tap from now on is made; crash: default 1), ``seconds=N`` (offline:
heals by itself after so long).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.virtual_phone.errors import FaultInvalid
from agent.virtual_phone.numerals import whole_number

MAX_SECONDS = 24 * 3600


class FaultKind(StrEnum):
    """The kinds of faults."""

    INSTALL_FAILS = "install_fails"
    SLOW_INSTALL = "slow_install"
    STORAGE_FULL = "storage_full"
    OFFLINE = "offline"
    UNAUTHORIZED = "unauthorized"
    CRASH = "crash"
    BOOT_INCOMPLETE = "boot_incomplete"
    BATTERY = "battery"
    SERIAL = "serial"


_OPTIONS = {
    FaultKind.INSTALL_FAILS: {"package", "times"},
    FaultKind.SLOW_INSTALL: {"package"},
    FaultKind.OFFLINE: {"after_taps", "seconds"},
    FaultKind.CRASH: {"after_taps"},
}
_NEEDS_VALUE = {FaultKind.INSTALL_FAILS, FaultKind.SLOW_INSTALL, FaultKind.BATTERY, FaultKind.SERIAL}
_TAKES_VALUE = _NEEDS_VALUE | {FaultKind.OFFLINE}
OFFLINE_DROP = "drop"
OFFLINE_HANG = "hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault; `after_taps` counts down, `times` counts down, None means without limit or at once."""

    kind: FaultKind
    value: str = ""
    package: str | None = None
    times: int | None = None
    after_taps: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        options = {name: getattr(self, name) for name in ("package", "times", "after_taps", "seconds")}
        shown = [f"{name}={value}" for name, value in options.items() if value is not None]
        return ",".join([f"{self.kind}={self.value}" if self.value else str(self.kind), *shown])


def parse_fault(text: str) -> Fault:
    """Return the fault that a text describes; raises `FaultInvalid` with what is wrong."""
    head, *options = text.split(",")
    name, separator, value = head.partition("=")
    kind = parse_kind(name)
    if separator and kind not in _TAKES_VALUE:
        raise FaultInvalid(f"fault {kind} takes no value")
    if not value and kind in _NEEDS_VALUE:
        raise FaultInvalid(f"fault {kind} needs a value: {kind}=...")
    fault = Fault(kind=kind, value=_checked_value(kind, value.strip()))
    for option in options:
        fault = _with_option(fault, option)
    if kind is FaultKind.CRASH and fault.after_taps is None:
        fault = replace(fault, after_taps=1)
    return fault


def parse_kind(name: str) -> FaultKind:
    """Return the kind of fault of a name; raises `FaultInvalid` with the names that there are."""
    try:
        return FaultKind(name.strip())
    except ValueError:
        raise FaultInvalid(f"unknown fault {name!r}; known are {', '.join(FaultKind)}") from None


def parse_phone_faults(text: str, phones: int) -> dict[int, list[str]]:
    """Return the faults of each phone, by its number counted from 0, of a text such as ``1:crash;2:storage_full``.

    Args:
        text: between semicolons the number of a phone, counted from 1, a colon and a fault.
        phones: how many phones there are.

    Raises:
        FaultInvalid: a part has another form, names no phone, or its fault is invalid.
    """
    faults: dict[int, list[str]] = {}
    for part in text.split(";"):
        number, _, fault = part.partition(":")
        position = whole_number(number.strip())
        if position is None or not 1 <= position <= phones:
            raise FaultInvalid(f"{part!r} is not NUMBER:FAULT with the number of one of {phones} virtual phones")
        parse_fault(fault)
        faults.setdefault(position - 1, []).append(fault)
    return faults


def _checked_value(kind: FaultKind, value: str) -> str:
    if kind is FaultKind.OFFLINE:
        value = value or OFFLINE_DROP
        if value not in (OFFLINE_DROP, OFFLINE_HANG):
            raise FaultInvalid(f"offline is drop or hang, not {value!r}")
    elif kind is FaultKind.SLOW_INSTALL:
        _seconds(value)
    elif kind is FaultKind.BATTERY and whole_number(value) not in range(101):
        raise FaultInvalid(f"battery is a percentage from 0 to 100, not {value!r}")
    elif kind is FaultKind.INSTALL_FAILS and not value.startswith("INSTALL_"):
        raise FaultInvalid(f"install_fails takes a code such as INSTALL_FAILED_INTERNAL_ERROR, not {value!r}")
    return value


def _with_option(fault: Fault, option: str) -> Fault:
    name, _, value = option.strip().partition("=")
    if name not in _OPTIONS.get(fault.kind, ()):
        raise FaultInvalid(f"fault {fault.kind} has no option {name!r}")
    if name == "package":
        return replace(fault, package=value)
    if name == "seconds":
        return replace(fault, seconds=_seconds(value))
    count = whole_number(value)
    if not count:
        raise FaultInvalid(f"{name} must be a whole number above zero, not {value!r}")
    return replace(fault, times=count) if name == "times" else replace(fault, after_taps=count)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise FaultInvalid(f"seconds must be a number, not {text!r}") from None
    if not 0 <= seconds <= MAX_SECONDS:
        raise FaultInvalid(f"seconds must be from 0 to {MAX_SECONDS}, not {text}")
    return seconds


class Faults:
    """The faults that a phone has now, at most one of each kind."""

    def __init__(self) -> None:
        self._active: dict[FaultKind, Fault] = {}

    def all(self) -> list[Fault]:
        """Return the faults, with those that wait for taps."""
        return list(self._active.values())

    def put(self, fault: Fault) -> None:
        """Begin a fault, in place of one of its kind."""
        self._active[fault.kind] = fault

    def remove(self, kind: FaultKind) -> bool:
        """End a fault; False if the phone did not have it."""
        return self._active.pop(kind, None) is not None

    def active(self, kind: FaultKind) -> Fault | None:
        """Return the fault of a kind if the phone has it and it is not still waiting for taps."""
        fault = self._active.get(kind)
        return fault if fault is not None and fault.after_taps is None else None

    def for_install(self, kind: FaultKind, package: str | None) -> Fault | None:
        """Return the fault of a kind if it concerns the install of a package."""
        fault = self.active(kind)
        return fault if fault is not None and fault.package in (None, package) else None

    def spend(self, kind: FaultKind) -> None:
        """Count one occurrence of a fault, which ends it when it was the last."""
        fault = self._active.get(kind)
        if fault is None or fault.times is None:
            return
        if fault.times == 1:
            self.remove(kind)
        else:
            self.put(replace(fault, times=fault.times - 1))

    def tapped(self) -> list[Fault]:
        """Count a tap; return the faults whose moment this is."""
        due = []
        for fault in list(self._active.values()):
            if fault.after_taps is None:
                continue
            if fault.after_taps == 1:
                due.append(fault)
            else:
                self.put(replace(fault, after_taps=fault.after_taps - 1))
        return due
