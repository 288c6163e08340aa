"""The latch: whatever a router chooses, it runs what was decided on or nothing."""

import asyncio
import functools
import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Mount, Route, Router
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
