"""The latch: whatever a router chooses, it runs what was decided on or nothing."""

import asyncio
import copy
import functools
import re
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from authz403 import any_role, anyone, authenticated, guard, public, requirement, requires
from authz403.asgi import AuthzMiddleware
from authz403.facts import Facts
from authz403.fastapi import needs
from tests.apps_made import (
    BODYLESS,
    FRAMEWORKS,
    Answer,
    add_route,
    answering,
    bearer,
    connect,
    drive,
    gate_with,
    guarded,
    listening,
    ran_by,
    scope_of,
    unwalkable,
    wrapped,
)

ADMIN = any_role("admin")
both = pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda kind: kind.__name__)


def admin(path: str, method: str = "GET", **more: object) -> Scope:
    """Return a request of an admin."""
    headers = {**bearer(roles=["admin"]), **{str(name): str(value) for name, value in more.items()}}
    return scope_of(path, method, headers=headers)


class ByVersion(Route):
    """A route that is chosen by a header, too."""

    def __init__(self, version: str, *args: Any, **options: Any) -> None:  # noqa: ANN401 - those of Route
        super().__init__(*args, **options)
        self.version = version.encode()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if dict(scope.get("headers", ())).get(b"x-version", b"1") != self.version:
            return Match.NONE, {}
        return super().matches(scope)


def by_version(ran: list[str]) -> Starlette:
    """Return an app whose two versions of an endpoint stand under different policies."""
    one, two = public(ran_by("one", ran)), requires(ADMIN)(ran_by("two", ran))
    return Starlette(routes=[ByVersion("1", "/x", one), ByVersion("2", "/x", two)])


class AsksForTwo:
    """Middleware inside the gate that asks for the second version, whatever was asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "headers": [(b"x-version", b"2")]}, receive, send)


def test_a_route_that_is_chosen_by_a_header_runs_under_its_own_policy() -> None:
    """The route's own `matches()` is asked, whatever it looks at."""
    ran: list[str] = []
    app = guarded(by_version(ran), gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    assert drive(app, scope_of("/x", headers={"X-Version": "2"})).status == 401
    assert drive(app, admin("/x", **{"X-Version": "2"}), BODYLESS).status == 200
    assert ran == ["one", "two"]


def test_a_header_that_changed_after_the_decision_leads_to_no_other_route() -> None:
    """A door sees that path and method are the same; the latch before the other route sees that it is another."""
    ran: list[str] = []

    app = by_version(ran)
    app.add_middleware(AsksForTwo)
    app = guarded(app, gate_with())
    with listening() as events:
        answer = drive(app, scope_of("/x"))
    assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])
    assert "chose another route" in str(events[0]["hint"])


def test_a_route_that_looks_at_the_caller_is_not_run_for_a_caller_it_was_not_decided_for() -> None:
    """Who calls is known after the decision alone, so that such a route is chosen otherwise then."""
    ran: list[str] = []

    class ForTheKnown(Route):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            user = scope.get("user")
            return super().matches(scope) if user is not None and user.is_authenticated else (Match.NONE, {})

    routes = [ForTheKnown("/x", requires(ADMIN)(ran_by("known", ran))), Route("/x", ran_by("all", ran))]
    app = guarded(Starlette(routes=routes), gate_with(default=authenticated))
    assert drive(app, scope_of("/x", headers=bearer())).reason == "route_mismatch"
    assert ran == []


