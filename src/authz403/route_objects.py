"""What the routing objects of Starlette and FastAPI say of themselves. The only file that knows their insides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from starlette.convertors import FloatConvertor, IntegerConvertor, PathConvertor, StringConvertor, UUIDConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

from authz403.errors import ConfigurationError, Mistake
from authz403.marks import NEED, TAKES_IDENTITY, Mark, marks_of
from authz403.paths import PathPattern, split
from authz403.request import WEBSOCKET

_ONE_SEGMENT: Final = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)
_ASKED: Final = ("matches", "handle")  # the methods of a route that the router calls
_WEBSOCKET_METHODS: Final = frozenset({"on_connect", "on_receive", "on_disconnect"})


def layers(app: object) -> Iterator[object]:
    """Yield an app and what it wraps, by the attribute `app` that middleware keeps it in, down to its router."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        yield app
        if isinstance(app, Router) or isinstance(getattr(app, "router", None), Router):
            return
        app = getattr(app, "app", None)


def wrappers(app: object) -> Iterator[object]:
    """Yield what is wrapped around something, by the attribute `app` that middleware keeps it in."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        yield app
        app = getattr(app, "app", None)


def router_of(app: object) -> tuple[Router | None, str]:
    """Return the router that an app leads to, and the root path that a FastAPI app on the way sets."""
    for layer in layers(app):
        if isinstance(layer, Router):
            return layer, ""
        router = getattr(layer, "router", None)
        if isinstance(router, Router):
            return router, getattr(layer, "root_path", "") or ""
    return None, ""


def own_dispatch(router: Router) -> str | None:
    """Say what is wrong with a router whose class finds routes in a way of its own, which nobody can ask."""
    for name in ("app", "__call__", "matches", "handle"):
        defining = next((base for base in type(router).__mro__ if name in base.__dict__), Router)
        if not _is_frameworks_own(defining):
            return f"its class overrides {name}(), so that nobody can tell what it runs; use the router as it is"
    return None


def _is_frameworks_own(defining: type) -> bool:
    return defining.__module__.startswith(("fastapi.", "starlette."))


def flat_routes(router: Router) -> Iterator[tuple[Any, tuple[Mark, ...]]]:
    """Yield the routes in the order in which the router asks them, FastAPI's included routers opened up.

    With each come the marks of `needs` on the routers that it stands in, as FastAPI itself runs no dependencies for
    Starlette's routes and mounts. Those of the app do not reach the routes and mounts of the app itself, such as its
    docs: there they would run for nothing in FastAPI, too.
    """
    app = getattr(router, "dependency_overrides_provider", None)
    is_of_app = app is not None and getattr(app, "router", None) is router
    own = () if is_of_app else _needs_among(getattr(router, "dependencies", None) or ())
    for route in router.routes:
        if isinstance(route, Route | WebSocketRoute | Mount | Host) or not hasattr(route, "original_router"):
            yield route, own
            continue
        try:
            from fastapi.routing import iter_route_contexts  # noqa: PLC0415 - only a FastAPI app has such routes
        except ImportError as error:
            why = "this FastAPI cannot say what its included routers hold; authz403 needs FastAPI 0.144 or later"
            raise ConfigurationError("the app", [Mistake("include_router", type(route).__name__, why)]) from error
        # One context a route, in the order of the routes; if ever it is otherwise, nothing is guessed.
        yield from zip(iter_route_contexts([route]), _needs_on_the_way(route, own), strict=True)


def _needs_on_the_way(included: Any, above: tuple[Mark, ...]) -> Iterator[tuple[Mark, ...]]:
    """Yield for each route under an included router the marks of all includes and routers on the way to it."""
    # The context of an include holds what the including router and the include itself say.
    on_include, on_router = included.include_context.dependencies, included.original_router.dependencies
    here = (*above, *_needs_among(on_include), *_needs_among(on_router))
    for route in included.original_router.routes:
        if hasattr(route, "original_router") and not isinstance(route, Route | WebSocketRoute | Mount | Host):
            yield from _needs_on_the_way(route, here)
        else:
            yield here


def _needs_among(dependencies: Iterable[Any]) -> tuple[Mark, ...]:
    found = (getattr(getattr(dependency, "dependency", None), NEED, None) for dependency in dependencies)
    return tuple(mark for mark in found if isinstance(mark, Mark))


def route_lists(router: Any) -> Iterator[list[Any]]:
    """Yield every list that a router's routes stand in: its own, those of included routers, and of frontend routes."""
    waiting, seen = [router], set[int]()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found.routes
        if hasattr(found, "_low_priority_routes"):
            yield found._low_priority_routes  # noqa: SLF001 - FastAPI has no public list of these
        waiting.extend(route.original_router for route in found.routes if hasattr(route, "original_router"))


