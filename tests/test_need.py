import asyncio
import contextvars
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final

import pytest

from authz403 import fulfil
from authz403.need import How, Need, is_async


def asked(answer_is: Callable[[object], str | Need[str]] = str, how: How = How.BLOCKING) -> Need[str]:
    """Return a need whose work gives 7 and whose answer is made by `answer_is`."""
    return Need(how, lambda: 7, answer_is)


def fulfilled(step: str | Need[str]) -> str:
    """Do as an adapter does: fulfil one need after the other."""
    while isinstance(step, Need):
        step = step.resume(step.work())
    return step


def test_a_need_goes_on_with_what_its_work_returned() -> None:
    """The result of the work, given to `resume`, makes the answer."""
    need = asked()
    assert need.resume(need.work()) == "7"


@pytest.mark.parametrize("how", list(How))
def test_what_follows_a_need_keeps_its_work_and_how_it_is_done(how: How) -> None:
    """`then` changes what comes after the work, not the work."""
    need = asked(how=how).then(lambda answer: answer + "!")
    assert need.how is how
    assert need.work() == 7
    assert need.resume(7) == "7!"


def test_what_follows_waits_for_the_last_of_several_needs() -> None:
    """Where a need leads to another, `then` runs once, after the last."""
    second = Need[str](How.COROUTINE, lambda: 8, lambda answer: f"second {answer}")
    seen: list[str] = []

    def last(answer: str) -> str:
        seen.append(answer)
        return answer.upper()

    following = asked(lambda _: second).then(last).resume(7)
    assert isinstance(following, Need)
    assert following.how is How.COROUTINE
    assert seen == []
    assert fulfilled(following) == "SECOND 8"
    assert seen == ["second 8"]


def test_what_follows_a_need_may_be_a_need() -> None:
    """`then` may ask for something itself, and so on."""

    def again(answer: str) -> Need[str]:
        return asked(lambda more: f"{answer} and {more}")

    need: Need[str] = asked().then(again)
    assert fulfilled(need.then(lambda both: f"({both})")) == "(7 and 7)"


def test_an_exception_of_the_work_reaches_resume_as_a_value() -> None:
    """`resume` gets the exception that the work raised and makes an answer of it."""
    need = asked(lambda answer: type(answer).__name__).then(str.lower)
    assert need.resume(OSError("no route")) == "oserror"


@pytest.mark.parametrize("within", [None, 0.5, 7.0])
def test_what_follows_a_need_keeps_its_time_limit(within: float | None) -> None:
    """`then`, once or twice over, waits no longer and no shorter; a following need brings its own limit."""
    second = Need[str](How.COROUTINE, lambda: 8, str, within=3.0)
    need = Need[str](How.BLOCKING, lambda: 7, lambda _: second, within=within)
    following = need.then(str.upper).then(str.lower)
    assert following.within == within
    last = following.resume(7)
    assert isinstance(last, Need)
    assert last.within == 3.0


def test_a_need_has_no_time_limit_unless_it_says_so() -> None:
    """Some waiting has no end that could be known here."""
    assert asked().within is None
    assert asked().then(str.upper).within is None


def plain(principal: object) -> list[str]:
    """Return roles."""
    return []


async def later(principal: object) -> list[str]:
    """Return roles, later."""
    return []


@pytest.mark.parametrize(
    ("function", "expected"),
    [(plain, False), (later, True), (None, False), (5, False)],
    ids=["plain", "async", "none", "5"],
)
def test_async_functions_are_told_from_plain_ones(function: object, *, expected: bool) -> None:
    """What is no function is not async either."""
    assert is_async(function) is expected


# How ASGI fulfils a need


SOON: Final = 0.01  # seconds