@both
def test_routes_without_regard_to_case_stand_under_their_policy(framework: type[Starlette]) -> None:
    """The well-known recipe changes the expressions of routes: what they match then is asked, not what they say."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/admin", requires(ADMIN)(ran_by("admin", ran)))
    add_route(app, "/orders/{id}", requires(ADMIN)(ran_by("order", ran)))
    for route in app.routes:
        if isinstance(route, Route):
            route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    app = guarded(app, gate_with(default=anyone))
    for path in ("/Admin", "/ORDERS/5"):
        assert drive(app, scope_of(path)).status == 401
        assert ran == []
        assert drive(app, admin(path), BODYLESS).status == 200
        ran.clear()


def test_a_mount_without_regard_to_case_stands_under_its_guard() -> None:
    """The same for a group."""
    ran: list[str] = []
    mount = Mount("/admin", routes=[Route("/x", ran_by("x", ran))])
    mount.path_regex = re.compile(mount.path_regex.pattern, re.IGNORECASE)
    app = guarded(Starlette(routes=[guard(mount, ADMIN)]), gate_with(default=anyone))
    assert drive(app, scope_of("/ADMIN/x")).status == 401
    assert drive(app, admin("/ADMIN/x"), BODYLESS).status == 200
    assert ran == ["x"]


def test_an_expression_that_changes_later_runs_nothing_until_it_is_known() -> None:
    """One request sees that the router chose what the table did not know; the next one is judged by a new table."""
    ran: list[str] = []
    app = Starlette(routes=[Route("/admin", requires(ADMIN)(ran_by("admin", ran)))])
    app = guarded(app, gate_with(default=anyone))
    assert drive(app, scope_of("/Admin")).status == 404
    [route] = app.routes
    assert isinstance(route, Route)
    route.path_regex = re.compile(route.path_regex.pattern, re.IGNORECASE)
    assert drive(app, scope_of("/Admin")).reason == "route_mismatch"
    assert drive(app, scope_of("/Admin")).reason == "missing_token"
    assert drive(app, admin("/Admin"), BODYLESS).status == 200
    assert ran == ["admin"]


def test_an_included_router_with_a_dispatch_of_its_own_is_a_mistake() -> None:
    """FastAPI asks the class of an included router, which nobody else could."""

    class Versioned(APIRouter):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return super().matches(scope)

    app = FastAPI()
    app.include_router(Versioned())
    answer = drive(wrapped(app, gate_with()), scope_of("/x"))
    assert answer.reason == "misconfigured"


def test_a_mount_that_handles_requests_itself_is_one_endpoint() -> None:
    """What it does with them cannot be told, so that its routes' marks are not taken for a policy."""
    ran: list[str] = []

    class Elsewhere(Mount):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await answering("elsewhere", ran)(scope, receive, send)

    inner = Router([Route("/x", public(ran_by("x", ran)))])
    app = guarded(Starlette(routes=[Elsewhere("/m", inner)]), gate_with())
    assert drive(app, scope_of("/m/x")).reason == "no_policy"
    assert ran == []


@both
def test_a_route_that_comes_while_a_decision_waits_runs_nothing(framework: type[Starlette]) -> None:
    """Between decision and dispatch anything may happen: the new route was not decided on."""
    ran: list[str] = []
    app = framework()

    async def later(facts: Facts) -> bool:
        app.router.routes.insert(0, Route("/x", ran_by("new", ran)))
        return True

    add_route(app, "/x", requires(requirement("later", later, anonymous=True))(ran_by("old", ran)))
    app = guarded(app, gate_with())
    answer = drive(app, scope_of("/x"))
    assert ran == []
    assert (answer.status, answer.reason) == (500, "route_mismatch")
    assert drive(app, scope_of("/x")).reason == "no_policy"


@pytest.mark.parametrize("change", ["app", "methods"])
def test_a_route_that_is_changed_in_place_is_judged_anew(change: str) -> None:
    """What a route leads to is looked at when it is taken."""
    ran: list[str] = []
    mount = Mount("/m", Router([Route("/x", public(ran_by("open", ran)))]))
    app = guarded(Starlette(routes=[mount]), gate_with())
    assert drive(app, scope_of("/m/x"), BODYLESS).status == 200
    mount.app = mount._base_app = Router([Route("/x", requires(ADMIN)(ran_by("closed", ran)))])
    assert drive(app, scope_of("/m/x")).status == 401
    assert ran == ["open"]


@pytest.mark.parametrize("late", ["guard", "requires", "an equal Mount", "default"])
def test_policies_that_are_written_later_hold_from_then_on(late: str) -> None:
    """Whatever changes what stands before a handler is known at the next request."""
    ran: list[str] = []
    endpoint = ran_by("x", ran)
    inner = Router([Route("/x", endpoint)])
    app = Starlette(routes=[Mount("/m", inner)])
    app = guarded(app, gate_with(default=anyone))
    assert drive(app, scope_of("/m/x"), BODYLESS).status == 200
    if late == "guard":
        guard(inner, ADMIN)
    elif late == "requires":
        requires(ADMIN)(endpoint)
    elif late == "an equal Mount":
        app.router.routes[0] = guard(Mount("/m", inner), ADMIN)
    else:
        inner.default = requires(ADMIN)(answering("default", ran))
        assert drive(app, scope_of("/m/missing")).status == 401
        assert ran == ["x"]
        return
    assert drive(app, scope_of("/m/x")).status == 401
    assert drive(app, admin("/m/x"), BODYLESS).status == 200
    assert ran == ["x", "x"]


