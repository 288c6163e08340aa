"""`gate.explain`: the gate's own decision, told with all that led to it; nothing of the app runs."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

import authz403.flask
from authz403 import (
    AccessDenied,
    ConfigurationError,
    Gate,
    Network,
    Principal,
    Rbac,
    Reason,
    Requirement,
    Rule,
    any_role,
    anyone,
    authenticated,
    claim,
    deny,
    guard,
    networks,
    param,
    requirement,
    requires,
    roles,
    scopes,
)
from authz403.explanation import FAILED, NOT_REACHED, PASSED, UNKNOWN, Check, Explanation
from authz403.facts import Facts
from authz403.request import AccessRequest
from tests.apps_made import FRAMEWORKS, add_route, bearer, client_of, gate_with, signed
from tests.apps_made import NOW as OUTCOMES_NOW
from tests.apps_made import guarded as put_behind
from tests.gates_made import (
    ALICE,
    INSIDE,
    KEYLESS,
    NOBODY,
    NOW,
    ORDER,
    OUTSIDE,
    Callers,
    Identity,
    identities,
    judged,
    peers,
    requirements,
    someone,
)
from tests.outcomes_made import CASES, Case
from tests.test_outcomes import app_with

HERE = __file__


def explained(wanted: Requirement, identity: Identity | None = ALICE, *, peer: str | None = INSIDE) -> Explanation:
    """Explain a request to an app all of which needs `wanted`."""
    gate = Gate(tokens=Callers(identity), rules=[Rule("*", "/**", wanted)], clock=lambda: NOW)
    return gate.explain(AccessRequest("GET", ORDER, peer))


def results(checks: tuple[Check, ...]) -> list[Any]:
    """Return checks as pairs of words and result, a combination with its parts behind it."""
    return [
        (check.words, check.result, results(check.parts)) if check.parts else (check.words, check.result)
        for check in checks
    ]


def leaves(told: Explanation) -> list[Check]:
    """Return the checks of single requirements."""
    return [leaf for check in told.checks for leaf in check.leaves()]


# ---- the decision is the gate's


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_outcome_is_explained_as_it_is_decided(case: Case) -> None:
    """Status, reason and remedy are those of the answer, and the line that failed is one of the checks."""
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in case.headers:
        fields[name.lower()] = (*fields.get(name.lower(), ()), value)
    ran: list[str] = []
    app = app_with(case.requirement, ran)
    told = gate_with().explain(AccessRequest("GET", "/orders/bob", OUTSIDE, fields), app)
    assert (told.allowed, told.status, told.reason, told.remedy) == (False, case.status, case.reason, case.remedy)
    assert (told.route, told.endpoint) == ("/orders/{owner}", "over_http")
    assert told.diagnosis
    assert told.advice.caller
    assert told.advice.operator
    failing = told.failing()
    assert failing is not None
    assert failing.result in {FAILED, UNKNOWN}
    assert ran == []


@given(requirements, identities, peers)
def test_checks_agree_with_the_decision(wanted: Requirement, identity: Identity, peer: str | None) -> None:
    """All checks pass where the request is let in; else the reason of the refusal is that of one that did not."""
    decision, told = judged(wanted, identity, peer=peer), explained(wanted, identity, peer=peer)
    assert (told.allowed, told.reason, told.status) == (decision.allowed, decision.reason, decision.status)
    assert told.required_scopes == decision.required_scopes
    if told.allowed:
        assert all(check.result == PASSED for check in told.checks)
    else:
        refusing = [leaf for leaf in leaves(told) if leaf.result in {FAILED, UNKNOWN}]
        assert decision.reason in {leaf.reason for leaf in refusing}
        assert any(check.result in {FAILED, UNKNOWN} for check in told.checks)


@given(requirements, identities, peers)
def test_a_combination_follows_from_its_parts(wanted: Requirement, identity: Identity, peer: str | None) -> None:
    """What is shown of the tree is enough to see why the whole passed or did not."""

    def holds(check: Check) -> None:
        for part in check.parts:
            holds(part)
        found = [part.result for part in check.parts]
        if check.joined == "all" and check.result != NOT_REACHED:
            assert (check.result == PASSED) == all(result == PASSED for result in found)
        if check.joined == "any" and check.result != NOT_REACHED:
            assert (check.result == PASSED) == (PASSED in found)
            assert (
                found[found.index(PASSED) + 1 :].count(NOT_REACHED) == len(found[found.index(PASSED) + 1 :])
                if (PASSED in found)
                else True
            )

    for check in explained(wanted, identity, peer=peer).checks:
        holds(check)


class Counted:
    """A test of the user's own that counts how often it was asked."""

    def __init__(self, code: str, *, answer: bool, anonymous: bool) -> None:
        self.asked = 0
        self.answer = answer
        self.requirement = requirement(code, self, anonymous=anonymous)

    def __call__(self, facts: Facts) -> bool:
        self.asked += 1
        return self.answer


