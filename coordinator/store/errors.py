"""What can go wrong with the database. A commit that raised has changed nothing, unless its outcome is unknown."""

from __future__ import annotations


class StoreError(Exception):
    """The database could not do what it was asked."""


class StoreFull(StoreError):
    """There is no space left where the database lies. Reads still work."""


class StoreBusy(StoreError):
    """Somebody else holds the database's lock for longer than we wait."""


class StoreInUse(StoreError):
    """Another coordinator runs on this database, and only one may."""


class StoreUnreadable(StoreError):
    """What the URL names is damaged, cannot be opened, or is not a database of ours."""


class SchemaTooNew(StoreError):
    """A newer release has written this database; this release must not touch it."""


class StaleEpoch(StoreError):
    """Another coordinator has taken this database over: this one must not write any more."""


class OutcomeUnknown(StoreError):
    """The connection was lost while the commit was under way: it may have happened, or not."""