def test_an_included_route_that_is_replaced_by_an_equal_one_is_judged_by_the_new() -> None:
    """Starlette's routes are equal where path, endpoint and methods are; their dependencies may differ."""
    ran: list[str] = []
    router = APIRouter()
    endpoint = ran_by("x", ran)
    router.add_api_route("/x", endpoint)
    app = FastAPI()
    app.include_router(router)
    guarded(app, gate_with(default=anyone))
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    router.routes.clear()
    router.add_api_route("/x", endpoint, dependencies=[needs(ADMIN)])
    assert drive(app, scope_of("/x")).status == 401
    assert drive(app, admin("/x"), BODYLESS).status == 200
    assert ran == ["x", "x"]


def test_a_list_of_routes_that_is_put_in_the_place_of_another_is_noticed() -> None:
    """Of an app and of an included router."""
    ran: list[str] = []
    router = APIRouter()
    router.add_api_route("/x", public(ran_by("old", ran)))
    app = FastAPI()
    app.include_router(router)
    guarded(app, gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    other = APIRouter()
    other.add_api_route("/x", requires(ADMIN)(ran_by("new", ran)))
    router.routes = other.routes
    router.add_api_route("/y", public(ran_by("y", ran)))
    assert drive(app, scope_of("/x")).status == 401
    app.router.routes = []
    assert drive(app, scope_of("/x")).status == 404
    assert ran == ["old"]


# ---- endpoints in other shapes


class Marked(HTTPEndpoint):
    """An endpoint with a mark on one of its methods."""

    ran: list[str]

    async def get(self, request: Request) -> Response:
        self.ran.append("get")
        return PlainTextResponse("get")

    @requires(ADMIN)
    async def delete(self, request: Request) -> Response:
        self.ran.append("delete")
        return PlainTextResponse("delete")


SHAPES: dict[str, Any] = {
    "a route": lambda endpoint: [Route("/e", endpoint)],
    "a partial": lambda endpoint: [Route("/e", functools.partial(endpoint))],
    "a mount": lambda endpoint: [Mount("/e", endpoint)],
}


@pytest.mark.parametrize("shape", [*SHAPES, "default"])
def test_marks_on_methods_hold_in_whatever_place_a_class_stands(shape: str) -> None:
    """A partial, a Mount or a router's default runs the same class by the same methods."""
    ran: list[str] = []
    endpoint = type("Endpoint", (Marked,), {"ran": ran})
    app: ASGIApp = Router(default=endpoint) if shape == "default" else Starlette(routes=SHAPES[shape](endpoint))
    app = wrapped(app, gate_with(default=authenticated))
    path = "/e/" if shape == "a mount" else "/e"
    assert drive(app, scope_of(path, "DELETE", headers=bearer())).status == 403
    assert ran == []
    assert drive(app, scope_of(path, headers=bearer()), BODYLESS).status == 200
    assert drive(app, admin(path, "DELETE"), BODYLESS).status == 200
    assert ran == ["get", "delete"]


@pytest.mark.parametrize("shape", ["dispatch", "__call__ of an instance", "__call__ mounted", "__call__ in FastAPI"])
def test_marks_on_what_enters_an_endpoint_hold_for_all_of_it(shape: str) -> None:
    """A mark on `dispatch` or `__call__` is none on a method of HTTP: everything goes through there."""
    ran: list[str] = []

    class Dispatched(HTTPEndpoint):
        @requires(ADMIN)
        async def dispatch(self) -> None:
            ran.append("dispatch")
            await PlainTextResponse("x")(self.scope, self.receive, self.send)

    class Called:
        @requires(ADMIN)
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await answering("called", ran)(scope, receive, send)

    class ForFastApi:
        @requires(ADMIN)
        async def __call__(self, request: Request) -> Response:
            ran.append("fastapi")
            return PlainTextResponse("x")

    app: Starlette = Starlette()
    if shape == "dispatch":
        app.router.routes.append(Route("/e", Dispatched))
    elif shape == "__call__ of an instance":
        app.router.routes.append(Route("/e", Called()))
    elif shape == "__call__ mounted":
        app.router.routes.append(Mount("/e", Called()))
    else:
        app = FastAPI()
        app.add_api_route("/e", ForFastApi())
    app = guarded(app, gate_with(default=authenticated))
    path = "/e/" if "mounted" in shape else "/e"
    assert drive(app, scope_of(path, headers=bearer())).status == 403
    assert ran == []
    assert drive(app, admin(path), BODYLESS).status == 200
    assert len(ran) == 1


@pytest.mark.parametrize("shape", ["default", "endpoint"])
@pytest.mark.parametrize("where", ["guard", "mark"])
def test_an_app_that_a_router_falls_back_to_is_looked_into(shape: str, where: str) -> None:
    """An app may be the default of a router, or the endpoint of a route: its guards and marks hold there, too."""
    ran: list[str] = []
    endpoint = ran_by("x", ran)
    inner = Starlette(routes=[Route("/legacy/x", requires(ADMIN)(endpoint) if where == "mark" else endpoint)])
    if where == "guard":
        guard(inner, ADMIN)
    router = Router(default=inner) if shape == "default" else Router([Route("/legacy/{rest:path}", inner)])
    app = wrapped(router, gate_with(default=authenticated))
    assert drive(app, scope_of("/legacy/x")).status == 401
    assert drive(app, scope_of("/legacy/x", headers=bearer())).status == 403
    assert ran == []
    assert drive(app, admin("/legacy/x"), BODYLESS).status == 200
    assert ran == ["x"]


# ---- groups


class Metrics:
    """Middleware that answers one path by itself."""

    def __init__(self, app: ASGIApp, ran: list[str]) -> None:
        self.app = app
        self.ran = ran

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/metrics"):
            await answering("metrics", self.ran)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


@pytest.mark.parametrize("kind", ["mount", "sub-app", "wrapped router", "whole app"])
def test_a_guard_holds_for_all_that_is_let_into_its_group(kind: str) -> None:
    """What the middleware of a guarded app answers by itself is in the group, though no route takes it."""
    ran: list[str] = []
    sub = Starlette(routes=[Route("/x", ran_by("x", ran))])
    sub.add_middleware(Metrics, ran)
    if kind == "mount":
        app: ASGIApp = Starlette(routes=[guard(Mount("/m", sub), ADMIN)])
    elif kind == "sub-app":
        app = Starlette(routes=[Mount("/m", guard(sub, ADMIN))])
    elif kind == "wrapped router":
        router = Metrics(Router([Route("/x", ran_by("x", ran))]), ran)
        app = Starlette(routes=[guard(Mount("/m", router), ADMIN)])
    else:
        app = guard(sub, ADMIN)
    path = "/metrics" if kind == "whole app" else "/m/metrics"
    app = wrapped(app, gate_with())
    assert drive(app, scope_of(path)).status == 401
    assert ran == []
    assert drive(app, admin(path), BODYLESS).status == 200
    assert ran == ["metrics"]


def test_a_group_that_stands_under_nothing_answers_unknown_paths_by_itself() -> None:
    """Without guards the app's own 404 follows, as it does outside of groups."""
    app = guarded(Starlette(routes=[Mount("/m", FastAPI())]), gate_with())
    answer = drive(app, scope_of("/m/missing"), BODYLESS)
    assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}')


