"""Which endpoint will run: asked of the app's own routing objects (Starlette's and FastAPI's), never guessed.

The index only narrows down which routes are asked; each route's own `matches()` has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from starlette._utils import get_route_path
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from authz403.endpoint import Endpoint, Found
from authz403.errors import Mistakes
from authz403.leaves import Param
from authz403.marks import Mark, guards_of, marks_of
from authz403.paths import PathIndex, PathPattern, has_dot_segments
from authz403.request import KNOWN_METHODS, WEBSOCKET
from authz403.route_objects import (
    flat_routes,
    handled_methods,
    kind_of,
    layers,
    low_priority_routes,
    marks_by_method,
    needed_by,
    own_dispatch,
    pattern_of,
    route_lists,
    router_of,
    segments_of,
    wrappers,
)

_EVERYTHING: Final = PathPattern((), below=True)
_NOTHING: Final = Found(None)

Trail = list[tuple[int, str]]
"""The routers on the way to an endpoint, each by its id and the root path that it sees."""


class Served(NamedTuple):
    """One kind of request that the app serves: a rule that meets none of these can never apply."""

    pattern: PathPattern
    methods: frozenset[str] | None
    endpoint: Endpoint


class RouteChanged(Exception):  # noqa: N818 - never leaves this module
    """The app's routes are not those that the table was made of."""


class AppRoutes:
    """The routes of one Starlette or FastAPI app, walked again when they change.

    `place_door(router)` is called for every router on the way; it returns what is wrong, if anything.
    """

    def __init__(self, app: ASGIApp, place_door: Callable[[Router], str | None]) -> None:
        self._app = app
        self._place_door = place_door
        self.walk = Walk(app, place_door)

    def find(self, native: tuple[Scope, Trail]) -> Found:
        """Return what the app's own router would do with this request, noting the way there."""
        scope, trail = native
        walk = self.walk
        if walk.is_current():
            try:
                return walk.top.find(scope, trail)
            except RouteChanged:
                trail.clear()
        walk = Walk(self._app, self._place_door)
        walk.mistakes.raise_if_any()  # routes added later may be such that nobody can ask them
        self.walk = walk
        return walk.top.find(scope, trail)


class Walk:
    """One walk through an app: its table of routes, what it serves, and what is wrong with it (`mistakes`)."""

    def __init__(self, app: ASGIApp, place_door: Callable[[Router], str | None]) -> None:
        self.mistakes = Mistakes("the app")
        self.served: list[Served] = []
        self.has_hosts = False
        self.conceals = False
        self._lists: list[list[object]] = []
        self._place_door = place_door
        router, self.root_path = router_of(app)
        if router is None:
            raise TypeError("there is no router to walk")
        for layer in layers(app):
            self.look_for_cors(layer)
        self.top = _Table(self, router, _Place((), (), PathPattern((), below=False), "", frozenset()))
        self._as_walked = [list(routes) for routes in self._lists]

    def is_current(self) -> bool:
        """Tell whether the app's lists of routes are what they were; identical routes cost a nanosecond each."""
        return self._lists == self._as_walked

    def watch(self, routes: list[Any]) -> None:
        """Notice when this list of routes changes."""
        self._lists.append(routes)

    def door_before(self, router: Router) -> None:
        """Put a door before a router."""
        wrong = own_dispatch(router) or self._place_door(router)
        if wrong is not None:
            self.mistakes.add("router", type(router).__name__, wrong)

    def look_for_cors(self, layer: object) -> None:
        """Note a CORSMiddleware in this layer of an app."""
        inside = [layer, *(getattr(found, "cls", None) for found in getattr(layer, "user_middleware", ()))]
        for found in inside:
            kind = found if isinstance(found, type) else type(found)
            if issubclass(kind, CORSMiddleware):
                why = (
                    "it stands inside the gate, so that refusals and preflights never reach it; remove it and give the "
                    "gate cors=Cors(...), or add it after AuthzMiddleware, so that it stands outside"
                )
                self.mistakes.add("CORSMiddleware", kind.__name__, why)
                return


class _Entry(NamedTuple):
    """A route as the router asks it: where it leads, and what stands there."""

    matches: Callable[[Scope], tuple[Match, Scope]]
    route: Any
    endpoint: Endpoint
    inner: _Table | None
    path_param: str | None
    """The name of the route's `path` parameter, which may take dot segments."""
    mounted_root_path: str
    handled: frozenset[str] | None = None
    """The methods that a class-based endpoint has, where the route leaves that to it."""
    is_plain: bool = True
    """Whether matching and handling are Starlette's or FastAPI's own."""

    def answers_405(self, scope: Scope) -> bool:
        """Tell whether the route, which matches in part, answers 405 by itself; else it runs its endpoint."""
        methods = getattr(self.route, "methods", None)
        return self.is_plain and methods is not None and bool(methods) and scope.get("method") not in methods


