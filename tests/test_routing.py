"""Which endpoint will run: on Starlette and FastAPI, for every kind of route, the gate and the router agree."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.convertors import CONVERTOR_TYPES, Convertor, StringConvertor
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import (
    ConfigurationError,
    Rule,
    any_role,
    anyone,
    authenticated,
    deny,
    guard,
    param,
    public,
    requires,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import needs
from tests.apps_made import (
    BODYLESS,
    CONNECT,
    FRAMEWORKS,
    Answer,
    add_route,
    add_websocket,
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

both = pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda kind: kind.__name__)

ID = "6f8a1a4e-3f0b-4a52-9d3e-0d8f2a6b7c11"


class Passes:
    """Pure ASGI middleware that keeps what it wraps in the usual attribute."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Hides:
    """Pure ASGI middleware that keeps what it wraps where nobody looks."""

    def __init__(self, app: ASGIApp) -> None:
        self.inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, send)


def mistakes_of(error: ConfigurationError) -> str:
    """Return all that a configuration error lists, as text."""
    return "\n".join(map(str, error.mistakes))


def startup_error(app: ASGIApp) -> ConfigurationError:
    """Return the error that stops the app at start-up."""
    answer = drive(app, {"type": "lifespan", "asgi": {}, "state": {}}, [{"type": "lifespan.startup"}])
    assert [message["type"] for message in answer.messages] == ["lifespan.startup.failed"]
    assert isinstance(answer.error, ConfigurationError)
    return answer.error


# ---- paths and converters


@both
@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/", "/"),
        ("/plain", "/plain"),
        ("/trailing/", "/trailing/"),
        ("/s/{x}", "/s/a b"),
        ("/i/{x:int}", "/i/007"),
        ("/f/{x:float}", "/f/1.50"),
        ("/u/{x:uuid}", f"/u/{ID}"),
        ("/p/{x:path}", "/p/a/b/c"),
        ("/p/{x:path}", "/p/"),
        ("/p/{x:path}/edit", "/p/a/b/edit"),
        ("/v{x:int}.json", "/v12.json"),
        ("/{a}-{b}/c", "/one-two/c"),
        ("/files{x:path}", "/files/a"),
        ("/ümlaut/{x}", "/ümlaut/ß"),
    ],
    ids=lambda value: value,
)
def test_a_mark_holds_for_every_path_that_its_route_takes(framework: type[Starlette], pattern: str, path: str) -> None:
    """With the scope the endpoint runs, without it does not, whatever converters the path has."""
    ran: list[str] = []
    app = framework()
    add_route(app, pattern, requires(scopes("s"))(ran_by("run", ran)))
    guarded(app, gate_with())
    assert drive(app, scope_of(path)).status == 401
    assert ran == []
    assert drive(app, scope_of(path, headers=bearer(scope="s")), BODYLESS).status == 200
    assert ran == ["run"]


@pytest.mark.parametrize(
    ("pattern", "path", "claim_value"),
    [
        ("/t/{tenant}", "/t/acme", "acme"),
        ("/t/{tenant:int}", "/t/0005", 5),
        ("/t/{tenant:int}", "/t/5", "5"),
        ("/t/{tenant:uuid}", f"/t/{ID.upper()}", ID),
    ],
    ids=["text", "number", "number claimed as text", "uuid"],
)
def test_ownership_compares_what_the_converter_made_of_the_path(
    pattern: str, path: str, claim_value: str | int
) -> None:
    """`007` is the tenant 7, and a UUID is the same in upper case."""
    ran: list[str] = []
    app = guarded(
        Starlette(routes=[Route(pattern, requires(param("tenant", claim="tenant"))(ran_by("run", ran)))]), gate_with()
    )
    assert drive(app, scope_of(path, headers=bearer(tenant="somebody else"))).reason == "not_owner"
    assert ran == []
    assert drive(app, scope_of(path, headers=bearer(tenant=claim_value)), BODYLESS).status == 200


def test_ownership_sees_the_parameters_of_the_mount() -> None:
    """A tenant in the prefix of a Mount is a path parameter of all routes below."""
    ran: list[str] = []
    endpoint = requires(param("tenant", claim="tenant"))(ran_by("run", ran))
    app = guarded(Starlette(routes=[Mount("/t/{tenant:int}", routes=[Route("/orders", endpoint)])]), gate_with())
    assert drive(app, scope_of("/t/5/orders", headers=bearer(tenant=6))).reason == "not_owner"
    assert drive(app, scope_of("/t/5/orders", headers=bearer(tenant=5)), BODYLESS).status == 200
    assert ran == ["run"]


def test_a_parameter_that_the_route_does_not_have_stops_the_start() -> None:
    """`param` with a misspelled name would deny for ever; it says so when the app starts."""
    endpoint = requires(param("tenannt", claim="tenant"))(ran_by("run", []))
    error = startup_error(wrapped(Starlette(routes=[Route("/t/{tenant}", endpoint)]), gate_with()))
    assert "/t/{tenant} has no path parameter tenannt" in mistakes_of(error)


def test_a_converter_of_ones_own_may_take_slashes() -> None:
    """What a registered converter takes is asked of the route, not of the shape of its path."""

    class TwoSegments(Convertor[str]):
        regex: ClassVar[str] = "[a-z]+/[a-z]+"

        def convert(self, value: str) -> str:
            return value

        def to_string(self, value: str) -> str:
            return value

    class Word(StringConvertor):
        regex: ClassVar[str] = "[a-z]*"

    ran: list[str] = []
    before = dict(CONVERTOR_TYPES)
    CONVERTOR_TYPES.update(two=TwoSegments(), word=Word())
    try:
        routes = [
            Route("/x/{pair:two}/end", requires(authenticated)(ran_by("two", ran))),
            Route("/w/{word:word}", requires(authenticated)(ran_by("word", ran))),
        ]
    finally:
        CONVERTOR_TYPES.clear()
        CONVERTOR_TYPES.update(before)
    app = guarded(Starlette(routes=routes), gate_with(default=anyone))
    for path in ("/x/a/b/end", "/w/", "/w/abc"):
        assert drive(app, scope_of(path)).status == 401
        assert ran == []
        assert drive(app, scope_of(path, headers=bearer()), BODYLESS).status == 200
        ran.clear()


@both
@pytest.mark.parametrize(
    "path",
    ["/admin\n", "//admin", "/a/../admin", "/./admin", "/admin/..", "admin", "\\admin", "/admin\x00", "/admi\ufffd"],
)
def test_a_path_that_could_be_read_in_two_ways_reaches_no_handler(framework: type[Starlette], path: str) -> None:
    """`/admin%0A` reaches `/admin` in Starlette, and proxies shorten `/a/../admin`: refused, not repaired."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/admin", public(ran_by("admin", ran)))
    add_route(app, "/{x}", public(ran_by("any", ran)))
    guarded(app, gate_with(default=anyone))
    answer = drive(app, scope_of(path, headers=bearer()))
    assert (answer.status, answer.reason, ran) == (400, "invalid_path", [])


@both
def test_dot_segments_pass_into_a_path_parameter_alone(framework: type[Starlette]) -> None:
    """A file name may hold what it likes; the prefix before it may not, and no rule may be walked around."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/files/{name:path}", requires(authenticated)(ran_by("file", ran)))
    guarded(app, gate_with(rules=[Rule("*", "/files/private/**", any_role("owner"))]))
    for path in ("/files/a//b", "/files/a/./b", "/files/a/../b"):
        assert drive(app, scope_of(path, headers=bearer()), BODYLESS).status == 200
    assert ran == ["file"] * 3
    for path in ("/files/a/../private/b", "/files//private/b", "/./files/a", "//files/a"):
        assert drive(app, scope_of(path, headers=bearer()), BODYLESS).reason == "invalid_path"
    assert ran == ["file"] * 3


@both
def test_encoded_letters_are_the_letters(framework: type[Starlette]) -> None:
    """The decoded path decides; a raw path that says otherwise decides nothing."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/admin", requires(any_role("admin"))(ran_by("admin", ran)))
    add_route(app, "/open", public(ran_by("open", ran)))
    guarded(app, gate_with())
    assert drive(app, scope_of("/admin", raw_path=b"/open")).status == 401
    assert drive(app, scope_of("/open", raw_path=b"/%61dmin"), BODYLESS).status == 200
    assert ran == ["open"]


@both
def test_what_was_encoded_twice_is_decoded_once(framework: type[Starlette]) -> None:
    """`/files/%256fpen` is the file `%6fpen` to the router, and no open one to the rules."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/files/{name}", ran_by("file", ran))
    guarded(app, gate_with(rules=[Rule("*", "/files/open", anyone), Rule("*", "/files/*", any_role("admin"))]))
    assert drive(app, scope_of("/files/%6fpen", raw_path=b"/files/%256fpen")).status == 401
    assert ran == []
    assert drive(app, scope_of("/files/open", raw_path=b"/files/%6fpen"), BODYLESS).status == 200
    assert ran == ["file"]


