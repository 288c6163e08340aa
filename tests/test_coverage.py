"""Which policy each endpoint of an app stands under, as people and CI read it."""

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import (
    ConfigurationError,
    Gate,
    Requirement,
    Rule,
    any_role,
    anyone,
    authenticated,
    deny,
    guard,
    networks,
    public,
    requires,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.endpoint import Covered
from authz403.fastapi import needs
from tests.apps_made import BODYLESS, answering, drive, gate_with, guarded, scope_of

HERE = Path(__file__).name


async def plain(request: Request) -> Response:
    """Answer without a policy."""
    return PlainTextResponse("done")


@requires(scopes("orders:read"))
async def read_orders(request: Request) -> Response:
    """Answer who may read orders."""
    return PlainTextResponse("orders")


def told(rows: tuple[Covered, ...]) -> list[tuple[str, str, str | None, str]]:
    """Return of each row its method, path, part and policy."""
    return [(row.method, row.path, row.part, row.policy) for row in rows]


def test_each_route_is_told_with_its_policy_and_where_that_stands() -> None:
    """Marks, rules and the default: what applies, in words, and the line to look at."""
    rule = Rule("GET", "/health", anyone)
    rows = Gate(rules=[rule]).coverage(
        Starlette(routes=[Route("/health", plain), Route("/orders/{id}", read_orders), Route("/new", plain)])
    )
    assert told(rows) == [
        ("GET", "/health", None, "Rule(GET /health): anyone"),
        ("GET", "/orders/{id}", None, "marks: scopes('orders:read')"),
        ("GET", "/new", None, "default: no policy"),
    ]
    assert [row.endpoint for row in rows] == ["plain", "read_orders", "plain"]
    assert [row.is_default for row in rows] == [False, False, True]
    assert rows[2].written == ()
    for row, line in ((rows[0], "rule = Rule("), (rows[1], '@requires(scopes("orders:read"))')):
        (where,) = row.written
        file, _, number = where.rpartition(":")
        assert Path(file).name == HERE
        assert line in Path(__file__).read_text(encoding="utf-8").splitlines()[int(number) - 1]


def test_a_public_endpoint_is_told_by_its_mark() -> None:
    """Being open is a policy that somebody wrote, and its line is told."""

    @public
    async def open_to_all(request: Request) -> Response:
        return PlainTextResponse("open")

    (row,) = Gate().coverage(Starlette(routes=[Route("/", open_to_all)]))
    assert row.policy == "marks: anyone"
    assert not row.is_default
    assert HERE in row.written[0]


def test_a_rule_that_fits_a_part_of_a_route_has_a_row_of_its_own() -> None:
    """One route may stand under several rules: those of some of its paths, then what holds for the others."""
    gate = Gate(
        rules=[
            Rule("GET", "/orders/7", deny),
            Rule("POST", "/orders/8", anyone),
            Rule("*", "/orders/**", networks("10.0.0.0/8")),
            Rule("*", "/**", anyone),
        ]
    )
    assert told(gate.coverage(Starlette(routes=[Route("/orders/{id}", plain)]))) == [
        ("GET", "/orders/{id}", "/orders/7", "Rule(GET /orders/7): deny"),
        ("GET", "/orders/{id}", None, "Rule(* /orders/**): networks('10.0.0.0/8')"),
    ]


def test_a_path_whose_rules_name_other_methods_is_closed() -> None:
    """Where rules name the path and not the method, the table says what the gate does, whatever the default."""
    gate = Gate(rules=[Rule("GET", "/orders", anyone)], default=anyone)
    rows = gate.coverage(Starlette(routes=[Route("/orders", plain, methods=["GET", "POST"])]))
    assert told(rows) == [
        ("GET", "/orders", None, "Rule(GET /orders): anyone"),
        ("POST", "/orders", None, "default: no policy"),
    ]


def test_methods_of_a_class_are_told_apart() -> None:
    """A class-based endpoint has a row for each of its methods, each with the marks of its own; the rest is its 405."""

    class Orders(HTTPEndpoint):
        @requires(scopes("orders:read"))
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("get")

        @requires(scopes("orders:write"))
        async def post(self, request: Request) -> Response:
            return PlainTextResponse("post")

        async def delete(self, request: Request) -> Response:
            return PlainTextResponse("delete")

    rows = Gate(default=authenticated).coverage(Starlette(routes=[Route("/orders", Orders)]))
    assert told(rows) == [
        ("DELETE", "/orders", None, "default: authenticated"),
        ("GET", "/orders", None, "marks: scopes('orders:read')"),
        ("POST", "/orders", None, "marks: scopes('orders:write')"),
    ]


def test_groups_and_what_is_mounted_are_told() -> None:
    """Guards on the way count; an app that cannot be looked into is one endpoint; WebSockets and hosts are told."""

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    inner = guard(Starlette(routes=[Route("/reports", plain)]), any_role("auditor"))
    app = Starlette(
        routes=[
            Mount("/inner", inner),
            Mount("/static", StaticFiles(directory=Path(__file__).parent)),
            WebSocketRoute("/ws", socket),
            Host("admin.example", Router(routes=[Route("/", plain)])),
        ]
    )
    assert told(Gate().coverage(app)) == [
        ("GET", "/inner/reports", None, "marks: any_role('auditor')"),
        ("*", "/static/**", None, "default: no policy"),
        ("WEBSOCKET", "/ws", None, "default: no policy"),
        ("GET", "admin.example:/", None, "default: no policy"),
    ]


def test_fastapis_included_routers_are_told_with_their_prefix() -> None:
    """The path is the one that is called, and the dependencies of router and route count."""
    app = FastAPI(openapi_url=None)
    admin = APIRouter(prefix="/admin", dependencies=[needs(any_role("admin"))])
    admin.add_api_route("/orders/{id}", requires(scopes("orders:write"))(lambda: None), methods=["DELETE"])
    app.include_router(admin, prefix="/v1")
    (row,) = Gate().coverage(app)
    assert (row.method, row.path) == ("DELETE", "/v1/admin/orders/{id}")
    assert row.policy == "marks: any_role('admin') & scopes('orders:write')"
    assert len(row.written) == 2


def test_an_app_that_stands_behind_the_gate_already_is_told_alike() -> None:
    """The middleware changes nothing about the table, and nothing of the app runs."""
    gate = gate_with(default=deny)
    routes = [Route("/orders", read_orders)]
    behind = Starlette(routes=routes, middleware=[Middleware(AuthzMiddleware, gate=gate)])
    assert gate.coverage(behind) == gate.coverage(Starlette(routes=routes))
    assert gate.coverage(AuthzMiddleware(behind, gate=gate)) == gate.coverage(behind)


def test_a_route_that_is_there_twice_is_told_once() -> None:
    """Equal rows say nothing more."""
    routes = [Route("/orders", read_orders), Route("/orders", read_orders)]
    assert len(Gate().coverage(Starlette(routes=routes))) == 1


@pytest.mark.parametrize(
    "app", [None, object(), StaticFiles(directory=Path(__file__).parent)], ids=["None", "object", "files"]
)
def test_an_app_without_routes_is_a_mistake(app: object) -> None:
    """What cannot be looked into has no table, and nobody shall take an empty one for a good one."""
    with pytest.raises(ConfigurationError, match="its routes cannot be found"):
        Gate().coverage(app)


@pytest.mark.parametrize("default", [anyone, authenticated, deny], ids=repr)
def test_the_default_is_told_as_it_is(default: Requirement) -> None:
    """Whoever reads the table sees what an unmarked endpoint is open to."""
    (row,) = Gate(default=default).coverage(Starlette(routes=[Route("/new", plain)]))
    assert row.policy == ("default: no policy" if default is deny else f"default: {default!r}")
    assert row.is_default


# ---- what is really enforced


def endpoint() -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that nothing else has marked."""

    async def plain(request: Request) -> Response:
        return PlainTextResponse("plain")

    return plain


@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
def test_a_cors_middleware_is_no_matter_of_the_table(outside: bool) -> None:  # noqa: FBT001 - a row
    """Where it stands wrong, the start says so; the table tells policies."""
    gate = gate_with()
    app = FastAPI(openapi_url=None)
    app.get("/x")(requires(authenticated)(endpoint()))
    order: list[Any] = [(AuthzMiddleware, {"gate": gate}), (CORSMiddleware, {})]
    for kind, options in order if outside else order[::-1]:
        app.add_middleware(kind, **options)
    assert told(gate.coverage(app)) == [("GET", "/x", None, "marks: authenticated")]


def test_a_part_whose_rules_name_other_methods_has_a_row() -> None:
    """On that part the endpoint is closed, whatever the default."""
    gate = Gate(rules=[Rule("POST", "/orders/8", anyone)], default=anyone)
    rows = gate.coverage(Starlette(routes=[Route("/orders/{id}", endpoint(), methods=["GET", "POST"])]))
    assert told(rows) == [
        ("GET", "/orders/{id}", "/orders/8", "default: no policy"),
        ("GET", "/orders/{id}", None, "default: anyone"),
        ("POST", "/orders/{id}", "/orders/8", "Rule(POST /orders/8): anyone"),
        ("POST", "/orders/{id}", None, "default: anyone"),
    ]


def test_a_rule_that_leaves_another_nothing_of_a_part_leaves_it_no_row() -> None:
    """First the rule for GET, then the one for all: for GET, the second never applies."""
    gate = Gate(rules=[Rule("GET", "/o/7", scopes("a")), Rule("*", "/o/7", anyone)], default=authenticated)
    rows = gate.coverage(Starlette(routes=[Route("/o/{id}", endpoint())]))
    assert told(rows) == [
        ("GET", "/o/{id}", "/o/7", "Rule(GET /o/7): scopes('a')"),
        ("GET", "/o/{id}", None, "default: authenticated"),
    ]


def test_a_route_that_never_gets_a_request_has_no_row() -> None:
    """The first of two equal routes takes all; what only looks alike is told."""
    app = Starlette(
        routes=[
            Route("/x", requires(authenticated)(endpoint())),
            Route("/x", public(endpoint())),
            Route("/y/{id:int}", requires(authenticated)(endpoint())),
            Route("/y/{id}", requires(scopes("y"))(endpoint())),
        ]
    )
    assert [(row.path, row.policy) for row in Gate().coverage(app)] == [
        ("/x", "marks: authenticated"),
        ("/y/{id}", "marks: authenticated"),
        ("/y/{id}", "marks: scopes('y')"),
    ]


def test_a_part_that_an_earlier_route_takes_is_no_part() -> None:
    """A rule for /health is a matter of that route, and not of the one for any name."""
    app = Starlette(routes=[Route("/health", endpoint()), Route("/{name}", endpoint(), methods=["GET", "POST"])])
    rules = [Rule("*", "/health", anyone)]
    assert told(Gate(rules=rules).coverage(app)) == [
        ("GET", "/health", None, "Rule(* /health): anyone"),
        ("GET", "/{name}", None, "default: no policy"),
        ("POST", "/{name}", "/health", "Rule(* /health): anyone"),
        ("POST", "/{name}", None, "default: no policy"),
    ]


def test_endpoints_of_any_shape_are_told_by_name() -> None:
    """Partials, instances and frontends have names, too."""

    class Called:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("x")(scope, receive, send)

    app = Starlette(routes=[Route("/p", functools.partial(endpoint())), Route("/c", Called())])
    assert [row.endpoint for row in Gate().coverage(app)] == ["plain", "Called"]


def test_frontends_are_told_by_their_path(tmp_path: Path) -> None:
    """The files of an app and of an included router stand under their own dependencies, and under no other's."""
    (tmp_path / "index.html").write_text("hello")
    app = FastAPI(openapi_url=None)
    app.frontend("/", directory=tmp_path)
    closed = APIRouter(prefix="/back", dependencies=[needs(scopes("back"))])
    closed.frontend("/office", directory=tmp_path)
    app.include_router(closed)
    rows = Gate(default=anyone).coverage(app)
    assert told(rows) == [
        ("*", "/**", None, "default: anyone"),
        ("*", "/back/office/**", None, "marks: scopes('back')"),
    ]
    guarded(app, gate_with(default=anyone))
    assert drive(app, scope_of("/index.html"), BODYLESS).body == b"hello"
    assert drive(app, scope_of("/back/office/index.html")).status == 401


def test_paths_are_written_alike_everywhere() -> None:
    """A Mount's parameters as a route's: by their names."""
    app = Starlette(routes=[Mount("/t/{tenant:int}", routes=[Route("/o/{order:int}", endpoint())])])
    assert [row.path for row in Gate().coverage(app)] == ["/t/{tenant}/o/{order}"]


def test_methods_that_nobody_knows_have_rows_where_policies_name_them() -> None:
    """A rule or a class may serve methods of its own."""
    app = Starlette(routes=[Mount("/dav", app=answering("dav", []))])
    gate = Gate(rules=[Rule("MKCOL", "/dav/**", authenticated)])
    assert [(row.method, row.is_default) for row in gate.coverage(app)] == [("MKCOL", False), ("*", True)]


def test_an_app_that_a_router_falls_back_to_is_told_by_its_own_paths() -> None:
    """It sees the whole path, so that its routes stand where they say."""
    inner = Starlette(routes=[Route("/legacy/x", endpoint())])
    by_route = Router([Route("/legacy/{rest:path}", inner)])
    assert [row.path for row in Gate().coverage(by_route)] == ["/legacy/x"]
    assert [row.path for row in Gate().coverage(Router(default=inner))] == ["/legacy/x"]


def test_groups_that_are_told_apart_by_more_than_their_path_each_have_rows() -> None:
    """A class that matches by a header leaves the next one something."""

    class ByVersion(Mount):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return super().matches(scope) if dict(scope["headers"]).get(b"v") else (Match.NONE, {})

    routes = [ByVersion("/m", routes=[Route("/x", endpoint())]), Mount("/m", routes=[Route("/x", endpoint())])]
    assert [row.path for row in Gate().coverage(Starlette(routes=routes))] == ["/m/x", "/m/x"]