# ---- two gates


def test_each_gate_holds_what_it_knows() -> None:
    """Where the outer gate cannot look into the inner app, the inner gate alone holds its routes."""
    ran: list[str] = []
    inner = wrapped(Starlette(routes=[Route("/x", requires(ADMIN)(ran_by("x", ran)))]), gate_with())

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(scope, receive, send)

    app = guarded(Starlette(routes=[Mount("/m", hidden)]), gate_with(default=anyone))
    assert drive(app, scope_of("/m/x")).status == 401
    assert drive(app, admin("/m/x"), BODYLESS).status == 200
    assert ran == ["x"]


def test_a_gate_that_only_reports_holds_nothing_up() -> None:
    """A mismatch is written down, and the request goes on."""
    ran: list[str] = []

    app = by_version(ran)
    app.add_middleware(AsksForTwo)
    app = guarded(app, gate_with(dangerously_report_only=True))
    with listening() as events:
        assert drive(app, scope_of("/x"), BODYLESS).status == 200
    assert ran == ["two"]
    assert events[0]["reason"] == "route_mismatch"


def test_concurrent_requests_are_each_held_to_their_own_decision() -> None:
    """Fifty callers at once, half of them without the role: nobody runs by another's ticket."""
    ran: list[str] = []

    async def slow(request: Request) -> Response:
        await asyncio.sleep(0)
        ran.append(request.user.sub)
        return PlainTextResponse(request.user.sub)

    app = AuthzMiddleware(Starlette(routes=[Route("/x", requires(ADMIN)(slow))]), gate=gate_with())

    async def all_at_once() -> list[Answer]:
        scopes = [
            scope_of("/x", headers=bearer(f"u{number}", roles=["admin"] if number % 2 else [])) for number in range(50)
        ]
        return await asyncio.gather(*(connect(app, scope, BODYLESS) for scope in scopes))

    answers = asyncio.run(all_at_once())
    assert [answer.status for answer in answers] == [403, 200] * 25
    assert sorted(ran) == sorted(f"u{number}" for number in range(50) if number % 2)


