"""Exit codes: what scripts and CI rely on."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from qgjob.errors import ClientError, LabError, NoMatchingDevice, NotAllowed, NotFound, Unreachable, UsageError


class Exit(IntEnum):
    """The codes of every command."""

    OK = 0
    TEST_FAILED = 1
    USAGE = 2
    LAB_FAULT = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    UNREACHABLE = 6
    CANCELLED = 7
    WAIT_TIMED_OUT = 8
    NO_MATCHING_DEVICE = 9
    BUG = 70
    """EX_SOFTWARE of sysexits.h: qgjob itself failed, which is no verdict on a test and no fault of the lab."""
    HOST_TROUBLE = 74
    """EX_IOERR: the computer that qgjob runs on refused to write or to read something."""
    INTERRUPTED = 130


_BY_STATUS = {
    "completed": Exit.OK,
    "failed": Exit.TEST_FAILED,
    "timed_out": Exit.TEST_FAILED,
    "errored": Exit.LAB_FAULT,
    "cancelled": Exit.CANCELLED,
}
_WORST_FIRST = (Exit.WAIT_TIMED_OUT, Exit.TEST_FAILED, Exit.LAB_FAULT, Exit.CANCELLED)
_BY_ERROR: dict[type[ClientError], Exit] = {
    UsageError: Exit.USAGE,
    LabError: Exit.LAB_FAULT,
    NotAllowed: Exit.NOT_ALLOWED,
    NotFound: Exit.NOT_FOUND,
    Unreachable: Exit.UNREACHABLE,
    NoMatchingDevice: Exit.NO_MATCHING_DEVICE,
}


def exit_of(statuses: Iterable[str]) -> Exit:
    """Return the code for several jobs: unfinished beats failed beats the lab's fault beats cancelled."""
    codes = {_BY_STATUS.get(status, Exit.WAIT_TIMED_OUT) for status in statuses}
    return next((code for code in _WORST_FIRST if code in codes), Exit.OK)


def exit_of_error(error: ClientError) -> Exit:
    """Return the code for a call that was refused or never arrived."""
    return next((code for kind, code in _BY_ERROR.items() if isinstance(error, kind)), Exit.LAB_FAULT)
