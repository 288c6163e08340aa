"""The routes of a Flask app: its own `url_map` asked what would run, and one walk that makes tables of its rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from flask import Flask
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import MapAdapter, PathConverter, RequestRedirect

from authz403.endpoint import Asked, Betrayed, Endpoint, Found, Served
from authz403.errors import Mistakes
from authz403.marks import WRITTEN, Mark, distinct, guards_of, marks_by_method, marks_of, name_of
from authz403.paths import PathPattern, has_dot_segments, split
from authz403.request import KNOWN_METHODS

if TYPE_CHECKING:
    from werkzeug.routing import Rule


Bind = Callable[[Any], MapAdapter]
_OPTIONS: Final = frozenset({"OPTIONS"})
_NO_PARAMS: Final[Mapping[str, object]] = MappingProxyType({})


class Standing:
    """Stands for the request that the app will make of an environ, where a `url_map` is bound to it."""

    trusted_hosts: list[str] | None = None

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ


class Judged:
    """What the app's own router makes of a request: a rule with its arguments, or an error of its own.

    The app is handed this later, so that it runs what was judged and matches no request twice. `adapter` is none where
    the router cannot even be asked, as for a host that is no name, and once it was handed on. `view` is the function
    behind the rule, and `seen` all that this rests on.
    """

    __slots__ = ("adapter", "error", "method", "params", "rule", "seen", "standing", "view")

    adapter: MapAdapter | None
    rule: Rule | None
    params: Mapping[str, Any]
    error: HTTPException | None

    def __init__(self, app: Flask, bound: Bind, environ: dict[str, Any]) -> None:
        self.standing = Standing(environ)
        self.seen = what_counts(environ)
        self.method: str = environ["REQUEST_METHOD"]
        self.adapter = self.rule = self.error = self.view = None
        self.params = _NO_PARAMS
        try:
            self.adapter = adapter = bound(self.standing)
            self.rule, self.params = adapter.match(return_rule=True)
        except HTTPException as error:
            self.error = error
        else:
            self.view = app.view_functions.get(self.rule.endpoint)


def what_counts(environ: Mapping[str, Any]) -> tuple[object, ...]:
    """Return all of an environ that a `url_map` looks at."""
    get = environ.get
    return (
        *(get("PATH_INFO"), get("REQUEST_METHOD"), get("SCRIPT_NAME"), get("QUERY_STRING"), get("wsgi.url_scheme")),
        *(get("HTTP_HOST"), get("SERVER_NAME"), get("SERVER_PORT"), get("HTTP_CONNECTION"), get("HTTP_UPGRADE")),
    )


class HandedOn(MapAdapter):
    """What binds the app's rules to a request that was judged: it says what was said then, and matches nothing anew."""

    judged: Judged
    is_missing: bool
    """Whether the app is to answer as for a path that it does not know."""

    def match(
        self,
        path_info: str | None = None,
        method: str | None = None,
        return_rule: bool = False,  # noqa: FBT001, FBT002 - as werkzeug has it
        query_args: Any = None,  # noqa: ANN401 - as werkzeug has it
        websocket: bool | None = None,  # noqa: FBT001 - as werkzeug has it
    ) -> tuple[Any, Mapping[str, Any]]:
        """Return the rule and arguments of this request; asked about any other, match that."""
        if (path_info, method, query_args, websocket) != (None, None, None, None) or not return_rule:
            return super().match(path_info, method, return_rule, query_args, websocket)  # type: ignore[call-overload, no-any-return]  # any of them
        if self.is_missing:
            raise NotFound
        if self.judged.error is not None:
            raise self.judged.error
        return self.judged.rule, self.judged.params


def handed_on(judged: Judged, *, is_missing: bool) -> HandedOn | None:
    """Return what hands on to the app what was judged, if that is a match as werkzeug makes them; once."""
    adapter, judged.adapter = judged.adapter, None  # neither may keep the other alive
    if type(adapter) is not MapAdapter:
        return None
    adapter.__class__ = HandedOn  # a copy would cost every request a microsecond
    handed: HandedOn = adapter  # type: ignore[assignment]  # by now
    handed.judged, handed.is_missing = judged, is_missing
    return handed


