"""Django projects behind a gate, by WSGI and by ASGI: the policy of the view that Django runs."""

from __future__ import annotations

import tests.django_made  # isort: skip  # noqa: F401 - the settings, which some of Django's modules need

import asyncio
import functools
import gc
import io
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf.urls.i18n import i18n_patterns
from django.contrib.contenttypes.models import ContentType
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.management import call_command
from django.core.signals import request_finished
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path, re_path, reverse
from django.utils.asyncio import async_unsafe
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET
from rest_framework.decorators import action, api_view
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request as DrfRequest
from rest_framework.response import Response as DrfResponse
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import authz403.asgi
import authz403.django
import authz403.wsgi
from authz403 import (
    AccessDenied,
    ConfigurationError,
    Gate,
    Principal,
    Reason,
    Requirement,
    Rule,
    anyone,
    authenticated,
    check,
    deny,
    optional,
    param,
    public,
    requires,
    scopes,
)
from authz403.django import CallerAuthentication
from authz403.marks import unwrapped
from authz403.principal import Anonymous
from tests import wsgi_made
from tests.apps_made import BODYLESS, ORIGIN, bearer, drive, gate_with, listening, scope_of
from tests.django_made import OURS, DjangoApp, Project
from tests.parity_cases import CORS
from tests.wsgi_made import environ_of, page

if TYPE_CHECKING:
    from starlette.types import Message

    from tests.apps_made import Answer as AsgiAnswer

View_ = Callable[..., Any]
Answer = Any
ADA = bearer(scope="a b")
ORDINARY = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})  # the validator warns of any other
_DENIED = False
both = pytest.mark.parametrize("by", ["wsgi", "asgi"])


def asked(app: DjangoApp, by: str, where: str = "/", method: str = "GET", **more: Any) -> Answer:  # noqa: ANN401 - as environ_of takes them
    """Send one request by WSGI or ASGI."""
    if by == "wsgi":
        return wsgi_made.ask(app, environ_of(where, method, **more), is_validated=method in ORDINARY)
    answer: AsgiAnswer = drive(app.asgi, scope_of(where, method, **more), BODYLESS)
    return answer


def text(answer: Answer) -> str:
    """Return the body of an answer as text."""
    body: bytes = answer.body
    return body.decode()


def app_of(*views: tuple[str, View_], gate: Gate | None = None, **more: Any) -> DjangoApp:  # noqa: ANN401 - settings
    """Return a project with these views by path, behind a gate."""
    return DjangoApp([path(where.removeprefix("/"), view) for where, view in views], gate or gate_with(), **more)


def saying(told: str = "hello") -> View_:
    """Return a view of its own, as marks stay on what they are put on."""

    def view(request: HttpRequest, **_: object) -> HttpResponse:
        return HttpResponse(told)

    return view


def whoever(request: HttpRequest) -> str:
    """Return who asks, as a view sees it."""
    principal: Principal | Anonymous = request.principal  # type: ignore[attr-defined]  # ours
    return "nobody" if isinstance(principal, Anonymous) else str(principal.identity)


def telling(request: HttpRequest) -> HttpResponse:
    """Say who asks."""
    return HttpResponse(whoever(request))


def telling_view() -> View_:
    """Return a view of its own that says who asks."""
    return lambda request, **_: telling(request)


# ---- marks


@both
@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [({}, 401, "missing_token"), (bearer(), 403, "insufficient_scope"), (bearer(scope="a"), 200, None)],
    ids=["nobody", "without the scope", "with it"],
)
def test_a_marked_view_runs_for_whom_its_mark_lets_in(
    by: str, headers: dict[str, str], status: int, reason: str | None
) -> None:
    """Django's own decorators around the mark or beneath it change nothing."""
    mark = requires(scopes("a"))

    @mark
    async def by_loop(request: HttpRequest) -> HttpResponse:
        return HttpResponse("ran")

    views = (mark(saying("ran")), csrf_exempt(mark(saying("ran"))), mark(require_GET(saying("ran"))), by_loop)
    for view in views:
        answer = asked(app_of(("/", view)), by, headers=headers)
        assert (answer.status, answer.header("authz-reason")) == (status, reason)
        assert ("ran" in text(answer)) is (status == 200)


@both
def test_a_view_without_a_policy_is_closed(by: str) -> None:
    """Deny by default; unknown paths are the project's own 404."""
    app = app_of(("/closed", saying()), ("/open", public(saying("open"))))
    assert asked(app, by, "/closed", headers=ADA).reason == "no_policy"
    assert text(asked(app, by, "/open")) == "open"
    assert asked(app, by, "/missing").status == 404


