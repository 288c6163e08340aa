"""What the gate costs a WSGI request, in process: over a bare callable, and over bare Flask and Django.

Run: `make bench`, or `PYTHONPATH=. .venv/bin/python benchmarks/bench_wsgi.py [rounds] [--json]`. CPU time, interleaved
in one run, medians over rounds; the A/A rows measure the bare apps against themselves and show the noise. `simple` is a
gate that asks a warm token for a scope, `full` one with CORS, networks, roles and an Origin as well.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import flask
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

import authz403.flask
from authz403 import BearerTokens, Gate, Requirement, Rule, requires, scopes
from authz403.wsgi import AuthzMiddleware
from benchmarks.measure import Bar, Report, Row, measured
from benchmarks.requests_made import AUDIENCE, ISSUER, PEM, POLICY, WARM, token
from benchmarks.requests_made import gate as full_gate
from tests.django_made import Project

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

REQUESTS = 200  # a round
SIMPLE = scopes("orders:read")


def gate(kind: str, rules: Iterable[Rule] = ()) -> Gate:
    """Return a gate of a kind."""
    if kind == "full":
        return full_gate(rules)
    return Gate(tokens=BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=PEM), rules=rules)


def policy(kind: str) -> Requirement:
    """Return the policy of a kind."""
    return POLICY if kind == "full" else SIMPLE


def plain_app(kind: str | None) -> WSGIApplication:
    """Return a callable that answers at once."""

    def app(_: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    return app if kind is None else AuthzMiddleware(app, gate=gate(kind, [Rule("GET", "/orders", policy(kind))]))


def flask_app(kind: str | None) -> WSGIApplication:
    """Return a Flask app with one view."""
    app = flask.Flask("orders")
    app.add_url_rule("/orders", "orders", requires(policy(kind or "simple"))(lambda: "ok"))
    if kind is not None:
        authz403.flask.init_app(app, gate=gate(kind))
    return app


def django_app(kind: str | None) -> WSGIApplication:
    """Return a Django project with one view, whose URLconf `main` has set."""
    middleware = ["authz403.django.AuthzMiddleware"] if kind is not None else []
    rules = [Rule("GET", "/orders", policy(kind or "simple"))]
    with override_settings(MIDDLEWARE=middleware, AUTHZ403_GATE=gate(kind or "simple", rules)):
        return WSGIHandler()


def environ_of(bearer: str, *, is_full: bool) -> dict[str, Any]:
    """Return the environ of a request with ten headers."""
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/orders", "QUERY_STRING": "", "SERVER_NAME": "t",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(), "HTTP_HOST": "api.example", "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64)",
        "HTTP_ACCEPT": "application/json", "HTTP_ACCEPT_ENCODING": "gzip, deflate, br", "HTTP_ACCEPT_LANGUAGE": "en",
        "HTTP_REFERER": "https://app.example/", "HTTP_X_REQUEST_ID": "6b1f5f4e",
        "HTTP_AUTHORIZATION": f"Bearer {bearer}",
    }  # fmt: skip
    return {**environ, "HTTP_ORIGIN": "https://app.example", "HTTP_X_FORWARDED_FOR": "10.1.2.3"} if is_full else environ


def serve(app: WSGIApplication, environ: dict[str, Any]) -> None:
    """Send one request through an app as a server does, and check its status."""
    statuses: list[str] = []
    sent: list[object] = []

    def start_response(status: str, *_: object) -> Callable[[object], None]:
        statuses.append(status)
        return sent.append

    body = app(dict(environ), start_response)
    for _ in body:
        pass
    close = getattr(body, "close", None)
    if close is not None:
        close()
    assert statuses == ["200 OK"], statuses


def main() -> None:
    """Measure all rows, interleaved, and tell them."""
    report = Report(__doc__, 40)
    logging.getLogger("authz403").setLevel(logging.CRITICAL)
    bearer = token()
    environs = {True: environ_of(bearer, is_full=True), False: environ_of(bearer, is_full=False)}
    kinds: list[tuple[str, str | None]] = [("bare", None), ("A/A", None), ("simple", "simple"), ("full", "full")]
    made = {"callable": plain_app, "Flask": flask_app, "Django": django_app}
    found = measured(
        [
            Row(
                f"{name} {row}",
                partial(serve, make(kind), environs[kind == "full"]),
                f"{name} bare",
                REQUESTS,
                warm=WARM,
            )
            for name, make in made.items()
            for row, kind in kinds
        ],
        report.number,
    )
    report.table("rows", f"A request, {REQUESTS} a round, microseconds of CPU time, medians", found.table())
    added = {kind: found.added(f"callable {kind}", "callable bare") for kind in ("simple", "full")}
    report.bars(*(Bar(f"{kind}, over the bare callable", us, "us", 7, 3) for kind, us in added.items()))
    report.end()


if __name__ == "__main__":
    with override_settings(ROOT_URLCONF=Project([path("orders", lambda _: HttpResponse("ok"))])):
        main()
