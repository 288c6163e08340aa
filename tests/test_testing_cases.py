import unittest
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import flask
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path, re_path
from fastapi import FastAPI, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

import authz403.flask
import authz403.wsgi
from authz403 import (
    AddressFile,
    BearerTokens,
    ConfigurationError,
    Network,
    Rbac,
    Reason,
    Requirement,
    Rule,
    any_permission,
    any_role,
    any_scope,
    anyone,
    authenticated,
    check,
    claim,
    csrf_protected,
    deny,
    networks,
    optional,
    param,
    permissions,
    public,
    requirement,
    requires,
    roles,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.testing import Authz, BoundaryCase, boundary_cases
from tests import gates_made, wsgi_made
from tests.django_made import OURS, Project
from tests.kit_made import FRAMEWORKS, Session, app_of, fastapi_app, gate_with, starlette_app
from tests.tokens_made import public_pem

BAD: Final = [
    "with an expired token: token_expired",
    "with a token for another audience: wrong_audience",
    "with a token of another key: invalid_token",
]


def told(cases: list[BoundaryCase]) -> list[str]:
    """Return what each case is about and what must become of it."""
    return [f"{case.label}: {'skipped' if case.skipped_because else case.reason or 'passes'}" for case in cases]


def app_with(needed: Requirement, path: str = "/orders/{number}", method: str = "POST", **options: Any) -> FastAPI:  # noqa: ANN401 - any option of a gate
    """Return an app of one endpoint."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(AuthzMiddleware, gate=gate_with(**options))
    app.api_route(path, methods=[method])(requires(needed)(lambda: "made"))
    return app


def hold(authz: Authz, cases: list[BoundaryCase]) -> None:
    """Run all cases that can be."""
    for case in cases:
        if case.skipped_because is None:
            authz.check(case)


# ---- which cases there are


POLICIES: Final[Mapping[str, tuple[Requirement, list[str]]]] = {
    "anyone": (anyone, ["with all that is needed: passes"]),
    "deny": (deny, ["whoever asks: access_denied"]),
    "authenticated": (
        authenticated,
        ["without a token: missing_token", *BAD, "with all that is needed: passes"],
    ),
    "optional": (optional, [*BAD, "with all that is needed: passes"]),
    "scopes": (
        scopes("a", "b"),
        [
            "without a token: missing_token",
            *BAD,
            "without the scope a: insufficient_scope",
            "without the scope b: insufficient_scope",
            "with all that is needed: passes",
        ],
    ),
    "any": (
        any_scope("a", "b") & any_role("x", "y") & any_permission("p", "q"),
        [
            "without a token: missing_token",
            *BAD,
            "without the scope a: insufficient_scope",
            "without the role x: role_required",
            "without the permission p: permission_required",
            "with all that is needed: passes",
        ],
    ),
    "claims": (
        claim("plan", "pro", "team") & claim("level", 1),
        [
            "without a token: missing_token",
            *BAD,
            "without the claim plan: claim_required",
            "without the claim level: claim_required",
            "with all that is needed: passes",
        ],
    ),
    "owner": (
        param("number", claim="orders"),
        [
            "without a token: missing_token",
            *BAD,
            "without the claim orders: not_owner",
            "with another orders: not_owner",
            "with all that is needed: passes",
        ],
    ),
    "step-up": (
        authenticated.stepped_up(acr_values=["mfa"], max_age=60),
        [
            "without a token: missing_token",
            *BAD,
            "with an old sign-in: step_up_required",
            "without the claim acr: step_up_required",
            "with all that is needed: passes",
        ],
    ),
    "networks": (
        networks("10.0.0.0/8", "fd00::/8"),
        ["from a foreign network: ip_not_allowed", "with all that is needed: passes"],
    ),
    "network-and-role": (
        networks("10.0.0.0/8") & roles("admin"),
        [
            "without a token: missing_token",
            *BAD,
            "without the role admin: role_required",
            "from a foreign network: ip_not_allowed",
            "with all that is needed: passes",
        ],
    ),
    "not": (
        authenticated & ~roles("guest") & ~networks("10.0.0.0/8") & ~claim("locked", True) & ~scopes("x"),  # noqa: FBT003 - a value
        [
            "without a token: missing_token",
            *BAD,
            "with the role guest: access_denied",
            "with the claim locked: access_denied",
            "with the scope x: access_denied",
            "from a foreign network: access_denied",
            "with all that is needed: passes",
        ],
    ),
    "or": (
        scopes("a") | networks("10.0.0.0/8"),
        [
            "without a token: ip_not_allowed",
            "with an expired token: ip_not_allowed",
            "with a token for another audience: ip_not_allowed",
            "with a token of another key: ip_not_allowed",
            "without the scope a (of scopes('a')): insufficient_scope",
            "from a foreign network: ip_not_allowed",
            "with scopes('a'): passes",
            "with networks('10.0.0.0/8'): passes",
        ],
    ),
    "csrf": (
        csrf_protected() & authenticated,
        [
            "without a token: missing_token",
            *BAD,
            "from a page of another site: csrf_failed",
            "with all that is needed: passes",
        ],
    ),
    "own": (
        requirement("plan_expired", lambda _: 1 / 0 > 1) & scopes("a"),
        [
            "without a token: missing_token",
            *BAD,
            "without the scope a: insufficient_scope",
            "with all that is needed: skipped",
        ],
    ),
    "predicate": (
        claim("age", lambda age: age > 17),
        ["without a token: missing_token", *BAD, "with all that is needed: skipped"],
    ),
    "not-own": (
        ~requirement("plan_expired", lambda _: True) & authenticated,
        ["without a token: missing_token", *BAD, "with all that is needed: skipped"],
    ),
    "impossible": (
        networks("10.0.0.0/8") & networks("192.168.0.0/16"),
        ["from a foreign network: ip_not_allowed", "with all that is needed: skipped"],
    ),
    "contradiction": (
        scopes("a") & ~scopes("a"),
        [
            "without a token: missing_token",
            *BAD,
            "without the scope a: insufficient_scope",
            "with the scope a: access_denied",
            "with all that is needed: skipped",
        ],
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_the_boundaries_of_a_policy_are_found_and_hold(authz: Authz, name: str) -> None:
    """Each thing left out once, with the reason that must be told, and the caller who must be let in."""
    needed, expected = POLICIES[name]
    cases = boundary_cases(app_with(needed))
    assert told(cases) == expected
    hold(authz, cases)
    hold(authz, boundary_cases(app_with(needed.concealed())))


LEAVES: Final = (
    *gates_made.LEAVES,
    *(any_scope("a", "x"), any_role("x", "seller"), permissions("p"), any_permission("p", "q"), csrf_protected()),
    *(networks("10.1.0.0/16", "192.0.2.0/24"), claim("plan", "pro"), param("number", claim="sub")),
    *(authenticated.stepped_up(acr_values=["mfa"]), authenticated.stepped_up(max_age=60)),
)
TREES: Final[st.SearchStrategy[Requirement]] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(lambda one, other: one & other, inner, inner),
        st.builds(lambda one, other: one | other, inner, inner),
        st.builds(lambda one: ~one, inner),
        st.builds(lambda one: one.concealed(), inner),
    ),
    max_leaves=6,
)


@given(TREES, st.sampled_from(["GET", "POST"]), st.booleans())
def test_the_boundaries_of_any_policy_hold(needed: Requirement, method: str, has_networks: bool) -> None:  # noqa: FBT001 - Hypothesis gives it so
    """Whatever it is made of, own requirements that refuse, crash or are async included."""
    network = Network(allow=["10.0.0.0/8", "198.51.100.0/24"], deny=["10.1.0.0/20"]) if has_networks else None
    gate = gate_with(rules=[Rule(method, "/**", needed)], network=network)
    with Authz() as kit:
        hold(kit, boundary_cases(authz403.wsgi.AuthzMiddleware(wsgi_made.page(), gate=gate)))


def test_what_rests_on_code_of_the_apps_own_is_skipped(authz: Authz) -> None:
    """None of it runs before a case does, and another way that it might open is not taken for one that is."""
    cases = boundary_cases(app_with(scopes("a") | requirement("own_code", lambda _: 1 / 0 > 1)))
    assert {case.label: case.skipped_because for case in cases if case.skipped_because} == {
        "without the scope a (of scopes('a'))": "what becomes of it depends on code of the app's own",
        "with requirement('own_code')": "requirement('own_code') is code of the app's own: "
        "say claims= that meet it and its code in meets=",
    }
    hold(authz, cases)


def test_a_concealed_refusal_is_a_404_with_its_true_reason(authz: Authz) -> None:
    """Told by what was decided, as the response does not say it."""
    cases = boundary_cases(app_with(roles("admin").concealed()))
    missing = cases[0]
    assert (missing.reason, missing.status, missing.concealed) == (Reason.MISSING_TOKEN, 404, True)
    hold(authz, cases)


def test_a_role_that_another_one_includes_is_no_boundary(authz: Authz) -> None:
    """What roles mean is the gate's matter, and so are permissions that they grant."""
    rbac = Rbac(hierarchy={"root": ["admin"]}, grants={"admin": ["refund"]})
    cases = boundary_cases(app_with(roles("root", "admin") & permissions("refund", "x"), rbac=rbac))
    assert [case.label for case in cases if case.label.startswith("without the")] == [
        "without the role root",
        "without the permission x",
    ]
    hold(authz, cases)


def test_roles_that_are_looked_up_are_given(authz: Authz) -> None:
    """No look-up is made, and Auth0's tokens, which hold none, are no hindrance."""

    def looked_up(_: object) -> list[str]:
        raise AssertionError("roles were looked up")

    source = BearerTokens(issuer="https://id.example", audience="a", key=public_pem(), claims="auth0")
    cases = boundary_cases(app_with(roles("admin"), tokens=source, rbac=Rbac(roles_for=looked_up)))
    assert told(cases)[-1] == "with all that is needed: passes"
    hold(authz, cases)
    cases = boundary_cases(app_with(roles("admin"), tokens=source))
    assert [case.skipped_because for case in cases if case.skipped_because] == [
        "tokens of this provider do not hold what it needs"
    ] * 4


def test_the_networks_of_the_whole_service_count(authz: Authz) -> None:
    """Behind its proxies, with what is denied within what is allowed."""
    network = Network(trusted_proxies=["172.16.0.0/12"], allow=["10.0.0.0/8"], deny=["10.0.0.0/28"])
    cases = boundary_cases(app_with(scopes("a"), network=network))
    assert told(cases)[-2:] == ["from a foreign network: ip_not_allowed", "with all that is needed: passes"]
    assert cases[-1].address == "10.255.255.255"
    hold(authz, cases)
    everywhere = boundary_cases(app_with(networks("0.0.0.0/0", "::/0")))
    assert told(everywhere) == ["from a foreign network: skipped", "with all that is needed: passes"]


def test_further_ways_are_told_of(authz: Authz) -> None:
    """Not all of them are tried, and that is said."""
    cases = boundary_cases(app_with(any_of([f"s{number}" for number in range(9)])))
    assert told(cases)[-1] == "by further ways: skipped"
    assert sum(case.must_pass for case in cases) == 8
    hold(authz, cases)


def any_of(names: list[str]) -> Requirement:
    """Return many ways to be let in."""
    found = scopes(names[0])
    for name in names[1:]:
        found = found | roles(name)
    return found


def test_own_requirements_are_tried_where_the_test_says_who_meets_them(authz: Authz) -> None:
    """By claims in every token, and the codes that they meet; a predicate is met by a claim that fits."""
    needed = requirement("plan_expired", lambda facts: facts.principal.claims.get("plan") == "pro") & claim(
        "age", lambda age: isinstance(age, int) and age > 17
    )
    app = app_with(needed)
    assert [case.skipped_because for case in boundary_cases(app) if case.must_pass] == [
        "requirement('plan_expired') is code of the app's own: say claims= that meet it and its code in meets="
    ]
    assert "is met by what a function says" in str(boundary_cases(app, meets={"plan_expired"})[-1].skipped_because)
    cases = boundary_cases(app, claims={"plan": "pro", "age": 18}, meets={"plan_expired"})
    assert told(cases)[-2:] == ["without the claim age: claim_required", "with all that is needed: passes"]
    hold(authz, cases)
    with pytest.raises(AssertionError, match="must be let in, and it was refused with plan_expired"):
        hold(authz, boundary_cases(app, claims={"plan": "old", "age": 18}, meets={"plan_expired"}))


def test_a_gate_without_tokens_has_no_bad_ones(authz: Authz) -> None:
    """Callers are known without a credential, as by `acting_as`."""
    cases = boundary_cases(app_with(csrf_protected() & scopes("a"), tokens=Session()))
    assert told(cases) == [
        "without a token: missing_token",
        "without the scope a: insufficient_scope",
        "from a page of another site: csrf_failed",
        "with all that is needed: passes",
    ]
    hold(authz, cases)


# ---- which requests they are


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_framework_has_its_boundaries(authz: Authz, framework: str) -> None:
    """The same ones, and all hold; where nobody can look into the app, by the gate's rules."""
    with app_of(framework, gate_with()) as app:
        cases = boundary_cases(app)
        labels = [f"{case.method} {case.label}" for case in cases if case.written]
        assert "GET without the scope orders:read" in labels
        assert "DELETE without the role admin" in labels
        assert [case.skipped_because for case in cases if case.skipped_because] == []
        hold(authz, cases)


def test_websockets_are_opened(authz: Authz) -> None:
    """And closed again; a refused one is answered with the reason."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(AuthzMiddleware, gate=gate_with())

    @app.websocket("/live")
    @requires(scopes("live"))
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive_text()

    @app.websocket("/shut")
    @requires(scopes("live"))
    async def shut(websocket: WebSocket) -> None:
        await websocket.close()

    cases = boundary_cases(app)
    assert {case.method for case in cases} == {"WEBSOCKET"}
    hold(authz, cases)
    source = BearerTokens(
        issuer="https://id.example", audience="a", key=public_pem(), read_from="sec-websocket-protocol"
    )
    app.user_middleware[0].kwargs["gate"] = gate_with(tokens=source)
    app.middleware_stack = None
    hold(authz, boundary_cases(app))
    open_to_all = replace(cases[0], reason=Reason.NOT_OWNER)
    with pytest.raises(AssertionError, match="refused with missing_token"):
        authz.check(open_to_all)


async def told_path(request: Request) -> PlainTextResponse:
    """Tell the path."""
    return PlainTextResponse(request.url.path)


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("/a/{x}", "/a/1"),
        ("/a/{x:int}/{y:float}", "/a/1/1"),
        ("/a/{x:uuid}", "/a/00000000-0000-4000-8000-000000000001"),
        ("/files/{x:path}", "/files/1"),
        ("/a/{x}.json", "/a/1.json"),
        ("/", "/"),
    ],
)
def test_a_path_has_values_for_its_parameters(authz: Authz, route: str, path: str) -> None:
    """As its converters take them."""
    app = Starlette(routes=[Route(route, requires(scopes("a"))(told_path))])
    app.add_middleware(AuthzMiddleware, gate=gate_with())
    cases = boundary_cases(app)
    assert {case.path for case in cases} == {path}
    hold(authz, cases)


def test_a_path_leads_to_its_own_route_and_its_own_rule(authz: Authz) -> None:
    """Not to one that stands before it, and not to the part of it that a rule tells apart."""
    rules = [
        Rule("GET", "/orders/1", anyone),
        Rule("GET", "/orders/last", scopes("last")),
        Rule("GET", "/named/7", scopes("seven")),
        Rule("*", "/below/**", scopes("below")),
        Rule("GET", "/ids/none", anyone),
    ]
    inside = Router([Route("/{x}", told_path), Route("/x/y", told_path)])
    app = Starlette(
        routes=[
            Route("/orders/latest", public(told_path)),
            Route("/orders/{number:int}", requires(scopes("number"))(echo())),
            Route("/orders/{name}", requires(scopes("name"))(echo())),
            Route("/named/{x}", requires(scopes("x"))(echo())),
            Route("/ids/{x:int}", requires(scopes("id"))(echo())),
            Mount("/below", inside),
        ]
    )
    app.add_middleware(AuthzMiddleware, gate=gate_with(rules=rules, shared=True))
    cases = boundary_cases(app)
    passing = {(case.route, case.part): case.path for case in cases if case.must_pass}
    assert passing == {
        ("/orders/latest", None): "/orders/latest",
        ("/orders/{number}", "/orders/1"): "/orders/1",
        ("/orders/{number}", None): "/orders/2",
        ("/orders/{name}", "/orders/last"): "/orders/last",
        ("/orders/{name}", None): "/orders/a",
        ("/named/{x}", "/named/7"): "/named/7",
        ("/named/{x}", None): "/named/1",
        ("/ids/{x}", None): "/ids/1",
        ("/below/{x}", None): "/below/1",
        ("/below/x/y", None): "/below/x/y",
    }
    assert {str(case): case.skipped_because for case in cases if case.skipped_because} == {
        f"GET {route} on {part}: not tried": f"{why.format(route=route, part=part)}: say paths="
        for route, part, why in (
            ("/orders/{number}", "/orders/last", "no path is known that both {route} and the rule for {part} take"),
            ("/orders/{name}", "/orders/1", "an earlier route takes every path of {route} on {part} that was tried"),
            ("/ids/{x}", "/ids/none", "no path is known that both {route} and the rule for {part} take"),
        )
    }
    hold(authz, cases)


def echo() -> Any:  # noqa: ANN401 - an endpoint
    """Return an endpoint of its own, to be marked."""

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    return endpoint


def test_values_and_paths_can_be_given(authz: Authz) -> None:
    """By name, and whole ones where a route is none that can be told by its text."""
    app = app_with(param("number", claim="orders"))
    cases = boundary_cases(app, params={"number": "abc"})
    assert {case.path for case in cases} == {"/orders/abc"}
    hold(authz, cases)
    cases = boundary_cases(app, params={"number": "x y"}, paths={"/orders/{number}": "/orders/x y"})
    assert {case.path for case in cases} == {"/orders/x y"}
    hold(authz, cases)
    with pytest.raises(AssertionError, match=r"no route took it: say params= or paths= of this route"):
        authz.check(boundary_cases(app, paths={"/orders/{number}": "/elsewhere"})[0])


def test_hosts_are_asked_by_their_name(authz: Authz) -> None:
    """A host that nobody can tell is skipped, with the reason."""
    inside = Router([Route("/x", requires(scopes("a"))(told_path))])
    app = Starlette(routes=[Host("api.example", inside), Host("{sub}.example", inside)])
    app.add_middleware(AuthzMiddleware, gate=gate_with())
    cases = boundary_cases(app)
    assert [case.skipped_because for case in cases if case.skipped_because] == [
        "nobody knows which host {sub}.example:/x has: say paths="
    ]
    assert sum(case.must_pass for case in cases) == 1
    hold(authz, cases)


def test_any_method_is_one_that_nothing_else_is_about(authz: Authz) -> None:
    """An app that nobody can look into takes all of them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("hello")(scope, receive, send)

    gate = gate_with(rules=[Rule("GET", "/a/*", anyone), Rule("*", "/a/**", scopes("a"))], default=authenticated)
    guarded = AuthzMiddleware(app, gate=gate, routes_of=None)
    cases = boundary_cases(guarded)
    passing = [(case.method, case.part, case.path) for case in cases if case.must_pass]
    assert ("GET", "/a/*", "/a/1") in passing
    assert ("POST", "/a/**", "/a") in passing
    assert ("POST", None, "/1") in passing
    hold(authz, cases)


def test_a_body_is_sent_by_those_who_must_pass(authz: Authz) -> None:
    """So that handlers have what they need."""
    seen = []
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(AuthzMiddleware, gate=gate_with())

    @app.post("/orders")
    @requires(scopes("a"))
    def make(body: dict[str, str]) -> None:
        seen.append(body)

    cases = boundary_cases(app, bodies={"POST /orders": {"item": "lamp"}})
    assert [case.json for case in cases if case.json is not None] == [{"item": "lamp"}]
    hold(authz, cases)
    assert seen == [{"item": "lamp"}]


# ---- what becomes of them


def test_passing_is_being_let_in_whatever_the_handler_answers(authz: Authz) -> None:
    """A 404, a crash and a check of the handler's own are not the gate's."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(AuthzMiddleware, gate=gate_with())

    @app.get("/crash")
    @requires(scopes("a"))
    def crash() -> None:
        raise ZeroDivisionError

    @app.get("/owned")
    @requires(scopes("a"))
    def owned() -> None:
        check(condition=False, reason=Reason.NOT_OWNER)

    hold(authz, boundary_cases(app))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_open_app_fails(authz: Authz, framework: str) -> None:
    """Each framework: a gate that lets everybody in is found out by every case that must fail."""
    with app_of(framework, gate_with()) as app:
        cases = [case for case in boundary_cases(app) if case.reason is not None]
        assert len(cases) >= 8
    with app_of(framework, gate_with(dangerously_report_only=True)) as app:
        if framework == "wsgi":
            rules = [Rule("*", "/**", anyone)]
            app = authz403.wsgi.AuthzMiddleware(wsgi_made.page(), gate=gate_with(rules=rules))  # noqa: PLW2901 - opened
        for case in cases:
            with pytest.raises(AssertionError, match=r"must be refused with .*, and (it was let in|another policy)"):
                replace(case, app=app).run(authz)


class Unlocked:
    """Middleware of the app's own that takes away what a request needs to be refused."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/orders"):
            scope = {**scope, "path": "/health", "raw_path": b"/health", "method": "GET"}
        await self.app(scope, receive, send)


def test_an_app_that_opened_says_what_and_where(authz: Authz) -> None:
    """A mark that is gone, a gate that is gone, a rewritten path; with request, policy, decision and answer."""
    app = fastapi_app(gate_with())
    case = next(case for case in boundary_cases(app) if case.label == "without the scope orders:read")
    case.run(authz)
    opened = FastAPI(openapi_url=None)
    opened.add_middleware(AuthzMiddleware, gate=gate_with())
    opened.get("/orders")(public(lambda: "lamp"))
    with pytest.raises(AssertionError) as raised:
        replace(case, app=opened).run(authz)
    message = str(raised.value)
    assert message.startswith(
        "GET /orders: without the scope orders:read\n"
        "  must be refused with insufficient_scope (403), and another policy held: marks: anyone\n"
        "  request: GET /orders from 203.0.113.77\n"
        "  policy: marks: scopes('orders:read'), written at "
    )
    assert "decision: GET /orders: allowed by marks: anyone\n  answer: 200\n  body: " in message
    app.user_middleware.clear()
    with pytest.raises(ConfigurationError, match="no gate stands before it"):
        case.run(authz)
    rewritten = fastapi_app(gate_with())
    rewritten.add_middleware(Unlocked)
    with pytest.raises(AssertionError, match="/health took it"):
        replace(case, app=rewritten).run(authz)


def test_a_gate_that_lets_in_what_it_should_not_is_found_out(authz: Authz, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is that went wrong, such as a requirement that is always met."""
    app = app_with(scopes("a"))
    cases = boundary_cases(app)
    lacking = next(case for case in cases if case.label == "without the scope a")
    monkeypatch.setattr("authz403.leaves.Scopes.check", lambda *_: None)
    with pytest.raises(AssertionError, match=r"insufficient_scope \(403\), and it was let in"):
        authz.check(lacking)


def test_a_gate_that_refuses_whom_it_should_let_in_is_found_out(authz: Authz) -> None:
    """And one that refuses for another reason, or whose answer something else has changed."""
    app = app_with(scopes("a"))
    cases = boundary_cases(app)
    with pytest.raises(AssertionError, match=r"must be let in, and it was refused with insufficient_scope"):
        replace(cases[-1], caller=replace(cases[-1].caller, scopes=())).run(authz)  # type: ignore[type-var]  # it has one
    with pytest.raises(AssertionError, match=r"with not_owner \(403\), and it was refused with insufficient_scope"):
        replace(cases[-2], reason=Reason.NOT_OWNER).run(authz)
    with pytest.raises(AssertionError, match=r"insufficient_scope \(418\), and it was refused, and answered with 403"):
        replace(cases[-2], status=418).run(authz)


def test_an_answer_that_no_gate_gave_is_found_out(authz: Authz) -> None:
    """Middleware outside answered, so that nobody decided."""

    class Answering:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse("cached", 403)(scope, receive, send)

    app = starlette_app(gate_with())
    app.add_middleware(Answering)
    with pytest.raises(AssertionError, match="no gate decided the request"):
        authz.check(boundary_cases(app)[0])


def test_a_case_that_cannot_be_tried_is_skipped_aloud(authz: Authz) -> None:
    """Never taken for one that holds."""
    case = boundary_cases(app_with(requirement("own_code", lambda _: True)))[-1]
    assert case.must_pass
    with pytest.raises(unittest.SkipTest, match="own_code"):
        authz.check(case)


def test_ids_are_plain_and_one_a_case() -> None:
    """As pytest shows them."""
    cases = boundary_cases(app_with(scopes("a") & roles("b")))
    assert str(cases[0]) == "POST /orders/{number}: without a token"
    assert len({str(case) for case in cases}) == len(cases)
    assert [str(case) for case in cases] == [str(case) for case in boundary_cases(app_with(scopes("a") & roles("b")))]


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("/a/<x>", "/a/1"),
        ("/a/<int:x>/<float:y>/", "/a/1/1.5/"),
        ("/a/<uuid:x>", "/a/00000000-0000-4000-8000-000000000001"),
        ("/a/<any(red, blue):x>", "/a/red"),
        ("/a/<path:x>", "/a/1"),
        ("/a/<string(length=2):x>", "skipped"),
    ],
)
def test_a_path_of_flask_has_values_for_its_parameters(authz: Authz, route: str, path: str) -> None:
    """As werkzeug's converters take them; what an argument of one wants is not known, and the case says so."""
    app = flask.Flask("shop", static_folder=None)
    app.add_url_rule(route, "told", requires(scopes("a"))(lambda **_: "told"))
    authz403.flask.init_app(app, gate=gate_with())
    cases = boundary_cases(app)
    if path == "skipped":
        with pytest.raises(AssertionError, match="no route took it: say params= or paths="):
            hold(authz, cases)
        cases = boundary_cases(app, params={"x": "ab"})
        path = "/a/ab"
    assert {case.path for case in cases} == {path}
    hold(authz, cases)


def test_a_regular_expression_of_django_needs_a_path(authz: Authz) -> None:
    """It is skipped until it has one."""
    view = requires(scopes("a"))(lambda *_, **__: HttpResponse("told"))
    project = Project([re_path(r"^articles/(?P<year>[0-9]{4})/$", view), path("<slug:page>/", view)])
    with override_settings(ROOT_URLCONF=project, MIDDLEWARE=[OURS], AUTHZ403_GATE=gate_with()):
        app = WSGIHandler()
        skipped = {case.route: case.skipped_because for case in boundary_cases(app) if case.skipped_because}
        ((route, why),) = skipped.items()
        assert why == f"{route} is a regular expression: say paths="
        cases = boundary_cases(app, paths={route: "/articles/2030/"})
        assert {case.path for case in cases} == {"/articles/2030/", "/1/"}
        hold(authz, cases)


def test_paths_that_rules_take_from_each_other_are_skipped() -> None:
    """Each with the reason."""
    rules = [Rule("GET", f"/a/{word}", scopes("x")) for word in ("1", "2", "3", "a", "b", "c", "d")]
    app = Starlette(routes=[Route("/a/{x}", requires(scopes("a"))(echo()))])
    app.add_middleware(AuthzMiddleware, gate=gate_with(rules=rules))
    (skipped,) = [case for case in boundary_cases(app) if case.skipped_because]
    assert skipped.skipped_because == "other rules take every path of /a/{x} that was tried: say paths="
    given = boundary_cases(app, paths={"/a/{x}": "/a/z", "/a/{x} on /a/1": "/a/1"})
    assert {case.path for case in given if case.part in {None, "/a/1"}} == {"/a/z", "/a/1"}


def test_methods_that_all_have_a_policy_of_their_own_leave_none() -> None:
    """A method that a client may invent is not tried."""
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
    gate = gate_with(rules=[Rule(method, "/**", anyone) for method in methods])
    cases = boundary_cases(authz403.wsgi.AuthzMiddleware(wsgi_made.page(), gate=gate))
    assert [case.skipped_because for case in cases if case.skipped_because] == [
        "all methods that are known have a policy of their own: say paths="
    ]


def test_a_handler_that_crashes_in_the_test_is_let_in_all_the_same(authz: Authz) -> None:
    """Flask raises what its views raise where it is told that it is tested; a refusal is told with the crash."""
    app = flask.Flask("shop", static_folder=None)
    app.testing = True
    app.add_url_rule("/crash", "crash", requires(scopes("a"))(lambda: str(1 // 0)))
    authz403.flask.init_app(app, gate=gate_with())
    cases = boundary_cases(app)
    hold(authz, cases)
    with pytest.raises(AssertionError, match="and it was let in") as raised:
        replace(cases[-2], caller=cases[-1].caller).run(authz)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_addresses_of_a_file_are_given(authz: Authz, tmp_path: Path) -> None:
    """Nobody looks through a million of them."""
    file = tmp_path / "office.txt"
    file.write_text("192.0.2.0/24\n")
    app = app_with(networks(AddressFile(file)))
    assert told(boundary_cases(app)) == [
        "from a foreign network: ip_not_allowed",
        "with all that is needed: skipped",
    ]
    cases = boundary_cases(app, addresses=["192.0.2.9"])
    assert (cases[-1].address, cases[-1].skipped_because) == ("192.0.2.9", None)
    hold(authz, cases)
    with pytest.raises(ConfigurationError, match=r"addresses\[0\] = 'office'"):
        boundary_cases(app, addresses=["office"])


OPTIONS: Final = ["params", "paths", "bodies", "claims", "meets", "addresses"]


def test_what_is_mistyped_is_a_mistake() -> None:
    """All at once."""
    wrong: Any = "x"
    with pytest.raises(ConfigurationError) as raised:
        boundary_cases(app_with(anyone), **dict.fromkeys(OPTIONS, wrong))
    assert [mistake.field for mistake in raised.value.mistakes] == OPTIONS