class Items(View):
    """A class-based view with a mark on each method."""

    @requires(scopes("a"))
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("got")

    @requires(scopes("c"))
    def post(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("posted")


@requires(scopes("a"))
class Marked(View):
    """A class-based view with a mark on the class."""

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("got")


class Dispatching(View):
    """A class-based view with a mark on what all its methods go through."""

    @requires(scopes("a"))
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as Django has it
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("got")


class ByLoop(View):
    """A class-based view of coroutines."""

    @requires(scopes("a"))
    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("got")


class Api(APIView):
    """A view of Django REST framework."""

    authentication_classes = ()
    permission_classes = ()

    @requires(scopes("a"))
    def get(self, request: DrfRequest) -> DrfResponse:
        return DrfResponse("got")


@api_view(["GET"])
@requires(scopes("a"))
def marked_beneath(request: DrfRequest) -> DrfResponse:
    """Answer."""
    return DrfResponse("got")


@requires(scopes("a"))
@api_view(["GET"])
def marked_above(request: DrfRequest) -> DrfResponse:
    """Answer."""
    return DrfResponse("got")


class Things(ViewSet):
    """A view set, whose methods are named by actions."""

    @requires(scopes("a"))
    def list(self, request: DrfRequest) -> DrfResponse:
        return DrfResponse("got")

    @requires(scopes("c"))
    def create(self, request: DrfRequest) -> DrfResponse:
        return DrfResponse("posted")


KINDS: dict[str, View_] = {
    "methods": Items.as_view(),
    "class": Marked.as_view(),
    "dispatch": Dispatching.as_view(),
    "coroutines": ByLoop.as_view(),
    "APIView": Api.as_view(),
    "api_view, beneath": marked_beneath,
    "api_view, above": marked_above,
    "ViewSet": Things.as_view({"get": "list", "post": "create"}),
    "methods, partial": functools.partial(Items.as_view()),
    "methods, wrapped partial": csrf_exempt(functools.partial(Items.as_view())),
    "ViewSet, partial": functools.partial(Things.as_view({"get": "list", "post": "create"})),  # type: ignore[misc]  # it is
    "api_view, partial": functools.partial(marked_beneath),
}


@both
@pytest.mark.parametrize("view", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_view_is_marked(by: str, view: View_) -> None:
    """HEAD is judged as GET."""
    app = app_of(("/", view))
    assert (asked(app, by).status, asked(app, by, headers=bearer()).status) == (401, 403)
    answer = asked(app, by, headers=ADA)
    assert (answer.status, "got" in text(answer)) == (200, True)
    of_function = marked_beneath in unwrapped(view) or view is marked_above
    allowed = 405 if of_function else 200  # @api_view(["GET"]) takes nothing else
    assert (asked(app, by, method="HEAD").status, asked(app, by, method="HEAD", headers=ADA).status) == (401, allowed)


@both
@pytest.mark.parametrize("kind", ["methods", "ViewSet", "methods, wrapped partial", "ViewSet, partial"])
def test_each_method_of_a_class_has_its_own_mark(by: str, kind: str) -> None:
    """Whatever case the method is written in: Django takes `post` for POST."""
    app = app_of(("/", KINDS[kind]))
    for method in ("POST", "post"):
        assert asked(app, by, method=method, headers=ADA).reason == "insufficient_scope"
        assert "posted" in text(asked(app, by, method=method, headers=bearer(scope="c")))
    assert asked(app, by, method="DELETE", headers=ADA).reason == "no_policy"
    assert asked(app, by, method="OPTIONS", headers=ADA).reason == "no_policy"


@requires(authenticated)
class Mixed(ViewSet):
    """A view set with methods that REST framework calls by their own names, besides its action."""

    authentication_classes = ()
    permission_classes = ()

    def create(self, request: DrfRequest) -> DrfResponse:
        return DrfResponse("posted")

    @requires(scopes("a"))
    def get(self, request: DrfRequest) -> DrfResponse:
        return DrfResponse("got")

    @requires(scopes("a"))
    def options(self, request: DrfRequest, *_: object, **__: object) -> DrfResponse:  # type: ignore[override]  # its own request
        return DrfResponse("told")


@both
def test_a_method_of_a_view_set_that_is_no_action_has_its_own_mark(by: str) -> None:
    """It is called all the same, and coverage lists it."""
    app = app_of(("/", Mixed.as_view({"post": "create"})))
    assert "posted" in text(asked(app, by, method="POST", headers=bearer()))
    for method, told in (("GET", "got"), ("OPTIONS", "told")):
        assert asked(app, by, method=method, headers=bearer()).reason == "insufficient_scope"
        assert told in text(asked(app, by, method=method, headers=ADA))
    with override_settings(**app.settings):
        rows = gate_with().coverage(WSGIHandler())
    assert [row.method for row in rows] == ["GET", "OPTIONS", "POST"]


class Helping(Things):
    """A view set with marks on what no request runs."""

    @requires(scopes("a"))
    def initial(self, request: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as REST framework has it
        super().initial(request, *args, **kwargs)

    @requires(scopes("c"))
    def get_queryset(self) -> None:
        return None


class SetUp(View):
    """A view with a mark where Django looks before it looks for the method."""

    @requires(scopes("a"))
    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as Django has it
        super().setup(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("not reached")


def test_a_mark_that_no_request_would_meet_is_told() -> None:
    """It would hold for nothing."""
    with pytest.raises(ConfigurationError) as caught:
        app_of(("/", Helping.as_view({"get": "list"})), ("/set-up", SetUp.as_view()))
    assert {(mistake.field, mistake.value) for mistake in caught.value.mistakes} == {
        ("requires", "'Helping.initial'"),
        ("requires", "'Helping.get_queryset'"),
        ("requires", "'SetUp.setup'"),
    }


class Extra(Things):
    """A view set with actions of its own, of which a project routes only some."""

    @action(detail=False, methods=["post"])
    @requires(scopes("a"))
    def publish(self, request: DrfRequest) -> DrfResponse:
        return DrfResponse("published")

    @publish.mapping.delete
    @requires(scopes("c"))
    def unpublish(self, request: DrfRequest) -> DrfResponse:
        return DrfResponse("unpublished")


def test_a_mark_on_an_action_without_a_route_is_no_mistake() -> None:
    """It would hold where the action is routed."""
    assert asked(app_of(("/", Extra.as_view({"get": "list"}))), "wsgi", headers=ADA).status == 200
    app = app_of(("/", Extra.as_view({"post": "publish", "delete": "unpublish"})))
    assert asked(app, "wsgi", method="POST", headers=ADA).status == 200
    assert asked(app, "wsgi", method="DELETE", headers=ADA).reason == "insufficient_scope"


@both
def test_a_mark_by_method_decorator_holds_and_costs_no_walk(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Django decorates the method anew at every call, which writes the mark anew."""

    class Decorated(View):
        @method_decorator(requires(scopes("a")))
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("got")

    @method_decorator(requires(scopes("a")), name="dispatch")
    class Whole(View):
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("got")

    app = app_of(("/method", Decorated.as_view()), ("/class", Whole.as_view()))
    if by == "wsgi":  # by ASGI, the project starts anew at each request
        monkeypatch.delattr("authz403.django_routes.DjangoWalk")
    for where in ("/method", "/class"):
        for _ in range(2):
            assert asked(app, by, where, headers=bearer()).reason == "insufficient_scope"
            assert text(asked(app, by, where, headers=ADA)) == "got"


def test_a_mark_that_is_written_late_holds_from_then_on() -> None:
    """Also where the project has served requests before, and where it conceals."""
    view, other = saying(), public(saying())
    app = app_of(("/", view), ("/other", other), gate=gate_with(default=anyone))
    assert asked(app, "wsgi").status == asked(app, "wsgi", "/other").status == 200
    requires(scopes("a"))(view)
    assert asked(app, "wsgi").status == 401
    assert asked(app, "wsgi", headers=ADA).status == asked(app, "wsgi", "/other").status == 200
    requires(scopes("c").concealed())(other)
    answer = asked(app, "wsgi", "/other", headers=ADA)
    assert (answer.status, answer.header("cache-control")) == (404, "no-store")
    assert asked(app, "wsgi", "/missing").header("cache-control") == "no-store"


@both
def test_a_method_in_another_case_stands_under_the_rule_of_that_method(by: str) -> None:
    """Django runs the view of GET for `get`."""
    app = app_of(("/", saying()), gate=gate_with(rules=[Rule("GET", "/", scopes("z")), Rule("*", "/", anyone)]))
    assert asked(app, by, method="get").status == 401
    assert text(asked(app, by, method="get", headers=bearer(scope="z"))) == "hello"


@both
def test_a_method_that_a_client_invents_is_no_handshake(by: str) -> None:
    """A rule for WebSockets, of another app behind the same gate, opens nothing."""
    rules = [Rule("WEBSOCKET", "/live", anyone), Rule("GET", "/live", authenticated)]
    app = app_of(("/live", saying()), gate=gate_with(rules=rules, shared=True))
    assert asked(app, by, "/live", "WEBSOCKET").reason == "no_policy"


# ---- who asks


class Noting:
    """Middleware that notes who asks, before and after."""

    sync_capable = True
    async_capable = True
    seen: list[str] = []  # noqa: RUF012 - one list for all that Django makes of this class

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - an answer, or a coroutine for one
        self.seen.append(whoever(request))
        return self.get_response(request)


@both
def test_the_caller_is_there_for_middleware_and_views(by: str) -> None:
    """`request.principal`, anonymous where the policy asks nobody."""
    views = [("/", requires(optional)(telling_view())), ("/open", public(telling_view()))]
    app = app_of(*views, middleware=[OURS, "tests.test_django.Noting"])
    Noting.seen.clear()
    assert [text(asked(app, by)), text(asked(app, by, headers=ADA))] == ["nobody", "ada"]
    assert text(asked(app, by, "/open", headers=ADA)) == "nobody"
    assert asked(app, by, "/missing", headers=ADA).status == 404
    assert Noting.seen == ["nobody", "ada", "nobody", "nobody"]


@both
def test_rest_framework_sees_the_caller(by: str) -> None:
    """Its request hands on what Django's has."""

    @api_view(["GET"])
    @requires(authenticated)
    def view(request: DrfRequest) -> DrfResponse:
        return DrfResponse(request.principal.sub)  # type: ignore[attr-defined]  # ours

    assert "ada" in text(asked(app_of(("/", view)), by, headers=ADA))


SESSIONS = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


def user_of(request: HttpRequest, principal: Principal) -> object:
    """Return the user of a caller."""
    return types.SimpleNamespace(username=f"{principal.sub} of {request.path}", is_authenticated=True, is_active=True)


@both
@pytest.mark.parametrize("set_user", [None, user_of, "tests.test_django.user_of"], ids=["left alone", "set", "by name"])
def test_the_user_of_django_is_left_alone_unless_told(by: str, set_user: object) -> None:
    """Where told, it is set after AuthenticationMiddleware, for identified callers."""

    @requires(optional)
    async def by_loop(request: HttpRequest) -> HttpResponse:
        user: Any = await request.auser()
        return HttpResponse(str(getattr(user, "username", "") or "no user"))

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(request.user.username or "no user"))  # type: ignore[union-attr]  # ours

    views = [("/", requires(optional)(view)), ("/loop", by_loop)]
    for middleware in ([OURS, *SESSIONS], [*SESSIONS, OURS]):
        app = app_of(
            *views,
            middleware=middleware,
            AUTHZ403_SET_USER=set_user,
            SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        )
        for where in ("/", "/loop"):
            assert text(asked(app, by, where)) == "no user"
            told = "no user" if set_user is None else f"ada of {where}"
            assert text(asked(app, by, where, headers=ADA)) == told


class Changes:
    """Middleware that makes another request of one: by the setting CHANGE, a function."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - an answer, or a coroutine for one
        from django.conf import settings  # noqa: PLC0415 - of now

        settings.CHANGE(request)
        return self.get_response(request)


class Passing(Changes):
    """Middleware that changes nothing."""

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - an answer, or a coroutine for one
        return self.get_response(request)


class ByCaller(APIView):
    """A view of REST framework that wants a user of its own."""

    authentication_classes = (CallerAuthentication,)  # type: ignore[assignment]  # of no class of a framework that need not be here
    permission_classes = (IsAuthenticated,)

    @requires(optional)
    def get(self, request: DrfRequest) -> DrfResponse:
        assert request.auth is request.principal  # type: ignore[attr-defined]  # ours
        return DrfResponse([str(request.user.username), str(request._request.user.username)])  # type: ignore[union-attr]  # ours


@both
def test_rest_framework_takes_the_user_that_was_set(by: str) -> None:
    """For its permissions, and in the request of Django."""
    app = app_of(("/", ByCaller.as_view()), AUTHZ403_SET_USER=user_of)
    assert asked(app, by, headers=ADA).body == b'["ada of /","ada of /"]'
    assert asked(app, by).status == 401
    # A session has to show a token against forgery; this class asks for none, and so must not take its user.
    app = app_of(
        ("/", ByCaller.as_view()),
        middleware=[OURS, *SESSIONS, "tests.test_django.SignedIn"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    )
    assert asked(app, by, headers=ADA).status == 401


class SignedIn(Passing):
    """Middleware that signs somebody in by a session."""

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - an answer, or a coroutine for one
        request.user = types.SimpleNamespace(username="eve", is_authenticated=True, is_active=True)  # type: ignore[assignment]  # a user
        return self.get_response(request)


# ---- refusals from inside


def of_owner(request: HttpRequest, **_: object) -> HttpResponse:
    """Answer the owner alone."""
    check(_DENIED, Reason.NOT_OWNER, order=5)
    return HttpResponse("yours")


async def of_owner_by_loop(request: HttpRequest) -> HttpResponse:
    """Answer the owner alone."""
    check(_DENIED, Reason.NOT_OWNER, order=5)
    return HttpResponse("yours")


async def of_several_tasks(request: HttpRequest) -> HttpResponse:
    """Refuse as a task group does."""
    raise ExceptionGroup("tasks", [AccessDenied(Reason.NOT_OWNER, order=5)])


@api_view(["GET"])
def of_owner_by_rest_framework(request: DrfRequest) -> DrfResponse:
    """Answer the owner alone."""
    check(_DENIED, Reason.NOT_OWNER, order=5)
    return DrfResponse("yours")


class Raising:
    """Middleware that refuses by itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return of_owner(request)


class RaisingLater:
    """Middleware that refuses when the view has answered."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        self.get_response(request)
        return of_owner(request)


INSIDE: dict[str, tuple[View_, tuple[str, ...]]] = {
    "view": (functools.partial(of_owner), ()),
    "coroutine": (of_owner_by_loop, ()),
    "tasks": (of_several_tasks, ()),
    "REST framework": (of_owner_by_rest_framework, ()),
    "middleware": (saying(), ("tests.test_django.Raising",)),
    "middleware, later": (saying(), ("tests.test_django.RaisingLater",)),
}


@both
@pytest.mark.parametrize("options", [{}, {"DEBUG": True}, {"DEBUG_PROPAGATE_EXCEPTIONS": True}], ids=str)
@pytest.mark.parametrize("name", INSIDE)
def test_a_denial_from_inside_is_our_refusal(by: str, name: str, options: dict[str, Any]) -> None:
    """Status, body, CORS headers and event are the gate's."""
    view, middleware = INSIDE[name]
    gate = gate_with(cors=CORS, rules=[Rule("*", "/", anyone)])
    app = app_of(("/", view), gate=gate, middleware=[OURS, *middleware], **options)
    with listening() as events:
        answer = asked(app, by, headers={"Origin": ORIGIN})
    assert (answer.status, answer.reason, answer.error) == (403, "not_owner", None)
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert [(event["event"], event["reason"], event["facts"]) for event in events] == [
        ("authz.denied", "not_owner", {"order": 5})
    ]


def test_a_denial_rolls_back_what_the_request_wrote() -> None:
    """With ATOMIC_REQUESTS, as any exception does."""
    call_command("migrate", verbosity=0)

    @public
    def view(request: HttpRequest) -> HttpResponse:
        ContentType.objects.create(app_label="shop", model="order")
        return of_owner(request)

    from django.db import connection  # noqa: PLC0415 - only once there are settings

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert asked(app_of(("/", view)), "wsgi").reason == "not_owner"
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert not ContentType.objects.filter(app_label="shop").exists()


class RaisingByLoop:
    """Middleware of coroutines that refuses by itself."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        return of_owner(request)


@both
@pytest.mark.parametrize("name", ["Raising", "RaisingByLoop"])
def test_the_page_for_what_middleware_hides_may_block(by: str, name: str) -> None:
    """As any page of Django's may, such as one that asks the database."""

    @async_unsafe("not on an event loop")
    def told() -> str:
        return "missing"

    def missing(request: HttpRequest, exception: Exception) -> HttpResponse:
        return HttpResponse(told(), status=404)

    hidden = path("hidden", requires(authenticated.concealed())(saying()))
    project = Project([hidden], handler404=missing)
    app = DjangoApp(project, gate_with(), middleware=[OURS, f"tests.test_django.{name}"])
    answer = asked(app, by, "/hidden", headers=bearer())
    assert (answer.status, text(answer)) == (404, "missing")
    assert "no-store" in str(answer.headers)


@both
def test_a_request_that_middleware_refuses_is_finished_once(by: str) -> None:
    """Django gives back what belongs to a request when it is."""
    finished: list[object] = []

    def note(**told: object) -> None:
        finished.append(told)

    request_finished.connect(note)
    try:
        app = app_of(("/", public(saying())), middleware=[OURS, "tests.test_django.Raising"])
        assert asked(app, by).reason == "not_owner"
    finally:
        request_finished.disconnect(note)
    assert len(finished) == 1


def test_a_request_whose_client_goes_away_has_its_event() -> None:
    """Django ends the view then."""
    begun = asyncio.Event()

    @public
    async def view(request: HttpRequest) -> HttpResponse:
        begun.set()
        await asyncio.Event().wait()
        return HttpResponse("never")

    messages: Iterator[Message] = iter(BODYLESS)

    async def receive() -> Message:
        message = next(messages, None)
        if message is None:
            await begun.wait()
        return message or {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    app = app_of(("/", view))
    with listening() as events, override_settings(**app.settings):
        asyncio.run(ASGIHandler()(scope_of(), receive, send))  # type: ignore[arg-type]  # ASGI as Starlette types it
    assert [event["event"] for event in events] == ["authz.allowed"]


@both
def test_a_crash_is_the_projects_own_page_and_readable_by_scripts(by: str) -> None:
    """Django answers its own bugs; the gate puts CORS headers on."""

    def view(request: HttpRequest) -> HttpResponse:
        raise LookupError("a bug")

    urls = Project([path("", public(view))], handler500=lambda _: HttpResponse("sorry", status=500))
    answer = asked(DjangoApp(urls, gate_with(cors=CORS)), by, headers={"Origin": ORIGIN})
    assert (answer.status, text(answer), answer.header("access-control-allow-origin")) == (500, "sorry", ORIGIN)


@both
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_stream_may_check_and_is_cut_where_it_is_refused(by: str) -> None:
    """The answer has begun by then; the log says it."""

    @public
    def view(request: HttpRequest) -> StreamingHttpResponse:
        def pieces() -> Iterator[str]:
            yield whoever(request)
            of_owner(request)

        async def pieces_by_loop() -> AsyncIterator[str]:
            yield whoever(request)
            of_owner(request)

        return StreamingHttpResponse(pieces() if by == "wsgi" else pieces_by_loop())

    with listening() as events:
        answer = asked(app_of(("/", view), gate=gate_with(cors=CORS)), by, headers={"Origin": ORIGIN})
    assert (answer.status, text(answer), answer.header("access-control-allow-origin")) == (200, "nobody", ORIGIN)
    assert type(answer.error) is AccessDenied
    assert [event["event"] for event in events] == ["authz.allowed", "authz.error"]
    del answer
    gc.collect()  # by ASGI, Django leaves the file of the body to it where a stream is cut


def test_a_file_is_still_sent_as_one(tmp_path: Any) -> None:  # noqa: ANN401 - a path
    """By the server's own wrapper, where it has one."""
    (tmp_path / "file").write_text("content")
    wrapped: list[object] = []

    class Wrapper:
        def __init__(self, file: Any, size: int = 0) -> None:  # noqa: ANN401 - as PEP 3333 has it
            wrapped.append(file)
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            with self.file:
                return iter([self.file.read()])

    app = app_of(("/", public(lambda _: FileResponse((tmp_path / "file").open("rb")))), gate=gate_with(cors=CORS))
    answer = asked(app, "wsgi", more={"wsgi.file_wrapper": Wrapper})
    assert (text(answer), len(wrapped)) == ("content", 1)


# ---- what is concealed


class Hidden(View):
    """A view that nobody without the scope may learn of."""

    @requires(scopes("c").concealed())
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("not reached")

    post = get


def concealing(*hidden: tuple[str, View_], **more: Any) -> DjangoApp:  # noqa: ANN401 - settings
    """Return a project with a page of its own for what is missing, which looks at all it can."""

    def missing(request: HttpRequest, exception: Exception) -> HttpResponse:
        told = [request.resolver_match, whoever(request), type(exception), reverse("seen"), reverse("in:seen")]
        return HttpResponse(f"missing {told}", status=404)

    seen = path("seen", public(saying()), name="seen")
    urls = [*(path(where, view) for where, view in hidden), seen, path("in/", include(([seen], "in")))]
    middleware = [OURS, "django.middleware.common.CommonMiddleware"]
    gate = gate_with(default=scopes("never").concealed())
    return DjangoApp(Project(urls, handler404=missing), gate, middleware=middleware, **more)


@both
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("where", ["/hidden", "/folder/", "/folder"])
def test_what_is_concealed_is_answered_as_what_is_missing(by: str, where: str, method: str) -> None:
    """By 404, 405, OPTIONS and the redirect of APPEND_SLASH alike: byte for byte what the project says without it."""
    view = requires(scopes("c").concealed())(saying())
    apps = [concealing(("hidden", view), ("folder/", view)), concealing()]
    told, missing = (asked(app, by, where, method, headers=bearer()) for app in apps)
    assert (told.status, sorted(told.headers), told.body) == (404, sorted(missing.headers), missing.body)
    assert "no-store" in str(told.headers)


@both
@pytest.mark.parametrize("debug", [False, True], ids=["", "DEBUG"])
@pytest.mark.parametrize("inner", [of_owner, of_owner_by_loop], ids=["function", "coroutine"])
def test_a_view_that_refuses_in_a_concealed_place_is_missing(by: str, inner: View_, debug: bool) -> None:  # noqa: FBT001 - a row
    """The page does not know who asks, nor what for; the log does."""
    if iscoroutinefunction(inner):

        @requires(authenticated.concealed())
        async def view(request: HttpRequest) -> Any:  # noqa: ANN401 - never one
            return await inner(request)

        hidden: View_ = view
    else:
        hidden = requires(authenticated.concealed())(functools.partial(inner))
    with listening() as events:
        told = asked(concealing(("hidden", hidden), DEBUG=debug), by, "/hidden", headers=bearer())
    missing = asked(concealing(DEBUG=debug), by, "/hidden", headers=bearer())
    assert told.status == missing.status == 404
    assert debug or told.body == missing.body
    assert "not_owner" not in text(told)
    assert "ada" not in text(told)
    assert [(event["event"], event["concealed"], event["sub"]) for event in events] == [("authz.denied", True, "ada")]


class HiddenSet(ViewSet):
    """A view set that nobody without the scope may learn of."""

    @requires(scopes("c").concealed())
    def list(self, request: DrfRequest) -> DrfResponse:
        return DrfResponse("listed")


@both
@pytest.mark.parametrize("default", [deny, anyone], ids=["deny", "anyone"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "FOO", "delete"])
@pytest.mark.parametrize(
    "view", [Hidden.as_view(), HiddenSet.as_view({"get": "list"})], ids=["methods of a class", "view set"]
)
def test_a_class_that_is_concealed_by_its_methods_is_missing(
    by: str, default: Requirement, method: str, view: View_
) -> None:
    """Its 405 and its OPTIONS would tell of it, and so would their refusal."""
    apps = [app_of(("/hidden", view), ("/other", view), gate=gate_with(default=default)), app_of(("/other", view))]
    told, missing = (asked(app, by, "/hidden", method, headers=bearer()) for app in apps)
    assert (told.status, sorted(told.headers), told.body) == (404, sorted(missing.headers), missing.body)


def test_a_method_that_as_view_leaves_out_betrays_nothing() -> None:
    """Django answers it by 405, though the class has it."""

    class Posting(Hidden):
        def post(self, request: HttpRequest) -> HttpResponse:  # one without a mark
            return HttpResponse("not reached")

    answers = [
        asked(app_of(("/", view)), "wsgi", method="POST", headers=bearer())
        for view in (Posting.as_view(), Posting.as_view(http_method_names=["get"]))
    ]
    assert [answer.status for answer in answers] == [403, 404]


def test_a_language_betrays_nothing() -> None:
    """LocaleMiddleware redirects to the path with a language before it, where that is there."""
    locale = "django.middleware.locale.LocaleMiddleware"
    hidden = i18n_patterns(path("hidden/", requires(scopes("c").concealed())(saying())))
    for where in ("/hidden/", "/hidden"):
        answers = [
            asked(DjangoApp(urls, gate_with(), middleware=[locale, OURS]), "wsgi", where, headers=bearer(scope=scope))
            for urls, scope in ((hidden, "b"), (hidden, "c"), (i18n_patterns(path("other/", saying())), "b"))
        ]
        assert [answer.status for answer in answers] == [404, 302, 404]
        assert answers[0].body == answers[2].body


@both
@pytest.mark.parametrize("where", ["/en/hidden/", "/en/hidden", "/hidden/", "/hidden"])
def test_the_headers_of_a_language_betray_nothing(by: str, where: str) -> None:
    """LocaleMiddleware writes `Vary` by whether the URLconf has languages."""
    middleware = ["django.middleware.locale.LocaleMiddleware", OURS, "django.middleware.common.CommonMiddleware"]
    view = requires(scopes("c").concealed())(saying())
    urls = [i18n_patterns(*(path(name, view) for name in names)) for names in (("hidden/", "x"), ("x",))]
    told, missing = (
        asked(DjangoApp(one, gate_with(), middleware=middleware), by, where, headers=bearer()) for one in urls
    )
    assert (told.status, sorted(told.headers), told.body) == (404, sorted(missing.headers), missing.body)


@both
def test_a_gate_that_only_reports_lets_every_path_pass(by: str) -> None:
    """One that it would have refused, too; the event says so."""
    app = DjangoApp([path("<name>", public(saying()))], gate_with(dangerously_report_only=True))
    with listening() as events:
        assert text(asked(app, by, "/a\\b")) == "hello"
    assert [event["reason"] for event in events] == ["invalid_path"]


@both
def test_what_is_concealed_is_shown_to_whom_it_is_open(by: str) -> None:
    """The page, and the redirect to it."""
    view = requires(scopes("c").concealed())(saying())
    app, entitled = concealing(("hidden", view), ("folder/", view)), bearer(scope="c")
    assert text(asked(app, by, "/hidden", headers=entitled)) == "hello"
    assert asked(app, by, "/folder", headers=entitled).status == 301


# ---- settings and start-up


def test_everything_that_is_wrong_with_the_settings_is_told_at_once() -> None:
    """When Django starts."""
    with pytest.raises(ConfigurationError) as caught:
        DjangoApp([], None, AUTHZ403_SET_USER="nowhere.at.all")
    assert [mistake.field for mistake in caught.value.mistakes] == ["AUTHZ403_GATE", "AUTHZ403_SET_USER"]
    for gate in ("nowhere.gate", 5, lambda: 5, "tests.test_django.ADA"):
        with pytest.raises(ConfigurationError, match="AUTHZ403_GATE"):
            DjangoApp([], gate)
    for user_of_nobody in (5, RaisingByLoop.__call__):
        with pytest.raises(ConfigurationError, match="a function of request and principal"):
            DjangoApp([], gate_with(), AUTHZ403_SET_USER=user_of_nobody)


GATE = gate_with(rules=[Rule("GET", "/x", anyone)])


def made_gate() -> Gate:
    """Return the gate, as a setting may name a function."""
    return GATE


@pytest.mark.parametrize("named", [GATE, made_gate, "tests.test_django.GATE", "tests.test_django.made_gate"])
def test_the_gate_is_named_by_the_settings(named: object) -> None:
    """Itself, a function that returns it, or the dotted path of either."""
    assert text(asked(DjangoApp([path("x", saying())], named), "wsgi", "/x")) == "hello"


def test_what_does_not_fit_stops_django() -> None:
    """Rules that nothing can match and parameters that are not there: all in one error."""
    urls = [path("orders/<order>", requires(param("owner", claim="sub"))(saying()))]
    with pytest.raises(ConfigurationError) as caught:
        DjangoApp(urls, gate_with(rules=[Rule("GET", "/nowhere", anyone)]))
    assert [mistake.field for mistake in caught.value.mistakes] == ["rules[0]", "param"]


def test_what_chooses_a_language_stands_before_the_gate() -> None:
    """Where paths depend on it."""
    urls = i18n_patterns(path("in/", public(saying())))
    locale = "django.middleware.locale.LocaleMiddleware"
    with pytest.raises(ConfigurationError, match="write it before AuthzMiddleware"):
        DjangoApp(urls, gate_with(), middleware=[OURS, locale])
    app = DjangoApp(urls, gate_with(), middleware=[locale, OURS])
    assert text(asked(app, "wsgi", "/de/in/")) == "hello"
    assert asked(DjangoApp(urls[:0], gate_with(), middleware=[OURS, locale]), "wsgi").status == 404


def test_a_route_that_is_translated_stands_under_the_rules_for_all_its_paths() -> None:
    """Each language has a path of its own, which rules may name."""
    urls = [path(gettext_lazy("Yes"), saying("agreed"))]  # a word that Django itself can translate
    gate = gate_with(rules=[Rule("GET", "/Ja", scopes("a")), Rule("GET", "/Yes", scopes("b"))])
    locale = "django.middleware.locale.LocaleMiddleware"
    with pytest.raises(ConfigurationError, match="write it before AuthzMiddleware"):
        DjangoApp(urls, gate, middleware=[OURS, locale])
    app = DjangoApp(urls, gate, middleware=[locale, OURS])
    for language, where, scope in (("de", "/Ja", "a"), ("en", "/Yes", "b")):
        spoken = {"Accept-Language": language}
        assert asked(app, "wsgi", where, headers=spoken).status == 401
        assert text(asked(app, "wsgi", where, headers={**spoken, **bearer(scope=scope)})) == "agreed"


def test_cors_middleware_inside_the_gate_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals and preflights would never reach it."""
    import sys  # noqa: PLC0415 - to put a package in its place

    fake = types.ModuleType("corsheaders.middleware")
    fake.CorsMiddleware = Noting  # type: ignore[attr-defined]  # a package that is not here
    monkeypatch.setitem(sys.modules, "corsheaders", types.ModuleType("corsheaders"))
    monkeypatch.setitem(sys.modules, "corsheaders.middleware", fake)
    name = "corsheaders.middleware.CorsMiddleware"
    with pytest.raises(ConfigurationError, match="cors=Cors"):
        DjangoApp([], gate_with(), middleware=[OURS, name])


class OurOwn(authz403.django.AuthzMiddleware):
    """The gate's middleware with a name of the project's own."""


def test_a_gate_that_stands_there_twice_is_told() -> None:
    """Each would decide, and write an event; a subclass is one, too."""
    for twice in ([OURS, OURS], [OURS, f"{__name__}.OurOwn"]):
        with pytest.raises(ConfigurationError, match="it stands there twice"):
            DjangoApp([], gate_with(), middleware=twice)
    locale = "django.middleware.locale.LocaleMiddleware"
    with pytest.raises(ConfigurationError, match="write it before AuthzMiddleware"):
        DjangoApp(i18n_patterns(path("", saying())), gate_with(), middleware=[f"{__name__}.OurOwn", locale])


def test_the_plain_middlewares_refuse_django() -> None:
    """Its marks would not hold."""
    with override_settings(MIDDLEWARE=[]):
        handler = WSGIHandler()
    with pytest.raises(ConfigurationError, match="MIDDLEWARE"):
        authz403.wsgi.AuthzMiddleware(handler, gate=gate_with())


# ---- only what was judged runs


class Blocking:
    """Middleware that knows no event loop."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)


class ChangesLate(Changes):
    """Middleware that does so when Django has found the view, as those do that let a header override the method."""

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - an answer, or a coroutine for one
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_: object) -> None:
        from django.conf import settings  # noqa: PLC0415 - of now

        settings.CHANGE(request)


OTHER: View_ = public(saying("other"))
CHANGES: dict[str, Callable[[HttpRequest], object]] = {
    "path": lambda request: setattr(request, "path_info", "/closed"),
    "parameter": lambda request: setattr(request, "path_info", "/orders/eve"),
    "method": lambda request: setattr(request, "method", "POST"),
    "URLconf": lambda request: setattr(request, "urlconf", Project([path("orders/<owner>", OTHER)])),
}


def changed_app(ran: list[str], middleware: list[str], change: str, **options: Any) -> DjangoApp:  # noqa: ANN401 - options of a gate
    """Return a project with middleware that changes requests."""

    def noting(name: str) -> View_:
        def view(request: HttpRequest, **_: object) -> HttpResponse:
            ran.append(name)
            return HttpResponse(name)

        return view

    orders, closed = requires(param("owner", claim="sub"))(noting("orders")), requires(scopes("z"))(noting("closed"))
    return DjangoApp(
        [path("orders/<owner>", orders), path("closed", closed)],
        gate_with(rules=[Rule("POST", "/orders/*", scopes("z"))], **options),
        middleware=middleware,
        CHANGE=CHANGES[change],
    )


@both
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("late", ["Changes", "ChangesLate"])
@pytest.mark.parametrize("report_only", [False, True], ids=["enforcing", "reporting"])
def test_another_request_than_was_judged_runs_nothing(by: str, change: str, late: str, report_only: bool) -> None:  # noqa: FBT001 - a row
    """Whatever middleware inside the gate does, and when: 500 `route_mismatch`."""
    ran: list[str] = []
    app = changed_app(ran, [OURS, f"tests.test_django.{late}"], change, dangerously_report_only=report_only)
    with listening() as events:
        answer = asked(app, by, "/orders/ada", headers=bearer())
    assert [event["reason"] for event in events] == ["route_mismatch"]
    if report_only:
        assert answer.status == 200
    else:
        assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


@both
@pytest.mark.parametrize("inner", [("Passing",), ("Blocking", "Passing"), ("Passing", "Blocking")], ids=" ".join)
def test_the_last_look_is_there_whatever_middleware_runs_in_threads(by: str, inner: tuple[str, ...]) -> None:
    """Django adapts each middleware to what stands around it."""
    ran: list[str] = []
    around = [f"tests.test_django.{name}" for name in inner]
    app = changed_app(ran, [*around, OURS, *around, "tests.test_django.ChangesLate"], "method")
    answer = asked(app, by, "/orders/ada", headers=bearer())
    assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


def test_the_middleware_is_made_by_djangos_handler_alone() -> None:
    """Whoever else calls it could run views that nobody holds to what was decided."""
    with override_settings(AUTHZ403_GATE=gate_with()), pytest.raises(ConfigurationError, match="MIDDLEWARE"):
        authz403.django.AuthzMiddleware(saying())


@both
@pytest.mark.parametrize("change", CHANGES)
def test_what_middleware_further_out_makes_of_a_request_is_what_is_judged(by: str, change: str) -> None:
    """It stands before the gate, as another server would."""
    ran: list[str] = []
    app = changed_app(ran, ["tests.test_django.Changes", OURS], change)
    answer = asked(app, by, "/orders/ada", headers=bearer())
    if change == "URLconf":
        assert text(answer) == "other"
    else:
        assert (answer.reason, ran) == ("not_owner" if change == "parameter" else "insufficient_scope", [])


class Replaces(Changes):
    """Middleware that hands on a request of its own."""

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - an answer, or a coroutine for one
        if isinstance(request, ASGIRequest):
            return self.get_response(ASGIRequest(request.scope, io.BytesIO()))
        assert isinstance(request, WSGIRequest)
        return self.get_response(WSGIRequest(request.environ))


@both
def test_a_request_that_no_gate_decided_on_runs_nothing(by: str) -> None:
    """Middleware may make a new one."""
    app = app_of(("/", public(saying())), middleware=[OURS, "tests.test_django.Replaces"])
    answer = asked(app, by)
    assert (answer.status, answer.reason) == (500, "route_mismatch")


# ---- paths


class ChoosesRegex:
    """Middleware that chooses a URLconf with the same text for its route, as a regular expression."""

    def __init__(self, get_response: View_) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:  # noqa: ANN401 - as Django has it
        request.urlconf = OF_REGEX  # type: ignore[assignment]  # it may be any object
        return self.get_response(request)


of_two_kinds = requires(authenticated)(saying())
OF_REGEX = Project([re_path("x", of_two_kinds)])


@pytest.mark.parametrize("is_chosen", [False, True], ids=["in one URLconf", "in another"])
def test_a_route_is_not_taken_for_another_of_the_same_text(is_chosen: bool) -> None:  # noqa: FBT001 - a row
    """A regular expression may match more than a path of the same text, and the rules for that hold."""
    gate = gate_with(rules=[Rule("*", "/xyz", scopes("c"))], shared=True)
    if is_chosen:
        middleware = [f"{__name__}.ChoosesRegex", OURS]
        app = DjangoApp([path("x", of_two_kinds)], gate, middleware=middleware)
    else:
        app = DjangoApp([path("x", of_two_kinds), re_path("x", of_two_kinds)], gate)
    for _ in range(2):
        assert asked(app, "wsgi", "/x", headers=ADA).status == 200
        assert asked(app, "wsgi", "/xyz", headers=ADA).reason == "insufficient_scope"


@pytest.mark.parametrize(
    ("where", "status"),
    [("//files/a", 400), ("/files/a//b", 200), ("/files/../x", 200), ("/x/../files/a", 400), ("/files/%ff", 200)],
)
@both
def test_dot_segments_pass_into_a_path_parameter_alone(by: str, where: str, status: int) -> None:
    """What is no path for others is none here."""
    app = DjangoApp([path("files/<path:name>", public(lambda _, name: HttpResponse(name)))], gate_with())
    answer = asked(app, by, where)
    assert answer.status == status
    assert status == 400 or text(answer) == where.removeprefix("/files/")


def test_bytes_that_are_no_text_are_judged_as_django_writes_them() -> None:
    """As `%FF`, in text: what its resolver sees is what rules see."""
    app = DjangoApp([path("files/<path:name>", saying())], gate_with(rules=[Rule("GET", "/files/*", anyone)]))
    assert text(asked(app, "wsgi", more={"PATH_INFO": "/files/\xff"})) == "hello"


@both
def test_rules_by_path_see_the_path_below_the_script_name(by: str) -> None:
    """As Django's resolver does."""
    app = app_of(("/x", saying()), gate=gate_with(rules=[Rule("*", "/x", scopes("a"))]))
    more = {"more": {"SCRIPT_NAME": "/shop"}} if by == "wsgi" else {"root_path": "/shop"}
    where = "/x" if by == "wsgi" else "/shop/x"
    assert asked(app, by, where, **more).status == 401
    assert text(asked(app, by, where, headers=ADA, **more)) == "hello"


def test_coverage_lists_what_a_project_serves() -> None:
    """With includes, regular expressions and view sets, and where each policy stands."""
    urls = [
        path("shop/<int:shop>/", include([path("items", Items.as_view()), path("things", KINDS["ViewSet"])])),
        re_path(r"^old/(?P<name>\w+)$", public(saying())),
    ]
    with override_settings(ROOT_URLCONF=Project(urls), MIDDLEWARE=[]):
        rows = gate_with().coverage(WSGIHandler())
        assert rows == gate_with().coverage(ASGIHandler())
    told = {(row.method, row.path): row.policy for row in rows}
    assert told["GET", "/shop/<int:shop>/items"] == "marks: scopes('a')"
    assert told["POST", "/shop/<int:shop>/things"] == "marks: scopes('c')"
    assert {row.endpoint for row in rows if row.path.endswith("/items")} == {"Items"}
    assert not any(method == "OPTIONS" for method, _ in told)  # Django answers it
    assert told["*", "/old/(?P<name>\\w+)$"] == "marks: anyone"
    assert all(row.written and row.written[0].startswith(__file__) for row in rows if row.method in {"GET", "POST"})


# ---- within other gates, and Django's own clients


def test_a_gate_before_a_dispatcher_has_the_first_word() -> None:
    """One event a request, CORS of the outermost, and both policies."""
    inner = app_of(("/x", requires(scopes("a"))(telling_view())))
    gate = gate_with(cors=CORS, rules=[Rule("*", "/in/**", authenticated)])
    app = authz403.wsgi.AuthzMiddleware(DispatcherMiddleware(page(), {"/in": inner}), gate=gate)
    for headers, status in (({}, 401), (bearer(), 403), (ADA, 200)):
        with listening() as events:
            answer = wsgi_made.ask(app, environ_of("/in/x", headers={**headers, "Origin": ORIGIN}))
        assert (answer.status, answer.header("access-control-allow-origin")) == (status, ORIGIN)
        assert [event.get("status") for event in events] == [status]


def test_a_gate_before_an_app_that_mounts_django_has_the_first_word() -> None:
    """By ASGI, too."""
    inner = app_of(("/x", requires(scopes("a"))(telling_view())))
    gate = gate_with(cors=CORS, rules=[Rule("*", "/in/**", authenticated)])
    app = authz403.asgi.AuthzMiddleware(Starlette(routes=[Mount("/in", inner.asgi)]), gate=gate)
    for headers, status in (({}, 401), (bearer(), 403), (ADA, 200)):
        with listening() as events:
            answer = drive(app, scope_of("/in/x", headers={**headers, "Origin": ORIGIN}), BODYLESS)
        assert (answer.status, answer.header("access-control-allow-origin")) == (status, ORIGIN)
        assert [event.get("status") for event in events] == [status]


def test_djangos_own_test_clients_see_refusals() -> None:
    """Of both kinds."""
    app = app_of(("/", requires(scopes("a"))(telling_view())))
    with override_settings(**app.settings):
        answer = Client().get("/", headers=bearer())
        assert (answer.status_code, answer.json()["reason"]) == (403, "insufficient_scope")
        assert Client().get("/", headers=ADA).content == b"ada"
        told = asyncio.run(AsyncClient().get("/", headers=bearer()))
        assert (told.status_code, told.json()["reason"]) == (403, "insufficient_scope")
