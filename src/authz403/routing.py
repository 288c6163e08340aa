"""Which endpoint will run: asked of the app's own routing objects (Starlette's and FastAPI's), never guessed.

The index only narrows down which routes are asked; each route's own `matches()` has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette._utils import get_route_path
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Match
from starlette.types import Scope

from authz403.endpoint import Betrayed, Endpoint, Found
from authz403.paths import PathIndex, PathPattern, has_dot_segments, is_usual
from authz403.request import KNOWN_METHODS
from authz403.route_objects import lacks

Trail = list[tuple[int, str] | int]
"""The way to an endpoint: each router by its id and the path that it sees, each route by its id."""

_FULL: Final = Match.FULL
_PARTIAL: Final = Match.PARTIAL
_NO_PARAMS: Final[Mapping[str, object]] = {}


Way = tuple[Found, Mapping[str, object]]
"""What is found for a request, and the path parameters as converted."""


class RouteChanged(Exception):  # noqa: N818 - never leaves the rooms of routing
    """The app's routes are not those that the table was made of."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A route as its router asks it: where it leads, and what stands there."""

    matches: Callable[[Scope], tuple[Match, Scope]]
    route: Any
    endpoint: Endpoint
    found: Found
    """What is found where the route takes a request, but for its parameters."""
    step: int
    """The id of the route, for the trail."""
    holder: Any = None
    """The route whose `app` is what it leads to, where that attribute is looked at only when the route is taken."""
    app: object = None
    """What that attribute was when the table was made."""
    hops: tuple[tuple[object, str, object], ...] = ()
    """What leads from that app to the router of `inner`: what holds the next, by which attribute, and the next."""
    inner: Table | None = None
    root_path: str = ""
    """The root path that a mounted FastAPI app sets by itself."""
    path_param: str | None = None
    """The name of the route's `path` parameter, which may take dot segments."""
    kind: type[HTTPEndpoint] | None = None
    """The class of a class-based endpoint, where the route leaves it to that which methods there are."""
    is_plain: bool = True
    """Whether matching and handling are Starlette's or FastAPI's own."""
    is_leaf: bool = False
    """Whether a request that the route takes in full runs its endpoint, with no more to be asked."""
    literal_methods: Collection[str] = ()
    """The methods of a leaf without path parameters: it takes what the index leads to it of these."""

    def answers_405(self, scope: Scope) -> bool:
        """Tell whether the route, which matches in part, answers 405 by itself; else it runs its endpoint."""
        methods = getattr(self.route, "methods", None)
        return self.is_plain and methods is not None and bool(methods) and scope.get("method") not in methods


@dataclass(frozen=True, slots=True)
class Written:
    """What is found at a path that is written out, and the way there; `holder` and `app` are those of the entry."""

    found: Found
    trail: Trail
    holder: Any
    app: object


