"""What devices did with the builds that they were to install: a build that two refuse is broken itself.

A refusal is one for the build's own reason: its signature, its bytes, its ABI. One device that takes a registered build
clears that for ever, for its bytes do not change; a build without a digest may be another one tomorrow, and is cleared
until it is refused again. It is durable: the jobs of a broken build do not cost a restarted lab two more devices.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from coordinator.core.model import AppKey, DeviceId, Trial, changed

REMEMBERED = 10_000
"""Builds whose trials are remembered; those of the longest ago are forgotten first."""


class Trials:
    """By build, who refused it since one took it, and whether one ever did."""

    def __init__(self, put: Callable[[Trial], None]) -> None:
        """`put` takes what has changed, to make it durable; one that says nothing is forgotten."""
        self.known: OrderedDict[AppKey, Trial] = OrderedDict()
        """The one that was noted last comes last."""
        self._put = put

    def restore(self, trials: Iterable[Trial]) -> None:
        """Take up what an earlier life knew."""
        for trial in sorted(trials, key=lambda trial: trial.note_us):
            self.known[trial.app] = trial

    def refused(self, app: AppKey, device: DeviceId, wall_us: int) -> Trial:
        """Note that a device refused a build for its own reason, and return what is known of the build now."""
        known = self.known.get(app, Trial(app=app))
        if known.is_taken or (known.is_broken and device in known.refused_by):
            return known
        return self._note(changed(known, refused_by=(*known.refused_by, device), note_us=wall_us))

    def took(self, app: AppKey, wall_us: int) -> None:
        """Note that a device took a build: it is not broken."""
        known = self.known.get(app)
        if app.digest:
            if known is None or not known.is_taken:
                self._note(Trial(app=app, is_taken=True, note_us=wall_us))
        elif known is not None:
            self._forget(app)

    def _note(self, trial: Trial) -> Trial:
        self.known.pop(trial.app, None)
        self.known[trial.app] = trial
        self._put(trial)
        if len(self.known) > REMEMBERED:
            self._forget(next(iter(self.known)))
        return trial

    def _forget(self, app: AppKey) -> None:
        del self.known[app]
        self._put(Trial(app=app))
