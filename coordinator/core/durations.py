"""How long things are expected to take, learnt from what they took.

Each average is one of logarithms, so that one run of an hour does not drown many of half a minute. The logarithm is the
piecewise linear one of whole numbers: the exponent is exact, and between two powers of two it is a straight line.
Nothing in here is a float, so every machine decides alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.core.model import SECOND_US, DeviceKind, Expectation, JobSpec, Target, TestKey

PRIOR_SPEC_US = 30 * SECOND_US
PRIOR_INSTALL_US = 10 * SECOND_US
FRACTION_BITS = 16
MEMORY = 4
"""A new run counts for one part in so many, until there are as many."""
P90_FIFTHS = 8
"""The 90th percentile lies 8/5 mean deviations above the median, if logarithms are normal: 1.28 / 0.80."""

_KINDS: dict[Target, tuple[DeviceKind, ...]] = {
    Target.ANY: (DeviceKind.EMULATOR, DeviceKind.DEVICE),
    Target.EMULATOR: (DeviceKind.EMULATOR,),
    Target.DEVICE: (DeviceKind.DEVICE,),
    Target.BROWSERSTACK: (DeviceKind.BROWSERSTACK,),
}


def to_log(number: int) -> int:
    """Return the logarithm of a positive number, in fractions of 1/65536."""
    exponent = number.bit_length() - 1
    return (exponent << FRACTION_BITS) + ((number << FRACTION_BITS) >> exponent) - (1 << FRACTION_BITS)


def from_log(logarithm: int) -> int:
    """Return the number that has a logarithm."""
    exponent, fraction = logarithm >> FRACTION_BITS, logarithm & ((1 << FRACTION_BITS) - 1)
    return (((1 << FRACTION_BITS) + fraction) << exponent) >> FRACTION_BITS


def _log_of(span_us: int) -> int:
    return to_log(max(1, span_us))


@dataclass(slots=True)
class Average:
    """A moving average of logarithms, and how far from it runs lie."""

    count: int = 0
    mean: int = 0
    deviation: int = 0

    def add(self, logarithm: int) -> None:
        """Take one more run into account, by the logarithm of what it took."""
        if not self.count:
            self.mean = logarithm
        else:
            parts = min(MEMORY, self.count + 1)
            self.deviation += (abs(logarithm - self.mean) - self.deviation) // parts
            self.mean += (logarithm - self.mean) // parts
        self.count += 1

    @property
    def median_us(self) -> int:
        """Half take no longer."""
        return from_log(self.mean)

    @property
    def p90_us(self) -> int:
        """Nine of ten take no longer."""
        return from_log(self.mean + self.deviation * P90_FIFTHS // 5)


class Durations:
    """What is known of tests and installs. The averages over an organisation and over all follow from the tests."""

    def __init__(self) -> None:
        self._tests: dict[tuple[str, str, DeviceKind], Average] = {}
        """By the fields of a `TestKey`; a plain tuple is looked up in half the time."""
        self._orgs: dict[str, Average] = {}
        self._all = Average()
        self._installs = Average()

    def restore(self, expectations: Iterable[Expectation], installs_us: Iterable[int]) -> None:
        """Take up what an earlier life has learnt."""
        for one in expectations:
            average = Average(one.count, one.mean, one.deviation)
            self._tests[one.key] = average
            self._note_of_others(one.key.org_id, _log_of(average.median_us))
        for install_us in installs_us:
            self.note_install(install_us)

    def known(self) -> dict[TestKey, Expectation]:
        """Return what is remembered of each test."""
        return {
            key: Expectation(key=key, count=one.count, mean=one.mean, deviation=one.deviation)
            for key, one in ((TestKey(*told), average) for told, average in self._tests.items())
        }

    def note_test(self, spec: JobSpec, kind: DeviceKind, span_us: int) -> Expectation:
        """Learn how long a test took, and return what is to be remembered."""
        key = TestKey(spec.org_id, spec.test, kind)
        average = self._tests.get(key)
        if average is None:
            average = self._tests[key] = Average()
        logarithm = _log_of(span_us)
        average.add(logarithm)
        self._note_of_others(spec.org_id, logarithm)
        return Expectation(key=key, count=average.count, mean=average.mean, deviation=average.deviation)

    def _note_of_others(self, org_id: str, logarithm: int) -> None:
        average = self._orgs.get(org_id)
        if average is None:
            average = self._orgs[org_id] = Average()
        average.add(logarithm)
        self._all.add(logarithm)

    def note_install(self, install_us: int) -> None:
        """Learn how long an install took."""
        self._installs.add(_log_of(install_us))

    def _average(self, spec: JobSpec) -> Average | None:
        """Return the nearest that is known: of the test, else of its organisation, else of all."""
        for kind in _KINDS[spec.target]:
            average = self._tests.get((spec.org_id, spec.test, kind))
            if average is not None:
                return average
        average = self._orgs.get(spec.org_id, self._all)
        return average if average.count else None

    def expected_us(self, spec: JobSpec) -> int:
        """Return how long a job's test takes, as likely more as less."""
        average = self._average(spec)
        return average.median_us if average is not None else PRIOR_SPEC_US

    def cautious_us(self, spec: JobSpec) -> int:
        """Return how long a job's test takes at most, nine times of ten."""
        average = self._average(spec)
        return average.p90_us if average is not None else 2 * PRIOR_SPEC_US

    def install_us(self) -> int:
        """Return how long the install of a build takes that was never installed."""
        return self._installs.median_us if self._installs.count else PRIOR_INSTALL_US
