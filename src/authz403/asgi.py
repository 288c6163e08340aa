"""The ASGI enforcement point: a native request in, the gate's outcome out. It holds no policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz403.asgi_io import (
    POLICY_VIOLATION,
    STARTS_ANSWER,
    access_request,
    choosing_subprotocol,
    crash_page,
    hide_token,
    missing_page,
    respond,
    with_headers,
)
from authz403.checks import current
from authz403.decision import Outcome
from authz403.door import TICKETS, Doors, Ticket
from authz403.errors import AccessDenied, ConfigurationError, Mistakes
from authz403.fulfil import fulfilled
from authz403.gate import Gate, as_gate
from authz403.need import Need
from authz403.principal import ANONYMOUS
from authz403.reasons import Reason
from authz403.route_objects import router_of
from authz403.routing import Trail
from authz403.short_way import AskedRoutes, ShortWay
from authz403.startup import check_app, meeting
from authz403.tokens import SUBPROTOCOL
from authz403.walk import AppRoutes

_GUARDED: Final = frozenset({"http", "websocket"})
_NOT_FOUND: Final = 404


class _Find:
    """Stands for `routes_of=` not given: the routes are those of the wrapped app."""


_FIND: Final = _Find()


@dataclass(frozen=True, slots=True)
class _Met:
    """A gate that has met its app."""

    gate: Gate
    routes: AppRoutes | None
    wanted: Mapping[bytes, str]
    reads_subprotocol: bool
    short_way: ShortWay | None

    @property
    def conceals(self) -> bool:
        """Whether any policy of gate or app makes refusals look like missing routes."""
        return self.gate.rules.conceals or (self.routes is not None and self.routes.walk.conceals)


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

    # The way of every request, in one frame: each more would cost it.
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: C901, PLR0912, PLR0915
        """Serve one connection (ASGI 3)."""
        if scope["type"] not in _GUARDED:
            if scope["type"] != "lifespan":
                raise RuntimeError(f"authz403 does not know what to do with an ASGI scope of type {scope['type']!r}")
            await self._lifespan(scope, receive, send)
            return
        met = self._met or self._meet()
        if met is None:
            await self._misconfigured(scope, send)
            return
        if TICKETS in scope:
            await self._inside(met, scope, receive, send)
            return
        gate = met.gate
        trail: Trail = []
        short = met.short_way
        outcome = short.outcome(scope, trail) if short is not None and scope["type"] == "http" else None
        if not isinstance(outcome, Outcome):
            asked = outcome
            if asked is None:
                trail = []
            step = _decide(met, scope, trail, asked=asked)
            while isinstance(step, Need):
                step = step.resume(await fulfilled(step))
            outcome = step
            if asked is not None:
                outcome.started = asked.started
        if outcome.response is not None:
            gate.record(outcome)
            await respond(outcome.response, scope, send)
            return
        # The request goes on, and its one event is written when the answer starts.
        offered = hide_token(scope) if met.reads_subprotocol and scope["type"] == "websocket" else None

        async def send_on(message: Message) -> None:
            if not outcome.answered and message["type"] in STARTS_ANSWER:
                outcome.answered = True
                gate.record(outcome.inner or outcome)
                conceals = message.get("status") == _NOT_FOUND and met.conceals
                if outcome.headers or conceals:
                    message = with_headers(message, outcome.headers, conceals)
                if offered is not None:
                    message = choosing_subprotocol(message, offered)
            await send(message)

        # A page for what is missing does not know who asks, so that of what is concealed must not know it, either.
        scope["user"] = who = ANONYMOUS if outcome.concealed_as_missing else outcome.principal or ANONYMOUS
        scope["auth"] = who.credentials
        scope[TICKETS] = (Ticket(gate, outcome, outcome, trail, scope, met.routes),)
        token = current.set(outcome)
        try:
            if outcome.concealed_as_missing and not trail:
                await missing_page(scope, receive, send_on)  # there is no router that could say it
            else:
                await self.app(scope, receive, send_on)
        except AccessDenied as denied:
            await self._denied_inside(met, outcome, denied, scope, receive, send_on)
        except Exception as error:
            if not outcome.answered and gate.cors is not None and scope["type"] == "http":
                await crash_page(error, scope, receive, send_on)
            raise
        finally:
            current.reset(token)
            scope.pop(TICKETS, None)  # whoever sends the same scope to another app starts anew
            if not outcome.answered:
                outcome.answered = True
                gate.record(outcome.inner or outcome)

    @property
    def gate(self) -> Gate:
        """The gate; where a function makes it, and has not yet, made for whoever asks."""
        return as_gate(self._gate) if self._met is None else self._met.gate

    @property
    def routed(self) -> object:
        """The app whose routes are asked, or `None` where rules alone hold."""
        return self.app if isinstance(self._routes_of, _Find) else self._routes_of

    async def _inside(self, met: _Met, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that a gate further out let in: its CORS headers and its one event cover this answer too."""
        outer: tuple[Ticket, ...] = scope[TICKETS]
        for number, ticket in enumerate(outer):
            if ticket.routes is not None and ticket.routes is met.routes:
                # The app asks itself with a copy of the scope: another request, which is decided anew.
                outer = outer[:number]
                scope = {**scope, TICKETS: outer}
                break
        if not outer:
            del scope[TICKETS]
            await self(scope, receive, send)
            return
        outermost = outer[-1].outcome
        trail: Trail = []
        step = _decide(met, scope, trail, within=outermost)
        while isinstance(step, Need):
            step = step.resume(await fulfilled(step))
        outcome = step
        if not outcome.decision.allowed:
            outermost.inner = outcome
        if outcome.response is not None:
            await respond(outcome.response, scope, send)
            return
        scope["user"] = who = ANONYMOUS if outcome.concealed_as_missing else outcome.principal or ANONYMOUS
        scope["auth"] = who.credentials
        scope[TICKETS] = (*outer, Ticket(met.gate, outermost, outcome, trail, scope, met.routes))
        token = current.set(outcome)
        try:
            if outcome.concealed_as_missing and not trail:
                await missing_page(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            current.reset(token)

    async def _denied_inside(
        self, met: _Met, outcome: Outcome, denied: AccessDenied, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request that was refused outside of the routers, or too late."""
        if outcome.answered:
            met.gate.denied_too_late(outcome, denied)
            if scope["type"] == "http":
                raise denied
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        met.gate.denied_by_app(outcome, denied)
        if outcome.response is not None:
            await respond(outcome.response, scope, send)
        else:
            await missing_page(scope, receive, send)

    def _meet(self) -> _Met | None:
        """Bring gate and app together once; what does not fit is kept in `_failure`."""
        if self._failure is not None:
            return None
        met = meeting("AuthzMiddleware", self._gate, self._meet_at)
        if isinstance(met, ConfigurationError):
            self._failure = met
            return None
        self._met = met
        return met

    def _meet_at(self, gate: Gate) -> _Met:
        routes = self._find_routes(gate)
        check_app(gate, None if routes is None else routes.walk)
        wanted = _wanted(gate)
        short_way = None
        if routes is not None and ShortWay.suits(gate):
            short_way = ShortWay(gate, routes, wanted)
        return _Met(gate, routes, wanted, SUBPROTOCOL in gate.fields, short_way)

    def _find_routes(self, gate: Gate) -> AppRoutes | None:
        if self._routes_of is None:
            return None
        app: Any = self.routed
        if router_of(app)[0] is None:
            mistakes = Mistakes("AuthzMiddleware")
            why = "its routes cannot be found; say routes_of= with the Starlette or FastAPI app, or routes_of=None"
            mistakes.add("app", type(app).__name__, why)
            mistakes.raise_if_any()
        return AppRoutes(app, Doors(gate))

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start the app, and meet it once it has started: until then, it may add routes."""
        failure: ConfigurationError | None = None
        has_asked = False

        async def receive_on() -> Message:
            nonlocal has_asked
            has_asked = True
            return await receive() if failure is None else {"type": "lifespan.shutdown"}

        async def send_on(message: Message) -> None:
            nonlocal failure
            if message["type"] == "lifespan.startup.complete" and (self._met or self._meet()) is None:
                failure = self._failure
            if failure is None:
                await send(message)

        try:
            await self.app(scope, receive_on, send_on)
        except Exception:
            if has_asked or (self._met or self._meet()) is not None:
                raise
            failure = self._failure  # an app without lifespan is met all the same
            await receive()
        if failure is not None:
            # Servers swallow an exception raised here and serve on; this message stops them.
            await send({"type": "lifespan.startup.failed", "message": str(failure)})
            raise failure

    async def _misconfigured(self, scope: Scope, send: Send) -> None:
        gate = self._gate if isinstance(self._gate, Gate) else Gate()
        outcome = gate.refused(access_request(scope, _wanted(gate)), Reason.MISCONFIGURED, str(self._failure))
        gate.record(outcome)
        if outcome.response is not None:
            await respond(outcome.response, scope, send)


def _decide(
    met: _Met, scope: Scope, trail: Trail, within: Outcome | None = None, asked: AskedRoutes | None = None
) -> Outcome | Need[Outcome]:
    routes = met.routes
    if routes is None:
        return met.gate.decide(access_request(scope, met.wanted), within=within)
    root_path = routes.walk.root_path
    if root_path:
        scope = {**scope, "root_path": root_path}
    request = access_request(scope, met.wanted)
    return met.gate.decide(request, asked or routes, (scope, trail, request.path), within=within)


def _wanted(gate: Gate) -> dict[bytes, str]:
    """Return the header fields that a gate reads, by their names in a scope."""
    return {name.encode("ascii"): name for name in gate.fields}