def test_a_custom_api_route_class_is_held_as_it_is() -> None:
    """A route class with a handler of its own is common in FastAPI, and runs as before."""
    ran: list[str] = []

    class Timed(APIRoute):
        def get_route_handler(self) -> Any:  # noqa: ANN401 - FastAPI's own
            original = super().get_route_handler()

            async def timed(request: Request) -> Response:
                ran.append("timed")
                response: Response = await original(request)
                return response

            return timed

    router = APIRouter(route_class=Timed)
    router.add_api_route("/x", requires(authenticated)(ran_by("x", ran)))
    app = FastAPI()
    app.include_router(router)
    guarded(app, gate_with())
    assert drive(app, scope_of("/x")).status == 401
    assert drive(app, scope_of("/x", headers=bearer()), BODYLESS).status == 200
    assert ran == ["timed", "x"]


# ---- apps that are more than they look


class Beside:
    """Middleware that answers some paths by an app of its own."""

    def __init__(self, app: ASGIApp, router: ASGIApp) -> None:
        self.app = app
        self.router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.router if scope.get("path") == "/healthz" else self.app)(scope, receive, send)


@pytest.mark.parametrize("place", ["add_middleware", "around", "mount"])
def test_an_attribute_named_router_is_not_taken_for_the_apps_router(place: str) -> None:
    """Middleware may hold what it likes; the routes are those of the app that it wraps, and their policies hold."""
    ran: list[str] = []

    def health(scope: Scope, receive: Receive, send: Send) -> Any:  # noqa: ANN401 - an awaitable
        return answering("health", ran)(scope, receive, send)

    api = Starlette(routes=[Route("/secret", requires(ADMIN)(ran_by("secret", ran))), Route("/x", ran_by("x", ran))])
    app: ASGIApp
    if place == "add_middleware":
        api.add_middleware(Beside, health)
        app = guarded(api, gate_with())
    elif place == "around":
        app = wrapped(Beside(api, health), gate_with())
    else:
        app = guarded(Starlette(routes=[Mount("/m", Beside(api, health))]), gate_with())
    prefix = "/m" if place == "mount" else ""
    assert drive(app, scope_of(f"{prefix}/secret")).status == 401
    assert drive(app, scope_of(f"{prefix}/x")).reason == "no_policy"
    assert drive(app, admin(f"{prefix}/secret"), BODYLESS).status == 200
    assert ran == ["secret"]


def test_an_app_that_middleware_holds_besides_is_a_mistake() -> None:
    """Nobody can tell when it runs, so that its marks would be for nothing: the message names the ways out."""
    legacy = Starlette(routes=[Route("/healthz", requires(ADMIN)(ran_by("legacy", [])))])
    app = wrapped(Beside(Starlette(), legacy), gate_with())
    answer = drive(app, scope_of("/healthz"))
    assert answer.reason == "misconfigured"
    with listening() as events:
        drive(app, scope_of("/healthz"))
    assert "Beside holds it besides the app that it wraps" in str(events[0]["hint"])


