"""Tickets, doors and latches: what an app runs is what a gate decided on, whatever happened to the request in between.

A door stands before every router that was walked, a latch before everything that such a router may run.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

from starlette._utils import get_route_path
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from authz403.asgi_io import access_request, missing_page, respond
from authz403.decision import Outcome
from authz403.errors import AccessDenied, denial_in
from authz403.gate import Gate
from authz403.principal import ANONYMOUS
from authz403.reasons import Reason
from authz403.request import WEBSOCKET
from authz403.routing import Trail
from authz403.walk import AppRoutes

TICKETS: Final = "authz403"
"""The key of the scope under which the tickets of all gates on the way stand, the outermost first."""


class Ticket:
    """What was decided on, left in the scope for doors and latches: whoever sees anything else runs nothing.

    `outcome` is that of the outermost gate, where gates further in leave what they said; `own` is that of this gate,
    and `walk` what it knew of the app then. `before` is the scope as it came to the router that answers where the
    request is concealed.
    """

    __slots__ = ("before", "gate", "method", "outcome", "own", "routes", "trail", "type", "walk")

    def __init__(
        self, gate: Gate, outermost: Outcome, own: Outcome, trail: Trail, scope: Scope, routes: AppRoutes | None
    ) -> None:
        self.gate = gate
        self.outcome = outermost
        self.own = own
        self.type = scope["type"]
        self.method = scope.get("method")
        self.trail = trail
        self.routes = routes
        self.walk = None if routes is None else routes.walk
        self.before: Scope | None = None

    @property
    def is_out_of_date(self) -> bool:
        """Whether the app's routes changed since, so that one of them may have no latch."""
        return self.walk is not None and self.walk.watch.has_changed

    def is_for(self, scope: Scope) -> bool:
        """Tell whether a request is still of the type and method that were decided on, by the same routes."""
        return self.method == scope.get("method") and self.type == scope["type"] and not self.is_out_of_date

    def leaves_to_others(self, scope: Scope, router: int) -> bool:
        """Tell whether the gate does not know a router, so that another gate decides for that."""
        return self.is_for(scope) and (self.walk is None or router not in self.walk.routers)


_GUARDED: Final = frozenset({"http", "websocket"})


