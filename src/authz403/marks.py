"""Marks: policies written where the code is. A mark changes nothing about what it marks."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeVar

from authz403.errors import ConfigurationError, Mistake
from authz403.policy import Requirement, all_of, anyone, as_requirement

Marked = TypeVar("Marked")

_MARKS: Final = "__authz403_marks__"
_GUARDS: Final = "__authz403_guards__"
NEED: Final = "__authz403_need__"
"""The attribute by which a FastAPI dependency made by `needs` carries its requirement."""

TAKES_IDENTITY: Final = "__authz403_takes_identity__"
"""The attribute of the FastAPI dependency that hands the principal to an endpoint."""


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
        _add(marked, _MARKS, mark, "requires")
        return marked

    return set_mark


def public(marked: Marked) -> Marked:
    """Mark an endpoint as open to anyone: `requires(anyone)`. It opens nothing that a rule or a guard closes."""
    _add(marked, _MARKS, Mark(anyone, _caller()), "public")
    return marked


def guard(group: Marked, requirement: Requirement) -> Marked:
    """Mark a group: everything in this Mount, mounted app or router needs `requirement`. Returns the very same object.

    A FastAPI `APIRouter` that is included cannot be marked so: give it `dependencies=[needs(requirement)]`.
    """
    found = as_requirement("guard", "requirement", requirement)
    if hasattr(group, "include_router") and hasattr(group, "add_api_route") and not hasattr(group, "router"):
        why = "an APIRouter is dissolved when it is included; write dependencies=[needs(...)] instead"
        raise ConfigurationError("guard", [Mistake("group", type(group).__name__, why)])
    # An app is entered by its router, which a middleware inside the app can see.
    _add(getattr(group, "router", group), _GUARDS, Mark(found, _caller()), "guard")
    return group


def marks_of(endpoint: object) -> tuple[Mark, ...]:
    """Return all marks of an endpoint: through partials and wrappers, and for a class those of its bases."""
    found: dict[int, Mark] = {}
    seen: set[int] = set()
    while endpoint is not None and id(endpoint) not in seen:
        seen.add(id(endpoint))
        if isinstance(endpoint, type):
            holders: Iterable[object] = endpoint.__mro__
        else:
            holders = (endpoint, getattr(endpoint, "__func__", None))
            if not callable(getattr(endpoint, "__get__", None)):
                holders = (*holders, *type(endpoint).__mro__)
        for holder in holders:
            for mark in getattr(holder, "__dict__", {}).get(_MARKS, ()):
                found[id(mark)] = mark
        endpoint = endpoint.func if isinstance(endpoint, functools.partial) else getattr(endpoint, "__wrapped__", None)
    return tuple(found.values())


def guards_of(group: object) -> tuple[Mark, ...]:
    """Return the guards of a Mount, app or router."""
    found: tuple[Mark, ...] = getattr(group, "__dict__", {}).get(_GUARDS, ())
    return found


def _add(marked: object, attribute: str, mark: Mark, part: str) -> None:
    if (
        attribute == _MARKS
        and not isinstance(marked, type)
        and (hasattr(marked, "matches") or hasattr(marked, "routes"))
    ):
        why = (
            "a route, router or app is no endpoint; mark the function, or write guard(...) or dependencies=[needs(...)]"
        )
        raise ConfigurationError(part, [Mistake("endpoint", repr(marked), why)])
    before: tuple[Mark, ...] = getattr(marked, "__dict__", {}).get(attribute, ())
    try:
        setattr(marked, attribute, (*before, mark))
    except (AttributeError, TypeError):
        if part == "guard":
            field, why = "group", "guard takes a Mount, an app or a router; for an endpoint write @requires(...)"
        else:
            field, why = "endpoint", "this object cannot be marked; mark the function itself, or write a Rule"
        raise ConfigurationError(part, [Mistake(field, repr(marked), why)]) from None


def _caller() -> str:
    frame = sys._getframe(2)  # noqa: SLF001 - the documented way to learn who calls; inspect reads source files
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
