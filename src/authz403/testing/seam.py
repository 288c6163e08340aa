"""The one place where tests reach into a gate: who asks is found out in another way, for as long as a test says so.

Nothing else of the gate changes: its rules, marks, networks and CORS hold as in service. What stands in for a gate's
own `Identifier` goes when the last test that needs it ends, and no token that it took is remembered by the gate.
Nothing outside of `authz403.testing` imports this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Final

from authz403 import asgi, wsgi
from authz403.errors import Mistakes
from authz403.gate import Gate, as_gate
from authz403.guarded import Guarded, guarded
from authz403.identity import Identifier, Identity
from authz403.need import Need
from authz403.principal import Principal
from authz403.request import AccessRequest
from authz403.route_objects import wrappers
from authz403.tokens import Verified


class _Acting:
    """One block of a test: who asks, the gate that is to believe it, and whether the block still stands."""

    __slots__ = ("gate", "principal", "stands")

    def __init__(self, gate: Gate, principal: Principal) -> None:
        self.gate = gate
        self.principal = principal
        self.stands = True


_acting: ContextVar[tuple[_Acting, ...]] = ContextVar("authz403_acting", default=())
"""The blocks of this thread or task, the innermost last; a context that was copied from it may hold ended ones."""

_lock: Final = Lock()


class _StandIn(Identifier):
    """Stands in the place of a gate's own `Identifier`, and asks that where no test says otherwise."""

    nobody = None

    def __init__(self, gate: Gate) -> None:
        self.own = gate.identifier
        self.asks_each_time = self.own.asks_each_time
        self.kits: list[Identifier] = []
        self.users = 0
        self._gate = gate

    def identify(self, request: AccessRequest, now: float) -> Identity | Need[Identity]:
        """See `Identifier`."""
        for block in reversed(_acting.get()):
            if block.gate is self._gate and block.stands:
                return block.principal
        return (self.kits[-1] if self.kits else self.own).identify(request, now)

    def recalled(self, line: bytes, now: float) -> Verified | None:
        """See `Identifier`: who asks is for `identify` to say."""
        del line, now
        return None


@contextmanager
def _standing_in(gate: Gate) -> Iterator[_StandIn]:
    with _lock:
        held = gate.identifier
        stand_in = held if isinstance(held, _StandIn) else _StandIn(gate)
        stand_in.users += 1
        gate.identifier = stand_in
    try:
        yield stand_in
    finally:
        with _lock:
            stand_in.users -= 1
            if not stand_in.users:
                gate.identifier = stand_in.own


@contextmanager
def acting(gate: Gate, principal: Principal) -> Iterator[Principal]:
    """Let a gate take every request of this thread or task for one of `principal`."""
    with _standing_in(gate):
        block = _Acting(gate, principal)
        _acting.set((*_acting.get(), block))
        try:
            yield principal
        finally:
            # Not by a token: an async fixture ends in another context than it began in. And a task that began in the
            # block keeps a copy of the context: it is the block itself that says it has ended.
            block.stands = False
            _acting.set(tuple(one for one in _acting.get() if one.stands))


@contextmanager
def identified_by(gate: Gate, identifier: Identifier) -> Iterator[None]:
    """Let a gate find out by another `Identifier` who asks, whichever thread or task serves the request."""
    with _standing_in(gate) as stand_in:
        with _lock:
            stand_in.kits.append(identifier)
        try:
            yield
        finally:
            with _lock:
                stand_in.kits.remove(identifier)


def now_of(gate: Gate) -> float:
    """Return the time by a gate's own clock, in seconds since the epoch."""
    return gate.clock()


def served(app: object) -> Guarded:
    """Find the gate of an app as `guarded` does: the one that decides its requests, also where a function makes it.

    Raises `ConfigurationError` where no gate is found, or where each handler of a Django project makes its own.
    """
    found = guarded(app)
    for layer in wrappers(found.entry):
        held = getattr(layer, "extensions", {}).get("authz403") if hasattr(layer, "wsgi_app") else layer
        if isinstance(held, asgi.AuthzMiddleware | wsgi.AuthzMiddleware):
            return found._replace(gate=_kept(held))
        for added in getattr(layer, "user_middleware", ()):
            if isinstance(added.cls, type) and issubclass(added.cls, asgi.AuthzMiddleware):
                return found._replace(gate=_added(layer, added.kwargs))
    _check_settings()
    return found


def _kept(middleware: asgi.AuthzMiddleware | wsgi.AuthzMiddleware) -> Gate:
    """Return the gate that a middleware decides by, made now if a function is to make it."""
    if middleware._met is None:
        middleware._gate = as_gate(middleware._gate)
    return middleware.gate


def _added(app: object, options: dict[str, object]) -> Gate:
    """Return the gate of a middleware that an app was told to add, or has added since."""
    for layer in wrappers(getattr(app, "middleware_stack", None)):
        if isinstance(layer, asgi.AuthzMiddleware):
            return _kept(layer)
    options["gate"] = gate = as_gate(options["gate"])
    return gate


def _check_settings() -> None:
    """Note a Django project whose gate is made anew for each handler, so that nobody can tell which one decides."""
    from django.conf import settings  # noqa: PLC0415 - its apps have loaded it
    from django.utils.module_loading import import_string  # noqa: PLC0415 - as above

    named = settings.AUTHZ403_GATE
    if not isinstance(import_string(named) if isinstance(named, str) else named, Gate):
        mistakes = Mistakes("the settings")
        why = "a function makes a gate for each handler; name the gate itself, or one that a module keeps, in tests"
        mistakes.add("AUTHZ403_GATE", named, why)
        mistakes.raise_if_any()