# ---- methods


@both
@pytest.mark.parametrize("method", ["get", "Get", "POST", "TRACE", "FOO", "OPTIONS", "WEBSOCKET"])
def test_a_method_that_no_route_has_gets_the_apps_own_answer_and_runs_nothing(
    framework: type[Starlette], method: str
) -> None:
    """Methods are case-sensitive: `get` is an unknown one, to the gate as to the router."""
    ran: list[str] = []
    bare, app = framework(), framework()
    for one in (bare, app):
        add_route(one, "/x", requires(authenticated)(ran_by("x", ran)))
    guarded(app, gate_with())
    assert_same(drive(app, scope_of("/x", method), BODYLESS), drive(bare, scope_of("/x", method), BODYLESS))
    assert drive(app, scope_of("/x", method)).status == 405
    assert ran == []


@pytest.mark.parametrize("method", ["get", "WEBSOCKET", "FOO", "", "*"])
def test_a_rule_that_names_methods_names_no_invented_one(method: str) -> None:
    """Where rules name the path and none the method, an unmarked endpoint is closed, even if the default is open."""
    ran: list[str] = []
    rules = [Rule(["GET", "WEBSOCKET"], "/raw/**", anyone)]
    app = guarded(Starlette(routes=[Mount("/raw", answering("raw", ran))]), gate_with(rules=rules, default=anyone))
    assert drive(app, scope_of("/raw/x", method)).reason == "no_policy"
    assert ran == []
    assert drive(app, scope_of("/raw/x"), BODYLESS).status == 200


