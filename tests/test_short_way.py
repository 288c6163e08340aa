"""The short way: it says what the long way says, and leaves to that whatever takes more than looking up."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router, request_response
from starlette.types import Receive, Scope, Send

from authz403 import (
    BearerTokens,
    Cors,
    Gate,
    Network,
    Rbac,
    Reason,
    Requirement,
    Rule,
    any_role,
    any_scope,
    anyone,
    authenticated,
    claim,
    guard,
    networks,
    optional,
    permissions,
    requirement,
    requires,
    roles,
    scopes,
)
from authz403.address_file import AddressFile
from authz403.addresses import Address, AddressSet, parse_address
from authz403.asgi import AuthzMiddleware
from authz403.decision import Outcome
from authz403.facts import Facts
from authz403.leaves import Authenticated, Held, Scopes
from authz403.need import Need
from authz403.policy import Kind, Unmet
from authz403.principal import Principal
from authz403.request import AccessRequest
from authz403.routing import Trail, Way
from authz403.short_way import ShortWay
from authz403.testing import acting_as
from authz403.walk import AppRoutes
from tests.apps_made import (
    AUDIENCE,
    ISSUER,
    NOW,
    ORIGIN,
    SECRET,
    TOKENS,
    Answer,
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

OFFICE = networks("10.0.0.0/8")
PROXIED = Network(trusted_proxies=["127.0.0.1"])


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that gets, for each request, whether the short way knew what becomes of it."""
    found: list[bool] = []
    outcome = ShortWay.outcome

    def noted(self: ShortWay, scope: Scope, trail: Trail) -> object:
        known = outcome(self, scope, trail)
        found.append(isinstance(known, Outcome))
        return known

    monkeypatch.setattr(ShortWay, "outcome", noted)
    return found


def app_of(needed: Requirement, gate: Gate | None = None, path: str = "/x", method: str = "GET") -> Starlette:
    """Return a guarded app with one endpoint."""
    endpoint = requires(needed)(ran_by("x", []))
    return guarded(Starlette(routes=[Route(path, endpoint, methods=[method])]), gate or gate_with())


def twice(app: Starlette, path: str = "/x", headers: Mapping[str, str] | None = None, **more: object) -> Answer:
    """Send the same request twice, as the first one may have to find out what the second one can look up."""
    scope = scope_of(path, headers=headers or {}, **more)  # type: ignore[arg-type]  # members of a scope
    drive(app, dict(scope))
    return drive(app, scope)


FORWARDED = {"X-Forwarded-For": "10.1.2.3"}


@pytest.mark.parametrize(
    ("needed", "headers", "network", "status"),
    [
        pytest.param(anyone, {}, None, 200, id="public"),
        pytest.param(authenticated, bearer(), None, 200, id="signed in"),
        pytest.param(scopes("a") & roles("r"), bearer(scope="a", roles=["r"]), None, 200, id="scope and role"),
        pytest.param(scopes("a") | roles("r"), bearer(scope="a"), None, 200, id="one of two"),
        pytest.param(authenticated & ~scopes("a"), bearer(scope="b"), None, 200, id="without a scope"),
        pytest.param(scopes("a"), bearer(scope="b"), None, 403, id="a scope missing"),
        pytest.param(scopes("a") | roles("r"), bearer(scope="b"), None, 403, id="both of two missing"),
        pytest.param(permissions("p"), bearer(permissions=["q"]), None, 403, id="a permission missing"),
        pytest.param(scopes("a"), {}, None, 401, id="no token"),
        pytest.param(networks("127.0.0.1") & scopes("a"), bearer(scope="a"), None, 200, id="the peer's network"),
        pytest.param(OFFICE & scopes("a"), bearer(scope="a") | FORWARDED, PROXIED, 200, id="behind a proxy"),
        pytest.param(OFFICE & scopes("a"), bearer(scope="b") | FORWARDED, PROXIED, 403, id="refused behind a proxy"),
    ],
)
@pytest.mark.parametrize("path", ["/x", "/{name}"], ids=["written out", "with a parameter"])
def test_what_is_known_is_looked_up(
    needed: Requirement, headers: dict[str, str], network: Network | None, status: int, path: str, taken: list[bool]
) -> None:
    """A public endpoint, what the caller holds, and networks of the usual ways, allowed or refused."""
    assert twice(app_of(needed, gate_with(network=network), path), headers=headers).status == status
    assert taken[-1]


