"""Waiting for jobs: a line a change, logs as they come, an honest exit code."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qgjob.cli import render
from qgjob.cli.exits import Exit, exit_of
from qgjob.errors import ClientError

if TYPE_CHECKING:
    from qgjob.client import Client
    from qgjob.v1.job_pb2 import Job

JOIN_S = 30.0


def wait_for(
    client: Client,
    ids: Sequence[int],
    *,
    is_following: bool,
    timeout_s: float | None,
    is_cancelling: bool,
) -> tuple[dict[int, dict[str, Any]], Exit]:
    """Wait until jobs have ended. Returns them as they stood last, and the exit code.

    Ctrl-C detaches, or cancels the jobs where that was asked for.
    """
    from qgjob import resources
    from qgjob.v1.job_pb2 import JobFilter

    jobs: dict[int, dict[str, Any]] = {}
    followers = [_Follower(client.target, job_id, is_alone=len(ids) == 1) for job_id in ids] if is_following else []
    for follower in followers:
        follower.start()
    try:
        for message in client.watch_jobs(JobFilter(ids=ids), timeout_s=timeout_s):
            before = jobs.get(message.id)
            jobs[message.id] = job = resources.job(message)
            _tell(before, job, message)
        for follower in followers:
            follower.join(JOIN_S)
    except TimeoutError:
        unfinished = [job_id for job_id in ids if jobs.get(job_id, {}).get("end_time") is None]
        render.say(f"error: the wait timed out; {len(unfinished)} of {len(ids)} jobs go on")
        render.say(f"hint: wait again with `qgjob jobs wait {' '.join(map(str, unfinished))}`")
        return jobs, Exit.WAIT_TIMED_OUT
    except KeyboardInterrupt:
        _interrupted(client, ids, is_cancelling)
        return jobs, Exit.INTERRUPTED
    return jobs, exit_of(job["status"] for job in jobs.values())


def _interrupted(client: Client, ids: Sequence[int], is_cancelling: bool) -> None:
    listed = " ".join(map(str, ids))
    if is_cancelling:
        client.cancel_jobs(ids)
        render.say(f"cancelled {listed}")
    else:
        render.say(f"detached; the jobs go on. Wait again with `qgjob jobs wait {listed}`")


def _tell(before: dict[str, Any] | None, job: dict[str, Any], message: Job) -> None:
    if before is not None and before["status"] == job["status"] and before["attempt"] == job["attempt"]:
        return
    where = f" on {job['device']}" if job["device"] and job["status"] != "queued" else ""
    place = f" (place {job['queue_position']})" if job["queue_position"] else ""
    flaky = " (flaky)" if job["flaky"] else ""
    render.say(f"job {job['id']} {render.spec_name(job)}: {job['status']}{where}{place}{flaky}")
    reason = job["failure_reason"]
    if reason is not None and job["end_time"]:
        render.say(f"  {reason['reason']}: {reason['message']}")


class _Follower(threading.Thread):
    """Writes one job's log to stdout while the main thread waits for its end."""

    _turn = threading.Lock()

    def __init__(self, target: str, job_id: int, *, is_alone: bool) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._job_id = job_id
        self._is_alone = is_alone
        self._rest = b""

    def run(self) -> None:
        from qgjob.client import Client

        try:
            with Client(self._target) as client:
                for piece in client.follow_logs(self._job_id):
                    self._write(piece.data)
            if self._rest:
                self._write(b"\n")
        except ClientError as error:
            render.say(f"error: the log of job {self._job_id}: {error}")
        except BrokenPipeError:
            return

    def _write(self, data: bytes) -> None:
        """Write bytes as they are; of several jobs whole lines, each with its job's number."""
        if self._is_alone:
            write_log(data)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        with self._turn:
            for line in lines:
                write_log(b"[%d] %s\n" % (self._job_id, line))


def write_log(data: bytes) -> None:
    """Write a log to stdout: bytes on a pipe, cleaned of control sequences on a terminal."""
    if not data:
        return
    if sys.stdout.isatty():
        sys.stdout.write(render.clean(data.decode(errors="replace")))
        sys.stdout.flush()
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
