"""FastAPI: policies as dependencies, and the caller in an endpoint's signature."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Depends, FastAPI, WebSocket
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute

from authz403 import (
    ConfigurationError,
    Gate,
    Principal,
    Reason,
    Rule,
    anyone,
    authenticated,
    check,
    deny,
    networks,
    optional,
    public,
    requires,
    roles,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal, MaybePrincipal, needs
from tests.apps_made import (
    BODYLESS,
    CONNECT,
    answering,
    bearer,
    client_of,
    drive,
    gate_with,
    guarded,
    listening,
    scope_of,
    wrapped,
)

ALLOWED = True  # what a handler's own check found


async def whoami(user: CurrentPrincipal) -> dict[str, object]:
    """Answer with the caller."""
    return {"sub": user.sub, "scopes": sorted(user.scopes)}


async def perhaps(user: MaybePrincipal) -> str:
    """Answer with the caller, if any."""
    return "nobody" if user is None else user.sub


async def plain() -> str:
    """Answer."""
    return "ran"


def test_the_caller_is_a_parameter_of_the_endpoint() -> None:
    """`CurrentPrincipal` is the verified caller."""
    app = FastAPI()
    app.add_api_route("/me", requires(authenticated)(whoami))
    client = client_of(guarded(app, gate_with()))
    assert client.get("/me", headers=bearer("bob", scope="b a")).json() == {"sub": "bob", "scopes": ["a", "b"]}
    assert client.get("/me").status_code == 401


def test_an_open_endpoint_takes_the_caller_or_none() -> None:
    """`optional` asks for the caller, `public` looks at no token."""
    app = FastAPI()
    app.add_api_route("/maybe", perhaps, dependencies=[needs(optional)])
    app.add_api_route("/open", perhaps, dependencies=[needs(anyone)])
    client = client_of(guarded(app, gate_with()))
    assert client.get("/maybe").json() == "nobody"
    assert client.get("/maybe", headers=bearer("bob")).json() == "bob"
    assert client.get("/maybe", headers={"Authorization": "Bearer rubbish"}).status_code == 401
    assert client.get("/open", headers=bearer("bob")).json() == "nobody"
    assert client.get("/open", headers={"Authorization": "Bearer rubbish"}).json() == "nobody"


def test_a_caller_that_no_alternative_asked_for_is_asked_for_by_the_endpoint() -> None:
    """Where one rule of two lets nobody in particular pass, the endpoint that takes a caller answers 401."""
    app = FastAPI()
    app.add_api_route("/me", whoami, methods=["GET", "POST"])
    rules = [Rule("POST", "/me", authenticated), Rule("GET", "/me", anyone)]
    guarded(app, gate_with(rules=rules))
    with listening() as events:
        answer = drive(app, scope_of("/me"), BODYLESS)
    assert (answer.status, answer.reason) == (401, "missing_token")
    assert answer.header("www-authenticate") == 'Bearer realm="orders-api"'
    assert [(event["event"], event["reason"]) for event in events] == [("authz.denied", "missing_token")]
    assert drive(app, scope_of("/me", "POST", headers=bearer()), BODYLESS).status == 200


@pytest.mark.parametrize("place", ["app", "router", "include", "route", "nested dependency"])
def test_needs_holds_wherever_a_dependency_may_stand(place: str) -> None:
    """App, router, `include_router`, route, or inside another dependency: decided before the request is dispatched."""
    ran: list[str] = []
    wanted = needs(scopes("s"))
    nothing: list[object] = []

    async def other(_: Annotated[None, wanted]) -> None:
        ran.append("other")

    async def endpoint() -> str:
        ran.append("endpoint")
        return "ran"

    app = FastAPI(dependencies=[wanted] if place == "app" else nothing)  # type: ignore[arg-type]
    router = APIRouter(dependencies=[wanted] if place == "router" else nothing)  # type: ignore[arg-type]
    route = {"route": [wanted], "nested dependency": [Depends(other)]}.get(place, [])
    router.add_api_route("/x", endpoint, dependencies=route)
    app.include_router(router, prefix="/in", dependencies=[wanted] if place == "include" else nothing)  # type: ignore[arg-type]
    guarded(app, gate_with())
    assert drive(app, scope_of("/in/x")).status == 401
    answer = drive(app, scope_of("/in/x", headers=bearer()))
    assert (answer.status, answer.reason, answer.body_was_read) == (403, "insufficient_scope", False)
    assert ran == []
    assert drive(app, scope_of("/in/x", headers=bearer(scope="s")), BODYLESS).status == 200
    assert ran[-1] == "endpoint"


def test_needs_is_decided_before_the_body_is_read() -> None:
    """An uninvited upload costs nothing: the body of a refused request is never asked for."""

    async def upload(data: Annotated[bytes, Body(media_type="application/octet-stream")]) -> int:
        return len(data)

    app = FastAPI()
    app.add_api_route("/up", upload, methods=["POST"], dependencies=[needs(scopes("up"))])
    guarded(app, gate_with())
    answer = drive(app, scope_of("/up", "POST", headers={"Content-Length": "1000000000"}))
    assert (answer.status, answer.body_was_read) == (401, False)


def test_needs_and_marks_and_rules_all_hold() -> None:
    """What one asks for, another does not open."""
    app = FastAPI()
    app.add_api_route("/x", requires(roles("clerk"))(lambda: "x"), dependencies=[needs(scopes("s"))])
    app.add_api_route("/y", public(lambda: "y"), dependencies=[needs(scopes("s"))])
    guarded(app, gate_with(rules=[Rule("*", "/x", networks("127.0.0.0/8")), Rule("*", "/y", networks("10.0.0.0/8"))]))
    assert drive(app, scope_of("/x", headers=bearer(scope="s"))).reason == "role_required"
    assert drive(app, scope_of("/x", headers=bearer(roles=["clerk"]))).reason == "insufficient_scope"
    assert drive(app, scope_of("/x", headers=bearer(scope="s", roles=["clerk"])), BODYLESS).status == 200
    assert drive(app, scope_of("/y", headers=bearer(scope="s"))).reason == "ip_not_allowed"


def test_needs_holds_for_websockets() -> None:
    """A handshake is refused before the endpoint and its dependencies see it."""
    ran: list[str] = []

    async def chat(websocket: WebSocket, user: CurrentPrincipal) -> None:
        ran.append(user.sub)
        await websocket.accept()
        await websocket.close()

    router = APIRouter(dependencies=[needs(scopes("chat"))])
    router.add_api_websocket_route("/chat", chat)
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    guarded(app, gate_with())
    assert drive(app, scope_of("/v1/chat", kind="websocket")).messages == [{"type": "websocket.close", "code": 1008}]
    assert ran == []
    answer = drive(app, scope_of("/v1/chat", kind="websocket", headers=bearer(scope="chat")), CONNECT)
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]
    assert ran == ["ada"]


@pytest.mark.parametrize(
    "told",
    ["needs", "CurrentPrincipal", "MaybePrincipal", "check"],
)
def test_without_a_gate_nothing_that_relies_on_one_runs(told: str) -> None:
    """A forgotten middleware is a crash that names itself, never an open door."""
    ran: list[str] = []

    async def endpoint() -> None:
        ran.append("endpoint")

    async def with_current(user: CurrentPrincipal) -> None:
        ran.append("current")

    async def with_maybe(user: MaybePrincipal) -> None:
        ran.append("maybe")

    async def with_check() -> None:
        check(ALLOWED, Reason.NOT_OWNER)
        ran.append("check")

    app = FastAPI()
    endpoints: dict[str, Callable[..., Any]] = {
        "needs": endpoint,
        "CurrentPrincipal": with_current,
        "MaybePrincipal": with_maybe,
        "check": with_check,
    }
    app.add_api_route("/x", endpoints[told], dependencies=[needs(anyone)] if told == "needs" else [])
    answer = drive(app, scope_of("/x"), BODYLESS)
    assert isinstance(answer.error, ConfigurationError)
    assert told in str(answer.error)
    assert (answer.status, ran) == (500, [])


def test_needs_that_the_gate_did_not_see_raises() -> None:
    """With `routes_of=None` nobody read the routes, so that the dependency refuses to run unjudged."""
    ran: list[str] = []

    async def endpoint() -> None:
        ran.append("endpoint")

    app = FastAPI()
    app.add_api_route("/x", endpoint, dependencies=[needs(scopes("s"))])
    gate = AuthzMiddleware(app, gate=gate_with(default=anyone), routes_of=None)
    answer = drive(gate, scope_of("/x", headers=bearer(scope="s")), BODYLESS)
    assert isinstance(answer.error, ConfigurationError)
    assert "no gate decided about scopes('s')" in str(answer.error)
    assert (answer.status, ran) == (500, [])


def test_a_combined_requirement_in_needs_is_known_to_have_been_decided() -> None:
    """`&`, `|`, `~` and `.concealed()` in `needs`, alone and together with others, run for who may."""
    app = FastAPI(dependencies=[needs(authenticated & scopes("s")), needs(anyone)])
    app.add_api_route("/x", plain, dependencies=[needs(scopes("s") | roles("r")), needs(~roles("guest"))])
    app.add_api_route("/y", plain, dependencies=[needs(scopes("s").concealed())])
    guarded(app, gate_with())
    for path in ("/x", "/y"):
        assert drive(app, scope_of(path, headers=bearer(scope="s")), BODYLESS).status == 200
    assert drive(app, scope_of("/x", headers=bearer(scope="s", roles=["guest"]))).reason == "access_denied"
    assert drive(app, scope_of("/y", headers=bearer())).status == 404


def test_equal_requirements_in_needs_are_each_known() -> None:
    """Two `needs` of the same requirement object, and of equal ones, pass together."""
    wanted = scopes("s")
    app = FastAPI(dependencies=[needs(wanted), needs(scopes("s"))])
    app.add_api_route("/x", plain, dependencies=[needs(wanted)])
    guarded(app, gate_with())
    assert drive(app, scope_of("/x", headers=bearer(scope="s")), BODYLESS).status == 200


def test_needs_takes_nothing_but_a_requirement() -> None:
    """A role's name alone is a mistake, told at once."""
    with pytest.raises(ConfigurationError, match="requirement"):
        needs("admin")  # type: ignore[arg-type]  # what is being refused


