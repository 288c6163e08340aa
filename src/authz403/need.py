"""What the core asks for when it cannot go on without the outside; the adapters fulfil it, each in its own way."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class How(Enum):
    """How the work of a `Need` is done."""

    FUTURE = "returns a concurrent.futures.Future that another thread completes"
    BLOCKING = "may block: not to be called on an event loop"
    COROUTINE = "returns an awaitable"


class Need(Generic[T]):
    """Something from outside: do `work()` as `how` says, then call `resume` with its result or the exception it raised.

    `resume` returns the next step: another `Need`, or what was asked for. Whoever waits longer than `within` seconds
    gives up and resumes with a `TimeoutError`; `None` waits for as long as it takes.
    """

    __slots__ = ("how", "resume", "within", "work")

    def __init__(
        self,
        how: How,
        work: Callable[[], object],
        resume: Callable[[object], T | Need[T]],
        *,
        within: float | None = None,
    ) -> None:
        self.how = how
        self.work = work
        self.resume = resume
        self.within = within

    def then(self, go_on: Callable[[T], U | Need[U]]) -> Need[U]:
        """Return the same need, followed by `go_on` once it is fulfilled."""

        def resume(answer: object) -> U | Need[U]:
            step = self.resume(answer)
            if isinstance(step, Need):
                following: Need[T] = step
                return following.then(go_on)
            return go_on(step)

        return Need(self.how, self.work, resume, within=self.within)


def is_async(function: object) -> bool:
    """Tell whether calling this gives an awaitable: an async function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
