"""An agent that kills itself with -9 at one point of its work: `python -m tests.faults.failing_agent POINT run ...`.

The points are put around functions of the agent from outside; the agent itself knows nothing of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from agent import main
from agent.core.step import ForgetResults, KeepResult, Write
from agent.runners.simulated import SimulatedRunner
from agent.spool import Spool

Watch = Callable[..., bool]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _always(*_arguments: Any) -> bool:  # noqa: ANN401 - whatever the function takes
    return True


def _writes(kind: type[Write]) -> Watch:
    return lambda _spool, writes: any(isinstance(write, kind) for write in writes)


def _before(owner: type, name: str, is_there: Watch = _always) -> None:
    sound = getattr(owner, name)

    def replaced(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if is_there(*arguments):
            die()
        return sound(*arguments, **options)

    setattr(owner, name, replaced)


def _after(owner: type, name: str, is_there: Watch = _always) -> None:
    sound = getattr(owner, name)

    def replaced(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        result = sound(*arguments, **options)
        if is_there(*arguments):
            die()
        return result

    setattr(owner, name, replaced)


POINTS: dict[str, Callable[[], None]] = {
    "before-journal": lambda: _before(Spool, "open_log"),
    "after-journal": lambda: _after(Spool, "open_log"),
    "after-start": lambda: _before(SimulatedRunner, "_run"),
    "before-end-of-log": lambda: _before(Spool, "end_log"),
    "after-end-of-log": lambda: _after(Spool, "end_log"),
    "before-result": lambda: _before(Spool, "commit", _writes(KeepResult)),
    "after-result": lambda: _after(Spool, "commit", _writes(KeepResult)),
    "before-acknowledgement": lambda: _before(Spool, "commit", _writes(ForgetResults)),
    "after-acknowledgement": lambda: _after(Spool, "commit", _writes(ForgetResults)),
}

if __name__ == "__main__":
    POINTS[sys.argv.pop(1)]()
    main.main()
