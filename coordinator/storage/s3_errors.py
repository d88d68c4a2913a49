"""What obstore raises, told as a disk would tell it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError


@contextmanager
def translated() -> Iterator[None]:
    """Turn what obstore raises into OSError.

    Raises:
        OSError: With what obstore said, on one line.
    """
    try:
        yield
    except (BaseError, ValueError) as error:
        raise OSError(" ".join(str(error).split())) from error
