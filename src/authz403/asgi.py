"""The ASGI enforcement point: a native request in, the gate's outcome out. It holds no policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz403.checks import current
from authz403.cors import Headers
from authz403.decision import Outcome, Response
from authz403.endpoint import RULES_ALONE
from authz403.errors import AccessDenied, ConfigurationError, Mistakes
from authz403.gate import Gate, as_gate
from authz403.need import How, Need
from authz403.principal import ANONYMOUS
from authz403.reasons import Reason
from authz403.request import WEBSOCKET, AccessRequest
from authz403.routing import AppRoutes, Trail, router_of
from authz403.startup import check_app

TICKETS: Final = "authz403"
_POLICY_VIOLATION: Final = 1008  # RFC 6455 section 7.4.1
_NOT_FOUND: Final = 404
_WEBSOCKET_ANSWERS: Final = frozenset({"websocket.close", "websocket.accept"})
_STARTS_ANSWER: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"}
)


class _Find:
    """Stands for `routes_of=` not given: the routes are those of the wrapped app."""


_FIND: Final = _Find()


class _Met(NamedTuple):
    """A gate that has met its app."""

    gate: Gate
    routes: AppRoutes | None
    wanted: Mapping[bytes, str]

    @property
    def conceals(self) -> bool:
        """Whether any policy of gate or app makes refusals look like missing routes."""
        return self.gate.rules.conceals or (self.routes is not None and self.routes.walk.conceals)


class Ticket:
    """What was decided on, left in the scope for the doors: a router that sees anything else runs nothing.

    `outcome` is that of the outermost gate, where gates further in leave what they said.
    """

    __slots__ = ("gate", "host", "method", "missing_at", "outcome", "path", "trail", "type")

    def __init__(self, met: _Met, outcome: Outcome, trail: Trail, scope: Scope, *, missing: bool) -> None:
        self.gate = met.gate
        self.outcome = outcome
        self.type = scope["type"]
        self.method = scope.get("method")
        self.path = scope["path"]
        self.trail = trail
        self.host = _host(scope) if met.routes is not None and met.routes.walk.has_hosts else None
        # The router that holds the route answers for a concealed one as if it did not.
        self.missing_at = trail[-1][0] if missing and trail else None


class AuthzMiddleware:
    """Puts a `Gate` before an ASGI app: `app.add_middleware(AuthzMiddleware, gate=gate)`, or wrapped around any app.

    `gate` is a `Gate` or a function that returns one. The policy of the endpoint that will run is found through the
    app's own routes; for an app whose routes cannot be found, `routes_of=` names the Starlette or FastAPI app inside,
    or `None` for rules alone. Mistakes that show only now go out as `lifespan.startup.failed`, all at once; without
    lifespan, every request is answered with 500 `misconfigured`.
    """

    def __init__(self, app: ASGIApp, *, gate: Gate | Callable[[], Gate], routes_of: object = _FIND) -> None:
        self.app = app
        self._gate = gate
        self._routes_of = routes_of
        self._met: _Met | None = None
        self._failure: ConfigurationError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            raise RuntimeError(f"authz403 does not know what to do with an ASGI scope of type {kind!r}")
        met = self._met or self._meet()
        if met is None:
            await self._misconfigured(scope, send)
            return
        outer: tuple[Ticket, ...] = scope.get(TICKETS, ())
        trail: Trail = []
        within = outer[-1].outcome if outer else None
        if met.routes is None:
            step = met.gate.decide(_access_request(scope, met.wanted), RULES_ALONE, scope, within=within)
        else:
            root_path = met.routes.walk.root_path
            seen = {**scope, "root_path": root_path} if root_path else scope
            step = met.gate.decide(_access_request(seen, met.wanted), met.routes, (seen, trail), within=within)
        while isinstance(step, Need):
            step = step.resume(await _fulfilled(step))
        if within is not None:
            await self._inside(met, within, step, trail, scope, receive, send)
        elif step.response is not None:
            met.gate.record(step)
            await _respond(step.response, scope, send)
        else:
            await self._outermost(met, step, trail, scope, receive, send)

    async def _outermost(
        self, met: _Met, outcome: Outcome, trail: Trail, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Run the app for a request that goes on, and write its one event when the answer starts."""
        gate = met.gate

        async def send_on(message: Message) -> None:
            if not outcome.answered and message["type"] in _STARTS_ANSWER:
                outcome.answered = True
                gate.record(outcome.inner or outcome)
                message = _with_headers(message, outcome.headers, conceals=met.conceals)
            await send(message)

        self._let_in(met, outcome, outcome, trail, scope)
        token = current.set(outcome)
        try:
            await self._run(outcome, trail, scope, receive, send_on)
        except AccessDenied as denied:
            await self._denied_inside(met, outcome, denied, scope, receive, send_on)
        except Exception as error:
            if not outcome.answered:
                if gate.cors is not None and scope["type"] == "http":
                    await _crash_page(error, scope, receive, send_on)
                gate.record(outcome.inner or outcome)
            raise
        finally:
            current.reset(token)

    async def _inside(
        self, met: _Met, outermost: Outcome, outcome: Outcome, trail: Trail, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a request that a gate further out let in: its CORS headers and its one event cover this answer too."""
        if not outcome.decision.allowed:
            outermost.inner = outcome
        if outcome.response is not None:
            await _respond(outcome.response, scope, send)
            return
        self._let_in(met, outermost, outcome, trail, scope)
        token = current.set(outcome)
        try:
            await self._run(outcome, trail, scope, receive, send)
        finally:
            current.reset(token)

    def _let_in(self, met: _Met, outermost: Outcome, outcome: Outcome, trail: Trail, scope: Scope) -> None:
        """Leave the caller in the scope, and the ticket for the doors."""
        who = outcome.principal or ANONYMOUS
        scope["user"] = who
        scope["auth"] = who.credentials
        ticket = Ticket(met, outermost, trail, scope, missing=outcome.concealed_as_missing)
        scope[TICKETS] = (*scope.get(TICKETS, ()), ticket)

    async def _run(self, outcome: Outcome, trail: Trail, scope: Scope, receive: Receive, send: Send) -> None:
        if outcome.concealed_as_missing and not trail:
            await _missing_page(scope, receive, send)  # there is no router that could say it
        else:
            await self.app(scope, receive, send)

    async def _denied_inside(
        self, met: _Met, outcome: Outcome, denied: AccessDenied, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request that was refused outside of the routers, or too late."""
        if outcome.answered:
            met.gate.audit.error(str(denied.reason), "access was denied after the answer had started", denied)
            if scope["type"] == "http":
                raise denied
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        met.gate.denied_by_app(outcome, denied)
        if outcome.response is not None:
            await _respond(outcome.response, scope, send)
        else:
            await _missing_page(scope, receive, send)

    # ---- meeting the app

    def _meet(self) -> _Met | None:
        """Bring gate and app together once; what does not fit is kept in `_failure`."""
        if self._failure is not None:
            return None
        try:
            gate = as_gate(self._gate)
            routes = self._find_routes(gate)
            check_app(gate, routes)
        except ConfigurationError as error:
            self._failure = error
            return None
        except Exception as error:  # noqa: BLE001 - a factory or an app that raises here is a mistake of the configuration
            mistakes = Mistakes("AuthzMiddleware")
            mistakes.add_secret("gate", f"meeting the app raised {error!r}")
            self._failure = ConfigurationError("AuthzMiddleware", mistakes)
            self._failure.__cause__ = error
            return None
        self._met = _Met(gate, routes, {name.encode("ascii"): name for name in gate.fields})
        return self._met

    def _find_routes(self, gate: Gate) -> AppRoutes | None:
        if self._routes_of is None:
            return None
        app: Any = self.app if isinstance(self._routes_of, _Find) else self._routes_of
        if router_of(app)[0] is None:
            mistakes = Mistakes("AuthzMiddleware")
            why = "its routes cannot be found; say routes_of= with the Starlette or FastAPI app, or routes_of=None"
            mistakes.add("app", type(app).__name__, why)
            mistakes.raise_if_any()
        return AppRoutes(app, lambda router: place_door(router, gate))

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._met is None and self._meet() is None and self._failure is not None:
            # Servers swallow an exception raised here and serve on; this message stops them.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(self._failure)})
            raise self._failure
        await self.app(scope, receive, send)

    async def _misconfigured(self, scope: Scope, send: Send) -> None:
        gate = self._gate if isinstance(self._gate, Gate) else Gate()
        outcome = gate.refused(_access_request(scope, {}), Reason.MISCONFIGURED, str(self._failure))
        gate.record(outcome)
        if outcome.response is not None:
            await _respond(outcome.response, scope, send)


class Door:
    """Stands before a router: runs it only for a request that a gate decided on, and that is still the same request."""

    def __init__(self, app: ASGIApp, router: Router, gate: Gate) -> None:
        self.app = app
        self._router = router
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        tickets: tuple[Ticket, ...] = scope.get(TICKETS, ())
        if not self._is_expected(tickets, scope):
            await self._mismatch(tickets, scope, receive, send)
            return
        outcome = tickets[0].outcome
        # The router writes into the scope what a concealed refusal from inside a handler must not show.
        before = dict(scope) if outcome.decision.concealed else {}
        if any(ticket.missing_at == id(self._router) for ticket in tickets):
            await self._router.not_found(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except AccessDenied as denied:
            if outcome.answered:
                raise
            # Caught here, inside the app's own middleware, before that takes it for a crash.
            tickets[0].gate.denied_by_app(outcome, denied)
            if outcome.response is not None:
                await _respond(outcome.response, scope, send)
            else:
                scope.clear()
                scope.update(before)
                await self._router.not_found(scope, receive, send)

    def _is_expected(self, tickets: tuple[Ticket, ...], scope: Scope) -> bool:
        """Tell whether some gate decided that this router may see this request, and none decided on another."""
        router, root_path = id(self._router), scope.get("root_path", "")
        expected = False
        for ticket in tickets:
            if ticket.outcome.report_only and not ticket.outcome.decision.allowed:
                return True  # a gate that only reports let pass what it may not even have routed
            if (
                ticket.path != scope["path"]
                or ticket.method != scope.get("method")
                or ticket.type != scope["type"]
                or (ticket.host is not None and ticket.host != _host(scope))
            ):
                return False
            seen = [there for known, there in ticket.trail if known == router]
            if seen and root_path not in seen:
                return False
            expected = expected or bool(seen)
        return expected

    async def _mismatch(self, tickets: tuple[Ticket, ...], scope: Scope, receive: Receive, send: Send) -> None:
        told = "was reached without a gate" if not tickets else "sees another request than was decided on"
        hint = f"{type(self._router).__name__} {told}: {scope.get('method', WEBSOCKET)} {scope['path']}"
        if not tickets:
            outcome = self._gate.refused(_access_request(scope, {}), Reason.ROUTE_MISMATCH, hint)
            self._gate.record(outcome)
        else:
            ticket = tickets[-1]
            outcome = ticket.gate.broken(ticket.outcome, Reason.ROUTE_MISMATCH, hint)
            if outcome.report_only:
                await self.app(scope, receive, send)
                return
        if outcome.response is not None:
            await _respond(outcome.response, scope, send)


def place_door(router: Router, gate: Gate) -> str | None:
    """Put a door around a router's own `app`, inside the router's own middleware; say why where that cannot be."""
    own = router.app
    holder: Any = router
    attribute = "middleware_stack"
    while True:
        inner = getattr(holder, attribute, None)
        if isinstance(inner, Door):
            return None
        if inner is None:
            return (
                "its middleware does not keep what it wraps in an attribute app, so that no door can be put inside it"
            )
        if inner == own:
            setattr(holder, attribute, Door(own, router, gate))
            return None
        holder, attribute = inner, "app"


# ---- the native side


def _access_request(scope: Scope, wanted: Mapping[bytes, str]) -> AccessRequest:
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in scope["headers"]:
        field = wanted.get(name)
        if field is not None:
            text = value.decode("latin-1")
            fields[field] = (*fields[field], text) if field in fields else (text,)
    client = scope.get("client")
    peer = client[0] if client else None
    return AccessRequest(
        _method(scope),
        get_route_path(scope),
        peer if isinstance(peer, str) else None,
        fields,
        # uvicorn's own reading of X-Forwarded-For leaves the forwarded address with port 0
        bool(client and len(client) > 1 and client[1] == 0 and "x-forwarded-for" in fields),
    )


def _method(scope: Scope) -> str:
    if scope["type"] == "websocket":
        return WEBSOCKET
    method: str = scope["method"]
    return method if method != WEBSOCKET else f"HTTP {method}"  # a client may invent a method of that name


def _host(scope: Scope) -> bytes:
    return b",".join(value for name, value in scope["headers"] if name == b"host")


async def _fulfilled(need: Need[Outcome]) -> object:
    """Do what a need asks for, never on the event loop's back; an exception is an answer too."""
    try:
        if need.how is How.COROUTINE:
            return await need.work()  # type: ignore[misc]  # a coroutine by its How
        if need.how is How.BLOCKING:
            return await asyncio.to_thread(need.work)
        future = need.work()
        return await asyncio.wrap_future(future) if isinstance(future, Future) else future
    except Exception as error:  # noqa: BLE001 - the core decides what a failure means
        return error


async def _respond(response: Response, scope: Scope, send: Send) -> None:
    """Send an answer of the gate's own, without reading the body of the request."""
    status, headers, body = response
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        # RFC 9110 section 9.3.2: no content in the response to HEAD.
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
    elif "websocket.http.response" in scope.get("extensions", {}):
        # Servers add a Content-Length of their own here, and a second one breaks the handshake's answer.
        framed = [header for header in headers if header[0] != b"content-length"]
        await send({"type": "websocket.http.response.start", "status": status, "headers": framed})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})