def test_an_app_class_that_dispatches_by_itself_is_one_endpoint() -> None:
    """What a class of apps does in its own `__call__` cannot be told; at the top it has to be said what is meant."""
    ran: list[str] = []

    class Multi(Starlette):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await answering("multi", ran)(scope, receive, send)

    inner = Multi(routes=[Route("/x", public(ran_by("x", ran)))])
    app = guarded(Starlette(routes=[Mount("/m", inner)]), gate_with())
    assert drive(app, scope_of("/m/x")).reason == "no_policy"
    assert drive(wrapped(inner, gate_with()), scope_of("/x")).reason == "misconfigured"
    assert ran == []


@pytest.mark.parametrize("shape", ["endpoint", "function", "class", "FastAPI", "default", "mount"])
def test_an_endpoint_that_holds_an_app_is_itself_and_not_that_app(shape: str) -> None:
    """A view may keep the app at hand; what runs is the view, under its own marks."""
    ran: list[str] = []
    other = Starlette(routes=[Route("/e", public(ran_by("other", ran)))])

    @requires(ADMIN)
    class Tool:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await answering("tool", ran)(scope, receive, send)

    class View:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, request: Request) -> Response:
            ran.append("view")
            return PlainTextResponse("view")

    @requires(ADMIN)
    class Class(HTTPEndpoint):
        router = APIRouter()
        app = other

        async def get(self, request: Request) -> Response:
            ran.append("class")
            return PlainTextResponse("class")

    function = requires(ADMIN)(ran_by("function", ran))
    function.router = Router()  # type: ignore[attr-defined]  # as some decorators do
    app: ASGIApp
    if shape == "FastAPI":
        app = FastAPI()
        app.add_api_route("/e", requires(ADMIN)(View(other)))
    elif shape == "default":
        app = Router(default=Tool(other))
    else:
        routes = {
            "endpoint": Route("/e", Tool(other)),
            "function": Route("/e", function),
            "class": Route("/e", Class),
            "mount": Mount("/e", Tool(other)),
        }
        app = Starlette(routes=[routes[shape]])
    app = wrapped(app, gate_with())
    path = "/e/none" if shape == "mount" else "/e"
    assert drive(app, scope_of(path)).status == 401
    assert ran == []
    assert drive(app, admin(path), BODYLESS).status == 200
    assert len(ran) == 1


@pytest.mark.parametrize("what", ["router of an app", "app of a middleware", "app at the top"])
def test_what_leads_to_a_router_is_looked_at_each_time(what: str) -> None:
    """Another router in its place has no door; it is found before anything runs in there."""
    ran: list[str] = []
    sub = Starlette(routes=[Route("/x", public(ran_by("old", ran)))])
    other = Router([Route("/x", requires(ADMIN)(ran_by("new", ran)))])
    between = Metrics(sub, ran)
    if what == "app at the top":
        app: ASGIApp = wrapped(between, gate_with())
        path = "/x"
    else:
        app = guarded(Starlette(routes=[Mount("/s", between if "middleware" in what else sub)]), gate_with())
        path = "/s/x"
    if what != "router of an app":
        assert drive(app, scope_of(path), BODYLESS).status == 200
        between.app = other
    else:
        assert drive(app, scope_of("/none")).status == 404
        sub.router = other
    assert drive(app, scope_of(path)).status == 401
    assert "new" not in ran
    assert drive(app, admin(path), BODYLESS).status == 200
    assert ran[-1] == "new"


@pytest.mark.parametrize("how", ["__getattr__", "__init__", "class, later"])
def test_a_class_that_makes_its_methods_as_it_goes_is_judged_for_all(how: str) -> None:
    """Where nobody can know which methods there are, none is taken for a 405."""
    ran: list[str] = []

    async def handler(*args: object) -> Response:
        ran.append("handler")
        return PlainTextResponse("x")

    class ByGetattr(HTTPEndpoint):
        def __getattr__(self, name: str) -> object:
            if name == "post":
                return handler
            raise AttributeError(name)

    class ByInit(HTTPEndpoint):
        def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.post = handler
            super().__init__(scope, receive, send)

    class Later(HTTPEndpoint):
        pass

    kind: type[HTTPEndpoint] = {"__getattr__": ByGetattr, "__init__": ByInit, "class, later": Later}[how]
    app = guarded(Starlette(routes=[Route("/e", requires(ADMIN)(kind))]), gate_with())
    assert drive(app, scope_of("/e", "POST"), BODYLESS).status == (405 if how == "class, later" else 401)
    if how == "class, later":
        Later.post = handler  # type: ignore[attr-defined]  # that is the point
    assert drive(app, scope_of("/e", "POST")).status == 401
    assert ran == []
    assert drive(app, admin("/e", "POST"), BODYLESS).status == 200
    assert ran == ["handler"]