class Work:
    """The work of each kind of need, which hangs until it is let go and then gives 7."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.future: Future[object] = Future()
        self.future.set_running_or_notify_cancel()
        self.cancelled = False

    def blocking(self) -> object:
        """Block this thread."""
        assert self.let_go.wait(10)
        return 7

    async def coroutine(self) -> object:
        """Wait for what never comes."""
        try:
            return await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    def need(self, how: How, within: float | None) -> Need[Any]:
        """Return a need of this kind."""
        work: dict[How, Callable[[], object]] = {
            How.BLOCKING: self.blocking,
            How.COROUTINE: self.coroutine,
            How.FUTURE: lambda: self.future,
        }
        return Need(how, work[how], lambda answer: answer, within=within)

    def run(self, test: Callable[[], Awaitable[None]]) -> None:
        """Run a test; whatever still hangs is then let go."""

        async def whole() -> None:
            try:
                await test()
            finally:
                self.let_go.set()

        asyncio.run(whole())


@pytest.mark.parametrize("how", list(How))
def test_whoever_waits_gives_up_in_time(how: How) -> None:
    """Each kind of need ends with a TimeoutError; a coroutine is cancelled, a future left to those who still wait."""
    work = Work()

    async def test() -> None:
        async with asyncio.timeout(10):
            assert isinstance(await fulfil.fulfilled(work.need(how, SOON)), TimeoutError)
        assert work.cancelled is (how is How.COROUTINE)

    work.run(test)
    assert not work.future.cancelled()
    work.future.set_result(7)


@pytest.mark.parametrize("within", [None, 60.0], ids=["no limit", "a minute"])
@pytest.mark.parametrize("how", list(How))
def test_what_comes_in_time_is_the_answer(how: How, within: float | None) -> None:
    """With and without a limit, the result of the work is what there is to resume with."""
    future: Future[object] = Future()
    future.set_result(7)

    async def at_once() -> object:
        return 7

    work: dict[How, Callable[[], object]] = {
        How.BLOCKING: lambda: 7,
        How.COROUTINE: at_once,
        How.FUTURE: lambda: future,
    }
    need: Need[Any] = Need(how, work[how], lambda answer: answer, within=within)
    assert asyncio.run(fulfil.fulfilled(need)) == 7


@pytest.mark.parametrize("how", list(How))
@pytest.mark.parametrize("error", [TimeoutError("its own"), OSError("down")], ids=repr)
def test_what_the_work_raises_is_an_answer(how: How, error: Exception) -> None:
    """An exception is what there is to resume with, a TimeoutError of the work's own too."""
    future: Future[object] = Future()
    future.set_exception(error)

    def fails() -> object:
        raise error

    async def fails_later() -> object:
        raise error

    work: dict[How, Callable[[], object]] = {
        How.BLOCKING: fails,
        How.COROUTINE: fails_later,
        How.FUTURE: lambda: future,
    }
    need: Need[Any] = Need(how, work[how], lambda answer: answer, within=60.0)
    answer = asyncio.run(fulfil.fulfilled(need))
    assert type(answer) is type(error)
    assert str(answer) == str(error)