class Session:
    """Knows its callers by a cookie."""

    fields = ("cookie",)

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        return Principal(sub="ada") if "cookie" in request.fields else None


def revoked(principal: Principal) -> bool:
    """Say that nobody is revoked."""
    return False


GIVEN: dict[str, str] = bearer(scope="a")


@pytest.mark.parametrize(
    ("needed", "options", "more", "status"),
    [
        pytest.param(scopes("a"), {}, {"method": "OPTIONS"}, 405, id="OPTIONS"),
        pytest.param(scopes("a"), {}, {"method": "get"}, 405, id="a method that nobody knows"),
        pytest.param(scopes("a"), {}, {"root_path": "/api", "path": "/api/x"}, 200, id="a root path"),
        pytest.param(scopes("a"), {}, {"path": "/nothing"}, 404, id="no route"),
        pytest.param(scopes("a"), {}, {"path": "/x//y"}, 400, id="a path that readers shorten"),
        pytest.param(scopes("a"), {}, {"headers": [*GIVEN.items(), *GIVEN.items()]}, 400, id="two tokens"),
        pytest.param(scopes("a"), {}, {"headers": [*GIVEN.items(), ("A", "1"), ("A", "2")]}, 200, id="two lines"),
        pytest.param(scopes("a"), {}, {"headers": {"Authorization": "Basic eDp5"}}, 401, id="another scheme"),
        pytest.param(scopes("a").concealed(), {}, {}, 200, id="concealed"),
        pytest.param(claim("sub", "ada"), {}, {}, 200, id="a claim"),
        pytest.param(requirement("own", lambda _: True), {}, {}, 200, id="code of one's own"),
        pytest.param(optional, {}, {}, 200, id="optional"),
        pytest.param(networks("10.0.0.0/8") & scopes("a"), {}, {}, 403, id="a foreign network"),
        pytest.param(networks("127.0.0.1"), {}, {}, 200, id="a network alone"),
        pytest.param(scopes("a"), {"tokens": [TOKENS, Session()]}, {"headers": {}}, 401, id="other sources, no token"),
    ],
)
def test_what_takes_more_goes_the_long_way(
    needed: Requirement, options: dict[str, Any], more: dict[str, Any], status: int, taken: list[bool]
) -> None:
    """Nothing is said of what has to be read, walked or asked."""
    assert twice(app_of(needed, gate_with(**options)), **{"headers": GIVEN, **more}).status == status
    assert taken == [False, False]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"rbac": Rbac(roles_for=lambda _: ["r"])}, id="roles looked up"),
        pytest.param(
            {
                "tokens": BearerTokens(
                    issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"], is_revoked=revoked
                )
            },
            id="revocation",
        ),
    ],
)
def test_where_callers_are_asked_about_each_time_there_is_none(options: dict[str, Any], taken: list[bool]) -> None:
    """A role or a revocation may change between two requests."""
    assert twice(app_of(scopes("a"), gate_with(**options)), headers=GIVEN).status == 200
    assert taken == []


@pytest.mark.parametrize("place", ["policy", "allow", "deny"])
def test_a_network_that_may_change_is_asked_each_time(place: str, tmp_path: Path, taken: list[bool]) -> None:
    """A list in a file may let in other addresses the next time."""
    listed = tmp_path / "offices"
    listed.write_text("10.0.0.0/8\n" if place == "deny" else "127.0.0.1\n")
    addresses = AddressFile(listed)
    needed = networks(addresses) & scopes("a") if place == "policy" else scopes("a")
    network = {"policy": None, "allow": Network(allow=addresses), "deny": Network(deny=[addresses])}[place]
    assert twice(app_of(needed, gate_with(network=network)), headers=GIVEN).status == 200
    assert taken == [False, False]


