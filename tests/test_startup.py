"""What shows only when a gate meets an app: every mistake at once, before anything is served."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import (
    ConfigurationError,
    Cors,
    Gate,
    Principal,
    Requirement,
    Rule,
    anyone,
    authenticated,
    csrf_protected,
    deny,
    guard,
    networks,
    optional,
    param,
    public,
    requirement,
    requires,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal, MaybePrincipal, needs
from authz403.identity import IdentitySource
from authz403.request import AccessRequest
from tests.apps_made import (
    BODYLESS,
    FRAMEWORKS,
    ORIGIN,
    TOKENS,
    answering,
    bearer,
    client_of,
    drive,
    gate_with,
    guarded,
    listening,
    ran_by,
    scope_of,
    wrapped,
)

both = pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda kind: kind.__name__)

LIFESPAN: Scope = {"type": "lifespan", "asgi": {}, "state": {}}


def mistakes_of(app: ASGIApp) -> list[str]:
    """Start the app and return the mistakes that stop it, each as text; none where it starts."""
    answer = drive(app, dict(LIFESPAN), [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    if answer.error is None:
        assert answer.messages[0] == {"type": "lifespan.startup.complete"}
        return []
    assert isinstance(answer.error, ConfigurationError)
    [message] = answer.messages
    assert message == {"type": "lifespan.startup.failed", "message": str(answer.error)}
    return [str(mistake) for mistake in answer.error.mistakes]


def one_route(path: str = "/x", wanted: Requirement = anyone, *, methods: list[str] | None = None) -> Starlette:
    """Return an app with one marked route."""
    return Starlette(routes=[Route(path, requires(wanted)(ran_by("x", [])), methods=methods)])


# ---- lifespan


@both
def test_a_sound_app_starts_and_stops_as_without_a_gate(framework: type[Starlette]) -> None:
    """Lifespan passes untouched: events in order, state as the app left it."""
    seen: list[str] = []

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        scope["state"]["ready"] = True
        while True:
            message = await receive()
            seen.append(message["type"])
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    app = framework(routes=[Route("/x", public(ran_by("x", [])))])
    inner: ASGIApp = app

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        await (run if scope["type"] == "lifespan" else inner)(scope, receive, send)

    scope = dict(LIFESPAN, state={})
    answer = drive(
        AuthzMiddleware(either, gate=gate_with(), routes_of=app),
        scope,
        [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}],
    )
    assert seen == ["lifespan.startup", "lifespan.shutdown"]
    assert [message["type"] for message in answer.messages] == [f"{name}.complete" for name in seen]
    assert scope["state"] == {"ready": True}
    assert "user" not in scope


@both
@pytest.mark.parametrize("outside", [False, True], ids=["add_middleware", "from outside"])
def test_a_failed_start_lists_every_mistake(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """One error with all that is wrong, in the message that stops a server, with field, value and why."""
    routes = [
        Route("/a", requires(param("nope", claim="sub"))(ran_by("a", []))),
        Mount("/m", Starlette(middleware=[Middleware(CORSMiddleware)])),
    ]
    rules = [Rule("GET", "/nowhere", anyone), Rule("POST", "/a", anyone)]
    app = framework(routes=routes)
    gate = gate_with(rules=rules)
    found = "\n".join(mistakes_of(wrapped(app, gate) if outside else guarded(app, gate)))
    for told in ("/nowhere", "rules[1]", "no path parameter nope", "CORSMiddleware"):
        assert told in found


def test_a_failed_start_is_said_after_the_server_asked() -> None:
    """The lifespan protocol: a message about the start-up answers `lifespan.startup`, and comes after it."""
    order: list[str] = []

    async def receive() -> Message:
        order.append("lifespan.startup")
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        order.append(message["type"])

    app = wrapped(one_route(), gate_with(rules=[Rule("GET", "/nowhere", anyone)]))
    with pytest.raises(ConfigurationError, match="/nowhere"):
        asyncio.run(app(dict(LIFESPAN), receive, send))
    assert order == ["lifespan.startup", "lifespan.startup.failed"]


def test_servers_are_stopped_by_the_failed_start() -> None:
    """TestClient, as a server, raises what lifespan reports."""
    app = guarded(one_route(), gate_with(rules=[Rule("GET", "/nowhere", anyone)]))
    with pytest.raises(ConfigurationError, match="/nowhere"), client_of(app):
        pytest.fail("the app started")


def test_without_lifespan_every_request_is_refused() -> None:
    """A server that sends no lifespan learns of it by requests: 500, nothing runs, again and again."""
    ran: list[str] = []
    app = guarded(
        Starlette(routes=[Route("/x", public(ran_by("x", ran)))]), gate_with(rules=[Rule("GET", "/nowhere", anyone)])
    )
    with listening() as events:
        answers = [drive(app, scope_of("/x")) for _ in range(2)]
        closed = drive(app, scope_of("/x", kind="websocket"))
    assert [(answer.status, answer.reason) for answer in answers] == [(500, "misconfigured")] * 2
    assert closed.messages == [{"type": "websocket.close", "code": 1008}]
    assert ran == []
    assert [event["reason"] for event in events] == ["misconfigured"] * 3
    assert all("/nowhere" in str(event["hint"]) for event in events)


# ---- gates and apps


def test_a_factory_makes_the_gate_once() -> None:
    """`gate=function` is called when the middleware meets the app, and no more."""
    made: list[Gate] = []

    def factory() -> Gate:
        made.append(gate_with())
        return made[-1]

    app = AuthzMiddleware(one_route(), gate=factory)
    assert made == []
    for _ in range(3):
        assert drive(app, scope_of("/x"), BODYLESS).status == 200
    assert len(made) == 1


@pytest.mark.parametrize("given", [None, "gate", dict], ids=["None", "text", "a function of something else"])
def test_what_is_no_gate_stops_the_start(given: object) -> None:
    """The mistake names the argument."""
    app = AuthzMiddleware(one_route(), gate=given)  # type: ignore[arg-type]  # what is being refused
    [mistake] = mistakes_of(app)
    assert mistake.startswith("gate = ")
    assert drive(app, scope_of("/x")).reason == "misconfigured"


def test_a_factory_that_fails_stops_the_start() -> None:
    """Servers swallow an exception in lifespan and serve on; the failed start has to be said in its message."""

    def factory() -> Gate:
        raise KeyError("AUDIENCE")

    app = AuthzMiddleware(one_route(), gate=factory)
    answer = drive(app, dict(LIFESPAN), [{"type": "lifespan.startup"}])
    assert [message["type"] for message in answer.messages] == ["lifespan.startup.failed"]
    assert "AUDIENCE" in answer.messages[0]["message"]
    assert drive(app, scope_of("/x")).reason == "misconfigured"


def test_the_mistakes_of_a_gate_made_by_a_factory_are_told() -> None:
    """A ConfigurationError of the gate itself goes out the same way."""

    def factory() -> Gate:
        return Gate(rules=[Rule("*", "/**", anyone), Rule("GET", "/x", deny)])

    found = mistakes_of(AuthzMiddleware(one_route(), gate=factory))
    assert len(found) == 1
    assert "never reached" in found[0]


# ---- rules that never apply


def test_routes_that_the_start_of_the_app_adds_are_there_for_rules() -> None:
    """The gate meets an app that has started; what does not fit then stops the server, and the app ends in order."""
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.router.routes.append(Route("/metrics", public(ran_by("metrics", []))))
        yield
        told.append("ended")

    good = wrapped(Starlette(lifespan=lifespan), gate_with(rules=[Rule("GET", "/metrics", anyone)]))
    assert mistakes_of(good) == []
    bad = wrapped(Starlette(lifespan=lifespan), gate_with(rules=[Rule("GET", "/nowhere", anyone)]))
    assert len(mistakes_of(bad)) == 1
    assert told == ["ended", "ended"]


@both
@pytest.mark.parametrize(
    ("rule", "applies"),
    [
        (Rule("GET", "/x", anyone), True),
        (Rule(["HEAD", "GET"], "/x", anyone), True),
        (Rule("*", "/**", anyone), True),
        (Rule("*", "/*", anyone), True),
        (Rule("GET", "/things/*/edit", anyone), True),
        (Rule("GET", "/things/5/edit", anyone), True),
        (Rule("GET", "/things/*/delete", anyone), False),
        (Rule("POST", "/x", anyone), False),
        (Rule("WEBSOCKET", "/x", anyone), False),
        (Rule("WEBSOCKET", "/socket", anyone), True),
        (Rule("GET", "/socket", anyone), False),
        (Rule("GET", "/X", anyone), False),
        (Rule("GET", "/x/", anyone), False),
        (Rule("GET", "/mount/inner", anyone), True),
        (Rule("GET", "/mount/other", anyone), False),
        (Rule("PURGE", "/opaque/a/b", anyone), True),
        (Rule("GET", "/opaque", anyone), True),
        (Rule("GET", "/files/a/b/c", anyone), True),
        (Rule("GET", "/onhost", anyone), True),
    ],
    ids=lambda value: str(value) if isinstance(value, Rule) else "",
)
def test_a_rule_that_no_route_can_match_stops_the_start(
    framework: type[Starlette],
    rule: Rule,
    applies: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """A misspelled path or a method that no route has would guard nothing; `shared=True` says it is for another app."""

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    def app() -> Starlette:
        made = framework(
            routes=[
                Route("/x", public(ran_by("x", []))),
                Route("/things/{id}/edit", public(ran_by("edit", []))),
                Route("/files/{name:path}", public(ran_by("file", []))),
                Mount("/mount", Starlette(routes=[Route("/inner", public(ran_by("inner", [])))])),
                Mount("/opaque", answering("opaque", [])),
                Host("host.example", Router([Route("/onhost", public(ran_by("host", [])))])),
            ]
        )
        made.router.add_websocket_route("/socket", socket)
        return made

    found = mistakes_of(wrapped(app(), gate_with(rules=[rule])))
    assert [mistake.split(" = ")[0] for mistake in found] == ([] if applies else ["rules[0]"])
    assert mistakes_of(wrapped(app(), gate_with(rules=[rule], shared=True))) == []


def test_a_class_based_endpoint_serves_every_method_to_a_rule() -> None:
    """Where a route leaves methods to its endpoint, a rule for any of them may apply."""

    class Anything:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("any")(scope, receive, send)

    app = Starlette(routes=[Route("/x", Anything())])
    assert mistakes_of(wrapped(app, gate_with(rules=[Rule("PURGE", "/x", anyone)]))) == []


def test_rules_for_an_app_that_is_not_looked_into_are_not_doubted() -> None:
    """With `routes_of=None` nobody knows what is served."""
    app = AuthzMiddleware(one_route(), gate=gate_with(rules=[Rule("GET", "/nowhere", anyone)]), routes_of=None)
    assert mistakes_of(app) == []


def test_rules_for_included_routes_and_defaults_apply() -> None:
    """A prefix of an inclusion is part of the path, and a default app takes all paths."""
    router = APIRouter(prefix="/v1")
    router.add_api_route("/x", public(ran_by("x", [])))
    app = FastAPI()
    app.include_router(router, prefix="/api")
    assert mistakes_of(wrapped(app, gate_with(rules=[Rule("GET", "/api/v1/x", anyone)]))) == []
    fallback = Starlette()
    fallback.router.default = answering("fallback", [])
    assert mistakes_of(wrapped(fallback, gate_with(rules=[Rule("GET", "/any/where", anyone)]))) == []


# ---- CORS inside


@both
@pytest.mark.parametrize("cors", [None, Cors(origins=[ORIGIN])], ids=["without cors=", "with cors="])
def test_a_cors_middleware_inside_names_both_ways_out(framework: type[Starlette], cors: Cors | None) -> None:
    """Inside, it never sees refusals and preflights; the error says to use `cors=` or to put it outside."""
    app = framework()
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN])
    found = mistakes_of(guarded(app, gate_with(cors=cors)))
    assert len(found) == 1
    assert "cors=Cors(...)" in found[0]
    assert "outside" in found[0]


class OwnCors(CORSMiddleware):
    """A subclass, as projects have them."""


def with_cors_in(place: str) -> ASGIApp:
    """Return an app with a CORSMiddleware in some place inside."""
    cors = Middleware(OwnCors, allow_origins=["*"])
    route = Route("/x", public(ran_by("x", [])))
    app = Starlette(routes=[route], middleware=[cors])
    places: dict[str, ASGIApp] = {
        "wrapped around the app": OwnCors(Starlette(routes=[route]), allow_origins=["*"]),
        "of a mount": Starlette(routes=[Mount("/m", routes=[route], middleware=[cors])]),
        "of a mounted app": Starlette(routes=[Mount("/m", app)]),
        "around a mounted app": Starlette(routes=[Mount("/m", OwnCors(Starlette(), allow_origins=["*"]))]),
        "around a mounted function": Starlette(routes=[Mount("/m", OwnCors(answering("m", []), allow_origins=["*"]))]),
        "of a router": Router([route], middleware=[cors]),
        "of a mounted router": Starlette(routes=[Mount("/m", Router([route], middleware=[cors]))]),
        "of a route": Starlette(routes=[Route("/x", public(ran_by("x", [])), middleware=[cors])]),
    }
    return places[place]


@pytest.mark.parametrize(
    "place",
    [
        "wrapped around the app",
        "of a mount",
        "of a mounted app",
        "around a mounted app",
        "around a mounted function",
        "of a router",
        "of a mounted router",
        "of a route",
    ],
)
def test_a_cors_middleware_is_found_wherever_it_is_inside(place: str) -> None:
    """Of the app, a mount, a router or a route: two middlewares that answer for CORS are one too many."""
    found = mistakes_of(AuthzMiddleware(with_cors_in(place), gate=gate_with()))
    assert [mistake.split(" = ")[0] for mistake in found] == ["CORSMiddleware"]


@both
def test_a_cors_middleware_outside_is_nobodys_mistake(framework: type[Starlette]) -> None:
    """Added after AuthzMiddleware it stands outside, and answers preflights before the gate."""
    app = framework(routes=[Route("/x", requires(authenticated)(ran_by("x", [])))])
    guarded(app, gate_with())
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_headers=["Authorization"])
    assert mistakes_of(app) == []
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    assert drive(app, scope_of("/x", "OPTIONS", headers=preflight)).status == 200
    refused = drive(app, scope_of("/x", headers={"Origin": ORIGIN}))
    assert (refused.status, refused.header("access-control-allow-origin")) == (401, ORIGIN)


# ---- identities


@pytest.mark.parametrize(
    ("rules", "wanted", "default", "told"),
    [
        ([Rule("GET", "/x", authenticated)], anyone, deny, "Rule(GET /x)"),
        ([], scopes("a"), deny, "/x"),
        ([], anyone, scopes("a"), "default"),
        ([], optional, deny, "/x"),
        ([], networks("10.0.0.0/8") | authenticated, deny, "/x"),
        ([], anyone, deny, None),
        ([Rule("GET", "/x", networks("10.0.0.0/8"))], anyone, deny, None),
        ([], requirement("own_rule", lambda _: True, anonymous=True), deny, None),
    ],
    ids=["rule", "mark", "default", "optional", "alternative", "public", "network", "own anonymous"],
)
def test_a_policy_about_callers_needs_a_source_of_identities(
    rules: list[Rule], wanted: Requirement, default: Requirement, told: str | None
) -> None:
    """A gate without tokens cannot say who calls, and names every policy that asks."""
    found = mistakes_of(wrapped(one_route("/x", wanted), Gate(rules=rules, default=default)))
    assert len(found) == (told is not None)
    assert told is None or f"tokens = None: {told} asks who the caller is" in found[0]


def test_marks_on_methods_of_a_class_ask_for_identities_too() -> None:
    """Every method is looked at."""

    class Things:
        @requires(scopes("w"))
        async def patch(self, request: Request) -> Response:
            return PlainTextResponse("patched")

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("any")(scope, receive, send)

    found = mistakes_of(wrapped(Starlette(routes=[Route("/x", Things)]), Gate()))
    assert len(found) == 1
    assert "/x asks who the caller is" in found[0]


def fastapi_with_principal(*marks: Requirement, needed: Requirement | None = None, maybe: bool = False) -> FastAPI:
    """Return an app with an endpoint that takes the caller."""

    async def current(user: CurrentPrincipal) -> str:
        return user.sub

    async def perhaps(user: MaybePrincipal) -> str:
        return "nobody" if user is None else user.sub

    endpoint = perhaps if maybe else current
    for mark in marks:
        requires(mark)(endpoint)
    app = FastAPI()
    app.add_api_route("/x", endpoint, dependencies=[needs(needed)] if needed is not None else [])
    return app


@pytest.mark.parametrize(
    ("app", "rules", "default", "starts"),
    [
        (fastapi_with_principal(authenticated), [], deny, True),
        (fastapi_with_principal(scopes("a") | scopes("b")), [], deny, True),
        (fastapi_with_principal(anyone, needed=authenticated), [], deny, True),
        (fastapi_with_principal(), [Rule("GET", "/x", authenticated)], deny, True),
        (fastapi_with_principal(anyone), [Rule("GET", "/**", authenticated)], deny, True),
        (fastapi_with_principal(), [], authenticated, True),
        (fastapi_with_principal(anyone), [], deny, False),
        (fastapi_with_principal(optional), [], deny, False),
        (fastapi_with_principal(networks("10.0.0.0/8")), [], deny, False),
        (fastapi_with_principal(networks("10.0.0.0/8") | authenticated), [], deny, False),
        (fastapi_with_principal(~networks("10.0.0.0/8")), [], deny, False),
        (fastapi_with_principal(), [Rule("GET", "/x", anyone)], deny, False),
        (fastapi_with_principal(), [], anyone, False),
        (fastapi_with_principal(anyone, maybe=True), [], deny, True),
        (fastapi_with_principal(optional, maybe=True), [], deny, True),
    ],
    ids=[
        "mark",
        "both alternatives know",
        "needs",
        "rule",
        "rule besides public",
        "default",
        "public",
        "optional",
        "network",
        "one alternative does not know",
        "not a network",
        "open rule",
        "open default",
        "maybe, public",
        "maybe, optional",
    ],
)
def test_an_endpoint_that_takes_the_caller_needs_a_policy_that_knows_one(
    app: FastAPI,
    rules: list[Rule],
    default: Requirement,
    starts: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """`CurrentPrincipal` without a policy that asks for an identity stops the start, and names the way out."""
    found = mistakes_of(wrapped(app, gate_with(rules=rules, default=default)))
    assert (found == []) is starts
    assert starts or "MaybePrincipal" in found[0]
    assert starts or "/x" in found[0]


def test_an_endpoint_that_takes_the_caller_and_has_no_policy_is_closed_and_no_mistake() -> None:
    """Where the default lets nobody in, nobody could be missing: the app starts, the endpoint is closed."""
    app = wrapped(fastapi_with_principal(), gate_with())
    assert mistakes_of(app) == []
    assert drive(app, scope_of("/x", headers=bearer())).reason == "no_policy"


@pytest.mark.parametrize(
    ("rules", "default", "starts"),
    [
        ([Rule("GET", "/health", anyone)], authenticated, True),
        ([Rule("*", "/secret", deny)], authenticated, True),
        ([Rule("POST", "/*", authenticated), Rule("GET", "/*", anyone)], deny, False),
        ([Rule("GET", "/special", authenticated)], anyone, False),
    ],
    ids=["another route is open", "a part is closed", "one method is open", "a part is guarded"],
)
def test_every_policy_of_an_endpoint_that_takes_the_caller_is_looked_at(
    rules: list[Rule],
    default: Requirement,
    starts: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Rules tell its paths and methods apart, and each of them must know who calls, or let nobody in."""

    async def current(name: str, user: CurrentPrincipal) -> str:
        return user.sub

    app = FastAPI(openapi_url=None)
    app.add_api_route("/health", ran_by("health", []))
    app.add_api_route("/{name}", current, methods=["GET", "POST"])
    found = mistakes_of(wrapped(app, gate_with(rules=rules, default=default)))
    assert (found == []) is starts
    assert starts or "CurrentPrincipal" in found[0]


