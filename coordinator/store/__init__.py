"""SQL remembers: what is committed here survives; what decides lives in memory."""

from coordinator.store.filter import JobFilter
from coordinator.store.store import Snapshot, StaleEpoch, Store, StoreError

__all__ = ["JobFilter", "Snapshot", "StaleEpoch", "Store", "StoreError"]
