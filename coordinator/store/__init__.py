"""The database: records in, records out."""

from coordinator.store.artifacts import Kept, Recording
from coordinator.store.dialect import LEADER_TTL_S
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
from coordinator.store.leader import LeaderRow, Reign
from coordinator.store.reading import Snapshot
from coordinator.store.store import Store

__all__ = [
    "LEADER_TTL_S",
    "JobFilter",
    "Kept",
    "LeaderRow",
    "OutcomeUnknown",
    "Recording",
    "Reign",
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