def _with_headers(message: Message, own: Headers, *, conceals: bool) -> Message:
    """Return the start of an answer with the gate's CORS headers in place of the app's.

    Where anything is concealed, no 404 is kept by caches: a stored one would tell the missing from the forbidden.
    """
    hides = conceals and message.get("status") == _NOT_FOUND
    if not (own or hides) or message["type"] in _WEBSOCKET_ANSWERS:
        return message
    headers: list[tuple[bytes, bytes]] = []
    varies = cached = False
    for header in message.get("headers", ()):
        name = header[0].lower()
        if own and name.startswith(b"access-control-"):
            continue
        if name == b"vary":
            varies = varies or b"origin" in [field.strip() for field in header[1].lower().split(b",")]
        elif name == b"cache-control":
            cached = True
        headers.append(header)
    headers.extend([header for header in own if header[0] != b"vary"] if varies else own)
    if hides and not cached:
        headers.append((b"cache-control", b"no-store"))
    return {**message, "headers": headers}


async def _crash_page(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a crash of the app as the app itself would, so that a browser may read it; the exception goes on."""
    app = scope.get("app")
    handlers = app.exception_handlers if isinstance(app, Starlette) else {}
    handler = handlers.get(500) or handlers.get(Exception)

    async def crashed(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    page = ServerErrorMiddleware(crashed, handler=handler, debug=isinstance(app, Starlette) and app.debug)
    await page(scope, receive, send)


async def _missing_page(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as a Starlette app does for a path that it does not have, with its own handler for that, if any."""
    app = scope.get("app")
    handlers = {
        key: handler
        for key, handler in (app.exception_handlers if isinstance(app, Starlette) else {}).items()
        if key not in {500, Exception}
    }
    page = ExceptionMiddleware(Router().not_found, handlers=handlers)
    await page(scope, receive, send)
