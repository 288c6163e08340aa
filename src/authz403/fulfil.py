"""What a decision needs from outside, fulfilled: by awaiting on an event loop, or by blocking where there is none.

Each work is written once; the two drivers differ in how they wait for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, Final, TypeVar

from authz403.need import How, Need

T = TypeVar("T")

_MOST_BLOCKED: Final = 64  # threads that do what a request waits for
_ASK_AGAIN: Final = 0.01  # seconds
_blocked = BoundedSemaphore(_MOST_BLOCKED)


async def fulfilled(need: Need[T]) -> object:
    """Do what a need asks for, without blocking the event loop; an exception is an answer too."""
    try:
        async with asyncio.timeout(need.within):
            if need.how is How.COROUTINE:
                return await need.work()  # type: ignore[misc]  # a coroutine by its How
            if need.how is How.BLOCKING:
                return await _in_thread(need.work)
            future: Future[object] = need.work()  # type: ignore[assignment]  # by its How
            return await asyncio.wrap_future(future)
    except Exception as error:  # noqa: BLE001 - the core decides what a failure means
        return error


async def _in_thread(work: Callable[[], object]) -> object:
    """Do blocking work in a thread of its own: one that hangs holds up neither the app's threads nor its end."""
    threads = _blocked
    while not threads.acquire(blocking=False):  # noqa: ASYNC110 - a thread that ends can tell no event loop of it
        await asyncio.sleep(_ASK_AGAIN)
    answer: Future[object] = Future()
    answer.set_running_or_notify_cancel()  # whoever waits may give up; the work goes on
    context = contextvars.copy_context()

    def run() -> None:
        try:
            answer.set_result(context.run(work))
        except Exception as error:  # noqa: BLE001 - the core decides what a failure means
            answer.set_result(error)
        finally:
            threads.release()

    try:
        Thread(target=run, name="authz403-need", daemon=True).start()
    except RuntimeError:
        threads.release()
        raise
    return await asyncio.wrap_future(answer)


def fulfilled_blocking(need: Need[T]) -> object:
    """Do what a need asks for in this thread, which may wait; an exception is an answer too.

    What blocks is called plainly, so that it finds what is bound to its thread, such as a database connection. Nobody
    can interrupt it, and `within` does not end it.
    """
    try:
        if need.how is How.BLOCKING:
            return need.work()
        if need.how is How.FUTURE:
            future: Future[object] = need.work()  # type: ignore[assignment]  # by its How
            return future.result(need.within)
        return _on_loop(need.work, need.within)
    except Exception as error:  # noqa: BLE001 - the core decides what a failure means
        return error


def settled(step: T | Need[T]) -> T:
    """Return what is at the end of a way, having fulfilled in this thread whatever it needs."""
    while isinstance(step, Need):
        step = step.resume(fulfilled_blocking(step))
    return step


class _Loop:
    """An event loop in a thread of its own: what is bound to a loop, such as a client's connections, finds it again."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        Thread(target=self.loop.run_forever, name="authz403-loop", daemon=True).start()


_loop: _Loop | None = None
_loop_lock = Lock()


def _on_loop(work: Callable[[], object], within: float | None) -> object:
    """Await what an async function of the user's gives, on the loop that all threads of this process share."""
    global _loop  # noqa: PLW0603 - one a process: a fork takes no thread along
    if _loop is None or _loop.process != os.getpid():
        with _loop_lock:
            if _loop is None or _loop.process != os.getpid():
                _loop = _Loop()

    async def awaited() -> object:
        return await work()  # type: ignore[misc]  # an awaitable by its How

    made: Coroutine[Any, Any, object] = awaited()
    future = asyncio.run_coroutine_threadsafe(made, _loop.loop)
    try:
        return future.result(within)
    finally:
        future.cancel()  # whoever gives up waits for it no more; what is done stays done
