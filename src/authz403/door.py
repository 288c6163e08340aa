"""Tickets and doors: a router runs only what a gate decided on, whatever happened to the request in between."""

from __future__ import annotations

from typing import Any, Final

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from authz403.asgi_io import access_request, host_of, respond
from authz403.decision import Outcome
from authz403.errors import AccessDenied
from authz403.gate import Gate
from authz403.reasons import Reason
from authz403.request import WEBSOCKET
from authz403.routing import Trail

TICKETS: Final = "authz403"
"""The key of the scope under which the tickets of all gates on the way stand, the outermost first."""


class Ticket:
    """What was decided on, left in the scope for the doors: a router that sees anything else runs nothing.

    `outcome` is that of the outermost gate, where gates further in leave what they said.
    """

    __slots__ = ("conceals", "gate", "host", "method", "missing_at", "outcome", "path", "trail", "type")

    def __init__(
        self, gate: Gate, outermost: Outcome, own: Outcome, trail: Trail, scope: Scope, host: bytes | None
    ) -> None:
        self.gate = gate
        self.outcome = outermost
        self.conceals = own.decision.concealed
        self.type = scope["type"]
        self.method = scope.get("method")
        self.path = scope["path"]
        self.trail = trail
        self.host = host
        # The router that holds the route answers for a concealed one as if it did not.
        self.missing_at = trail[-1][0] if own.concealed_as_missing and trail else None


class Door:
    """Stands before a router: runs it only for a request that a gate decided on, and that is still the same request."""

    def __init__(self, app: ASGIApp, router: Router, gate: Gate) -> None:
        self.app = app
        self._router = router
        self._here = id(router)
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
        conceals = is_missing = False
        for ticket in tickets:
            conceals = conceals or ticket.conceals
            is_missing = is_missing or ticket.missing_at == self._here
        before = dict(scope) if conceals else {}
        if is_missing:
            await self._router.not_found(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except (AccessDenied, ExceptionGroup) as error:
            denied = _denial_in(error)
            if outcome.answered or denied is None:
                raise
            # Caught here, inside the app's own middleware, before that takes it for a crash.
            tickets[0].gate.denied_by_app(outcome, denied, conceals=conceals)
            if outcome.response is not None:
                await respond(outcome.response, scope, send)
            else:
                scope.clear()
                scope.update(before)
                await self._router.not_found(scope, receive, send)

    def _is_expected(self, tickets: tuple[Ticket, ...], scope: Scope) -> bool:
        """Tell whether some gate decided that this router may see this request, and none decided on another."""
        here = (self._here, scope.get("root_path", ""))
        expected = False
        for ticket in _binding(tickets) if len(tickets) > 1 else tickets:
            if ticket.gate.report_only and not ticket.outcome.decision.allowed:
                return True  # it let pass what it may not even have routed
            if (
                ticket.path != scope["path"]
                or ticket.method != scope.get("method")
                or ticket.type != scope["type"]
                or (ticket.host is not None and ticket.host != host_of(scope))
            ):
                return False
            if here in ticket.trail:
                expected = True
            elif any(router == self._here for router, _ in ticket.trail):
                return False
        return expected

    async def _mismatch(self, tickets: tuple[Ticket, ...], scope: Scope, receive: Receive, send: Send) -> None:
        told = "was reached without a gate" if not tickets else "sees another request than was decided on"
        hint = f"{type(self._router).__name__} {told}: {scope.get('method', WEBSOCKET)} {scope['path']}"
        if not tickets:
            wanted = {name.encode("ascii"): name for name in self._gate.fields}
            outcome = self._gate.refused(access_request(scope, wanted), Reason.ROUTE_MISMATCH, hint)
            self._gate.record(outcome)
        else:
            gate = _binding(tickets)[-1].gate
            outcome = gate.broken(tickets[-1].outcome, Reason.ROUTE_MISMATCH, hint)
            if gate.report_only:
                await self.app(scope, receive, send)
                return
        if outcome.response is not None:
            await respond(outcome.response, scope, send)


def _denial_in(error: BaseException) -> AccessDenied | None:
    """Return the denial that an exception is: itself, or one of several tasks that were denied and nothing else."""
    while isinstance(error, ExceptionGroup) and error.split(AccessDenied)[1] is None:
        error = error.exceptions[0]
    return error if isinstance(error, AccessDenied) else None


def _binding(tickets: tuple[Ticket, ...]) -> tuple[Ticket, ...]:
    """Return the tickets of the gates that enforce; where all of them only report, all."""
    return tuple(ticket for ticket in tickets if not ticket.gate.report_only) or tickets


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