@given(st.data(), identities)
def test_a_test_of_ones_own_is_asked_once_or_is_not_reached(data: st.DataObject, identity: Identity) -> None:
    """Explaining asks nobody's code more often than deciding does, and says which was not asked."""
    tests = [
        Counted(f"test_{number}", answer=data.draw(st.booleans()), anonymous=data.draw(st.booleans()))
        for number in range(4)
    ]
    single = st.sampled_from([test.requirement for test in tests])
    wanted = data.draw(
        st.recursive(
            single,
            lambda inner: st.one_of(
                st.builds(lambda one, other: one & other, inner, inner),
                st.builds(lambda one, other: one | other, inner, inner),
                st.builds(lambda one: ~one, inner),
            ),
            max_leaves=6,
        )
    )
    judged(wanted, identity)
    by_decision = [test.asked for test in tests]
    for test in tests:
        test.asked = 0
    told = explained(wanted, identity)
    for number, test in enumerate(tests):
        assert test.asked == min(1, by_decision[number])
        shown = [leaf for leaf in leaves(told) if leaf.words.removeprefix("~") == repr(test.requirement)]
        if test.asked == 0 and isinstance(identity, Principal):
            assert all(leaf.result == NOT_REACHED for leaf in shown)


def test_an_async_test_is_awaited_once() -> None:
    """It is fulfilled as by a request, and its answer is shown."""
    asked = []

    async def is_paid(facts: Facts) -> bool:
        asked.append(facts.principal.sub)
        return False

    told = explained(requirement("unpaid", is_paid))
    assert (told.reason, asked) == ("unpaid", ["alice"])
    assert results(told.checks) == [("requirement('unpaid')", FAILED)]


# ---- what is shown


def test_the_tree_is_kept_in_the_order_in_which_it_is_asked() -> None:
    """Parts of `&` stand side by side; alternatives below, what needs no token first, up to the first that holds."""
    wanted = scopes("a") & (roles("admin") | networks("10.0.0.0/8") | roles("seller")) & ~claim("level", 2)
    told = explained(wanted)
    assert results(told.checks) == [
        (
            "roles('admin') | networks('10.0.0.0/8') | roles('seller')",
            PASSED,
            [("networks('10.0.0.0/8')", PASSED), ("roles('admin')", NOT_REACHED), ("roles('seller')", NOT_REACHED)],
        ),
        ("scopes('a')", PASSED),
        ("~claim('level', 2)", PASSED),
    ]
    assert [check.joined for check in told.checks] == ["any", "", ""]


def test_a_refusal_by_network_reaches_no_token() -> None:
    """What is told first and fails leaves the rest unasked, the caller too."""
    gate = Gate(tokens=Callers(ALICE), rules=[Rule("*", "/**", networks("10.0.0.0/8") & scopes("a"))])
    told = gate.explain(AccessRequest("GET", ORDER, OUTSIDE))
    assert results(told.checks) == [("networks('10.0.0.0/8')", FAILED), ("scopes('a')", NOT_REACHED)]
    assert told.checks[0].why == f"the client is {OUTSIDE}"
    assert not told.caller.is_asked_for
    assert told.caller.subject == "alice"  # found out all the same, as the next question is about it


