"""The WSGI enforcement point (PEP 3333): a native request in, the gate's outcome out. It holds no policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Final, NoReturn, Protocol

from authz403.checks import current
from authz403.endpoint import Asked, Routes, Walked
from authz403.errors import AccessDenied, ConfigurationError, Mistakes, denial_in
from authz403.fulfil import fulfilled_blocking, settled
from authz403.gate import Gate, as_gate
from authz403.need import Need
from authz403.principal import ANONYMOUS
from authz403.reasons import Reason
from authz403.startup import check_app, meeting
from authz403.wsgi_io import (
    Environ,
    ExcInfo,
    access_request,
    is_sent_as_file,
    plain_page,
    raised,
    respond,
    then_raising,
    wanted_keys,
    with_headers,
)

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

    from authz403.decision import Outcome
    from authz403.wsgi_io import Lines, Write

TICKETS: Final = "authz403.tickets"  # PEP 3333: what is no string has a dot in its key
"""The key of the environ under which the tickets of all gates on the way stand, the outermost first."""
PRINCIPAL: Final = "authz403.principal"
"""The key of the environ under which an app finds who asks."""


class WsgiRoutes(Routes[Asked[Environ]], Protocol):
    """The routes of one app, whatever its framework."""

    @property
    def walk(self) -> Walked:
        """What was found by walking through the app."""
        ...


class Ticket:
    """What was decided on, left in the environ for what stands further in.

    `outcome` is that of the outermost gate, where gates further in leave what they said; `own` is that of this gate.
    `answer` is what the routes left there when they were asked. On the outermost ticket, `speaker` is the outcome that
    checks in the app speak of, `conceals` says that a gate further in hides the route, `has_hidden` that it hides some
    route, and `denied` is a refusal from inside that something in between may take for a crash.
    """

    __slots__ = ("answer", "conceals", "denied", "has_hidden", "met", "outcome", "own", "speaker")

    denied: Exception | None

    def __init__(self, met: _Met, outermost: Outcome, own: Outcome, answer: list[object]) -> None:
        self.met = met
        self.outcome = outermost
        self.own = self.speaker = own
        self.answer = answer
        self.conceals = self.has_hidden = False
        self.denied = None

    def mismatched(self, told: str) -> None:
        """Note that the app would run something else than was decided on; raises, unless the gate only reports."""
        if not self.met.gate.report_only:
            raise RouteMismatch(self, told)
        self.met.gate.broken(self.outcome, Reason.ROUTE_MISMATCH, told)


class RouteMismatch(Exception):  # noqa: N818 - no error of the user's
    """Raised inside an app that would run something else than was decided on; `ticket` is that of its gate."""

    def __init__(self, ticket: Ticket | None, told: str) -> None:
        self.ticket = ticket
        super().__init__(told)


@dataclass(frozen=True, slots=True)
class _Met:
    """A gate that has met its app."""

    gate: Gate
    app: WSGIApplication
    routes: WsgiRoutes | None
    wanted: Mapping[str, str]

    @property
    def conceals(self) -> bool:
        """Whether any policy of gate or app makes refusals look like missing routes."""
        return self.gate.rules.conceals or (self.routes is not None and self.routes.walk.conceals)


class AuthzMiddleware:
    """Puts a `Gate` before any WSGI app: `app = AuthzMiddleware(app, gate=gate)`.

    `gate` is a `Gate` or a function that returns one. Its rules judge requests by path and method. The app finds the
    caller as `environ["authz403.principal"]`, and may call `check`. For Flask, `authz403.flask.init_app` puts this
    middleware in place with the app's own routes as `routes_of`; Django has `authz403.django.AuthzMiddleware`. Raises
    `ConfigurationError` with everything that does not fit; what shows only when routes are known is answered with 500
    `misconfigured`.
    """

    def __init__(
        self, app: WSGIApplication, *, gate: Gate | Callable[[], Gate], routes_of: WsgiRoutes | None = None
    ) -> None:
        self.app = app
        self._gate = gate
        self._routes = routes_of
        self._met: _Met | None = None
        self._failure: ConfigurationError | None = None
        self._meeting = Lock()
        if routes_of is None:
            _check_kind(app)
            if isinstance(gate, Gate | type) or not callable(gate):  # nothing is known later that is not known now
                self.meet()

    # The way of every request, in one frame: each more would cost it.
    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:  # noqa: PLR0912
        """Serve one request (PEP 3333)."""
        met = self._met or self._meet()
        if met is None:
            return self._misconfigured(environ, start_response)
        if TICKETS in environ:
            return self._inside(met, environ, start_response)
        answer: list[object] = []
        request = access_request(environ, met.wanted)
        if met.routes is None:
            step = met.gate.decide(request)
        else:
            step = met.gate.decide(request, met.routes, Asked(environ, request.path, answer))
        while isinstance(step, Need):
            step = step.resume(fulfilled_blocking(step))
        if step.response is not None:
            met.gate.record(step)
            return respond(step.response, environ, start_response)
        # The request goes on, and its one event is written when the answer starts.
        answering = _Answering(met, step, answer, environ, start_response)
        # A page for what is missing does not know who asks, so that of what is concealed must not know it, either.
        environ[PRINCIPAL] = ANONYMOUS if step.concealed_as_missing else step.principal or ANONYMOUS
        environ[TICKETS] = (answering,)
        body: Iterable[bytes] | None = None
        token = current.set(step)
        try:
            if step.concealed_as_missing and met.routes is None:  # there is no router that could say it
                body = plain_page(HTTPStatus.NOT_FOUND, environ, answering.start)
            else:
                body = self.app(environ, answering.start)
            if answering.denied is not None:
                _raise_instead_of(body, answering.denied)
        except Exception as error:  # noqa: BLE001 - raised again, unless it is for the gate to answer
            body = answering.failed(error)
        finally:
            current.reset(token)
            if body is None:
                answering.ended()
        if type(body) in _WHOLE or is_sent_as_file(body, environ):
            answering.ended()
            return body
        answering.body = body
        return answering

    @property
    def gate(self) -> Gate:
        """The gate; where a function makes it, and has not yet, made for whoever asks."""
        return as_gate(self._gate) if self._met is None else self._met.gate

    def meet(self) -> Gate:
        """Bring gate and app together now, and return the gate; raises `ConfigurationError` where they do not fit."""
        met = self._met or self._meet()
        if met is None:
            assert self._failure is not None  # noqa: S101 - it is one or the other
            raise self._failure
        return met.gate

    def _inside(self, met: _Met, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request that a gate further out let in: its CORS headers and its one event cover this answer too."""
        outer: tuple[Ticket, ...] = environ[TICKETS]
        for number, ticket in enumerate(outer):
            if met.routes is not None and ticket.met.routes is met.routes:
                # The app asks itself with a copy of the environ: another request, which is decided anew.
                outer = outer[:number]
                environ = {**environ, TICKETS: outer}
                break
        if not outer:
            del environ[TICKETS]
            return self(environ, start_response)
        outermost, within = outer[0], outer[-1].own
        answer: list[object] = []
        request = access_request(environ, met.wanted)
        if met.routes is None:
            step = met.gate.decide(request, within=within)
        else:
            step = met.gate.decide(request, met.routes, Asked(environ, request.path, answer), within=within)
        step = settled(step)
        outermost.conceals = outermost.conceals or step.decision.concealed
        outermost.has_hidden = outermost.has_hidden or met.conceals
        if not step.decision.allowed:
            outermost.outcome.inner = step
        if step.response is not None:
            return respond(step.response, environ, start_response)
        environ[PRINCIPAL] = ANONYMOUS if step.concealed_as_missing else step.principal or ANONYMOUS
        environ[TICKETS] = (*outer, Ticket(met, outermost.outcome, step, answer))
        outermost.speaker = step
        token = current.set(step)
        try:
            if step.concealed_as_missing and met.routes is None:
                return plain_page(HTTPStatus.NOT_FOUND, environ, start_response)
            return self.app(environ, start_response)
        finally:
            current.reset(token)

    def _meet(self) -> _Met | None:
        """Bring gate and app together once, whichever thread comes first; what does not fit is kept in `_failure`."""
        with self._meeting:
            if self._met is None and self._failure is None:
                met = meeting("AuthzMiddleware", self._gate, self._meet_at)
                if isinstance(met, ConfigurationError):
                    self._failure = met
                else:
                    self._met = met
            return self._met

    def _meet_at(self, gate: Gate) -> _Met:
        check_app(gate, None if self._routes is None else self._routes.walk)
        return _Met(gate, self.app, self._routes, wanted_keys(gate.fields))

    def _misconfigured(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        gate = self._gate if isinstance(self._gate, Gate) else Gate()
        request = access_request(environ, wanted_keys(gate.fields))
        outcome = gate.refused(request, Reason.MISCONFIGURED, str(self._failure))
        gate.record(outcome)
        if outcome.response is None:  # a gate that only reports has nothing to say
            return plain_page(HTTPStatus.INTERNAL_SERVER_ERROR, environ, start_response)
        return respond(outcome.response, environ, start_response)


class _Answering(Ticket):
    """The outermost gate's ticket, and the answer on its way out: headers put on, the event written when it starts.

    It is the app's `start_response` and, where the body comes in pieces, the iterable that the server gets.
    """

    __slots__ = ("_environ", "_start_response", "_write", "body", "chunks")

    _write: Write
    chunks: Iterator[bytes] | None
    """What is sent: what the app returned, or what is said instead of it."""
    body: Iterable[bytes]
    """What the app returned."""

    def __init__(
        self, met: _Met, outcome: Outcome, answer: list[object], environ: Environ, start_response: StartResponse
    ) -> None:
        self.met = met  # not by super(), which every request would pay for
        self.outcome = self.own = self.speaker = outcome
        self.answer = answer
        self.conceals = self.has_hidden = False
        self.denied = self.chunks = None
        self._environ = environ
        self._start_response = start_response

    def start(self, status: str, headers: Lines, exc_info: ExcInfo | None = None, /) -> Write:
        """Start the answer with the gate's headers; called by the app."""
        own = self.outcome.headers
        conceals = status.startswith("404") and (self.has_hidden or self.met.conceals)
        if own or conceals:
            headers = with_headers(headers, own, keep_out_of_caches=conceals)
        try:
            if exc_info is None:
                self._write = self._start_response(status, headers)
            else:
                self._write = self._start_response(status, headers, exc_info)
        finally:
            del exc_info  # PEP 3333: it would keep alive the frames that it stands in
        return self.write

    def write(self, data: bytes, /) -> object:
        """Write a piece of the body; called by apps that do not return it."""
        self._answered()
        return self._write(data)

    def failed(self, error: Exception) -> Iterable[bytes]:
        """Answer what the app raised, where that is for the gate to answer; raises it again where it is not."""
        denied = denial_in(error)
        if denied is not None:
            return self._denied(denied)
        if isinstance(error, RouteMismatch) and error.ticket is not None and not self.outcome.answered:
            return self._mismatched(error.ticket.met.gate, str(error))
        # A script of another origin could not read the page of the server.
        if self.outcome.answered or self.met.gate.cors is None or "HTTP_ORIGIN" not in self._environ:
            raise error
        page = plain_page(HTTPStatus.INTERNAL_SERVER_ERROR, self._environ, self.start, raised())
        return then_raising(page, error)

    def _denied(self, denied: AccessDenied) -> Iterable[bytes]:
        """Answer a request that was refused inside the app; raises where it is too late for that."""
        outcome, gate = self.outcome, self.met.gate
        if outcome.answered:
            gate.denied_too_late(outcome, denied)
            raise denied
        gate.denied_by_app(outcome, denied, conceals=self.conceals)
        if outcome.response is not None:
            return respond(outcome.response, self._environ, self._start_response, raised())
        if self.met.routes is None or self.own is not outcome:
            return plain_page(HTTPStatus.NOT_FOUND, self._environ, self.start, raised())
        return self._missing(raised())

    def _missing(self, exc_info: ExcInfo) -> Iterable[bytes]:
        """Let the app answer once more, as for a path that it does not know: its router says so by now."""

        def start(status: str, headers: Lines, error: ExcInfo | None = None, /) -> Write:
            return self.start(status, headers, error or exc_info)

        environ = self._environ
        environ[PRINCIPAL], environ[TICKETS] = ANONYMOUS, (self,)
        try:
            body = self.met.app(environ, start)
            try:
                return list(body)
            finally:
                close = getattr(body, "close", None)
                if close is not None:
                    close()
        except Exception:  # noqa: BLE001 - whatever it is, it must not tell the hidden from the missing
            return plain_page(HTTPStatus.NOT_FOUND, environ, self.start, exc_info)

    def _mismatched(self, gate: Gate, told: str) -> Iterable[bytes]:
        """Answer a request that the app's own routing took for another one than was decided on."""
        outcome = self.outcome
        outcome.inner = None
        gate.broken(outcome, Reason.ROUTE_MISMATCH, told)
        assert outcome.response is not None  # noqa: S101 - no mismatch is raised for a gate that only reports
        return respond(outcome.response, self._environ, self._start_response, raised())

    def ended(self) -> None:
        """Note that the app has nothing more to say."""
        self._environ.pop(TICKETS, None)  # whoever sends the same environ to another app starts anew
        self._answered()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        token = current.set(self.speaker)
        try:
            if self.chunks is None:
                self.chunks = iter(self.body)  # here, as that may be where the app does its work
            chunk = next(self.chunks)
        except StopIteration:
            self.ended()
            raise
        except Exception as error:  # noqa: BLE001 - raised again, unless it is for the gate to answer
            self.chunks = iter(self.failed(error))
            chunk = next(self.chunks, b"")
        finally:
            current.reset(token)
        self._answered()
        return chunk

    def close(self) -> None:
        """Close what the app returned; called by the server at the end of every request."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.ended()

    def _answered(self) -> None:
        outcome = self.outcome
        if not outcome.answered:
            outcome.answered = True
            self.met.gate.record(outcome.inner or outcome)


def hides(environ: Environ, denied: AccessDenied) -> bool:
    """Tell whether a refusal from inside the app must look as if nothing were there; the event will say what it was."""
    outermost = environ[TICKETS][0]
    outcome: Outcome = outermost.outcome
    if outcome.answered or not (outermost.conceals or outcome.decision.concealed):
        return False
    outermost.met.gate.denied_by_app(outcome, denied, conceals=outermost.conceals)
    return outcome.response is None


def _raise_instead_of(body: Iterable[bytes], denied: Exception) -> NoReturn:
    """Raise a refusal in the place of what something in between made of it."""
    close = getattr(body, "close", None)
    if close is not None:
        close()
    raise denied


_WHOLE: Final = frozenset({list, tuple})
"""The types of bodies that are whole already, so that no more of the app runs while they are sent."""


def _check_kind(app: object) -> None:
    """Refuse an app whose marks would hold only if its routes were known."""
    own = getattr(app, "__self__", app)  # app.wsgi_app is a method of a Flask app
    for kind in type(own).__mro__:
        module = kind.__module__.partition(".")[0]
        if module in _OTHERWISE:
            mistakes = Mistakes("AuthzMiddleware")
            why = f"the policies marked in it would not hold, as its routes are not known here; {_OTHERWISE[module]}"
            mistakes.add("app", type(own).__name__, why)
            mistakes.raise_if_any()


_OTHERWISE: Final = {
    "flask": "call authz403.flask.init_app(app, gate=gate)",
    "django": 'write "authz403.django.AuthzMiddleware" into MIDDLEWARE',
}
