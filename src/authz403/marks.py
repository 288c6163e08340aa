"""Marks: policies written where the code is. A mark changes nothing about what it marks."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

from authz403.errors import ConfigurationError, Mistake
from authz403.policy import Requirement, all_of, anyone, as_requirement
from authz403.request import WEBSOCKET

Marked = TypeVar("Marked")

_MARKS: Final = "__authz403_marks__"
_GUARDS: Final = "__authz403_guards__"
NEED: Final = "__authz403_need__"
"""The attribute by which a FastAPI dependency made by `needs` carries its requirement."""

_ENTRIES: Final = ("__call__", "__init__", "__await__", "dispatch")
"""The methods by which a class-based endpoint is entered, whatever the method of the request."""

_OF_GROUPS: Final = ("matches", "routes", "add_url_rule")
"""What routes, routers and apps have: the last one, those of Flask."""

TAKES_IDENTITY: Final = "__authz403_takes_identity__"
"""The attribute of the FastAPI dependency that hands the principal to an endpoint."""


_WEBSOCKET_METHODS: Final = frozenset({"on_connect", "on_receive", "on_disconnect"})


class _Written:
    """Counts the marks that were written, which stand on objects of others."""

    count = 0


WRITTEN: Final = _Written()
"""What was made of marks before is out of date when its `count` grows."""


class Mark(NamedTuple):
    """A requirement and where it was written, as `file:line`."""

    requirement: Requirement
    where: str


def requires(*requirements: Requirement) -> Callable[[Marked], Marked]:
    """Mark an endpoint: all `requirements` must hold before it runs. Returns the very same function or class.

    Marks functions, methods, class-based endpoints (the class, or its methods one by one) and WebSocket endpoints, any
    number of times; all hold. A mark is enforced by the gate that the app stands behind; alone it does nothing.
    """
    if not requirements:
        raise ConfigurationError(
            "requires", [Mistake("requirements", "[]", "say what is required; write public for anyone")]
        )
    mark = Mark(all_of(as_requirement("requires", "requirements", one) for one in requirements), _caller())

    def set_mark(marked: Marked) -> Marked:
        _add_mark(marked, mark, "requires")
        return marked

    return set_mark


def public(marked: Marked) -> Marked:
    """Mark an endpoint as open to anyone: `requires(anyone)`. It opens nothing that a rule or a guard closes."""
    _add_mark(marked, Mark(anyone, _caller()), "public")
    return marked


def guard(group: Marked, requirement: Requirement) -> Marked:
    """Mark a group: everything in it needs `requirement`. Returns the very same object.

    A group is a Mount, a router or a mounted app of Starlette, or a blueprint or an app of Flask. A FastAPI `APIRouter`
    that is included cannot be marked so: give it `dependencies=[needs(requirement)]`.
    """
    found = as_requirement("guard", "requirement", requirement)
    if hasattr(group, "include_router") and hasattr(group, "add_api_route") and not hasattr(group, "router"):
        why = "an APIRouter is dissolved when it is included; write dependencies=[needs(...)] instead"
        raise ConfigurationError("guard", [Mistake("group", type(group).__name__, why)])
    # An app is entered by its router, which a middleware inside the app can see.
    router = getattr(group, "router", None)
    if not _append(router if hasattr(router, "routes") else group, _GUARDS, Mark(found, _caller())):
        why = "guard takes a Mount, an app, a router or a blueprint; for an endpoint write @requires(...)"
        raise ConfigurationError("guard", [Mistake("group", repr(group), why)])
    return group


def unwrapped(endpoint: object) -> Iterator[object]:
    """Yield an endpoint and what it wraps: through partials and `functools.wraps`."""
    seen: set[int] = set()
    while endpoint is not None and id(endpoint) not in seen:
        seen.add(id(endpoint))
        yield endpoint
        endpoint = endpoint.func if isinstance(endpoint, functools.partial) else getattr(endpoint, "__wrapped__", None)


def marks_of(endpoint: object) -> tuple[Mark, ...]:
    """Return all marks of an endpoint: through partials and wrappers, and of its class with the bases of that."""
    found: dict[int, Mark] = {}
    for layer in unwrapped(endpoint):
        holders: list[object] = [layer, getattr(layer, "__func__", None)]
        if isinstance(layer, type) or not callable(getattr(layer, "__get__", None)):
            kind = layer if isinstance(layer, type) else type(layer)
            holders += [*kind.__mro__, *(getattr(kind, name, None) for name in _ENTRIES)]
        for holder in holders:
            for mark in getattr(holder, "__dict__", {}).get(_MARKS, ()):
                found[id(mark)] = mark
    return tuple(found.values())


def marks_by_method(endpoint: object) -> dict[str, tuple[Mark, ...]]:
    """Return the marks on the methods of a class-based endpoint, by the HTTP method that calls each."""
    found: dict[str, tuple[Mark, ...]] = {}
    for layer in unwrapped(endpoint):
        for name in dir(layer) if isinstance(layer, type) else ():
            marks = () if name in _ENTRIES or name.startswith("__") else marks_of(getattr(layer, name, None))
            if marks:
                method = WEBSOCKET if name in _WEBSOCKET_METHODS else name.upper()
                found[method] = (*found.get(method, ()), *marks)
    if "GET" in found:
        # RFC 9110 section 9.3.2: HEAD is GET without the content, whatever a class answers it with.
        found["HEAD"] = (*found.get("HEAD", ()), *found["GET"])
    return found


def guards_of(group: object) -> tuple[Mark, ...]:
    """Return the guards of a Mount, app or router."""
    found: tuple[Mark, ...] = getattr(group, "__dict__", {}).get(_GUARDS, ())
    return found


def name_of(function: object) -> str:
    """Return the name of a function or class, or of the class of what has none."""
    for layer in unwrapped(function):
        name = getattr(layer, "__name__", None)
        if isinstance(name, str):
            return name
    return type(function).__name__


def distinct(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Return marks in order, each once."""
    return tuple({id(mark): mark for mark in marks}.values())


def _add_mark(endpoint: object, mark: Mark, part: str) -> None:
    if not isinstance(endpoint, type) and any(hasattr(endpoint, name) for name in _OF_GROUPS):
        why = (
            "a route, router, blueprint or app is no endpoint; mark the function, or write guard(...) or "
            "dependencies=[needs(...)]"
        )
        raise ConfigurationError(part, [Mistake("endpoint", repr(endpoint), why)])
    if not _append(endpoint, _MARKS, mark):
        why = "this object cannot be marked; mark the function itself, or write a Rule"
        raise ConfigurationError(part, [Mistake("endpoint", repr(endpoint), why)])


def _append(holder: object, attribute: str, mark: Mark) -> bool:
    before: tuple[Mark, ...] = getattr(holder, "__dict__", {}).get(attribute, ())
    try:
        setattr(holder, attribute, (*before, mark))
    except (AttributeError, TypeError):
        return False
    WRITTEN.count += 1
    return True


def _caller() -> str:
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to learn who calls; inspect reads source files
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