@both
@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"])
def test_headers_that_name_another_method_are_not_read(framework: type[Starlette], name: str) -> None:
    """What the router does not do, the gate does not either."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/x", requires(scopes("w"))(ran_by("write", ran)), ["POST"])
    add_route(app, "/x", public(ran_by("read", ran)), ["GET"])
    guarded(app, gate_with())
    assert drive(app, scope_of("/x", "POST", headers={name: "GET"})).status == 401
    assert drive(app, scope_of("/x", "GET", headers={name: "POST"}), BODYLESS).status == 200
    assert ran == ["read"]


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"])
def test_no_header_leads_to_the_rule_of_another_method(name: str) -> None:
    """Where rules alone tell the methods of an endpoint apart, the method that was sent chooses among them."""
    ran: list[str] = []
    routes = [Route("/x", ran_by("x", ran), methods=["GET", "POST"])]
    rules = [Rule("GET", "/x", anyone), Rule("POST", "/x", scopes("w"))]
    app = guarded(Starlette(routes=routes), gate_with(rules=rules))
    assert drive(app, scope_of("/x", "POST", headers={name: "GET"})).status == 401
    assert drive(app, scope_of("/x", "GET", headers={name: "POST"}), BODYLESS).status == 200
    assert ran == ["x"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "open.example"},
        {"Host": "testserver/open?"},
        {"X-Original-URL": "/open"},
        {"X-Rewrite-URL": "/open"},
        {"X-Forwarded-Prefix": "/open", "X-Forwarded-Host": "open.example"},
        {"Referer": "http://testserver/open"},
    ],
    ids=lambda headers: ": ".join(next(iter(headers.items()))),
)
def test_no_header_names_another_path(headers: dict[str, str]) -> None:
    """Host, rewrite and forwarding headers never change a decision (CVE-2018-14773, CVE-2025-29927 and their kin)."""
    ran: list[str] = []
    routes = [Route("/admin", ran_by("admin", ran)), Route("/open", ran_by("open", ran))]
    rules = [Rule("*", "/admin", any_role("admin")), Rule("*", "/open", anyone)]
    app = guarded(Starlette(routes=routes), gate_with(rules=rules))
    assert drive(app, scope_of("/admin", headers=headers, query_string=b"path=/open")).status == 401
    assert drive(app, scope_of("/open", headers=headers), BODYLESS).status == 200
    assert ran == ["open"]


def test_head_is_judged_as_get() -> None:
    """A rule for GET holds for HEAD, on Starlette routes that answer it by themselves."""
    ran: list[str] = []
    app = Starlette(routes=[Route("/x", ran_by("x", ran))])
    guarded(app, gate_with(rules=[Rule("GET", "/x", authenticated)], default=anyone))
    assert drive(app, scope_of("/x", "HEAD")).status == 401
    assert drive(app, scope_of("/x", "HEAD", headers=bearer()), BODYLESS).status == 200


def test_methods_of_one_path_have_each_its_own_marks() -> None:
    """Two routes at one path are two endpoints."""
    ran: list[str] = []
    routes = [
        Route("/x", public(ran_by("read", ran)), methods=["GET"]),
        Route("/x", requires(scopes("w"))(ran_by("write", ran)), methods=["POST"]),
    ]
    app = guarded(Starlette(routes=routes), gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    assert drive(app, scope_of("/x", "POST")).status == 401
    assert drive(app, scope_of("/x", "POST", headers=bearer(scope="w")), BODYLESS).status == 200
    assert ran == ["read", "write"]


# ---- class-based endpoints


class Things(HTTPEndpoint):
    """A class-based endpoint, open to read and closed to write."""

    ran: ClassVar[list[str]] = []

    @public
    async def get(self, request: Request) -> Response:
        self.ran.append("get")
        return PlainTextResponse("get")

    @requires(scopes("w"))
    async def post(self, request: Request) -> Response:
        self.ran.append("post")
        return PlainTextResponse("post")

    async def delete(self, request: Request) -> Response:
        self.ran.append("delete")
        return PlainTextResponse("delete")


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("HEAD", {}, 200),
        ("POST", {}, 401),
        ("POST", bearer(scope="r"), 403),
        ("POST", bearer(scope="w"), 200),
        ("post", {}, 401),
        ("Post", {}, 401),
        ("DELETE", bearer(scope="w"), 403),
        ("delete", {}, 403),
        ("PUT", {}, 405),
        ("FOO", {}, 405),
    ],
    ids=lambda value: "token" if isinstance(value, dict) and value else str(value),
)
def test_a_method_of_a_class_stands_under_its_own_marks(method: str, headers: dict[str, str], status: int) -> None:
    """Per method marks; an unmarked method falls to the default, and lower case slips past nothing."""
    Things.ran.clear()
    app = guarded(Starlette(routes=[Route("/things", Things)]), gate_with())
    assert drive(app, scope_of("/things", method, headers=headers), BODYLESS).status == status
    assert (Things.ran != []) is (status == 200)


def test_a_mark_on_the_class_holds_for_all_its_methods_and_its_subclasses() -> None:
    """Class and method marks hold together; a subclass does not lose what its base asks for."""
    ran: list[str] = []

    @requires(authenticated)
    class Base(HTTPEndpoint):
        @requires(scopes("w"))
        async def post(self, request: Request) -> Response:
            ran.append("post")
            return PlainTextResponse("post")

    class Derived(Base):
        async def get(self, request: Request) -> Response:
            ran.append("get")
            return PlainTextResponse("get")

    app = guarded(Starlette(routes=[Route("/x", Derived)]), gate_with(default=anyone))
    assert drive(app, scope_of("/x")).status == 401
    assert drive(app, scope_of("/x", headers=bearer()), BODYLESS).status == 200
    assert drive(app, scope_of("/x", "POST", headers=bearer())).reason == "insufficient_scope"
    assert drive(app, scope_of("/x", "POST", headers=bearer(scope="w")), BODYLESS).status == 200
    assert ran == ["get", "post"]


def test_a_head_method_of_its_own_is_judged_as_get() -> None:
    """A class with `get` and `head` tells no more by HEAD than by GET."""
    ran: list[str] = []

    class Both(HTTPEndpoint):
        @requires(authenticated)
        async def get(self, request: Request) -> Response:
            ran.append("get")
            return PlainTextResponse("get")

        async def head(self, request: Request) -> Response:
            ran.append("head")
            return PlainTextResponse("")

    app = guarded(Starlette(routes=[Route("/x", Both)]), gate_with(default=anyone))
    assert drive(app, scope_of("/x", "HEAD")).status == 401
    assert ran == []
    assert drive(app, scope_of("/x", "HEAD", headers=bearer()), BODYLESS).status == 200


def test_a_class_that_is_an_asgi_app_is_one_endpoint() -> None:
    """Any callable may be an endpoint; its mark holds for every method."""
    ran: list[str] = []

    @requires(authenticated)
    class Anything:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            ran.append(scope["method"])
            await PlainTextResponse("any")(scope, receive, send)

    app = guarded(Starlette(routes=[Route("/x", Anything())]), gate_with(default=anyone))
    for method in ("GET", "foo", "OPTIONS"):
        assert drive(app, scope_of("/x", method)).status == 401
    assert ran == []
    assert drive(app, scope_of("/x", "foo", headers=bearer()), BODYLESS).status == 200


def test_marks_are_found_through_partials_and_wrappers() -> None:
    """`functools.partial` and decorators that name what they wrap hide no mark."""
    ran: list[str] = []

    @requires(authenticated)
    async def marked(request: Request, name: str) -> Response:
        ran.append(name)
        return PlainTextResponse(name)

    @functools.wraps(marked)
    async def decorated(request: Request) -> Response:
        return await marked(request, "decorated")

    routes = [Route("/p", functools.partial(marked, name="partial")), Route("/d", decorated)]
    app = guarded(Starlette(routes=routes), gate_with(default=anyone))
    for path in ("/p", "/d"):
        assert drive(app, scope_of(path)).status == 401
        assert drive(app, scope_of(path, headers=bearer()), BODYLESS).status == 200
    assert ran == ["partial", "decorated"]


# ---- WebSockets


@both
def test_a_websocket_route_stands_under_its_marks(framework: type[Starlette]) -> None:
    """The handshake is decided before the endpoint sees it."""
    ran: list[str] = []

    @requires(scopes("chat"))
    async def chat(websocket: WebSocket) -> None:
        ran.append(websocket.path_params["room"])
        await websocket.accept()
        await websocket.close()

    app = framework()
    add_websocket(app, "/chat/{room}", chat)
    guarded(app, gate_with())
    assert drive(app, scope_of("/chat/a", kind="websocket")).messages == [{"type": "websocket.close", "code": 1008}]
    assert ran == []
    answer = drive(app, scope_of("/chat/a", kind="websocket", headers=bearer(scope="chat")), CONNECT)
    assert [message["type"] for message in answer.messages] == ["websocket.accept", "websocket.close"]
    assert ran == ["a"]


@pytest.mark.parametrize("name", ["on_connect", "on_receive", "on_disconnect"])
def test_marks_on_the_methods_of_a_websocket_class_hold_for_the_handshake(name: str) -> None:
    """Nothing of a WebSocket endpoint runs before all that its methods ask for holds."""
    ran: list[str] = []

    class Chat(WebSocketEndpoint):
        async def on_connect(self, websocket: WebSocket) -> None:
            ran.append("connect")
            await websocket.accept()

        async def on_receive(self, websocket: WebSocket, data: object) -> None:
            ran.append("receive")

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            ran.append("disconnect")

    requires(scopes("chat"))(getattr(Chat, name))
    app = guarded(Starlette(routes=[WebSocketRoute("/chat", Chat)]), gate_with(default=anyone))
    drive(app, scope_of("/chat", kind="websocket"), CONNECT)
    assert ran == []
    drive(app, scope_of("/chat", kind="websocket", headers=bearer(scope="chat")), CONNECT)
    assert ran[0] == "connect"


def test_http_and_websocket_at_one_path_are_two_endpoints() -> None:
    """An open page says nothing about the socket at the same path."""
    ran: list[str] = []

    async def socket(websocket: WebSocket) -> None:
        ran.append("socket")

    routes = [Route("/x", public(ran_by("page", ran))), WebSocketRoute("/x", requires(authenticated)(socket))]
    app = guarded(Starlette(routes=routes), gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    drive(app, scope_of("/x", kind="websocket"), CONNECT)
    assert ran == ["page"]


# ---- mounts and hosts


def sub_apps(ran: list[str]) -> dict[str, ASGIApp]:
    """Return apps of every kind with an endpoint at /x that needs a scope."""

    def endpoint() -> Callable[[Request], Awaitable[Response]]:
        return requires(scopes("s"))(ran_by("x", ran))

    fastapi = FastAPI()
    add_route(fastapi, "/x", endpoint())
    included = FastAPI()
    router = APIRouter()
    router.add_api_route("/x", endpoint())
    included.include_router(router)
    return {
        "Router": Router([Route("/x", endpoint())]),
        "Starlette": Starlette(routes=[Route("/x", endpoint())]),
        "FastAPI": fastapi,
        "FastAPI with an included router": included,
        "APIRouter": router,
        "middleware around": Passes(Passes(Starlette(routes=[Route("/x", endpoint())]))),
        "middleware within": Starlette(routes=[Route("/x", endpoint())], middleware=[Middleware(Passes)]),
        "router with middleware": Router([Route("/x", endpoint())], middleware=[Middleware(Passes)]),
        "mount in a mount": Router([Mount("", routes=[Route("/x", endpoint())])]),
    }


@both
@pytest.mark.parametrize("prefix", ["/sub", "", "/t/{tenant}"])
@pytest.mark.parametrize("kind", sub_apps([]).keys())
def test_marks_hold_in_mounted_apps_of_every_kind(framework: type[Starlette], kind: str, prefix: str) -> None:
    """A mount is walked down to the endpoint, whatever is mounted and however deep."""
    if kind == "APIRouter" and framework is Starlette:
        return  # FastAPI's own routers run in a FastAPI app alone
    ran: list[str] = []
    app = framework()
    app.mount(prefix, sub_apps(ran)[kind])
    guarded(app, gate_with(default=anyone))
    path = prefix.format(tenant="acme") + "/x"
    assert drive(app, scope_of(path)).status == 401
    assert drive(app, scope_of(path, headers=bearer())).reason == "insufficient_scope"
    assert ran == []
    assert drive(app, scope_of(path, headers=bearer(scope="s")), BODYLESS).status == 200
    assert ran == ["x"]
    assert drive(app, scope_of(path + "/missing"), BODYLESS).status == 404


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("root_path", ["/sub", "/elsewhere"])
def test_marks_hold_in_a_mounted_fastapi_app_with_a_root_path(root_path: str) -> None:
    """The root path that the mounted app puts in the scope changes which path its router sees, and the gate knows."""
    ran: list[str] = []
    sub = FastAPI(root_path=root_path)
    add_route(sub, "/x", requires(scopes("s"))(ran_by("x", ran)))
    add_route(sub, "/sub/x", requires(scopes("t"))(ran_by("sub x", ran)))
    bare = Starlette(routes=[Mount("/sub", sub)])
    expected = drive(bare, scope_of("/sub/x"), BODYLESS).body.decode()
    ran.clear()
    app = guarded(Starlette(routes=[Mount("/sub", sub)]), gate_with(default=anyone))
    assert drive(app, scope_of("/sub/x")).status == 401
    wanted = {"x": "s", "sub x": "t"}[expected]
    other = {"x": "t", "sub x": "s"}[expected]
    assert drive(app, scope_of("/sub/x", headers=bearer(scope=other))).status == 403
    assert ran == []
    assert drive(app, scope_of("/sub/x", headers=bearer(scope=wanted)), BODYLESS).body.decode() == expected


@both
def test_guards_on_mounts_and_apps_hold_for_all_below(framework: type[Starlette]) -> None:
    """A guard adds to the marks of the endpoints, whether it is on the Mount, the app or a router."""
    ran: list[str] = []
    sub = framework()
    add_route(sub, "/x", public(ran_by("x", ran)))
    add_route(sub, "/y", requires(scopes("y"))(ran_by("y", ran)))
    app = framework()
    app.mount("/sub", guard(sub, any_role("clerk")))
    guard(app.routes[-1], scopes("s"))
    guarded(app, gate_with())
    known = {"roles": ["clerk"], "scope": "s"}
    assert drive(app, scope_of("/sub/x", headers=bearer())).reason == "insufficient_scope"
    assert drive(app, scope_of("/sub/x", headers=bearer(scope="s"))).reason == "role_required"
    assert drive(app, scope_of("/sub/y", headers=bearer(**known))).reason == "insufficient_scope"  # type: ignore[arg-type]
    assert ran == []
    assert drive(app, scope_of("/sub/x", headers=bearer(**known)), BODYLESS).status == 200  # type: ignore[arg-type]
    known["scope"] = "s y"
    assert drive(app, scope_of("/sub/y", headers=bearer(**known)), BODYLESS).status == 200  # type: ignore[arg-type]
    assert ran == ["x", "y"]


@pytest.mark.parametrize("method", ["GET", "foo", "OPTIONS"])
def test_a_function_app_is_one_endpoint_under_its_mark_and_its_guard(method: str) -> None:
    """Any path below, any method: a mark on the function and a guard on the Mount both hold."""
    ran: list[str] = []
    legacy = requires(authenticated)(answering("legacy", ran))
    app = guarded(Starlette(routes=[guard(Mount("/old", legacy), scopes("old"))]), gate_with(default=anyone))
    assert drive(app, scope_of("/old/a/b", method)).status == 401
    assert drive(app, scope_of("/old/a/b", method, headers=bearer())).status == 403
    assert ran == []
    assert drive(app, scope_of("/old/", method, headers=bearer(scope="old")), BODYLESS).status == 200


def test_static_files_are_one_endpoint(tmp_path: Path) -> None:
    """Files are closed until somebody opens them; nothing below is told apart."""
    (tmp_path / "a.txt").write_text("hello")
    app = Starlette(routes=[Mount("/static", StaticFiles(directory=tmp_path))])
    closed = wrapped(app, gate_with())
    assert drive(closed, scope_of("/static/a.txt")).reason == "no_policy"
    assert drive(closed, scope_of("/static/missing.txt")).reason == "no_policy"
    opened = wrapped(
        Starlette(routes=[Mount("/static", StaticFiles(directory=tmp_path))]),
        gate_with(rules=[Rule("GET", "/static/**", anyone)]),
    )
    assert drive(opened, scope_of("/static/a.txt"), BODYLESS).body == b"hello"
    assert drive(opened, scope_of("/static/missing.txt"), BODYLESS).status == 404
    assert drive(opened, scope_of("/static/../a.txt"), BODYLESS).reason == "invalid_path"


@both
@pytest.mark.parametrize("mounted", [False, True], ids=["route", "mounted"])
def test_rules_that_tell_the_paths_of_a_route_apart_are_each_asked(framework: type[Starlette], mounted: bool) -> None:  # noqa: FBT001 - a row
    """What was found for one path of a route is kept for another only where no rule tells them apart."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/orders/{id}", ran_by("order", ran), ["GET", "POST"])
    prefix = "/shop" if mounted else ""
    rules = [Rule("GET", f"{prefix}/orders/7", deny), Rule("GET", f"{prefix}/orders/*", anyone)]
    outer = wrapped(Starlette(routes=[Mount("/shop", app)]) if mounted else app, gate_with(rules=rules, default=anyone))
    for _ in range(2):
        assert drive(outer, scope_of(f"{prefix}/orders/8"), BODYLESS).status == 200
        assert drive(outer, scope_of(f"{prefix}/orders/7")).reason == "access_denied"
        assert drive(outer, scope_of(f"{prefix}/orders/8", "POST")).reason == "no_policy"
    assert ran == ["order", "order"]


