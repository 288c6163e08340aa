"""Flask behind a gate: `init_app`, and what holds an app to the decisions about its requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import flask
from werkzeug.exceptions import NotFound
from werkzeug.routing import MapAdapter

from authz403.errors import Mistakes, denial_in
from authz403.flask_routes import FlaskRoutes, Judged, handed_on, what_counts
from authz403.gate import Gate
from authz403.principal import ANONYMOUS
from authz403.wsgi import PRINCIPAL, TICKETS, AuthzMiddleware, RouteMismatch, Ticket, hides

_EXTENSION: Final = "authz403"


def init_app(app: flask.Flask, *, gate: Gate | Callable[[], Gate]) -> None:
    """Put a `Gate` before a Flask app: every request meets the policy of the view that Flask itself would run.

    `gate` is a `Gate` or a function that returns one. Views find the caller as `flask.g.principal`, from the first
    `before_request` function on, and may call `check`. Blueprints and the app are guarded by `guard`. Call it once an
    app, anywhere in its factory: gate and app are brought together by the first request, or by `meet`. Raises
    `ConfigurationError` for what is no Flask app, and for an app that has a gate already.
    """
    mistakes = Mistakes("init_app")
    if not isinstance(app, flask.Flask):
        mistakes.add("app", type(app).__name__, "a Flask app is needed; for others, authz403.wsgi has AuthzMiddleware")
    elif _EXTENSION in app.extensions:
        mistakes.add("app", app.name, "it has a gate already; call init_app once")
    if isinstance(gate, type) or not (isinstance(gate, Gate) or callable(gate)):
        mistakes.add("gate", gate, "a Gate, or a function that returns one, is needed")
    mistakes.raise_if_any()
    routes = FlaskRoutes(app)
    _Door(app, routes)
    guarded = AuthzMiddleware(app.wsgi_app, gate=gate, routes_of=routes)
    app.extensions[_EXTENSION] = guarded
    app.wsgi_app = guarded  # type: ignore[method-assign]  # as Flask's documentation has it for middleware


def meet(app: flask.Flask) -> Gate:
    """Bring an app and its gate together now, and return the gate.

    Call it at the end of a factory, or in a test: it raises `ConfigurationError` with everything that does not fit,
    which else the first request is answered with 500 `misconfigured` for.
    """
    mistakes = Mistakes("meet")
    if _EXTENSION not in app.extensions:
        mistakes.add("app", app.name, "it has no gate; call authz403.flask.init_app(app, gate=gate)")
    mistakes.raise_if_any()
    guarded: AuthzMiddleware = app.extensions[_EXTENSION]
    return guarded.meet()


class _Door:
    """Holds one app to the decisions about its requests: no view runs that was not judged, and none without a gate."""

    def __init__(self, app: flask.Flask, routes: FlaskRoutes) -> None:
        self._app = app
        self._routes = routes
        self._beneath = {name: getattr(app, name) for name in _HELD}
        for name in _HELD:
            setattr(app, name, getattr(self, name))

    def create_url_adapter(self, request: flask.Request | None) -> MapAdapter | None:
        """Bind the app's rules to a request; one that a gate let in is handed what was judged."""
        ticket = None if request is None else self._ticket(request)
        if request is not None and ticket is not None and flask.has_request_context():
            _give_back(request)
        judged = None if ticket is None else _judged(ticket)
        if request is None or ticket is None or judged is None:
            adapter: MapAdapter | None = self._beneath["create_url_adapter"](request)
            return adapter
        is_missing = ticket.own.concealed_as_missing
        adapter, judged.adapter = judged.adapter, None  # once, and neither may keep the other alive
        is_same = (
            type(adapter) is MapAdapter
            and judged.standing.environ is request.environ  # middleware may have made another of it, to be looked at
            and judged.seen == what_counts(request.environ)
        )
        if is_same:
            vars(request).update(vars(judged.standing))  # what Flask found out about the host
        else:
            # Another request by now, or one that is matched in a way of its own: compared before anything runs.
            adapter = self._beneath["create_url_adapter"](request)
        if adapter is not None and type(adapter) is MapAdapter and (is_same or is_missing):
            handed_on(adapter, judged, is_missing=is_missing)
        return adapter

    def full_dispatch_request(self, *context: object) -> flask.Response:
        """Serve a request, from its first `before_request` function to its last `after_request` function."""
        request = _request()
        ticket = self._ticket(request)
        if ticket is None:
            raise RouteMismatch(None, f"{self._app.name} was reached without its gate")
        flask.g.principal = request.environ[PRINCIPAL]
        judged = _judged(ticket)
        if judged is not None and _has_other_arguments(request, judged):
            told = "the request has other arguments than were decided on"
            ticket.mismatched(f"{told}: {request.method} {request.path}")
        response: flask.Response = self._beneath["full_dispatch_request"](*context)
        return response

    def preprocess_request(self, *context: object) -> object:
        """Run what the app runs before the view, and may answer instead of it."""
        return self._run("preprocess_request", context)

    def dispatch_request(self, *context: object) -> object:
        """Run the view of a request, if it is the one that was judged."""
        request = _request()
        if request.routing_exception is None:
            ticket = self._ticket(request)
            if ticket is None:
                raise RouteMismatch(None, f"{self._app.name} was reached without its gate")
            if ticket.own.concealed_as_missing:
                raise NotFound
            judged = _judged(ticket)
            told = None if judged is None else self._mismatch(request, judged)
            if told is not None:
                ticket.mismatched(f"{told}: {request.method} {request.path}")
        return self._run("dispatch_request", context)

    def _run(self, name: str, context: tuple[object, ...]) -> object:
        """Run functions of the app; a refusal is noted, as extensions answer exceptions before the gate can."""
        try:
            return self._beneath[name](*context)
        except Exception as error:
            if denial_in(error) is not None:
                _request().environ[TICKETS][0].denied = error
            raise

    def handle_user_exception(self, *context_and_error: Any) -> object:  # noqa: ANN401 - Flask 3.2 puts its context first
        """Answer an exception that is the app's own matter; a refusal is the gate's, whatever handlers there are."""
        *context, error = context_and_error
        return self._beneath["handle_user_exception"](*context, self._own_matter(error))

    def handle_exception(self, *context_and_error: Any) -> flask.Response:  # noqa: ANN401 - as above
        """Answer what nobody handled, or came from an `after_request` function."""
        *context, error = context_and_error
        if "principal" not in flask.g:  # sessions are opened before anything of the app runs
            flask.g.principal = _request().environ.get(PRINCIPAL, ANONYMOUS)
        own = self._own_matter(error)
        if own is error:
            response: flask.Response = self._beneath["handle_exception"](*context, error)
        else:
            found = self._beneath["handle_user_exception"](*context, own)
            finalize: Callable[..., flask.Response] = self._app.finalize_request
            response = finalize(*context, found, from_error_handler=True)
        return response

    def _own_matter(self, error: Exception) -> Exception:
        """Return what the app has to answer: the exception, or that nothing is there; raise what the gate answers."""
        denied = denial_in(error)
        if denied is None and not isinstance(error, RouteMismatch):
            return error
        request = _request()
        if denied is not None and hides(request.environ, denied):
            # The app's own page, which must not know what it is that is hidden.
            request.url_rule = request.view_args = None
            request.routing_exception = missing = NotFound()
            flask.g.principal = request.environ[PRINCIPAL] = ANONYMOUS
            request.environ[TICKETS][0].denied = None
            return missing
        raise error

    def _ticket(self, request: flask.Request) -> Ticket | None:
        """Return what the app's own gate let this request in with."""
        for ticket in request.environ.get(TICKETS, ()):
            if ticket.met.routes is self._routes:
                found: Ticket = ticket
                return found
        return None

    def _mismatch(self, request: flask.Request, judged: Judged) -> str | None:
        """Return how a request differs from the one that was judged, where another view would run."""
        rule = request.url_rule
        if rule is None or rule is not judged.rule or self._app.view_functions.get(rule.endpoint) is not judged.view:
            return "the app would run another view than was decided on"
        if request.method != judged.method.upper():
            return "the request has another method than was decided on"
        return None


