"""The routes of a Flask app: its own `url_map` asked what would run, and one walk that makes tables of its rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from flask import Flask, Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import MapAdapter, PathConverter, RequestRedirect

from authz403.endpoint import Asked, Betrayed, Endpoint, Found, Served
from authz403.errors import Mistakes
from authz403.marks import WRITTEN, Mark, distinct, guards_of, marks_by_method, marks_of, name_of, unwrapped
from authz403.paths import PathPattern, has_dot_segments
from authz403.request import KNOWN_METHODS, lines_in_environ

if TYPE_CHECKING:
    from werkzeug.routing import Rule


Bind = Callable[[Any], MapAdapter]
_OPTIONS: Final = frozenset({"OPTIONS"})
_ALL_METHODS: Final = frozenset(KNOWN_METHODS)
_NO_PARAMS: Final[Mapping[str, object]] = MappingProxyType({})
_MOST_REDIRECTS: Final = 3  # an alias, then defaults, then a slash; an app may redirect in circles


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

    def __init__(self, app: Flask, bound: Bind, standing: Any, environ: dict[str, Any]) -> None:  # noqa: ANN401 - or a request of the app's own class
        self.standing = standing
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
    return tuple(map(environ.get, _COUNTS))


_COUNTS: Final = (
    *("PATH_INFO", "REQUEST_METHOD", "SCRIPT_NAME", "QUERY_STRING", "wsgi.url_scheme"),
    *("HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "HTTP_CONNECTION", "HTTP_UPGRADE"),
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


def handed_on(adapter: MapAdapter, judged: Judged, *, is_missing: bool) -> None:
    """Make an adapter of werkzeug's own class hand on what was judged."""
    adapter.__class__ = HandedOn  # a copy would cost every request a microsecond
    handed: HandedOn = adapter  # type: ignore[assignment]  # by now
    handed.judged, handed.is_missing = judged, is_missing


