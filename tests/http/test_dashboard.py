"""The dashboard: it needs nothing from outside, and shows what the lab does."""

from __future__ import annotations

import asyncio
import json
import posixpath
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from coordinator.core.model import AgentState, AttemptOutcome, DeviceState, JobState, TestState
from coordinator.http.dashboard import FOLDER
from qgjob.v1.artifact_pb2 import ArtifactKind
from tests.http.grid import HttpGrid
from tests.rpc.test_artifacts import messages, offer

OURS = sorted(path for path in Path(FOLDER).glob("*.*"))
LOADED = re.compile(r"""(?:href|src)="([^"#]+\.(?:js|css))"|from "([^"]+)"|url\(([^)]+)\)""")
CHROMIUM = shutil.which("chromium") or ""


async def test_page_and_all_that_it_loads_come_from_here(grid: HttpGrid) -> None:
    seen: set[str] = set()
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = await grid.web.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
        assert answer.headers["cache-control"] == "no-cache"
        if "/vendor/" in path:
            continue
        found = [next(filter(None, names)) for names in LOADED.findall(answer.text)]
        waiting += {posixpath.normpath(posixpath.join(posixpath.dirname(path), name)) for name in found} - seen
        assert not re.search(r"https?://", answer.text), path
    assert seen >= {"/", *(f"/dashboard/{path.name}" for path in OURS if path.suffix in (".js", ".css"))}