@pytest.mark.parametrize(
    ("needed", "claims", "otherwise"),
    [
        pytest.param(scopes("a"), {"scope": "a"}, {"scope": "b"}, id="scopes"),
        pytest.param(any_role("r"), {"roles": ["r"]}, {"roles": ["s"]}, id="roles"),
        pytest.param(permissions("p"), {"permissions": ["p"]}, {"permissions": ["q"]}, id="permissions"),
        pytest.param(scopes("a") & claim("tenant", "acme"), {"tenant": "acme"}, {"tenant": "evil"}, id="and a claim"),
        pytest.param(scopes("c") | claim("tenant", "acme"), {"tenant": "acme"}, {"tenant": "evil"}, id="or a claim"),
        pytest.param(scopes("a") & ~claim("tenant", "evil"), {"tenant": "acme"}, {"tenant": "evil"}, id="not a claim"),
        pytest.param(scopes("a") & networks("127.0.0.1"), {}, {"scope": "b"}, id="scopes in a network"),
    ],
)
def test_whoever_differs_in_anything_looked_at_is_judged_apart(
    needed: Requirement, claims: dict[str, object], otherwise: dict[str, object]
) -> None:
    """What one caller may do says nothing of another who holds, or claims, something else."""
    app = app_of(needed)
    one, other = bearer(**{"scope": "a", **claims}), bearer("eve", **{"scope": "a", **otherwise})  # type: ignore[arg-type]
    assert [drive(app, scope_of("/x", headers=who)).status for who in (one, other, one, other)] == [200, 403, 200, 403]


def test_one_proxy_brings_callers_from_everywhere() -> None:
    """Who came in by a proxy says nothing of whom else it speaks for."""
    app = app_of(OFFICE & scopes("a"), gate_with(network=PROXIED))
    ways = [{"X-Forwarded-For": address} for address in ("10.1.2.3", "8.8.8.8", "10.1.2.3", "8.8.8.8")]
    assert [drive(app, scope_of("/x", headers=GIVEN | way)).status for way in ways] == [200, 403, 200, 403]
    assert drive(app, scope_of("/x", headers=GIVEN)).status == 403
    assert drive(app, scope_of("/x", headers=GIVEN | ways[0], client=("127.0.0.2", 1))).status == 403


class Open(Requirement):
    """What somebody else makes of requirements: it tells what is in it, and looks at something else besides."""

    kind = Kind.SCOPE
    needs_identity = True
    tokenless = False

    def __init__(self, inner: Requirement) -> None:
        self.inner = inner
        self.is_open = True

    def leaves(self) -> Iterable[Requirement]:
        return self.inner.leaves()

    def check(self, facts: Facts) -> Unmet | None:
        return self.inner.check(facts) or (None if self.is_open else Unmet(Kind.OWN, "closed"))


class Closing:
    """What somebody else makes of a requirement of ours."""

    is_open = True

    def check(self, facts: Facts) -> Unmet | None:
        return super().check(facts) or (None if self.is_open else Unmet(Kind.OWN, "closed"))  # type: ignore[misc]  # of a requirement


class OpenScopes(Closing, Scopes):
    pass


class OpenRoles(Closing, Held):
    pass


class OpenToAll(Closing, Authenticated):
    pass


@pytest.mark.parametrize(
    "needed",
    [
        Open(scopes("a")),
        OpenScopes(("a",), one_is_enough=False),
        OpenRoles("role", ("r",), one_is_enough=True),
        OpenToAll(),
    ],
    ids=lambda needed: type(needed).__name__,
)
def test_requirements_of_ones_own_are_asked_each_time(needed: Any) -> None:  # noqa: ANN401 - each can be closed
    """Nothing is taken for a requirement of this library that is not."""
    needed.is_open = True
    app = app_of(needed)
    given = bearer(scope="a", roles=["r"])
    assert twice(app, headers=given).status == 200
    needed.is_open = False
    assert twice(app, headers=given).status == 403


class Offices(AddressSet):
    """A list of somebody's own, which may close."""

    is_open = True

    def __contains__(self, address: object) -> bool:
        return self.is_open


def test_lists_of_ones_own_are_asked_each_time() -> None:
    """Nothing is taken for a list of this library that is not."""
    offices = Offices(["10.0.0.0/8"])
    app = app_of(networks(offices) & scopes("a"))
    assert twice(app, headers=GIVEN).status == 200
    offices.is_open = False
    assert twice(app, headers=GIVEN).status == 403


class Moving(Network):
    """Finds the client's address in a way of its own."""

    addresses: ClassVar = ["10.1.2.3"]

    def client_address(self, request: AccessRequest) -> Address | None:
        return parse_address(self.addresses[-1])