class Door:
    """Stands before a router: runs it only for a request that a gate decided on, and that is still the same request."""

    def __init__(self, app: ASGIApp, router: Router, gate: Gate) -> None:
        self.app = app
        self._router = router
        self._here = id(router)
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        tickets: tuple[Ticket, ...] = scope.get(TICKETS, ())
        # Nearly always, one gate decided on this very request, and conceals nothing here; each call would cost it.
        if not (
            len(tickets) == 1
            and (self._here, get_route_path(scope) if scope.get("root_path") else scope["path"])
            in (ticket := tickets[0]).trail
            and ticket.method == scope.get("method")
            and ticket.type == scope["type"]
            and ((walk := ticket.walk) is None or not walk.watch.has_changed)
            and ticket.own.missing_at != self._here
        ) and await self._stopped(tickets, scope, receive, send):
            return
        try:
            await self.app(scope, receive, send)
        except (AccessDenied, ExceptionGroup) as error:
            denied = denial_in(error)
            if not tickets or tickets[0].outcome.answered or denied is None:
                raise
            # Caught here, inside the app's own middleware, before that takes it for a crash.
            await self._denied(tickets, tickets[0].outcome, denied, scope, receive, send)

    async def _stopped(self, tickets: tuple[Ticket, ...], scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer what must not reach the router, and tell whether that was so."""
        if scope["type"] not in _GUARDED:
            return False
        if not self._is_expected(tickets, scope):
            await self._mismatch(tickets, scope, receive, send)
            return True
        for ticket in tickets:
            own = ticket.own
            if own.missing_at == self._here and own.decision.concealed:
                # The router writes into the scope what a concealed refusal from inside a handler must not show.
                ticket.before = dict(scope)
                if own.concealed_as_missing:
                    scope.setdefault("router", self._router)
                    await self._router.not_found(scope, receive, send)
                    return True
        return False

    async def _denied(
        self,
        tickets: tuple[Ticket, ...],
        outcome: Outcome,
        denied: AccessDenied,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Answer a request that was denied inside the app."""
        concealing = next((ticket for ticket in tickets if ticket.own.decision.concealed), None)
        tickets[0].gate.denied_by_app(outcome, denied, conceals=concealing is not None)
        if outcome.response is not None:
            await respond(outcome.response, scope, send)
            return
        before = concealing.before if concealing is not None and concealing.before is not None else dict(scope)
        scope.clear()
        scope.update({**before, "user": ANONYMOUS, "auth": ANONYMOUS.credentials})
        if concealing is None or concealing.own.missing_at == self._here:
            scope.setdefault("router", self._router)
            await self._router.not_found(scope, receive, send)
        else:
            await missing_page(scope, receive, send)  # the router that answers for it is further out

    def _is_expected(self, tickets: tuple[Ticket, ...], scope: Scope) -> bool:
        """Tell whether some gate decided that this router may see this request, and none decided on another."""
        here = (self._here, get_route_path(scope))
        expected = False
        for ticket in tickets:
            if _let_pass(ticket) or (ticket.is_for(scope) and here in ticket.trail):
                expected = True
            elif not ticket.gate.report_only and not ticket.leaves_to_others(scope, self._here):
                return False
        return expected

    async def _mismatch(self, tickets: tuple[Ticket, ...], scope: Scope, receive: Receive, send: Send) -> None:
        name = type(self._router).__name__
        if any(ticket.is_out_of_date for ticket in tickets):
            told = f"{name} has other routes than when the request was decided"
        else:
            told = f"{name} sees another request than was decided on"
        await _refuse(self._gate, tickets, told, self.app, scope, receive, send)


class Latch:
    """Stands before what a router may run, and lets in only requests that were decided to run that.

    So whatever makes a router choose otherwise than its table says (headers that its routes look at, an expression that
    was changed, a route that came in between) runs nothing. `beneath` is what stands behind it, and `step` is what a
    trail calls that.
    """

    __slots__ = ("_gate", "beneath", "step")

    def __init__(self, beneath: ASGIApp, step: int, gate: Gate) -> None:
        self.beneath = beneath
        self.step = step
        self._gate = gate

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one connection (ASGI 3)."""
        tickets: tuple[Ticket, ...] = scope.get(TICKETS, ())
        if (len(tickets) == 1 and self.step in tickets[0].trail) or self._is_expected(tickets):
            return self.beneath(scope, receive, send)
        for ticket in tickets:
            if ticket.routes is not None:
                ticket.routes.doubt()
        told = "the router chose another route than was decided on"
        return _refuse(self._gate, tickets, told, self.beneath, scope, receive, send)

    def _is_expected(self, tickets: tuple[Ticket, ...]) -> bool:
        expected = False
        for ticket in tickets:
            if _let_pass(ticket) or self.step in ticket.trail:
                expected = True
            elif not ticket.gate.report_only and ticket.walk is not None and self.step in ticket.walk.steps:
                return False
        return expected


class Doors:
    """Puts doors and latches for a gate into an app."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def before_router(self, router: Router) -> str | None:
        """Put a door around a router's own `app`, inside its own middleware; say why where that cannot be."""
        own = router.app
        holder: Any = router
        attribute = "middleware_stack"
        while True:
            inner = getattr(holder, attribute, None)
            if isinstance(inner, Door):
                return None
            if inner is None:
                return (
                    "its middleware does not keep what it wraps in an attribute app, so that no door can be put "
                    "inside it"
                )
            # A bound method is made anew each time it is looked up, so that none is the same object as another.
            if inner == own:
                setattr(holder, attribute, Door(own, router, self._gate))
                return None
            holder, attribute = inner, "app"

    def before(self, holder: Any, attribute: str, step: int) -> str | None:  # noqa: ANN401 - routes share no type
        """Put a latch before what is called by this attribute; say why where that cannot be."""
        beneath = getattr(holder, attribute)
        if isinstance(beneath, Latch):
            if beneath.step == step:
                return None
            # A copy of what had a latch before, which leads to the original.
            own = getattr(type(holder), attribute, None)
            beneath = beneath.beneath if own is None else own.__get__(holder)
        try:
            setattr(holder, attribute, Latch(beneath, step, self._gate))
        except AttributeError:
            return f"its {attribute} cannot be held to what was decided"
        return None


async def _refuse(
    own: Gate, tickets: tuple[Ticket, ...], told: str, app: ASGIApp, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer 500 for a request that is not the one decided on; a gate that only reports lets it go on.

    `own` is the gate that put this door or latch here: without tickets, nobody else is there to answer.
    """
    named = f"{scope.get('method', WEBSOCKET)} {scope['path']}"
    if not tickets:
        wanted = {name.encode("ascii"): name for name in own.fields}
        hint = f"a router was reached without a gate: {named}"
        outcome = own.refused(access_request(scope, wanted), Reason.ROUTE_MISMATCH, hint)
        own.record(outcome)
    else:
        gate = _binding(tickets)[-1].gate
        outcome = gate.broken(tickets[-1].outcome, Reason.ROUTE_MISMATCH, f"{told}: {named}")
        if gate.report_only:
            await app(scope, receive, send)
            return
    if outcome.response is not None:
        await respond(outcome.response, scope, send)


def _binding(tickets: tuple[Ticket, ...]) -> tuple[Ticket, ...]:
    """Return the tickets of the gates that enforce; where all of them only report, all."""
    return tuple(ticket for ticket in tickets if not ticket.gate.report_only) or tickets


def _let_pass(ticket: Ticket) -> bool:
    """Tell whether a gate that only reports let something pass which it may not even have routed."""
    return ticket.gate.report_only and not ticket.outcome.decision.allowed
