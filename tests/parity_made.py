"""The same orders behind the same gate by every framework, and what each made of a request.

>>> seen = ask("flask", CASES["role missing"], "marks")
>>> seen.status, seen.headers, seen.body, seen.events
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import flask
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.http import require_http_methods
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import authz403.asgi
import authz403.flask
import authz403.wsgi
from authz403 import AccessDenied, Gate, Reason, Rule, anyone, check, public, requires
from tests import wsgi_made
from tests.apps_made import BODYLESS, drive, listening, scope_of
from tests.django_made import DjangoApp
from tests.parity_cases import Case

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

    from starlette.types import ASGIApp, Receive, Scope, Send

Written = Literal["marks", "rules"]
MakesApp = Callable[[Case, Written], "WSGIApplication"]
Lines = Iterable[tuple[str, str]]

METHODS: Final = ["GET", "HEAD", "POST", "OPTIONS"]
"""The methods of an order's view."""
HEADED: Final = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "X-Mine", "Vary": "Accept"}
"""Headers of an app that does CORS by itself."""
_DENIED: Final = False
_OF_THE_GATE: Final = ("access-control-", "authz-", "www-authenticate", "retry-after", "vary", "cache-control")
_OF_A_REFUSAL: Final = ("content-type", "content-length")


class Seen(NamedTuple):
    """What caller and operator saw: the status, headers and body, as far as they are the gate's, and the events.

    `body` is the problem document, or nothing where the app itself answered. What differs each time is left out.
    """

    status: int
    headers: frozenset[tuple[str, str]]
    body: object
    events: tuple[Mapping[str, object], ...]


def gate_of(case: Case, written: Written) -> Gate:
    """Return the gate of a case, whose rules have the policy of orders if that is not marked."""
    if written == "marks":
        return case.gate()
    rules = [Rule("*", path, anyone) for path in ("/owned", "/own-code", "/crash", "/headed")]
    wanted = [] if case.wanted is None else [Rule("*", "/orders/*", case.wanted)]
    return case.gate(rules=[*rules, *wanted], shared=True)


def marking(case: Case, written: Written) -> Callable[[Any], Any]:
    """Return the mark of the orders' view."""
    if written == "rules" or case.wanted is None:
        return lambda view: view
    return requires(case.wanted)


def opened(written: Written) -> Callable[[Any], Any]:
    """Return the mark of the views that are open to anyone."""
    return public if written == "marks" else lambda view: view


def owned() -> None:
    """Do what a handler does for an order that is somebody else's."""
    check(_DENIED, Reason.NOT_OWNER, order=5)


def of_a_plan() -> None:
    """Do what a handler does that has a code of its own."""
    raise AccessDenied("plan_expired", plan="free")


def crash() -> None:
    """Do what a handler with a bug does."""
    raise LookupError("a bug in the app")


ACTS: Final[Mapping[str, Callable[[], object]]] = {"/owned": owned, "/own-code": of_a_plan, "/crash": crash}


def answered(path: str) -> tuple[int, list[tuple[str, str]]]:
    """Do what an app without a framework does, and return the status and headers of its answer."""
    if path in ACTS:
        ACTS[path]()
    return (200 if path.startswith("/orders/") or path == "/headed" else 404), [*HEADED.items()] * (path == "/headed")


# ---- the apps, each behind its gate