@pytest.mark.parametrize("kind", ["mount", "frontend", "rules alone"])
def test_a_slash_behind_a_file_is_no_way_around_its_rule(kind: str, tmp_path: Path) -> None:
    """File servers find the same file for `/secret.txt/`, so that the rule for its name holds there, too."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "open.txt").write_text("open")
    prefix = "" if kind == "frontend" else "/static"
    app: ASGIApp
    if kind == "frontend":
        app = FastAPI(openapi_url=None)
        app.frontend("/", directory=tmp_path)
    else:
        app = Starlette(routes=[Mount("/static", StaticFiles(directory=tmp_path))])
    rules = [Rule("*", f"{prefix}/secret.txt", any_role("admin")), Rule("*", f"{prefix}/**", anyone)]
    gate = gate_with(rules=rules)
    guarded_app = AuthzMiddleware(app, gate=gate, **({"routes_of": None} if kind == "rules alone" else {}))
    for path in (f"{prefix}/secret.txt", f"{prefix}/secret.txt/"):
        assert drive(guarded_app, scope_of(path)).status == 401
        assert drive(guarded_app, scope_of(path, headers=bearer(roles=["admin"])), BODYLESS).status == 200
    assert drive(guarded_app, scope_of(f"{prefix}/open.txt/"), BODYLESS).body == b"open"


def test_a_mount_whose_app_is_hidden_is_one_endpoint() -> None:
    """What cannot be walked is closed by default, and its marks are not guessed at."""
    ran: list[str] = []
    inner = Starlette(routes=[Route("/x", public(ran_by("x", ran)))])
    app = guarded(Starlette(routes=[Mount("/sub", unwalkable(inner))]), gate_with())
    assert drive(app, scope_of("/sub/x", headers=bearer())).reason == "no_policy"
    assert ran == []


def test_the_middleware_of_a_mount_hides_nothing() -> None:
    """A Mount keeps the app that its own middleware stands around, so that marks and guards in there hold."""
    ran: list[str] = []
    inner = Starlette(routes=[Route("/x", public(ran_by("x", ran))), Route("/y", ran_by("y", ran))])
    guard(inner, scopes("s"))
    app = Starlette(routes=[Mount("/sub", inner, middleware=[Middleware(Hides)])])
    guarded(app, gate_with(default=anyone))
    assert drive(app, scope_of("/sub/x")).status == 401
    assert drive(app, scope_of("/sub/y", headers=bearer())).status == 403
    assert drive(app, scope_of("/sub/x", headers=bearer(scope="s")), BODYLESS).status == 200
    assert ran == ["x"]


def test_host_routes_are_chosen_by_the_host_header() -> None:
    """The one case in which Host decides: where the app's own router lets it."""
    ran: list[str] = []
    admin = Router([Route("/x", requires(any_role("admin"))(ran_by("admin", ran)))])
    routes = [
        Host("admin.example", admin),
        Host("{tenant}.shop.example", Router([Route("/x", requires(param("tenant", claim="t"))(ran_by("shop", ran)))])),
        Host("opaque.example", answering("opaque", ran)),
        Route("/x", public(ran_by("open", ran))),
    ]
    app = guarded(Starlette(routes=routes), gate_with())
    assert drive(app, scope_of("/x", headers={"Host": "admin.example:8000"})).status == 401
    assert drive(app, scope_of("/x", headers={"Host": "opaque.example"})).reason == "no_policy"
    assert drive(app, scope_of("/x", headers={"Host": "acme.shop.example", **bearer(t="evil")})).reason == "not_owner"
    assert ran == []
    # Whether the case of a host matters is the router's own matter: older Starlettes say that it does.
    drive(app, scope_of("/x", headers={"Host": "ADMIN.example"}))
    assert ran in ([], ["open"])
    ran.clear()
    for host, claims in (("admin.example", {"roles": ["admin"]}), ("acme.shop.example", {"t": "acme"}), ("else", {})):
        headers = {"Host": host, **bearer(**claims)}
        assert drive(app, scope_of("/x", headers=headers), BODYLESS).status == 200
    assert ran == ["admin", "shop", "open"]


def test_two_host_headers_lead_where_the_router_goes() -> None:
    """The router reads the first Host line; a second one makes no difference to the decision."""
    ran: list[str] = []
    admin = Router([Route("/x", requires(any_role("admin"))(ran_by("admin", ran)))])
    app = guarded(
        Starlette(routes=[Host("admin.example", admin), Route("/x", public(ran_by("open", ran)))]), gate_with()
    )
    assert drive(app, scope_of("/x", headers=[("Host", "admin.example"), ("Host", "else")]), BODYLESS).status == 401
    assert drive(app, scope_of("/x", headers=[("Host", "else"), ("Host", "admin.example")]), BODYLESS).status == 200
    assert ran == ["open"]


# ---- what is no endpoint


