"""How the lab stands at the moment at which Prometheus asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.core.model import SECOND_US, AgentState, DeviceState, Lane
from coordinator.engine import Engine


class LabCollector(Collector):
    """Reads the engine's memory."""

    def __init__(self, find_engine: Callable[[], Engine], streams: Counter[str]) -> None:
        """Take what is looked at."""
        self._find_engine = find_engine
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        """Yield all that can be read."""
        yield from self._queue()
        yield from self._fleet()
        yield from self._savings()
        yield _gauge("qgjob_streams", "Open streams.", "call", dict(self._streams))

    def _queue(self) -> Iterator[Metric]:
        queued, running = self._find_engine().census()
        yield _gauge("qgjob_jobs_queued", "Jobs that wait.", "lane", {lane: queued[lane] for lane in Lane})
        yield _gauge("qgjob_jobs_running", "Jobs assigned or running.", "lane", {lane: running[lane] for lane in Lane})

    def _fleet(self) -> Iterator[Metric]:
        fleet = self._find_engine().scheduler.ledger.fleet
        devices = Counter(device.state for device in fleet.devices.values())
        agents = Counter(agent.state for agent in fleet.agents.values())
        yield _gauge("qgjob_devices", "Devices.", "state", {state: devices[state] for state in DeviceState})
        yield _gauge("qgjob_agents", "Agents.", "state", {state: agents[state] for state in AgentState})
        yield GaugeMetricFamily("qgjob_batches_active", "Batches that agents hold.", value=len(fleet.leases))

    def _savings(self) -> Iterator[Metric]:
        ledger = self._find_engine().scheduler.ledger
        yield CounterMetricFamily(
            "qgjob_installs_avoided", "Installs that batches made unnecessary.", value=ledger.counters.installs_avoided
        )
        yield CounterMetricFamily(
            "qgjob_saved_seconds", "Time that those would have taken.", value=ledger.counters.saved_us / SECOND_US
        )


def _gauge(name: str, what: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=[label])
    for value, number in values.items():
        family.add_metric([str(value)], number)
    return family