def test_nobodys_code_is_asked_after_a_refusal() -> None:
    """What needs no token could be asked, and is not, as it is not about a request that is refused anyway."""
    own = Counted("own_rule", answer=True, anonymous=True)
    told = explained(networks("10.0.0.0/8") & own.requirement, peer=OUTSIDE)
    assert results(told.checks) == [("networks('10.0.0.0/8')", FAILED), ("requirement('own_rule')", NOT_REACHED)]
    assert own.asked == 0


def test_the_negation_of_a_combination_is_told_by_what_it_is_made_of() -> None:
    """`~(a & b)` is met where one of them is known not to hold."""
    told = explained(~(scopes("a") & roles("seller")))
    assert results(told.checks) == [
        (
            "~(scopes('a') & roles('seller'))",
            FAILED,
            [("~scopes('a')", FAILED), ("~roles('seller')", FAILED)],
        )
    ]
    assert told.checks[0].parts[0].why == "scopes('a') holds"


@pytest.mark.parametrize(
    ("wanted", "identity", "line"),
    [
        (
            scopes("a", "c"),
            someone("alice", scopes=["a", "b"]),
            f"token issued for user alice, token scopes are a, b, GET {ORDER} requires a, c, missing c",
        ),
        (
            scopes("c"),
            someone("shop", client_id="shop"),
            f"token issued for client shop, token has no scope, GET {ORDER} requires c, missing c",
        ),
        (
            any_role("a", "b"),
            someone("alice", roles=["c"]),
            (
                f"token issued for user alice, token roles are c, GET {ORDER} requires one of the roles a, b, "
                "and none of them is there"
            ),
        ),
        (
            roles("admin"),
            someone("alice", issuer=""),
            f"signed in as alice, caller has no role, GET {ORDER} requires the role admin, missing admin",
        ),
        (
            claim("plan", "pro"),
            someone("alice", claims={"plan": "free"}),
            f"token issued for user alice, GET {ORDER} requires claim('plan', 'pro'), and the claim plan is 'free'",
        ),
        (authenticated, NOBODY, f"no token came with GET {ORDER}, which needs a signed-in caller"),
        (
            authenticated,
            KEYLESS,
            "the keys that the token must be checked with cannot be had: the issuer does not answer",
        ),
        (deny, ALICE, f"the policy of GET {ORDER} denies it to everybody: deny"),
        (
            scopes("c").concealed(),
            ALICE,
            (
                f"token issued for user alice, token scopes are a, b, GET {ORDER} requires c, missing c; "
                "the caller sees the app's own 404, as the policy is concealed"
            ),
        ),
        (scopes("a"), ALICE, f"token issued for user alice, who is allowed GET {ORDER}"),
    ],
    ids=["scope", "client", "one of", "no token", "claim", "nobody", "keys", "deny", "concealed", "allowed"],
)  # fmt: skip
def test_the_cause_is_said_in_one_line(wanted: Requirement, identity: Identity, line: str) -> None:
    """As an engineer would say it to another."""
    assert explained(wanted, identity).diagnosis == line


def endpoint_app() -> Starlette:
    """Return an app with a marked endpoint in a guarded mount."""

    @requires(scopes("orders:write"))
    async def create(request: object) -> None:
        raise AssertionError("it ran")

    async def forgotten(request: object) -> None:
        raise AssertionError("it ran")

    api = Mount(
        "/api",
        routes=[Route("/orders", create, methods=["POST"]), Route("/new", forgotten)],
    )
    return Starlette(
        routes=[guard(api, networks("10.0.0.0/8")), Route("/plain", forgotten), Route("/slash/", forgotten)]
    )


