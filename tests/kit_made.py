"""Small guarded apps of every framework for the tests of authz403.testing, each with the same two routes.

`GET /orders` needs a scope, `DELETE /orders/<number>` a role, and `GET /health` nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import flask
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import path
from django.views import View
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import authz403.flask
import authz403.wsgi
from authz403 import BearerTokens, Gate, Principal, Rule, any_role, anyone, public, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.identity import AccessRequest, Rejected
from tests import wsgi_made
from tests.django_made import OURS, Project
from tests.tokens_made import public_pem

READ: Final = requires(scopes("orders:read"))
ADMIN: Final = requires(any_role("admin"))
FRAMEWORKS: Final = ("starlette", "fastapi", "flask", "django-wsgi", "django-asgi", "wsgi")


class Session:
    """A source of identities besides tokens, with nobody signed in."""

    fields = frozenset({"cookie"})

    def identify(self, request: AccessRequest, now: float) -> Principal | Rejected | None:
        return None


def gate_with(**options: Any) -> Gate:  # noqa: ANN401 - any option of a gate
    """Return a gate that knows the tokens of an issuer of its own."""
    source = BearerTokens(issuer="https://id.example", audience="orders-api", key=public_pem())
    return Gate(**{"tokens": source, **options})


@contextmanager
def app_of(framework: str, gate: Gate) -> Iterator[Any]:
    """Give an app of a framework behind a gate."""
    if framework.startswith("django"):
        project = Project([path("orders", _Orders.as_view()), path("orders/<int:number>", _Order.as_view())])
        project.urlpatterns.append(path("health", public(lambda _: HttpResponse("ok"))))
        with override_settings(ROOT_URLCONF=project, MIDDLEWARE=[OURS], AUTHZ403_GATE=gate):
            yield WSGIHandler() if framework == "django-wsgi" else ASGIHandler()
        return
    yield _MAKERS[framework](gate)


class _Orders(View):
    @READ
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("lamp")


class _Order(View):
    @ADMIN
    def delete(self, request: HttpRequest, number: int) -> HttpResponse:
        return HttpResponse("gone")


def starlette_app(gate: Gate | Callable[[], Gate]) -> Starlette:
    """Return a Starlette app."""

    async def told(request: Request) -> PlainTextResponse:
        return PlainTextResponse("lamp")

    async def gone(request: Request) -> PlainTextResponse:
        return PlainTextResponse("gone")

    async def health(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    routes = [
        Route("/orders", READ(told)),
        Route("/orders/{number:int}", ADMIN(gone), methods=["DELETE"]),
        Route("/health", public(health)),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(AuthzMiddleware, gate=gate)
    return app


def fastapi_app(gate: Gate | Callable[[], Gate]) -> FastAPI:
    """Return a FastAPI app."""
    app = FastAPI(openapi_url=None)
    app.get("/orders")(READ(lambda: "lamp"))
    app.get("/health")(public(lambda: "ok"))

    @app.delete("/orders/{number}")
    @ADMIN
    def gone(number: int) -> str:
        return "gone"

    app.add_middleware(AuthzMiddleware, gate=gate)
    return app


def flask_app(gate: Gate | Callable[[], Gate]) -> flask.Flask:
    """Return a Flask app."""
    app = flask.Flask("shop", static_folder=None)
    app.add_url_rule("/orders", "orders", READ(lambda: "lamp"))
    app.add_url_rule("/orders/<int:number>", "gone", ADMIN(lambda **_: "gone"), methods=["DELETE"])
    app.add_url_rule("/health", "health", public(lambda: "ok"))
    authz403.flask.init_app(app, gate=gate)
    return app


def wsgi_app(gate: Gate) -> authz403.wsgi.AuthzMiddleware:
    """Return an app that nobody can look into, with the same policy by rules: those of the gate are left out."""
    rules = [
        Rule("GET", "/orders", scopes("orders:read")),
        Rule("DELETE", "/orders/*", any_role("admin")),
        Rule("GET", "/health", anyone),
    ]
    by_rules = Gate(tokens=gate.sources, rules=rules)
    return authz403.wsgi.AuthzMiddleware(wsgi_made.page(), gate=by_rules)


_MAKERS: Final[dict[str, Callable[[Gate], Any]]] = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "flask": flask_app,
    "wsgi": wsgi_app,
}
