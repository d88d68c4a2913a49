from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.grid import QUICK, running_grid
from tests.s3 import Bucket, running_s3

pytestmark = pytest.mark.e2e


def test_logs_lie_in_a_bucket_and_outlive_a_kill_of_the_coordinator(tmp_path: Path) -> None:
    with running_s3() as endpoint, running_grid(tmp_path) as grid:
        bucket = Bucket(endpoint, "lab")
        grid.env.update(bucket.env)
        options = (*QUICK, "--storage", bucket.url)
        coordinator = grid.coordinator(*options)
        grid.agent()
        steer = ("--env", "QGJOB_SIM_LOG_LINES=2000", "--env", "QGJOB_SIM_SECONDS=2")
        (job,) = grid.submit("a.spec.ts", options=steer)
        follower = grid.follow("logs", str(job), "--follow")
        assert follower.stdout is not None
        assert "a.spec.ts" in follower.stdout.readline()
        coordinator.kill()
        grid.coordinator(*options)
        grid.run("jobs", "wait", str(job))
        followed, _ = follower.communicate(timeout=60)
        assert [line for line in followed.splitlines() if line.startswith("line ")] == [
            f"line {number} of 2000" for number in range(1, 2_001)
        ]
        assert grid.job(job)["attempts"][0]["log"] == "complete"
        assert not (tmp_path / "coordinator" / "logs").exists()


def test_database_with_logs_elsewhere_refuses_a_bucket_that_does_not_hold_them(tmp_path: Path) -> None:
    with running_s3() as endpoint, running_grid(tmp_path) as grid:
        bucket = Bucket(endpoint, "lab")
        grid.env.update(bucket.env)
        grid.coordinator().stop()
        with pytest.raises(AssertionError, match="does not hold the logs of this database"):
            grid.coordinator(*QUICK, "--storage", bucket.url)