class Table:
    """The routes of one router at one place, as they were when the table was made.

    `nothing` is what is found where no route takes a request that is let in here. `written` are routes whose paths are
    written out, by path and method: that spares the half of a look-up, and where it were wrong, the route's latch would
    answer 500. `usual` are those of the paths that every reader reads alike.
    """

    __slots__ = (
        *("_by_default", "_id", "_index", "_low_priority", "_nothing"),
        *("default", "included", "router", "routes", "usual", "written"),
    )

    def __init__(
        self,
        router: Any,
        *,
        entries: Iterable[tuple[PathPattern, Entry]],
        low_priority: Mapping[int, Entry],
        by_default: Entry | None,
        included: Iterable[tuple[Any, object, object]],
        nothing: Found,
    ) -> None:
        self._id = id(router)
        self.router = router
        self.routes = router.routes
        self.default = router.default
        listed = tuple(entries)
        self._index = PathIndex(listed)
        self.written = self._written_out({pattern.as_path() for pattern, _ in listed if pattern.is_literal})
        self.usual = frozenset(path for path, _ in self.written if is_usual(path))
        self._low_priority = low_priority
        self._by_default = by_default
        self.included = tuple(included)
        self._nothing = nothing

    def find(self, scope: Scope, trail: Trail, path: str, full_path: str) -> Way:
        """Do as `Router.app` does, up to running what it finds. Raises `RouteChanged`.

        `path` is what the router sees, `full_path` what the router at the top saw.
        """
        router = self.router
        if router.routes is not self.routes or router.default is not self.default:
            raise RouteChanged
        if self.included and self.included_changed():
            raise RouteChanged
        written = self.written.get((path, scope.get("method")))  # the method of WebSockets is none
        if written is not None and (written.holder is None or written.holder.app is written.app):
            trail += written.trail
            return written.found, scope.get("path_params") or _NO_PARAMS
        trail.append((self._id, path))
        partial: tuple[Entry, Scope] | None = None
        for entry in self._index.find(path):
            match, child_scope = entry.matches(scope)
            if match is _FULL:
                if entry.is_leaf and (entry.holder is None or entry.holder.app is entry.app):
                    trail.append(entry.step)
                    return entry.found, child_scope["path_params"]
                return self._taken(entry, scope, child_scope, trail, full_path, path)
            if match is _PARTIAL and partial is None:
                partial = (entry, child_scope)
        if partial is not None:
            entry, child_scope = partial
            if not entry.answers_405(scope):
                return self._taken(entry, scope, child_scope, trail, full_path, path)
            trail.append(entry.step)
            return self._not_taken(scope, _betrayed(entry, full_path))
        return self._redirected(scope, full_path, path) or self._otherwise(scope, trail, full_path, path)

    def included_changed(self) -> bool:
        """Tell whether a router that is included here has other routes now."""
        return any(
            one.routes is not routes or one._routes_version != version  # noqa: SLF001 - FastAPI's own
            for one, routes, version in self.included
        )

    def _written_out(self, paths: Iterable[str]) -> Mapping[tuple[str, str | None], Written]:
        """Return the routes of these paths, as far as none that may take a request stands before."""
        found: dict[tuple[str, str | None], Written] = {}
        for path in paths:
            for entry in self._index.find(path):
                if not entry.literal_methods:
                    break
                for method in entry.literal_methods:
                    trail: Trail = [(self._id, path), entry.step]
                    found.setdefault((path, method), Written(entry.found, trail, entry.holder, entry.app))
        return found

    def _redirected(self, scope: Scope, full_path: str, path: str) -> Way | None:
        """Return what the router's own redirect tells, which adds a slash or takes some away."""
        if scope["type"] != "http" or not self.router.redirect_slashes or path == "/":
            return None
        redirected = {**scope, "path": scope["path"].rstrip("/") if path.endswith("/") else scope["path"] + "/"}
        elsewhere = get_route_path(redirected)
        for entry in self._index.find(elsewhere):
            if entry.matches(redirected)[0] is not Match.NONE:
                to = full_path[: len(full_path) - len(path)] + elsewhere
                return self._not_taken(scope, _betrayed(entry, to))
        return None

    def _taken(
        self, entry: Entry, scope: Scope, child_scope: Mapping[str, Any], trail: Trail, full_path: str, path: str
    ) -> Way:
        if entry.holder is not None and entry.holder.app is not entry.app:
            raise RouteChanged
        trail.append(entry.step)
        if entry.inner is not None:
            if any(getattr(holder, name, None) is not held for holder, name, held in entry.hops):
                raise RouteChanged
            within = {**scope, **child_scope}
            if entry.root_path:
                within["root_path"] = entry.root_path
            return entry.inner.find(within, trail, get_route_path(within), full_path)
        if entry.kind is not None and lacks(entry.kind, scope.get("method", "")):
            return self._not_taken(scope, _betrayed(entry, full_path))
        params = child_scope.get("path_params")
        if params is None:
            params = scope.get("path_params")
        found = entry.found
        if entry.path_param is not None and _only_param_has_dots(entry, path, full_path):
            found = replace(found, takes_dot_segments=True)
        return found, params or _NO_PARAMS

    def _otherwise(self, scope: Scope, trail: Trail, full_path: str, path: str) -> Way:
        """Return what comes where no route takes a request: FastAPI's frontends, then the router's default."""
        if self._low_priority:
            match, _, route, context = self.router._match_low_priority(dict(scope))  # noqa: SLF001 - FastAPI's frontends are asked nowhere else
            if match is not Match.NONE:
                entry = self._low_priority.get(id(context if context is not None else route))
                if entry is None:
                    raise RouteChanged
                if match is Match.FULL:
                    return self._taken(entry, scope, {}, trail, full_path, path)
                trail.append(entry.step)
                return self._not_taken(scope, _betrayed(entry, full_path))
        if self._by_default is None:
            return self._not_taken(scope)
        return self._taken(self._by_default, scope, {}, trail, full_path, path)

    def _not_taken(self, scope: Scope, betrayed: Betrayed | None = None) -> Way:
        found = self._nothing if betrayed is None else replace(self._nothing, betrayed=betrayed)
        return found, scope.get("path_params", _NO_PARAMS)


def _betrayed(entry: Entry, path: str) -> Betrayed:
    """Return what a router's own 405 or redirect tells: the endpoint, and the requests that would reach it."""
    named, kind = getattr(entry.route, "methods", None), entry.kind
    reaching = (one for one in KNOWN_METHODS if (not named or one in named) and not (kind and lacks(kind, one)))
    return Betrayed(entry.endpoint, tuple(reaching), path)


def _only_param_has_dots(entry: Entry, path: str, full_path: str) -> bool:
    """Tell whether a path has dot segments, and only in what the route's own `path` parameter takes."""
    if not has_dot_segments(full_path):
        return False
    found = entry.route.path_regex.match(path)
    if found is None or entry.path_param is None:
        return False
    start, end = found.span(entry.path_param)
    before = len(full_path) - len(path)
    return not has_dot_segments(full_path[: before + start] + "_" + full_path[before + end :])
