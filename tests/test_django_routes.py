"""Random URLconfs behind a gate: who may everything gets the bare answer, and who may nothing runs nothing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path, re_path
from django.views import View
from hypothesis import given
from hypothesis import strategies as st

from authz403 import requires, scopes
from authz403.paths import has_dot_segments, is_malformed
from tests.apps_made import bearer, gate_with
from tests.django_made import OURS, Project
from tests.wsgi_made import Answer, ask, environ_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse

    from django.http.response import HttpResponseBase

PART = st.sampled_from(["a/", "b", "<x>/", "<int:x>", "<path:x>", "<slug:x>.js", "v<int:x>/", ""])
REGEX = st.sampled_from([r"^a/$", r"^(?P<x>\w+)/$", r"b", r"^$", r"(?P<x>.*)"])
ROUTES = st.lists(st.tuples(PART, st.booleans(), st.booleans()), min_size=1, max_size=4)
NESTED = st.lists(st.tuples(PART, ROUTES), max_size=2)
SEGMENT = st.sampled_from(["a", "b", "1", "v1", "a.js", "", ".", "..", "\u00e4", "%2F"])
PATHS = st.lists(SEGMENT, max_size=4).map(lambda segments: "/" + "/".join(segments))
ASKED = st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS", "get"])


class Asked:
    """A project with random routes, asked with the gate before it and without."""

    def __init__(
        self,
        routes: list[tuple[str, bool, bool]],
        nested: list[tuple[str, list[tuple[str, bool, bool]]]],
        regexes: list[str],
    ) -> None:
        self.ran: list[str] = []
        self._numbers = itertools.count()
        urls = [self._url(*route) for route in routes]
        urls += [path(prefix, include([self._url(*route) for route in inner])) for prefix, inner in nested]
        urls += [re_path(regex, self._view(is_class=False)) for regex in regexes]
        self._urls = Project(urls)

    def _url(self, route: str, is_class: bool, is_regex: bool) -> Any:  # noqa: ANN401, FBT001 - a random one
        return (
            re_path(r"^c/", self._view(is_class=is_class)) if is_regex else path(route, self._view(is_class=is_class))
        )

    def _view(self, *, is_class: bool) -> Callable[..., HttpResponseBase]:
        number = str(next(self._numbers))

        def view(request: HttpRequest, **values: object) -> HttpResponse:
            self.ran.append(number)
            return HttpResponse(f"{number} {values} {request.method} {request.path_info}")

        if not is_class:
            return requires(scopes("all"))(view)

        @requires(scopes("all"))
        class Shown(View):
            def get(self, request: HttpRequest, **values: object) -> HttpResponse:
                return view(request, **values)

        return Shown.as_view()

    def by(self, method: str, where: str, headers: dict[str, str], *, guarded: bool) -> tuple[Answer, list[str]]:
        """Send one request; return the answer, and what ran."""
        middleware = [*([OURS] if guarded else []), "django.middleware.common.CommonMiddleware"]
        options = {"ROOT_URLCONF": self._urls, "MIDDLEWARE": middleware, "AUTHZ403_GATE": gate_with()}
        self.ran.clear()

        def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            with override_settings(**options):
                return WSGIHandler()(environ, start_response)

        environ = environ_of(where, method, headers=headers, more={"HTTP_HOST": "shop.example"})
        return ask(app, environ, is_validated=False), [*self.ran]


@given(routes=ROUTES, nested=NESTED, regexes=st.lists(REGEX, max_size=2), where=PATHS, method=ASKED)
def test_who_may_everything_gets_the_very_answer_of_the_bare_project(
    routes: list[tuple[str, bool, bool]],
    nested: list[tuple[str, list[tuple[str, bool, bool]]]],
    regexes: list[str],
    where: str,
    method: str,
) -> None:
    """Status, headers and body, redirects and 405 as well; but for paths that others may read as something else."""
    project = Asked(routes, nested, regexes)
    bare = project.by(method, where, {}, guarded=False)
    found = project.by(method, where, bearer(scope="all"), guarded=True)
    if found[0].header("authz-reason") == "invalid_path":
        assert has_dot_segments(where) or is_malformed(where)
        assert found[1] == []
    else:
        assert (found[0].status_line, sorted(found[0].headers), found[0].body, found[1]) == (
            bare[0].status_line,
            sorted(bare[0].headers),
            bare[0].body,
            bare[1],
        )


@given(routes=ROUTES, nested=NESTED, regexes=st.lists(REGEX, max_size=2), where=PATHS, method=ASKED)
def test_who_may_nothing_runs_nothing(
    routes: list[tuple[str, bool, bool]],
    nested: list[tuple[str, list[tuple[str, bool, bool]]]],
    regexes: list[str],
    where: str,
    method: str,
) -> None:
    """Whatever Django makes of the path and the method."""
    project = Asked(routes, nested, regexes)
    for headers in ({}, bearer(scope="other")):
        answer, ran = project.by(method, where, headers, guarded=True)
        assert ran == []
        assert answer.status in {301, 400, 401, 403, 404}