def test_needs_of_an_app_does_not_reach_what_fastapi_gives_no_dependencies() -> None:
    """As with any dependency, docs and mounts are not covered; the default closes them."""
    app = FastAPI(dependencies=[needs(anyone)])
    sub = FastAPI()
    sub.add_api_route("/x", plain)
    app.mount("/sub", sub)
    app.add_api_route("/x", plain)
    guarded(app, gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    for path in ("/docs", "/openapi.json", "/sub/x"):
        assert drive(app, scope_of(path)).reason == "no_policy"


def test_the_schema_shows_neither_needs_nor_the_caller_as_parameters() -> None:
    """The documentation of an endpoint is the same with and without a policy."""
    app = FastAPI()
    app.add_api_route("/me", whoami, dependencies=[needs(authenticated)])
    operation = app.openapi()["paths"]["/me"]["get"]
    assert "parameters" not in operation
    assert "requestBody" not in operation


@pytest.mark.parametrize("kind", ["async", "sync", "dependency", "sync dependency"])
@pytest.mark.parametrize("outside", [False, True], ids=["add_middleware", "from outside"])
def test_check_refuses_from_handlers_and_dependencies(kind: str, outside: bool) -> None:  # noqa: FBT001
    """Ownership that only the handler knows is answered like any other refusal, also out of a worker thread."""
    ran: list[str] = []

    async def async_handler(owner: str, user: CurrentPrincipal) -> str:
        check(owner == user.sub, Reason.NOT_OWNER, owner=owner)
        ran.append("ran")
        return "yours"

    def sync_handler(owner: str, user: CurrentPrincipal) -> str:
        check(owner == user.sub, Reason.NOT_OWNER, owner=owner)
        ran.append("ran")
        return "yours"

    async def async_dependency(owner: str, user: CurrentPrincipal) -> None:
        check(owner == user.sub, Reason.NOT_OWNER, owner=owner)

    def sync_dependency(owner: str, user: CurrentPrincipal) -> None:
        check(owner == user.sub, Reason.NOT_OWNER, owner=owner)

    async def behind() -> str:
        ran.append("ran")
        return "yours"

    app = FastAPI()
    wanted = needs(authenticated)
    if kind == "async":
        app.add_api_route("/{owner}", async_handler, dependencies=[wanted])
    elif kind == "sync":
        app.add_api_route("/{owner}", sync_handler, dependencies=[wanted])
    else:
        call = async_dependency if kind == "dependency" else sync_dependency
        app.add_api_route("/{owner}", behind, dependencies=[wanted, Depends(call)])
    guarding = wrapped(app, gate_with()) if outside else guarded(app, gate_with())
    with listening() as events:
        answer = drive(guarding, scope_of("/eve", headers=bearer("bob")), BODYLESS)
    assert answer.error is None
    assert (answer.status, answer.reason, ran) == (403, "not_owner", [])
    assert [(event["event"], event["reason"], event["facts"]) for event in events] == [
        ("authz.denied", "not_owner", {"owner": "eve"})
    ]
    assert drive(guarding, scope_of("/bob", headers=bearer("bob")), BODYLESS).status == 200
    assert ran == ["ran"]


def test_every_caller_is_himself_among_many_at_once() -> None:
    """Two hundred callers in one event loop, each seen as nobody else."""

    async def me(request: Request, user: CurrentPrincipal) -> str:
        await asyncio.sleep(0)
        seen: Principal = request.user
        assert seen is user
        return user.sub

    app = FastAPI()
    app.add_api_route("/me", me, dependencies=[needs(authenticated)])
    client = guarded(app, gate_with())

    async def run() -> None:
        from tests.apps_made import connect  # noqa: PLC0415 - the loop is this test's own

        names = [f"caller-{number}" for number in range(200)]
        answers = await asyncio.gather(
            *(connect(client, scope_of("/me", headers=bearer(name)), BODYLESS) for name in names)
        )
        assert [answer.body.decode().strip('"') for answer in answers] == names

    asyncio.run(run())


@pytest.mark.parametrize("where", ["include_router", "APIRouter"])
def test_needs_of_a_router_reaches_starlettes_routes_in_it(where: str) -> None:
    """FastAPI runs no dependencies for a Route or a Mount in an included router; the gate does not leave them open."""
    ran: list[str] = []
    needed = [needs(deny)]

    def page(name: str) -> Callable[[Request], Response]:
        def run(request: Request) -> Response:
            ran.append(name)
            return Response()

        return run

    inner, router = APIRouter(), APIRouter(dependencies=needed if where == "APIRouter" else [])
    inner.routes.append(Route("/nested", page("nested")))
    router.routes.append(Route("/route", page("route")))
    router.routes.append(WebSocketRoute("/socket", answering("socket", ran)))
    router.routes.append(Mount("/mount", routes=[Route("/inside", page("inside"))]))
    router.add_api_route("/function", lambda: ran.append("function"))
    router.include_router(inner, prefix="/inner")
    app = FastAPI(openapi_url=None)
    app.include_router(router, prefix="/b", dependencies=needed if where == "include_router" else [])
    app.router.routes.append(Route("/beside", page("beside")))
    guarded_app = wrapped(app, Gate(default=anyone))
    for path in ("/b/route", "/b/mount/inside", "/b/function", "/b/inner/nested"):
        assert drive(guarded_app, scope_of(path)).status == 403, path
    assert ran == []
    drive(guarded_app, scope_of("/beside"))
    assert ran == ["beside"]
    rows = Gate(default=anyone).coverage(app)
    assert {row.policy for row in rows if row.path.startswith("/b/")} == {"marks: deny"}
