"""One walk through an app: its routers, routes and marks made into tables that can be asked in little time.

Whatever the app's routers may run has a latch before it, so that nothing runs that was not decided on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from authz403.endpoint import Endpoint, Found, Place, Served
from authz403.errors import Mistakes
from authz403.layers import misplaced
from authz403.leaves import Param
from authz403.marks import WRITTEN, Mark, distinct, guards_of, marks_by_method, marks_of, name_of
from authz403.paths import EVERYTHING, PathPattern
from authz403.request import WEBSOCKET
from authz403.route_objects import (
    beneath,
    endpoint_class,
    flat_routes,
    frontend_paths,
    included_routers,
    is_plain,
    kind_of,
    label_of,
    layers,
    low_priority_routes,
    mounted,
    needed_by,
    original_of,
    own_dispatch,
    pattern_of,
    prefix_of,
    router_of,
    served_methods,
    stepped_into,
    way_to_router,
    wrappers,
)
from authz403.routing import Entry, RouteChanged, Table, Trail, Way
from authz403.watched import Watch, watched

_PATIENCE: Final = 1.0  # seconds between two walks that nothing but doubt calls for


class Doors(Protocol):
    """Puts what holds requests to their decisions before the routers and routes of an app."""

    def before_router(self, router: Router) -> str | None:
        """Put a door before a router; say why where that cannot be."""
        ...

    def before(self, holder: Any, attribute: str, step: int) -> str | None:
        """Put a latch before what is called by this attribute; say why where that cannot be."""
        ...


class AppRoutes:
    """The routes of one Starlette or FastAPI app, walked again when they change.

    `hops` lead from the app to its router: what holds the next, by which attribute, and the next.
    """

    def __init__(self, app: ASGIApp, doors: Doors | None) -> None:
        self._app = app
        self._doors = doors
        self._doubted = -_PATIENCE
        self.is_doubted = False
        self.hops = way_to_router(app)
        self.walk = Walk(app, doors)
        self.usual = self.walk.top.usual

    def doubt(self) -> None:
        """Take the table for out of date, as a router chose otherwise; not over and over, as walking takes its time."""
        now = time.monotonic()
        if now - self._doubted >= _PATIENCE:
            self._doubted = now
            self.is_doubted = True

    def find(self, native: tuple[Scope, Trail, str]) -> Way:
        """Return what the app's own router would do with a request, noting the way there.

        A request is its scope, an empty trail, and the path that the router sees.
        """
        scope, trail, path = native
        walk = self.walk
        if not (walk.watch.has_changed or self.is_doubted) and walk.written == WRITTEN.count:
            for holder, name, held in self.hops:
                if getattr(holder, name, None) is not held:
                    break
            else:
                try:
                    return walk.top.find(scope, trail, path, path)
                except RouteChanged:
                    trail.clear()
        hops, walk = way_to_router(self._app), Walk(self._app, self._doors)
        walk.mistakes.raise_if_any()  # routes added later may be such that nobody can ask them
        self.hops, self.walk, self.is_doubted, self.usual = hops, walk, False, walk.top.usual
        return walk.top.find(scope, trail, path, path)

    def header_lines(self, native: tuple[Scope, Trail, str], names: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
        """See `Routes`."""
        found: dict[str, tuple[str, ...]] = {}
        wanted = _as_sent(names)
        for field, value in native[0]["headers"]:
            if field in wanted:
                name = wanted[field]
                found[name] = (*found.get(name, ()), value.decode("latin-1"))
        return found


@lru_cache
def _as_sent(names: frozenset[str]) -> Mapping[bytes, str]:
    """Return the names of header fields by how they stand in a scope."""
    return {name.encode("ascii"): name for name in names}


class _Place(NamedTuple):
    """Where a router stands: the marks of all groups that it is in, the routers above, its path and parameters.

    `prefix` is open (`below`) where a group's own path may be anything. `key` is the prefix as an expression.
    `missing_at` is the router that answers for everything here, where a group on the way conceals it.
    """

    marks: tuple[Mark, ...] = ()
    above: tuple[int, ...] = ()
    prefix: PathPattern = PathPattern((), below=False)
    label: str = ""
    key: str = ""
    params: frozenset[str] = frozenset()
    mounts: tuple[tuple[PathPattern, int], ...] = ()
    missing_at: int | None = None

    def pattern(self, inside: PathPattern) -> PathPattern:
        """Return the pattern from the top of the app for one of a route in here."""
        if self.prefix.below:
            return self.prefix
        return PathPattern((*self.prefix.segments, *inside.segments), inside.below)

    def found_at(self) -> Place:
        """Return who answers for what stands here if it is concealed."""
        return Place(self.above[-1] if self.missing_at is None else self.missing_at, self.mounts)

    def concealed_by(self, marks: Iterable[Mark], router: int) -> _Place:
        """Return this place with more marks of a group in it, for which `router` answers if they conceal it."""
        marks = tuple(marks)
        conceals = self.missing_at is None and any(mark.requirement.conceals for mark in marks)
        return self._replace(marks=distinct((*self.marks, *marks)), missing_at=router if conceals else self.missing_at)


class Walk:
    """One walk through an app: its table of routes, what it serves, and what is wrong with it (`mistakes`).

    `around` is what was seen around routers, `layers` what was seen around endpoints, `routers` and `steps` all that
    has a door or a latch, `answers_itself` the routers that answer unknown paths in a way of their own. Without
    `doors`, nothing is put into the app.
    """

    def __init__(self, app: ASGIApp, doors: Doors | None) -> None:
        self.mistakes = Mistakes("the app")
        self.served: list[Served] = []
        self.around: list[object] = list(layers(app))
        self.layers: list[object] = []
        self.answers_itself: list[str] = []
        self.has_hosts = False
        self.conceals = False
        self.written = WRITTEN.count
        self.watch = Watch()
        self.routers: set[int] = set()
        self.steps: set[int] = set()
        self._doors = doors
        router, self.root_path = router_of(app)
        if router is None:
            raise TypeError("there is no router to walk")
        self.top = self._table(router, _Place(guards_of(router)))

    def misplaced(self) -> Mistakes:
        """Return what must not stand inside of a gate, and does."""
        return misplaced(self.around, self.layers, self.routers)

    def _table(self, router: Any, place: _Place) -> Table:
        """Walk one router at one place."""
        place = place._replace(above=(*place.above, id(router)))
        self.around += wrappers(router.middleware_stack)
        self._hold(router)
        included = tuple(included_routers(router))
        entries = [self._entry(route, needed, place) for route, needed in flat_routes(router)]
        low_priority = {id(route): self._entry(route, (), place)[1] for route in low_priority_routes(router)}
        default = self._default(router, place)
        if default is not None or low_priority:
            self.answers_itself.append(place.label or "/")
        group = None
        if place.marks:
            group = Endpoint(f"{place.label}/**", type(router).__name__, place.marks)
            self._told(group)
        nothing = Found(group, place.found_at())
        return Table(
            router,
            entries=entries,
            low_priority=low_priority,
            by_default=default,
            # FastAPI counts up when it makes the contexts of an included router anew.
            included=[(one, one.routes, one._routes_version) for one in included],  # noqa: SLF001 - FastAPI's own
            nothing=nothing,
        )

    def _hold(self, router: Any) -> None:
        """Put a door before a router, and notice when its lists of routes change."""
        self.routers.add(id(router))
        included = tuple(included_routers(router))
        wrong = next(filter(None, map(own_dispatch, (router, *included))), None)
        if wrong is None and self._doors is not None:
            wrong = self._doors.before_router(router)
        if wrong is not None:
            self.mistakes.add("router", type(router).__name__, wrong)
        if self._doors is not None:
            for holder in (router, *included):
                for name in ("routes", "_low_priority_routes"):
                    if hasattr(holder, name):
                        # FastAPI itself does not notice what is appended to the list of an included router.
                        told = getattr(holder, "_mark_routes_changed", None)
                        setattr(holder, name, watched(getattr(holder, name), self.watch, told))

    def _step(self, holder: Any, attribute: str, step: int) -> int:
        """Put a latch before what a router calls, and return what stands for it in a trail."""
        self.steps.add(step)
        wrong = None if self._doors is None else self._doors.before(holder, attribute, step)
        if wrong is not None:
            self.mistakes.add("route", type(holder).__name__, wrong)
        return step

    def _entry(self, route: Any, needed: tuple[Mark, ...], place: _Place) -> tuple[PathPattern, Entry]:
        """Walk one route."""
        original = original_of(route)
        kind = kind_of(route)
        guards = (*needed, *guards_of(original), *(guards_of(route) if route is not original else ()))
        if original is not route and kind is Route and not is_plain(route, "matches"):
            why = "an included route whose class overrides matches() cannot be asked; add it to the app itself"
            self.mistakes.add("route", getattr(route, "path", ""), why)
        pattern, path_param = pattern_of(route)
        holder, attribute = stepped_into(route)
        is_held = route is original and "app" in vars(route)
        entry = Entry(
            route.matches,
            route,
            _NOWHERE,
            _NOTHING,
            self._step(holder, attribute, id(original) if attribute == "app" else id(holder)),
            holder=route if is_held else None,
            app=route.app if is_held else None,
            path_param=path_param,
            is_plain=is_plain(route, "matches", "handle"),
        )
        self._check_names(route, place)
        expression = getattr(getattr(route, "path_regex", None), "pattern", None)
        above = place.label
        place = place.concealed_by(guards, place.above[-1])._replace(
            params=place.params.union(getattr(route, "param_convertors", None) or ()),
            label=above + label_of(route),
            key=f"{place.key} {expression if is_plain(route, 'matches') and expression is not None else id(route)}",
        )
        if kind is Mount or kind is Host:
            return pattern, self._group(entry, place)
        function = getattr(route, "endpoint", None) or getattr(route, "app", None) or route
        if kind is Route and isinstance(function, Router | Starlette):
            # It sees the whole path, as the router of this route does.
            return pattern, self._entered(entry, function, place._replace(label=above))
        return pattern, self._endpoint(entry, function, place, pattern)

    def _check_names(self, route: Any, place: _Place) -> None:
        """Note a path parameter that hides one of the same name which a group on the way is guarded by."""
        hidden = place.params.intersection(getattr(route, "param_convertors", None) or ())
        for leaf in (leaf for mark in place.marks for leaf in mark.requirement.leaves()):
            if isinstance(leaf, Param) and leaf.name in hidden:
                where = place.label + label_of(route)
                why = f"a group is guarded by its own parameter of this name, which {where} hides: rename one"
                self.mistakes.add("param", leaf.name, why)

    def _endpoint(self, entry: Entry, function: Any, place: _Place, pattern: PathPattern) -> Entry:
        """Note one endpoint."""
        route, kind = entry.route, kind_of(entry.route)
        self.layers += wrappers(getattr(route, "app", None))
        own_needs, takes_identity = needed_by(route)
        frontends = frontend_paths(route)
        endpoint = Endpoint(
            place.label or f"{frontends[0] if len(frontends) == 1 else ''}/**",
            "frontend" if frontends else name_of(function),
            distinct((*place.marks, *marks_of(function), *own_needs)),
            marks_by_method(function),
            takes_identity=takes_identity,
            resolves_paths=bool(frontends),
            pattern=place.pattern(pattern),
        )
        methods = frozenset(getattr(route, "methods", None) or ()) or None
        own_class = None if methods is not None else endpoint_class(function)
        if kind is WebSocketRoute:
            methods = frozenset({WEBSOCKET})
        elif methods is None and kind is Route:
            methods = served_methods(function, endpoint.by_method)
        key = place.key if entry.is_plain and not frontends else None
        self._serves(Served(endpoint.pattern, methods, endpoint, place.params, key))
        is_leaf = kind in {Route, WebSocketRoute} and entry.is_plain and own_class is None and entry.path_param is None
        found = Found(endpoint, place.found_at())
        literal_methods = route.methods if is_leaf and kind is Route and pattern.is_literal and route.methods else ()
        return replace(
            entry, endpoint=endpoint, found=found, kind=own_class, is_leaf=is_leaf, literal_methods=literal_methods
        )

    def _group(self, entry: Entry, place: _Place) -> Entry:
        """Walk a Mount or Host."""
        route = entry.route
        if kind_of(route) is Host:
            self.has_hosts = True
            place = place._replace(label=f"{place.label}{route.host}:", key=f"{place.key} {route.host}")
        else:
            place = place._replace(prefix=place.pattern(prefix_of(route)))
        whole = PathPattern(place.prefix.segments, below=True)
        place = place._replace(mounts=(*place.mounts, (whole, place.above[-1])))
        if not is_plain(route, "handle"):
            return self._opaque(entry, route.app, place)
        return self._entered(entry, mounted(route), place)

    def _entered(self, entry: Entry, app: object, place: _Place) -> Entry:
        """Walk the app that a route leads to; one that cannot be walked is one endpoint."""
        around = tuple(layers(app))
        self.around += around
        found, root_path = router_of(app)
        held = (*around, *([found] if found is not None else []))
        marks = [mark for one in held for mark in (*guards_of(one), *marks_of(one))]
        place = place.concealed_by(marks, place.above[-1])
        if isinstance(around[-1], BaseRoute):
            why = "a route directly in another cannot be walked; put a Router(routes=[...]) between them"
            self.mistakes.add("app", type(around[-1]).__name__, why)
        if found is None or id(found) in place.above:
            return self._opaque(entry, app, place)
        if root_path:
            # The app then sees paths as from there, wherever it is mounted, so that its routes may stand anywhere.
            place = place._replace(prefix=EVERYTHING)
        endpoint = Endpoint(f"{place.label}/**", type(app).__name__, place.marks)
        inner = self._table(found, place)
        return replace(entry, endpoint=endpoint, inner=inner, root_path=root_path, hops=way_to_router(app))

    def _opaque(self, entry: Entry, app: object, place: _Place) -> Entry:
        """Note the one endpoint that an app is which nobody can look into."""
        endpoint = Endpoint(
            f"{place.label}/**",
            name_of(app),
            distinct((*place.marks, *marks_of(app))),
            marks_by_method(app),
            resolves_paths=True,
        )
        self._serves(Served(PathPattern(place.prefix.segments, below=True), None, endpoint, place.params, place.key))
        return replace(entry, endpoint=endpoint, found=Found(endpoint, place.found_at()))

    def _default(self, router: Any, place: _Place) -> Entry | None:
        """Walk what a router runs where no route fits, if that is not its own 404."""
        app = beneath(router.default)
        if app == router.not_found:
            return None
        step = self._step(router, "default", id(app))
        place = place._replace(key=f"{place.key} default")
        entry = Entry(_takes_all, router, _NOWHERE, _NOTHING, step)
        if isinstance(app, Router | Starlette):
            return self._entered(entry, app, place)
        endpoint = Endpoint(
            f"{place.label}/** (default)",
            name_of(app),
            distinct((*place.marks, *(mark for layer in layers(app) for mark in guards_of(layer)), *marks_of(app))),
            marks_by_method(app),
            resolves_paths=True,
        )
        self._serves(Served(PathPattern(place.prefix.segments, below=True), None, endpoint, place.params))
        return replace(entry, endpoint=endpoint, found=Found(endpoint, place.found_at()))

    def _serves(self, served: Served) -> None:
        self.served.append(served)
        self._told(served.endpoint)

    def _told(self, endpoint: Endpoint) -> None:
        self.conceals = self.conceals or any(mark.requirement.conceals for mark in endpoint.all_marks())


# These stand in an entry until its place is walked.
_NOWHERE: Final = Endpoint("", "")
_NOTHING: Final = Found(None)


def _takes_all(scope: Scope) -> tuple[Match, Scope]:
    del scope
    return Match.FULL, {}