class Maintained(Gate):
    """Refuses everybody for a while."""

    is_open = True

    def decide(self, request: AccessRequest, *more: Any, **named: Any) -> Outcome | Need[Outcome]:  # noqa: ANN401 - as it is
        if self.is_open:
            return super().decide(request, *more, **named)
        return self.refused(request, Reason.POLICY_UNAVAILABLE, "closed for maintenance")


def test_what_somebody_made_of_a_part_is_asked_each_time() -> None:
    """A gate or a network of somebody's own has the last word."""
    app = app_of(OFFICE & scopes("a"), gate_with(network=Moving()))
    assert twice(app, headers=GIVEN).status == 200
    Moving.addresses.append("8.8.8.8")
    assert drive(app, scope_of("/x", headers=GIVEN)).status == 403
    gate = Maintained(tokens=TOKENS, clock=lambda: NOW)
    app = app_of(scopes("a"), gate)
    assert twice(app, headers=GIVEN).status == 200
    gate.is_open = False
    assert drive(app, scope_of("/x", headers=GIVEN)).status == 503


def test_the_header_that_is_read_first_says_who_asks() -> None:
    """A token that was verified in one header is none in another."""
    tokens = BearerTokens(
        issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"], read_from=["x-token", "authorization"]
    )
    app = app_of(scopes("a"), gate_with(tokens=tokens))
    assert twice(app, headers=GIVEN).status == 200
    poor = {"X-Token": bearer("eve", scope="b")["Authorization"].removeprefix("Bearer ")}
    assert twice(app, headers=poor).status == 403
    assert twice(app, headers=GIVEN | poor).status == 403


def test_what_is_read_late_is_what_came(taken: list[bool]) -> None:
    """The event tells of the request that was decided on, whatever became of it on its way."""

    async def endpoint(request: Request) -> Response:
        scope = request.scope
        scope["path"] = "/elsewhere"
        scope["client"][0] = "203.0.113.9"
        scope["headers"][:] = [(b"x-forwarded-for", b"203.0.113.10")]
        return PlainTextResponse("x")

    app = guarded(Starlette(routes=[Route("/x", requires(scopes("a"))(endpoint))]), gate_with(network=PROXIED))
    for _ in range(3):  # until nothing has to be found out
        with listening() as events:
            answer = drive(app, scope_of("/x", headers=GIVEN | FORWARDED, client=["127.0.0.1", 50_000]))
        assert answer.status == 200
        told = {name: events[-1][name] for name in ("event", "path", "peer", "client_ip", "forwarded_for")}
        assert told == {
            "event": "authz.allowed",
            "path": "/x",
            "peer": "127.0.0.1",
            "client_ip": "10.1.2.3",
            "forwarded_for": "10.1.2.3",
        }
    assert taken == [False, True, True]


def test_the_address_is_that_which_the_outer_gate_saw() -> None:
    """A layer between two gates does not move the caller into another network."""
    inner = wrapped(Starlette(routes=[Route("/x", ran_by("x", []))]), gate_with(rules=[Rule("GET", "/x", OFFICE)]))

    async def between(scope: Scope, receive: Receive, send: Send) -> None:
        scope["client"][0] = "10.0.0.1"
        await inner(scope, receive, send)

    outer = guarded(Starlette(routes=[Mount("/", between)]), gate_with(rules=[Rule("GET", "/**", anyone)]))
    for _ in range(3):
        assert drive(outer, scope_of("/x", client=["127.0.0.1", 50_000])).status == 403


def test_the_time_that_a_request_took_is_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it took to find the route is part of it, on either way."""
    now = iter(range(1_000_000))
    for room in ("short_way", "gate", "audit"):
        monkeypatch.setattr(f"authz403.{room}.perf_counter", lambda: next(now))
    find = AppRoutes.find

    def slow(self: AppRoutes, native: tuple[Scope, Trail, str]) -> Way:
        for _ in range(500):
            next(now)
        return find(self, native)

    monkeypatch.setattr(AppRoutes, "find", slow)
    for needed in (scopes("a"), claim("sub", "ada")):
        app = app_of(needed, path="/{name}")
        with listening() as events:
            twice(app, headers=GIVEN)
        assert [int(str(event["duration_us"])) >= 500_000_000 for event in events] == [True, True]
        before = next(now)
        said = short_way_of(app).outcome(scope_of("/x", headers=GIVEN), [])
        assert said is not None
        assert said.started == before + 1


def test_what_was_found_before_a_change_is_not_remembered_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that closes the app while another one looks for a path closes it for all requests to come."""
    app = Starlette(
        routes=[Route("/x", requires(anyone)(ran_by("x", []))), Route("/y", requires(anyone)(ran_by("y", [])))]
    )
    middleware = AuthzMiddleware(app, gate=gate_with())
    assert drive(middleware, scope_of("/y")).status == 200
    find = AppRoutes.find
    closing = iter(["now"])

    def interrupted(self: AppRoutes, native: tuple[Scope, Trail, str]) -> Way:
        found = find(self, native)
        if native[2] == "/x" and next(closing, None):
            guard(app, scopes("admin"))
            find(self, (scope_of("/y"), [], "/y"))  # which walks anew, as another thread's request does
        return found

    monkeypatch.setattr(AppRoutes, "find", interrupted)
    statuses = [drive(middleware, scope_of("/x")).status for _ in range(4)]
    assert statuses[1:] == [401, 401, 401]


