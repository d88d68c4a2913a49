"""Where the bytes of logs and blobs lie."""

from coordinator.storage.claim import check, claim
from coordinator.storage.directory import Directory
from coordinator.storage.opening import open_storage
from coordinator.storage.protocol import Storage, Stored
from coordinator.storage.shelf import Shelf

__all__ = ["Directory", "Shelf", "Storage", "Stored", "check", "claim", "open_storage"]
