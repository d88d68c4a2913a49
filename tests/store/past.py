"""A lab whose past lies in a database: the real scheduler, whose every step is committed."""

from __future__ import annotations

from coordinator.core.model import SECOND_US, AttemptOutcome, DeviceKind
from coordinator.core.step import Step
from coordinator.store import Store
from tests.core.lab import Lab, emulator, spec


class RecordedLab(Lab):
    """Commits what its scheduler writes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        super().__init__()

    def _note(self, step: Step) -> None:
        super()._note(step)
        if step.writes:
            self._store.commit(step.writes)


def recorded(store: Store) -> RecordedLab:
    """Return a lab that has run three specs of one build and one of another on one of its two devices, for 20 s each.

    A fifth job was cancelled while it waited. The second device, a phone, had nothing to do.
    """
    lab = RecordedLab(store)
    agent = lab.connect("lab", emulator("e1"), emulator("p1", kind=DeviceKind.DEVICE))
    wanted = {"selector": (("model", "Pixel*"), ("udid", "e1"))}
    lab.submit(*(spec(f"a{number}", priority=3, **wanted) for number in range(3)))
    lab.submit(spec("b", app_version_id="other", priority=4, selector=(("udid", "e1"),)))
    lab.submit(spec("c", app_version_id="other", selector=(("udid", "nobody"),)))
    lab.cancel(5)
    while any(not lab.job(number).is_terminal for number in range(1, 5)):
        lease = agent.adopt("e1@lab")
        device = lab.scheduler.ledger.fleet.devices[lease.device]
        if device.app != lease.app:
            lab.mono_us += 10 * SECOND_US
            agent.install(lease, seconds=10)
        attempt = agent.start(lease)
        lab.mono_us += 20 * SECOND_US
        agent.finish(lease, attempt, AttemptOutcome.PASSED)
    return lab
