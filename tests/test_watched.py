"""Lists that tell when they change."""

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from authz403.watched import Watch, watched

CHANGES: dict[str, Callable[[Any], object]] = {
    "append": lambda items: items.append(4),
    "extend": lambda items: items.extend([4]),
    "insert": lambda items: items.insert(0, 4),
    "remove": lambda items: items.remove(1),
    "pop": lambda items: items.pop(),
    "clear": lambda items: items.clear(),
    "sort": lambda items: items.sort(),
    "reverse": lambda items: items.reverse(),
    "an item": lambda items: items.__setitem__(0, 4),
    "a slice": lambda items: items.__setitem__(slice(0, 1), [4]),
    "del": lambda items: items.__delitem__(0),
    "+=": lambda items: items.__iadd__([4]),
    "*=": lambda items: items.__imul__(2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_told_to_every_watch(change: Callable[[Any], object]) -> None:
    """And does what it does on any list."""
    plain, one, two = [3, 1, 2], Watch(), Watch()
    items = watched([3, 1, 2], one)
    assert watched(items, two) is items
    assert not one.has_changed
    change(plain)
    change(items)
    assert items == plain
    assert one.has_changed
    assert two.has_changed


def test_a_change_that_fails_is_told_too() -> None:
    """Part of it may have happened."""
    watch = Watch()
    items = watched([1], watch)
    with pytest.raises(ValueError, match="not in list"):
        items.remove(2)
    assert watch.has_changed


def test_reading_tells_nothing() -> None:
    """A list that is read, copied or compared is as it was."""
    watch = Watch()
    items = watched([3, 1], watch)
    assert (list(items), items[0], [*items, 2], sorted(items), 1 in items) == ([3, 1], 3, [3, 1, 2], [1, 3], True)
    assert (copy.copy(items), copy.deepcopy(items), items == [3, 1]) == ([3, 1], [3, 1], True)
    assert not watch.has_changed


def test_a_copy_is_a_list_of_its_own() -> None:
    """What happens to it is nobody's matter."""
    watch = Watch()
    items = watched([1], watch)
    for copied in (items.copy(), copy.copy(items), copy.deepcopy(items), pickle.loads(pickle.dumps(items)), items[:]):  # noqa: S301 - our own
        copied.append(2)
        assert copied == [1, 2]
    assert not watch.has_changed


def test_whoever_asks_no_more_is_forgotten() -> None:
    """An app whose routes are walked again and again keeps no trace of it."""
    items = watched([1], Watch())
    for _ in range(100):
        watched(items, Watch())
    gc.collect()
    assert len(items.watches) == 0