@both
def test_slash_redirects_are_the_apps_own(framework: type[Starlette]) -> None:
    """The gate neither redirects by itself nor stands in the way of the router's redirect."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/x", requires(authenticated)(ran_by("x", ran)))
    add_route(app, "/y/", requires(authenticated)(ran_by("y", ran)))
    guarded(app, gate_with())
    for path, target in (("/x/", "/x"), ("/y", "/y/")):
        answer = drive(app, scope_of(path, headers={"Host": "testserver"}), BODYLESS)
        assert (answer.status, answer.header("location")) == (307, f"http://testserver{target}")
    assert ran == []


@both
def test_rules_judge_paths_that_no_route_serves(framework: type[Starlette]) -> None:
    """Under a path that a rule guards, 404, 405 and redirects tell nothing to those whom the rule refuses."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/admin/users", ran_by("users", ran))
    guarded(app, gate_with(rules=[Rule("*", "/admin/**", any_role("admin"))]))
    for path, method in (
        ("/admin/users", "GET"),
        ("/admin/users", "PUT"),
        ("/admin/users/", "GET"),
        ("/admin/missing", "GET"),
        ("/admin", "GET"),
    ):
        assert drive(app, scope_of(path, method)).status == 401
        assert drive(app, scope_of(path, method, headers=bearer())).status == 403
    assert drive(app, scope_of("/elsewhere"), BODYLESS).status == 404
    admin = bearer(roles=["admin"])
    assert drive(app, scope_of("/admin/missing", headers=admin), BODYLESS).status == 404
    assert drive(app, scope_of("/admin/users", "PUT", headers=admin), BODYLESS).status == 405
    assert ran == []


@both
def test_a_default_app_of_the_router_is_an_endpoint(framework: type[Starlette]) -> None:
    """`Router(default=app)` takes what no route does, so that the default policy closes it."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/x", public(ran_by("x", ran)))
    app.router.default = answering("fallback", ran)
    guarded(app, gate_with())
    assert drive(app, scope_of("/anything")).reason == "no_policy"
    assert drive(app, scope_of("/anything", kind="websocket")).messages[0]["type"] == "websocket.close"
    assert ran == []
    opened = framework()
    opened.router.default = public(answering("fallback", ran))
    guarded(opened, gate_with())
    assert drive(opened, scope_of("/anything"), BODYLESS).status == 200
    assert ran == ["fallback"]


# ---- FastAPI's own


def test_the_documentation_of_a_fastapi_app_is_closed_until_a_rule_opens_it() -> None:
    """/docs, /redoc, /openapi.json and the OAuth redirect are endpoints like any other."""
    closed = guarded(FastAPI(), gate_with())
    paths = ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect")
    for path in paths:
        assert drive(closed, scope_of(path)).reason == "no_policy"
    opened = guarded(
        FastAPI(),
        gate_with(
            rules=[
                Rule("GET", "/docs/**", anyone),
                Rule("GET", ["/redoc"][0], anyone),
                Rule("GET", "/openapi.json", anyone),
            ]
        ),
    )
    for path in paths:
        assert drive(opened, scope_of(path), BODYLESS).status == 200


def test_frontend_routes_are_endpoints(tmp_path: Path) -> None:
    """Files that FastAPI serves where no route matches stand in no list of routes, and are closed all the same."""
    (tmp_path / "index.html").write_text("<h1>hello</h1>")
    ran: list[str] = []
    app = FastAPI()
    add_route(app, "/api/x", public(ran_by("x", ran)))
    app.frontend("/", directory=tmp_path)
    guarded(app, gate_with())
    assert drive(app, scope_of("/index.html")).reason == "no_policy"
    assert drive(app, scope_of("/")).reason == "no_policy"
    assert drive(app, scope_of("/api/x"), BODYLESS).status == 200
    opened = FastAPI()
    opened.frontend("/", directory=tmp_path)
    guarded(opened, gate_with(rules=[Rule("GET", "/**", anyone)]))
    assert drive(opened, scope_of("/index.html"), BODYLESS).body == b"<h1>hello</h1>"
    assert drive(opened, scope_of("/index.html", "POST"), BODYLESS).status == 405


def test_frontend_routes_stand_under_needs_of_app_and_included_router(tmp_path: Path) -> None:
    """`needs` of the app, of the router and of `include_router` hold for the router's frontend too."""
    (tmp_path / "index.html").write_text("<h1>hello</h1>")
    app = FastAPI(dependencies=[needs(scopes("app"))])
    router = APIRouter(dependencies=[needs(scopes("router"))])
    router.frontend("/ui", directory=tmp_path)
    app.include_router(router, prefix="/in", dependencies=[needs(scopes("include"))])
    guarded(app, gate_with())
    answer = drive(app, scope_of("/in/ui/index.html", headers=bearer()))
    assert (answer.status, answer.reason) == (403, "insufficient_scope")
    assert answer.header("www-authenticate") is not None
    for name in ("app", "router", "include"):
        assert name in str(answer.header("www-authenticate"))
    entitled = bearer(scope="app router include")
    assert drive(app, scope_of("/in/ui/index.html", headers=entitled), BODYLESS).status == 200


def test_a_frontend_that_is_added_later_is_seen(tmp_path: Path) -> None:
    """A frontend that joins an existing group changes no list of routes, and is still judged by the marks of now."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(name)
    app = FastAPI()
    app.frontend("/a", directory=tmp_path / "a")
    guarded(app, gate_with(rules=[Rule("GET", "/a/**", anyone)]))
    assert drive(app, scope_of("/a/index.html"), BODYLESS).status == 200
    app.frontend("/b", directory=tmp_path / "b")
    router = APIRouter()
    router.frontend("/c", directory=tmp_path / "b")
    app.include_router(router)
    assert drive(app, scope_of("/a/index.html"), BODYLESS).status == 200
    for path in ("/b/index.html", "/c/index.html"):
        assert drive(app, scope_of(path)).reason == "no_policy"


def test_a_frontend_takes_its_own_paths_alone(tmp_path: Path) -> None:
    """Beside a frontend, what no route takes is the app's own 404."""
    (tmp_path / "index.html").write_text("ui")
    app = FastAPI()
    app.frontend("/ui", directory=tmp_path)
    guarded(app, gate_with())
    assert drive(app, scope_of("/ui/index.html")).reason == "no_policy"
    assert drive(app, scope_of("/elsewhere"), BODYLESS).status == 404


def test_a_second_frontend_of_an_included_router_is_seen(tmp_path: Path) -> None:
    """FastAPI makes its frontend routes anew when one is added; the marks of the inclusion hold for all."""
    (tmp_path / "index.html").write_text("ui")
    router = APIRouter()
    router.frontend("/a", directory=tmp_path)
    app = FastAPI()
    app.include_router(router, prefix="/in", dependencies=[needs(scopes("s"))])
    guarded(app, gate_with())
    assert drive(app, scope_of("/in/a/index.html")).status == 401
    router.frontend("/b", directory=tmp_path)
    for path in ("/in/a/index.html", "/in/b/index.html"):
        assert drive(app, scope_of(path)).status == 401
        assert drive(app, scope_of(path, headers=bearer(scope="s")), BODYLESS).body == b"ui"


def test_a_router_that_is_included_twice_within_another_is_seen_twice() -> None:
    """Every inclusion has its own prefix and requirements, and late routes appear in both."""
    ran: list[str] = []
    inner = APIRouter()
    outer = APIRouter()
    outer.include_router(inner, prefix="/a", dependencies=[needs(scopes("a"))])
    outer.include_router(inner, prefix="/b", dependencies=[needs(scopes("b"))])
    app = FastAPI()
    app.include_router(outer)
    guarded(app, gate_with())
    inner.add_api_route("/x", ran_by("x", ran))
    assert drive(app, scope_of("/a/x", headers=bearer(scope="b"))).reason == "insufficient_scope"
    assert drive(app, scope_of("/b/x", headers=bearer(scope="a"))).reason == "insufficient_scope"
    assert ran == []
    assert drive(app, scope_of("/a/x", headers=bearer(scope="a")), BODYLESS).status == 200


