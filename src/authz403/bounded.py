"""Memory that does not grow without end."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remember(kept: OrderedDict[K, V], key: K, value: V, *, most: int) -> None:
    """Keep a value, in the place of the oldest where there are too many. Not thread-safe: the caller holds the lock."""
    kept.pop(key, None)
    while len(kept) >= most:
        # Not a plain dict: to find its first entry, that would walk over all that were deleted.
        kept.popitem(last=False)
    kept[key] = value
