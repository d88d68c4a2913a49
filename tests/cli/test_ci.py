"""What is different where a CI service runs the program."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from qgjob.cli import ci
from qgjob.cli.waiting import with_links
from qgjob.v1.artifact_pb2 import Artifact
from qgjob.v1.job_pb2 import JOB_STATE_COMPLETED, JOB_STATE_FAILED, Job
from qgjob.v1.job_service_pb2 import SubmitJobsRequest, SubmitJobsResponse
from tests.cli import records
from tests.cli.coordinator_stand_in import StandIn
from tests.cli.records import job_message

QGJOB = str(Path(sys.executable).parent / "qgjob")
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.example",
    "GITHUB_REPOSITORY": "acme/app",
    "GITHUB_RUN_ID": "77",
    "GITHUB_SHA": "abc",
    "GITHUB_REF": "refs/pull/7/merge",
}
GITLAB = {
    "GITLAB_CI": "true",
    "CI_PIPELINE_ID": "12",
    "CI_COMMIT_SHA": "abc",
    "CI_COMMIT_REF_NAME": "main",
    "CI_PIPELINE_URL": "https://gitlab.example/-/pipelines/12",
    "CI_JOB_URL": "https://gitlab.example/-/jobs/9",
}
BUILDKITE = {
    "BUILDKITE": "true",
    "BUILDKITE_BUILD_ID": "0190-ab",
    "BUILDKITE_COMMIT": "abc",
    "BUILDKITE_BRANCH": "main",
    "BUILDKITE_BUILD_URL": "https://buildkite.example/acme/app/builds/9",
}


@pytest.mark.parametrize(
    ("env", "labels"),
    [
        (
            GITHUB,
            {
                "ci": "github",
                "run": "77",
                "commit": "abc",
                "ref": "refs/pull/7/merge",
                "url": "https://github.example/acme/app/actions/runs/77",
            },
        ),
        (
            GITLAB,
            {
                "ci": "gitlab",
                "run": "12",
                "commit": "abc",
                "ref": "main",
                "url": "https://gitlab.example/-/pipelines/12",
            },
        ),
        (
            BUILDKITE,
            {
                "ci": "buildkite",
                "run": "0190-ab",
                "commit": "abc",
                "ref": "main",
                "url": "https://buildkite.example/acme/app/builds/9",
            },
        ),
        ({"GITHUB_ACTIONS": "true"}, {"ci": "github"}),
    ],
    ids=["github", "gitlab", "buildkite", "almost nothing"],
)
def test_jobs_are_labelled_with_what_the_service_tells(env: dict[str, str], labels: dict[str, str]) -> None:
    found = ci.detected(env)
    assert found is not None
    assert found.labels == labels


def test_elsewhere_nothing_is_labelled() -> None:
    assert ci.detected({"CI": "true", "GITHUB_RUN_ID": "77"}) is None


def test_a_heartbeat_tells_how_things_stand_until_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    has_beaten = threading.Event()

    def read() -> str:
        has_beaten.set()
        return "waiting: 1 running"

    with ci.heartbeat(read, every_s=0.01):
        assert has_beaten.wait(30)
    assert "waiting: 1 running\n" in capsys.readouterr().err


def test_annotations_cannot_be_left_by_what_a_test_says() -> None:
    reason = {"reason": "TEST_FAILED", "message": "100%\n::set-output name=x::y", "blame": "test"}
    (line,) = ci.error_lines([records.job(7, "a,b:c.spec.ts", status="failed", device=None, failure_reason=reason)])
    assert line == ("::error title=a%2Cb%3Ac.spec.ts failed::job 7: TEST_FAILED: 100%25%0A::set-output name=x::y")


def test_a_spec_whose_name_no_file_can_have_is_reported_all_the_same() -> None:
    jobs = [records.job(7, "tests/" + "x" * 300, status="failed", device=None)]
    assert ci.error_lines(jobs)[0].startswith("::error title=tests/xxx")
    assert "### qgjob: 1 failed\n" in ci.summary(jobs, "https://github.example/acme/app/blob/abc")


def test_at_most_ten_annotations_are_given() -> None:
    jobs = [records.job(number, status="failed", device=None) for number in range(12)]
    assert len(ci.error_lines(jobs)) == 10


def test_the_summary_counts_and_lists_what_did_not_pass() -> None:
    reason = {"reason": "TEST_FAILED", "message": "a | b\n<script>", "blame": "test"}
    jobs = [
        records.job(7, status="completed"),
        records.job(8, status="failed", device="emulator-1@lab", failure_reason=reason),
        records.job(9, status="completed", flaky=True, device="emulator-1@lab"),
    ]
    assert ci.summary(jobs).splitlines() == [
        "### qgjob: 2 completed, 1 failed (1 flaky)",
        "",
        "| Job | Test | Status | Device | Reason |",
        "|---|---|---|---|---|",
        r"| 8 | tests/login.spec.js | failed | emulator-1@lab | TEST\_FAILED: a \| b \<script\> |",
        "| 9 | tests/login.spec.js | completed (flaky) | emulator-1@lab |  |",
        "",
        "`qgjob logs 8` shows the first one's log.",
        "",
    ]


def test_the_summary_leads_to_the_pages_of_jobs_where_their_address_is_known() -> None:
    jobs = [records.job(8, status="failed", device=None)]
    table = ci.summary(jobs, dashboard_url="https://lab.example:8002").splitlines()
    assert table[4].startswith("| [8](https://lab.example:8002/#/jobs/8) | tests/login.spec.js | failed |")


def test_the_summary_leads_to_what_a_cloud_keeps_of_a_job() -> None:
    links = [{"name": "sessions/a1/video.url", "url": "https://cloud.example/a1?x=(1)|2"}]
    jobs = [records.job(8, status="failed", device="browserstack-1@lab", links=links)]
    row = ci.summary(jobs).splitlines()[4]
    assert row.endswith("[video](https://cloud.example/a1?x=%281%29%7C2) |")


def test_a_summary_has_no_link_that_lets_everybody_in() -> None:
    names = ("sessions/a1/session.url", "sessions/a1/video.url", "junit.xml")
    kept = [Artifact(name=name, url=f"https://cloud.example/{name}" if name.endswith("url") else "") for name in names]
    client = SimpleNamespace(list_artifacts=lambda _: SimpleNamespace(artifacts=kept))
    job = records.job(8, status="failed", device="browserstack-1@lab")
    (told,) = with_links(client, [job])  # type: ignore[arg-type]
    assert [link["name"] for link in told["links"]] == ["sessions/a1/session.url"]


def test_a_failure_in_github_is_labelled_annotated_summed_up_and_reported(stand_in: StandIn, tmp_path: Path) -> None:
    def accept(request: SubmitJobsRequest) -> SubmitJobsResponse:
        return SubmitJobsResponse(jobs=[job_message(7), job_message(8)])

    def ended(number: int) -> Job:
        job = job_message(number, state=JOB_STATE_FAILED if number == 8 else JOB_STATE_COMPLETED)
        job.end_time.FromJsonString("2026-01-02T03:04:18Z")
        if number == 8:
            job.failure.reason, job.failure.message = "TEST_FAILED", "expected Welcome"
        return job

    stand_in.submits = [accept]
    stand_in.watches = [lambda request: iter([ended(7), ended(8)])]
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "login.spec.js").touch()
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    submit = ["submit", "--org-id", "q", "--app-version-id", "x", "--test", "a", "--label", "commit=mine"]
    done = subprocess.run(
        [QGJOB, *submit, "--wait", "--junit", "report.xml", "-o", "id"],
        cwd=tmp_path,
        env={
            **os.environ,
            **GITHUB,
            "GITHUB_STEP_SUMMARY": str(summary),
            "QGJOB_COORDINATOR": stand_in.address,
            "QGJOB_DASHBOARD_URL": "https://lab.example/qgjob/",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "7\n8\n")
    assert done.stderr.splitlines().count("  https://lab.example/qgjob/#/jobs/8") == 1
    assert "| [8](https://lab.example/qgjob/#/jobs/8) |" in summary.read_text()
    assert done.stderr.splitlines()[-1] == (
        "::error file=tests/login.spec.js,title=tests/login.spec.js failed::job 8: TEST_FAILED: expected Welcome"
    )
    assert summary.read_text().startswith("before\n### qgjob: 1 completed, 1 failed\n")
    assert "[tests/login.spec.js](https://github.example/acme/app/blob/abc/tests/login.spec.js)" in summary.read_text()
    assert '<testsuites name="qgjob" tests="2" failures="1"' in (tmp_path / "report.xml").read_text()
    (request, _) = stand_in.asked
    assert isinstance(request, SubmitJobsRequest)
    assert request.jobs[0].labels["run"] == "77"
    assert request.jobs[0].labels["commit"] == "mine"
