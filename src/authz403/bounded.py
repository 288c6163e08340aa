"""Memory that does not grow without end."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put(kept: dict[K, V], key: K, value: V, *, most: int) -> None:
    """Keep a value, in the place of the oldest where there are too many."""
    kept.pop(key, None)
    while len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value
