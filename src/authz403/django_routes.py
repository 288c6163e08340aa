"""The routes of a Django project: its own resolver asked what would run, and one walk through its URLconf."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.urls import Resolver404, get_resolver
from django.urls.converters import IntConverter, PathConverter, SlugConverter, StringConverter, UUIDConverter
from django.urls.resolvers import LocalePrefixPattern, RegexPattern, RoutePattern, URLPattern, URLResolver
from django.utils.module_loading import import_string
from django.utils.translation import get_language

from authz403.endpoint import Asked, Betrayed, Endpoint, Found, Served
from authz403.errors import Mistakes
from authz403.marks import WRITTEN, Mark, distinct, marks_by_method, marks_of, name_of, unwrapped
from authz403.paths import EVERYTHING, PathPattern, has_dot_segments, split
from authz403.request import KNOWN_METHODS, lines_in_environ

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.urls import ResolverMatch

_NO_PARAMS: Final[Mapping[str, object]] = MappingProxyType({})
_ONE_SEGMENT: Final = frozenset({IntConverter, SlugConverter, StringConverter, UUIDConverter})
_MOST_KNOWN: Final = 1_000  # views of URLconfs that are made as requests come
_ACTIONS: Final = ("list", "create", "retrieve", "update", "partial_update", "destroy")
_LOCALE: Final = "django.middleware.locale.LocaleMiddleware"
_CORS: Final = "corsheaders.middleware.CorsMiddleware"


class Judged(NamedTuple):
    """What Django would run for a request, and what that rests on; no match where its resolver finds nothing."""

    urlconf: object
    path: str
    method: str | None
    match: ResolverMatch | None

    def is_still(self, request: HttpRequest, view: object) -> bool:
        """Tell whether a request is the one that was judged, and this view the one that was found for it."""
        match, now = self.match, request.resolver_match
        return (
            match is not None
            and now is not None
            and view is match.func
            and (request.path_info, request.method, urlconf_of(request)) == (self.path, self.method, self.urlconf)
            and (now.route, now.namespaces) == (match.route, match.namespaces)
        )


def urlconf_of(request: HttpRequest) -> object:
    """Return the URLconf that Django will resolve a request by."""
    return getattr(request, "urlconf", None) or settings.ROOT_URLCONF


def judged(request: HttpRequest) -> Judged:
    """Ask Django's own resolver what it would run for a request."""
    urlconf, path = urlconf_of(request), request.path_info
    try:
        match = get_resolver(urlconf).resolve(path)  # type: ignore[arg-type]  # a name, a module or a list
    except Resolver404:
        match = None
    return Judged(urlconf, path, request.method, match)


def request_of(environ: dict[str, Any]) -> HttpRequest:
    """Return the request that Django makes of an environ."""
    return WSGIRequest(environ)