def test_a_fastapi_that_cannot_say_what_its_routers_hold_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Included routes that cannot be read are not guessed at."""
    monkeypatch.delattr("fastapi.routing.iter_route_contexts")
    router = APIRouter()
    router.add_api_route("/x", public(ran_by("x", [])))
    app = FastAPI()
    app.include_router(router)
    assert "authz403 needs FastAPI 0.144" in mistakes_of(startup_error(wrapped(app, gate_with())))


def test_needs_add_up_over_nested_includes() -> None:
    """App, router, include and route each add a requirement; prefixes are those of the router."""
    ran: list[str] = []
    inner = APIRouter(prefix="/inner", dependencies=[needs(scopes("inner"))])
    inner.add_api_route("/x/{n:int}", ran_by("x", ran), dependencies=[needs(scopes("route"))])
    outer = APIRouter(prefix="/outer", dependencies=[needs(scopes("outer"))])
    outer.include_router(inner, prefix="/more", dependencies=[needs(scopes("include"))])
    app = FastAPI(dependencies=[needs(scopes("app"))])
    app.include_router(outer)
    guarded(app, gate_with())
    names = {"app", "outer", "include", "inner", "route"}
    path = "/outer/more/inner/x/5"
    for missing in names:
        answer = drive(app, scope_of(path, headers=bearer(scope=" ".join(names - {missing}))))
        assert answer.reason == "insufficient_scope"
    assert ran == []
    with listening() as events:
        assert drive(app, scope_of(path, headers=bearer(scope=" ".join(names))), BODYLESS).status == 200
    assert ran == ["x"]
    assert events[0]["route"] == "/outer/more/inner/x/{n}"


def test_one_router_included_twice_is_two_sets_of_endpoints() -> None:
    """What one inclusion asks for does not leak into the other."""
    ran: list[str] = []
    router = APIRouter()
    router.add_api_route("/x", public(ran_by("x", ran)))
    app = FastAPI()
    app.include_router(router, prefix="/open")
    app.include_router(router, prefix="/closed", dependencies=[needs(authenticated)])
    guarded(app, gate_with())
    assert drive(app, scope_of("/open/x"), BODYLESS).status == 200
    assert drive(app, scope_of("/closed/x")).status == 401
    assert ran == ["x"]


def test_everything_that_an_included_router_may_hold_is_seen() -> None:
    """Plain routes, mounts, hosts and WebSockets of an included router stand under their own marks."""
    ran: list[str] = []

    @requires(scopes("s"))
    async def socket(websocket: WebSocket) -> None:
        ran.append("socket")
        await websocket.accept()

    mark = requires(scopes("s"))
    router = APIRouter(
        routes=[
            Route("/plain", mark(ran_by("plain", ran))),
            WebSocketRoute("/plain-socket", socket),
            Mount("/mount", routes=[Route("/x", mark(ran_by("mount", ran)))]),
            Host("host.example", Router([Route("/x", mark(ran_by("host", ran)))])),
        ]
    )
    router.add_api_websocket_route("/socket", socket)
    app = FastAPI()
    app.include_router(router, prefix="/in")
    guarded(app, gate_with(default=anyone))
    for path, host in (("/in/plain", ""), ("/in/mount/x", ""), ("/in/x", "host.example")):
        assert drive(app, scope_of(path, headers={"Host": host})).status == 401
        assert drive(app, scope_of(path, headers={"Host": host, **bearer(scope="s")}), BODYLESS).status == 200
    assert ran == ["plain", "mount", "host"]
    for path in ("/in/socket", "/in/plain-socket"):
        refused = drive(app, scope_of(path, kind="websocket"))
        assert refused.messages == [{"type": "websocket.close", "code": 1008}]
        passed = drive(app, scope_of(path, kind="websocket", headers=bearer(scope="s")), CONNECT)
        assert passed.messages[0]["type"] == "websocket.accept"


class Odd(APIRoute):
    """A route that takes every path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {"endpoint": self.endpoint, "path_params": {}}


def test_an_included_route_that_answers_for_itself_stops_the_start() -> None:
    """Its `matches()` cannot be asked for the included place, so nothing is guessed."""
    router = APIRouter(route_class=Odd)
    router.add_api_route("/x", public(ran_by("x", [])))
    app = FastAPI()
    app.include_router(router)
    error = startup_error(wrapped(app, gate_with()))
    assert "overrides matches()" in mistakes_of(error)


def test_an_included_route_that_answers_for_itself_and_comes_late_runs_nothing() -> None:
    """After start-up nobody can be told; the request that would meet such a route is refused instead."""
    ran: list[str] = []
    app = FastAPI()
    add_route(app, "/open", public(ran_by("open", ran)))
    guarded(app, gate_with())
    assert drive(app, scope_of("/open"), BODYLESS).status == 200
    router = APIRouter(route_class=Odd)
    router.add_api_route("/x", requires(scopes("s"))(ran_by("odd", ran)))
    app.include_router(router)
    assert drive(app, scope_of("/elsewhere"), BODYLESS).status == 500
    assert ran == ["open"]


def test_a_route_of_the_app_itself_that_answers_for_itself_is_asked() -> None:
    """Not included, it can be asked: any path that it takes stands under its mark."""
    ran: list[str] = []
    app = FastAPI()
    app.router.routes.append(Odd("/x", requires(scopes("s"))(ran_by("odd", ran))))
    guarded(app, gate_with(default=anyone))
    assert drive(app, scope_of("/elsewhere")).status == 401
    assert ran == []
    assert drive(app, scope_of("/elsewhere", headers=bearer(scope="s")), BODYLESS).status == 200


class Palindromes(BaseRoute):
    """A route of one's own: paths that read the same backwards, after the slash."""

    def __init__(self, ran: list[str]) -> None:
        self.ran = ran

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        word = scope["path"][1:]
        return (Match.FULL, {}) if word == word[::-1] else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.ran.append("palindrome")
        await PlainTextResponse("palindrome")(scope, receive, send)


@both
def test_a_route_class_of_ones_own_is_an_endpoint(framework: type[Starlette]) -> None:
    """What takes requests is closed by default, and a guard on it is its policy."""
    ran: list[str] = []
    app = framework(routes=[Palindromes(ran)])
    guarded(app, gate_with())
    assert drive(app, scope_of("/aba")).reason == "no_policy"
    assert drive(app, scope_of("/ab"), BODYLESS).status == 404
    opened = framework(routes=[guard(Palindromes(ran), scopes("s"))])
    guarded(opened, gate_with())
    assert drive(opened, scope_of("/aba")).status == 401
    assert ran == []
    assert drive(opened, scope_of("/aba", headers=bearer(scope="s")), BODYLESS).status == 200


@pytest.mark.parametrize("kind", ["walkable", "opaque"])
def test_a_mount_class_of_ones_own_is_asked_for_every_path(kind: str) -> None:
    """A Mount whose `matches()` takes other paths than its own is asked about them."""

    class AnyCase(Mount):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            match, child = super().matches({**scope, "path": scope["path"].lower()})
            return match, child

    ran: list[str] = []
    inner: ASGIApp = answering("inner", ran)
    if kind == "walkable":
        inner = Router(default=inner)
    app = guarded(Starlette(routes=[AnyCase("/raw", inner)]), gate_with())
    for path in ("/raw/x", "/RAW/x"):
        assert drive(app, scope_of(path)).status in {403, 500}
    assert ran == []


# ---- routes that change


