"""The whole grid on simulated devices: what users are promised, and what they must not notice."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest

from tests.e2e.grid import PATIENT, QUICK, Grid, eventually, running_grid

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

FAST = ("--simulate", "emulator=2", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.1")
SLOW = ("--simulate", "emulator=1", "--sim-install-seconds", "0.1", "--sim-test-seconds", "0.5")


def ended(grid: Grid, jobs: list[int]) -> Counter[str]:
    return Counter(job["status"] for job in grid.json("jobs", "list", "--limit", "1000") if job["id"] in jobs)


def truth(grid: Grid) -> list[dict[str, object]]:
    """What the simulated devices say that they ran."""
    lines: list[dict[str, object]] = []
    for file in sorted(grid.directory.glob("agent-*/**/device-truth.jsonl")):
        lines += [json.loads(line) for line in file.read_text().splitlines()]
    return lines


def test_batch_runs_higher_priority_first_on_one_device_with_one_install(grid: Grid) -> None:
    login, signup = grid.submit("tests/login.spec.ts", "tests/signup.spec.ts")
    (checkout,) = grid.submit("tests/checkout.spec.ts", options=("--priority", "4"))
    (broken,) = grid.submit("tests/broken.spec.ts", app="other", options=("--env", "QGJOB_SIM_OUTCOME=failed"))
    grid.agent("lab", *FAST)
    grid.run("jobs", "wait", *map(str, (login, signup, checkout)))
    grid.run("jobs", "wait", str(broken), code=1)
    jobs = {job_id: grid.job(job_id) for job_id in (login, signup, checkout, broken)}
    assert [jobs[job]["status"] for job in (login, signup, checkout, broken)] == ["completed"] * 3 + ["failed"]
    assert len({jobs[job]["device"] for job in (login, signup, checkout)}) == 1
    assert jobs[broken]["device"] != jobs[login]["device"]
    assert sorted((login, signup, checkout), key=lambda job: jobs[job]["start_time"]) == [checkout, login, signup]
    assert grid.json("queue", "status")["installs_avoided"] == 2
    builds = {build["app_version_id"]: build["installs"] for build in grid.json("builds", "list")}
    assert builds["xyz123"] == 1


def test_submit_wait_follow_shows_every_line_and_the_exit_code_of_the_test(grid: Grid) -> None:
    grid.agent("lab", *FAST)
    submit = ("submit", "--org-id", "q", "--app-version-id", "v", "--test", "t.spec.ts", "--wait", "--follow")
    done = grid.run(*submit, "--env", "QGJOB_SIM_LOG_LINES=50", "--env", "QGJOB_SIM_OUTCOME=failed", code=1)
    assert "failed" in done.stderr


def test_a_secret_reaches_its_test_and_is_shown_nowhere(grid: Grid) -> None:
    grid.agent("lab", *FAST)
    submit = ("submit", "--org-id", "q", "--app-version-id", "v", "--test", "t.spec.ts", "--follow")
    done = grid.run(*submit, "--secret", "WORD=spec.ts on")
    assert done.stdout.startswith("Running t.*** ")
    stamped = grid.run("logs", "1", "--timestamps")
    lines = [re.fullmatch(r"(\S{10}T\S{12}Z) (.*\n)", line) for line in stamped.stdout.splitlines(keepends=True)]
    assert "".join(line[2] for line in lines if line is not None) == done.stdout
    job = grid.job(1)
    times = [datetime.fromisoformat(line[1]) for line in lines if line is not None]
    begun, over = (datetime.fromisoformat(job[name]) for name in ("create_time", "end_time"))
    assert begun <= times[0] <= times[-1] <= over
    assert stamped.stderr == ""
    # The simulated device repeats what it does not understand.
    failed = grid.run(*submit, "--secret", "QGJOB_SIM_OUTCOME=hunter2", code=1)
    assert "QGJOB_SIM_OUTCOME=*** is unknown" in failed.stderr
    told = [failed.stderr, failed.stdout, str(grid.json("status", "job", "--job-id", "2", "--verbose"))]
    told += [file.read_text() for file in grid.directory.glob("*.err")]
    assert len(told) == 5
    assert not any("hunter2" in text for text in told)


def test_same_idempotency_key_gives_the_same_job(grid: Grid) -> None:
    first = grid.submit("a.spec.ts", options=("--idempotency-key", "ci-7"))
    assert grid.submit("a.spec.ts", options=("--idempotency-key", "ci-7")) == first


def test_running_job_is_cancelled_within_its_grace(grid: Grid) -> None:
    grid.agent("lab", *FAST)
    (job,) = grid.submit("hang.spec.ts", options=("--env", "QGJOB_SIM_OUTCOME=hang"))
    eventually(lambda: grid.status(job) == "running", "the job runs")
    grid.run("jobs", "cancel", str(job))
    grid.run("jobs", "wait", str(job), code=7)


def test_hanging_test_is_ended_at_its_timeout_and_the_device_is_usable_again(grid: Grid) -> None:
    grid.agent("lab", *SLOW)
    (hang,) = grid.submit("hang.spec.ts", options=("--env", "QGJOB_SIM_OUTCOME=hang", "--timeout", "1s"))
    grid.run("jobs", "wait", str(hang), code=1)
    assert grid.status(hang) == "timed_out"
    grid.run("submit", "--org-id", "q", "--app-version-id", "v", "--test", "next.spec.ts", "--wait")


def test_agent_that_serves_some_lanes_and_organisations_leaves_the_others_to_the_rest_of_the_lab(grid: Grid) -> None:
    grid.agent("kept", *FAST, "--lanes", "high,normal", "--orgs", "acme,qualgent")
    (low,) = grid.submit("low.spec.ts", options=("--priority", "1"))
    other = grid.json("submit", "--org-id", "globex", "--app-version-id", "v", "--test", "other.spec.ts")[0]["id"]
    (normal,) = grid.submit("normal.spec.ts", options=("--priority", "3"))
    grid.run("jobs", "wait", str(normal))
    assert [agent["orgs"] for agent in grid.agents()] == [["acme", "qualgent"]]
    why = grid.json("jobs", "why", str(other))
    assert (why["status"], why["reason"]) == ("queued", "other_orgs")
    assert "(agent kept serves acme and qualgent)" in why["message"]
    why = grid.json("jobs", "why", str(low))
    assert (why["status"], why["reason"]) == ("queued", "other_lanes")
    assert "(agent kept serves high and normal)" in why["message"]
    grid.agent("lab", *FAST)
    grid.run("jobs", "wait", str(low), str(other))
    assert {grid.job(job)["agent"] for job in (low, other)} == {"lab"}
    assert {agent["name"]: agent["lanes"] for agent in grid.agents()} == {
        "kept": ["high", "normal"],
        "lab": ["high", "normal", "low"],
    }


def test_urgent_job_preempts_a_low_one_which_then_goes_on_at_the_next_test(grid: Grid) -> None:
    grid.agent("lab", *SLOW)
    steer = ("--env", "QGJOB_SIM_SECONDS=10", "--env", "QGJOB_SIM_TESTS=10")
    (low,) = grid.submit("slow.spec.ts", options=("--priority", "1", *steer))
    eventually(lambda: grid.status(low) == "running", "the low job runs")
    (urgent,) = grid.submit("hotfix.spec.ts", app="hot", options=("--priority", "5"))
    grid.run("jobs", "wait", str(urgent))
    grid.run("jobs", "wait", str(low))
    job = grid.json("status", "job", "--job-id", str(low), "--verbose")
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["preempted", "passed"]
    titles = [f"slow.spec.ts > test {number}" for number in range(1, 11)]
    assert [(test["title"], test["status"]) for test in job["tests"]] == [(title, "passed") for title in titles]
    ran_in = [test["attempt"] for test in job["tests"]]
    assert (ran_in[0], ran_in[-1]) == (1, 2)
    log = grid.run("logs", str(low)).stdout.splitlines()
    assert [line for line in log if line.endswith(": passed")] == [f"{title}: passed" for title in titles]


def test_coordinator_killed_in_the_middle_of_a_batch_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        coordinator = grid.coordinator(*PATIENT)
        grid.agent("lab", *SLOW)
        steer = ("--env", "QGJOB_SIM_LOG_LINES=200", "--env", "QGJOB_SIM_SECONDS=1.5")
        jobs = grid.submit(*[f"t{number}.spec.ts" for number in range(6)], options=steer)
        # On a busy machine a look may come after its end; the batch is then still in its middle.
        eventually(lambda: grid.status(jobs[1]) in ("running", "completed"), "the second job has begun")
        follower = grid.follow("logs", str(jobs[1]), "--follow")
        assert follower.stdout is not None
        first = follower.stdout.readline()  # whoever comes after the kill is told that nobody answers
        coordinator.kill()
        grid.coordinator(*PATIENT)
        grid.run("jobs", "wait", *map(str, jobs))
        assert ended(grid, jobs) == {"completed": 6}
        ran = Counter(line["attempt"] for line in truth(grid) if line["event"] == "start")
        assert list(ran.values()) == [1] * 6
        followed = first + follower.stdout.read()
        assert followed == grid.run("logs", str(jobs[1])).stdout
        assert followed.count("\n") >= 200
        follower.communicate(timeout=60)


@pytest.mark.parametrize("how", ["process", "group"])
def test_agent_killed_in_a_test_has_its_jobs_run_again_elsewhere(grid: Grid, how: str) -> None:
    first = grid.agent("one", *SLOW)
    jobs = grid.submit("a.spec.ts", "b.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=6"))
    eventually(lambda: grid.status(jobs[0]) == "running", "the first job runs")
    (first.kill if how == "process" else first.kill_group)()
    grid.agent("two", *FAST)
    grid.run("jobs", "wait", *map(str, jobs))
    assert {grid.job(job)["agent"] for job in jobs} == {"two"}


def test_history_survives_a_restart(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        coordinator = grid.coordinator()
        grid.agent("lab", *FAST)
        (job,) = grid.submit("a.spec.ts")
        grid.run("jobs", "wait", str(job))
        eventually(lambda: grid.job(job)["attempts"][0]["log"] == "complete", "the log is whole")
        before = grid.job(job)
        assert coordinator.stop() == 0
        grid.coordinator(*QUICK)
        assert grid.job(job) == before
        assert grid.run("logs", str(job)).stdout


def test_agent_that_is_told_to_stop_leaves_cleanly(grid: Grid) -> None:
    agent = grid.agent("lab", *FAST)
    eventually(lambda: [one["state"] for one in grid.agents()] == ["connected"], "the agent is connected")
    assert agent.stop() == 0
    eventually(lambda: [one["state"] for one in grid.agents()] == ["stopped"], "its goodbye is known")


def test_unknown_job_is_exit_5(empty_grid: Grid) -> None:
    done = empty_grid.run("status", "job", "--job-id", "4711", code=5)
    assert done.stderr.startswith("error: ")


def test_no_coordinator_is_exit_6_with_a_hint(tmp_path: Path) -> None:
    with running_grid(tmp_path) as grid:
        grid.env["QGJOB_COORDINATOR"] = "127.0.0.1:1"
        done = grid.run("jobs", "list", code=6)
        assert "hint: " in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--test", "a.spec.ts", "--priority", "9"), "priority"),
        (("--test", ""), "test"),
        (("--test", "a.spec.ts", "--target", "toaster"), "target"),
        (("--test", "x" * 3_000_000), "test"),
    ],
    ids=["priority-9", "empty-test", "unknown-target", "3-MB-name"],
)
def test_bad_submit_is_refused_with_one_clear_line(empty_grid: Grid, flags: tuple[str, ...], words: str) -> None:
    if len(flags[1]) > 100_000:
        flags = (flags[0], "x" * 100_000)
    done = empty_grid.run("submit", "--org-id", "q", "--app-version-id", "v", *flags, code=2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_drained_agent_ends_what_it_runs_and_gets_no_more_until_it_is_resumed(grid: Grid) -> None:
    grid.agent("lab", *SLOW)
    first, second = grid.submit("a.spec.ts", "b.spec.ts", options=("--env", "QGJOB_SIM_SECONDS=6"))
    eventually(lambda: grid.status(first) == "running", "the first job runs")
    told = [json.loads(line) for line in grid.run("agents", "drain", "lab", "-o", "jsonl").stdout.splitlines()]
    assert [(change["batches"], change["jobs"]) for change in (told[0], told[-1])] == [(1, [first]), (0, [])]
    assert [grid.status(job) for job in (first, second)] == ["completed", "queued"]
    assert [one["draining"] for one in grid.agents()] == [True]
    assert [one["state"] for one in grid.devices()] == ["draining"]
    grid.run("agents", "resume", "lab")
    grid.run("jobs", "wait", str(second))


def test_deadline_of_a_drain_sends_what_runs_elsewhere_and_blames_nobody(grid: Grid) -> None:
    grid.agent("one", *SLOW)
    (job,) = grid.submit("hang.spec.ts", options=("--env", "QGJOB_SIM_OUTCOME=hang"))
    eventually(lambda: grid.status(job) == "running", "the job runs")
    grid.agent("two", *SLOW)
    done = grid.run("agents", "drain", "one", "--deadline", "0.5s", "-o", "table")
    assert "the deadline has passed" in done.stderr
    assert "one is drained" in done.stderr
    eventually(lambda: runs_on(grid, job, "two"), "the job runs elsewhere")
    grid.run("jobs", "cancel", str(job))
    grid.run("jobs", "wait", str(job), code=7)
    outcomes = [one["outcome"] for one in grid.json("status", "job", "--job-id", str(job))["attempts"]]
    assert outcomes == ["released", "cancelled"]


def runs_on(grid: Grid, job: int, agent: str) -> bool:
    found = grid.job(job)
    return (found["status"], found["agent"]) == ("running", agent)


def test_device_whose_host_is_gone_is_freed_by_an_explicit_word_alone(grid: Grid) -> None:
    agent = grid.agent("lab", *FAST)
    (job,) = grid.submit("hang.spec.ts", options=("--env", "QGJOB_SIM_OUTCOME=hang"))
    eventually(lambda: grid.status(job) == "running", "the job runs")
    (device,) = (one["id"] for one in grid.devices() if one["job"] == job)
    agent.kill_group()
    eventually(lambda: state_of(grid, device) == "fencing", "its lease has expired")
    done = grid.run("devices", "readmit", device)
    assert f"qgjob devices readmit {device} --gone" in done.stderr
    assert state_of(grid, device) == "fencing"
    assert json.loads(grid.run("devices", "readmit", device, "--gone").stdout)["state"] == "offline"


def test_agent_that_never_comes_back_is_forgotten_with_its_devices(grid: Grid) -> None:
    agent = grid.agent("old", *FAST)
    (job,) = grid.submit("a.spec.ts")
    grid.run("jobs", "wait", str(job))
    assert "stop it, and then forget it" in grid.run("agents", "forget", "old", code=2).stderr
    agent.stop()
    eventually(lambda: [one["state"] for one in grid.agents()] == ["stopped"], "it has said goodbye")
    (waiting,) = grid.submit("b.spec.ts")
    done = grid.run("agents", "forget", "old", "-o", "table")
    assert done.stderr == "old is forgotten, and so are its 2 devices\n"
    assert (grid.agents(), grid.devices()) == ([], [])
    assert "No device is known" in grid.run("jobs", "why", str(waiting), "-o", "table").stdout
    ran = grid.job(job)
    assert (ran["status"], ran["agent"]) == ("completed", "old")
    assert ran["device"].endswith("@old")
    grid.agent("new", *FAST)
    grid.run("jobs", "wait", str(waiting))


def state_of(grid: Grid, device: str) -> str:
    return str(next(one["state"] for one in grid.devices() if one["id"] == device))


def test_quarantined_device_says_why_and_works_again_when_it_is_readmitted(grid: Grid) -> None:
    grid.agent("lab", *SLOW)
    eventually(lambda: grid.devices(), "the device is there")
    held = grid.json("devices", "quarantine", "emulator-1@lab", "--reason", "its screen is broken")
    assert (held["state"], held["reason"]) == ("quarantined", "its screen is broken")
    (job,) = grid.submit("a.spec.ts")
    assert grid.status(job) == "queued"
    assert grid.json("devices", "readmit", "emulator-1@lab")["reason"] is None
    grid.run("jobs", "wait", str(job))


@pytest.mark.parametrize(
    "command", [("agents", "drain"), ("agents", "resume"), ("agents", "forget"), ("devices", "quarantine")]
)
def test_unknown_agent_or_device_is_exit_5(empty_grid: Grid, command: tuple[str, str]) -> None:
    assert "nobody" in empty_grid.run(*command, "nobody", code=5).stderr
