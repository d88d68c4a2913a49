"""Measures one thing; the last line is one JSON object.

python -m benchmarks NAME [--rounds N] [--agents N] [--jobs N] [--json]
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import signal
from collections.abc import Callable
from importlib import import_module
from typing import Any

Measured = tuple[dict[str, Any], dict[str, float]]
"""Metrics, and ratios to what they are judged by."""
EX_TERMINATED = 128 + signal.SIGTERM
NAMES = {
    "builds": ("builds", "run"),
    "cells": ("cells", "run"),
    "cli_startup": ("cli_startup", "run"),
    "decision": ("decision", "run"),
    "dispatch": ("dispatch", "run"),
    "follow": ("follow", "run"),
    "lifecycle": ("lifecycle", "run"),
    "logs": ("logs", "run"),
    "optimum": ("scheduling", "run_small"),
    "recovery": ("recovery", "run"),
    "scale": ("scale", "run"),
    "scheduling": ("scheduling", "run"),
    "submit": ("submit", "run"),
    "submit_batch": ("submit_batch", "run"),
}
"""Module and function of each. Only the one that is asked for is loaded, for some need what others do not."""


def machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "python": platform.python_version()}


def measure(name: str, sizes: dict[str, int | None], *, is_telling: bool) -> dict[str, Any]:
    """Run a benchmark and return its JSON object. The load is that of before, which is of others."""
    module, function = NAMES[name]
    run: Callable[..., Measured] = getattr(import_module(f"benchmarks.{module}"), function)
    options = {size: number for size, number in sizes.items() if number is not None}
    for unknown in options.keys() - inspect.signature(run).parameters.keys():
        raise SystemExit(f"error: {name} has no --{unknown}\nhint: leave it out")
    found = machine()
    metrics, ratios = run(is_telling, **options)
    return {"name": name, "metrics": metrics, "ratios": ratios, "machine": found}


def _end(_number: int, _frame: object) -> None:
    """End as by Ctrl-C, so that nothing which was started is left."""
    raise SystemExit(EX_TERMINATED)


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures one thing.")
    parser.add_argument("name", choices=sorted(NAMES))
    parser.add_argument("--rounds", type=int, help="interleaved rounds, more for a quieter figure")
    parser.add_argument("--agents", type=int, help="agents that connect, for `scale`")
    parser.add_argument("--jobs", type=int, help="jobs that are queued, for `scale`")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    given = parser.parse_args()
    sizes = {"rounds": given.rounds, "agents": given.agents, "jobs": given.jobs}
    print(json.dumps(measure(given.name, sizes, is_telling=not given.json)))


if __name__ == "__main__":
    main()