@both
def test_routes_that_are_added_or_removed_later_are_seen(framework: type[Starlette]) -> None:
    """The table follows the app: a late route has its marks, and one that is gone has none."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/{rest:path}", public(ran_by("open", ran)))
    sub = framework()
    app.router.routes.insert(0, Mount("/sub", sub))
    guarded(app, gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).body == b"open"
    late = framework()
    add_route(late, "/x", requires(scopes("s"))(ran_by("late", ran)))
    app.router.routes.insert(0, late.routes[-1])
    add_route(sub, "/y", requires(scopes("s"))(ran_by("late sub", ran)))
    assert drive(app, scope_of("/x")).status == 401
    assert drive(app, scope_of("/sub/y")).status == 401
    del app.router.routes[0]
    assert drive(app, scope_of("/x"), BODYLESS).body == b"open"
    assert ran == ["open", "open"]


@both
def test_a_route_that_takes_the_place_of_another_is_seen(framework: type[Starlette]) -> None:
    """As many routes as before are not the same routes as before."""
    ran: list[str] = []

    def app_with(endpoint: Callable[[Request], Awaitable[Response]]) -> Starlette:
        app = framework()
        add_route(app, "/x", endpoint)
        return app

    app = app_with(public(ran_by("open", ran)))
    guarded(app, gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    app.router.routes[-1] = app_with(requires(scopes("s"))(ran_by("closed", ran))).routes[-1]
    assert drive(app, scope_of("/x")).status == 401
    assert ran == ["open"]


def test_routes_that_change_order_are_seen() -> None:
    """Which route comes first decides which one runs."""
    ran: list[str] = []
    routes = [Route("/{any}", public(ran_by("open", ran))), Route("/x", requires(scopes("s"))(ran_by("closed", ran)))]
    app = guarded(Starlette(routes=routes), gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).body == b"open"
    app.router.routes.reverse()
    assert drive(app, scope_of("/x")).status == 401
    assert ran == ["open"]


def test_a_list_of_routes_that_is_exchanged_is_seen() -> None:
    """A new list is walked anew."""
    ran: list[str] = []
    app = guarded(Starlette(routes=[Route("/x", public(ran_by("open", ran)))]), gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    app.router.routes = [Route("/x", requires(scopes("s"))(ran_by("closed", ran)))]
    assert drive(app, scope_of("/x")).status == 401
    assert ran == ["open"]


def test_routes_of_an_included_router_that_come_late_are_seen() -> None:
    """A router keeps growing after it was included, and FastAPI serves what it gained."""
    ran: list[str] = []
    inner = APIRouter()
    router = APIRouter()
    router.include_router(inner)
    app = FastAPI()
    app.include_router(router)
    add_route(app, "/{rest:path}", public(ran_by("open", ran)))
    guarded(app, gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).body == b"open"
    inner.add_api_route("/x", requires(scopes("s"))(ran_by("late", ran)))
    assert drive(app, scope_of("/x")).status == 401
    assert ran == ["open"]


def test_a_router_that_is_mounted_in_itself_ends_the_walk() -> None:
    """A circle of mounts is walked once; the inner turn is one endpoint, closed by default."""
    ran: list[str] = []
    router = Router([Route("/x", public(ran_by("x", ran)))])
    router.mount("/again", router)
    app = AuthzMiddleware(router, gate=gate_with())
    assert drive(app, scope_of("/x"), BODYLESS).status == 200
    assert drive(app, scope_of("/again/x")).reason == "no_policy"
    assert ran == ["x"]


# ---- root paths


@both
@pytest.mark.parametrize("outside", [False, True], ids=["add_middleware", "from outside"])
def test_the_servers_root_path_is_taken_off_once(framework: type[Starlette], outside: bool) -> None:  # noqa: FBT001
    """Rules and marks hold for what the router sees, stripped at a segment's end and nowhere else."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/admin", ran_by("admin", ran))
    add_route(app, "/api/admin", ran_by("api admin", ran))
    add_route(app, "/apix/admin", ran_by("apix admin", ran))
    gate = gate_with(rules=[Rule("*", "/admin", any_role("admin"))], default=anyone)
    guarding = wrapped(app, gate) if outside else guarded(app, gate)
    assert drive(guarding, scope_of("/api/admin", root_path="/api")).status == 401
    assert drive(guarding, scope_of("/admin", root_path="/api")).status == 401
    assert ran == []
    assert drive(guarding, scope_of("/api/api/admin", root_path="/api"), BODYLESS).body == b"api admin"
    assert drive(guarding, scope_of("/apix/admin", root_path="/api"), BODYLESS).body == b"apix admin"


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("outside", [False, True], ids=["add_middleware", "from outside"])
@pytest.mark.parametrize("server", ["", "/api", "/other"])
def test_the_root_path_of_a_fastapi_app_is_known_to_rules_and_marks(server: str, outside: bool) -> None:  # noqa: FBT001
    """`FastAPI(root_path=)` replaces the server's inside the app; a gate around the app judges the same path."""
    ran: list[str] = []
    app = FastAPI(root_path="/api")
    add_route(app, "/admin", public(ran_by("admin", ran)))
    add_route(app, "/marked", requires(scopes("s"))(ran_by("marked", ran)))
    gate = gate_with(rules=[Rule("*", "/admin", any_role("admin"))])
    guarding = wrapped(app, gate) if outside else guarded(app, gate)
    assert drive(guarding, scope_of("/api/admin", root_path=server)).status == 401
    assert drive(guarding, scope_of("/api/marked", root_path=server)).status == 401
    assert ran == []
    admin = bearer(roles=["admin"], scope="s")
    assert drive(guarding, scope_of("/api/admin", root_path=server, headers=admin), BODYLESS).status == 200
    assert drive(guarding, scope_of("/api/marked", root_path=server, headers=admin), BODYLESS).status == 200


def test_the_path_at_the_root_path_itself_is_served() -> None:
    """An empty path is what lies exactly at the mount, and redirects as on the bare app."""
    app = guarded(Starlette(routes=[Route("/", public(ran_by("root", [])))]), gate_with())
    assert drive(app, scope_of("/api", root_path="/api"), BODYLESS).status == 307


# ---- where the routes are found


class FarAway:
    """Middleware that finds its app only when it is called."""

    def __init__(self, app: ASGIApp) -> None:
        self.hidden = unwalkable(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.hidden(scope, receive, send)


@both
def test_routes_are_found_through_middleware_on_either_side(framework: type[Starlette]) -> None:
    """Pure ASGI middleware inside and outside of the gate changes nothing."""
    ran: list[str] = []
    app = framework()
    add_route(app, "/x", requires(scopes("s"))(ran_by("x", ran)))
    app.add_middleware(Passes)
    guarded(app, gate_with())
    app.add_middleware(FarAway)
    assert drive(Passes(app), scope_of("/x")).status == 401
    assert drive(Passes(app), scope_of("/x", headers=bearer(scope="s")), BODYLESS).status == 200
    assert ran == ["x"]


def test_an_app_whose_routes_cannot_be_found_says_what_to_do() -> None:
    """`routes_of=` names the app inside, or says that rules alone decide."""
    ran: list[str] = []
    app = Starlette(routes=[Route("/x", requires(scopes("s"))(ran_by("x", ran)))])
    error = startup_error(AuthzMiddleware(FarAway(app), gate=gate_with()))
    assert "routes_of=" in mistakes_of(error)
    assert "routes_of=None" in mistakes_of(error)
    named = AuthzMiddleware(FarAway(app), gate=gate_with(default=anyone), routes_of=app)
    assert drive(named, scope_of("/x")).status == 401
    assert ran == []
    assert drive(named, scope_of("/x", headers=bearer(scope="s")), BODYLESS).status == 200


def test_rules_alone_judge_an_app_that_is_not_looked_into() -> None:
    """With `routes_of=None` the whole app is one endpoint, closed where no rule opens it."""
    ran: list[str] = []
    app = AuthzMiddleware(
        answering("app", ran), gate=gate_with(rules=[Rule("GET", "/open/**", anyone)]), routes_of=None
    )
    assert drive(app, scope_of("/closed")).reason == "no_policy"
    assert drive(app, scope_of("/open/a", "POST")).reason == "no_policy"
    assert ran == []
    assert drive(app, scope_of("/open/a"), BODYLESS).status == 200


# ---- the law: with too few rights nothing runs, with all rights everything is as on the bare app

SCOPES = ("a", "b", "c")
SEGMENTS = st.sampled_from(["x", "y", "{p}", "{n:int}", "{rest:path}", "x{m:int}"])
PATTERNS = st.lists(SEGMENTS, max_size=2, unique=True).map(lambda parts: "/" + "/".join(parts))
METHODS = st.sampled_from([["GET"], ["POST"], ["GET", "POST"], ["PUT"]])
MARKS = st.sampled_from([None, *SCOPES])


@st.composite
def blueprints(draw: st.DrawFn, depth: int = 0) -> list[tuple[object, ...]]:
    """Return what an app is to hold: routes, and groups that are included or mounted."""
    kinds = ["route", "route", "websocket"] + (["include", "mount", "router mount"] if depth < 2 else [])
    found: list[tuple[object, ...]] = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(kinds))
        if kind == "route":
            found.append((kind, draw(PATTERNS), draw(METHODS), draw(MARKS)))
        elif kind == "websocket":
            found.append((kind, draw(PATTERNS), draw(MARKS)))
        else:
            prefix = draw(st.sampled_from(["/x", "/y", f"/{{g{depth}}}", "/x/y"]))
            found.append((kind, prefix, draw(MARKS), draw(blueprints(depth + 1))))
    return found


