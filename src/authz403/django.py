"""Django behind a gate: the middleware, for WSGI and ASGI."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.conf.urls.i18n import is_language_prefix_patterns_used
from django.core.handlers.base import BaseHandler
from django.core.handlers.exception import response_for_exception
from django.core.signals import got_request_exception
from django.http import Http404, HttpResponse
from django.urls import get_resolver
from django.urls.resolvers import LocalePrefixPattern, RoutePattern, URLResolver
from django.utils.cache import patch_vary_headers
from django.utils.functional import SimpleLazyObject
from django.utils.module_loading import import_string

from authz403 import door, wsgi
from authz403.checks import current
from authz403.django_routes import DjangoRoutes, Judged, urlconf_of
from authz403.endpoint import Asked
from authz403.errors import AccessDenied, ConfigurationError, Mistakes, denial_in
from authz403.fulfil import fulfilled, settled
from authz403.gate import Gate, as_gate
from authz403.need import Need, is_async
from authz403.principal import ANONYMOUS, Principal
from authz403.reasons import Reason
from authz403.startup import check_app, meeting
from authz403.wsgi_io import access_request, as_text, wanted_keys

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from django.urls import ResolverMatch

    from authz403.decision import Outcome, Response
    from authz403.request import AccessRequest

UserOf = Callable[["HttpRequest", Principal], Any]

_TICKET: Final = "_authz403"
_NOT_FOUND: Final = 404


class _Ticket:
    """What was decided on, left in the request for what stands further in.

    `outcome` is that of the outermost gate, `own` that of this one, which is the outermost where `is_outermost`.
    `denied` is a refusal from inside that Django took for a crash, `user` the user of the caller, where one was set.
    """

    __slots__ = ("denied", "is_outermost", "judged", "outcome", "own", "user")

    def __init__(self, outermost: Outcome | None, own: Outcome, judged: Judged | None) -> None:
        self.is_outermost = outermost is None
        self.outcome = own if outermost is None else outermost
        self.own = own
        self.judged = judged
        self.denied: AccessDenied | None = None
        self.user: object = None


class AuthzMiddleware:
    """Puts a `Gate` before a Django project: `MIDDLEWARE = ["authz403.django.AuthzMiddleware", ...]`, as the first.

    The setting `AUTHZ403_GATE` is the gate, a function that returns one, or the dotted path of either. Requests meet
    the policy of the view that Django's own resolver finds; views find the caller as `request.principal`, and may call
    `check`. `request.user` is left to Django, unless the setting `AUTHZ403_SET_USER` names a function of request and
    `Principal` that returns the user of an identified caller. Works by WSGI and ASGI. Raises `ConfigurationError` when
    Django starts, with everything that does not fit.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._gate, self._user_of = configured()
        self._routes = DjangoRoutes()
        failure = meeting("AuthzMiddleware", self._gate, lambda gate: check_app(gate, self._routes.walk))
        if failure is not None:
            raise failure
        self._wanted = wanted_keys(self._gate.fields)
        self._missing: dict[object, _Missing] = {}
        self._is_async = iscoroutinefunction(get_response)
        self.process_view = self._view_by_loop if self._is_async else self._view
        if self._is_async:
            markcoroutinefunction(self)
        _look_last(self._held, self._held_by_loop)
        got_request_exception.connect(_note_denied, dispatch_uid=_TICKET)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        return self._by_loop(request) if self._is_async else self._blocking(request)

    def _blocking(self, request: HttpRequest) -> HttpResponseBase:
        outer = _outer(request)
        asked: Asked[HttpRequest] = Asked(request, request.path_info, [])
        step = self._gate.decide(self._facts(request), self._routes, asked, within=outer)
        step = settled(step)
        if step.response is not None:
            return self._refused(request, outer, step)
        ticket = self._let_in(asked, outer, step)
        response: HttpResponseBase | None = None
        token = current.set(step)
        try:
            response = self.get_response(request)
        except BaseException as error:  # noqa: BLE001 - raised again, unless it is a refusal
            self._failed(ticket, error)
        finally:
            current.reset(token)
        if response is None or ticket.denied is not None:
            response = self._refusal(request, ticket)
        return self._finished(ticket, response)

    async def _by_loop(self, request: HttpRequest) -> HttpResponseBase:
        outer = _outer(request)
        asked: Asked[HttpRequest] = Asked(request, request.path_info, [])
        step = self._gate.decide(self._facts(request), self._routes, asked, within=outer)
        while isinstance(step, Need):
            step = step.resume(await fulfilled(step))
        if step.response is not None:
            return self._refused(request, outer, step)
        ticket = self._let_in(asked, outer, step)
        response: HttpResponseBase | None = None
        token = current.set(step)
        try:
            response = await self.get_response(request)
        except BaseException as error:  # noqa: BLE001 - raised again, unless it is a refusal
            self._failed(ticket, error)
        finally:
            current.reset(token)
        if response is None or ticket.denied is not None:
            # As Django makes its own pages, which may block.
            response = await sync_to_async(self._refusal, thread_sensitive=False)(request, ticket)
        return self._finished(ticket, response)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer a refusal that a view raised."""
        ticket: _Ticket | None = getattr(request, _TICKET, None)
        denied = denial_in(exception)
        if ticket is None or denied is None:
            return None
        response = self._denied(request, ticket, denied)
        if response is None:
            _as_missing(request)
        return response

    def _view(self, request: HttpRequest, view: Callable[..., object], *_: object) -> HttpResponseBase | None:
        """Let a request go on to its view, with the user that Django is to know."""
        response = self._held(request, view)
        ticket: _Ticket | None = getattr(request, _TICKET, None)
        if response is None and ticket is not None and ticket.own.principal is not None and self._user_of is not None:
            # Here, as AuthenticationMiddleware has written its own by now.
            ticket.user = _set_user(request, ticket.own.principal, self._user_of)
        return response

    async def _view_by_loop(
        self, request: HttpRequest, view: Callable[..., object], *_: object
    ) -> HttpResponseBase | None:
        return self._view(request, view)

    def _held(self, request: HttpRequest, view: Callable[..., object], *_: object) -> HttpResponseBase | None:
        """Let a view run, if it is the one that was judged."""
        ticket: _Ticket | None = getattr(request, _TICKET, None)
        if ticket is None:
            told = f"a view was reached without the gate: {request.method} {request.path_info}"
            outcome = self._gate.refused(self._facts(request), Reason.ROUTE_MISMATCH, told)
            self._gate.record(outcome)
            return None if outcome.response is None else _as_django(outcome.response, request)
        if ticket.own.concealed_as_missing:
            _as_missing(request)  # whatever was put into the place of the URLconf that knows no paths
        # Where nothing was judged, the gate only reports, and had no need to know.
        if ticket.judged is not None and not ticket.judged.is_still(request, view):
            told = f"Django would run another view than was decided on: {request.method} {request.path_info}"
            outcome = self._gate.broken(ticket.outcome, Reason.ROUTE_MISMATCH, told)
            if outcome.response is not None:
                return _as_django(outcome.response, request)
        return None

    async def _held_by_loop(
        self, request: HttpRequest, view: Callable[..., object], *_: object
    ) -> HttpResponseBase | None:
        return self._held(request, view)

    def _facts(self, request: HttpRequest) -> AccessRequest:
        """Read the facts of a request, as middleware further out has left them."""
        meta = request.META
        if meta["REQUEST_METHOD"].upper() != request.method:
            meta = {**meta, "REQUEST_METHOD": request.method}
        facts = access_request(meta, self._wanted)
        if hasattr(request, "environ"):
            return replace(facts, path=request.path_info)
        peer_rewritten = meta.get("REMOTE_PORT") == 0 and "x-forwarded-for" in facts.fields  # as uvicorn leaves it
        return replace(facts, path=request.path_info, peer=meta.get("REMOTE_ADDR"), peer_rewritten=peer_rewritten)

    def _refused(self, request: HttpRequest, outer: Outcome | None, outcome: Outcome) -> HttpResponseBase:
        """Answer a request that is not let in."""
        assert outcome.response is not None  # noqa: S101 - it was refused
        if outer is None:
            self._gate.record(outcome)
        else:
            outer.inner = outcome
        return _as_django(outcome.response, request)

    def _let_in(self, asked: Asked[HttpRequest], outer: Outcome | None, own: Outcome) -> _Ticket:
        """Leave the caller in the request, and the ticket."""
        if outer is not None and not own.decision.allowed:
            outer.inner = own
        request = asked.native
        ticket = _Ticket(outer, own, asked.answer[0] if asked.answer else None)
        setattr(request, _TICKET, ticket)
        # A page for what is missing does not know who asks, so that of what is concealed must not know it, either.
        request.principal = ANONYMOUS if own.concealed_as_missing else own.principal or ANONYMOUS  # type: ignore[attr-defined]  # ours
        if own.concealed_as_missing:
            self._hide(request)
        return ticket

    def _failed(self, ticket: _Ticket, error: BaseException) -> None:
        """Note what Django lets through because of `DEBUG_PROPAGATE_EXCEPTIONS`, if it is a refusal; else raise it."""
        denied = denial_in(error)
        if denied is None:
            self._answered(ticket)
            raise error
        ticket.denied = denied

    def _refusal(self, request: HttpRequest, ticket: _Ticket) -> HttpResponseBase:
        """Answer a request that middleware further in refused, which Django took for a crash."""
        assert ticket.denied is not None  # noqa: S101 - it was refused
        return self._denied(request, ticket, ticket.denied) or response_for_exception(request, Http404())

    def _denied(self, request: HttpRequest, ticket: _Ticket, denied: AccessDenied) -> HttpResponseBase | None:
        """Return the answer to a request that was refused inside; none where it must look as if nothing were there."""
        outcome = ticket.outcome
        self._gate.denied_by_app(outcome, denied, conceals=ticket.own.decision.concealed)
        if outcome.response is not None:
            return _as_django(outcome.response, request)
        request.principal = ANONYMOUS  # type: ignore[attr-defined]  # ours
        request.resolver_match = None
        self._hide(request)
        return None

    def _hide(self, request: HttpRequest) -> None:
        """Make Django answer a request as one for a path that it does not know."""
        original = urlconf_of(request)
        if not isinstance(original, _Missing):
            found = self._missing.get(original)
            if found is None:
                found = self._missing[original] = _Missing(original)
            request.urlconf = found  # type: ignore[assignment]  # it may be any object, such as a module

    def _finished(self, ticket: _Ticket, response: HttpResponseBase) -> HttpResponseBase:
        """Put the gate's headers on an answer, and write the event."""
        outcome = ticket.outcome
        if ticket.is_outermost and outcome.headers:
            _put_cors(response, outcome)
        if response.status_code == _NOT_FOUND and self._conceals(ticket) and not response.has_header("Cache-Control"):
            response.headers["Cache-Control"] = "no-store"
        self._answered(ticket)
        if response.streaming and getattr(response, "file_to_stream", None) is None:
            chunks: Any = response.streaming_content  # type: ignore[attr-defined]  # it streams
            streamed = self._streamed_by_loop if getattr(response, "is_async", False) else self._streamed
            response.streaming_content = streamed(ticket, chunks)  # type: ignore[attr-defined]  # it streams
        return response

    def _conceals(self, ticket: _Ticket) -> bool:
        return self._routes.walk.conceals or self._gate.rules.conceals or ticket.own.decision.concealed

    def _answered(self, ticket: _Ticket) -> None:
        outcome = ticket.outcome
        if ticket.is_outermost and not outcome.answered:
            outcome.answered = True
            self._gate.record(outcome.inner or outcome)

    def _streamed(self, ticket: _Ticket, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a body, whose checks speak of this request."""
        while True:
            token = current.set(ticket.own)
            try:
                chunk = next(chunks)
            except StopIteration:
                return
            except Exception as error:
                self._too_late(ticket, error)
                raise
            finally:
                current.reset(token)
            yield chunk

    async def _streamed_by_loop(self, ticket: _Ticket, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the pieces of a body that an event loop makes."""
        while True:
            token = current.set(ticket.own)
            try:
                chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except Exception as error:
                self._too_late(ticket, error)
                raise
            finally:
                current.reset(token)
            yield chunk

    def _too_late(self, ticket: _Ticket, error: Exception) -> None:
        denied = denial_in(error)
        if denied is not None:
            self._gate.denied_too_late(ticket.outcome, denied)


class CallerAuthentication:
    """Lets Django REST framework take the user that `AUTHZ403_SET_USER` makes for its own `request.user`.

    For `DEFAULT_AUTHENTICATION_CLASSES` or `authentication_classes`; `request.auth` is the `Principal` then. Without
    that setting, or where nobody was identified, there is no user for REST framework, either.
    """

    def authenticate(self, request: Any) -> tuple[object, Principal | None] | None:  # noqa: ANN401 - a request of a framework that need not be here
        """Return user and principal, as REST framework asks for them."""
        ticket: _Ticket | None = getattr(request, _TICKET, None)
        return None if ticket is None or ticket.user is None else (ticket.user, ticket.own.principal)

    def authenticate_header(self, request: object) -> str:
        """Return the challenge of REST framework's own 401s."""
        del request
        return "Bearer"


class _NeverMatches(RoutePattern):
    """A pattern that no path matches, and that adds nothing to a path that is written by `reverse`."""

    def match(self, path: str) -> None:
        """Match nothing."""
        del path


class _NeverMatchesLanguage(LocalePrefixPattern):
    """A prefix of a language that no path has."""

    def match(self, path: str) -> None:
        """Match nothing."""
        del path


class _Missing:
    """A URLconf that knows no path, with the pages for errors and the names of another."""

    def __init__(self, original: Any) -> None:  # noqa: ANN401 - a name, a module or a list
        self._original = original
        self.urlpatterns = [URLResolver(_NeverMatches(""), original)]
        has_languages, default_has_prefix = is_language_prefix_patterns_used(original)
        if has_languages:  # LocaleMiddleware looks for them here, and writes other headers where there are none
            pattern = _NeverMatchesLanguage(prefix_default_language=default_has_prefix)
            self.urlpatterns.append(URLResolver(pattern, []))

    def __getattr__(self, name: str) -> object:
        return getattr(get_resolver(self._original).urlconf_module, name)

    def __str__(self) -> str:
        return str(getattr(self._original, "__name__", self._original))


def _look_last(look: Callable[..., object], look_by_loop: Callable[..., object]) -> None:
    """Let Django's handler look at each request right before its view runs, whatever middleware made of it till then.

    Middleware further in may change a request in its `process_view`, which comes after that of the gate. Only the
    handler, which is making the middleware, knows when all of them have had it.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the documented way to learn who calls
    while frame is not None:
        handler = frame.f_locals.get("self")
        if isinstance(handler, BaseHandler) and "is_async" in frame.f_locals:
            looks: list[Callable[..., object]] = handler._view_middleware  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way to be the last
            looks.append(look_by_loop if frame.f_locals["is_async"] else look)
            return
        frame = frame.f_back
    mistakes = Mistakes("AuthzMiddleware")
    mistakes.add_secret("get_response", "nobody would hold views to what was decided; write it into MIDDLEWARE")
    mistakes.raise_if_any()


def _as_missing(request: HttpRequest) -> ResolverMatch:
    """Raise what Django's resolver raises for a path that it does not know."""
    return get_resolver(urlconf_of(request)).resolve(request.path_info)  # type: ignore[arg-type]  # no name


def _note_denied(request: HttpRequest, **_: object) -> None:
    """Note a refusal that middleware further in raised, where Django makes a page about a crash of it."""
    ticket: _Ticket | None = getattr(request, _TICKET, None)
    error = sys.exc_info()[1]
    if ticket is not None and error is not None:
        ticket.denied = denial_in(error)


def _outer(request: HttpRequest) -> Outcome | None:
    """Return what a gate further out said, before the whole of Django."""
    native: dict[str, Any] = getattr(request, "environ", None) or getattr(request, "scope", None) or {}
    tickets = native.get(wsgi.TICKETS) or native.get(door.TICKETS) or ()
    found: Outcome | None = tickets[0].outcome if tickets else None
    return found


def _as_django(response: Response, request: HttpRequest) -> HttpResponseBase:
    status, headers, body = response
    # RFC 9110 section 9.3.2: no content in the response to HEAD.
    found = HttpResponse(b"" if request.method == "HEAD" else body, status=status)
    del found.headers["Content-Type"]
    for name, value in as_text(headers):
        found.headers[name] = value
    return found


def _put_cors(response: HttpResponseBase, outcome: Outcome) -> None:
    """Put the gate's CORS headers in the place of the app's."""
    for name in [name for name in response.headers if name.lower().startswith("access-control-")]:
        del response.headers[name]
    for name, value in as_text(outcome.headers):
        if name == "vary":
            patch_vary_headers(response, [value])
        else:
            response.headers[name] = value


def _set_user(request: HttpRequest, principal: Principal, user_of: UserOf) -> object:
    """Set the user that Django knows, made when it is first asked for."""
    user = SimpleLazyObject(lambda: user_of(request, principal))
    request.user = user  # type: ignore[assignment]  # once asked for

    async def auser() -> Any:  # noqa: ANN401 - of whatever type the project's users are
        return await sync_to_async(user_of)(request, principal)

    request.auser = auser
    return user


def is_installed() -> bool:
    """Tell whether the settings put the middleware before the project's views."""
    found = (import_string(name) for name in settings.MIDDLEWARE)
    return any(isinstance(one, type) and issubclass(one, AuthzMiddleware) for one in found)


def configured() -> tuple[Gate, UserOf | None]:
    """Return the gate and the function for users that the settings name; raises with all that is wrong with them."""
    mistakes = Mistakes("the settings")
    gate, user_of = Gate(), None
    named = getattr(settings, "AUTHZ403_GATE", None)
    if named is None:
        mistakes.add("AUTHZ403_GATE", None, 'say where the gate is, such as "shop.policy.gate"')
    else:
        try:
            gate = as_gate(_found(named))
        except (ConfigurationError, ImportError) as error:
            mistakes.add("AUTHZ403_GATE", named, str(error))
    named = getattr(settings, "AUTHZ403_SET_USER", None)
    if named is not None:
        try:
            found = _found(named)
        except ImportError as error:
            mistakes.add("AUTHZ403_SET_USER", named, str(error))
        else:
            if callable(found) and not is_async(found):
                user_of = found
            else:
                why = "a function of request and principal is needed, not an async one: request.user cannot wait for it"
                mistakes.add("AUTHZ403_SET_USER", named, why)
    mistakes.raise_if_any()
    return gate, user_of


def _found(named: object) -> object:
    return import_string(named) if isinstance(named, str) else named
