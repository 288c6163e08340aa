"""Lists that tell when they change: what was made of a router's routes is out of date from that moment on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, SupportsIndex, TypeVar
from weakref import WeakSet

T = TypeVar("T")
R = TypeVar("R")


class Watch:
    """Says whether any of the lists that it stands at has changed since."""

    __slots__ = ("__weakref__", "has_changed")

    def __init__(self) -> None:
        self.has_changed = False


class WatchedList(list[T]):
    """A list that tells its watches of every change, at the cost of nothing where it is only read."""

    watches: WeakSet[Watch]
    told: Callable[[], object] | None = None

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type[list[T]], tuple[list[T]]]:
        """Make copies, pickled ones too, plain lists: what happens to them is nobody's matter."""
        del protocol
        return list, (list(self),)


def watched(items: list[T], watch: Watch, told: Callable[[], object] | None = None) -> WatchedList[T]:
    """Return the same list if it is watched already, else one with the same items, from now on told of by `watch`.

    `told` is called after each change.
    """
    found = items
    if not isinstance(found, WatchedList):
        found = WatchedList(items)
        found.watches = WeakSet()  # whoever asks no more is told no more
    found.watches.add(watch)
    found.told = told
    return found


def _telling(change: Callable[..., R]) -> Callable[..., R]:
    @wraps(change)
    def changed(self: WatchedList[Any], *args: object, **named: object) -> R:
        try:
            return change(self, *args, **named)
        finally:
            for watch in tuple(self.watches):
                watch.has_changed = True
            if self.told is not None:
                self.told()

    return changed


for _name in (
    *("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"),
    *("__delitem__", "__iadd__", "__imul__", "__setitem__"),
):
    setattr(WatchedList, _name, _telling(getattr(list, _name)))