def test_it_is_told_where_the_policy_is_written() -> None:
    """The lines of the rule, the guard and the mark that apply, in that order."""
    app = endpoint_app()
    gate = Gate(tokens=Callers(ALICE), rules=[Rule("*", "/api/**", authenticated)])
    told = gate.explain(AccessRequest("POST", "/api/orders", INSIDE), app)
    texts = []
    for where in told.written:
        file, _, line = where.rpartition(":")
        assert file == HERE
        texts.append(Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip())
    assert ["Rule(" in texts[0], "guard(" in texts[1], "@requires(" in texts[2]] == [True, True, True]
    assert told.policy == ("Rule(* /api/**), marks: authenticated & networks('10.0.0.0/8') & scopes('orders:write')")
    assert not told.is_default


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/nothing", "no route of the app takes it: the app answers it by itself, with 404 as a rule"),
        ("PUT", "/plain", "the route /plain takes GET, HEAD alone: the app answers it by itself, with 405"),
        ("GET", "/slash", "no route takes this path, and the app redirects to /slash/"),
    ],
)
def test_what_the_app_answers_by_itself_is_told(method: str, path: str, answer: str) -> None:
    """A 404, 405 or redirect is no refusal of the gate's, and the reader is told so."""
    gate = Gate(tokens=Callers(ALICE), default=authenticated)
    told = gate.explain(AccessRequest(method, path, INSIDE), endpoint_app())
    assert told.allowed
    assert (told.route, told.answers_itself) == (None, answer)
    assert answer in told.diagnosis


def test_a_default_is_told_as_one() -> None:
    """What nobody wrote a policy for says so, with what to write."""
    told = Gate(tokens=Callers(ALICE)).explain(AccessRequest("GET", "/plain", INSIDE), endpoint_app())
    assert (told.reason, told.is_default, told.written) == ("no_policy", True, ())
    assert told.diagnosis == "nobody wrote a policy for GET /plain (forgotten), and what has none is denied"
    assert told.advice.operator == (
        'Write @requires(...) or @public at forgotten, or a rule: Rule("GET", "/plain", ...).'
    )


def test_a_method_that_rules_leave_out_is_told_as_one() -> None:
    """The default does not hold there, and whoever looks at it would wonder."""
    gate = Gate(tokens=Callers(ALICE), rules=[Rule("POST", "/plain", authenticated)], default=anyone)
    told = gate.explain(AccessRequest("GET", "/plain", INSIDE), endpoint_app())
    assert told.reason == "no_policy"
    assert told.hint == "rules name this path, and none of them this method: that is closed, whatever the default says"


def test_the_caller_is_told_with_times_in_words() -> None:
    """Subject, issuer, audience, client, scopes, effective roles and permissions, and how long the token is good."""
    rbac = Rbac(hierarchy={"admin": ["seller"]}, grants={"seller": ["orders:refund"]})
    token = signed(scope="b a", roles=["admin"], client_id="shop", jti="t-7", nbf=int(OUTCOMES_NOW))
    fields = {"authorization": (f"Bearer {token}",)}
    told = gate_with(rbac=rbac, default=authenticated).explain(AccessRequest("GET", "/", INSIDE, fields))
    caller = told.caller
    assert (caller.subject, caller.issuer, caller.client_id) == ("ada", "https://id.example", "shop")
    assert (caller.audience, caller.scopes, caller.roles) == (("orders-api",), ("a", "b"), ("admin", "seller"))
    assert (caller.permissions, caller.token_id, caller.token_field) == (("orders:refund",), "t-7", "authorization")
    assert caller.validity == "issued 2027-01-15 08:00:00 UTC; expires in 5 min, at 2027-01-15 08:05:00 UTC"


def test_a_refused_token_with_a_good_signature_says_whose_it_is() -> None:
    """It names nobody, and yet who looks for the cause wants to know."""
    fields = {"authorization": (f"Bearer {signed(exp=int(OUTCOMES_NOW) - 7200)}",)}
    told = gate_with(default=authenticated).explain(AccessRequest("GET", "/", INSIDE, fields))
    assert not told.caller.is_known
    assert (told.caller.subject, told.caller.reason) == ("ada", "token_expired")
    assert told.caller.validity == "expired 2 h ago, at 2027-01-15 06:00:00 UTC"
    assert told.diagnosis == "token issued for user ada expired 7200 s ago"


