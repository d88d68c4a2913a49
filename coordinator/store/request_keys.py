"""Which idempotency keys the database may hold, in memory: a key that is new needs no look-up.

Every key of a row is in here before the row can be read, and until the row has been deleted. The other way round it may
err: a key that is in here and in no row costs one look-up. Until the rows of earlier epochs have been learnt it holds
any key.

It is a multiset of hashes: two keys of one hash, or one key that is deleted and inserted anew at the same time, are in
it twice, and the one that goes leaves the other. A Bloom filter could not forget. Of each key it keeps 6 bytes; with
what the buckets take themselves a million keys are 12 MB, where a set of numbers would be 65, and no growth makes a
pause.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

RequestKey = tuple[str, str]
"""Organisation, and what its client named the request."""

BUCKET_BITS = 16
MARK_BYTES = 6
_HASH_MASK = (1 << (BUCKET_BITS + 8 * MARK_BYTES)) - 1
_BUCKET_MASK = (1 << BUCKET_BITS) - 1


class RequestKeys:
    """The keys of one epoch. All methods may be called from any thread."""

    def __init__(self) -> None:
        # A bucket is never changed, only replaced: who reads it needs no lock.
        self._buckets = [b""] * (1 << BUCKET_BITS)
        self._lock = threading.Lock()
        self.is_complete = False
        """Whether the rows of earlier epochs have been learnt."""
        self.last_learnt: RequestKey | None = None

    def may_hold(self, key: RequestKey) -> bool:
        """Whether there may be a row of this key; if not, there is none."""
        if not self.is_complete:
            return True
        bucket, mark = _place(key)
        # Found across two marks it is none of ours, which costs a look-up.
        return mark in self._buckets[bucket]

    def learn(self, keys: Sequence[RequestKey], *, is_last: bool) -> None:
        """Take in the next rows of earlier epochs, in the order of their keys."""
        self.add(keys)
        if keys:
            self.last_learnt = keys[-1]
        self.is_complete = is_last

    def add(self, keys: Iterable[RequestKey]) -> None:
        """Take in keys that are about to be inserted."""
        with self._lock:
            for key in keys:
                bucket, mark = _place(key)
                self._buckets[bucket] += mark

    def discard(self, keys: Iterable[RequestKey]) -> bool:
        """Forget keys whose rows are deleted. They must have been in here when those rows still were.

        Returns:
            Whether they were. If not, a row was held to be none: any key may have one again, until all rows are learnt
            anew. What is in here stays then, for what is inserted meanwhile must not be lost.
        """
        were_held = True
        with self._lock:
            for key in keys:
                bucket, mark = _place(key)
                left = _without(self._buckets[bucket], mark)
                if left is None:
                    were_held = False
                else:
                    self._buckets[bucket] = left
            if not were_held:
                self.is_complete, self.last_learnt = False, None
        return were_held


def _place(key: RequestKey) -> tuple[int, bytes]:
    # Strings have hashes that differ from process to process: nobody can choose keys that fill one bucket.
    digest = hash(key) & _HASH_MASK
    return digest & _BUCKET_MASK, (digest >> BUCKET_BITS).to_bytes(MARK_BYTES, "little")


def _without(bucket: bytes, mark: bytes) -> bytes | None:
    for at in range(0, len(bucket), MARK_BYTES):
        if bucket[at : at + MARK_BYTES] == mark:
            return bucket[:at] + bucket[at + MARK_BYTES :]
    return None