def test_a_path_that_was_doubted_is_asked_for_anew() -> None:
    """Where a latch finds that the router chose otherwise, what was found of the path is no longer believed."""
    first = Route("/x", requires(scopes("a"))(ran_by("first", [])))
    app = Starlette(routes=[first, Route("/{name}", requires(scopes("a"))(ran_by("second", [])))])
    client = client_of(guarded(app, gate_with()))
    assert [client.get("/x", headers=GIVEN).text for _ in range(2)] == ["first", "first"]
    first.path_regex = re.compile("^/elsewhere$")
    assert client.get("/x", headers=GIVEN).status_code == 500
    assert client.get("/x", headers=GIVEN).text == "second"


def test_an_included_router_is_looked_at(taken: list[bool]) -> None:
    """What is added to a router of FastAPI that was included before counts at once."""
    app, inner = FastAPI(), APIRouter()
    inner.add_api_route("/x", requires(scopes("a"))(ran_by("old", [])), methods=["GET"])
    app.include_router(inner)
    new = requires(scopes("b"))(ran_by("new", []))
    client = client_of(guarded(app, gate_with()))
    assert [client.get("/x", headers=GIVEN).text for _ in range(2)] == ["old", "old"]
    assert taken == [False, True]
    inner.routes = [APIRoute("/x", new, methods=["GET"])]
    assert client.get("/x", headers=GIVEN).status_code != 200


def test_a_token_ends_on_the_short_way_too(taken: list[bool]) -> None:
    """What is remembered of a token ends with it."""
    now = NOW
    app = app_of(scopes("a"), Gate(tokens=TOKENS, clock=lambda: now))
    assert twice(app, headers=GIVEN).status == 200
    now += 1_000
    assert drive(app, scope_of("/x", headers=GIVEN)).reason == "token_expired"
    assert taken == [False, True, False]


def test_a_token_of_other_bytes_is_another_token(taken: list[bool]) -> None:
    """Bytes that are no ASCII are never taken for the token that they would be in another encoding."""
    app = app_of(authenticated)
    twice(app, headers=GIVEN)
    line = GIVEN["Authorization"]
    for other in (
        *(line + "\xe4", line + "\xc3\xa4", line + " ", "bearer" + line[6:]),
        line[:-1] + chr(ord(line[-1]) ^ 1),
    ):
        drive(app, scope_of("/x", headers={"Authorization": other}))
        assert not taken.pop()


@pytest.mark.parametrize("change", ["a route before it", "another list", "another endpoint", "a policy"])
def test_other_routes_are_seen_at_once(change: str, taken: list[bool]) -> None:
    """What was found of a path that is written out holds for as long as the routes are as they were."""
    app = Starlette(routes=[Route("/x", requires(scopes("a"))(ran_by("old", [])))])
    client = client_of(guarded(app, gate_with()))
    new = requires(scopes("b"))(ran_by("new", []))
    assert [client.get("/x", headers=GIVEN).text for _ in range(2)] == ["old", "old"]
    assert taken == [False, True]
    match change:
        case "a route before it":
            app.router.routes.insert(0, Route("/x", new))
        case "another list":
            app.router.routes = [Route("/x", new)]
        case "another endpoint":
            route: Any = app.router.routes[0]
            route.endpoint, route.app = new, request_response(new)
        case "a policy":
            requires(scopes("b"))(app.router.routes[0].endpoint)  # type: ignore[attr-defined]  # it has one
    assert client.get("/x", headers=GIVEN).status_code == 403