class _Place(NamedTuple):
    """Where a router stands: the marks of all that it is mounted in, the routers above it, its path and parameters."""

    marks: tuple[Mark, ...]
    above: tuple[int, ...]
    prefix: PathPattern
    label: str
    params: frozenset[str]


class _Table:
    """The routes of one router at one place."""

    def __init__(self, walk: Walk, router: Router, place: _Place) -> None:
        self._walk = walk
        self._router = router
        self._routes = router.routes
        self._marks = (*place.marks, *guards_of(router))
        self._above = (*place.above, id(router))
        self._prefix = place.prefix
        self._label = label = place.label
        self._params = place.params
        for routes in route_lists(router):
            walk.watch(routes)
        for layer in wrappers(router.middleware_stack):
            walk.look_for_cors(layer)
        walk.door_before(router)
        found = tuple(flat_routes(router))
        self._index = PathIndex(self._entry(route, needed) for route, needed in found)
        # Which includes a frontend route stands under cannot be told, so that it stands under all.
        every = _distinct(mark for _, needed in found for mark in needed)
        self._low_priority = {id(route): self._entry(route, every)[1] for route in low_priority_routes(router)}
        self._default: Endpoint | None = None
        if getattr(router.default, "__func__", None) is not Router.not_found:
            self._default = Endpoint(f"{label}/** (default)", "default", (*self._marks, *marks_of(router.default)))
            self._serves(_EVERYTHING, None, self._default)

    def find(self, scope: Scope, trail: Trail, full_path: str | None = None) -> Found:
        """Do as `Router.app` does, up to running what it finds."""
        router = self._router
        if router.routes is not self._routes:
            raise RouteChanged
        trail.append((id(router), scope.get("root_path", "")))
        path = get_route_path(scope)
        full_path = full_path or path
        partial: tuple[_Entry, Scope] | None = None
        for entry in self._index.find(path):
            match, child_scope = entry.matches(scope)
            if match is Match.FULL:
                return self._taken(entry, scope, child_scope, trail, full_path, path)
            if match is Match.PARTIAL and partial is None:
                partial = (entry, child_scope)
        if partial is not None:
            entry, child_scope = partial
            if not entry.answers_405(scope):
                return self._taken(entry, scope, child_scope, trail, full_path, path)
            return _betraying(entry, full_path)
        if scope["type"] == "http" and router.redirect_slashes and path != "/":
            redirected = {**scope, "path": scope["path"].rstrip("/") if path.endswith("/") else scope["path"] + "/"}
            elsewhere = get_route_path(redirected)
            for entry in self._index.find(elsewhere):
                if entry.matches(redirected)[0] is not Match.NONE:
                    return _betraying(entry, full_path[: len(full_path) - len(path)] + elsewhere)
        if self._low_priority:
            found = self._find_low_priority(scope, full_path)
            if found is not None:
                return found
        return _NOTHING if self._default is None else Found(self._default)

    def _taken(
        self, entry: _Entry, scope: Scope, child_scope: Mapping[str, Any], trail: Trail, full_path: str, path: str
    ) -> Found:
        params = child_scope.get("path_params", {})
        if entry.inner is not None:
            within = {**scope, **child_scope}
            if entry.mounted_root_path:
                within["root_path"] = entry.mounted_root_path
            return entry.inner.find(within, trail, full_path)
        if entry.handled is not None and scope.get("method", "").upper() not in entry.handled:
            return _betraying(entry, full_path)
        if entry.path_param is not None and has_dot_segments(full_path):
            return Found(entry.endpoint, params, _only_param_has_dots(entry, path, full_path))
        return Found(entry.endpoint, params)

    def _find_low_priority(self, scope: Scope, full_path: str) -> Found | None:
        match, _, route, context = self._router._match_low_priority(dict(scope))  # type: ignore[attr-defined]  # noqa: SLF001 - FastAPI's frontend routes are asked nowhere else
        if match is Match.NONE:
            return None
        entry = self._low_priority.get(id(context if context is not None else route))
        if entry is None:
            raise RouteChanged
        return Found(entry.endpoint) if match is Match.FULL else _betraying(entry, full_path)

    def _entry(self, route: Any, needed: tuple[Mark, ...]) -> tuple[PathPattern, _Entry]:
        kind, is_plain = kind_of(route)
        label = self._label + (getattr(route, "path_format", None) or getattr(route, "path", None) or "")
        marks = (*self._marks, *needed, *guards_of(getattr(route, "original_route", route)), *guards_of(route))
        if kind is Mount or kind is Host:
            return self._group(route, kind, marks, is_plain=is_plain)
        endpoint_function = getattr(route, "endpoint", None)
        if endpoint_function is None:
            endpoint_function = getattr(route, "app", None)
        own_needs, takes_identity = needed_by(route)
        by_method = marks_by_method(endpoint_function)
        endpoint = Endpoint(
            label or "/**",
            getattr(endpoint_function, "__name__", type(route).__name__),
            _distinct((*marks, *marks_of(endpoint_function), *own_needs)),
            by_method,
            takes_identity=takes_identity,
        )
        for layer in wrappers(getattr(route, "app", None)):
            self._walk.look_for_cors(layer)
        pattern, path_param = pattern_of(route) if is_plain else (_EVERYTHING, None)
        if kind is WebSocketRoute:
            methods: frozenset[str] | None = frozenset({WEBSOCKET})
        else:
            methods = frozenset(getattr(route, "methods", None) or ()) or None
        self._serves(pattern, methods, endpoint)
        self._check_params(route, endpoint)
        self._check_override(route, is_plain=is_plain)
        handled = None if methods is not None else handled_methods(endpoint_function)
        return pattern, _Entry(route.matches, route, endpoint, None, path_param, "", handled, is_plain)

    def _group(self, route: Any, kind: type, marks: tuple[Mark, ...], *, is_plain: bool) -> tuple[PathPattern, _Entry]:
        app = route.app
        for layer in layers(app):
            self._walk.look_for_cors(layer)
            marks = (*marks, *guards_of(layer))
        pattern = _EVERYTHING
        if kind is Host:
            self._walk.has_hosts = True
            label = f"{self._label}{route.host}:"
        else:
            label = self._label + route.path
            if is_plain:
                pattern = PathPattern(segments_of(route.path, route.param_convertors)[0], below=True)
        router, root_path = router_of(app)
        endpoint = Endpoint(label + "/**", type(app).__name__, _distinct((*marks, *marks_of(app))))
        if router is None or id(router) in self._above:
            self._serves(pattern, None, endpoint)
            return pattern, _Entry(route.matches, route, endpoint, None, None, "")
        prefix = PathPattern((*self._prefix.segments, *pattern.segments), below=False)
        params = self._params.union(route.param_convertors)
        place = _Place(_distinct(marks), self._above, prefix, label, params)
        return pattern, _Entry(route.matches, route, endpoint, _Table(self._walk, router, place), None, root_path)

    def _serves(self, pattern: PathPattern, methods: frozenset[str] | None, endpoint: Endpoint) -> None:
        marks = (*endpoint.marks, *(mark for found in endpoint.by_method.values() for mark in found))
        self._walk.conceals = self._walk.conceals or any(mark.requirement.conceals for mark in marks)
        below = PathPattern((*self._prefix.segments, *pattern.segments), pattern.below)
        self._walk.served.append(Served(below, methods, endpoint))

    def _check_params(self, route: Any, endpoint: Endpoint) -> None:
        known = self._params.union(getattr(route, "param_convertors", None) or ())
        for mark in (*endpoint.marks, *(mark for marks in endpoint.by_method.values() for mark in marks)):
            for leaf in mark.requirement.leaves():
                if isinstance(leaf, Param) and leaf.name not in known:
                    why = f"{endpoint.route} has no path parameter {leaf.name} (marked at {mark.where})"
                    self._walk.mistakes.add("param", leaf.name, why)

    def _check_override(self, route: Any, *, is_plain: bool) -> None:
        original = getattr(route, "original_route", route)
        if original is not route and isinstance(original, Route) and not is_plain:
            why = "an included route whose class overrides matches() cannot be asked; add it to the app itself"
            self._walk.mistakes.add("route", getattr(route, "path", ""), why)


def _betraying(entry: _Entry, path: str) -> Found:
    """Return what a router's own 405 or redirect tells: the endpoint, and the requests that would reach it."""
    named = getattr(entry.route, "methods", None) or entry.handled or ()
    methods = tuple(method for method in KNOWN_METHODS if not named or method in named)
    return Found(None, betrays=entry.endpoint, betrays_methods=methods, betrays_path=path)


def _only_param_has_dots(entry: _Entry, path: str, full_path: str) -> bool:
    """Tell whether a path is free of dot segments but for what the route's own `path` parameter takes."""
    found = entry.route.path_regex.match(path)
    if found is None or entry.path_param is None:
        return False
    start, end = found.span(entry.path_param)
    before = len(full_path) - len(path)
    return not has_dot_segments(full_path[: before + start] + "_" + full_path[before + end :])


def _distinct(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    return tuple({id(mark): mark for mark in marks}.values())
