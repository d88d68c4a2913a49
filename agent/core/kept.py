"""Results that the coordinator has not acknowledged: each is durable before it is sent, and sent until it is heard."""

from agent.core.model import AttemptId, AttemptResult
from agent.core.outbox import Outbox
from agent.core.results import newest
from agent.core.step import ForgetResults, KeepResult, ReportResult


class KeptResults:
    """Results by their attempts, the oldest first."""

    def __init__(self, outbox: Outbox, results: tuple[AttemptResult, ...]) -> None:
        """Take up what an earlier life has kept."""
        self._outbox = outbox
        self._results = {result.attempt_id: result for result in results}

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._results)

    def keep(self, result: AttemptResult) -> None:
        """Keep one, durably."""
        self._results[result.attempt_id] = result
        self._outbox.writes.append(KeepResult(result=result))

    def newest(self) -> tuple[AttemptResult, ...]:
        """Return the latest, as many as one message has room for."""
        return newest(tuple(self._results.values()))

    def repeat(self, told: tuple[AttemptResult, ...] = ()) -> None:
        """Send all but those that were told just now."""
        for result in self._results.values():
            if result not in told:
                self._outbox.send(ReportResult(result=result))

    def acknowledge(self, attempts: tuple[AttemptId, ...]) -> None:
        """Forget what the coordinator has."""
        known = tuple(attempt for attempt in attempts if self._results.pop(attempt, None) is not None)
        if known:
            self._outbox.writes.append(ForgetResults(attempt_ids=known))

    def clear(self) -> None:
        """Forget all: they are another database's."""
        self._results.clear()