def test_a_guard_on_an_app_holds_where_its_router_is_included() -> None:
    """A group stays one, mounted or included."""
    ran: list[str] = []
    api = FastAPI()
    api.add_api_route("/x", public(ran_by("x", ran)))
    guard(api, ADMIN)
    main = FastAPI()
    main.include_router(api.router, prefix="/i")
    guarded(main, gate_with())
    assert drive(main, scope_of("/i/x")).status == 401
    assert drive(main, admin("/i/x"), BODYLESS).status == 200
    assert ran == ["x"]


@pytest.mark.parametrize("kind", ["route", "mount"])
def test_a_route_that_was_given_another_handler_is_not_taken_for_plain(kind: str) -> None:
    """What an instance does in its own way cannot be told from its class."""
    ran: list[str] = []
    elsewhere = Route("/x", requires(ADMIN)(ran_by("elsewhere", ran))).handle
    route = Route("/x", ran_by("x", ran)) if kind == "route" else Mount("/x", Router([Route("/", ran_by("x", ran))]))
    route.handle = elsewhere  # type: ignore[method-assign]  # that is the point
    app = guarded(Starlette(routes=[route]), gate_with())
    assert drive(app, scope_of("/x/" if kind == "mount" else "/x")).reason == "no_policy"
    assert ran == []


# ---- what works without a gate works behind it


def test_what_is_appended_to_an_included_router_is_served() -> None:
    """FastAPI itself notices it only where its routes are not in use yet; behind a gate they always are."""
    ran: list[str] = []
    router = APIRouter()
    router.add_api_route("/a", public(ran_by("a", ran)))
    app = FastAPI()
    app.include_router(router, prefix="/i")
    guarded(app, gate_with())
    assert drive(app, scope_of("/i/a"), BODYLESS).status == 200
    router.routes.append(Mount("/m", Router([Route("/q", public(ran_by("q", ran)))])))
    assert drive(app, scope_of("/i/m/q"), BODYLESS).status == 200
    router.routes.pop()
    assert drive(app, scope_of("/i/m/q")).status == 404
    assert drive(app, scope_of("/i/a"), BODYLESS).status == 200
    assert ran == ["a", "q", "a"]


def test_what_came_after_fastapi_looked_is_as_on_the_bare_app() -> None:
    """A mount that FastAPI does not serve is not served, and the start is not stopped for it."""
    ran: list[str] = []
    router = APIRouter()
    router.add_api_route("/a", public(ran_by("a", ran)))
    app = FastAPI()
    app.include_router(router)
    app.openapi()
    router.routes.append(Mount("/m", Router([Route("/q", public(ran_by("q", ran)))])))
    guarded(app, gate_with())
    assert drive(app, scope_of("/a"), BODYLESS).status == 200
    assert gate_with().coverage(app)[-1].path in {"/a", "/m/q"}


@pytest.mark.parametrize("place", ["mount", "route"])
def test_an_object_with_every_attribute_is_one_endpoint(place: str) -> None:
    """Mocks answer whatever they are asked for, for ever."""
    mock = AsyncMock()
    app = Starlette(routes=[Mount("/m", mock) if place == "mount" else Route("/m", mock)])
    app = guarded(app, gate_with())
    assert drive(app, scope_of("/m/" if place == "mount" else "/m")).reason == "no_policy"
    mock.assert_not_called()


@pytest.mark.parametrize("routes_of", ["hidden", "rules alone"])
def test_a_gate_that_only_reports_is_a_gate_for_its_doors(routes_of: str) -> None:
    """An enforcing gate further out that cannot look inside leaves the routers there to the inner one."""
    ran: list[str] = []
    inner = wrapped(Starlette(routes=[Route("/x", public(ran_by("x", ran)))]), gate_with(dangerously_report_only=True))
    app: ASGIApp
    if routes_of == "hidden":
        app = guarded(Starlette(routes=[Mount("/o", unwalkable(inner))]), gate_with(default=anyone))
    else:
        app = AuthzMiddleware(inner, gate=gate_with(default=anyone), routes_of=None)
    path = "/o/x" if routes_of == "hidden" else "/x"
    assert drive(app, scope_of(path), BODYLESS).status == 200
    assert ran == ["x"]