@pytest.mark.parametrize(
    ("network", "peer", "forwarded", "address", "how"),
    [
        (None, INSIDE, None, INSIDE, "the other end of the connection"),
        (None, None, None, None, "nobody says where the request comes from"),
        (
            Network(trusted_proxies=["10.0.0.0/8"]),
            INSIDE,
            OUTSIDE,
            OUTSIDE,
            f"x-forwarded-for, as the trusted proxy {INSIDE} sent it",
        ),
        (
            Network(trusted_proxies=["10.0.0.0/8"]),
            OUTSIDE,
            INSIDE,
            OUTSIDE,
            "the other end of the connection: it is no trusted proxy, whose x-forwarded-for would be read",
        ),
    ],
    ids=["peer", "unknown", "proxy", "no proxy"],
)
def test_it_is_told_how_the_address_was_found(
    network: Network | None, peer: str | None, forwarded: str | None, address: str | None, how: str
) -> None:
    """By the walk over proxies that the decision rests on."""
    fields = {} if forwarded is None else {"x-forwarded-for": (forwarded,)}
    gate = Gate(network=network, default=anyone)
    client = gate.explain(AccessRequest("GET", "/", peer, fields)).client
    assert (client.address, client.peer, client.how) == (address, peer, how)


def test_what_a_guarded_group_lets_in_and_nothing_takes_is_told() -> None:
    """The guard is judged, and then the app answers 404."""
    gate = Gate(tokens=Callers(ALICE))
    told = gate.explain(AccessRequest("GET", "/api/nothing", INSIDE), endpoint_app())
    assert told.allowed
    assert told.answers_itself == "no route of the app takes it: the app answers it by itself, with 404 as a rule"
    assert results(told.checks) == [("networks('10.0.0.0/8')", PASSED)]
    assert gate.explain(AccessRequest("GET", "/api/nothing", OUTSIDE), endpoint_app()).reason == "ip_not_allowed"


def test_a_source_that_raises_is_told_as_what_it_is() -> None:
    """The decision is 500 `policy_error`; where it was not asked for, the rest is told all the same."""

    class Broken(Callers):
        def identify(self, request: AccessRequest, now: float) -> Identity | None:
            raise LookupError("no such session")

    wanted = networks("10.0.0.0/8") & scopes("a")
    gate = Gate(tokens=Broken(None), rules=[Rule("*", "/**", wanted)])
    told = gate.explain(AccessRequest("GET", "/", INSIDE))
    assert (told.status, told.reason) == (500, "policy_error")
    assert "raised LookupError: no such session (test_explain.py:" in told.diagnosis
    assert results(told.checks) == [("networks('10.0.0.0/8')", PASSED), ("scopes('a')", NOT_REACHED)]
    refused = gate.explain(AccessRequest("GET", "/", OUTSIDE))
    assert refused.reason == "ip_not_allowed"
    assert refused.caller.hint is not None
    assert refused.caller.hint.startswith("the source of identities raised LookupError: no such session")
    alone = Gate(tokens=Broken(None), default=authenticated).explain(AccessRequest("GET", "/", INSIDE))
    assert (alone.reason, results(alone.checks)) == ("policy_error", [("authenticated", NOT_REACHED)])


# ---- nothing else happens


def test_nothing_is_written_run_or_put_into_the_app(caplog: pytest.LogCaptureFixture) -> None:
    """No event, no handler, no door: the app is as it was."""
    caplog.set_level(logging.DEBUG, "authz403")
    app = endpoint_app()
    before = (app.router.routes, list(app.router.routes), app.router.middleware_stack, app.middleware_stack)
    gate = Gate(tokens=Callers(ALICE), rules=[Rule("*", "/api/**", authenticated)])
    assert not gate.explain(AccessRequest("POST", "/api/orders", INSIDE), app).allowed
    assert before == (app.router.routes, list(app.router.routes), app.router.middleware_stack, app.middleware_stack)
    assert all(type(getattr(route, "app", None)).__module__ != "authz403.door" for route in app.router.routes)
    assert caplog.records == []


