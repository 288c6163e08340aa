"""What the routing objects of Starlette and FastAPI say of themselves. The only file that knows their insides."""

from __future__ import annotations

import inspect
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from starlette.applications import Starlette
from starlette.convertors import FloatConvertor, IntegerConvertor, PathConvertor, StringConvertor, UUIDConvertor
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute, compile_path

from authz403.errors import ConfigurationError, Mistake
from authz403.marks import NEED, TAKES_IDENTITY, Mark, guards_of, unwrapped
from authz403.paths import EVERYTHING, PathPattern, split
from authz403.request import WEBSOCKET

_ONE_SEGMENT: Final = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)
_ROUTES: Final = (Route, WebSocketRoute, Mount, Host)


def layers(app: object) -> Iterator[object]:
    """Yield an app and what it wraps, by the attribute `app` that middleware keeps it in, down to its router."""
    for layer in wrappers(app):
        yield layer
        if isinstance(layer, BaseRoute) or _routed_by(layer) is not None:
            return


def wrappers(app: object) -> Iterator[object]:
    """Yield an app and all that it wraps, by the attribute `app` that middleware keeps it in."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        yield app
        app = app.app if _holds(app, "app") else None  # type: ignore[attr-defined]  # looked up before


def _holds(layer: object, name: str) -> bool:
    """Tell whether something has an attribute of its own accord, and does not make one for whoever asks."""
    return name in getattr(layer, "__dict__", {}) or inspect.getattr_static(type(layer), name, None) is not None


def _routed_by(layer: object) -> Router | None:
    """Return the router of a layer that is a router, or an app which does nothing but hand requests to one."""
    if isinstance(layer, Router):
        return layer
    if isinstance(layer, Starlette) and _is_frameworks_own(type(layer), "__call__"):
        return layer.router
    return None


def router_of(app: object) -> tuple[Router | None, str]:
    """Return the router that an app leads to, and the root path that a FastAPI app on the way sets."""
    for layer in layers(app):
        router = _routed_by(layer)
        if router is not None:
            return router, "" if router is layer else getattr(layer, "root_path", "") or ""
    return None, ""


def way_to_router(app: object) -> tuple[tuple[object, str, object], ...]:
    """Return what leads from an app to its router: what holds the next, by which attribute, and the next."""
    around = tuple(layers(app))
    hops = [(holder, "app", held) for holder, held in pairwise(around)]
    router = _routed_by(around[-1])
    if router is not None and router is not around[-1]:
        hops.append((around[-1], "router", router))
    return tuple(hops)


_OURS: Final = ("authz403.", "fastapi.", "starlette.")


def apps_beside(layer: object) -> Iterator[object]:
    """Yield the routers and apps that a middleware of somebody's own holds besides the one that it wraps."""
    if not isinstance(layer, Router | Starlette | BaseRoute) and not type(layer).__module__.startswith(_OURS):
        yield from (held for held in getattr(layer, "__dict__", {}).values() if isinstance(held, Router | Starlette))


def mounted(route: Any) -> object:
    """Return the app behind a Mount or Host: what its own middleware hides is found all the same."""
    base = getattr(route, "_base_app", None)
    return base if base is not None and router_of(route.app)[0] is None else route.app


def own_dispatch(router: Router) -> str | None:
    """Say what is wrong with a router whose class finds routes in a way of its own, which nobody can ask."""
    for name in _DISPATCH:
        if not _is_frameworks_own(type(router), name):
            return f"its class overrides {name}(), so that nobody can tell what it runs; use the router as it is"
    return None


_DISPATCH: Final = (
    *("app", "__call__", "matches", "handle", "_handle_selected"),
    *("_match_low_priority", "_iter_low_priority_routes"),
)


def _is_frameworks_own(kind: type, name: str) -> bool:
    defining = next((base for base in kind.__mro__ if name in base.__dict__), Router)
    return defining.__module__.startswith(("fastapi.", "starlette."))