async def test_file_that_has_not_changed_is_not_sent_again(grid: HttpGrid) -> None:
    first = await grid.web.get("/dashboard/app.js")
    again = await grid.web.get("/dashboard/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_each_state_has_its_colour() -> None:
    rules = re.findall(r"^([.\w, ]+) { color: var", (Path(FOLDER) / "style.css").read_text(), re.MULTILINE)
    coloured = {name.strip(" .") for rule in rules for name in rule.split(",")}
    words = {state.value for kind in (JobState, AttemptOutcome, TestState, DeviceState, AgentState) for state in kind}
    assert words - coloured == set()


@pytest.mark.parametrize("path", ["/dashboard/nothing.js", "/dashboard/..%2fdocs.html", "/dashboard/"])
async def test_nothing_else_is_served_from_its_folder(grid: HttpGrid, path: str) -> None:
    answer = await grid.web.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (404, "NOT_FOUND")


def run_module(script: str) -> object:
    """What a script prints as JSON that imports the page's own modules."""
    done = subprocess.run(
        ["node", "--input-type=module", "-"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.node
def test_times_are_told_as_the_command_line_tells_them() -> None:
    from qgjob.cli.words import rough_span, size, span

    seconds = [0, 0.04, 0.4, 1, 9.94, 9.96, 12, 59.9, 60, 190, 600, 3_599, 3_600, 7_500, 172_800, 400_000]
    script = f"""
        import {{ span, counted, queueSeconds, ran, size, until }} from "{FOLDER}/words.js";
        const now = Date.parse("2026-01-01T00:01:00Z");
        const waiting = {{ status: "queued", create_time: "2026-01-01T00:00:00Z", start_time: null, end_time: null }};
        const ended = {{ ...waiting, status: "failed" }};
        Object.assign(ended, {{ start_time: "2026-01-01T00:00:20Z", end_time: "2026-01-01T00:00:25Z" }});
        const again = {{ ...ended, status: "queued", end_time: null }};
        console.log(JSON.stringify({{
            spans: {json.dumps(seconds)}.map(span),
            sizes: [0, 1_023, 1_024, 1_536, 1_048_576, 5_000_000].map(size),
            counts: [0, 1, 2].map((count) => counted(count, "job")),
            waits: [waiting, ended, again].map((job) => [queueSeconds(job, now), ran(job, now)]),
            starts: ["2026-01-01T00:02:00Z", "2026-01-01T00:00:00Z", null].map((instant) => until(instant, now)),
        }}));
    """
    assert run_module(script) == {
        "spans": [span(one) if one < 600 else rough_span(one) for one in seconds],
        "sizes": [size(count) for count in (0, 1_023, 1_024, 1_536, 1_048_576, 5_000_000)],
        "counts": ["0 jobs", "1 job", "2 jobs"],
        "waits": [[60, ""], [20, "5s"], [60, ""]],
        "starts": ["in about 1m", "any moment", ""],
    }


@pytest.mark.node
def test_list_is_not_shown_for_another_one_while_the_coordinator_is_away() -> None:
    script = f"""
        import {{ unanswered }} from "{FOLDER}/api.js";
        const before = {{ path: "/jobs?status=failed", data: ["a job"], error: null }};
        const paths = ["/jobs?status=failed", "/jobs?status=cancelled"];
        console.log(JSON.stringify(paths.map((path) => unanswered(before, path, "away"))));
    """
    assert run_module(script) == [
        {"path": "/jobs?status=failed", "data": ["a job"], "error": "away"},
        {"path": "/jobs?status=cancelled", "data": None, "error": "away"},
    ]


@pytest.mark.node
def test_log_goes_on_where_a_broken_connection_ended_and_holds_nothing_that_a_terminal_obeys() -> None:
    # Two answers of the coordinator: the first breaks in the middle of an event, and of a character.
    script = f"""
        globalThis.sessionStorage = {{ getItem: () => "secret-token" }};
        const {{ follow }} = await import("{FOLDER}/api.js");
        const {{ linesOf }} = await import("{FOLDER}/log.js");
        const encoded = new TextEncoder();
        const begin = encoded.encode('event: attempt\\nid: 1:0\\ndata: {{"attempt": 1, "log": "open"}}\\n\\n'
            + 'id: 1:9\\ndata: one \\u001b[31mé\\u001b[0m\\ndata: two\\n\\nid: 1:20\\ndata: lost');
        const rest = encoded.encode('id: 1:20\\ndata: three\\n\\nevent: attempt\\nid: 2:0\\n'
            + 'data: {{"attempt": 2, "log": "open"}}\\n\\nevent: end\\nid: end\\ndata: {{}}\\n\\n');
        const cut = begin.indexOf(0xc3) + 1;
        const bodies = [[begin.slice(0, cut), begin.slice(cut)], [rest]];
        const asked = [];
        globalThis.fetch = async (path, {{ headers }}) => {{
            asked.push([path, headers["Last-Event-ID"] ?? null, headers.Authorization]);
            return new Response(ReadableStream.from(bodies.shift()), {{ status: 200 }});
        }};
        const lines = [];
        let losses = 0;
        await follow("/jobs/7/logs?follow=true", {{
            signal: new AbortController().signal,
            onEvent: (event) => lines.push(...linesOf(event)),
            onLost: () => {{ losses += 1; }},
        }});
        console.log(JSON.stringify({{ asked, lines, losses }}));
    """
    path = "/jobs/7/logs?follow=true"
    assert run_module(script) == {
        "asked": [[path, None, "Bearer secret-token"], [path, "1:9", "Bearer secret-token"]],
        "lines": ["one é", "two", "three", "--- attempt 2 ---"],
        "losses": 1,
    }


async def seen_in_a_browser(grid: HttpGrid, view: str, profile: Path, *awaited: str) -> str:
    """What stands on a page once all that is awaited does.

    The browser's own time runs ahead of the coordinator that answers it: how far it has to run, nobody knows.
    """
    shown = ""
    for budget_ms in (6_000, 30_000, 150_000):
        process = await asyncio.create_subprocess_exec(
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"),
            *(f"--virtual-time-budget={budget_ms}", "--dump-dom", f"{grid.web.base_url}/{view}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        told, _ = await asyncio.wait_for(process.communicate(), 60)
        shown = told.decode()
        if all(text in shown for text in awaited):
            break
    return shown


@pytest.mark.skipif(not CHROMIUM, reason="missing: chromium")
async def test_browser_shows_a_job_with_its_log_and_takes_no_markup_from_it(grid: HttpGrid, tmp_path: Path) -> None:
    job = await grid.running_job()
    await job.write(b"Running 1 test\n<img src=x onerror=alert(1)>\n")
    for name, kind in (("junit.xml", "JUNIT"), ("html-report/index.html", "HTML_REPORT")):
        offered = offer(job.lease, name, b"x" * 1_536, kind=ArtifactKind.Value(f"ARTIFACT_KIND_{kind}"))
        await grid.artifacts.UploadArtifact(messages(offered, b"x" * 1_536))
    await job.finish()
    shown = await seen_in_a_browser(grid, "#/jobs/1", tmp_path / "profile", "the log is complete", "Open the report")
    assert '<span class="state completed">completed</span>' in shown
    assert "Running 1 test\n&lt;img src=x onerror=alert(1)&gt;" in shown
    assert "the log is complete" in shown
    assert '<td class="path">junit.xml</td>' in shown
    assert "<td>1.5 KiB</td>" in shown
    assert '<a href="/jobs/1/report" target="_blank" rel="noopener">Open the report</a>' in shown
    listed = await seen_in_a_browser(grid, "#/jobs", tmp_path / "profile", "tests/login.spec.ts")
    assert '<a href="#/jobs/1">1</a>' in listed
