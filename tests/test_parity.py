"""A client cannot tell which framework refused it, nor an operator whose log it is: one table, by every kind of app."""

import functools
from typing import Final

import pytest

from tests.parity_cases import CASES
from tests.parity_made import MODELS, Seen, Written, ask

WRITTEN: Final[tuple[Written, ...]] = ("marks", "rules")


@functools.cache
def expected_of(model: str, name: str, written: Written) -> Seen:
    """Return what the model answers, which several kinds of apps are held to."""
    return ask(model, CASES[name], written)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("kind", "written"),
    [(kind, written) for kind in MODELS for written in (WRITTEN if MODELS[kind] == "starlette" else ("rules",))],
)
def test_an_answer_and_its_event_are_the_same_by_every_kind_of_app(kind: str, written: Written, name: str) -> None:
    """Status, headers, body and event of WSGI are those of ASGI, but for what the docs list."""
    case = CASES[name]
    expected, found = expected_of(MODELS[kind], name, written), ask(kind, case, written)
    if kind in case.elsewhere:
        assert found != expected, "there is no difference any more: take it from the table and the docs"
    else:
        assert found == expected
