"""Measures how long commands of the CLI take, beside a Python that does nothing.

python -m benchmarks cli_startup [--rounds N] [--json]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rounds import interleaved, ratio, spread
from tests.e2e.grid import BIN, PATIENT, running_grid

ROUNDS = 7
LISTED = 20
"""Jobs that a list shows when nobody says how many."""
MOST_HELP_MS, MOST_TABLE_MS = 150.0, 300.0
"""What is promised."""
COMMANDS = {
    "version": ("--version",),
    "help": ("--help",),
    "jobs_list": ("jobs", "list", "-o", "json"),
    "jobs_table": ("jobs", "list", "-o", "table"),
    "submit": ("submit", "--org-id=qualgent", "--app-version-id=xyz123", "--test=tests/login.spec.ts", "-o", "id"),
}


def run(is_telling: bool, rounds: int = ROUNDS) -> tuple[dict[str, Any], dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder, running_grid(Path(folder)) as grid:
        grid.coordinator(*PATIENT)
        grid.submit(*(f"tests/case-{number}.spec.ts" for number in range(LISTED)))
        bare = {
            "bare_python": partial(_seconds, (sys.executable, "-c", "pass"), grid.env),
            "import_grpc": partial(_seconds, (sys.executable, "-c", "import grpc"), grid.env),
        }
        ours = {
            name: partial(_seconds, (str(BIN / "qgjob"), *arguments), grid.env) for name, arguments in COMMANDS.items()
        }
        samples = interleaved(bare | ours, rounds, is_telling=is_telling)
    metrics = {f"{name}_ms": spread([1_000 * one for one in seconds]) for name, seconds in samples.items()}
    ratios = {f"{name}_over_bare_python": ratio(samples[name], samples["bare_python"]) for name in COMMANDS}
    return metrics, ratios | {
        "jobs_list_over_import_grpc": ratio(samples["jobs_list"], samples["import_grpc"]),
        "help_over_promise": round(metrics["help_ms"]["median"] / MOST_HELP_MS, 2),
        "jobs_table_over_promise": round(metrics["jobs_table_ms"]["median"] / MOST_TABLE_MS, 2),
    }


def _seconds(command: tuple[str, ...], env: dict[str, str]) -> float:
    began_s = time.perf_counter()
    subprocess.run(command, env=env, capture_output=True, check=True)
    return time.perf_counter() - began_s
