"""The door: a router runs nothing but the very request that a gate decided on."""

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import ConfigurationError, Requirement, Rule, any_role, anyone, deny, public, requires, scopes
from authz403.asgi import AuthzMiddleware
from tests.apps_made import (
    BODYLESS,
    CONNECT,
    FRAMEWORKS,
    add_route,
    answering,
    bearer,
    client_of,
    drive,
    gate_with,
    guarded,
    listening,
    ran_by,
    scope_of,
    unwalkable,
    wrapped,
)

both = pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda kind: kind.__name__)


class Changes:
    """Middleware inside the gate that changes members of the scope, in a copy or in place."""

    def __init__(self, app: ASGIApp, changes: dict[str, object], *, in_place: bool = False) -> None:
        self.app = app
        self.in_place = in_place
        self.changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        changed = scope if self.in_place else dict(scope)
        changed.update(self.changes)
        await self.app(changed, receive, send)


def app_of(framework: type[Starlette], ran: list[str]) -> Starlette:
    """Return an app with an open and a closed endpoint, for GET and POST, and a closed one under a mount."""

    async def socket(websocket: WebSocket) -> None:
        ran.append("socket")
        await websocket.accept()

    app = framework()
    add_route(app, "/open", public(ran_by("open", ran)))
    add_route(app, "/api/open", public(ran_by("api open", ran)))
    add_route(app, "/open", requires(scopes("w"))(ran_by("write", ran)), ["POST"])
    add_route(app, "/closed", requires(any_role("admin"))(ran_by("closed", ran)))
    app.router.routes.append(WebSocketRoute("/open", requires(any_role("admin"))(socket)))
    app.router.routes.append(Mount("/sub", Router([Route("/open", public(ran_by("sub open", ran)))])))
    return app


CHANGES: dict[str, tuple[str, dict[str, object]]] = {
    "path": ("/open", {"path": "/closed"}),
    "path to an open one": ("/open", {"path": "/api/open"}),
    "method": ("/open", {"method": "POST"}),
    "method in lower case": ("/open", {"method": "get"}),
    "HEAD": ("/open", {"method": "HEAD"}),
    "root_path": ("/api/open", {"root_path": "/api"}),
    "root_path of a mount": ("/sub/open", {"root_path": "/sub"}),
}