@pytest.mark.parametrize("between", [(), ("/nothing",)], ids=["at once", "after another request"])
def test_another_router_behind_the_gate_is_seen_at_once(between: tuple[str, ...]) -> None:
    """A layer that leads to another router now leads to that one's policies."""
    app = Starlette(routes=[Route("/x", requires(scopes("a"))(ran_by("old", [])))])
    other = Router([Route("/x", requires(scopes("b"))(ran_by("new", [])))])
    middleware = AuthzMiddleware(app, gate=gate_with())
    assert [drive(middleware, scope_of("/x", headers=GIVEN)).status for _ in range(2)] == [200, 200]
    app.router = other
    app.middleware_stack = None
    for path in between:
        assert drive(middleware, scope_of(path, headers=GIVEN)).status == 404
    assert drive(middleware, scope_of("/x", headers=GIVEN)).status == 403


def short_way_of(app: Starlette) -> ShortWay:
    """Return the short way of a guarded app that has served a request."""
    layer: Any = app.middleware_stack
    while not isinstance(layer, AuthzMiddleware):
        layer = layer.app
    assert layer._met is not None
    assert layer._met.short_way is not None
    return layer._met.short_way


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways, decisions and paths: no client can make the memory grow."""
    monkeypatch.setattr("authz403.short_way._MOST_SENDERS", 64)
    monkeypatch.setattr("authz403.short_way._MOST_CALLERS", 64)
    app = app_of(networks("10.0.0.0/8") & (scopes("a") | roles("r")), gate_with(network=PROXIED), "/{name}")
    drive(app, scope_of("/x"))
    short = short_way_of(app)
    for number in range(200):
        short.outcome(scope_of("/x", headers={"X-Forwarded-For": f"10.1.2.{number}"}), [])
        twice(app, f"/{number}", bearer(scope=f"a s{number}") | FORWARDED)
    assert 0 < len(short._admitted) <= 64
    assert 0 < len(short._judged) <= 64
    assert short._lanes == {}
    short._judged.clear()
    many = " ".join(f"s{number}" for number in range(100))
    drive(app, scope_of("/x", headers=bearer(scope=f"a {many}") | FORWARDED))
    drive(app, scope_of("/x", headers=bearer(scope=f"a {many}") | FORWARDED))
    assert short._judged == {}
    short.outcome(scope_of("/x", headers={"X-Forwarded-For": " " * 300 + "10.9.9.9"}), [])
    assert all(len(line or b"") <= 256 for _, _, line in short._admitted)


def test_what_is_known_of_a_policy_keeps_it() -> None:
    """Another policy may not get the id of one that is gone, with what is known of that."""
    app = app_of(networks("127.0.0.1") & scopes("a"))
    twice(app, headers=GIVEN)
    short = short_way_of(app)
    ((number, *_), admitted), *_ = short._admitted.items()
    ((of_whom, *_), (judged, _)), *_ = short._judged.items()
    assert number == of_whom == id(admitted) == id(judged)


def test_paths_of_routes_that_are_gone_are_forgotten() -> None:
    """A path that is written out is remembered for one walk through the app."""
    app = Starlette(routes=[Route(f"/{name}", requires(anyone)(ran_by(name, []))) for name in "abc"])
    client = client_of(guarded(app, gate_with()))
    for name in "abc":
        client.get(f"/{name}")
    assert {path for path, _ in short_way_of(app)._lanes} == {"/a", "/b", "/c"}
    del app.router.routes[1:]
    for _ in range(2):  # the first of which walks
        client.get("/a")
    assert {path for path, _ in short_way_of(app)._lanes} == {"/a"}


@pytest.mark.parametrize("client", [5, {"host": "127.0.0.1"}, "127.0.0.1", (["127.0.0.1"], 1)], ids=repr)
def test_a_peer_of_the_wrong_shape_lets_nobody_in(client: object, taken: list[bool]) -> None:
    """A server's own mistake is met where it is told of, before anything runs."""
    ran: list[str] = []
    endpoint = requires(networks("127.0.0.1") & scopes("a"))(ran_by("x", ran))
    app = guarded(Starlette(routes=[Route("/x", endpoint)]), gate_with())
    assert twice(app, headers=GIVEN).status == 200
    ran.clear()
    drive(app, scope_of("/x", headers=GIVEN, client=client))
    assert (ran, taken[-1]) == ([], False)


