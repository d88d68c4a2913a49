"""What is watched: the active jobs and the queue, on a terminal as a live view, on a pipe as JSON objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qgjob.cli import printing, render
from qgjob.cli.session import client
from qgjob.resources import Resource

if TYPE_CHECKING:
    from qgjob.client import Client


@dataclass(frozen=True, slots=True)
class ActiveJobs:
    """The jobs that wait or run, newest first."""

    jobs: list[Resource]

    def heading_size(self, width: int) -> int:
        """Return the one line of the names of the columns."""
        return 1

    def size(self, width: int) -> int:
        """Return a line for each job, or one that says that there is none."""
        return max(1, len(self.jobs))

    def draw(self, first: int, last: int, width: int) -> list[str]:
        """Return a table of some of the jobs."""
        rows = render.job_rows(self.jobs[first:last])
        lines = printing.laid_out(render.JOB_COLUMNS, rows, width)
        return lines if rows else [*lines, render.NO_ACTIVE_JOBS]


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue at a glance."""

    status: Resource

    def heading_size(self, width: int) -> int:
        """Return how many lines the lanes take."""
        return len(render.queue_summary(self.status, width))

    def size(self, width: int) -> int:
        """Return how many lines the jobs and the totals take."""
        return len(self._listed(width))

    def draw(self, first: int, last: int, width: int) -> list[str]:
        """Return the lanes and some of the jobs."""
        return [*render.queue_summary(self.status, width), *self._listed(width)[first:last]]

    def _listed(self, width: int) -> list[str]:
        most = len(self.status["running"]) + len(self.status["waiting"])
        return render.active_jobs(self.status, width, most=most)


def read_active_jobs(opened: Client) -> Iterator[ActiveJobs]:
    """Yield the active jobs after each change."""
    from qgjob import resources

    active: dict[int, Resource] = {}
    for changed in opened.follow_active_jobs():
        for job in resources.jobs(changed):
            active[job["id"]] = job
            if job["end_time"] is not None:
                del active[job["id"]]
        yield ActiveJobs([active[job_id] for job_id in sorted(active, reverse=True)])


def read_queue(opened: Client) -> Iterator[Queue]:
    """Yield the queue after each change."""
    from qgjob import resources

    for message in opened.follow_queue():
        yield Queue(resources.queue_status(message))


def stream_active_jobs(output: str) -> None:
    """Print each active job as it stands, then after every change, until it has ended."""
    from qgjob import resources

    with client() as opened:
        for changed in opened.follow_active_jobs():
            for job in resources.jobs(changed):
                if output == "id":
                    printing.line_out_now(str(job["id"]))
                else:
                    printing.jsonl_out(job)


def stream_queue() -> None:
    """Print the queue as it stands, then after every change."""
    from qgjob import resources

    with client() as opened:
        for status in opened.follow_queue():
            printing.jsonl_out(resources.queue_status(status))
