"""Hints: the likely cause of a refusal in one sentence, for the operator alone; never for the caller, never harmful."""

import gc
import io
import json
import logging
from collections.abc import Callable, Generator
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from authz403 import (
    AccessDenied,
    Gate,
    Network,
    Principal,
    Rbac,
    Reason,
    Requirement,
    Rule,
    authenticated,
    networks,
    optional,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.decision import Outcome
from authz403.facts import Rejected
from authz403.request import AccessRequest
from tests.gates_made import ALICE, NOBODY, Callers, fulfilled, someone
from tests.tokens_made import NOW, bearer, ec_key, token, tokens

STRIPPED: Final = "no Authorization header came through the proxy in front: does it strip it?"
DROPPED: Final = (
    "if orders:read was asked for, the provider dropped it; does it know this scope, and may this client have it?"
)
NO_ROLE: Final = "the caller is signed in and has no role at all"


def decided(
    wanted: Requirement,
    text: str | None = None,
    *,
    claims: object = None,
    peer: str = "10.1.2.3",
    rbac: Rbac | None = None,
    network: Network | None = None,
    **fields: str,
) -> Outcome:
    """Return what becomes of a request with this token and these header fields."""
    gate = Gate(
        tokens=tokens(**({"claims": claims} if claims is not None else {})),
        default=wanted,
        rbac=rbac,
        network=network,
        clock=lambda: NOW,
    )
    lines = {name.replace("_", "-"): (value,) for name, value in fields.items()}
    if text is not None:
        lines["authorization"] = (bearer(text),)
    return fulfilled(gate.decide(AccessRequest("GET", "/orders", peer, lines)))


def hint_of(wanted: Requirement, text: str | None = None, **options: Any) -> str | None:  # noqa: ANN401 - those of decided
    """Return the hint of the refusal of a request with this token."""
    outcome = decided(wanted, text, **options)
    assert not outcome.decision.allowed
    return outcome.decision.hint


def hint_for_caller(wanted: Requirement, caller: Principal | Rejected) -> str | None:
    """Return the hint of the refusal of a caller whom a source of the app's own knows."""
    gate = Gate(tokens=Callers(caller), rules=[Rule("*", "/**", wanted)], clock=lambda: NOW)
    outcome = fulfilled(gate.decide(AccessRequest("GET", "/orders", "10.1.2.3")))
    assert not outcome.decision.allowed
    return outcome.decision.hint


# No token


@pytest.mark.parametrize("field", ["x_forwarded_for", "forwarded", "via"])
def test_a_token_that_a_proxy_may_have_stripped_is_hinted_at(field: str) -> None:
    """Whatever a proxy shows itself by; without one, a missing token explains itself."""
    assert hint_of(authenticated, **{field: "203.0.113.9"}) == STRIPPED
    assert hint_of(scopes("orders:read"), **{field: "203.0.113.9"}) == STRIPPED
    assert hint_of(authenticated) is None
    assert hint_of(authenticated, x_forwarded_host="shop.example") is None


@pytest.mark.parametrize(
    ("sent", "hint"),
    [
        ("Basic dTpw", "the Authorization header is of another scheme than Bearer: basic"),
        ("hunter2", "the Authorization header is of another scheme than Bearer, or names none"),
        ("", "the Authorization header is empty"),
    ],
)
def test_a_header_that_came_is_not_said_to_be_stripped(sent: str, hint: str) -> None:
    """What was found on the way stays."""
    assert hint_of(authenticated, authorization=sent, via="1.1 edge") == hint


@pytest.mark.parametrize("sent", [", Bearer b", "\u00e4"])
def test_an_unreadable_header_is_not_said_to_be_stripped(sent: str) -> None:
    """An Authorization header did come, whatever is in it."""
    assert hint_of(authenticated, authorization=sent, via="1.1 edge") != STRIPPED


def test_a_bad_token_behind_a_proxy_is_told_by_what_is_wrong_with_it() -> None:
    """The proxy is not to blame."""
    for text, hint in (
        (token(exp=NOW - 90), "it expired 90 s ago"),
        ("undefined", "it is the word undefined: the client sends a variable that was never set"),
    ):
        assert hint_of(optional, text, via="1.1 edge") == hint


# Scopes


@pytest.mark.parametrize(
    ("claims", "hint"),
    [
        ({}, f"the token has no scope at all: {DROPPED}"),
        ({"scope": ""}, f"the token has no scope at all: {DROPPED}"),
        ({"scope": "openid profile"}, f"the token has other scopes: {DROPPED}"),
        ({"scope": "orders:read:all"}, f"the token has other scopes: {DROPPED}"),
        ({"scope": "Orders:Read"}, "has the scope Orders:Read: names are compared exactly"),
        ({"scope": "b ORDERS:READ a"}, "has the scope ORDERS:READ: names are compared exactly"),
        (
            {"scope": "api://shop/orders:read"},
            "has the scope api://shop/orders:read: names are compared exactly",
        ),
        (
            {"scope": "https://api.shop.example/Orders:Read"},
            "has the scope https://api.shop.example/Orders:Read: names are compared exactly",
        ),
    ],
    ids=str,
)
def test_a_missing_scope_is_explained(claims: dict[str, Any], hint: str) -> None:
    """Dropped by the provider, or there under a name that is almost the same."""
    assert str(hint_of(scopes("orders:read"), token(**claims))).endswith(hint)


def test_a_scope_that_is_written_with_its_prefix_in_the_policy_is_explained() -> None:
    """Entra ID: a client asks for api://.../Orders.Read, and scp says Orders.Read; the policy has to say that too."""
    hint = hint_of(scopes("api://shop/Orders.Read"), token(scp="Orders.Read"), claims="entra")
    assert str(hint).endswith("has the scope Orders.Read: names are compared exactly")


def test_names_with_the_same_end_are_not_alike() -> None:
    """Two resources may both have a scope `read`: one is not the other by mistake."""
    text = token(scope="https://billing.example/read")
    assert "other scopes" in str(hint_of(scopes("https://orders.example/read"), text))


@pytest.mark.parametrize(
    ("preset", "claims", "place"),
    [
        (None, {"permissions": ["orders:read"]}, "permissions"),
        (None, {"scopes": ["a", "orders:read"]}, "scopes"),
        (None, {"scopes": "a orders:read"}, "scopes"),
        (None, {"scope": "", "scp": ["orders:read"]}, "scp"),
        ("auth0", {"azp": "c", "scp": ["orders:read"]}, "scp"),
        ("entra", {"scp": "a", "scope": "orders:read"}, "scope"),
        ("okta", {"cid": "c", "scope": "a orders:read"}, "scope"),
        ("auth0", {"azp": "c", "permissions": ["orders:read"], "scope": "Orders:Read"}, "permissions"),
    ],
    ids=str,
)
def test_a_scope_in_a_claim_that_is_not_read_is_found(preset: str | None, claims: dict[str, Any], place: str) -> None:
    """The first thing to look at when a provider was configured as another one."""
    hint = hint_of(scopes("orders:read"), token(**claims), claims=preset)
    assert hint == (
        f"the token holds orders:read in its claim {place}, and scopes are not read from there: "
        "set claims=, or ask for permissions()"
    )


def test_of_several_scopes_those_are_named_that_are_missing() -> None:
    """What the token has is not talked of."""
    text = token(scope="a", scopes=["a", "c"])
    assert "holds c in its claim scopes" in str(hint_of(scopes("a", "b", "c"), text))
    assert "if b, c was asked for" in str(hint_of(scopes("a", "b", "c"), token(scope="a")))


@pytest.mark.parametrize("separator", ["\t", "\n", ",", "\u00a0"])
def test_a_scope_claim_that_is_read_is_not_said_to_be_unread(separator: str) -> None:
    """Names that are not parted by spaces are one name, wherever the hint looks."""
    hint = hint_of(scopes("orders:read"), token(scope=f"openid{separator}orders:read"))
    assert "not read from there" not in str(hint)


@pytest.mark.parametrize(
    "claims",
    [
        {"scopes": {"orders:read": True}},
        {"scopes": [["orders:read"], {"orders:read": 1}, 5, None]},
        {"scopes": 5, "permissions": []},
        {"x": ["orders:read"]},
    ],
    ids=str,
)
def test_a_claim_of_another_shape_holds_no_scope(claims: dict[str, Any]) -> None:
    """Whatever stands in a claim that nobody reads, looking at it raises nothing and finds nothing."""
    assert hint_of(scopes("orders:read"), token(**claims)) == f"the token has no scope at all: {DROPPED}"


def test_a_requirement_of_ones_own_that_misses_no_scope_gets_no_talk_of_one() -> None:
    """A test or a check may refuse for scopes without naming any."""
    own = requirement(Reason.INSUFFICIENT_SCOPE, lambda _: False)
    assert hint_of(own, token(scope="a")) is None
    gate = Gate(tokens=tokens(), default=authenticated, clock=lambda: NOW)
    request = AccessRequest("GET", "/orders", "10.1.2.3", {"authorization": (bearer(token(scope="a")),)})
    outcome = fulfilled(gate.decide(request))
    assert gate.denied_by_app(outcome, AccessDenied(Reason.INSUFFICIENT_SCOPE)).decision.hint is None


# Roles


@pytest.mark.parametrize(
    ("preset", "claims", "hint"),
    [
        (None, {}, NO_ROLE),
        (None, {"roles": []}, NO_ROLE),
        (None, {"roles": ["seller"]}, None),
        (None, {"roles": ["administrator", "admins"]}, None),
        (None, {"roles": ["Admin"]}, "the caller has the role Admin: names are compared exactly"),
        (None, {"roles": ["shop/admin"]}, "the caller has the role shop/admin: names are compared exactly"),
        (
            None,
            {"realm_access": {"roles": ["admin"]}},
            f"{NO_ROLE}; the token holds admin in its claim realm_access.roles, and roles are not taken from there",
        ),
        (
            None,
            {"groups": ["admin", "x"]},
            f"{NO_ROLE}; the token holds admin in its claim groups, and roles are not taken from there",
        ),
        (
            None,
            {"role": "admin"},
            f"{NO_ROLE}; the token holds admin in its claim role, and roles are not taken from there",
        ),
        (
            None,
            {"roles": ["seller"], "cognito:groups": ["admin"]},
            "the token holds admin in its claim cognito:groups, and roles are not taken from there",
        ),
        (
            "auth0",
            {"azp": "c", "roles": ["admin"]},
            f"{NO_ROLE}; the token holds admin in its claim roles, and roles are not taken from there",
        ),
        (
            "keycloak",
            {"realm_access": {"roles": ["Admin"]}, "permissions": ["admin"]},
            "the token holds admin in its claim permissions, and roles are not taken from there",
        ),
        (None, {"realm_access": ["admin"], "groups": {"admin": 1}, "role": 5}, NO_ROLE),
        (None, {"realm_access": "admin"}, NO_ROLE),
    ],
    ids=str,
)
def test_a_missing_role_is_explained(preset: str | None, claims: dict[str, Any], hint: str | None) -> None:
    """A caller without any role is another matter than one with others, about whom there is nothing to hint at."""
    outcome = decided(roles("admin"), token(**claims), claims=preset)
    assert outcome.decision.reason is Reason.ROLE_REQUIRED
    assert outcome.decision.hint == hint


def test_no_role_and_other_roles_are_told_apart_in_the_event() -> None:
    """By `roles` and `hint`, under one reason: the caller is told the same."""
    with capture_logs() as events:
        for held in ([], ["seller"]):
            gate = Gate(tokens=Callers(someone(roles=held)), default=roles("admin"), clock=lambda: NOW)
            gate.record(fulfilled(gate.decide(AccessRequest("GET", "/orders", "10.1.2.3"))))
    structlog.reset_defaults()
    assert [(event["reason"], event["roles"], event.get("hint")) for event in events] == [
        ("role_required", [], NO_ROLE),
        ("role_required", ["seller"], None),
    ]


def test_roles_after_hierarchy_and_look_up_are_what_the_caller_has() -> None:
    """The hint speaks of the effective roles; what the token says instead is named."""
    included = Rbac(hierarchy={"boss": ["Admin"]})
    text = token(roles=["boss"])
    assert hint_of(roles("admin"), text, rbac=included) == "the caller has the role Admin: names are compared exactly"
    looked_up = Rbac(roles_for=lambda _: [])
    assert hint_of(roles("admin"), token(roles=["admin"]), rbac=looked_up) == (
        f"{NO_ROLE}; the token holds admin in its claim roles, and roles are not taken from there"
    )


# Callers without a token


@pytest.mark.parametrize(
    ("wanted", "caller"),
    [
        (scopes("orders:read"), someone()),
        (scopes("orders:read"), someone(scopes=["other"])),
        (scopes("orders:read"), someone(scopes=["Orders:Read"])),
        (roles("admin"), someone()),
        (roles("admin"), someone(roles=["seller"])),
        (roles("admin"), someone(roles=["Admin"])),
        (roles("admin"), ALICE),
        (permissions("orders:void"), ALICE),
    ],
    ids=[
        *("no scope", "other scopes", "a scope that is alike"),
        *("no role", "other roles", "a role that is alike", "claims of another kind", "permission"),
    ],
)
def test_callers_of_a_session_or_an_api_key_get_no_talk_of_tokens(wanted: Requirement, caller: Principal) -> None:
    """A source of one's own may know no claims: there is no token, and no provider that dropped anything."""
    hint = str(hint_for_caller(wanted, caller))
    assert "token" not in hint
    assert "provider" not in hint


def test_a_callers_names_that_are_almost_right_are_told_all_the_same() -> None:
    """Names are compared exactly, wherever they come from."""
    assert "Orders:Read" in str(hint_for_caller(scopes("orders:read"), someone(scopes=["Orders:Read"])))
    assert "Admin" in str(hint_for_caller(roles("admin"), someone(roles=["Admin"])))


def test_a_caller_who_is_refused_for_one_thing_and_another_gets_the_hint_of_each() -> None:
    """What was looked for once is not looked for again, and nothing else is taken for it."""
    caller = someone(scopes=["Read", "Write"], roles=["Read"])
    for _ in range(2):
        assert "the scope Read" in str(hint_for_caller(scopes("read"), caller))
        assert "the scope Write" in str(hint_for_caller(scopes("write"), caller))
        assert "the role Read" in str(hint_for_caller(roles("read"), caller))


def test_callers_are_not_kept_without_end_for_their_hints() -> None:
    """However many callers are refused, a bounded number of them stays in memory."""
    for number in range(3_000):
        hint_for_caller(scopes("read"), someone(f"caller {number}"))
    kept = sum(type(one) is Principal and one.sub.startswith("caller ") for one in gc.get_objects())
    assert kept <= 1_100


# What is found on the way


def test_a_hint_that_was_found_earlier_is_kept() -> None:
    """A source that knows better is not talked over."""
    gate = Gate(tokens=Callers(Rejected(Reason.MISSING_TOKEN, "no session")), default=authenticated, clock=lambda: NOW)
    request = AccessRequest("GET", "/orders", "10.1.2.3", {"via": ("1.1 edge",)})
    assert fulfilled(gate.decide(request)).decision.hint == "no session"


@pytest.mark.parametrize(
    "wanted",
    [permissions("orders:void"), requirement("own_code", lambda _: False), requirement("crash", lambda _: 1 / 0 > 1)],
    ids=["permission", "own code", "crash"],
)
def test_reasons_that_speak_for_themselves_have_no_hint(wanted: Requirement) -> None:
    """Hints are for what is not plain from the reason."""
    assert hint_of(wanted, token(scope="a"), via="1.1 edge") is None


BEHIND: Final = Network(trusted_proxies=["10.0.0.0/8"])
UNREAD: Final = "X-Forwarded-For came from a peer that is not in trusted_proxies, and was not read"


@pytest.mark.parametrize(
    ("network", "peer", "fields", "hint"),
    [
        (None, "198.51.100.7", {}, None),
        (None, "198.51.100.7", {"x_forwarded_for": "192.0.2.1"}, UNREAD),
        (BEHIND, "198.51.100.7", {"x_forwarded_for": "192.0.2.1"}, UNREAD),
        (BEHIND, "198.51.100.7", {"via": "1.1 edge"}, None),
        (BEHIND, "10.0.0.1", {"x_forwarded_for": "198.51.100.7"}, None),
        (
            BEHIND,
            "10.0.0.1",
            {},
            "the client's address is not known: the trusted proxy sent no usable x-forwarded-for",
        ),
        (
            BEHIND,
            "10.0.0.1",
            {"x_forwarded_for": "unknown"},
            "the client's address is not known: the trusted proxy sent no usable x-forwarded-for",
        ),
    ],
    ids=str,
)
def test_a_client_outside_is_explained_by_its_address(
    network: Network | None, peer: str, fields: dict[str, str], hint: str | None
) -> None:
    """The usual cause is a proxy that is not trusted, or one that says nothing."""
    assert hint_of(networks("192.0.2.0/24"), peer=peer, network=network, **fields) == hint


def test_a_concealed_refusal_is_explained_to_the_operator() -> None:
    """The caller sees a 404; the log knows better."""
    outcome = decided(scopes("orders:read").concealed(), token(scope="Orders:Read"))
    assert outcome.concealed_as_missing
    assert "Orders:Read" in str(outcome.decision.hint)


# For the log alone


@pytest.mark.parametrize(
    ("wanted", "text", "fields"),
    [
        (authenticated, None, {"via": "1.1 edge"}),
        (authenticated, token(iss="https://SECRET.example"), {}),
        (authenticated, token(aud="SECRET", key=ec_key(nth=4)), {}),
        (authenticated, token(token_use="SECRET", header={"typ": "JWT"}), {}),
        (authenticated, token(header={"typ": "SECRET"}), {}),
        (authenticated, token(scope=5), {}),
        (scopes("read"), token(scope="https://SECRET.example/read"), {}),
        (scopes("read"), token(scope="SECRET"), {}),
        (scopes("read"), token(scopes=["read"]), {}),
        (roles("admin"), token(roles=["SECRET/admin"]), {}),
        (roles("admin"), token(groups=["admin", "SECRET"]), {}),
        (networks("192.0.2.0/24"), None, {"x_forwarded_for": "203.0.113.99"}),
    ],
    ids=[
        *("another proxy", "issuer", "audience", "token_use", "typ", "scope of no string", "scope", "short scope"),
        *("scopes", "roles", "groups", "forwarded address"),
    ],
)
def test_hints_never_reach_the_caller(wanted: Requirement, text: str | None, fields: dict[str, str]) -> None:
    """Neither the body nor a header holds a hint, or what it quotes; nor does the denial that `render` sees."""
    more: dict[str, Any] = fields
    outcome = decided(wanted, text, **more)
    hint, response = outcome.decision.hint, outcome.response
    assert hint is not None
    assert response is not None
    sent = response.body + b"".join(name + b": " + value for name, value in response.headers)
    assert hint.encode() not in sent
    assert json.dumps(hint)[1:-1].encode() not in sent
    assert b"secret" not in sent.lower()
    for word in (b"claims=", b"trusted_proxies", b"compared exactly", b"strip", b"dropped", b"groups"):
        assert word not in sent


@pytest.fixture
def lines() -> Generator[Callable[[], list[str]]]:
    """Return what reads the plain log of a host that has not configured structlog, as lines."""
    structlog.reset_defaults()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("authz403")
    logger.addHandler(handler)
    yield lambda: stream.getvalue().splitlines()
    logger.removeHandler(handler)


HOSTILE: Final = {
    "newlines": 'x\r\n{"event":"authz.allowed","sub":"admin"}\u2028\x85',
    "ANSI": "\x1b[2J\x1b[31mx\x9b0m\x07\x00",
    "bidi": "\u202eadmin\u2066\ud800",
    "a token": token(sub="mallory"),
    "a header": f"Bearer {token()}",
    "10 kB": "y" * 10_000,
    "10 kB of newlines": "\n" * 7_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("at", ["iss", "aud", "scope", "roles", "token_use", "typ", "groups"])
def test_what_a_hint_quotes_is_harmless_in_the_log(at: str, text: str, lines: Callable[[], list[str]]) -> None:
    """CWE-117, CWE-532: whoever writes into iss, aud, a scope or a role forges no line and fills no disk."""
    one_word = text.replace(" ", "_")
    # The prefix makes the hint quote a scope or a role as one that is alike.
    by_place: dict[str, dict[str, Any]] = {
        "iss": {"iss": text, "key": ec_key(nth=4)},
        "aud": {"aud": [text, "x"], "key": ec_key(nth=4)},
        "scope": {"scope": f"{one_word}/read"},
        "roles": {"roles": [f"{text}/admin"]},
        "token_use": {"token_use": text, "header": {"typ": "JWT"}},
        "typ": {"header": {"typ": text}},
        "groups": {"groups": ["admin", text]},
    }
    wanted = {"scope": scopes("read"), "roles": roles("admin"), "groups": roles("admin")}.get(at, authenticated)
    gate = Gate(tokens=tokens(), default=wanted, clock=lambda: NOW)
    request = AccessRequest("GET", "/orders", "10.1.2.3", {"authorization": (bearer(token(**by_place[at])),)})
    outcome = fulfilled(gate.decide(request))
    assert outcome.decision.hint
    with capture_logs() as events:
        gate.record(outcome)
    structlog.reset_defaults()
    gate.record(outcome)
    (line,) = lines()
    assert json.loads(line)["hint"] == events[0]["hint"]
    for told in (events[0]["hint"], line):
        assert "eyJ" not in told
        assert all(letter.isprintable() for letter in told)
    assert len(events[0]["hint"]) < 7_000
    assert len(line) < 60_000


def test_nobody_without_a_proxy_is_an_ordinary_refusal() -> None:
    """A source that finds no credential gives no hint, and none is made up."""
    assert hint_for_caller(authenticated, NOBODY) is None