@both
@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
@pytest.mark.parametrize(("path", "changes"), CHANGES.values(), ids=CHANGES.keys())
def test_a_request_that_changed_after_the_decision_runs_nothing(
    framework: type[Starlette],
    path: str,
    changes: dict[str, object],
    in_place: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Path, method and root path are those of the decision, or the answer is 500 `route_mismatch`."""
    ran: list[str] = []
    app = app_of(framework, ran)
    app.add_middleware(Changes, changes, in_place=in_place)
    guarded(app, gate_with())
    with listening() as events:
        answer = drive(app, scope_of(path))
    assert (answer.status, answer.header("authz-reason"), ran) == (500, "route_mismatch", [])
    assert answer.body_was_read is False
    [event] = events
    assert (event["event"], event["reason"], event["status"]) == ("authz.error", "route_mismatch", 500)
    assert "sees another request than was decided on" in str(event["hint"])


@both
def test_a_root_path_that_leaves_the_routers_path_as_it_was_passes(framework: type[Starlette]) -> None:
    """What the routers see is what was decided on: a prefix for absolute URLs changes nothing of that."""
    ran: list[str] = []
    app = app_of(framework, ran)
    app.add_middleware(Changes, {"root_path": "/gateway"})
    guarded(app, gate_with())
    assert drive(app, scope_of("/open"), BODYLESS).status == 200
    assert ran == ["open"]


@both
def test_a_request_that_became_a_handshake_runs_nothing(framework: type[Starlette]) -> None:
    """What was decided as HTTP is not run as a WebSocket."""
    ran: list[str] = []
    app = app_of(framework, ran)
    app.add_middleware(
        Changes, {"type": "websocket", "subprotocols": [], "extensions": {"websocket.http.response": {}}}
    )
    guarded(app, gate_with())
    answer = drive(app, scope_of("/open"), CONNECT)
    assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


@both
def test_a_handshake_that_became_a_request_runs_nothing(framework: type[Starlette]) -> None:
    """And the other way round."""
    ran: list[str] = []
    app = app_of(framework, ran)
    app.add_middleware(Changes, {"type": "http", "method": "GET"})
    guarded(app, gate_with())
    answer = drive(app, scope_of("/open", kind="websocket", headers=bearer(roles=["admin"])), BODYLESS)
    assert ran == []
    assert 500 in [message.get("status") for message in answer.messages]


@both
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"query_string": b"a=b"},
        {"client": None},
        {"raw_path": b"/closed"},
        {"headers": [(b"host", b"else")]},
        {"state": {}},
        {"path_params": {"tenant": "evil"}},
    ],
    ids=["a copy", "query", "client", "raw_path", "headers", "state", "path_params"],
)
def test_other_changes_pass_the_door(framework: type[Starlette], changes: dict[str, object]) -> None:
    """Middleware may copy the scope and change what no decision rests on."""
    ran: list[str] = []
    app = app_of(framework, ran)
    app.add_middleware(Changes, changes)
    guarded(app, gate_with())
    assert drive(app, scope_of("/open"), BODYLESS).status == 200
    assert drive(app, scope_of("/sub/open"), BODYLESS).status == 200
    assert ran == ["open", "sub open"]


def test_the_host_counts_where_a_host_route_was_walked() -> None:
    """Another Host header would lead to another route."""
    ran: list[str] = []
    admin = Router([Route("/x", requires(any_role("admin"))(ran_by("admin", ran)))])
    app = Starlette(routes=[Host("admin.example", admin), Route("/x", public(ran_by("open", ran)))])
    app.add_middleware(Changes, {"headers": [(b"host", b"admin.example")]})
    guarded(app, gate_with())
    answer = drive(app, scope_of("/x", headers={"Host": "else.example"}))
    assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


def test_the_host_counts_where_what_stands_behind_it_has_no_door() -> None:
    """An app that cannot be walked has no door of its own; the door before the Host routes sees the change."""
    ran: list[str] = []
    routes = [Host("admin.example", answering("admin", ran)), Route("/x", public(ran_by("open", ran)))]
    app = Starlette(routes=routes)
    app.add_middleware(Changes, {"headers": [(b"host", b"admin.example")]})
    guarded(app, gate_with())
    answer = drive(app, scope_of("/x", headers={"Host": "else.example"}))
    assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


@both
def test_base_http_middleware_and_its_changes_meet_the_door(framework: type[Starlette]) -> None:
    """The habit of rewriting `request.scope["path"]` in a BaseHTTPMiddleware opens nothing."""
    ran: list[str] = []

    class Rewrites(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            if request.query_params.get("rewrite"):
                request.scope["path"] = "/closed"
            return await call_next(request)

    app = app_of(framework, ran)
    app.add_middleware(Rewrites)
    guarded(app, gate_with())
    client = client_of(app)
    assert client.get("/open").status_code == 200
    refused = client.get("/open?rewrite=1")
    assert (refused.status_code, refused.json()["reason"]) == (500, "route_mismatch")
    assert ran == ["open"]


@pytest.mark.parametrize("kind", ["mount middleware", "router middleware", "app around", "app's own"])
def test_a_change_on_the_way_to_a_sub_router_meets_its_door(kind: str) -> None:
    """Every router that was walked has its door, inside its own middleware."""
    ran: list[str] = []
    routes = [
        Route("/open", public(ran_by("open", ran))),
        Route("/closed", requires(scopes("s"))(ran_by("closed", ran))),
    ]
    rewrite = Middleware(Changes, {"path": "/sub/closed"})
    mounts = {
        "mount middleware": Mount("/sub", routes=routes, middleware=[rewrite]),
        "router middleware": Mount("/sub", Router(routes, middleware=[rewrite])),
        "app around": Mount("/sub", Changes(Starlette(routes=routes), {"path": "/sub/closed"})),
        "app's own": Mount("/sub", Starlette(routes=routes, middleware=[rewrite])),
    }
    app = guarded(Starlette(routes=[mounts[kind]]), gate_with())
    answer = drive(app, scope_of("/sub/open"))
    assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


@both
@pytest.mark.parametrize("kind", ["the router", "a sub-app", "the app without its gate"])
def test_a_router_that_is_reached_without_a_gate_runs_nothing(framework: type[Starlette], kind: str) -> None:
    """Once walked, a router is reached through a gate alone, by whatever way."""
    ran: list[str] = []
    sub = framework()
    add_route(sub, "/x", public(ran_by("x", ran)))
    app = framework()
    add_route(app, "/x", public(ran_by("x", ran)))
    app.router.routes.append(Mount("/sub", sub))
    gate = wrapped(app, gate_with())
    assert drive(gate, scope_of("/x"), BODYLESS).status == 200
    ways: dict[str, ASGIApp] = {"the router": app.router, "a sub-app": sub, "the app without its gate": app}
    with listening() as events:
        answer = drive(ways[kind], scope_of("/x"))
        closed = drive(ways[kind], scope_of("/x", kind="websocket"))
    assert (answer.status, answer.reason) == (500, "route_mismatch")
    assert closed.messages == [{"type": "websocket.close", "code": 1008}]
    assert ran == ["x"]
    assert [event["reason"] for event in events] == ["route_mismatch"] * 2
    assert "was reached without a gate" in str(events[0]["hint"])


def test_a_second_way_to_a_router_is_no_way_around_its_gate() -> None:
    """An app mounted in a guarded and in an unguarded one is closed from the unguarded side."""
    ran: list[str] = []
    shared = Router([Route("/x", public(ran_by("x", ran)))])
    gate = wrapped(Starlette(routes=[Mount("/a", shared)]), gate_with())
    unguarded = Starlette(routes=[Mount("/b", shared)])
    assert drive(gate, scope_of("/a/x"), BODYLESS).status == 200
    assert drive(unguarded, scope_of("/b/x")).reason == "route_mismatch"
    assert ran == ["x"]


def test_a_router_that_another_middleware_reaches_for_runs_nothing() -> None:
    """A request that was decided for one router does not run in another that was walked too."""
    ran: list[str] = []
    hidden = Router([Route("/x", requires(scopes("s"))(ran_by("hidden", ran)))])

    class Detour:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await hidden(scope, receive, send)

    routes = [Route("/x", public(ran_by("open", ran))), Mount("/hidden", hidden)]
    app = guarded(Starlette(routes=routes, middleware=[Middleware(Detour)]), gate_with())
    answer = drive(app, scope_of("/x"))
    assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


def test_the_tickets_of_nested_gates_are_all_compared() -> None:
    """A change between two gates is seen by the ticket of the outer one, though the inner decided on it."""
    ran: list[str] = []
    inner = Starlette(
        routes=[Route("/open", public(ran_by("open", ran))), Route("/closed", public(ran_by("closed", ran)))]
    )
    middle = Changes(wrapped(inner, gate_with()), {"path": "/closed"})
    outer = wrapped(middle, gate_with())
    answer = drive(outer, scope_of("/open"))
    assert (answer.status, answer.reason, ran) == (500, "route_mismatch", [])


def test_a_root_path_that_changes_between_two_gates_runs_nothing() -> None:
    """The outer gate decided on what a router sees under one root path; another one is another route."""
    ran: list[str] = []
    inner = Starlette(
        routes=[Route("/x/open", public(ran_by("open", ran))), Route("/open", ran_by("unmarked", ran))],
    )
    middle = Changes(wrapped(inner, gate_with(default=anyone)), {"root_path": "/sub/x"})
    outer = guarded(Starlette(routes=[Mount("/sub", middle)]), gate_with())
    answer = drive(outer, scope_of("/sub/x/open"))
    assert (answer.status, ran) == (500, [])


def test_a_router_whose_middleware_hides_it_stops_the_start() -> None:
    """Where no door can be put, the app does not start unguarded."""

    class Hides:
        def __init__(self, app: ASGIApp) -> None:
            self.hidden = unwalkable(app)

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.hidden(scope, receive, send)

    ran: list[str] = []
    router = Router([Route("/x", public(ran_by("x", ran)))], middleware=[Middleware(Hides)])
    gate = wrapped(router, gate_with())
    answer = drive(gate, {"type": "lifespan", "asgi": {}}, [{"type": "lifespan.startup"}])
    assert isinstance(answer.error, ConfigurationError)
    assert "door" in str(answer.error)
    assert drive(gate, scope_of("/x")).reason == "misconfigured"
    assert ran == []


def test_a_router_that_is_guarded_twice_has_one_door() -> None:
    """Meeting the same app again, or in another gate, adds nothing that slows it down or stands in the way."""
    ran: list[str] = []
    app = Starlette(routes=[Route("/x", public(ran_by("x", ran)))])
    first, second = wrapped(app, gate_with()), wrapped(app, gate_with())
    for gate in (first, second, first):
        assert drive(gate, scope_of("/x"), BODYLESS).status == 200
    app.router.routes.append(Route("/y", public(ran_by("y", ran))))
    assert drive(second, scope_of("/y"), BODYLESS).status == 200
    assert ran == ["x", "x", "x", "y"]


@both
def test_lifespan_passes_the_door(framework: type[Starlette]) -> None:
    """Start-up and shutdown reach the router of an app whose door is in place."""
    app = framework()
    add_route(app, "/x", public(ran_by("x", [])))
    guarded(app, gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    with client_of(app) as client:
        assert client.get("/x").status_code == 200


def test_reporting_only_lets_a_changed_request_pass_and_says_so() -> None:
    """`dangerously_report_only` refuses nothing, not even here; the event tells what would have been."""
    ran: list[str] = []
    app = app_of(Starlette, ran)
    app.add_middleware(Changes, {"path": "/closed"})
    guarded(app, gate_with(dangerously_report_only=True))
    with listening() as events:
        assert drive(app, scope_of("/open"), BODYLESS).status == 200
    assert ran == ["closed"]
    [event] = events
    assert (event["reason"], event["report_only"]) == ("route_mismatch", True)


def test_a_changed_request_on_a_concealed_route_is_still_told_as_a_mismatch() -> None:
    """A 500 is the server's own trouble and conceals nothing."""
    ran: list[str] = []
    app = Starlette(routes=[Route("/{x}", requires(scopes("s").concealed())(ran_by("x", ran)))])
    app.add_middleware(Changes, {"path": "/other"})
    guarded(app, gate_with())
    assert drive(app, scope_of("/x", headers=bearer(scope="s"))).reason == "route_mismatch"
    assert ran == []


def test_fastapi_routers_of_their_own_have_doors() -> None:
    """A mounted APIRouter is reached through the gate alone."""
    ran: list[str] = []
    router = APIRouter()
    router.add_api_route("/x", public(ran_by("x", ran)))
    app = FastAPI()
    app.mount("/sub", router)
    guarded(app, gate_with())
    assert drive(app, scope_of("/sub/x"), BODYLESS).status == 200
    assert drive(router, scope_of("/x")).reason == "route_mismatch"
    assert ran == ["x"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_what_answers_by_itself_inside_the_gate_needs_no_router(kind: str) -> None:
    """Middleware inside the gate may answer what the gate let in; no door is in its way."""

    class Answers:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 4000})
            else:
                await PlainTextResponse("ready")(scope, receive, send)

    app = AuthzMiddleware(Answers(app_of(Starlette, [])), gate=gate_with())
    answer = drive(app, scope_of("/open", kind=kind, headers=bearer(roles=["admin"])), CONNECT)
    if kind == "websocket":
        assert answer.messages == [{"type": "websocket.close", "code": 4000}]
    else:
        assert answer.body == b"ready"


@pytest.mark.parametrize("outer_default", [anyone, deny], ids=["outer lets in", "outer would refuse"])
def test_a_gate_that_only_reports_does_not_open_the_doors_of_a_gate_within(outer_default: Requirement) -> None:
    """The inner gate enforces: a request that changed behind it runs nothing."""
    ran: list[str] = []
    inner = Starlette(
        routes=[
            Route("/open", public(ran_by("open", ran))),
            Route("/closed", requires(scopes("s"))(ran_by("closed", ran))),
        ],
        middleware=[Middleware(Changes, {"path": "/sub/closed"})],
    )
    guarded(inner, gate_with())
    outer = Starlette(routes=[Mount("/sub", inner)])
    rules = [Rule("*", "/sub/**", outer_default)]
    guarded(outer, gate_with(rules=rules, dangerously_report_only=True))
    assert drive(outer, scope_of("/sub/open")).status == 500
    assert ran == []
