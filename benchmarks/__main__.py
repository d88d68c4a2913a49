"""python -m benchmarks NAME [--json]: measures one thing, and prints one JSON object as its last line."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from typing import Any

from benchmarks import builds, decision, follow, scheduling

Measured = tuple[dict[str, Any], dict[str, float]]
"""Metrics, and ratios to what they are judged by."""
NAMES: dict[str, Callable[[bool], Measured]] = {
    "builds": builds.run,
    "decision": decision.run,
    "follow": follow.run,
    "scheduling": scheduling.run,
    "optimum": scheduling.run_small,
}


def machine() -> dict[str, Any]:
    return {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2), "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=sorted(NAMES))
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    given = parser.parse_args()
    metrics, ratios = NAMES[given.name](not given.json)
    print(json.dumps({"name": given.name, "metrics": metrics, "ratios": ratios, "machine": machine()}))


if __name__ == "__main__":
    main()
