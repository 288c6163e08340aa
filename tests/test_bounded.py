import threading
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.bounded import remember


def test_the_oldest_makes_room() -> None:
    """Beyond the most that are kept, what was put first goes first."""
    kept: OrderedDict[str, int] = OrderedDict()
    for number, key in enumerate("abcd"):
        remember(kept, key, number, most=3)
    assert kept == {"b": 1, "c": 2, "d": 3}


def test_a_value_that_is_put_again_is_the_newest() -> None:
    """It takes the place of its older value, pushes nobody out and is the last to go."""
    kept: OrderedDict[str, int] = OrderedDict()
    for number, key in enumerate("abcb"):
        remember(kept, key, number, most=3)
    assert kept == {"a": 0, "c": 2, "b": 3}
    remember(kept, "d", 4, most=2)
    assert kept == {"b": 3, "d": 4}


def test_one_place_holds_the_last_value() -> None:
    """The smallest memory is one."""
    kept: OrderedDict[str, int] = OrderedDict()
    for number, key in enumerate("abca"):
        remember(kept, key, number, most=1)
        assert kept == {key: number}


@pytest.mark.parametrize("most", [1, 2, 5])
def test_what_is_over_the_limit_already_is_brought_under_it(most: int) -> None:
    """A memory that was allowed more before shrinks with the next value."""
    kept = OrderedDict.fromkeys(range(10), "old")
    remember(kept, 99, "new", most=most)
    assert len(kept) <= most
    assert kept[99] == "new"


@given(keys=st.lists(st.integers(0, 30)), most=st.integers(1, 10))
def test_a_memory_never_outgrows_its_limit(keys: list[int], most: int) -> None:
    """Whatever is put in whatever order: the newest value is there, and what is there is what was put last."""
    kept: OrderedDict[int, int] = OrderedDict()
    for number, key in enumerate(keys):
        remember(kept, key, number, most=most)
        assert len(kept) <= most
        assert kept[key] == number
    last = {key: number for number, key in enumerate(keys)}
    assert kept == {key: last[key] for key in kept}


def test_readers_need_no_lock() -> None:
    """While one thread puts, others look up: they find the right value or none."""
    kept: OrderedDict[int, int] = OrderedDict()
    over = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not over.is_set():
            for key in range(50):
                found = kept.get(key)
                if found is not None and found % 50 != key:
                    wrong.append((key, found))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for number in range(20_000):
            remember(kept, number % 50, number, most=10)
    finally:
        over.set()
    for reader in readers:
        reader.join(10)
    assert wrong == []
