import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from fastapi import APIRouter, FastAPI
from flask import Blueprint, Flask
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from authz403 import ConfigurationError, Decision, Gate, Requirement, anyone, guard, public, requires, roles, scopes
from authz403.endpoint import Endpoint, Found, RulesAlone
from authz403.marks import guards_of, marks_of
from authz403.request import AccessRequest
from tests.gates_made import Callers, fulfilled, someone

BOB: Final = someone("bob")


def decided(endpoint: object) -> Decision:
    """Return what a gate without rules decides about Bob's request for an endpoint that the app would run."""

    class Routes(RulesAlone):
        def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
            return Found(Endpoint("/", "endpoint", marks_of(endpoint))), {}

    return fulfilled(Gate(tokens=Callers(BOB)).decide(AccessRequest("GET", "/"), Routes())).decision


def required_of(endpoint: object) -> set[str]:
    """Return the requirements that an endpoint is marked with, in words."""
    return {repr(mark.requirement) for mark in marks_of(endpoint)}


def plain(a: int, b: str = "x") -> str:
    """Answer."""
    return b * a


async def later(a: int) -> int:
    """Answer later."""
    return a


class View:
    async def get(self, request: object) -> str:
        return "got"

    @staticmethod
    def static() -> str:
        return "static"

    def __call__(self) -> str:
        return "called"


@pytest.mark.parametrize("marked", [plain, later, View, View.get], ids=["function", "async", "class", "method"])
def test_requires_returns_the_very_same_object(marked: Callable[..., object]) -> None:
    """A mark is no wrapper: identity, signature, name and behaviour stay, and so does what the framework sees."""
    before = inspect.signature(marked)
    assert requires(scopes("identity:test"))(marked) is marked
    assert public(marked) is marked
    assert inspect.signature(marked) == before
    assert plain(2, "y") == "yy"


def test_an_unmarked_endpoint_has_no_marks() -> None:
    """Nothing is marked that nobody marked."""

    def endpoint() -> None: ...

    for unmarked in (endpoint, functools.partial(endpoint), type("Bare", (), {}), object(), None, 5, print):
        assert marks_of(unmarked) == ()
        assert guards_of(unmarked) == ()


def test_all_marks_hold() -> None:
    """Any number of `requires`, each with any number of requirements: one that is not met refuses."""

    @requires(scopes("a"))
    @requires(scopes("b"), roles("c"))
    @public
    def endpoint() -> None: ...

    assert required_of(endpoint) == {"scopes('a')", "scopes('b') & roles('c')", "anyone"}
    decision = decided(endpoint)
    assert (decision.reason, set(decision.missing_scopes)) == ("insufficient_scope", {"a", "b"})


def test_public_opens_an_endpoint_to_anyone() -> None:
    """`public` is `requires(anyone)`; without any mark the default denies."""

    @public
    def endpoint() -> None: ...

    def unmarked() -> None: ...

    assert decided(endpoint).allowed
    assert required_of(endpoint) == {repr(anyone)}
    assert decided(unmarked).reason == "no_policy"


def test_marks_of_one_endpoint_are_not_those_of_another() -> None:
    """A decorator used twice marks each endpoint on its own, and methods do not share marks with their class."""
    mark = requires(scopes("a"))

    @mark
    def first() -> None: ...

    @mark
    @requires(scopes("b"))
    def second() -> None: ...

    class Resource:
        @requires(scopes("d"))
        def delete(self) -> None: ...

        def get(self) -> None: ...

    assert required_of(first) == {"scopes('a')"}
    assert required_of(second) == {"scopes('a')", "scopes('b')"}
    assert required_of(Resource) == required_of(Resource.get) == set()
    assert required_of(Resource.delete) == required_of(Resource().delete) == {"scopes('d')"}


def test_a_class_has_the_marks_of_its_bases_and_no_others() -> None:
    """A subclass of a protected endpoint is protected, and marking it does not mark its base or its siblings."""

    @requires(scopes("base"))
    class Base: ...

    @requires(scopes("child"))
    class Child(Base): ...

    class Sibling(Base): ...

    assert required_of(Child) == {"scopes('base')", "scopes('child')"}
    assert required_of(Sibling) == required_of(Base) == {"scopes('base')"}


def test_objects_have_the_marks_of_their_class() -> None:
    """A callable object as an endpoint is protected by its own mark and that of its class."""

    @requires(scopes("class"))
    class Endpoint:
        def __call__(self) -> None: ...

    endpoint = Endpoint()
    assert required_of(endpoint) == {"scopes('class')"}
    requires(scopes("object"))(endpoint)
    assert required_of(endpoint) == {"scopes('class')", "scopes('object')"}
    assert required_of(Endpoint()) == {"scopes('class')"}