class FlaskRoutes:
    """The routes of one Flask app, walked when a gate meets them, and again when they change."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._bound: Bind = app.create_url_adapter  # type: ignore[assignment]  # of a request, it is never none
        self._walk: FlaskWalk | None = None

    @property
    def walk(self) -> FlaskWalk:
        """What was found by walking through the app."""
        if self._walk is None:
            self._walk = FlaskWalk(self._app)
        return self._walk

    def find(self, asked: Asked[dict[str, Any]]) -> tuple[Found, Mapping[str, object]]:
        """Return what the app's own router would do with a request, and leave in `asked.answer` what it said."""
        judged = Judged(self._app, self._bound, asked.native)
        asked.answer.append(judged)
        walk = self.walk
        rule = judged.rule
        if rule is None:
            return walk.untaken(judged), _NO_PARAMS
        known = walk.rules.get(id(rule))
        if known is None or known.rule is not rule or known.view is not judged.view or walk.written != WRITTEN.count:
            walk = FlaskWalk(self._app)
            walk.mistakes.raise_if_any()  # what was added later may be such that nobody can ask it
            self._walk = walk
            known = walk.rules[id(rule)]
        found = known.found
        if known.path_param is not None and _only_param_has_dots(asked.path, str(judged.params[known.path_param])):
            found = found._replace(takes_dot_segments=True)
        if asked.native["REQUEST_METHOD"] == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
            # Flask itself answers, with the methods of all rules for this path.
            found = found._replace(betrayed=walk.betrayed(judged, asked.path))
        return found, judged.params


class Known(NamedTuple):
    """What was found out about one rule: the view behind it, its policies, and the parameter that takes slashes."""

    rule: Rule
    view: object
    found: Found
    path_param: str | None


