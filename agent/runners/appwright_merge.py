"""One report of all attempts of a job, by `playwright merge-reports`.

Each attempt leaves the events of its run in the form of Playwright's blob reports. Those of all attempts become the
events of a single run: a test that several attempts ran has a try for each, as one that Playwright itself repeats, and
one that was cut off counts where it ran to its end. So a spec that went on elsewhere is whole in the merged report, and
a test that passed on a retry is flaky in it.
"""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.appium import Toolbox
from agent.artifacts import LeftBehind
from agent.core.model import ArtifactKind
from agent.process import capture
from agent.runners.appwright_left import left_of_report
from agent.runners.appwright_project import NODE_FILES, playwright
from agent.runners.protocol import MergeFailed

BLOB = "blob.zip"
MERGED = "merged"
EVENTS, ATTACHMENTS, RESOURCES = "report.jsonl", "attachments.jsonl", "resources/"
KNOWN_VERSION = 2
MERGE_TIMEOUT_S = 120.0
MAX_EVENT_BYTES = 128 * 1_024 * 1_024
_COMMON = frozenset({"onBlobReportMetadata", "onConfigure", "onProject", "onBegin", "onEnd"})
INTERRUPTED = "interrupted"
_ENDED = frozenset({"passed", "failed", "timedOut", "skipped"})
"""Results that count; a test that was interrupted runs again."""

Event = dict[str, Any]


def pack(out: Path) -> LeftBehind | None:
    """Pack what a run has written down, None where it wrote nothing. It blocks."""
    folder = out / "blob"
    if not (folder / EVENTS).is_file():
        return None
    with zipfile.ZipFile(out / BLOB, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / EVENTS, EVENTS)
        for original, name in _attachments(folder / ATTACHMENTS):
            # A test can attach any file of this host that its user can read; what lies elsewhere stays there.
            if original.is_file() and original.resolve().is_relative_to(out.resolve()) and name.startswith(RESOURCES):
                archive.write(original, name)
    return LeftBehind(path=out / BLOB, name=BLOB, kind=ArtifactKind.BLOB_REPORT)


def _attachments(path: Path) -> Iterator[tuple[Path, str]]:
    for line in _lines(path.read_bytes()) if path.is_file() else ():
        yield Path(str(line["originalPath"])), str(line["zipEntryPath"])


def _lines(data: bytes) -> Iterator[Event]:
    """Yield the objects of lines; the last one may be cut."""
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


@dataclass(frozen=True, slots=True)
class _Run:
    """The events of one attempt."""

    events: tuple[Event, ...]

    def first(self, method: str) -> Event:
        found = next((event for event in self.events if event.get("method") == method), None)
        if found is None:
            raise MergeFailed(f"a report has no {method}")
        return found

    @property
    def project(self) -> Event:
        return self.first("onProject")

    def ended(self) -> dict[str, str]:
        """Return the results that came to their end, and of which tests they are."""
        results = (event["params"] for event in self.events if event.get("method") == "onTestEnd")
        return {
            params["result"]["id"]: params["test"]["testId"]
            for params in results
            if params["result"].get("status") in _ENDED
        }

    def with_end(self, cut: Cut) -> _Run:
        """Return the run with an end for each result that has none, or that was interrupted."""
        over = self.ended()
        begun = (event["params"] for event in self.events if event.get("method") == "onTestBegin")
        ends = [_cut_end(params, cut) for params in begun if params["result"]["id"] not in over]
        kept = (event for event in self.events if not _is_interruption(event, over))
        return _Run((*kept, *(ends or self._never_begun(cut))))

    def _has_failure(self) -> bool:
        ends = (event for event in self.events if event.get("method") == "onTestEnd")
        return any(event["params"]["result"].get("status") in ("failed", "timedOut") for event in ends)

    def _never_begun(self, cut: Cut) -> tuple[Event, ...]:
        """Return the first test that has not begun as what the run ended at, or the report would tell of no failure."""
        begun = {event["params"]["testId"] for event in self.events if event.get("method") == "onTestBegin"}
        waiting = [test for test in tests_of(self.project) if test not in begun]
        if cut.status == INTERRUPTED or not waiting or self._has_failure():
            return ()
        start = max((event["params"]["result"]["startTime"] for event in self.events if _has_start(event)), default=0)
        result = {"id": "never-begun", "retry": 0, "workerIndex": 0, "parallelIndex": 0, "startTime": start}
        params = {"testId": waiting[0], "result": result}
        return {"method": "onTestBegin", "params": params}, _cut_end(params, cut)


def _has_start(event: Event) -> bool:
    return event.get("method") in ("onTestBegin", "onEnd")


def _is_interruption(event: Event, ended: Mapping[str, str]) -> bool:
    return event.get("method") == "onTestEnd" and event["params"]["result"]["id"] not in ended


def _cut_end(begun: Event, cut: Cut) -> Event:
    test = {"testId": begun["testId"], "expectedStatus": "passed", "timeout": 0, "annotations": []}
    errors = [{"message": cut.message}]
    result = {"id": begun["result"]["id"], "duration": 0, "status": cut.status, "errors": errors, "annotations": []}
    return {"method": "onTestEnd", "params": {"test": test, "result": result}}