class DjangoRoutes:
    """The routes of one Django project, walked through its `ROOT_URLCONF`."""

    usual: Final[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.walk = DjangoWalk()
        self._known: dict[tuple[int, str, bool], Known] = {}

    def find(self, asked: Asked[HttpRequest]) -> tuple[Found, Mapping[str, object]]:
        """Return what Django would do with a request, and leave in `asked.answer` what it said."""
        found = judged(asked.native)
        asked.answer.append(found)
        match = found.match
        if match is None:
            return self._untaken(found), _NO_PARAMS
        known = self._known_of(match, found.urlconf)
        told = known.found
        if known.path_param is not None and _only_param_has_dots(found.path, str(match.kwargs[known.path_param])):
            told = replace(told, takes_dot_segments=True)
        if known.methods is not None and found.method not in known.methods:
            # The class answers 405, or OPTIONS by itself, with the methods that it has.
            told = replace(told, betrayed=Betrayed(known.endpoint, tuple(known.methods), found.path))
        return told, match.kwargs

    def header_lines(self, asked: Asked[HttpRequest], names: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
        """See `Routes`."""
        return lines_in_environ(asked.native.META, names)  # by ASGI, Django makes an environ, too

    def _known_of(self, match: ResolverMatch, urlconf: object) -> Known:
        """Return what is known of a view at its route, looked at again where marks were written since."""
        is_walked = urlconf == self.walk.urlconf
        key = (id(match.func), match.route, is_walked)
        known = self._known.get(key) or self.walk.known.get(key)
        if known is not None and known.view is match.func:
            if known.written == WRITTEN.count:
                return known
            found = known.again()
        else:
            # Of a URLconf that middleware chose, or a prefix that depends on the language.
            found = _known(match.func, f"/{match.route}", EVERYTHING, None)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[key] = found
        self.walk.note_marks(found.endpoint)
        return found

    def _untaken(self, found: Judged) -> Found:
        """Return what holds where nothing is found: a redirect to another path would tell what is there."""
        paths = [found.path]
        if self.walk.has_languages:
            paths.append(f"/{get_language()}{found.path}")  # as LocaleMiddleware does
        if settings.APPEND_SLASH and not found.path.endswith("/"):
            paths += [f"{path}/" for path in paths]
        for path in paths[1:]:
            match = judged(SimpleNamespace(path_info=path, method=found.method, urlconf=found.urlconf)).match  # type: ignore[arg-type]  # all that is looked at
            if match is not None and getattr(match.func, "should_append_slash", True):
                return Found(
                    None, betrayed=Betrayed(self._known_of(match, found.urlconf).endpoint, KNOWN_METHODS, path)
                )
        return Found(None)


class Known(NamedTuple):
    """What was found out about one view at one route, and the route's parameter that takes slashes.

    `methods` are those that the view's own class has, `written` is how many marks there were by then: Django's
    `method_decorator` writes the same ones at every call.
    """

    view: Callable[..., object]
    endpoint: Endpoint
    found: Found
    path_param: str | None
    methods: frozenset[str] | None
    written: int

    def again(self) -> Known:
        """Return what is known of the same view now; where its marks are the same, its policies stay as they are."""
        endpoint = self.endpoint
        now = _known(self.view, endpoint.route, endpoint.pattern, self.path_param)
        is_same = (now.endpoint.marks, now.endpoint.by_method) == (endpoint.marks, endpoint.by_method)
        return self._replace(written=now.written) if is_same else now


class DjangoWalk:
    """One walk through the URLconf of a project: what it serves, and what is wrong with it (`mistakes`)."""

    answers_itself: tuple[str, ...] = ()
    has_hosts = False

    def __init__(self) -> None:
        self.mistakes = Mistakes("the project")
        self.served: list[Served] = []
        self.known: dict[tuple[int, str, bool], Known] = {}
        self.conceals = False
        self.has_languages = False
        self.urlconf = settings.ROOT_URLCONF
        classes: dict[type, set[str]] = {}
        for pattern, path, params in self._routes(get_resolver(self.urlconf), _Path(), frozenset()):
            known = _known(pattern.callback, path.label, path.pattern, path.path_param)
            key = (id(pattern.callback), path.route, True)
            first = self.known.setdefault(key, known)
            if first.endpoint.pattern != path.pattern:
                # The same text as a path and as a regular expression; a match does not say which one it was.
                self.known[key] = _known(pattern.callback, path.label, EVERYTHING, None)
            methods, answered = _methods_of(pattern.callback)
            self.served.append(Served(path.pattern, methods, known.endpoint, params, answered=answered))
            self.note_marks(known.endpoint)
            kind = _class_of(pattern.callback)
            if kind is not None:
                classes.setdefault(kind, set()).update(_called(pattern.callback, kind))
        for kind, called in classes.items():
            self._check_marks(kind, {name.upper() for name in called})

    def _check_marks(self, kind: type, called: Collection[str]) -> None:
        """Note marks that no request would ever meet."""
        for name in marks_by_method(kind):
            if name not in KNOWN_METHODS and name not in called:
                why = "no request runs this method, so that its mark holds for nothing; mark the class, or get, post..."
                self.mistakes.add("requires", f"{kind.__name__}.{name.lower()}", why)

    def note_marks(self, endpoint: Endpoint) -> None:
        """Note whether the marks of an endpoint conceal it."""
        self.conceals = self.conceals or any(mark.requirement.conceals for mark in endpoint.all_marks())

    def misplaced(self) -> Mistakes:
        """Return the middleware that must not stand inside of the gate, and does."""
        mistakes = Mistakes("MIDDLEWARE")
        names = list(settings.MIDDLEWARE)
        gates = [number for number, name in enumerate(names) if _is_gate(name)]
        own = gates[0] if gates else len(names)
        for number in gates[1:]:
            mistakes.add("MIDDLEWARE", names[number], "it stands there twice; one gate decides, and writes one event")
        if _CORS in names[own:]:
            why = (
                "it stands inside the gate, so that refusals and preflights never reach it; remove it and give the "
                "gate cors=Cors(...)"
            )
            mistakes.add("MIDDLEWARE", _CORS, why)
        if self.has_languages and _LOCALE in names[own:]:
            why = "paths depend on the language that it chooses; write it before AuthzMiddleware"
            mistakes.add("MIDDLEWARE", _LOCALE, why)
        return mistakes

    def _routes(
        self, resolver: URLResolver, path: _Path, params: frozenset[str]
    ) -> Iterator[tuple[URLPattern, _Path, frozenset[str]]]:
        for entry in resolver.url_patterns:
            self.has_languages = self.has_languages or _depends_on_language(entry.pattern)
            further = path.further(entry.pattern)
            named = params.union(entry.pattern.converters, getattr(entry.pattern, "regex", _NO_REGEX).groupindex)
            if isinstance(entry, URLResolver):
                yield from self._routes(entry, further, named.union(entry.default_kwargs))
            else:
                yield entry, further, named.union(entry.default_args)


_NO_REGEX: Final = re.compile("")


class _Path(NamedTuple):
    """The way to a route: what Django calls it, and the path as far as it is plain, with what it takes.

    `plain` ends where a regular expression or a language comes; `is_open` says that it did.
    """

    route: str = ""
    plain: str = "/"
    converters: Mapping[str, object] = MappingProxyType({})
    is_open: bool = False

    @property
    def label(self) -> str:
        """The path as Django writes it."""
        return "/" + self.route.removeprefix("^")

    def further(self, pattern: RegexPattern | RoutePattern | LocalePrefixPattern) -> _Path:
        """Return the way through one more pattern."""
        text = str(pattern)
        route = self.route + text.removeprefix("^") if self.route else text
        if self.is_open or not isinstance(pattern, RoutePattern) or _depends_on_language(pattern):
            return self._replace(route=route, is_open=True)
        return _Path(route, self.plain + text, {**self.converters, **pattern.converters})

    @property
    def pattern(self) -> PathPattern:
        """All paths that may lead here; from the first part that may take a slash on, everything below."""
        segments: list[str | None] = []
        names = split(_PARAMETER.sub(_as_segment, self.plain))
        for segment in names:
            inside = [self.converters[name] for name in _NAMES.findall(segment)]
            if any(type(converter) not in _ONE_SEGMENT for converter in inside):
                return PathPattern(tuple(segments), below=True)
            segments.append(None if inside else segment)
        if self.is_open:
            return PathPattern(tuple(segments[:-1]), below=True)  # what comes next may go on with the last one
        return PathPattern(tuple(segments), below=False)

    @property
    def path_param(self) -> str | None:
        """The parameter that takes slashes, if it is the only one."""
        taking = [name for name, converter in self.converters.items() if isinstance(converter, PathConverter)]
        return taking[0] if len(taking) == 1 and not self.is_open else None


def _depends_on_language(pattern: RegexPattern | RoutePattern | LocalePrefixPattern) -> bool:
    """Tell whether a pattern stands for another path in each language: by a prefix, or as a text that is translated."""
    text = getattr(pattern, "_route", getattr(pattern, "_regex", None))
    return isinstance(pattern, LocalePrefixPattern) or not isinstance(text, str)


# As Django writes it: <name>, <converter:name>
_PARAMETER: Final = re.compile(r"<(?:[^>:]+:)?([^>]+)>")
_NAMES: Final = re.compile("\0([^\0]+)\0")


def _as_segment(found: re.Match[str]) -> str:
    return f"\0{found[1]}\0"


def _known(view: Callable[..., object], label: str, pattern: PathPattern, path_param: str | None) -> Known:
    """Return what is known of a view."""
    written = WRITTEN.count  # before the marks are read: another thread may write more
    kind, actions = _class_of(view), _actions_of(view)
    marks: list[Mark] = [*marks_of(view)]
    by_method: dict[str, tuple[Mark, ...]] = {}
    if kind is not None:
        marks += [*marks_of(kind), *(mark for function in _functions_in(kind) for mark in marks_of(function))]
        by_method = _marks_of_actions(kind, actions) if actions is not None else marks_by_method(kind)
    name = name_of(kind or view)  # `as_view()` makes a function that is called view
    endpoint = Endpoint(label, name, distinct(marks), by_method, resolves_paths=pattern.below, pattern=pattern)
    methods = None if kind is None else _methods_of(view)[0] or None  # one that has none overrides `dispatch`
    return Known(view, endpoint, Found(endpoint), path_param, methods, written)


def _class_of(view: object) -> type | None:
    """Return the class whose `as_view()` made a view: Django's, or that of Django REST framework."""
    kinds = (getattr(layer, "view_class", None) or getattr(layer, "cls", None) for layer in unwrapped(view))
    return next((kind for kind in kinds if isinstance(kind, type)), None)


def _actions_of(view: object) -> dict[str, str] | None:
    """Return which method of a view set serves which HTTP method."""
    found = (getattr(layer, "actions", None) for layer in unwrapped(view))
    return next((actions for actions in found if isinstance(actions, dict)), None)


def _called(view: object, kind: type) -> Iterator[str]:
    """Yield the names of the methods of a class that requests run, or would on other routes of a view set."""
    yield from _names_for(view, kind)
    if _actions_of(view) is not None:
        yield from (*_ACTIONS, *(_actions_of(view) or {}).values())
        for action in getattr(kind, "get_extra_actions", list)():
            yield from (action.__name__, *action.mapping.values())


def _names_for(view: object, kind: type) -> Collection[str]:
    """Return the HTTP methods that a view takes, in lower case: those of its class, or of its `as_view()`."""
    for layer in unwrapped(view):
        given = getattr(layer, "view_initkwargs", None) or getattr(layer, "initkwargs", None) or {}
        if "http_method_names" in given:
            names: Collection[str] = given["http_method_names"]
            return names
    found: Collection[str] = getattr(kind, "http_method_names", ())
    return found


def _marks_of_actions(kind: type, actions: Mapping[str, str]) -> dict[str, tuple[Mark, ...]]:
    """Return the marks on the methods of a view set, by the HTTP method that calls each."""
    own = {name: name for name in getattr(kind, "http_method_names", ()) if hasattr(kind, name)}
    called = {**own, **actions}
    found = {method.upper(): marks_of(getattr(kind, name, None)) for method, name in called.items()}
    found["HEAD"] = (*found.get("HEAD", ()), *found.get("GET", ()))
    return {method: marks for method, marks in found.items() if marks}


def _functions_in(kind: type) -> Iterator[object]:
    """Yield the function that `@api_view` of Django REST framework put into a class of its own."""
    for method in getattr(kind, "http_method_names", ()):
        handler = vars(kind).get(method)
        if getattr(handler, "__module__", None) == "rest_framework.decorators" and inspect.isfunction(handler):
            yield inspect.getclosurevars(handler).nonlocals["func"]


def _methods_of(view: object) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Return the methods that a class-based view serves, and those that its framework answers; a function takes any."""
    kind = _class_of(view)
    if kind is None:
        return None, frozenset()
    names = {name for name in _names_for(view, kind) if hasattr(kind, name) or name in (_actions_of(view) or ())}
    answered = frozenset({"OPTIONS"} if _is_answered(kind) else ())
    return frozenset(name.upper() for name in (*names, *(["head"] if "get" in names else []))) - answered, answered


def _is_answered(kind: type) -> bool:
    """Tell whether OPTIONS is left to the framework's own class."""
    module: str = getattr(getattr(kind, "options", None), "__module__", "") or ""
    return module.partition(".")[0] in {"django", "rest_framework"}


def _is_gate(name: str) -> bool:
    """Tell whether a middleware is the gate's, or a subclass of it."""
    try:
        found = import_string(name)
    except ImportError:  # Django tells of it
        return False
    return isinstance(found, type) and any(base.__module__ == "authz403.django" for base in found.__mro__)


def _only_param_has_dots(path: str, value: str) -> bool:
    """Tell whether a path has dot segments, and only in what the route's own `path` parameter took."""
    return has_dot_segments(path) and path.count(value) == 1 and not has_dot_segments(path.replace(value, "_"))