def test_an_endpoint_that_nobody_may_enter_is_no_mistake() -> None:
    """Under `deny`, no caller could be missing."""
    assert mistakes_of(wrapped(fastapi_with_principal(deny), gate_with())) == []


# ---- WebSockets and cookies


class ByCookie:
    """Callers by a cookie."""

    fields: frozenset[str] = frozenset({"cookie"})

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        return Principal(sub="ada")


class ByCookieAndOrigin(ByCookie):
    """Callers by a cookie, who looks at where the page came from."""

    fields = frozenset({"cookie", "origin"})


@pytest.mark.parametrize("source", [ByCookie(), ByCookieAndOrigin(), TOKENS], ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("cors", [None, Cors(origins=["https://app.example"])], ids=["no cors", "cors"])
def test_a_websocket_by_cookie_needs_to_know_its_origins(source: IdentitySource, cors: Cors | None) -> None:
    """CWE-1385: a browser lets any page open a WebSocket, and sends the visitor's cookie along."""

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    app = Starlette(routes=[WebSocketRoute("/live", socket)])
    found = mistakes_of(wrapped(app, Gate(tokens=source, cors=cors, default=authenticated)))
    if type(source) is ByCookie and cors is None:
        assert len(found) == 1
        assert "could open /live with its visitor's cookie" in found[0]
    else:
        assert found == []


def test_a_websocket_by_cookie_may_be_protected_by_its_policy() -> None:
    """csrf_protected looks at the Origin, too; a rule with it for something else opens no other WebSocket."""

    @requires(csrf_protected())
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()

    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()

    routes = [WebSocketRoute("/live", live), WebSocketRoute("/chat", chat)]
    gate = functools.partial(Gate, tokens=ByCookie())
    assert mistakes_of(wrapped(Starlette(routes=routes), gate(default=authenticated & csrf_protected()))) == []
    rules = [Rule("WEBSOCKET", "/live", authenticated)]
    assert mistakes_of(wrapped(Starlette(routes=routes[:1]), gate(rules=rules))) == []
    rules = [Rule("WEBSOCKET", "/live", authenticated & csrf_protected())]
    for unprotected in (authenticated, authenticated & (csrf_protected() | networks("10.0.0.0/8"))):
        found = mistakes_of(wrapped(Starlette(routes=routes), gate(rules=rules, default=unprotected)))
        assert len(found) == 1
        assert "could open /chat with its visitor's cookie" in found[0]
        assert "csrf_protected" in found[0]


# ---- routes that cannot be known


class Everywhere(APIRoute):
    """A route that takes every path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {"endpoint": self.endpoint, "path_params": {}}


def test_all_mistakes_of_the_routes_are_told_together() -> None:
    """Routing mistakes and policy mistakes come in one error."""
    router = APIRouter(route_class=Everywhere)
    router.add_api_route("/odd", public(ran_by("odd", [])))
    app = FastAPI()
    app.include_router(router)
    app.mount("/m", guard(Starlette(routes=[Route("/{id}", ran_by("m", []))]), param("tenant", claim="t")))
    found = "\n".join(mistakes_of(wrapped(app, gate_with(rules=[Rule("LINK", "/x", anyone)]))))
    for told in ("overrides matches()", "no path parameter tenant"):
        assert told in found


def test_a_parameter_of_a_host_is_a_parameter() -> None:
    """`Host("{tenant}.example")` gives a path parameter that `param` may compare."""
    ran: list[str] = []
    shop = Router([Route("/x", requires(param("tenant", claim="t"))(ran_by("shop", ran)))])
    app = wrapped(Starlette(routes=[Host("{tenant}.example", shop)]), gate_with())
    assert mistakes_of(app) == []
    assert drive(app, scope_of("/x", headers={"Host": "acme.example", **bearer(t="evil")})).reason == "not_owner"
    assert drive(app, scope_of("/x", headers={"Host": "acme.example", **bearer(t="acme")}), BODYLESS).status == 200
    assert ran == ["shop"]


@pytest.mark.parametrize("place", ["rule", "opaque mount", "default"])
def test_a_misspelled_parameter_is_found_wherever_it_is_written(place: str) -> None:
    """A rule, a guard of what cannot be looked into and the default name parameters, too."""
    wrong = param("tenannt", claim="tenant")
    mount: BaseRoute = Mount("/t/{tenant}", answering("opaque", []))
    rules = [Rule("GET", "/t/*/x", wrong)] if place == "rule" else []
    app = Starlette(routes=[guard(mount, wrong) if place == "opaque mount" else mount])
    default = wrong if place == "default" else deny
    [found] = mistakes_of(wrapped(app, gate_with(rules=rules, default=default)))
    assert "/t/{tenant}/** has no path parameter tenannt" in found


def test_a_parameter_that_hides_the_one_a_group_is_guarded_by_is_found() -> None:
    """The guard would be held against the inner parameter: `/evil/share/acme` for a caller of acme."""
    share = Route("/share/{tenant}", public(ran_by("share", [])))
    mount = guard(Mount("/{tenant}", routes=[share]), param("tenant", claim="tenant"))
    [found] = mistakes_of(wrapped(Starlette(routes=[mount]), gate_with()))
    assert "/{tenant}/share/{tenant} hides" in found


@pytest.mark.parametrize(("group", "where"), [(Mount, "/a"), (Host, "a.example")], ids=["Mount", "Host"])
def test_a_mount_right_in_a_group_says_how_to_write_it(group: Callable[..., BaseRoute], where: str) -> None:
    """Nobody could put a door before it."""
    app = Starlette(routes=[group(where, app=Mount("/b", routes=[Route("/e", public(ran_by("e", [])))]))])
    [found] = mistakes_of(wrapped(app, gate_with()))
    assert "Router(routes=[...])" in found


@pytest.mark.parametrize("mount", ["converter", "class"])
def test_a_rule_below_a_mount_that_may_take_any_path_can_apply(mount: str) -> None:
    """A path converter in front, or a class that matches in its own way: what is below may stand anywhere."""

    class Loud(Mount):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return super().matches(scope)

    ran: list[str] = []
    routes = [Route("/y", ran_by("y", ran))]
    made = Mount("/{p:path}/x", routes=routes) if mount == "converter" else Loud("/a/x", routes=routes)
    app = wrapped(Starlette(routes=[made]), gate_with(rules=[Rule("GET", "/a/x/y", authenticated)]))
    assert mistakes_of(app) == []
    assert drive(app, scope_of("/a/x/y")).status == 401
    assert drive(app, scope_of("/a/x/y", headers=bearer()), BODYLESS).status == 200
    assert ran == ["y"]


def test_a_rule_that_misses_by_a_slash_or_a_method_is_shown_what_there_is() -> None:
    """The usual mistakes, with the route that was meant."""
    app = Starlette(routes=[Route("/a", public(ran_by("a", []))), Mount("/m", Router([Route("/", ran_by("m", []))]))])
    found = mistakes_of(
        wrapped(
            app, gate_with(rules=[Rule("GET", "/a/", anyone), Rule("GET", "/m", anyone), Rule("PUT", "/a", anyone)])
        )
    )
    assert [mistake.rpartition("(there is ")[2] for mistake in found] == ["/a)", "/m/)", "/a, for GET, HEAD)"]


def test_a_class_of_endpoints_serves_the_methods_that_it_has() -> None:
    """A rule for another one could never apply; the class's own 405 answers it."""

    class Things(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("got")

        async def purge(self, request: Request) -> Response:
            return PlainTextResponse("purged")

    app = Starlette(routes=[Route("/g", Things)])
    rules = [Rule(method, "/g", anyone) for method in ("GET", "PURGE", "DELETE", "WEBSOCKET")]
    found = mistakes_of(wrapped(app, gate_with(rules=rules)))
    assert [mistake.split(" = ")[0] for mistake in found] == ["rules[2]", "rules[3]"]


def test_a_route_that_fastapi_leaves_out_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """FastAPI does not run a route of an unknown kind in an included router; the others keep their policies."""

    class Odd(BaseRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return Match.NONE, {}

    router = APIRouter()
    router.routes.append(Odd())
    router.add_api_route("/x", requires(authenticated)(ran_by("x", [])))
    app = FastAPI()
    app.include_router(router)
    assert drive(wrapped(app, gate_with()), scope_of("/x")).status == 401


def test_a_misspelled_parameter_below_a_mount_with_parameters_is_found() -> None:
    """That the mount has some parameter does not excuse any name."""
    inner = Route("/x", requires(param("tenannt", claim="t"))(ran_by("x", [])))
    found = mistakes_of(wrapped(Starlette(routes=[Mount("/t/{tenant}", routes=[inner])]), gate_with()))
    assert len(found) == 1
    assert "no path parameter tenannt" in found[0]


def listed(app: ASGIApp, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Start the app twice and return what it told of endpoints without a policy."""
    with caplog.at_level("WARNING", "authz403"):
        assert mistakes_of(app) == []
        assert mistakes_of(app) == []
    return [record.getMessage() for record in caplog.records if "default_applies" in record.getMessage()]


@both
def test_endpoints_without_a_policy_are_listed_once(framework: type, caplog: pytest.LogCaptureFixture) -> None:
    """The operator reads at start-up what nobody wrote a policy for, and what applies to it."""
    app = framework(routes=[Route("/orders", answering("orders", [])), Route("/open", public(answering("open", [])))])
    (line,) = listed(wrapped(app, Gate()), caplog)
    assert "GET /orders" in line
    assert "/open" not in line.replace("/openapi.json", "")
    assert "the default applies, deny" in line


def test_a_long_list_of_endpoints_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred forgotten endpoints are a number, not a hundred names."""
    app = Starlette(routes=[Route(f"/r{number}", answering("r", [])) for number in range(100)])
    (line,) = listed(wrapped(app, Gate()), caplog)
    assert "GET /r19 and 80 more" in line


def test_the_list_says_what_holds_for_each(caplog: pytest.LogCaptureFixture) -> None:
    """Where rules name a path and not the method, the default does not apply."""
    app = Starlette(
        routes=[Route("/orders", ran_by("orders", []), methods=["GET", "POST"]), Route("/x", ran_by("x", []))]
    )
    rules = [Rule("GET", "/orders", anyone)]
    lines = listed(wrapped(app, Gate(rules=rules, default=anyone)), caplog)
    assert any("for POST /orders: rules name other methods there: closed" in line for line in lines)
    assert any("for GET /x: the default applies, anyone" in line for line in lines)


def test_it_is_said_that_what_is_concealed_may_be_told_from_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    """A router with a default of its own answers unknown paths by that, and concealed ones by the usual 404."""
    hidden = Route("/secret", requires(scopes("s").concealed())(ran_by("secret", [])))
    app = Router([hidden], default=public(answering("default", [])))
    with caplog.at_level("WARNING", "authz403"):
        assert mistakes_of(wrapped(app, gate_with())) == []
    assert any("concealed_differs" in record.getMessage() for record in caplog.records)


def test_an_app_with_a_policy_everywhere_lists_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Silence means that somebody thought of every endpoint."""
    app = Starlette(routes=[Route("/open", public(answering("open", [])))])
    assert listed(wrapped(app, Gate()), caplog) == []
