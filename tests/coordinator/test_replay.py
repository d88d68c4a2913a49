"""A recorded past under other policies: the program, on a database that a real scheduler has written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.replay import OURS, POLICIES, NoHistory, replay
from coordinator.store import Store
from tests.store.past import recorded

PROGRAM = str(Path(sys.executable).parent / "qgjob-coordinator")


@pytest.fixture
def past(tmp_path: Path) -> Path:
    """A data directory with a past."""
    store = Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}")
    store.start_epoch()
    recorded(store)
    store.close()
    return tmp_path


def run(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "replay", "--data-dir", str(directory), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_policy_runs_every_job_of_the_past(past: Path) -> None:
    report = replay(f"sqlite:///{past / 'qgjob.db'}", list(POLICIES), 0, lambda _line: None)
    assert (report.jobs, report.devices, report.left_out, report.with_selector) == (4, 1, 1, 4)
    by_name = {summary.policy: summary for summary in report.summaries}
    assert list(by_name) == ["recorded", *POLICIES]
    for summary in by_name.values():
        assert [(flow.priority, flow.jobs) for flow in summary.flows] == [(4, 1), (3, 3)]
    # Four specs of 20 s on one device, and two or three installs of 10 s.
    assert {summary.makespan_us // 1_000_000 for summary in by_name.values()} <= {100, 110}
    assert by_name[OURS].installs <= by_name["recorded"].installs


def test_what_was_recorded_is_told_as_it_was(past: Path) -> None:
    (summary,) = replay(f"sqlite:///{past / 'qgjob.db'}", [], 0, lambda _line: None).summaries
    assert (summary.policy, summary.installs, summary.lost_us) == ("recorded", 3, 0)
    assert summary.makespan_us == 110 * 1_000_000


def test_program_prints_a_table_or_one_json_object(past: Path) -> None:
    shown = run(past, "--policy", "fifo")
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == "replaying 4 jobs on 1 device under fifo\n"
    assert "Jobs: 4, devices: 1\n1 more job never ran to its end and is left out\n4 jobs had a selector" in shown.stdout
    assert [line.split()[0] for line in shown.stdout.splitlines() if line.startswith(("recorded", "fifo"))] == [
        *("recorded", "fifo") * 3
    ]
    told = json.loads(run(past, "--policy", "fifo", "--policy", "qgjob", "--json").stdout)
    assert [one["policy"] for one in told["policies"]] == ["recorded", "fifo", "qgjob"]


def test_program_leaves_the_database_as_it_is(past: Path) -> None:
    before = hashlib.sha256((past / "qgjob.db").read_bytes()).hexdigest()
    assert run(past).returncode == 0
    assert hashlib.sha256((past / "qgjob.db").read_bytes()).hexdigest() == before


def test_empty_past_is_an_error_with_a_hint(tmp_path: Path) -> None:
    Store.open(f"sqlite:///{tmp_path / 'qgjob.db'}").close()
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: no job ran to its end in that time\nhint: run some jobs first" in done.stderr
    with pytest.raises(NoHistory):
        replay(f"sqlite:///{tmp_path / 'qgjob.db'}", [OURS], 0, lambda _line: None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--policy", "lifo"), "--policy lifo is unknown"),
        (("--since", "soon"), "--since soon is not a span of time"),
        (("--since", "1m"), "no job ran to its end in that time"),
    ],
)
def test_what_makes_no_sense_is_named(past: Path, options: tuple[str, ...], words: str) -> None:
    done = run(past, *options)
    assert done.returncode == 2
    assert words in done.stderr


def test_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "error: there is no database" in done.stderr
    assert not (tmp_path / "nowhere").exists()
