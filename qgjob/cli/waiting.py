"""Waiting for jobs: a line a change, logs as they come, an honest exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from qgjob.cli import ci, fields, render, terminal, words
from qgjob.cli.exits import Exit, exit_of
from qgjob.cli.interrupts import heeding_as_interrupts
from qgjob.cli.session import dashboard, show
from qgjob.cli.styles import say_with_state
from qgjob.counts import counted
from qgjob.errors import ClientError, NotFound, UsageError

if TYPE_CHECKING:
    from qgjob.client import Client, LogPiece
    from qgjob.v1.job_pb2 import Job

_HISTORY = ("attempts", "earlier_failures")
MOST_LINKED = 20
"""Jobs whose artifacts are asked for, for the links in a summary."""
PAGE_OF_SESSION = "/session.url"
"""The link that a summary has: it asks for a login. Those of videos and logs let everybody in who knows them."""
LOG_WAIT_S = 30.0
"""How long the rest of a log is waited for after its job has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How jobs are waited for, and where it is told how they ended."""

    is_following: bool
    timeout_s: float | None
    junit: Path | None
    is_cancelling: bool
    """Whether Ctrl-C cancels the jobs instead of detaching."""
    dashboard_url: str = ""
    """Address of the coordinator's pages, to which reports lead; empty where nobody gave it."""
    is_result_wanted: bool = False
    """Whether stdout is for the jobs as they ended, also where their logs are followed: those go to stderr then."""

    @classmethod
    def of(
        cls,
        follow: bool,
        wait_timeout: str | None,
        junit: Path | None,
        *,
        is_cancelling: bool,
        is_result_wanted: bool,
    ) -> Waiting:
        """Return what the options of a command say.

        Raises:
            UsageError: One of them makes no sense.
        """
        if junit is not None:
            from qgjob.cli.junit import check_place

            check_place(junit)
        timeout_s = fields.span_s(wait_timeout, "wait-timeout") if wait_timeout is not None else None
        return cls(
            is_following=follow,
            timeout_s=timeout_s,
            junit=junit,
            is_cancelling=is_cancelling,
            is_result_wanted=is_result_wanted,
            dashboard_url=dashboard(),
        )

    def finish(self, client: Client, ids: Sequence[int], output: str, *, known: Iterable[Job] = ()) -> NoReturn:
        """Wait until jobs have ended, show and report them in the order of `ids`, and end with their exit code.

        Args:
            client: An open one.
            ids: Of the jobs.
            output: The format of what is shown.
            known: Jobs as they were before, for what the wait is never told.

        Raises:
            ClientError: The wait could not go on; what is known of the jobs has been shown and reported.
        """
        service = ci.detected(os.environ)
        logs_to = terminal.STDERR if self.is_result_wanted else terminal.STDOUT
        wait = _Wait(
            client, ids, known, logs_to=logs_to if self.is_following else None, dashboard_url=self.dashboard_url
        )
        with _terminable(self.is_cancelling), _heartbeat(wait) if service is not None else nullcontext():
            outcome = self._outcome(client, wait)
        jobs = wait.jobs()
        is_known = isinstance(outcome, Exit) or bool(jobs)
        is_shown = is_known and (self.is_result_wanted or not self.is_following)
        if is_shown and output in ("json", "jsonl") and isinstance(outcome, Exit) and outcome is not Exit.INTERRUPTED:
            jobs = _with_all_attempts(client, jobs)
        if self.junit is not None and is_known:
            _write_junit(self.junit, client, jobs)
        if service is not None and is_known:
            ci.report(service, with_links(client, jobs) if service.summary else jobs, self.dashboard_url)
        try:
            if is_shown:
                show(jobs, output, render.jobs_table)
            sys.stdout.flush()
        except BrokenPipeError:
            terminal.abandon_readers()
        if isinstance(outcome, ClientError):
            raise outcome
        sys.exit(outcome)

    def _outcome(self, client: Client, wait: _Wait) -> Exit | ClientError:
        """Wait, and return the exit code, or why there is none."""
        try:
            try:
                return wait.run(self.timeout_s)
            except KeyboardInterrupt:
                wait.break_off_logs()
                _interrupted(client, wait.unfinished(), is_cancelling=self.is_cancelling)
                return Exit.INTERRUPTED
        except ClientError as error:
            unfinished = wait.unfinished()
            if unfinished and not isinstance(error, NotFound):
                hints = [hint for hint in (error.hint, _again(unfinished)) if hint]
                error.hint = "; ".join(hints)
            return error


def _heartbeat(wait: _Wait) -> AbstractContextManager[None]:
    return ci.heartbeat(lambda: f"waiting: {ci.census(wait.jobs())}")