@pytest.mark.parametrize("how", list(How))
def test_one_who_is_cancelled_while_waiting_is_cancelled(how: How) -> None:
    """A request that ends is not taken for a time-out, and the work of a coroutine ends with it."""
    work = Work()

    async def test() -> None:
        waiting = asyncio.ensure_future(fulfil.fulfilled(work.need(how, 60.0)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert work.cancelled is (how is How.COROUTINE)

    work.run(test)
    assert not work.future.cancelled()


def test_blocking_work_sees_the_context_of_its_request() -> None:
    """Request ids and traces that hosts keep in context variables reach a look-up in its thread."""
    request_id = contextvars.ContextVar("request_id", default="none")
    need: Need[Any] = Need(How.BLOCKING, request_id.get, lambda answer: answer)

    async def test() -> None:
        request_id.set("r-1")
        assert await fulfil.fulfilled(need) == "r-1"

    asyncio.run(test())


def test_who_finds_no_thread_free_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of look-ups is served one after the other, as many at a time as there are threads."""
    monkeypatch.setattr(fulfil, "_blocked", threading.BoundedSemaphore(2))
    at_once, most = threading.Semaphore(0), []

    def work() -> object:
        at_once.release()
        most.append(at_once._value)
        at_once.acquire()
        return "done"

    async def burst() -> list[object]:
        needs = [Need(How.BLOCKING, work, str, within=10.0) for _ in range(20)]
        return await asyncio.gather(*(fulfil.fulfilled(need) for need in needs))

    assert asyncio.run(burst()) == ["done"] * 20
    assert max(most) <= 2


def test_who_finds_no_thread_free_in_time_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """While all threads hang, nobody waits longer than the need says."""
    monkeypatch.setattr(fulfil, "_blocked", threading.BoundedSemaphore(1))
    over = threading.Event()

    async def story() -> object:
        hanging = asyncio.ensure_future(fulfil.fulfilled(Need(How.BLOCKING, over.wait, str, within=10.0)))
        await asyncio.sleep(0)
        answer = await fulfil.fulfilled(Need(How.BLOCKING, lambda: 7, str, within=0.05))
        over.set()
        await hanging
        return answer

    assert isinstance(asyncio.run(story()), TimeoutError)


# ---- by blocking, where there is no event loop


def of(how: How, give: Callable[[], object], within: float | None = None) -> Need[object]:
    """Return a need whose work gives what `give` returns or raises, in the way that its How says."""

    def future() -> Future[object]:
        made: Future[object] = Future()
        threading.Timer(0.01, lambda: _complete(made, give)).start()
        return made

    async def coroutine() -> object:
        await asyncio.sleep(0.01)
        return give()

    work: dict[How, Callable[[], object]] = {How.BLOCKING: give, How.FUTURE: future, How.COROUTINE: coroutine}
    return Need(how, work[how], lambda answer: answer, within=within)


def _complete(made: Future[object], give: Callable[[], object]) -> None:
    try:
        made.set_result(give())
    except LookupError as error:
        made.set_exception(error)


def failing() -> object:
    """Raise."""
    raise LookupError("not there")


@pytest.mark.parametrize("how", list(How))
def test_a_thread_may_wait_for_what_is_needed(how: How) -> None:
    """What was given is the answer, and what was raised is one too."""
    assert fulfil.fulfilled_blocking(of(how, lambda: 7)) == 7
    assert isinstance(fulfil.fulfilled_blocking(of(how, failing)), LookupError)


def test_a_thread_gives_up_in_time() -> None:
    """A future and a coroutine that come too late are a TimeoutError; the coroutine is told to stop."""
    stopped = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    for need in (
        Need[object](How.FUTURE, Future, lambda answer: answer, within=0.01),
        Need[object](How.COROUTINE, forever, lambda answer: answer, within=0.01),
    ):
        assert isinstance(fulfil.fulfilled_blocking(need), TimeoutError)
    assert stopped.wait(5)


def test_blocking_work_is_done_in_the_thread_that_asks() -> None:
    """So that it finds what is bound to its thread, such as a connection to a database."""
    asking = threading.current_thread()
    assert fulfil.fulfilled_blocking(of(How.BLOCKING, threading.current_thread)) is asking


def test_all_threads_share_one_event_loop() -> None:
    """What is bound to a loop, such as a client's connections, finds it again."""
    loops: set[object] = set()

    def ask() -> None:
        loops.add(fulfil.fulfilled_blocking(of(How.COROUTINE, asyncio.get_running_loop)))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_a_loop_of_its_own() -> None:
    """A fork takes no thread along, as with gunicorn's workers after `--preload`."""
    assert fulfil.fulfilled_blocking(of(How.COROUTINE, lambda: 7)) == 7
    child = os.fork()
    if child == 0:
        answer = fulfil.fulfilled_blocking(of(How.COROUTINE, lambda: 8, within=5))
        os._exit(0 if answer == 8 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
