"""Where the bytes of logs lie."""

from coordinator.storage.claim import check, claim
from coordinator.storage.directory import Directory
from coordinator.storage.opening import open_storage
from coordinator.storage.protocol import Storage, Stored

__all__ = ["Directory", "Storage", "Stored", "check", "claim", "open_storage"]