def original_of(route: Any) -> Any:
    """Return the route as it was written, which FastAPI shows through a context of the include that it stands in."""
    return getattr(route, "original_route", route)


def beneath(called: Any) -> Any:
    """Return what a router calls, without the latch before it."""
    return getattr(called, "beneath", called)


def is_included_router(route: Any) -> bool:
    """Tell whether a route is FastAPI's stand-in for a router that was included."""
    return hasattr(route, "original_router") and not isinstance(route, _ROUTES)


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
        if not is_included_router(route):
            yield route, own
            continue
        try:
            from fastapi.routing import iter_route_contexts  # noqa: PLC0415 - only a FastAPI app has such routes
        except ImportError as error:
            why = "this FastAPI cannot say what its included routers hold; authz403 needs FastAPI 0.144 or later"
            raise ConfigurationError("the app", [Mistake("include_router", type(route).__name__, why)]) from error
        # FastAPI leaves out the routes that it does not know. A route may be there several times, by several includes.
        marks: dict[int, deque[tuple[Mark, ...]]] = defaultdict(deque)
        for original, needed in _included_routes(route, own):
            marks[id(original)].append(needed)
        for context in iter_route_contexts([route]):
            yield context, marks[id(original_of(context))].popleft()


def _included_routes(included: Any, above: tuple[Mark, ...]) -> Iterator[tuple[Any, tuple[Mark, ...]]]:
    """Yield each route under an included router with the marks of all includes and routers on the way to it."""
    # The context of an include holds what the including router and the include itself say.
    on_include, on_router = included.include_context.dependencies, included.original_router.dependencies
    needed = (*_needs_among(on_include), *_needs_among(on_router))
    here = (*above, *needed, *guards_of(included.original_router))
    for route in included.original_router.routes:
        if is_included_router(route):
            yield from _included_routes(route, here)
        else:
            yield route, here


def _needs_among(dependencies: Iterable[Any]) -> tuple[Mark, ...]:
    found = (getattr(getattr(dependency, "dependency", None), NEED, None) for dependency in dependencies)
    return tuple(mark for mark in found if isinstance(mark, Mark))


def included_routers(router: Any) -> Iterator[Any]:
    """Yield the routers that FastAPI includes into this one, however deep."""
    waiting, seen = [router], {id(router)}
    while waiting:
        for route in waiting.pop().routes:
            found = getattr(route, "original_router", None)
            if found is not None and id(found) not in seen:
                seen.add(id(found))
                waiting.append(found)
                yield found


def low_priority_routes(router: Any) -> tuple[Any, ...]:
    """Return FastAPI's frontend routes, which stand in no list of routes."""
    listed = getattr(router, "_iter_low_priority_routes", None)
    return () if listed is None else tuple(listed())


def frontend_paths(route: Any) -> list[str]:
    """Return the paths under which a group of frontend routes serves its files."""
    prefix = getattr(route, "frontend_prefix", "")
    return [prefix + found.path.rstrip("/") for found in getattr(original_of(route), "routes", ())]


def stepped_into(route: Any) -> tuple[Any, str]:
    """Return what its router calls to run a route: an object, and the attribute of it that is called."""
    if original_of(route) is route:
        return route, "handle"
    context = getattr(route, "_route_context", None)
    if context is None:  # a frontend in an included router
        return (original_of(route), "handle") if isinstance(original_of(route), Route) else (route, "app")
    # FastAPI runs its own routes by their handle(), and what it made of Starlette's by theirs.
    return (original_of(route) if context.starlette_route is None else context.starlette_route), "handle"


def kind_of(route: Any) -> type | None:
    """Return which of Starlette's routes this is, if any."""
    return next((kind for kind in _ROUTES if isinstance(original_of(route), kind)), None)


def label_of(route: Any) -> str:
    """Return a route's path as people write it, with the names of its parameters."""
    path: str = getattr(route, "path_format", None) or getattr(route, "path", None) or ""
    return path.removesuffix("/{path}") if kind_of(route) is Mount else path