def starlette(case: Case, written: Written) -> ASGIApp:
    """Return the app by Starlette."""

    async def order(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def act(request: Request) -> Response:
        ACTS[request.scope["path"]]()
        return PlainTextResponse("not reached")

    async def headed(request: Request) -> Response:
        return PlainTextResponse("ok", headers=HEADED)

    open_to_anyone = opened(written)
    routes = [
        Route("/orders/{owner}", marking(case, written)(order), methods=METHODS),
        Route("/headed", open_to_anyone(headed)),
        *(Route(path, open_to_anyone(act)) for path in ACTS),
    ]
    app = Starlette(routes=routes)
    return authz403.asgi.AuthzMiddleware(app, gate=gate_of(case, written))


def plain_asgi(case: Case, written: Written) -> ASGIApp:
    """Return an ASGI app that no gate can look into."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status, headers = answered(scope["path"])
        lines = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": b"ok"})

    return authz403.asgi.AuthzMiddleware(app, gate=gate_of(case, written), routes_of=None)


def plain_wsgi(case: Case, written: Written) -> WSGIApplication:
    """Return a WSGI app that no gate can look into."""

    def app(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        status, headers = answered(environ["PATH_INFO"])
        start_response({200: "200 OK", 404: "404 Not Found"}[status], [("Content-Type", "text/plain"), *headers])
        return [b"ok"]

    return authz403.wsgi.AuthzMiddleware(app, gate=gate_of(case, written))


def by_flask(case: Case, written: Written) -> WSGIApplication:
    """Return the app by Flask."""
    app = Flask("orders")
    open_to_anyone = opened(written)

    def order(owner: str) -> str:
        return "ok"

    def act() -> str:
        ACTS[flask.request.path]()
        return "not reached"

    def headed() -> tuple[str, Mapping[str, str]]:
        return "ok", HEADED

    app.add_url_rule("/orders/<owner>", view_func=marking(case, written)(order), methods=METHODS)
    app.add_url_rule("/headed", view_func=open_to_anyone(headed))
    for one in ACTS:
        app.add_url_rule(one, view_func=open_to_anyone(act))
    authz403.flask.init_app(app, gate=gate_of(case, written))
    return app


def by_django(case: Case, written: Written) -> DjangoApp:
    """Return the project by Django."""
    open_to_anyone = opened(written)

    def order(request: HttpRequest, owner: str) -> HttpResponse:
        return HttpResponse("ok")

    def act(request: HttpRequest) -> HttpResponse:
        ACTS[request.path_info]()
        return HttpResponse("not reached")

    def headed(request: HttpRequest) -> HttpResponse:
        return HttpResponse("ok", headers=dict(HEADED))

    urls = [
        path("orders/<owner>", require_http_methods(METHODS)(marking(case, written)(order))),
        path("headed", open_to_anyone(headed)),
        *(path(one.removeprefix("/"), open_to_anyone(act)) for one in ACTS),
    ]
    return DjangoApp(urls, gate_of(case, written))


def by_django_asgi(case: Case, written: Written) -> ASGIApp:
    """Return the project by Django's ASGI handler."""
    return by_django(case, written).asgi


ASGI_APPS: Final[Mapping[str, Callable[[Case, Written], ASGIApp]]] = {
    "starlette": starlette,
    "plain ASGI": plain_asgi,
    "Django by ASGI": by_django_asgi,
}
WSGI_APPS: Final[Mapping[str, MakesApp]] = {"plain WSGI": plain_wsgi, "Flask": by_flask, "Django": by_django}
MODELS: Final = {"plain WSGI": "plain ASGI", "Flask": "starlette", "Django": "starlette", "Django by ASGI": "starlette"}
"""For each kind of app, the one that it must not differ from: both know their routes, or none."""


# ---- asking


def ask(kind: str, case: Case, written: Written) -> Seen:
    """Send the request of a case to an app of a kind."""
    with listening() as events:
        if kind in ASGI_APPS:
            scope = scope_of(
                case.path,
                case.method,
                headers=case.headers,
                query_string=case.query.encode(),
                client=None if case.peer is None else (case.peer, 50_000),
            )
            answer = drive(ASGI_APPS[kind](case, written), scope, BODYLESS)
            lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
            return seen(answer.status, lines, answer.body, events)
        environ = wsgi_made.environ_of(
            case.path,
            case.method,
            headers=case.headers,
            more={"QUERY_STRING": case.query, "REMOTE_ADDR": case.peer},
        )
        is_a_path = case.path.startswith("/")  # the validator lets no other pass
        told = wsgi_made.ask(WSGI_APPS[kind](case, written), environ, is_validated=is_a_path)
        return seen(told.status, told.headers, told.body, events)


def seen(status: int, headers: Lines, body: bytes, events: Iterable[Mapping[str, object]]) -> Seen:
    """Return what was seen of an answer, without what differs each time and what is the app's own."""
    lines = [(name.lower(), value) for name, value in headers]
    is_refusal = any(name == "authz-reason" for name, _ in lines)
    kept = set()
    for name, value in lines:
        if name == "vary":
            kept |= {(name, field.strip().lower()) for field in value.split(",")}
        elif name.startswith(_OF_THE_GATE) or (is_refusal and name in _OF_A_REFUSAL):
            kept.add((name, "*" if name in {"authz-decision", "retry-after"} else value))
    document = _masked(json.loads(body)) if is_refusal and body else None
    # A warning comes from a thread of its own.
    told = sorted((_masked_event(event) for event in events), key=lambda event: str(event["event"]))
    return Seen(status, frozenset(kept), document, tuple(told))


def _masked(document: Mapping[str, object]) -> Mapping[str, object]:
    assert document["decision_id"]
    return {**document, "decision_id": "*"}


def _masked_event(event: Mapping[str, object]) -> Mapping[str, object]:
    found = {name: value for name, value in event.items() if name not in _OF_ONE_TIME}
    if "route" in found:
        found["route"] = _PARAMETER.sub(r"{\1}", str(found["route"]))
    if "response" in found:
        found["response"] = _masked(json.loads(str(found["response"])))
    return found


_OF_ONE_TIME: Final = frozenset({"decision_id", "duration_us", "traceback", "timestamp"})
_PARAMETER: Final = re.compile(r"<(?:\w+:)?(\w+)>")  # as Flask and Django write what Starlette writes {name}