def test_marks_are_found_through_partials_and_wrappers() -> None:
    """`functools.partial` and `functools.wraps`, nested, keep every mark; each counts once."""

    @requires(scopes("inner"))
    def inner(a: int) -> int:
        return a

    @requires(scopes("outer"))
    @functools.wraps(inner)
    def outer(a: int) -> int:
        return inner(a)

    partial = functools.partial(functools.partial(outer, 1))
    requires(scopes("partial"))(partial)
    assert required_of(outer) == {"scopes('inner')", "scopes('outer')"}
    assert required_of(partial) == {"scopes('inner')", "scopes('outer')", "scopes('partial')"}
    assert len(marks_of(partial)) == 3
    assert required_of(inner) == {"scopes('inner')"}


def test_a_wrapper_that_hides_its_attributes_still_shows_the_marks_of_what_it_wraps() -> None:
    """A decorator that sets nothing but `__wrapped__` does not unprotect its endpoint."""

    @requires(scopes("inner"))
    def inner() -> None: ...

    class Wrapper:
        __slots__ = ("__wrapped__",)

        def __init__(self) -> None:
            self.__wrapped__ = inner

    assert required_of(Wrapper()) == {"scopes('inner')"}


def test_a_wrapper_of_itself_is_looked_at_once() -> None:
    """A cycle of wrappers ends."""

    @requires(scopes("a"))
    def one() -> None: ...

    def other() -> None: ...

    one.__wrapped__ = other  # type: ignore[attr-defined]
    other.__wrapped__ = one  # type: ignore[attr-defined]
    assert required_of(other) == {"scopes('a')"}


def test_a_mark_says_where_it_was_written() -> None:
    """File and line lead the reader of a coverage table to the policy."""
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    mark = requires(scopes("a"))

    @mark
    def endpoint() -> None: ...

    (found,) = marks_of(endpoint)
    assert found.where == f"{__file__}:{line}"


class Slotted:
    __slots__ = ()

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("marked", "part"),
    [
        pytest.param(print, "requires", id="a builtin"),
        pytest.param(View().get, "requires", id="a bound method"),
        pytest.param(Slotted(), "requires", id="an object with slots"),
        pytest.param(int, "requires", id="a builtin class"),
        pytest.param(None, "requires", id="nothing"),
    ],
)
def test_what_cannot_be_marked_says_so(marked: Any, part: str) -> None:  # noqa: ANN401 - any object
    """A mark that would be lost raises instead."""
    with pytest.raises(ConfigurationError, match="cannot be marked") as caught:
        requires(scopes("a"))(marked)
    assert caught.value.part == part


def test_requires_needs_a_requirement() -> None:
    """`@requires()` and `@requires` without its call protect nothing, so they raise."""
    with pytest.raises(ConfigurationError, match="say what is required"):
        requires()
    for wrong in ("orders:write", None, True, plain, [scopes("a")]):
        with pytest.raises(ConfigurationError, match="a requirement is needed"):
            requires(wrong)  # type: ignore[arg-type]


class Group:
    """A Mount, a mounted app, a router: whatever holds endpoints."""


def test_guard_marks_a_group_and_returns_the_very_same_object() -> None:
    """Several guards hold together, and a group's guards are no endpoint marks."""
    group = Group()
    assert guard(group, scopes("a")) is group
    assert guard(group, roles("b")) is group
    assert [repr(mark.requirement) for mark in guards_of(group)] == ["scopes('a')", "roles('b')"]
    assert guards_of(group)[0].where.startswith(f"{__file__}:")
    assert marks_of(group) == ()
    assert guards_of(Group()) == ()


def test_guard_needs_a_requirement_and_something_to_mark() -> None:
    """A missing requirement or a group that cannot hold a mark raises."""
    with pytest.raises(ConfigurationError, match="a requirement is needed"):
        guard(Group(), "admin")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="guard takes a Mount") as caught:
        guard(Slotted(), scopes("a"))
    assert caught.value.part == "guard"


def test_guard_refuses_a_router_that_dissolves_when_it_is_included() -> None:
    """A guard on a FastAPI `APIRouter` would be lost without a word; the error names the way that works."""
    fastapi = pytest.importorskip("fastapi")
    with pytest.raises(ConfigurationError, match="dependencies=\\[needs"):
        guard(fastapi.APIRouter(), scopes("a"))
    app = fastapi.FastAPI()
    assert guard(app, scopes("a")) is app


@pytest.mark.parametrize("wanted", [scopes("a").concealed(), scopes("a") | roles("b"), ~roles("evil")], ids=repr)
def test_a_mark_holds_its_requirement_as_written(wanted: Requirement) -> None:
    """Combined and concealed requirements are marked like simple ones."""

    @requires(wanted)
    def endpoint() -> None: ...

    assert required_of(endpoint) == {repr(wanted)}


@pytest.mark.parametrize(
    "place",
    [
        *(Mount("/m", routes=[]), Route("/r", lambda _: None), Starlette(), FastAPI(), APIRouter()),
        *(Flask("shop"), Blueprint("orders", "shop")),
    ],
    ids=["Mount", "Route", "Starlette", "FastAPI", "APIRouter", "Flask", "Blueprint"],
)
def test_requires_on_what_is_no_endpoint_is_a_mistake(place: object) -> None:
    """Nobody would ever read such a mark, so that it is told where it is written."""
    with pytest.raises(ConfigurationError, match="is no endpoint"):
        requires(roles("admin"))(place)
