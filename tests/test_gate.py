import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Generator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from authz403 import (
    AccessDenied,
    BearerTokens,
    ConfigurationError,
    Cors,
    Denial,
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
    networks,
    optional,
    param,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.decision import Outcome
from authz403.endpoint import Betrayed, Endpoint, Found, RulesAlone
from authz403.facts import Facts, Rejected
from authz403.fetch import Document, FetchFailed
from authz403.gate import as_gate
from authz403.keys import FetchedKeys
from authz403.marks import Mark
from authz403.need import How, Need
from authz403.request import WEBSOCKET, AccessRequest
from tests.gates_made import (
    ALICE,
    FORGED,
    INSIDE,
    KEYLESS,
    NOBODY,
    NOW,
    OUTSIDE,
    Callers,
    Identity,
    OneRoute,
    awaited,
    fulfilled,
    requirements,
    someone,
)
from tests.tokens_made import SECRET, bearer, token, tokens

APP: Final = "https://app.example"


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Generator[None]:
    yield
    structlog.reset_defaults()


def request_of(method: str = "GET", path: str = "/", peer: str | None = INSIDE, **fields: str) -> AccessRequest:
    """Return a request with these header fields, `_` standing for `-`."""
    return AccessRequest(method, path, peer, {name.replace("_", "-"): (value,) for name, value in fields.items()})


def gate_for(wanted: Requirement, identity: Identity | None = ALICE, **options: Any) -> Gate:  # noqa: ANN401 - any option of Gate
    """Return a gate that needs one thing everywhere."""
    return Gate(tokens=Callers(identity), rules=[Rule("*", "/**", wanted)], clock=lambda: NOW, **options)


def decided(gate: Gate, request: AccessRequest | None = None) -> Outcome:
    """Return what becomes of a request to an endpoint without marks."""
    return fulfilled(gate.decide(request or request_of(), OneRoute()))


def body(outcome: Outcome) -> dict[str, Any]:
    """Return the document of a refusal."""
    assert outcome.response is not None
    document = json.loads(outcome.response.body)
    assert isinstance(document, dict)
    return document


def headers(outcome: Outcome) -> dict[str, str]:
    """Return the headers of the gate's own answer."""
    assert outcome.response is not None
    found = [(name.decode(), value.decode("latin-1")) for name, value in outcome.response.headers]
    assert len(dict(found)) == len(found)
    return dict(found)


# ---- the way of a request


def test_an_allowed_request_goes_on_with_its_caller() -> None:
    """No answer of the gate's own; the app gets the principal, the address and the route that was decided on."""
    outcome = decided(gate_for(scopes("a")))
    assert outcome.decision.allowed
    assert outcome.response is None
    assert outcome.principal is ALICE
    assert (str(outcome.address), outcome.route, outcome.concealed_as_missing) == (INSIDE, "/orders/{order}", False)


def test_a_refused_request_is_answered_with_what_is_missing() -> None:
    """Status, body, challenge and id are those of the one decision."""
    outcome = decided(gate_for(scopes("a", "c")))
    document = body(outcome)
    assert (document["status"], document["reason"], document["missing_scopes"]) == (403, "insufficient_scope", ["c"])
    assert document["decision_id"] == headers(outcome)["authz-decision"] == outcome.decision_id
    assert headers(outcome)["www-authenticate"] == ('Bearer realm="authz403", error="insufficient_scope", scope="a c"')


@pytest.mark.parametrize(
    "wanted",
    [
        anyone,
        deny,
        networks("10.0.0.0/8"),
        networks("192.0.2.0/24"),
        networks("10.0.0.0/8") | scopes("a"),
        networks("192.0.2.0/24") & scopes("a"),
    ],
    ids=repr,
)
def test_no_token_is_looked_at_where_the_policy_needs_none(wanted: Requirement) -> None:
    """Public and network policies cost no signature and no fetch, and pass or fail whatever the token is."""
    source = Callers(FORGED)
    gate = Gate(tokens=source, rules=[Rule("*", "/**", wanted)])
    outcome = decided(gate)
    assert source.asked == 0
    assert outcome.principal is None
    assert decided(gate).decision.allowed is outcome.decision.allowed


@pytest.mark.parametrize(
    "wanted", [scopes("a"), optional, networks("192.0.2.0/24") | scopes("a"), ~scopes("c")], ids=repr
)
def test_the_caller_is_asked_for_once(wanted: Requirement) -> None:
    """Where the policy needs to know who asks, the source is asked exactly once."""
    source = Callers(ALICE)
    assert decided(Gate(tokens=source, rules=[Rule("*", "/**", wanted)])).decision.allowed
    assert source.asked == 1


def test_without_any_source_nobody_is_known() -> None:
    """A gate without `tokens=` refuses what needs a caller as a missing token."""
    assert decided(Gate(default=authenticated)).decision.reason is Reason.MISSING_TOKEN
    assert decided(Gate(default=optional)).decision.allowed
    assert not Gate().has_tokens
    assert Gate(tokens=Callers(None)).has_tokens


def test_real_tokens_pass_the_whole_way() -> None:
    """A signed token in the Authorization header gives the caller; the realm is the audience."""
    gate = Gate(tokens=tokens(), rules=[Rule("*", "/**", scopes("a"))], clock=lambda: NOW)
    assert gate.has_tokens
    outcome = decided(gate, request_of(authorization=bearer(token(scope="a"))))
    assert outcome.principal is not None
    assert outcome.principal.sub == "alice"
    assert decided(gate, request_of(authorization=bearer(token(scope="b")))).decision.status == 403
    refused = decided(gate, request_of(authorization=bearer(token(exp=1))))
    assert headers(refused)["www-authenticate"] == 'Bearer realm="orders-api", error="invalid_token"'
    assert decided(gate, request_of()).decision.reason is Reason.MISSING_TOKEN


@pytest.mark.parametrize(
    "path",
    [
        "admin",
        "/a\nb",
        "/admin\n",
        "/a\x00",
        "/a\\b",
        "/a\x7f",
        "/\x85",
        "/\ufffd",
        "/" + chr(0xD800),
        "*",
        "http://x/",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("wanted", [anyone, scopes("a").concealed()], ids=["anyone", "concealed"])
def test_malformed_paths_are_refused_before_any_route_is_looked_for(path: str, wanted: Requirement) -> None:
    """CVE-2022-32224's class: what routers, proxies and people read differently is a 400, concealed or not."""

    class Routes(RulesAlone):
        def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
            raise AssertionError("no route is looked for")

    outcome = fulfilled(gate_for(wanted).decide(request_of(path=path), Routes()))
    assert (outcome.decision.status, outcome.decision.reason) == (400, Reason.INVALID_PATH)
    assert body(outcome)["remedy"] == "fix_request"


@pytest.mark.parametrize("path", ["//", "/a//b", "/a/../b", "/a/./b", "/..", "/a/.."])
def test_dot_segments_pass_into_a_parameter_that_takes_them_alone(path: str) -> None:
    """They are a 400 unless the route's own parameter takes them and the shortened path stands under the same rule."""

    class Routes(RulesAlone):
        def __init__(self, *, takes: bool) -> None:
            self.found = Found(Endpoint("/{path:path}", "files"), takes_dot_segments=takes)

        def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
            return self.found, {}

    gate = Gate(rules=[Rule("GET", "/**", anyone)])
    assert fulfilled(gate.decide(request_of(path=path), Routes(takes=False))).decision.reason is Reason.INVALID_PATH
    assert fulfilled(gate.decide(request_of(path=path), Routes(takes=True))).decision.allowed


def test_dot_segments_do_not_lead_from_one_rule_to_another() -> None:
    """CVE-2023-27487's class: `/public/../admin` is refused although the public route would take it."""

    class Routes(RulesAlone):
        def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
            return Found(Endpoint("/{path:path}", "files"), takes_dot_segments=True), {}

    gate = Gate(rules=[Rule("*", "/admin/**", deny), Rule("*", "/public/**", anyone)])
    for path in ("/public/../admin", "/public/x/../../admin/x", "/public/..//admin"):
        assert fulfilled(gate.decide(request_of(path=path), Routes())).decision.reason is Reason.INVALID_PATH
    assert fulfilled(gate.decide(request_of(path="/public/a/../b"), Routes())).decision.allowed


def test_gates_do_not_share_policies() -> None:
    """CWE-863: two gates over apps that cannot be looked into each apply their own rules, in any order."""
    gates = [Gate(rules=[Rule("*", "/**", wanted)]) for wanted in (anyone, deny, anyone, deny)]
    for _ in range(2):
        allowed = [fulfilled(gate.decide(request_of())).decision.allowed for gate in gates]
        assert allowed == [True, False, True, False]


def test_an_answer_that_would_betray_a_concealed_route_is_refused_too() -> None:
    """A 405 or a redirect beside a concealed endpoint is for those alone who may know of it; others pass on."""

    class Routes(RulesAlone):
        def __init__(self, wanted: Requirement) -> None:
            betrayed = Endpoint("/secret", "secret", by_method={"GET": [Mark(wanted, "x.py:1")]})
            self.found = Found(None, betrayed=Betrayed(betrayed, ("GET",), "/secret"))

        def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
            return self.found, {}

    gate = Gate(tokens=Callers(ALICE))
    for wanted, missing in (
        (scopes("c").concealed(), True),
        (scopes("a").concealed(), False),
        (scopes("c"), False),
    ):
        outcome = fulfilled(gate.decide(request_of("PUT"), Routes(wanted)))
        assert outcome.concealed_as_missing is missing
        assert outcome.decision.allowed is not missing


def test_a_concealed_refusal_has_no_answer_of_its_own() -> None:
    """The app's own 404 is to be the answer; 5xx of the same policy are told."""
    outcome = decided(gate_for(scopes("c").concealed()))
    assert (outcome.concealed_as_missing, outcome.response) == (True, None)
    assert outcome.decision.reason is Reason.INSUFFICIENT_SCOPE
    outage = decided(gate_for(scopes("c").concealed(), KEYLESS))
    assert (outage.concealed_as_missing, outage.decision.status) == (False, 503)
    assert headers(outage)["retry-after"] == "8"


# ---- needs


class Slow:
    """An identity source that has to ask outside, twice."""

    fields: Collection[str] = frozenset({"x-key"})

    def __init__(self, answers: list[object], how: How = How.BLOCKING) -> None:
        self.answers = answers
        self.how = how

    def identify(self, request: AccessRequest, now: float) -> Need[Identity | None]:
        return Need(self.how, self._next, self._resume)

    def _next(self) -> object:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _resume(self, answer: object) -> Identity | Need[Identity | None] | None:
        if answer == "again":
            return Need(self.how, self._next, self._resume)
        if isinstance(answer, ZeroDivisionError):
            raise answer
        return cast("Identity | None", answer)


def test_what_must_be_asked_outside_is_a_need() -> None:
    """Nothing blocks and nothing is awaited in the core: each step is handed out and resumed with its answer."""
    gate = Gate(tokens=Slow(["again", "again", ALICE]), rules=[Rule("*", "/**", scopes("a"))])
    step = gate.decide(request_of(), OneRoute())
    steps = 0
    while isinstance(step, Need):
        assert step.how is How.BLOCKING
        step = step.resume(step.work())
        steps += 1
    assert steps == 3
    assert step.decision.allowed
    assert step.principal is ALICE


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        pytest.param([None], "missing_token", id="no credential"),
        pytest.param([FORGED], "invalid_token", id="a bad one"),
        pytest.param([RuntimeError("x")], "policy_error", id="an exception"),
        pytest.param([ZeroDivisionError("x")], "policy_error", id="an exception that is raised on"),
        pytest.param(["again", ZeroDivisionError("x")], "policy_error", id="an exception later"),
        pytest.param(["nonsense"], "policy_error", id="nonsense"),
    ],
)
def test_whatever_comes_from_outside_denies_unless_it_is_a_caller(answers: list[object], reason: str) -> None:
    """A source that fails, in any way, lets nobody in, not even where a caller is optional."""
    for wanted in (scopes("a"), authenticated, ~scopes("c")):
        gate = Gate(tokens=Slow(list(answers)), rules=[Rule("*", "/**", wanted)])
        assert decided(gate).decision.reason == reason
    optional_gate = Gate(tokens=Slow(list(answers)), rules=[Rule("*", "/**", optional)])
    assert decided(optional_gate).decision.allowed is (reason == "missing_token")


def test_an_async_requirement_is_a_need_of_its_own() -> None:
    """The user's coroutine is handed out to be awaited, and its exception denies."""

    async def test(facts: Facts) -> bool:
        if facts.principal.sub == "bob":
            raise LookupError("no such account")
        return True

    wanted = requirement("own_code", test)
    step = gate_for(wanted).decide(request_of(), OneRoute())
    assert isinstance(step, Need)
    assert step.how is How.COROUTINE
    done = step.resume(awaited(step.work()))
    assert isinstance(done, Outcome)
    assert done.decision.allowed
    failed = decided(gate_for(wanted, someone("bob")))
    assert failed.decision.reason is Reason.POLICY_ERROR
    assert isinstance(failed.decision.error, LookupError)


def test_two_async_requirements_are_asked_one_after_the_other() -> None:
    """Each answer is kept while the next is asked for; the second is not asked where the first refuses."""
    asked: list[str] = []

    def asking(name: str, *, answer: bool) -> Requirement:
        async def test(facts: Facts) -> bool:
            asked.append(name)
            return answer

        return requirement(name, test)

    assert decided(gate_for(asking("one", answer=True) & asking("two", answer=True))).decision.allowed
    assert asked == ["one", "two"]
    asked.clear()
    assert decided(gate_for(asking("one", answer=False) & asking("two", answer=True))).decision.reason == "one"
    assert asked == ["one"]


def test_roles_may_come_from_outside_the_token() -> None:
    """`roles_for` replaces the token's roles, hierarchy and grants apply, and its failure is a 503."""

    def gate_with(roles_for: Callable[[Principal], Any]) -> Gate:
        rbac = Rbac(hierarchy={"admin": ["seller"]}, grants={"seller": ["orders:refund"]}, roles_for=roles_for)
        return gate_for(permissions("orders:refund") & roles("admin"), rbac=rbac)

    assert decided(gate_with(lambda _: ["admin"])).decision.allowed
    assert decided(gate_with(lambda _: [])).decision.reason is Reason.ROLE_REQUIRED

    def down(principal: Principal) -> list[str]:
        raise OSError("the directory is down")

    outcome = decided(gate_with(down))
    assert (outcome.decision.reason, outcome.decision.status) == (Reason.POLICY_UNAVAILABLE, 503)
    assert "retry-after" in headers(outcome)


# ---- nothing raises

texts: Final = st.text() | st.sampled_from(
    ["", "/", "GET", "OPTIONS", WEBSOCKET, "10.1.2.3", "/a//b", "/\ud800", "[::1]:80"]
)


@given(
    requirements,
    st.builds(
        AccessRequest,
        texts,
        texts | st.text(st.sampled_from("/.a*")).map("/".__add__),
        st.none() | texts,
        st.dictionaries(
            st.sampled_from(
                [
                    "authorization",
                    "x-forwarded-for",
                    "forwarded",
                    "origin",
                    "access-control-request-method",
                    "access-control-request-headers",
                ]
            ),
            st.lists(texts | st.sampled_from([bearer(token()), APP, "GET"]), min_size=1, max_size=3).map(tuple),
        ),
    ),
    st.sampled_from(["x-forwarded-for", "forwarded", "x-client-ip"]),
)
def test_deciding_never_raises(wanted: Requirement, request_: AccessRequest, source: str) -> None:
    """Whatever a client sends, there is an outcome: it goes on, is answered, or looks like a 404; and one event."""
    gate = Gate(
        tokens=[tokens(), Callers(None)],
        rules=[Rule("GET", "/a/*", wanted), Rule("*", "/**", scopes("a") & wanted)],
        network=Network(source=source, trusted_proxies=["10.0.0.0/8", "unix"], deny=["192.0.2.0/24"]),
        cors=Cors(origins=[APP], credentials=True),
        clock=lambda: NOW,
    )
    outcome = fulfilled(gate.decide(request_, OneRoute()))
    with capture_logs() as events:
        gate.record(outcome)
    assert [event["event"] for event in events if event["event"] != "authz.warning"] == [events[0]["event"]]
    decision = outcome.decision
    if decision.allowed:
        assert outcome.response is None or outcome.response.status == 204
    else:
        assert outcome.concealed_as_missing or (outcome.response is not None and outcome.response.status >= 400)


@pytest.mark.parametrize("part", ["clock", "source", "routes", "requirement"])
def test_a_crash_anywhere_denies_with_500(part: str) -> None:
    """CWE-636: not failing open, wherever the exception came from."""

    def crash(*_: object) -> Any:  # noqa: ANN401 - it never returns
        raise RuntimeError(part)

    class Source:
        fields: Collection[str] = ()
        identify = crash

    class Routes(RulesAlone):
        find = crash  # type: ignore[assignment]  # it fails

    gate = Gate(
        tokens=Source() if part == "source" else Callers(ALICE),
        rules=[Rule("*", "/**", requirement("own_code", crash) if part == "requirement" else optional)],
        clock=crash if part == "clock" else lambda: NOW,
    )
    outcome = fulfilled(gate.decide(request_of(), Routes() if part == "routes" else OneRoute()))
    assert (outcome.decision.reason, outcome.decision.status) == (Reason.POLICY_ERROR, 500)
    assert repr(outcome.decision.error) == f"RuntimeError({part!r})"
    assert body(outcome)["reason"] == "policy_error"
    assert part not in body(outcome).values()


# ---- render


def test_render_makes_the_body_of_refusals() -> None:
    """The gate hands over what the caller may know, and the request."""

    def render(denial: Denial, request: AccessRequest) -> tuple[str, bytes]:
        return "text/plain", f"{denial.reason} at {request.path}".encode()

    outcome = decided(gate_for(scopes("c"), render=render))
    assert outcome.response is not None
    assert outcome.response.body == b"insufficient_scope at /"
    assert headers(outcome)["content-type"] == "text/plain"


def _raises(denial: Denial, request: AccessRequest) -> Any:  # noqa: ANN401 - it never returns
    raise KeyError("template")


@pytest.mark.parametrize(
    "render",
    [
        pytest.param(_raises, id="raises"),
        pytest.param(lambda *_: "no", id="a text"),
        pytest.param(lambda *_: ("text/html", "no"), id="a text as body"),
        pytest.param(lambda *_: ("text/html\r\nx: y", b"no"), id="a header in the content type"),
        pytest.param(lambda *_: ("text/\u4e2d", b"no"), id="no latin-1"),
        pytest.param(lambda: ("text/html", b"no"), id="takes nothing"),
    ],
)
def test_a_broken_render_changes_the_body_alone(render: Any) -> None:  # noqa: ANN401 - any mistake
    """The refusal stands, with the standard body, and the operator hears of it."""
    gate = gate_for(scopes("c"), render=render)
    with capture_logs() as events:
        outcome = decided(gate)
    assert body(outcome)["reason"] == "insufficient_scope"
    assert (events[0]["event"], events[0]["hint"]) == ("authz.error", "render failed; the standard body was sent")


# ---- denials from inside the app


def test_a_denial_from_inside_the_app_is_the_same_kind_of_answer() -> None:
    """Reason, body, headers and policy are those of any other refusal, and concealment holds."""
    gate = gate_for(scopes("a"))
    outcome = gate.denied_by_app(decided(gate), AccessDenied(Reason.NOT_OWNER, order=7))
    assert (body(outcome)["reason"], outcome.decision.status) == ("not_owner", 403)
    assert outcome.decision.policy == "Rule(* /**): scopes('a')"
    assert outcome.principal is ALICE
    concealing = gate_for(scopes("a").concealed())
    hidden = concealing.denied_by_app(decided(concealing), AccessDenied(Reason.NOT_OWNER))
    assert (hidden.concealed_as_missing, hidden.response) == (True, None)


@pytest.mark.parametrize(
    ("reason", "status", "challenge"),
    [
        ("missing_token", 401, True),
        ("token_expired", 401, True),
        ("insufficient_scope", 403, True),
        ("not_owner", 403, False),
        ("keys_unavailable", 503, False),
        ("plan_expired", 403, False),
    ],
)
def test_a_published_reason_as_text_is_that_reason(reason: str, status: int, challenge: bool) -> None:  # noqa: FBT001 - a column
    """`AccessDenied("missing_token")` is a 401 with its challenge, as with the enum's member."""
    gate = gate_for(anyone)
    outcome = gate.denied_by_app(decided(gate), AccessDenied(reason))
    assert outcome.decision.status == status
    assert body(outcome)["status"] == status
    assert ("www-authenticate" in headers(outcome)) is challenge


@pytest.mark.parametrize(
    "reason",
    ["Not Owner", "", "x\r\nset-cookie: a=b", "\u00e9t\u00e9", "a" * 10_000 + "!"],
    ids=lambda text: ascii(text)[:20],
)
def test_a_denial_with_a_code_of_the_wrong_shape_denies_and_injects_nothing(reason: str) -> None:
    """CWE-113: a reason that an app made of a client's text never becomes a header; the refusal stands."""
    gate = gate_for(anyone)
    with capture_logs():
        outcome = gate.denied_by_app(decided(gate), AccessDenied(reason))
    assert not outcome.decision.allowed
    assert outcome.decision.status in {403, 500}
    told = headers(outcome)["authz-reason"]
    assert told.replace("_", "").isalnum()
    assert told == told.lower()


def test_a_request_has_one_id_whatever_becomes_of_it() -> None:
    """The answer, a later change of it and the event carry the same id."""
    gate = gate_for(scopes("c"))
    outcome = decided(gate)
    first = outcome.decision_id
    gate.broken(outcome, Reason.ROUTE_MISMATCH, "path changed")
    with capture_logs() as events:
        gate.record(outcome)
    assert first == outcome.decision_id == body(outcome)["decision_id"] == events[0]["decision_id"]


def test_what_is_wrong_with_fetched_keys_is_warned_of() -> None:
    """A finding about an issuer's keys reaches the log of each gate that uses them, once."""

    def nobody_there(url: str) -> Document:
        raise FetchFailed(f"{url} answered 404")

    source = BearerTokens(issuer="https://id.example", audience="orders-api")
    keys = FetchedKeys(issuer=source.issuer, jwks_url="https://id.example/jwks", fetch=nobody_there)
    object.__setattr__(source, "keys", keys)
    gates = [Gate(tokens=source), Gate(tokens=source, default=anyone)]
    with capture_logs() as events:
        for now in (NOW, NOW + 60):
            step = keys.find("a", now, fetch=True)
            assert isinstance(step, Need)
            future = step.work()
            assert isinstance(future, Future)
            future.result(10)
    assert {event["policy_version"] for event in events} == {gate.policy_version for gate in gates}
    assert [(event["event"], event["cause"]) for event in events] == [("authz.warning", "keys_unavailable")] * 2
    assert "answered 404" in events[0]["hint"]


def test_what_must_not_go_on_is_answered() -> None:
    """A broken configuration and a request on another way than decided are 500s with a hint for the log alone."""
    gate = gate_for(scopes("a").concealed())
    outcome = gate.broken(decided(gate), Reason.ROUTE_MISMATCH, "path changed from SECRET")
    assert (outcome.decision.status, body(outcome)["reason"]) == (500, "route_mismatch")
    assert outcome.decision.hint == "path changed from SECRET"
    assert b"SECRET" not in json.dumps(body(outcome)).encode()
    refused = gate.refused(request_of(), Reason.MISCONFIGURED, "no routes")
    assert (refused.decision.status, body(refused)["reason"]) == (500, "misconfigured")


# ---- preflights and origins

PREFLIGHT: Final = {"origin": APP, "access_control_request_method": "POST"}


def test_a_preflight_is_answered_before_anything_can_refuse_it() -> None:
    """No policy, no token, no network and no route is asked; it never reaches the app."""
    gate = gate_for(deny, cors=Cors(origins=[APP]), network=Network(allow=["192.0.2.0/24"]))
    outcome = decided(gate, request_of("OPTIONS", "/any/../path", **PREFLIGHT))
    assert outcome.decision.allowed
    assert outcome.response is not None
    assert (outcome.response.status, outcome.response.body) == (204, b"")
    assert headers(outcome)["access-control-allow-origin"] == APP


def test_a_refused_preflight_says_which_part_in_the_log_alone() -> None:
    """403 without CORS headers, as a browser needs no more; the operator reads what was not allowed."""
    gate = gate_for(anyone, cors=Cors(origins=[APP]))
    outcome = decided(gate, request_of("OPTIONS", **{**PREFLIGHT, "origin": "https://evil.example"}))
    assert (outcome.decision.status, outcome.decision.reason) == (403, Reason.PREFLIGHT_REFUSED)
    assert "access-control-allow-origin" not in headers(outcome)
    assert "origin" in str(outcome.decision.hint)
    assert str(outcome.decision.hint) not in json.dumps(body(outcome))


@pytest.mark.parametrize(
    "fields",
    [{}, {"origin": APP}, {"access_control_request_method": "POST"}],
    ids=["bare", "origin alone", "method alone"],
)
def test_any_other_options_goes_through_the_policy(fields: Mapping[str, str]) -> None:
    """Only Origin with Access-Control-Request-Method is a preflight; and without `cors=` nothing is."""
    gate = gate_for(deny, cors=Cors(origins=[APP]))
    assert decided(gate, request_of("OPTIONS", **fields)).decision.reason is Reason.ACCESS_DENIED
    assert decided(gate_for(deny), request_of("OPTIONS", **PREFLIGHT)).decision.reason is Reason.ACCESS_DENIED


def test_every_answer_may_be_read_by_the_allowed_origins() -> None:
    """Denials and crashes carry CORS headers for them, and `Vary: Origin` for everybody."""
    for wanted in (scopes("c"), requirement("own_code", lambda _: 1 / 0 > 0)):
        gate = gate_for(wanted, cors=Cors(origins=[APP]))
        allowed = decided(gate, request_of(origin=APP))
        assert headers(allowed)["access-control-allow-origin"] == APP
        assert "Authz-Reason" in headers(allowed)["access-control-expose-headers"]
        foreign = decided(gate, request_of(origin="https://evil.example"))
        assert "access-control-allow-origin" not in headers(foreign)
        assert headers(allowed)["vary"] == headers(foreign)["vary"] == "Origin"
    passed = decided(gate_for(anyone, cors=Cors(origins=[APP])), request_of(origin=APP))
    assert (b"access-control-allow-origin", APP.encode()) in passed.headers


@pytest.mark.parametrize(
    ("origins", "reason"),
    [
        ((), None),
        ((APP,), None),
        (("https://evil.example",), "origin_not_allowed"),
        (("null",), "origin_not_allowed"),
        (("",), "origin_not_allowed"),
        ((APP, APP), "origin_not_allowed"),
        ((APP, "https://evil.example"), "origin_not_allowed"),
    ],
)
def test_a_web_socket_may_be_opened_from_an_allowed_origin_alone(origins: tuple[str, ...], reason: str | None) -> None:
    """RFC 6455 section 10.2; CWE-1385, cross-site WebSocket hijacking. Who sends no Origin is no browser."""
    gate = gate_for(anyone, cors=Cors(origins=[APP]))
    fields = {"origin": origins} if origins else {}
    outcome = decided(gate, AccessRequest(WEBSOCKET, "/", None, fields))
    assert outcome.decision.reason == reason
    assert decided(gate, AccessRequest("GET", "/", None, fields)).decision.allowed
    assert decided(gate_for(anyone), AccessRequest(WEBSOCKET, "/", None, fields)).decision.allowed


# ---- gates within gates, reports, hints


def test_a_gate_within_a_gate_leaves_address_and_cors_to_the_outer_one() -> None:
    """The inner policy holds besides; what the outer one found out about the connection stays."""
    outer = gate_for(anyone, network=Network(trusted_proxies=["10.0.0.0/8"]), cors=Cors(origins=[APP]))
    inner = gate_for(networks("203.0.113.0/24") & scopes("a"), cors=Cors(origins=["https://other.example"]))
    request = request_of(x_forwarded_for="203.0.113.9", origin=APP)
    within = decided(outer, request)
    outcome = fulfilled(inner.decide(request, OneRoute(), within=within))
    assert outcome.decision.allowed
    assert str(outcome.address) == "203.0.113.9"
    assert outcome.headers == ()
    preflight = request_of("OPTIONS", **PREFLIGHT)
    strict = gate_for(deny, cors=Cors(origins=[APP]))
    assert fulfilled(strict.decide(preflight, OneRoute(), within=within)).decision.reason is Reason.ACCESS_DENIED
    denied = fulfilled(gate_for(deny).decide(request, OneRoute(), within=within))
    assert denied.decision.reason is Reason.ACCESS_DENIED


def test_a_gate_that_only_reports_lets_everything_pass() -> None:
    """Every refusal is decided and told, and none is answered, not even a concealed or a malformed one."""
    for wanted, path in ((scopes("c"), "/"), (scopes("c").concealed(), "/"), (anyone, "/a\n")):
        outcome = decided(gate_for(wanted, dangerously_report_only=True), request_of(path=path))
        assert not outcome.decision.allowed
        assert (outcome.response, outcome.concealed_as_missing) == (None, False)


PROXY: Final = Network(trusted_proxies=["172.16.0.0/12"])


@pytest.mark.parametrize(
    ("gate", "request_", "hint"),
    [
        pytest.param(
            Gate(tokens=tokens(), default=authenticated, network=PROXY, clock=lambda: NOW),
            request_of(peer="172.16.0.1", x_forwarded_for="203.0.113.9"),
            "no Authorization header came through the proxy in front",
            id="a proxy in front and no Authorization header",
        ),
        pytest.param(
            gate_for(networks("203.0.113.0/24"), network=PROXY),
            request_of(peer="198.51.100.7", x_forwarded_for="203.0.113.9"),
            "not in trusted_proxies",
            id="a proxy that is not trusted",
        ),
        pytest.param(
            gate_for(networks("203.0.113.0/24")),
            request_of(peer="172.16.0.1", x_forwarded_for="203.0.113.9"),
            "not in trusted_proxies",
            id="no proxy is trusted",
        ),
        pytest.param(
            gate_for(networks("203.0.113.0/24"), network=PROXY),
            request_of(peer="172.16.0.1"),
            "address is not known",
            id="a trusted proxy that says nothing",
        ),
        pytest.param(
            Gate(tokens=tokens(), default=authenticated, clock=lambda: NOW),
            request_of(authorization=bearer(token(iss="https://staging.example", exp=1))),
            "https://staging.example",
            id="a token of another environment, expired besides",
        ),
        pytest.param(
            Gate(tokens=tokens(), default=authenticated, clock=lambda: NOW),
            request_of(authorization=bearer(token(aud="staging-api"))[:-3] + "AAA"),
            "staging-api",
            id="a token of another audience, badly signed besides",
        ),
        pytest.param(
            Gate(tokens=tokens(), default=scopes("orders:write"), clock=lambda: NOW),
            request_of(authorization=bearer(token())),
            "scope",
            id="a scope that the provider dropped",
        ),
        pytest.param(
            Gate(tokens=tokens(), default=roles("admin"), clock=lambda: NOW),
            request_of(authorization=bearer(token(realm_access={"roles": ["admin"]}))),
            "no role at all",
            id="roles in another claim",
        ),
    ],
)
def test_the_log_hints_at_what_an_operator_would_hunt_for(gate: Gate, request_: AccessRequest, hint: str) -> None:
    """The usual causes of a refusal that looks inexplicable are named, in the log alone."""
    outcome = decided(gate, request_)
    with capture_logs() as events:
        gate.record(outcome)
    assert hint in events[0]["hint"]
    assert events[0]["hint"] not in json.dumps(body(outcome))


def test_an_ordinary_refusal_has_no_hint() -> None:
    """Hints are for what is not plain from the reason."""
    assert decided(gate_for(authenticated, NOBODY)).decision.hint is None
    assert decided(gate_for(networks("192.0.2.0/24"))).decision.hint is None
    assert decided(gate_for(roles("admin"))).decision.hint is None


def test_a_peer_that_the_server_replaced_is_warned_of_once() -> None:
    """A server that already put a forwarded address in the peer's place takes the trusted proxies' meaning away."""
    gate = gate_for(anyone, network=PROXY)
    with capture_logs() as events:
        for _ in range(3):
            gate.record(decided(gate, replace(request_of(), peer_rewritten=True)))
        careless = gate_for(anyone)
        careless.record(decided(careless, replace(request_of(), peer_rewritten=True)))
    assert [event["event"] for event in events if event["event"] != "authz.allowed"] == ["authz.warning"]
    events = [event for event in events if event["event"] == "authz.warning"]
    assert "--no-proxy-headers" in events[0]["hint"]


# ---- questions besides


@pytest.mark.parametrize(
    ("principal", "wanted", "can"),
    [
        (ALICE, scopes("a"), True),
        (ALICE, scopes("c"), False),
        (ALICE, scopes("a") & roles("seller") & claim("level", 1), True),
        (ALICE, any_role("admin", "seller"), True),
        (ALICE, ~roles("admin"), True),
        (ALICE, anyone, True),
        (ALICE, deny, False),
        (ALICE, authenticated, True),
        (ALICE, optional, True),
        (ALICE, networks("0.0.0.0/0"), False),
        (ALICE, ~networks("0.0.0.0/0"), False),
        (ALICE, param("tenant", claim="tenant"), False),
        (ALICE, ~param("tenant", claim="tenant"), False),
        (ALICE, requirement("own", lambda _: True), True),
        (ALICE, requirement("own", lambda _: False), False),
        (ALICE, requirement("own", lambda _: 1 / 0 > 0), False),
        (ALICE, scopes("a").concealed(), True),
        (None, authenticated, False),
        (None, scopes("a"), False),
        (None, ~scopes("a"), False),
        (None, optional, True),
        (None, anyone, True),
        (None, requirement("own", lambda _: True), False),
        (None, requirement("own", lambda _: True, anonymous=True), True),
    ],
)
def test_a_gate_tells_what_somebody_can_do(principal: Principal | None, wanted: Requirement, can: bool) -> None:  # noqa: FBT001 - a column
    """For menus and lists, without a request: what depends on one is not met, and neither is its opposite."""
    assert Gate(clock=lambda: NOW).can(principal, wanted) is can


def test_a_plain_question_cannot_wait() -> None:
    """An async test cannot be asked by a plain call, and says so."""

    async def test(facts: Facts) -> bool:
        return True

    with pytest.raises(ConfigurationError, match="async"):
        Gate().can(ALICE, requirement("own_code", test))


def test_a_denial_is_what_the_caller_may_see_of_an_outcome() -> None:
    """The same members as the body's: no address where the body has none, and under `disclose="code"` no names."""
    outcome = decided(gate := gate_for(scopes("c")))
    denial = gate.denial(outcome)
    assert (denial.reason, denial.missing_scopes, denial.client_ip) == ("insufficient_scope", ("c",), None)
    assert denial.decision_id == outcome.decision_id
    refused = decided(gate := gate_for(networks("192.0.2.0/24")))
    assert gate.denial(refused).client_ip == INSIDE
    short = decided(gate := gate_for(scopes("c"), disclose="code"))
    assert "'c'" not in repr(gate.denial(short))
    assert " c." not in repr(gate.denial(short))


def test_a_gate_names_the_fields_that_it_decides_on() -> None:
    """An adapter reads these header fields and no others."""
    proxies_show = {"x-forwarded-for", "forwarded", "via"}
    assert Gate().fields == proxies_show
    assert Gate(tokens=tokens()).fields == {"authorization", *proxies_show}
    assert Gate(tokens=[Slow([]), tokens()], network=Network(source="x-real-ip", trusted_proxies=["unix"])).fields == {
        "authorization",
        "x-key",
        "x-real-ip",
        "transfer-encoding",
        *proxies_show,
    }
    assert Gate(cors=Cors(origins=[APP])).fields == {
        "origin",
        "access-control-request-method",
        "access-control-request-headers",
        "access-control-request-private-network",
        *proxies_show,
    }


def test_a_gate_may_come_from_a_function() -> None:
    """Factories make the gate when the app starts; anything else is a mistake."""
    gate = Gate()
    assert as_gate(gate) is gate
    assert as_gate(lambda: gate) is gate
    for wrong in (None, "gate", lambda: None, Gate):
        with pytest.raises(ConfigurationError, match="a Gate, or a function that returns one"):
            as_gate(wrong)


# ---- configuration


def mistakes_of(make: Callable[[], object]) -> dict[str, str]:
    """Return field and value of each mistake that a gate is refused for."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.part == "Gate"
    assert all(mistake.why for mistake in caught.value.mistakes)
    return {mistake.field: mistake.value for mistake in caught.value.mistakes}


def test_every_mistake_of_a_gate_is_told_at_once() -> None:
    """Field, value and why of each, in one error."""
    wrong: dict[str, Any] = {
        "tokens": ["a token"],
        "rules": [Rule("GET", "/a", anyone), Rule("GET", "/a", deny), "a rule"],
        "rbac": {"admin": ["seller"]},
        "network": "10.0.0.0/8",
        "cors": [APP],
        "default": "deny",
        "disclose": "all",
        "render": "template.html",
        "type_base": "urn:\u00e9",
        "dangerously_report_only": "false",
        "shared": "no",
        "clock": NOW,
    }
    found = mistakes_of(lambda: Gate(**wrong))
    assert set(found) == {
        "tokens[0]",
        "rules[1]",
        "rules[2]",
        "rbac",
        "network",
        "cors",
        "default",
        "disclose",
        "render",
        "type_base",
        "dangerously_report_only",
        "shared",
        "clock",
    }


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"tokens": "token"}, "tokens[0]"),
        ({"tokens": [tokens(), tokens(audience="other")]}, "tokens[1]"),
        ({"tokens": BearerTokens}, "tokens[0]"),
        ({"rules": Rule("GET", "/", anyone)}, "rules"),
        ({"rules": None}, "rules"),
        ({"rules": [("GET", "/", anyone)]}, "rules[0]"),
        ({"rules": [Rule("*", "/**", anyone), Rule("GET", "/a", anyone)]}, "rules[1]"),
        ({"rbac": Rbac}, "rbac"),
        ({"network": ["10.0.0.0/8"]}, "network"),
        ({"cors": APP}, "cors"),
        ({"default": None}, "default"),
        ({"disclose": None}, "disclose"),
        ({"render": ("text/plain", b"no")}, "render"),
        ({"type_base": None}, "type_base"),
        ({"type_base": "urn:\n"}, "type_base"),
        ({"dangerously_report_only": "0"}, "dangerously_report_only"),
        ({"dangerously_report_only": 1}, "dangerously_report_only"),
        ({"shared": "false"}, "shared"),
        ({"clock": 5}, "clock"),
    ],
    ids=repr,
)
def test_each_wrong_option_is_a_mistake(options: dict[str, Any], field: str) -> None:
    """Nothing that cannot be meant is taken, above all not a text that says false."""
    assert list(mistakes_of(lambda: Gate(**options))) == [field]


# ---- the version of a policy


def changed(**options: Any) -> str:  # noqa: ANN401 - any option of Gate
    """Return the policy's version of a gate that differs in some options from the plain one."""
    plain: dict[str, Any] = {
        "tokens": tokens(key=SECRET, algorithms=["HS256"]),
        "rules": [Rule("GET", "/a", scopes("a"))],
        "rbac": Rbac(grants={"seller": ["orders:refund"]}),
        "network": Network(),
        "cors": Cors(origins=[APP]),
        "default": deny,
    }
    return Gate(**{**plain, **options}).policy_version


VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "method": {"rules": [Rule("POST", "/a", scopes("a"))]},
    "path": {"rules": [Rule("GET", "/b", scopes("a"))]},
    "scope": {"rules": [Rule("GET", "/a", scopes("b"))]},
    "requirement": {"rules": [Rule("GET", "/a", roles("a"))]},
    "concealment": {"rules": [Rule("GET", "/a", scopes("a").concealed())]},
    "another rule": {"rules": [Rule("GET", "/a", scopes("a")), Rule("GET", "/b", anyone)]},
    "networks": {"rules": [Rule("GET", "/a", networks("10.0.0.0/8"))]},
    "claim": {"rules": [Rule("GET", "/a", claim("x", 1))]},
    "claim's type": {"rules": [Rule("GET", "/a", claim("x", "1"))]},
    "default": {"default": anyone},
    "issuer": {"tokens": tokens(key=SECRET, algorithms=["HS256"], issuer="https://other.example")},
    "audience": {"tokens": tokens(key=SECRET, algorithms=["HS256"], audience="other")},
    "algorithms": {"tokens": tokens(key=SECRET, algorithms=["HS512"])},
    "strictness": {"tokens": tokens(key=SECRET, algorithms=["HS256"], typ="strict")},
    "leeway": {"tokens": tokens(key=SECRET, algorithms=["HS256"], leeway=5)},
    "claims": {"tokens": tokens(key=SECRET, algorithms=["HS256"], claims={"roles": "groups"})},
    "another source": {"tokens": [tokens(key=SECRET, algorithms=["HS256"]), Callers(None)]},
    "grants": {"rbac": Rbac(grants={"seller": ["orders:refund", "x"]})},
    "hierarchy": {"rbac": Rbac(grants={"seller": ["orders:refund"]}, hierarchy={"admin": ["seller"]})},
    "trusted proxies": {"network": Network(trusted_proxies=["10.0.0.0/8"])},
    "service networks": {"network": Network(allow=["10.0.0.0/8"])},
    "origins": {"cors": Cors(origins=[APP, "https://b.example"])},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_policys_version_changes_with_the_policy(variant: str) -> None:
    """Whatever changes decisions shows in the log as another version."""
    version = changed(**VARIANTS[variant])
    assert version != changed()
    assert version == changed(**VARIANTS[variant])


def test_the_policys_version_is_that_of_the_policy_alone() -> None:
    """The same policy has the same version, whatever its keys are: they are no part of it, and cannot be guessed."""
    assert changed() == changed()
    other = tokens(key=b"another secret of more than sixty-four bytes, which nobody ever knew", algorithms=["HS256"])
    assert changed(tokens=other) == changed()
    assert len(changed()) == 12
    assert SECRET.decode() not in changed()


VERSION: Final = """
from authz403 import BearerTokens, Cors, Gate, Network, Rbac, Rule, any_role, claim, networks

issuer, letters = "https://id.example", {"a", "b", "c", "d"}
wanted = any_role("a", "b") & claim("x", lambda value: True)
gate = Gate(
    tokens=BearerTokens(issuer=issuer, audience=letters, key="0" * 64, algorithms={"HS256", "HS384", "HS512"}),
    rules=[Rule({"GET", "POST", "PUT", "DELETE"}, "/a", wanted), Rule("GET", "/b", networks("10.0.0.0/8"))],
    rbac=Rbac(grants={"r": letters}, hierarchy={"r": {"s", "t", "u", "v"}}),
    network=Network(trusted_proxies={"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "unix"}),
    cors=Cors(origins={"https://a.example", "https://b.example", "https://c.example"}),
)
print(gate.policy_version)
"""


def test_the_policys_version_is_the_same_in_every_process() -> None:
    """Several workers, and the next deployment of the same configuration, log the same version; sets have no order."""
    versions = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", VERSION], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        versions.add(done.stdout)
    assert len(versions) == 1


def test_the_event_carries_the_version() -> None:
    """The log tells which policy decided."""
    gate = gate_for(scopes("c"))
    with capture_logs() as events:
        gate.record(decided(gate))
    assert events[0]["policy_version"] == gate.policy_version


def test_an_outsider_does_not_learn_the_networks() -> None:
    """The refusal of an address tells that address, and none of the list."""
    outcome = decided(gate_for(networks("10.66.0.0/16")), request_of(peer=OUTSIDE))
    assert body(outcome)["client_ip"] == OUTSIDE
    assert "10.66" not in repr(outcome.response)


@pytest.mark.parametrize("identity", [NOBODY, FORGED], ids=["no token", "bad token"])
def test_the_anonymous_learn_no_roles(identity: Rejected) -> None:
    """Names of roles, permissions and claims, and the source's hint, are for the log."""
    wanted = roles("boss") & permissions("fly") & claim("plan", "gold") & requirement("own_code", lambda _: True)
    outcome = decided(gate_for(wanted, identity))
    told = repr(outcome.response)
    for secret in ("boss", "fly", "plan", "gold", "own_code", "signature"):
        assert secret not in told


def test_the_known_caller_learns_nothing_of_themselves() -> None:
    """Subject, claims and held scopes stay out of the body: it may be pasted into a ticket."""
    caller = someone("SECRET-sub", client_id="SECRET-client", scopes=["SECRET-scope"], claims={"email": "SECRET"})
    for wanted in (scopes("c"), roles("boss"), param("x", claim="email"), claim("email", "other")):
        assert "SECRET" not in repr(decided(gate_for(wanted, caller)).response)


def test_cors_without_authorization_is_a_finding_where_tokens_are_sent() -> None:
    """A page that may not send the header can call public endpoints alone; that may be meant, so it is only told."""
    with capture_logs() as events:
        Gate(tokens=tokens(), cors=Cors(origins=["https://app.example"], headers=["X-Trace"]))
        Gate(tokens=tokens(), cors=Cors(origins=["https://app.example"]))
    structlog.reset_defaults()
    assert [(event["event"], event["cause"]) for event in events] == [("authz.warning", "cors")]
