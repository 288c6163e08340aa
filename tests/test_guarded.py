import flask
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router

import authz403.flask
import authz403.wsgi
from authz403 import ConfigurationError, Gate, Rule, anyone, public
from authz403.asgi import AuthzMiddleware
from authz403.guarded import guarded, guarded_or_none
from tests.django_made import Project

GATE = Gate(rules=[Rule("GET", "/", anyone)], shared=True)


def paths(app: object) -> list[str]:
    """Return what coverage says of an app, by the way that `guarded` found."""
    found = guarded(app)
    return [row.path for row in found.gate.coverage(found.app)]


@public
async def home(_: object) -> PlainTextResponse:
    """Answer everybody."""
    return PlainTextResponse("home")


def test_the_gate_that_an_app_was_told_to_add_is_found() -> None:
    """Nothing has started yet, so that the app holds only the order."""
    for app in (Starlette(routes=[Route("/", home)]), FastAPI(openapi_url=None)):
        app.add_middleware(GZipMiddleware)
        app.add_middleware(AuthzMiddleware, gate=GATE)
        found = guarded(app)
        assert (found.gate, found.app, found.entry, found.kind) == (GATE, app, app, "asgi")
        assert app.middleware_stack is None
        assert guarded(GZipMiddleware(app)).gate is GATE


def test_the_gate_that_wraps_an_app_is_found() -> None:
    """Outer layers are looked through, and `routes_of` is heard."""
    app = Starlette(routes=[Route("/", home)])
    outer = GZipMiddleware(AuthzMiddleware(app, gate=GATE))
    assert guarded(outer)[:3] == (GATE, app, outer)
    assert paths(outer) == ["/"]
    assert guarded(AuthzMiddleware(Router(), gate=GATE, routes_of=None)).app is None
    assert guarded(AuthzMiddleware(lambda *_: None, gate=GATE, routes_of=app)).app is app  # type: ignore[arg-type]  # never called


def test_a_gate_that_a_function_makes_is_made_once_the_app_has_started() -> None:
    """What serves already is what is told of."""
    made = []

    def make() -> Gate:
        made.append(Gate())
        return made[-1]

    app = authz403.wsgi.AuthzMiddleware(lambda *_: [], gate=make)
    assert guarded(app).gate is made[-1]
    met = app.meet()
    assert guarded(app).gate is met is made[-1]


def test_the_gate_of_a_flask_app_is_found() -> None:
    """`init_app` leaves it with the app; a rules-alone gate around another WSGI app has no routes."""
    app = flask.Flask("shop")
    app.add_url_rule("/", "home", public(lambda: "home"))
    with pytest.raises(ConfigurationError):
        guarded(app)
    authz403.flask.init_app(app, gate=GATE)
    assert guarded(app) == (GATE, app, app, "wsgi")
    assert guarded(app.wsgi_app).app is app
    assert "/" in paths(app)
    assert guarded(authz403.wsgi.AuthzMiddleware(lambda *_: [], gate=GATE)).app is None


@pytest.mark.parametrize(("handler", "kind"), [(WSGIHandler, "wsgi"), (ASGIHandler, "asgi")])
def test_the_gate_of_a_django_project_is_found(handler: type, kind: str) -> None:
    """The settings name it."""
    project = Project([path("", lambda _: HttpResponse("home"))])
    with override_settings(ROOT_URLCONF=project, MIDDLEWARE=["authz403.django.AuthzMiddleware"], AUTHZ403_GATE=GATE):
        app = handler()
        assert guarded(app) == (GATE, app, app, kind)
        assert set(paths(app)) == {"/"}


def test_a_django_project_without_the_middleware_has_no_gate() -> None:
    """Settings that name a gate put none before the views."""
    project = Project([path("", lambda _: HttpResponse("home"))])
    middleware = ["django.middleware.common.CommonMiddleware"]
    with override_settings(ROOT_URLCONF=project, MIDDLEWARE=middleware, AUTHZ403_GATE=GATE):
        app = WSGIHandler()
        assert guarded_or_none(app) is None
        with pytest.raises(ConfigurationError, match="no gate stands before it"):
            guarded(app)


def test_an_app_without_a_gate_is_a_mistake() -> None:
    """It would be told of as if it were guarded."""
    with pytest.raises(ConfigurationError, match="no gate stands before it"):
        guarded(Starlette(routes=[Route("/", home)]))