def read_run(path: Path) -> _Run:
    """Return the events of a packed report.

    Raises:
        MergeFailed: It is none, or of a Playwright whose reports this release does not know.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(EVENTS).file_size > MAX_EVENT_BYTES:
                raise MergeFailed("a report is too large")
            run = _Run(tuple(_lines(archive.read(EVENTS))))
    except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise MergeFailed(f"a report cannot be read: {error}") from error
    version = run.first("onBlobReportMetadata")["params"].get("version")
    if version != KNOWN_VERSION:
        raise MergeFailed(f"a report is of version {version}, and {KNOWN_VERSION} is known")
    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How the test ended that was at work when its run was ended from outside."""

    status: str
    """Playwright's word: timedOut, failed, or interrupted where it goes on elsewhere."""
    message: str


def combined(runs: Sequence[_Run], cut: Cut) -> list[Event]:
    """Return the events of all runs as those of one, the last of which says what the whole is.

    Args:
        runs: The oldest first.
        cut: What became of a test that was at work when the last run ended.

    Raises:
        MergeFailed: They are not runs of one spec.
    """
    last = runs[-1]
    # The rest of a spec knows only its own tests; the whole is where the most are.
    project = max((run.project for run in runs), key=lambda event: len(tests_of(event)))
    known = set(tests_of(project))
    if any(not known.issuperset(tests_of(run.project)) for run in runs):
        raise MergeFailed("the spec has changed between the attempts")
    tries: dict[str, int] = {}
    told = [last.first("onBlobReportMetadata"), last.first("onConfigure"), project, last.first("onBegin")]
    for run in (*runs[:-1], last.with_end(cut)):
        ended = run.ended()
        own = (event for event in run.events if event.get("method") not in _COMMON)
        told += [kept for event in own if (kept := _kept(event, ended, tries)) is not None]
        for test in ended.values():
            tries[test] = tries.get(test, 0) + 1
    return [*told, _end(runs, cut)]


def _kept(event: Event, ended: Mapping[str, str], tries: Mapping[str, int]) -> Event | None:
    """Return an event of a result that came to its end; its try counts on from those before."""
    params: Event = event.get("params") or {}
    result: Event | None = params.get("result")
    result_id = result["id"] if result is not None else params.get("resultId")
    if result_id is None:
        return event if event.get("method") in ("onError", "onStdIO") else None
    if result_id not in ended:
        return None
    if event["method"] == "onTestBegin" and result is not None:
        return {**event, "params": {**params, "result": {**result, "retry": tries.get(ended[result_id], 0)}}}
    return event


def _end(runs: Sequence[_Run], cut: Cut) -> Event:
    """Return the end of the whole: as the last run ended, from the beginning of the first on."""
    found = [event for run in runs for event in run.events if event.get("method") == "onEnd"]
    starts = [
        event["params"]["result"]["startTime"]
        for run in runs
        for event in run.events
        if event.get("method") == "onTestBegin"
    ]
    last = next((event for event in runs[-1].events if event.get("method") == "onEnd"), None)
    begun = min([*starts, *(event["params"]["result"]["startTime"] for event in found)], default=0)
    until = max(
        [*starts, *(event["params"]["result"]["startTime"] + event["params"]["result"]["duration"] for event in found)],
        default=begun,
    )
    status = last["params"]["result"]["status"] if last is not None else INTERRUPTED
    if status == INTERRUPTED:
        status = cut.status.lower()
    return {"method": "onEnd", "params": {"result": {"status": status, "startTime": begun, "duration": until - begun}}}


def tests_of(project: Event) -> tuple[str, ...]:
    """Return the tests that a run knew of, in their order."""
    found = list[str]()
    left = list(reversed(project["params"]["project"]["suites"]))
    while left:
        entry = left.pop()
        if "testId" in entry:
            found.append(entry["testId"])
        else:
            left += reversed(entry["entries"])
    return tuple(found)


async def merge(tools: Toolbox, test_dir: Path, out: Path, cut: Cut, earlier: Sequence[Path]) -> tuple[LeftBehind, ...]:
    """Make one report of earlier attempts, if there are any, and of the one whose folder is given.

    Raises:
        MergeFailed: It cannot be made.
    """
    blobs, merged = out / "blobs", out / MERGED
    await asyncio.to_thread(_write_combined, (*earlier, out / BLOB), blobs, cut)
    config = str(NODE_FILES / "merge.config.cjs")
    env = {**tools.environment(), "QGJOB_MERGED": str(merged), "QGJOB_TEST_DIR": str(test_dir)}
    command = (*playwright(tools.project), "merge-reports", "--config", config, str(blobs))
    try:
        code, text = await capture(command, env=env, timeout_s=MERGE_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        raise MergeFailed(str(error) or "it takes too long") from error
    if code != 0:
        raise MergeFailed(" ".join(text.split())[-500:] or f"Playwright ended with {code}")
    return await asyncio.to_thread(left_of_report, out, MERGED)


def _write_combined(blobs: Sequence[Path], folder: Path, cut: Cut) -> None:
    """Write the archive that Playwright reads: the events of all, and what tests attached."""
    try:
        events = combined([read_run(path) for path in blobs], cut)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MergeFailed(f"a report is not as it should be: {error!r}") from error
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "report.zip", "w", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr(EVENTS, "".join(f"{json.dumps(event)}\n" for event in events))
        names = set[str]()
        for path in blobs:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    is_plain = member.startswith(RESOURCES) and ".." not in member and member.count("/") == 1
                    if is_plain and member not in names:
                        names.add(member)
                        whole.writestr(member, archive.read(member))