def test_copies_of_routes_are_held_for_themselves() -> None:
    """A copy of a route that stands behind a gate is another route, here or in another app."""
    ran: list[str] = []
    first = guarded(Starlette(routes=[Route("/x", requires(ADMIN)(ran_by("x", ran)))]), gate_with())
    assert drive(first, scope_of("/x")).status == 401
    copied = [copy.copy(route) for route in first.routes]
    second = guarded(Starlette(routes=copied), gate_with())
    assert drive(second, scope_of("/x")).status == 401
    assert drive(second, admin("/x"), BODYLESS).status == 200
    assert drive(first, admin("/x"), BODYLESS).status == 200
    assert ran == ["x", "x"]
    assert drive(Starlette(routes=copied), scope_of("/x")).reason == "route_mismatch"


def test_a_router_that_is_mounted_and_included_is_served_both_ways(tmp_path: Path) -> None:
    """FastAPI makes routes of its own of what it includes, and copies some."""
    ran: list[str] = []
    (tmp_path / "index.html").write_text("hello")
    router = APIRouter()
    router.routes.append(Mount("/st", Router([Route("/q", public(ran_by("q", ran)))])))
    router.frontend("/f", directory=tmp_path)
    app = FastAPI()
    app.mount("/m", router)
    app.include_router(router, prefix="/i")
    guarded(app, gate_with(default=anyone))
    for prefix in ("/m", "/i"):
        assert drive(app, scope_of(f"{prefix}/st/q"), BODYLESS).status == 200, prefix
        assert drive(app, scope_of(f"{prefix}/f/index.html"), BODYLESS).body == b"hello", prefix
    assert ran == ["q", "q"]


def test_a_route_whose_app_is_a_method_is_served() -> None:
    """A bound method is another object each time it is looked up."""
    ran: list[str] = []

    class Own(BaseRoute):
        async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
            await answering("own", ran)(scope, receive, send)

        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return (Match.FULL, {}) if scope["path"] == "/own" else (Match.NONE, {})

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    app = guarded(Starlette(routes=[Own()]), gate_with(default=anyone))
    assert drive(app, scope_of("/own"), BODYLESS).status == 200
    assert ran == ["own"]


@pytest.mark.parametrize("outside", [False, True], ids=["add_middleware", "from outside"])
def test_an_app_that_asks_itself_is_decided_anew(outside: bool) -> None:  # noqa: FBT001 - a row
    """A handler may send a copy of its scope to the whole app: that is another request, under its own policy."""
    ran: list[str] = []
    holder: list[ASGIApp] = []

    async def batch(request: Request) -> Response:
        ran.append("batch")
        inner = await connect(holder[0], {**request.scope, "path": request.query_params["path"]}, BODYLESS)
        return PlainTextResponse(str(inner.status))

    routes = [
        Route("/batch", requires(authenticated)(batch)),
        Route("/a", requires(authenticated)(ran_by("a", ran))),
        Route("/closed", requires(ADMIN)(ran_by("closed", ran))),
    ]
    app = Starlette(routes=routes)
    holder.append(wrapped(app, gate_with()) if outside else guarded(app, gate_with()))

    def asked(path: str) -> bytes:
        scope = scope_of("/batch", headers=bearer(), query_string=f"path={path}".encode())
        return drive(holder[0], scope, BODYLESS).body

    assert asked("/a") == b"200"
    assert asked("/closed") == b"403"
    assert ran == ["batch", "a", "batch"]


def test_a_router_with_a_404_of_its_own_answers_by_it() -> None:
    """A subclass may say `not_found` in its own words: that is its 404, and no endpoint."""

    class Polite(Router):
        async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("sorry", status_code=404)(scope, receive, send)

    app = wrapped(Polite([Route("/x", requires(ADMIN.concealed())(ran_by("x", [])))]), gate_with())
    assert drive(app, scope_of("/none"), BODYLESS).body == b"sorry"
    assert drive(app, scope_of("/x"), BODYLESS).body == b"sorry"
