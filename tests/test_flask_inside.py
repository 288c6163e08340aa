"""Flask behind a gate, where more than one request, environ or gate is in play."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import flask
from flask import Flask, g
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import authz403.flask
from authz403 import Reason, anyone, authenticated, check, public, requires, scopes
from authz403.wsgi import AuthzMiddleware
from tests.apps_made import bearer, gate_with
from tests.wsgi_made import Answer, ask, environ_of

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

_DENIED = False


def asked(app: WSGIApplication, path: str, **headers: str) -> Answer:
    """Send one request."""
    return ask(app, environ_of(path, headers=headers))


def test_a_middleware_inside_the_gate_may_hand_on_a_copy_of_the_environ() -> None:
    """With a body that it unpacked, or a session that it opened."""

    @public
    def view() -> str:
        return f"{flask.request.environ.get('session')} {flask.request.get_data(as_text=True)}"

    def unpacking(app: WSGIApplication) -> WSGIApplication:
        def unpacked(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            body = {"wsgi.input": io.BytesIO(b"unpacked"), "CONTENT_LENGTH": "8"}
            return app({**environ, "session": "opened", **body}, start_response)

        return unpacked

    app = Flask("shop")
    app.add_url_rule("/", "view", view)
    app.wsgi_app = unpacking(app.wsgi_app)  # type: ignore[method-assign, assignment]  # Flask's own way
    authz403.flask.init_app(app, gate=gate_with())
    assert asked(app, "/").text == "opened unpacked"


def test_a_view_that_asks_its_own_app_keeps_its_caller() -> None:
    """As for several requests in one."""

    @requires(authenticated)
    def who() -> str:
        return str(g.principal.sub)

    @requires(authenticated)
    def batch() -> str:
        inner = flask.current_app.test_client().get("/who", headers=bearer(sub="bob")).text
        return f"{inner}, asked by {g.principal.sub}"

    app = Flask("shop")
    app.add_url_rule("/who", "who", who)
    app.add_url_rule("/batch", "batch", batch)
    authz403.flask.init_app(app, gate=gate_with())
    assert asked(app, "/batch", **bearer(sub="ada")).text == "bob, asked by ada"


def streaming() -> flask.Response:
    """Refuse while the body is made."""

    def pieces() -> Iterator[str]:
        check(_DENIED, Reason.NOT_OWNER)
        yield "not reached"

    return flask.Response(flask.stream_with_context(pieces()))


def test_a_late_refusal_of_what_is_concealed_is_the_apps_own_404() -> None:
    """By its handler, as for what is missing."""
    app = Flask("shop")
    app.add_url_rule("/hidden", "hidden", requires(authenticated.concealed())(functools.partial(streaming)))
    app.register_error_handler(404, lambda _: ("the shop's own page", 404))
    authz403.flask.init_app(app, gate=gate_with())
    missing = asked(app, "/missing", **bearer())
    told = asked(app, "/hidden", **bearer())
    assert (told.status, sorted(told.headers), told.body) == (404, sorted(missing.headers), missing.body)


def test_an_inner_gate_that_conceals_keeps_every_404_out_of_caches() -> None:
    """Or the header tells the hidden from the missing; ASGI keeps neither out of caches there."""
    app = Flask("shop")
    app.add_url_rule("/hidden", "hidden", requires(scopes("c").concealed())(lambda: "not reached"))
    authz403.flask.init_app(app, gate=gate_with())
    outer = AuthzMiddleware(DispatcherMiddleware(app.wsgi_app), gate=gate_with(default=anyone))
    missing = asked(outer, "/missing", **bearer())
    assert asked(outer, "/hidden", **bearer()).header("cache-control") == missing.header("cache-control") == "no-store"


def test_an_app_that_asks_itself_with_a_copy_of_its_environ_is_decided_anew() -> None:
    """What one request may do says nothing of another, however it came; and each has its event."""

    def asking() -> str:
        statuses: list[str] = []

        def start(status: str, *_: object) -> Any:  # noqa: ANN401 - nobody calls what it returns
            statuses.append(status)

        for path in ("/open", "/closed"):
            b"".join(app.wsgi_app({**flask.request.environ, "PATH_INFO": path}, start))
        return " ".join(statuses)

    app = Flask("shop")
    app.add_url_rule("/asking", "asking", public(asking))
    app.add_url_rule("/open", "open", public(lambda: "open"))
    app.add_url_rule("/closed", "closed", requires(scopes("c"))(lambda: "not reached"))
    authz403.flask.init_app(app, gate=gate_with())
    assert asked(app, "/asking", **bearer(scope="a")).text == "200 OK 403 Forbidden"
    outer = AuthzMiddleware(DispatcherMiddleware(app.wsgi_app), gate=gate_with(default=anyone))
    assert asked(outer, "/asking", **bearer(scope="a")).text == "200 OK 403 Forbidden"