class Built:
    """An app made of a blueprint, with a note of which handlers ran and what each is protected by."""

    def __init__(
        self, framework: type[Starlette], blueprint: Sequence[tuple[object, ...]], *, bare: bool = False
    ) -> None:
        self.bare = bare  # without a gate, `needs` would raise
        self.ran: list[int] = []
        self.protected: set[int] = set()
        self.count = 0
        self.framework = framework
        self.app = framework()
        self._fill(self.app, blueprint, protected=False)

    def _fill(self, app: Starlette | APIRouter, parts: Sequence[tuple[object, ...]], *, protected: bool) -> None:
        for part in parts:
            kind, path = part[0], str(part[1])
            if kind in {"route", "websocket"}:
                mark = part[-1]
                number = self._number(protected=protected or mark is not None)
                if kind == "route":
                    self._add_route(app, path, part[2], number, mark)  # type: ignore[arg-type]
                else:
                    self._add_socket(app, path, number, mark)
                continue
            mark, inside = part[2], part[3]
            below = protected or mark is not None
            if kind == "include" and isinstance(app, FastAPI | APIRouter):
                router = APIRouter()
                self._fill(router, inside, protected=below)  # type: ignore[arg-type]
                app.include_router(router, prefix=path, dependencies=self._needed(mark))
                self._include_covers_mounts(router, mark)
                continue
            # FastAPI's own routers run in a FastAPI app alone.
            bare_router = kind == "router mount" and self.framework is FastAPI
            sub: Starlette | APIRouter = APIRouter() if bare_router else self.framework()
            self._fill(sub, inside, protected=below)  # type: ignore[arg-type]
            mount = Mount(path, sub)
            if mark:
                guard(mount, scopes(str(mark)))
            app.routes.append(mount)

    def _include_covers_mounts(self, router: APIRouter, mark: object) -> None:
        """FastAPI's dependencies of an inclusion do not reach the mounts in it: guard those."""
        for route in router.routes:
            if mark and isinstance(route, Mount):
                guard(route, scopes(str(mark)))
            original = getattr(route, "original_router", None)
            if original is not None:
                self._include_covers_mounts(original, mark)

    def _needed(self, mark: object) -> list[Any]:
        return [needs(scopes(str(mark)))] if mark and not self.bare else []

    def _number(self, *, protected: bool) -> int:
        self.count += 1
        if protected:
            self.protected.add(self.count)
        return self.count

    def _add_route(self, app: Starlette | APIRouter, path: str, methods: list[str], number: int, mark: object) -> None:
        async def run(request: Request) -> Response:
            self.ran.append(number)
            return PlainTextResponse(f"{number} {sorted(request.path_params.items())}")

        (requires(scopes(str(mark))) if mark else public)(run)
        if isinstance(app, Starlette) and not isinstance(app, FastAPI):
            app.routes.append(Route(path, run, methods=methods))
        else:
            app.add_api_route(path, run, methods=methods)

    def _add_socket(self, app: Starlette | APIRouter, path: str, number: int, mark: object) -> None:
        async def run(websocket: WebSocket) -> None:
            self.ran.append(number)
            await websocket.accept()
            await websocket.close(4000 + number)

        (requires(scopes(str(mark))) if mark else public)(run)
        if isinstance(app, Starlette) and not isinstance(app, FastAPI):
            app.routes.append(WebSocketRoute(path, run))
        else:
            app.add_api_websocket_route(path, run)


def assert_same(one: Answer, other: Answer) -> None:
    """Assert that two answers are the same to a client, byte for byte."""
    assert one.messages == other.messages
    assert type(one.error) is type(other.error)


PATHS = st.lists(st.sampled_from(["x", "y", "z", "5", "x5", "", "x/y"]), min_size=1, max_size=5).map(
    lambda parts: "/" + "/".join(parts)
)
REQUESTS = st.lists(
    st.tuples(PATHS, st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "get", "SOCKET"])),
    min_size=1,
    max_size=6,
)


CLOSED = [{"type": "websocket.close", "code": 1008}]


@both
@given(blueprint=blueprints(), requests=REQUESTS)
def test_an_app_behind_a_gate_differs_by_its_refusals_alone(
    framework: type[Starlette], blueprint: list[tuple[object, ...]], requests: list[tuple[str, str]]
) -> None:
    """With all rights each answer is the bare app's; with none no protected handler runs, and the open ones do."""
    bare = Built(framework, blueprint, bare=True)
    entitled, anonymous = Built(framework, blueprint), Built(framework, blueprint)
    guarded(entitled.app, gate_with())
    guarded(anonymous.app, gate_with())
    everything = bearer(scope=" ".join(SCOPES))

    async def compare() -> None:
        for path, method in requests:
            kind = "websocket" if method == "SOCKET" else "http"
            incoming = CONNECT if kind == "websocket" else BODYLESS
            scope = functools.partial(scope_of, path, method, kind=kind)
            expected = await connect(bare.app, scope(), incoming)
            with_rights = await connect(entitled.app, scope(headers=everything), incoming)
            without = await connect(anonymous.app, scope(), incoming)
            did, did_with, did_without = bare.ran[:], entitled.ran[:], anonymous.ran[:]
            for built in (bare, entitled, anonymous):
                built.ran.clear()
            assert not anonymous.protected.intersection(did_without)
            if "//" in path and with_rights.messages != expected.messages:
                assert did_with == []  # the one difference: // that is no path parameter's own is refused
                continue
            assert_same(with_rights, expected)
            assert did_with == did
            assert did_without == [number for number in did if number not in bare.protected]
            # Where no handler runs, a group that the path leads into may refuse all the same.
            is_refused = without.messages == CLOSED or (kind == "http" and without.header("authz-reason") is not None)
            if did_without or (not did and not is_refused):
                assert_same(without, expected)

    asyncio.run(compare())


@pytest.mark.parametrize("name", ["app", "__call__", "matches", "handle"])
def test_a_router_class_that_dispatches_by_itself_is_a_mistake(name: str) -> None:
    """Nobody can tell what such a router runs, so that the start fails instead of a guess being made."""

    async def own(self: Router, scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("not reached")

    kind = type("OwnRouter", (Router,), {name: own})
    app = guarded(Starlette(routes=[Mount("/sub", kind([Route("/x", public(ran_by("x", [])))]))]), gate_with())
    answer = drive(app, scope_of("/sub/x"))
    assert (answer.status, answer.reason) == (500, "misconfigured")


@pytest.mark.parametrize("framework", [Starlette, FastAPI], ids=["Starlette", "FastAPI"])
def test_a_guard_on_the_whole_app_holds(framework: type[Starlette]) -> None:
    """A guard on the app that the gate stands in front of is entered by its router, wherever the gate is."""
    ran: list[str] = []
    for outside in (False, True):
        app = framework(routes=[Route("/x", requires(authenticated)(ran_by("x", ran)))])
        guard(app, any_role("admin"))
        whole: ASGIApp = app
        if outside:
            whole = AuthzMiddleware(app, gate=gate_with())
        else:
            app.add_middleware(AuthzMiddleware, gate=gate_with())
        assert drive(whole, scope_of("/x", headers=bearer())).reason == "role_required"
        assert ran == []
        assert drive(whole, scope_of("/x", headers=bearer(roles=["admin"])), BODYLESS).status == 200
        ran.clear()


def test_a_route_that_matches_in_part_and_runs_all_the_same_is_judged() -> None:
    """A route class of one's own may answer PARTIAL for reasons of its own; the router then runs it."""
    ran: list[str] = []

    class Prefer(Route):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            match, child_scope = super().matches(scope)
            return (Match.PARTIAL if match is Match.FULL else match), child_scope

    app = guarded(Starlette(routes=[Prefer("/x", requires(scopes("secret"))(ran_by("x", ran)))]), gate_with())
    assert drive(app, scope_of("/x")).reason == "missing_token"
    assert ran == []
    assert drive(app, scope_of("/x", headers=bearer(scope="secret")), BODYLESS).status == 200


def test_a_lower_case_method_does_not_slip_past_the_rule_of_its_method() -> None:
    """A class that finds its method without regard to case stands under the rule for that method too."""
    ran: list[str] = []

    class AnyCase:
        def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.arguments = (scope, receive, send)

        def __await__(self) -> Any:  # noqa: ANN401 - an ASGI class as Starlette takes it
            return self.run().__await__()

        async def run(self) -> None:
            scope, receive, send = self.arguments
            ran.append(scope["method"].lower())
            await PlainTextResponse("ran")(scope, receive, send)

    marked = requires(scopes("a"))(AnyCase)
    gate = gate_with(rules=[Rule("GET", "/e", any_role("admin"))])
    app = guarded(Starlette(routes=[Route("/e", marked)]), gate)
    answer = drive(app, scope_of("/e", "get", headers=bearer(scope="a")), BODYLESS)
    assert ran == []
    assert answer.reason == "role_required"


def test_a_route_that_runs_methods_it_does_not_name_is_judged() -> None:
    """Only Starlette's own 405 runs nothing; a class that handles for itself stands under its marks."""
    ran: list[str] = []

    class AnyMethod(Route):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    app = guarded(Starlette(routes=[AnyMethod("/x", requires(scopes("secret"))(ran_by("x", ran)))]), gate_with())
    assert drive(app, scope_of("/x", "POST")).reason == "missing_token"
    assert ran == []
    assert drive(app, scope_of("/x", "POST", headers=bearer(scope="secret")), BODYLESS).status == 200