def _write_junit(path: Path, client: Client, jobs: list[dict[str, Any]]) -> None:
    """Write a report; that it cannot be written changes no verdict."""
    from qgjob.cli import junit

    try:
        junit.write(path, [_with_attempts(client, job) for job in jobs])
    except UsageError as error:
        terminal.say(f"warning: {error}")


def _with_all_attempts(client: Client, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return jobs with what a wait is told nothing of: their attempts and earlier failures, where still to be had."""
    from qgjob import resources
    from qgjob.client import MAX_JOBS_PER_CALL
    from qgjob.v1.job_pb2 import JobFilter

    ids = [job["id"] for job in jobs]
    found: dict[int, dict[str, Any]] = {}
    try:
        for start in range(0, len(ids), MAX_JOBS_PER_CALL):
            part = JobFilter(ids=ids[start : start + MAX_JOBS_PER_CALL])
            listed = client.list_jobs(part, len(part.ids), with_history=True)
            found.update((job["id"], {name: job[name] for name in _HISTORY}) for job in resources.jobs(listed))
    except ClientError as error:
        terminal.say(f"warning: the jobs are shown without their attempts: {error}")
    return [{**job, **found.get(job["id"], {})} for job in jobs]


def with_links(client: Client, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return jobs with where a cloud keeps what it saw of those that did not pass, where that can be had already."""
    from qgjob import resources

    found: dict[int, list[dict[str, Any]]] = {}
    try:
        for job in [job for job in jobs if ci.is_listed(job) and _was_on_cloud(job)][:MOST_LINKED]:
            artifacts = map(resources.artifact, client.list_artifacts(job["id"]).artifacts)
            found[job["id"]] = [one for one in artifacts if one["url"] and one["name"].endswith(PAGE_OF_SESSION)]
    except ClientError as error:
        terminal.say(f"warning: the summary leads to no session of the cloud: {error}")
    return [{**job, "links": found.get(job["id"], [])} for job in jobs]


def _was_on_cloud(job: dict[str, Any]) -> bool:
    return str(job["device"] or "").startswith("browserstack-")


def _with_attempts(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job with what went wrong before its last attempt, where that can still be had."""
    if job["attempt"] <= 1:
        return job
    from qgjob import resources

    try:
        return resources.job(client.get_job(job["id"]))
    except ClientError as error:
        terminal.say(f"warning: the report lacks the earlier attempts of job {job['id']}: {error}")
        return job


class _Wait:
    """The jobs that are waited for, as they stand."""

    def __init__(
        self, client: Client, ids: Sequence[int], known: Iterable[Job], *, logs_to: int | None, dashboard_url: str
    ) -> None:
        """Take the jobs, and the descriptor that their logs are written to, None for no logs."""
        from qgjob import resources

        self._client = client
        self._ids = ids
        self._logs_to = logs_to
        self._dashboard_url = dashboard_url
        self._known = {job.id: resources.job(job) for job in known}
        self._jobs: dict[int, dict[str, Any]] = {}
        self._followers: dict[int, _Follower] = {}

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs as they were seen last."""
        seen = {**self._known, **self._jobs}
        return [seen[job_id] for job_id in self._ids if job_id in seen]

    def unfinished(self) -> list[int]:
        return [job_id for job_id in self._ids if not self._has_ended(job_id)]

    def _has_ended(self, job_id: int) -> bool:
        return job_id in self._jobs and self._jobs[job_id]["end_time"] is not None

    def run(self, timeout_s: float | None) -> Exit:
        from qgjob.v1.job_pb2 import JobFilter

        try:
            for message in self._client.watch_jobs(JobFilter(ids=self._ids), timeout_s=timeout_s):
                self._take(message)
        except TimeoutError:
            unfinished = self.unfinished()
            of_all = f"{len(unfinished)} of {counted(len(self._ids), 'job')}"
            terminal.say(f"error: the wait timed out; {of_all} {'goes' if len(unfinished) == 1 else 'go'} on")
            terminal.say(f"hint: {_again(unfinished)}")
            return Exit.WAIT_TIMED_OUT
        self._end_logs()
        return exit_of(job["status"] for job in self.jobs())

    def _take(self, message: Job) -> None:
        from qgjob import resources

        job = resources.job(message)
        before = self._jobs.get(message.id)
        self._jobs[message.id] = job
        if self._logs_to is not None and job["attempt"] and message.id not in self._followers:
            writer = terminal.LogWriter(self._logs_to)
            self._followers[message.id] = _Follower(self._client, message.id, writer, is_alone=len(self._ids) == 1)
            self._followers[message.id].start()
        tell(before, job, self._dashboard_url)

    def break_off_logs(self) -> None:
        """Let what is said next begin a line on a terminal, wherever a log stands."""
        for follower in self._followers.values():
            follower.break_off()

    def _end_logs(self) -> None:
        """Let the logs come to their end: their last bytes may arrive after the verdict."""
        deadline = time.monotonic() + LOG_WAIT_S
        for job_id, follower in self._followers.items():
            follower.join(max(0.0, deadline - time.monotonic()))
            if follower.is_alive():
                terminal.say(f"the rest of the log of job {job_id} has not come yet; see `qgjob logs {job_id}`")


def _interrupted(client: Client, unfinished: Sequence[int], *, is_cancelling: bool) -> None:
    if not is_cancelling:
        again = _again(unfinished)
        terminal.say(f"detached; the jobs go on. {again[:1].upper()}{again[1:]}")
    elif unfinished:
        client.cancel_jobs(unfinished)
        terminal.say(f"cancel requested: {_listed(unfinished)}")


def _again(unfinished: Sequence[int]) -> str:
    return f"wait again with `qgjob jobs wait {_listed(unfinished)}`"


def _listed(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


def _terminable(is_wanted: bool) -> AbstractContextManager[None]:
    """Let TERM and HUP interrupt like Ctrl-C where jobs are to be cancelled then: CI ends a step with them.

    Under nohup a HUP is to pass unheard.
    """
    return heeding_as_interrupts((signal.SIGTERM, signal.SIGHUP) if is_wanted else ())


def tell(before: dict[str, Any] | None, job: dict[str, Any], dashboard_url: str = "") -> None:
    """Say what has changed, one line, and where the page of a job is that did not pass.

    Nothing is said where the state is the same.
    """
    if before is not None and before["status"] == job["status"] and before["attempt"] == job["attempt"]:
        return
    preposition = "to" if job["status"] == "assigned" else "on"
    where = f" {preposition} {job['device']}" if job["device"] and job["status"] != "queued" else ""
    place = f" (place {job['queue_position']})" if job["queue_position"] else ""
    took = f" after {words.took(job)}" if job["end_time"] and job["start_time"] else ""
    attempt = f" (attempt {job['attempt']})" if job["attempt"] > 1 and not job["end_time"] else ""
    flaky = " (flaky)" if job["flaky"] else ""
    about = f"job {job['id']} {words.spec_name(job)}: "
    say_with_state(about, job["status"], f"{where}{place}{took}{attempt}{flaky}")
    reason = job["failure_reason"]
    if reason is not None and job["end_time"]:
        terminal.say(f"  {reason['reason']}: {' '.join(reason['message'].split())}")
    if dashboard_url and job["status"] in ci.BAD:
        terminal.say(f"  {ci.page_of(job['id'], dashboard_url)}")


def say_cut(piece: LogPiece, job_id: int, *, is_first: bool) -> None:
    """Say where an attempt's log begins or was cut. The first beginning needs no word."""
    from qgjob.v1.job_pb2 import LOG_STATE_OPEN, LOG_STATE_TRUNCATED

    if piece.state == LOG_STATE_OPEN and not is_first:
        terminal.say(f"--- job {job_id}, attempt {piece.attempt} ---")
    elif piece.state == LOG_STATE_TRUNCATED:
        terminal.say(f"--- the rest of the log of job {job_id}, attempt {piece.attempt}, never came ---")


class _Follower(threading.Thread):
    """Writes one job's log while the main thread waits for its end."""

    _turn = threading.Lock()

    def __init__(self, client: Client, job_id: int, writer: terminal.LogWriter, *, is_alone: bool) -> None:
        super().__init__(daemon=True, name=f"log of job {job_id}")
        self._client = client
        self._job_id = job_id
        self._is_alone = is_alone
        self._rest = b""
        self._writer = writer

    def break_off(self) -> None:
        """Show what was held back of the log, and end its line on a terminal."""
        self._writer.end()

    def run(self) -> None:
        is_first = True
        try:
            for piece in self._client.follow_logs(self._job_id):
                if piece.state is None:
                    self._write(piece.data)
                    continue
                self._end_line()
                say_cut(piece, self._job_id, is_first=is_first)
                is_first = False
            self._end_line()
        except ClientError as error:
            if not self._client.is_closed:
                terminal.say(f"error: the log of job {self._job_id}: {error}")
        except BrokenPipeError:
            # Whoever read the log has enough. The wait, and its exit code, go on.
            return
        except OSError as error:
            # So they do where the log cannot be written, as on a full disk.
            self._writer.abandon()
            terminal.say(f"error: the log of job {self._job_id} cannot be written: {error.strerror or error}")
            terminal.say(f"hint: look at this computer; `qgjob logs {self._job_id}` has the whole log")

    def _write(self, data: bytes) -> None:
        """Write bytes as they are; of several jobs whole lines, each with its job's number."""
        if self._is_alone:
            self._writer.write(data)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._turn:
            for line in lines:
                self._writer.write(b"[%d] %s\n" % (self._job_id, line))

    def _end_line(self) -> None:
        if self._rest:
            self._write(b"\n")
        self._writer.end()