def test_a_header_of_the_wrong_shape_does_not_lose_the_answer() -> None:
    """What is read late, for the log, is left out there."""
    app = app_of(anyone)
    assert twice(app).status == 200
    with listening() as events:
        answer = drive(app, {**scope_of("/x"), "headers": [(b"via", "a proxy")]})
    assert (answer.status, answer.error) == (200, None)
    assert [(event["event"], event["path"]) for event in events] == [("authz.allowed", "/x")]


def test_headers_that_can_be_read_once_are_read_by_who_decides() -> None:
    """ASGI has any iterable there."""
    app = app_of(scopes("a"))
    assert twice(app, headers=GIVEN).status == 200
    scope = scope_of("/x", headers=GIVEN)
    assert [drive(app, {**scope, "headers": iter(scope["headers"])}).status for _ in range(2)] == [200, 200]


def test_who_acts_in_a_test_is_no_stranger_of_before() -> None:
    """What was decided of nobody says nothing of somebody whom a test lets act without a token."""
    app = app_of(scopes("a"))
    client = client_of(app)
    assert [client.get("/x").status_code for _ in range(2)] == [401, 401]
    with acting_as(app, scopes={"a"}):
        assert client.get("/x").status_code == 200
    assert client.get("/x").status_code == 401


# ---- any policy, any caller

NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(
    st.lists(NAMES, min_size=1, unique=True).map(lambda names: scopes(*names)),
    st.lists(NAMES, min_size=1, unique=True).map(lambda names: any_scope(*names)),
    st.lists(NAMES, min_size=1, unique=True).map(lambda names: any_role(*names)),
    st.lists(NAMES, min_size=1, unique=True).map(lambda names: permissions(*names)),
    st.sampled_from([authenticated, anyone, networks("10.0.0.0/8"), networks("10.1.0.0/16", "192.0.2.1"), optional]),
    st.sampled_from([claim("tenant", "acme"), claim("tenant", "evil")]),
)
POLICIES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        inner.map(lambda one: ~one),
    ),
    max_leaves=5,
)
HELD = st.lists(NAMES, unique=True)
CALLERS: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}),
    st.tuples(HELD, HELD, HELD, st.sampled_from(["acme", "evil"])).map(
        lambda held: bearer(scope=" ".join(held[0]), roles=held[1], permissions=held[2], tenant=held[3])
    ),
)
PEERS = st.sampled_from(["127.0.0.1", "10.1.2.3", "::1", None])
LINES = st.fixed_dictionaries(
    {},
    optional={
        "X-Forwarded-For": st.sampled_from(["10.1.2.3", "192.0.2.1", "8.8.8.8", "10.1.2.3, 127.0.0.1", "nonsense", ""]),
        "Origin": st.sampled_from([ORIGIN, "https://else.example", "null", "", f"{ORIGIN}, {ORIGIN}", "https://ä"]),
        "Cookie": st.just("a=b"),
    },
)


@pytest.mark.usefixtures("quiet")
@given(POLICIES, PEERS, st.lists(st.tuples(CALLERS, LINES), max_size=5))
def test_both_ways_say_the_same(
    needed: Requirement, peer: str | None, asked: list[tuple[dict[str, str], dict[str, str]]]
) -> None:
    """Whatever the policy, the caller and the way: every request is judged both ways, and again when all is known."""
    gate = gate_with(
        network=PROXIED, cors=Cors(origins=[ORIGIN]), rules=[Rule("GET", "/y/**", networks("0.0.0.0/0"))], shared=True
    )
    endpoint = requires(needed)(ran_by("x", []))
    inner = Route("/x", endpoint)
    app = guarded(Starlette(routes=[inner, Route("/{name}/z", endpoint), Mount("/m", routes=[inner])]), gate)
    for caller, lines in [*asked, *asked]:
        headers = {name: value.encode().decode("latin-1") for name, value in lines.items()}
        headers |= caller
        for path in ("/x", "/y/z", "/m/x"):
            client = None if peer is None else (peer, 50_000)
            statuses = {drive(app, scope_of(path, headers=headers, client=client)).status for _ in range(2)}
            assert len(statuses) == 1
            assert statuses < {200, 401, 403}
