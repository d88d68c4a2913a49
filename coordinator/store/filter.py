"""Which jobs are wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from coordinator.core.model import Job, JobId, JobState, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Selects jobs; what is empty selects everything."""

    states: tuple[JobState, ...] = ()
    priority: int | None = None
    target: Target | None = None
    app_version_id: str = ""
    org_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    run: str = ""
    ids: tuple[JobId, ...] = ()

    @property
    def is_narrowed(self) -> bool:
        """Whether anything is asked for at all."""
        return self != JobFilter()

    def with_states(self, states: tuple[JobState, ...]) -> JobFilter:
        """Return the same filter for other states."""
        return replace(self, states=states)

    def matches(self, job: Job) -> bool:
        """Whether a job is wanted."""
        spec = job.spec
        return (
            (not self.states or job.state in self.states)
            and (self.priority is None or spec.priority == self.priority)
            and (self.target is None or spec.target is self.target)
            and self.app_version_id in ("", spec.app_version_id)
            and self.org_id in ("", spec.org_id)
            and self.run in ("", spec.run)
            and all(spec.labels.get(name) == value for name, value in self.labels)
            and (not self.ids or job.id in self.ids)
        )