@pytest.mark.parametrize("kind", FRAMEWORKS)
def test_a_service_that_runs_can_be_asked(kind: type[Starlette]) -> None:
    """With doors and latches in place, the answer is that of the next request."""

    @requires(scopes("orders:read"))
    async def read(request: Request) -> Response:
        return PlainTextResponse("ok")

    gate = gate_with()
    app = kind()
    add_route(app, "/orders", read)
    put_behind(app, gate)
    client = client_of(app)
    for claims in ({"scope": "orders:read"}, {}):
        headers = bearer(**claims)
        answer = client.get("/orders", headers=headers)
        fields = {"authorization": (headers["Authorization"],)}
        told = gate.explain(AccessRequest("GET", "/orders", INSIDE, fields), app)
        assert (told.status, told.reason) == (answer.status_code, answer.headers.get("Authz-Reason"))
        assert told.route == "/orders"
    assert client.get("/orders", headers=bearer(scope="orders:read")).text == "ok"


def test_a_gate_that_only_reports_says_what_it_would_refuse() -> None:
    """The decision is told as it is, and that it is not enforced."""
    gate = Gate(tokens=Callers(NOBODY), default=authenticated, dangerously_report_only=True)
    told = gate.explain(AccessRequest("GET", "/"))
    assert (told.allowed, told.report_only, told.reason) == (False, True, "missing_token")
    assert told.diagnosis.endswith("; the request is let in all the same, as the gate only reports")


def test_an_app_that_cannot_be_asked_is_a_mistake() -> None:
    """As for coverage."""
    with pytest.raises(ConfigurationError, match="its routes cannot be found"):
        Gate().explain(AccessRequest("GET", "/"), object())


def test_a_policy_that_raises_is_named_with_its_line() -> None:
    """The exception, and where it came from."""

    def fail(facts: Facts) -> bool:
        raise LookupError("no such plan")

    told = explained(requirement("plan_expired", fail))
    assert (told.status, told.reason) == (500, "policy_error")
    assert told.diagnosis.startswith(
        f"the policy of GET {ORDER}, requirement('plan_expired'), raised LookupError: no such plan (test_explain.py:"
    )


# ---- values


def test_an_explanation_is_plain_json() -> None:
    """All of it, and what others wrote is escaped and without tokens."""
    token = signed()
    told = explained(claim("plan", "pro"), someone("a\x1b[31m", claims={"plan": f"Bearer {token}"}))
    text = json.dumps(told.to_dict())
    found = json.loads(text)
    assert found["caller"]["subject"] == "a\\u001b[31m"
    assert token.rpartition(".")[2] not in text
    assert set(found) == {field.name for field in dataclasses.fields(Explanation)}


def test_the_routes_of_a_flask_app_are_asked_its_own_way() -> None:
    """Converters, methods and the gate that stands before it already."""
    app = Flask("shop", static_folder=None)

    @app.get("/orders/<int:number>")
    @requires(param("number", claim="order"))
    def read_order(number: int) -> str:
        raise AccessDenied(Reason.NOT_OWNER)

    gate = Gate(tokens=Callers(someone("alice", claims={"order": 5})))
    authz403.flask.init_app(app, gate=gate)
    assert gate.explain(AccessRequest("GET", "/orders/5", INSIDE), app).allowed
    told = gate.explain(AccessRequest("GET", "/orders/6", INSIDE), app)
    assert (told.reason, told.route, told.endpoint) == ("not_owner", "/orders/<int:number>", "read_order")
    assert told.checks[0].why == "the path parameter number is 6 and the claim order is 5"
    assert gate.explain(AccessRequest("POST", "/orders/6", INSIDE), app).answers_itself == (
        "the route /orders/<int:number> takes GET, HEAD, OPTIONS alone: the app answers it by itself, with 405"
    )