_HELD: Final = (
    *("create_url_adapter", "full_dispatch_request", "preprocess_request", "dispatch_request"),
    *("handle_user_exception", "handle_exception"),
)
"""The methods of an app that have a door before them."""


def _give_back(request: flask.Request) -> None:
    """Let a request that a view makes leave the `flask.g` that Flask before 3.2 shares with it as it was."""
    shared = flask.g._get_current_object()  # noqa: SLF001 - as in _request
    principal = shared.get("principal")
    close = request.close

    def closed() -> None:
        close()
        shared.principal = principal

    request.close = closed  # type: ignore[method-assign]  # of this one


def _judged(ticket: Ticket) -> Judged | None:
    """Return what was judged; nothing, where a gate that only reports had no need to know."""
    judged: Judged | None = ticket.answer[0] if ticket.answer else None  # type: ignore[assignment]  # of FlaskRoutes
    return judged


def _has_other_arguments(request: flask.Request, judged: Judged) -> bool:
    """Tell whether a request that was matched anew has other arguments; asked before preprocessors change them."""
    if request.view_args is judged.params or judged.rule is None or request.url_rule is not judged.rule:
        return False
    return request.view_args != judged.params


def _request() -> flask.Request:
    request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - werkzeug's documented way to what a proxy stands for
    return request