def low_priority_routes(router: Any) -> tuple[Any, ...]:
    """Return FastAPI's frontend routes, which stand in no list of routes."""
    listed = getattr(router, "_iter_low_priority_routes", None)
    return () if listed is None else tuple(listed())


def kind_of(route: Any) -> tuple[type | None, bool]:
    """Return which of Starlette's routes this is, if any, and whether it matches as that does, by its path alone."""
    original = getattr(route, "original_route", route)
    for kind in (Route, WebSocketRoute, Mount, Host):
        if isinstance(original, kind):
            defining = [next(base for base in type(original).__mro__ if name in base.__dict__) for name in _ASKED]
            return kind, all(map(_is_frameworks_own, defining))
    return None, False


def pattern_of(route: Any) -> tuple[PathPattern, str | None]:
    """Return the pattern of a route's path, and the name of its `path` parameter if it has one."""
    segments, below = segments_of(route.path_format, route.param_convertors)
    taking = [name for name, convertor in route.param_convertors.items() if isinstance(convertor, PathConvertor)]
    return PathPattern(segments, below), taking[0] if len(taking) == 1 else None


def segments_of(path: str, convertors: Mapping[str, object]) -> tuple[tuple[str | None, ...], bool]:
    """Return the segments of a route's path; from the first that may take a slash on, it is everything below."""
    segments: list[str | None] = []
    for segment in split(path):
        inside = [convertor for name, convertor in convertors.items() if "{" + name in segment]
        if any(type(convertor) not in _ONE_SEGMENT for convertor in inside):
            return tuple(segments), True
        segments.append(None if inside else segment)
    return tuple(segments), False


def marks_by_method(endpoint: object) -> dict[str, tuple[Mark, ...]]:
    """Return the marks on the methods of a class-based endpoint, by the HTTP method that calls each."""
    if not isinstance(endpoint, type):
        return {}
    found: dict[str, tuple[Mark, ...]] = {}
    for name in dir(endpoint):
        marks = () if name.startswith("__") else marks_of(getattr(endpoint, name, None))
        if marks:
            method = WEBSOCKET if name in _WEBSOCKET_METHODS else name.upper()
            found[method] = (*found.get(method, ()), *marks)
    if "GET" in found:
        # RFC 9110 section 9.3.2: HEAD is GET without the content, whatever a class answers it with.
        found["HEAD"] = (*found.get("HEAD", ()), *found["GET"])
    return found


def handled_methods(endpoint: object) -> frozenset[str] | None:
    """Return the methods that a class-based endpoint answers with anything but its own 405."""
    if not (isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint)):
        return None
    # Any attribute may be called by a request that names it as its method; only what is certainly missing is a 405.
    names = {name.upper() for name in dir(endpoint)}
    return frozenset(names | {"HEAD"} if "GET" in names else names)


def needed_by(route: Any) -> tuple[tuple[Mark, ...], bool]:
    """Return the requirements of `needs` among a FastAPI route's dependencies, and whether it takes the principal."""
    marks: list[Mark] = []
    takes_identity = False
    waiting = [getattr(route, "dependant", None)]
    listed = [getattr(found, "dependency", None) for found in getattr(route, "dependencies", None) or ()]
    seen: set[int] = set()
    while waiting:
        dependant = waiting.pop()
        if dependant is None or id(dependant) in seen:
            continue
        seen.add(id(dependant))
        listed.append(getattr(dependant, "call", None))
        waiting.extend(getattr(dependant, "dependencies", ()))
    for call in listed:
        needed = getattr(call, NEED, None)
        if isinstance(needed, Mark):
            marks.append(needed)
        takes_identity = takes_identity or getattr(call, TAKES_IDENTITY, False) is True
    return tuple(marks), takes_identity
