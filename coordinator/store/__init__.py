"""The database: records in, records out."""

from coordinator.store.errors import (
    OutcomeUnknown,
    SchemaTooNew,
    StaleEpoch,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreInUse,
    StoreUnreadable,
)
from coordinator.store.filter import JobFilter
from coordinator.store.reading import Snapshot
from coordinator.store.store import Store

__all__ = [
    "JobFilter",
    "OutcomeUnknown",
    "SchemaTooNew",
    "Snapshot",
    "StaleEpoch",
    "Store",
    "StoreBusy",
    "StoreError",
    "StoreFull",
    "StoreInUse",
    "StoreUnreadable",
]
