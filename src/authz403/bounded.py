"""Memory that does not grow without end."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put(kept: OrderedDict[K, V], key: K, value: V, *, most: int) -> None:
    """Keep a value, in the place of the oldest where there are too many."""
    kept.pop(key, None)
    while len(kept) >= most:
        # A plain dict would look for its first entry among all that were deleted before.
        kept.popitem(last=False)
    kept[key] = value
