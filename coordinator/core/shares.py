"""Fair shares of the lab between organisations, and how many devices each may have at once.

Every organisation has one virtual time: the device time that it was given, divided by its weight. Among heads of one
priority the organisation with the least goes first. One that comes back from having nothing to do starts where the
least of those that have is: it can neither save up its absence nor pay for it.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

WEIGHT_UNIT = 100
"""Weights are whole numbers; this one is everybody's unless said otherwise."""


class Shares:
    """The virtual times of organisations, and what each has waiting or running."""

    def __init__(self, weights: Mapping[str, int], quotas: Mapping[str, int], default_quota: int) -> None:
        """Take the weights, and the most devices at once: 0 for any number."""
        self._weights = weights
        self._quotas = quotas
        self._default_quota = default_quota
        self._has_quotas = bool(default_quota or any(quotas.values()))
        self._times: dict[str, int] = {}
        self._credits: dict[str, int] = {}
        self._active: Counter[str] = Counter()
        self._devices: Counter[str] = Counter()
        self._least: list[tuple[int, str]] = []

    def time_of(self, org: str) -> int:
        """Return an organisation's virtual time."""
        return self._times.get(org, 0)

    def quota_of(self, org: str) -> int:
        """Return how many devices an organisation may have at once; 0 for any number."""
        return self._quotas.get(org, self._default_quota)

    def devices_of(self, org: str) -> int:
        """Return how many devices an organisation has."""
        return self._devices[org]

    def is_full(self, org: str) -> bool:
        """Whether an organisation has all the devices that it may have."""
        if not self._has_quotas:
            return False
        quota = self.quota_of(org)
        return bool(quota) and self._devices[org] >= quota

    def enter(self, org: str) -> None:
        """Note that one more job of an organisation is there."""
        if not self._active[org]:
            self._times[org] = max(self.time_of(org), self._least_active())
            heapq.heappush(self._least, (self._times[org], org))
        self._active[org] += 1

    def leave(self, org: str) -> None:
        """Note that a job of an organisation is gone."""
        self._active[org] -= 1
        if not self._active[org]:
            del self._active[org]

    def _least_active(self) -> int:
        while self._least:
            time, org = self._least[0]
            true = self._times[org]
            if org not in self._active:
                heapq.heappop(self._least)
            elif true > time:
                heapq.heapreplace(self._least, (true, org))
            else:
                return time
        return 0

    def hold(self, org: str, change: int) -> None:
        """Note that an organisation got a device (1) or gave one back (-1)."""
        self._devices[org] += change
        if not self._devices[org]:
            del self._devices[org]

    def charge(self, org: str, span_us: int) -> None:
        """Charge device time that was given. A virtual time never falls: what was given back is a credit.

        Args:
            org: Who pays.
            span_us: How long; less than nothing where an estimate was too high.
        """
        owed_us = span_us - self._credits.pop(org, 0)
        if owed_us < 0:
            self._credits[org] = -owed_us
        else:
            weight = self._weights.get(org, WEIGHT_UNIT)
            self._times[org] = self.time_of(org) + owed_us * WEIGHT_UNIT // weight