class FlaskRoutes:
    """The routes of one Flask app, walked when a gate meets them, and again when they change."""

    usual: Final[frozenset[str]] = frozenset()

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._bound: Bind = app.create_url_adapter  # type: ignore[assignment]  # of a request, it is never none
        self._is_own = type(app).create_url_adapter is Flask.create_url_adapter and "create_url_adapter" not in vars(
            app
        )
        self._standing: Callable[[dict[str, Any]], object] = app.request_class
        self._walk: FlaskWalk | None = None

    @property
    def walk(self) -> FlaskWalk:
        """What was found by walking through the app."""
        return self._walk or self._walked()

    def find(self, asked: Asked[dict[str, Any]]) -> tuple[Found, Mapping[str, object]]:
        """Return what the app's own router would do with a request, and leave in `asked.answer` what it said."""
        environ, path, answer = asked
        judged = Judged(self._app, self._bound, self._standing(environ), environ)
        answer.append(judged)
        rule = judged.rule
        if rule is None:
            return self._untaken(judged), _NO_PARAMS
        known = self._known(rule, judged.view)
        found = known.found
        if known.path_param is not None and _only_param_has_dots(path, str(judged.params[known.path_param])):
            found = replace(found, takes_dot_segments=True)
        if known.slash is not None and path.endswith("/") is not known.slash:
            found = replace(found, own_path=f"{path}/" if known.slash else path[:-1])
        if environ["REQUEST_METHOD"] == "OPTIONS" and known.answers_options:
            # Flask itself answers, with the methods of all rules for this path.
            found = replace(found, betrayed=self._betrayed(judged, path))
        return found, judged.params

    def header_lines(self, asked: Asked[dict[str, Any]], names: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
        """See `Routes`."""
        return lines_in_environ(asked.native, names)

    def _walked(self) -> FlaskWalk:
        kind = self._app.request_class
        # What Flask itself looks at costs a tenth of what an app may look at, such as hosts that its requests trust.
        is_own = self._is_own and kind.__init__ is Request.__init__ and kind.trusted_hosts is None
        self._standing = Standing if is_own else kind
        self._walk = walk = FlaskWalk(self._app)
        return walk

    def _known(self, rule: Rule, view: object) -> Known:
        """Return what is known of a rule, after another walk if rules, views or marks are not what they were."""
        walk = self.walk
        known = walk.rules.get(id(rule))
        if (
            known is None
            or walk.written != WRITTEN.count
            or known.rule is not rule
            or known.view is not view
            or known.kind is not getattr(view, "view_class", None)
        ):
            walk = self._walked()
            walk.mistakes.raise_if_any()  # what was added later may be such that nobody can ask it
            known = walk.rules[id(rule)]
        return known

    def _untaken(self, judged: Judged) -> Found:
        """Return what holds where the app answers by itself: 404, 405, a redirect, or 400 for a host."""
        betrayed = None
        if isinstance(judged.error, MethodNotAllowed | RequestRedirect) and judged.adapter is not None:
            path = judged.adapter.path_info
            if isinstance(judged.error, RequestRedirect):
                path = _target(judged.error, judged.adapter)
            betrayed = self._betrayed(judged, path)
        walk = self.walk if self.walk.written == WRITTEN.count else self._walked()
        return Found(walk.group, betrayed=betrayed)

    def _betrayed(self, judged: Judged, path: str, hops: int = _MOST_REDIRECTS) -> Betrayed | None:
        """Return what is told by an answer that rests on the rules of a path: the one to hide, where there is any.

        Where those rules only redirect, it is what stands behind that, after so many `hops` at most.
        """
        reaching: dict[str, Endpoint] = {}
        redirect: RequestRedirect | None = None
        for method in KNOWN_METHODS:
            try:
                rule, _ = judged.adapter.match(path, method, return_rule=True)  # type: ignore[union-attr]  # it matched
            except RequestRedirect as error:
                redirect = error
                continue
            except HTTPException:
                continue
            reaching[method] = self._known(rule, self._app.view_functions.get(rule.endpoint)).endpoint
        if not reaching:
            if redirect is None or not hops:
                return None
            return self._betrayed(judged, _target(redirect, judged.adapter), hops - 1)  # type: ignore[arg-type]  # as above
        told = next(
            (endpoint for method, endpoint in reaching.items() if _conceal(endpoint.marks_for(method))),
            next(iter(reaching.values())),
        )
        return Betrayed(told, tuple(reaching), path)


class Known(NamedTuple):
    """What was found out about one rule: the view behind it with its class, and its policies."""

    rule: Rule
    view: object
    kind: object
    endpoint: Endpoint
    found: Found
    path_param: str | None
    """The parameter that takes slashes, if there is one."""
    slash: bool | None
    """Whether its path ends with a slash, where werkzeug takes it with and without one."""
    answers_options: bool
    """Whether Flask answers OPTIONS by itself."""


class FlaskWalk:
    """One walk through the rules of an app: what it serves, and what is wrong with it (`mistakes`).

    `group` is the app itself, if that is guarded.
    """

    answers_itself: tuple[str, ...] = ()

    def __init__(self, app: Flask) -> None:
        self.mistakes = Mistakes("the app")
        self.written = WRITTEN.count
        self.served: list[Served] = []
        self.rules: dict[int, Known] = {}
        self.has_hosts = app.url_map.host_matching
        self._app = app
        guards = guards_of(app)
        self.group = Endpoint("/**", type(app).__name__, guards) if guards else None
        self.conceals = _conceal(guards)
        for rule in app.url_map.iter_rules():
            self._take(rule, guards)

    def misplaced(self) -> Mistakes:
        """Return what must not stand inside of a gate, and does."""
        mistakes = Mistakes("the app")
        after = (function for functions in self._app.after_request_funcs.values() for function in functions)
        around = (layer for view in self._app.view_functions.values() for layer in unwrapped(view))
        if any(_is_cors(function) for functions in (after, around) for function in functions):
            why = (
                "it stands inside the gate, so that refusals and preflights never reach it; remove it and give the "
                "gate cors=Cors(...)"
            )
            mistakes.add("CORS", "flask_cors", why)
        return mistakes

    def _take(self, rule: Rule, guards: tuple[Mark, ...]) -> None:
        """Note one rule and what stands behind it."""
        view = self._app.view_functions.get(rule.endpoint)
        kind = next(filter(None, (getattr(layer, "view_class", None) for layer in unwrapped(view))), None)
        groups = [guards_of(self._app.blueprints.get(name)) for name in _blueprints(rule.endpoint)]
        marks = [*(mark for group in groups for mark in group), *marks_of(view)]
        if kind is not None:
            marks += [*marks_of(kind), *marks_of(getattr(kind, "dispatch_request", None))]
        by_method = marks_by_method(kind)
        by_method.pop("DISPATCH_REQUEST", None)
        self._check_marks(rule, view, kind, by_method)
        pattern, taking = _pattern_of(rule)
        endpoint = Endpoint(
            f"{rule.host or rule.subdomain}:{rule.rule}" if rule.host or rule.subdomain else rule.rule,
            name_of(view),
            distinct((*guards, *marks)),
            by_method,
            resolves_paths=pattern.below,
            pattern=pattern,
        )
        self.conceals = self.conceals or _conceal(endpoint.all_marks())
        self.has_hosts = self.has_hosts or bool(rule.subdomain)
        # A final parameter that takes slashes takes the last one, too.
        slash = rule.is_branch if not rule.strict_slashes and (rule.is_branch or not pattern.below) else None
        answers_options = bool(getattr(rule, "provide_automatic_options", False))
        if not rule.build_only:
            self._serves(rule, endpoint, slash=slash, answers_options=answers_options)
        if rule.redirect_to is not None and marks:
            why = "werkzeug redirects it before anybody can be asked who they are; write a view that redirects"
            self.mistakes.add("redirect_to", endpoint.route, why)
        self.rules[id(rule)] = Known(
            *(rule, view, getattr(view, "view_class", None), endpoint, Found(endpoint)),
            *(taking[0] if len(taking) == 1 else None, slash, answers_options),
        )

    def _serves(self, rule: Rule, endpoint: Endpoint, *, slash: bool | None, answers_options: bool) -> None:
        """Note what requests a rule takes."""
        params, pattern = frozenset(rule.arguments), endpoint.pattern
        methods = frozenset(rule.methods or ()) or None
        answered = _OPTIONS if answers_options else frozenset[str]()
        if rule.redirect_to is not None:
            methods, answered = frozenset(), methods or _ALL_METHODS
        self.served.append(Served(pattern, methods and methods - answered, endpoint, params, answered=answered))
        if slash is not None and not pattern.below:
            # The same under its other spelling, which rules may name.
            segments = pattern.segments[:-1] if slash else (*pattern.segments, "")
            other = PathPattern(segments, below=False)
            self.served.append(Served(other, frozenset(), endpoint, params, answered=(methods or _ALL_METHODS)))

    def _check_marks(self, rule: Rule, view: object, kind: object, by_method: Iterable[str]) -> None:
        """Note marks that no request would ever meet."""
        for holder in (*unwrapped(view), kind):
            if guards_of(holder):
                why = "a view is no group, so that nobody would read its guard; mark it by @requires(...)"
                self.mistakes.add("guard", f"{rule.rule} {name_of(view)}", why)
                break
        for name in by_method:
            if name not in KNOWN_METHODS and name not in (rule.methods or ()):
                why = "no request runs this method, so that its mark holds for nothing; mark the class, or get, post..."
                self.mistakes.add("requires", f"{name_of(kind)}.{name.lower()}", why)


def _target(redirect: RequestRedirect, adapter: MapAdapter) -> str:
    """Return the path, as the app's router sees it, that a redirect leads to."""
    path = unquote(urlsplit(redirect.new_url).path)
    return "/" + path.removeprefix(adapter.script_name).removeprefix("/")


def _blueprints(endpoint: str) -> Iterator[str]:
    """Yield the names of the blueprints that an endpoint is in, the outermost first."""
    names = endpoint.split(".")[:-1]
    for depth in range(1, len(names) + 1):
        yield ".".join(names[:depth])


def _conceal(marks: tuple[Mark, ...]) -> bool:
    return any(mark.requirement.conceals for mark in marks)


def _is_cors(function: object) -> bool:
    """Tell whether a function is one of Flask-CORS, or one that its decorator made."""
    modules = (getattr(function, "__module__", None), getattr(function, "__globals__", {}).get("__name__"))
    return any(isinstance(name, str) and name.partition(".")[0] == "flask_cors" for name in modules)


def _pattern_of(rule: Rule) -> tuple[PathPattern, list[str]]:
    """Return the pattern of a rule's path, and the parameters of Flask's own kind that take slashes.

    From the first parameter on that may take a slash, or nothing at all, the pattern is everything below.
    """
    taking = []
    segments: list[str | None] = []
    below = False
    # What werkzeug itself matches by: rules are rewritten where slashes are merged, and converters take arguments.
    trace, converters = rule._trace, rule._converters  # noqa: SLF001
    for is_parameter, text in trace[trace.index((False, "|")) + 1 :]:
        if is_parameter:
            converter = converters[text]
            if type(converter) is PathConverter:
                taking.append(text)
            below = below or not converter.part_isolating or re.fullmatch(converter.regex, "") is not None
        if below:
            continue
        if text == "/" and not is_parameter:
            segments.append("")
        elif is_parameter or segments[-1] is None:
            segments[-1] = None
        else:
            segments[-1] = text
    if below:
        segments.pop()
    return PathPattern(tuple(segments), below), taking


def _only_param_has_dots(path: str, value: str) -> bool:
    """Tell whether a path has dot segments, and only in what the rule's own `path` parameter took."""
    return has_dot_segments(path) and path.count(value) == 1 and not has_dot_segments(path.replace(value, "_"))
