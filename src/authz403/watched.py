"""Lists that tell when they change: what was made of a router's routes is out of date from that moment on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Watch:
    """Says whether any of the lists that it stands at has changed since."""

    __slots__ = ("has_changed",)

    def __init__(self) -> None:
        self.has_changed = False


class WatchedList(list[T]):
    """A list that tells its watches of every change, at the cost of nothing where it is only read."""

    watches: tuple[Watch, ...] = ()


def watched(items: list[T], watch: Watch) -> WatchedList[T]:
    """Return the same list if it is watched already, else one with the same items, from now on told of by `watch`."""
    found = items if isinstance(items, WatchedList) else WatchedList(items)
    found.watches = (*(one for one in found.watches if not one.has_changed), watch)
    return found


def _telling(change: Callable[..., R]) -> Callable[..., R]:
    @wraps(change)
    def changed(self: WatchedList[Any], *args: object, **named: object) -> R:
        try:
            return change(self, *args, **named)
        finally:
            for watch in self.watches:
                watch.has_changed = True

    return changed


for _name in (
    *("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"),
    *("__delitem__", "__iadd__", "__imul__", "__setitem__"),
):
    setattr(WatchedList, _name, _telling(getattr(list, _name)))