def is_plain(route: Any, *methods: str) -> bool:
    """Tell whether these methods of a route are those of Starlette or FastAPI, or have a latch before those."""
    original = original_of(route)
    own = {name for name, held in getattr(original, "__dict__", {}).items() if beneath(held) is held}
    return all(name not in own and _is_frameworks_own(type(original), name) for name in methods)


def _matches_its_path(route: Any) -> bool:
    """Tell whether a route matches what its path says: its expression is a public attribute, and may be changed."""
    path = route.path + "/{path:path}" if kind_of(route) is Mount else route.path
    try:
        expression, _, _ = compile_path(path)
    except AssertionError:
        return False  # it names a convertor that Starlette does not know any more
    return is_plain(route, "matches") and bool(route.path_regex == expression)


def pattern_of(route: Any) -> tuple[PathPattern, str | None]:
    """Return the pattern of a route's path, and the name of its `path` parameter if it has one."""
    kind = kind_of(route)
    if kind is Mount:
        return PathPattern(prefix_of(route).segments, below=True), None
    if kind not in {Route, WebSocketRoute} or not _matches_its_path(route):
        return EVERYTHING, None
    segments, below = segments_of(route.path_format, route.param_convertors)
    taking = [name for name, convertor in route.param_convertors.items() if isinstance(convertor, PathConvertor)]
    return PathPattern(segments, below), taking[0] if len(taking) == 1 else None


def prefix_of(mount: Any) -> PathPattern:
    """Return what a Mount puts before the paths of its routes; with `below`, that and any more segments."""
    if not _matches_its_path(mount):
        return EVERYTHING
    return PathPattern(*segments_of(mount.path, mount.param_convertors))


def segments_of(path: str, convertors: Mapping[str, object]) -> tuple[tuple[str | None, ...], bool]:
    """Return the segments of a route's path; from the first that may take a slash on, it is everything below."""
    segments: list[str | None] = []
    for segment in split(path):
        inside = [convertor for name, convertor in convertors.items() if "{" + name in segment]
        if any(type(convertor) not in _ONE_SEGMENT for convertor in inside):
            return tuple(segments), True
        segments.append(None if inside else segment)
    return tuple(segments), False


def endpoint_class(endpoint: object) -> type[HTTPEndpoint] | None:
    """Return the class of a class-based endpoint that finds its methods as Starlette's do: by its attributes."""
    for layer in unwrapped(endpoint):
        if isinstance(layer, type) and issubclass(layer, HTTPEndpoint):
            own = [base for base in layer.__mro__ if not base.__module__.startswith(("starlette.", "builtins"))]
            return None if any(name in base.__dict__ for base in own for name in _FINDING) else layer
    return None


_FINDING: Final = ("__await__", "__getattr__", "__getattribute__", "__init__", "dispatch")
"""What may make an endpoint find its methods in another way."""


def lacks(kind: type[HTTPEndpoint], method: str) -> bool:
    """Tell whether a class-based endpoint answers a method with its own 405."""
    # RFC 9110 section 9.3.2: HEAD is GET without the content, and Starlette answers it by that.
    return not hasattr(kind, method.lower()) and not (method == "HEAD" and hasattr(kind, "get"))


def served_methods(endpoint: object, marked: Iterable[str]) -> frozenset[str] | None:
    """Return the methods that a class-based endpoint is meant to serve, or `None` where it says nothing of them.

    A method of its own that is no known one counts, too: a request that invents the name calls it.
    """
    kind = endpoint_class(endpoint)
    if kind is None:
        kinds = [layer for layer in unwrapped(endpoint) if isinstance(layer, type)]
        return frozenset({WEBSOCKET}) if any(issubclass(one, WebSocketEndpoint) for one in kinds) else None
    own = {name for name in dir(kind) if not name.startswith("_") and not hasattr(HTTPEndpoint, name)}
    named = {name.upper() for name in own if callable(getattr(kind, name))} | set(marked)
    return frozenset(named | {"HEAD"} if "GET" in named else named)


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