class FlaskWalk:
    """One walk through the rules of an app: what it serves, and what is wrong with it (`mistakes`)."""

    answers_itself: tuple[str, ...] = ()

    def __init__(self, app: Flask) -> None:
        self.mistakes = Mistakes("the app")
        self.written = WRITTEN.count
        self.served: list[Served] = []
        self.rules: dict[int, Known] = {}
        self.has_hosts = app.url_map.host_matching
        self._app = app
        guards = guards_of(app)
        self._untaken = Found(Endpoint("/**", type(app).__name__, guards) if guards else None)
        self.conceals = _conceal(guards)
        for rule in app.url_map.iter_rules():
            self._take(rule, guards)

    def misplaced(self) -> Mistakes:
        """Return what must not stand inside of a gate, and does."""
        mistakes = Mistakes("the app")
        for functions in self._app.after_request_funcs.values():
            if any(getattr(function, "__module__", "").partition(".")[0] == "flask_cors" for function in functions):
                why = (
                    "it stands inside the gate, so that refusals and preflights never reach it; remove it and give the "
                    "gate cors=Cors(...)"
                )
                mistakes.add("CORS", "flask_cors", why)
                break
        return mistakes

    def untaken(self, judged: Judged) -> Found:
        """Return what holds where the app answers by itself: 404, 405, a redirect, or 400 for a host."""
        if isinstance(judged.error, MethodNotAllowed | RequestRedirect) and judged.adapter is not None:
            path = judged.adapter.path_info
            if isinstance(judged.error, RequestRedirect):
                path = unquote(urlsplit(judged.error.new_url).path)
                path = "/" + path.removeprefix(judged.adapter.script_name).removeprefix("/")
            return self._untaken._replace(betrayed=self.betrayed(judged, path))
        return self._untaken

    def betrayed(self, judged: Judged, path: str) -> Betrayed | None:
        """Return what is told by an answer that rests on the rules of a path: the one to hide, where there is any."""
        reaching: dict[str, Endpoint] = {}
        for method in KNOWN_METHODS:
            try:
                rule, _ = judged.adapter.match(path, method, return_rule=True)  # type: ignore[union-attr]  # it matched
            except HTTPException:
                continue
            known = self.rules.get(id(rule))
            if known is not None and known.found.endpoint is not None:
                reaching[method] = known.found.endpoint
        if not reaching:
            return None
        told = next(
            (endpoint for method, endpoint in reaching.items() if _conceal(endpoint.marks_for(method))),
            next(iter(reaching.values())),
        )
        return Betrayed(told, tuple(reaching), path)

    def _take(self, rule: Rule, guards: tuple[Mark, ...]) -> None:
        """Note one rule and what stands behind it."""
        view = self._app.view_functions.get(rule.endpoint)
        kind = getattr(view, "view_class", None)
        groups = [guards_of(self._app.blueprints.get(name)) for name in _blueprints(rule.endpoint)]
        marks = [*guards, *(mark for group in groups for mark in group), *marks_of(view)]
        if kind is not None:
            marks += [*marks_of(kind), *marks_of(getattr(kind, "dispatch_request", None))]
        pattern, params = _pattern_of(rule)
        endpoint = Endpoint(
            f"{rule.host or rule.subdomain}:{rule.rule}" if rule.host or rule.subdomain else rule.rule,
            name_of(view),
            distinct(marks),
            marks_by_method(kind),
            resolves_paths=pattern.below,
            pattern=pattern,
        )
        self.conceals = self.conceals or _conceal(endpoint.all_marks())
        self.has_hosts = self.has_hosts or bool(rule.subdomain)
        if not rule.build_only:
            methods = frozenset(rule.methods or ()) or None
            answered = _OPTIONS if getattr(rule, "provide_automatic_options", False) else frozenset[str]()
            methods = None if methods is None else methods - answered
            self.served.append(Served(pattern, methods, endpoint, frozenset(rule.arguments), answered=answered))
        self.rules[id(rule)] = Known(rule, view, Found(endpoint), params[0] if len(params) == 1 else None)


def _blueprints(endpoint: str) -> Iterator[str]:
    """Yield the names of the blueprints that an endpoint is in, the outermost first."""
    names = endpoint.split(".")[:-1]
    for depth in range(1, len(names) + 1):
        yield ".".join(names[:depth])


def _conceal(marks: tuple[Mark, ...]) -> bool:
    return any(mark.requirement.conceals for mark in marks)


# As werkzeug writes it: <name>, <converter:name>, <converter(arguments):name>
_PARAMETER: Final = re.compile(r"<(?:(?P<converter>[a-zA-Z_]\w*)(?:\(.*?\))?:)?(?P<name>[a-zA-Z_]\w*)>")


def _pattern_of(rule: Rule) -> tuple[PathPattern, list[str]]:
    """Return the pattern of a rule's path, and the parameters of Flask's own kind that take slashes.

    From the first parameter that may take a slash on, the pattern is everything below.
    """
    taking = []
    segments: list[str | None] = []
    marked, found = "\0", []

    def noted(match: re.Match[str]) -> str:
        found.append(match)
        return marked

    below = False
    converters = rule.map.converters if rule.map is not None else {}
    for segment in split(_PARAMETER.sub(noted, rule.rule)):
        for _ in range(segment.count(marked)):
            match = found.pop(0)
            converter = converters.get(match["converter"] or "default")
            if converter is PathConverter:
                taking.append(match["name"])
            below = below or converter is None or not converter.part_isolating
        if not below:
            segments.append(None if marked in segment else segment)
    return PathPattern(tuple(segments), below), taking


def _only_param_has_dots(path: str, value: str) -> bool:
    """Tell whether a path has dot segments, and only in what the rule's own `path` parameter took."""
    return has_dot_segments(path) and path.count(value) == 1 and not has_dot_segments(path.replace(value, "_"))
