from collections.abc import Callable

import pytest

from authz403.need import How, Need


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
