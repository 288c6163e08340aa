"""csrf_protected: what a page of another site sends in its visitor's name is refused, and nothing else."""

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import flask
import pytest
from fastapi import FastAPI
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

import authz403.flask
from authz403 import (
    BearerTokens,
    ConfigurationError,
    Cors,
    Gate,
    Principal,
    Rbac,
    Reason,
    Requirement,
    Rule,
    anyone,
    authenticated,
    csrf_protected,
    deny,
    guard,
    networks,
    optional,
    requirement,
    requires,
    scopes,
)
from authz403.csrf import CsrfProtected, protects
from authz403.facts import Facts, Rejected
from authz403.fastapi import describe_policies
from authz403.identity import IdentitySource
from authz403.policy import Unmet
from authz403.request import AccessRequest
from tests import wsgi_made
from tests.apps_made import (
    AUDIENCE,
    BODYLESS,
    CONNECT,
    ISSUER,
    NOW,
    SECRET,
    TOKENS,
    Answer,
    drive,
    listening,
    scope_of,
    signed,
    unwalkable,
    wrapped,
)
from tests.gates_made import ALICE, FORGED, KEYLESS, NOBODY, Callers, Identity, OneRoute, fulfilled, someone

Headers = Iterable[tuple[str, str]]

SHOP: Final = "https://shop.example"
OTHER: Final = "https://other.example"
EVIL: Final = "https://evil.example"
COOKIE: Final = ("Cookie", "session=1")
HOST: Final = ("Host", "shop.example")
FROM_EVIL: Final = ("Origin", EVIL)
CROSS_SITE: Final = ("Sec-Fetch-Site", "cross-site")
SIGNED_IN: Final = authenticated & csrf_protected()


class Sessions:
    """Callers by the mere presence of a cookie."""

    fields = frozenset({"cookie"})

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        return someone() if request.fields.get("cookie") else None


class Stored(Sessions):
    """Sessions that keep the principal whom a token named when they began."""

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        return Principal(sub="alice", token_field="authorization") if request.fields.get("cookie") else None


class Basic:
    """Callers by a password, which a browser that has it sends by itself."""

    fields = frozenset({"authorization"})

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        lines = request.fields.get("authorization", ())
        return someone() if lines and lines[0].startswith("Basic ") else None


def gate_for(*sources: BearerTokens | IdentitySource, **more: object) -> Gate:
    """Return a gate that knows tokens and sessions, or the callers of these sources."""
    return Gate(tokens=sources or (TOKENS, Sessions()), clock=lambda: NOW, **more)  # type: ignore[arg-type]  # options of it


def noting(ran: list[str]) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that notes who got there."""

    async def change(request: Request) -> Response:
        ran.append(request.user.display_name)
        return PlainTextResponse("changed")

    return change


METHODS: Final = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY", "PURGE"]


class Sent(NamedTuple):
    """What became of a request: the answer, the hint in the log, and who got to the endpoint."""

    answer: Answer
    hint: object
    ran: list[str]

    @property
    def reason(self) -> str | None:
        """The reason of a refusal."""
        return self.answer.header("authz-reason")


def sent(
    headers: Headers = (), method: str = "POST", wanted: Requirement = SIGNED_IN, gate: Gate | None = None
) -> Sent:
    """Send a request to an endpoint that needs `wanted`, by default one of a session to a service at shop.example."""
    ran: list[str] = []
    app = Starlette(routes=[Route("/orders", requires(wanted)(noting(ran)), methods=METHODS)])
    with listening() as events:
        answer = drive(wrapped(app, gate or gate_for()), scope_of("/orders", method, headers=headers), BODYLESS)
    return Sent(answer, events[-1].get("hint"), ran)


def by_session(*headers: tuple[str, str], **more: Any) -> Sent:  # noqa: ANN401 - whatever sent takes
    """Send a request with a session's cookie to shop.example."""
    return sent((HOST, COOKIE, *headers), **more)


# ---- the tables of others


def rows_of(corpora: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield the cases of Go's own tests, each with the name of its table."""
    for table in json.loads((corpora / "csrf" / "csrf_test.json").read_text("utf-8")):
        for row in table["cases"]:
            yield table["func"], row


NOT_APPLICABLE: Final = {
    # Paths are let out by the policy (a rule or mark without csrf_protected), not by the protection; and the redirects
    # of the last ones are those of Go's ServeMux.
    "bypass path without sec-fetch-site",
    "bypass path with cross-site",
    "non-bypass path without sec-fetch-site",
    "non-bypass path with cross-site",
    "redirect to bypass path without ..",
    "redirect to bypass path with trailing slash",
    "redirect to non-bypass path with ..",
    "redirect to non-bypass path with trailing slash",
    "wildcard bypass",
    "non-wildcard",
    "bypass path",
    # A handler further out cannot switch off the policy of a request.
    "bypassed with cross-site",
}


def test_the_requests_of_others_are_judged_as_there(corpora: Path) -> None:
    """Go's tables: the status of every request that does not rest on a path let out by the protection itself."""
    judged: dict[str, int] = {}
    left = set()
    for table, row in rows_of(corpora):
        if table == "TestAddTrustedOriginErrors":
            continue
        name, *middle, expected = row
        if name in NOT_APPLICABLE:
            left.add(name)
            continue
        method, url, origin, site = "POST", "https://example.com", "", ""
        match table, middle:
            case "TestSecFetchSite", [method, site, origin]:
                pass
            case "TestTrustedOriginBypass", [origin, site]:
                pass
            case "TestUnsafeBypassRequest", [_, site]:
                pass
            case "TestServer", [method, _, origin, site]:
                url = "http://127.0.0.1:8000"
                origin = url if isinstance(origin, dict) else origin
            case _:
                pytest.fail(f"a table that is not known: {table}")
        headers = [("Host", url.partition("://")[2]), COOKIE]
        headers += [("Sec-Fetch-Site", site)] * bool(site) + [("Origin", origin)] * bool(origin)
        answer = sent(headers, method, authenticated & csrf_protected("https://trusted.example")).answer
        judged[f"{table}: {name}"] = answer.status
        assert {200: "http.StatusOK", 403: "http.StatusForbidden"}[answer.status] == expected["go"], (table, name)
    assert left == NOT_APPLICABLE
    assert len(judged) == 22


def is_taken(origin: str) -> bool:
    """Tell whether an origin may be trusted."""
    try:
        csrf_protected(origin)
    except ConfigurationError:
        return False
    return True


def test_the_origins_of_others_are_taken_or_refused_as_there(corpora: Path) -> None:
    """Go's table of trusted origins."""
    found = {}
    for table, row in rows_of(corpora):
        if table == "TestAddTrustedOriginErrors":
            name, origin, is_refused = row
            found[name] = is_taken(origin)
            assert found[name] is not is_refused, name
    assert len(found) == 12


# ---- what the headers tell


@pytest.mark.parametrize("method", METHODS)
def test_only_safe_methods_pass_unseen(method: str) -> None:
    """RFC 9110 section 9.2.1: GET, HEAD and OPTIONS change nothing; case matters, and what is not known is not safe."""
    found = by_session(CROSS_SITE, FROM_EVIL, method=method)
    if method in {"GET", "HEAD", "OPTIONS"}:
        assert (found.answer.status, found.ran) == (200, ["alice"])
    else:
        assert (found.answer.status, found.reason, found.ran) == (403, "csrf_failed", [])


@pytest.mark.parametrize("method", ["get", "Head", "options", "HTTP WEBSOCKET", "WEBSOCKET", "CONNECT", ""])
def test_a_method_that_is_nearly_safe_is_not(method: str) -> None:
    """Methods are case-sensitive (RFC 9110 section 9.1), and a router may take what looks like a safe one."""
    gate = gate_for(Callers(ALICE), rules=[Rule("*", "/**", csrf_protected())])
    request = AccessRequest(method, "/orders", fields={"sec-fetch-site": ("cross-site",)})
    assert fulfilled(gate.decide(request)).decision.reason is Reason.CSRF_FAILED


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("Sec-Fetch-Site", "same-origin"),),
        (("Sec-Fetch-Site", "none"),),
        (("Sec-Fetch-Site", "same-origin"), ("Origin", SHOP)),
        # Sec-Fetch-Site knows better than we do what the public name of the service is.
        (("Sec-Fetch-Site", "same-origin"), ("Origin", "https://public.example")),
        (("Origin", SHOP),),
        (("Origin", "http://shop.example"),),
        (("Origin", OTHER),),
        (("Origin", OTHER), CROSS_SITE),
        (("Origin", OTHER), ("Sec-Fetch-Site", "same-site")),
        # RFC 9110 section 5.1: a name with an underscore is another name.
        (("Origin", SHOP), ("Sec_Fetch_Site", "cross-site")),
    ],
    ids=str,
)
def test_what_is_of_this_service_or_trusted_passes(headers: Headers) -> None:
    """A page of ours, a trusted one, and what is no browser get to the endpoint."""
    found = by_session(*headers, wanted=authenticated & csrf_protected(OTHER))
    assert (found.answer.status, found.ran) == (200, ["alice"])


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ((CROSS_SITE,), "Sec-Fetch-Site is cross-site, and there is no Origin"),
        ((CROSS_SITE, FROM_EVIL), "Sec-Fetch-Site is cross-site, and the Origin https://evil.example is not trusted"),
        ((("Sec-Fetch-Site", "same-site"),), "Sec-Fetch-Site is same-site"),
        ((("Sec-Fetch-Site", "Same-Origin"),), "Sec-Fetch-Site is Same-Origin"),
        ((("Sec-Fetch-Site", ""),), "Sec-Fetch-Site is , and"),
        # An Origin that is that of Host does not help where the browser says otherwise.
        ((CROSS_SITE, ("Origin", SHOP)), "Sec-Fetch-Site is cross-site"),
        ((FROM_EVIL,), "the Origin https://evil.example is not trusted, and not that of the Host shop.example"),
        ((("Origin", "null"),), "the Origin null is not trusted"),
        ((("Origin", ""),), "the Origin  is not trusted"),
        ((("Origin", f"{OTHER}.evil.example"),), "is not trusted"),
        ((("Origin", OTHER.upper()),), "is not trusted"),
        ((("Origin", f"{OTHER}:443"),), "is not trusted"),
        ((("Origin", f"{OTHER}/"),), "is not trusted"),
        ((("Origin", "shop.example"),), "is not trusted"),
        ((("Origin", f"{SHOP}/"),), "is not trusted"),
        ((("Origin", f"{SHOP}:8443"),), "is not trusted"),
        ((("Origin", "https://user@shop.example"),), "is not trusted"),
        ((("Origin", "capacitor://shop.example"),), "is not trusted"),
        ((("Origin", "https://www.shop.example"),), "is not trusted"),
        ((("Sec-Fetch-Site", "same-origin"), CROSS_SITE), "more than one Sec-Fetch-Site header"),
        ((("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "same-origin")), "more than one Sec-Fetch-Site"),
        ((("Sec-Fetch-Site", "same-origin,cross-site"),), "more than one Sec-Fetch-Site header, or one with a comma"),
        ((("Origin", SHOP), FROM_EVIL), "more than one Origin header"),
        ((("Origin", f"{SHOP}, {EVIL}"),), "more than one Origin header, or one with a comma"),
        ((("Sec-Fetch-Site", "same-origin"), ("Origin", SHOP), FROM_EVIL), "more than one Origin header"),
        ((("Origin", OTHER), ("Sec-Fetch-Site", "none"), CROSS_SITE), "more than one Sec-Fetch-Site header"),
        ((("Origin", EVIL), ("Host", "evil.example")), "more than one Host header"),
    ],
    ids=str,
)
def test_what_another_site_sends_is_refused_and_the_log_says_why(headers: Headers, hint: str) -> None:
    """Nothing runs; the hint names the header that told, and the body does not."""
    found = by_session(*headers, wanted=authenticated & csrf_protected(OTHER))
    assert (found.answer.status, found.reason, found.ran) == (403, "csrf_failed", [])
    assert hint in str(found.hint)
    told = json.loads(found.answer.body)
    assert (told["remedy"], told["retryable"]) == ("fix_request", False)
    assert found.answer.header("www-authenticate") is None
    assert not any(secret in found.answer.body.decode() for secret in ("evil", "shop", "Sec-Fetch-Site", "Origin"))


@pytest.mark.parametrize(
    ("origin", "host", "passes"),
    [
        (SHOP, "SHOP.example", True),
        (SHOP, "shop.example:443", True),
        ("http://shop.example", "shop.example:80", True),
        ("https://shop.example:8443", "shop.example:8443", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://localhost", "localhost", True),
        (SHOP, "shop.example:80", False),
        ("http://shop.example", "shop.example:443", False),
        ("https://shop.example:8443", "shop.example", False),
        (SHOP, "shop.example:8443", False),
        (SHOP, "shop.example.", False),
        (SHOP, "shop.example.evil.example", False),
        (SHOP, "internal:8000", False),
        (SHOP, "", False),
        (SHOP, "shop.example, evil.example", False),
        ("https://", "", False),
        ("null", "null", False),
        (SHOP, None, False),
    ],
)
def test_without_sec_fetch_site_the_origin_is_compared_with_the_host(
    origin: str,
    host: str | None,
    passes: bool,  # noqa: FBT001 - a column
) -> None:
    """Host and port are, with the default port written or left out; who rewrites Host is told so in the log."""
    headers = [COOKIE, ("Origin", origin), *([("Host", host)] if host is not None else [])]
    found = sent(headers)
    assert (found.answer.status, found.ran) == ((200, ["alice"]) if passes else (403, []))
    if host == "internal:8000":
        assert str(found.hint).endswith("not that of the Host internal:8000 (does a proxy rewrite it?)")
    if host is None:
        assert str(found.hint).endswith("there is no Host")


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Host", "X-Original-Host", "Forwarded", "Referer", "X-HTTP-Method-Override"]
)
def test_what_a_client_may_write_opens_nothing(name: str) -> None:
    """The name of the service and the method are not taken from headers that anybody writes."""
    for value in (EVIL, "evil.example", "host=evil.example", "GET"):
        assert by_session(FROM_EVIL, (name, value)).reason == "csrf_failed"


# ---- who asks


@pytest.mark.parametrize("wanted", [SIGNED_IN, csrf_protected(), csrf_protected() & optional, scopes("a") & SIGNED_IN])
@pytest.mark.parametrize("more", [(), (COOKIE,)], ids=["", "and a cookie"])
def test_a_good_token_is_not_bothered(wanted: Requirement, more: Headers) -> None:
    """A page that sends a token has it; a cookie beside it names nobody."""
    gate = gate_for()
    headers = [("Authorization", "Bearer " + signed("ada", scope="a")), HOST, CROSS_SITE, FROM_EVIL, *more]
    for _ in range(2):  # verified, and remembered
        assert sent(headers, wanted=wanted, gate=gate).ran == ["ada"]


@pytest.mark.parametrize(
    "gate",
    [
        partial(gate_for, token_cache=0),
        partial(gate_for, rbac=Rbac(hierarchy={"admin": ["clerk"]})),
        partial(gate_for, rbac=Rbac(roles_for=lambda _: ["clerk"])),
        partial(gate_for, Sessions(), TOKENS),
    ],
    ids=["not remembered", "with a hierarchy", "with looked-up roles", "a session first"],
)
def test_that_a_token_named_the_caller_is_known_whatever_is_made_of_it(gate: Callable[[], Gate]) -> None:
    """Copies of the principal still know it, and sessions under the same gate are still refused."""
    made = gate()
    token = ("Authorization", "Bearer " + signed("ada", roles=["admin"]))
    for _ in range(2):
        assert sent([token, HOST, CROSS_SITE], gate=made).ran == ["ada"]
        assert by_session(CROSS_SITE, gate=made).reason == "csrf_failed"


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        (("Basic YWRhOng=",), 403, "csrf_failed"),
        (('Digest username="ada", realm="a"',), 403, "csrf_failed"),
        (("Negotiate abc",), 403, "csrf_failed"),
        (("",), 403, "csrf_failed"),
        (("junk",), 403, "csrf_failed"),
        (("Token " + signed(),), 403, "csrf_failed"),
        ((signed(),), 403, "csrf_failed"),
        (('"Bearer ' + signed() + '"',), 403, "csrf_failed"),
        (("Bearer",), 400, "invalid_request"),
        (("Bearer a b",), 400, "invalid_request"),
        (("Bearer " + signed(), "Bearer " + signed()), 400, "invalid_request"),
        (("Bearer junk",), 401, "invalid_token"),
        (("Bearer " + signed(secret="x" * 32),), 401, "invalid_token"),
        (("Bearer " + signed(exp=int(NOW) - 60),), 401, "token_expired"),
        (("Bearer " + signed(aud="other"),), 401, "wrong_audience"),
    ],
)
@pytest.mark.parametrize("wanted", [SIGNED_IN, csrf_protected()], ids=["signed in", "alone"])
def test_a_junk_authorization_header_switches_nothing_off(
    lines: Iterable[str], status: int, reason: str, wanted: Requirement
) -> None:
    """Beside a cookie session it is the session that is refused, or the token that it pretends to be; nothing runs."""
    found = by_session(CROSS_SITE, FROM_EVIL, *(("Authorization", line) for line in lines), wanted=wanted)
    assert (found.answer.status, found.reason, found.ran) == (status, reason, [])


@pytest.mark.parametrize(
    ("gate", "headers"),
    [
        (gate_for(TOKENS, Basic()), (("Authorization", "Basic YWRhOng="),)),
        (gate_for(TOKENS, Stored()), (COOKIE,)),
        (gate_for(TOKENS, Stored(), rbac=Rbac(roles_for=lambda _: ["r"])), (COOKIE,)),
        (
            gate_for(
                BearerTokens(
                    issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"], read_from="x-gateway-token"
                )
            ),
            (("X-Gateway-Token", signed()),),
        ),
    ],
    ids=["a password", "a stored principal", "a stored principal, with looked-up roles", "a token that a proxy wrote"],
)
def test_what_a_browser_sends_by_itself_is_no_token(gate: Gate, headers: Headers) -> None:
    """A caller known by anything but the token of this very request's Authorization header is held to the rule."""
    assert sent((HOST, CROSS_SITE, *headers), gate=gate).reason == "csrf_failed"
    assert sent((HOST, ("Sec-Fetch-Site", "same-origin"), *headers), gate=gate).answer.status == 200


def test_nobody_is_refused_as_well() -> None:
    """A page of another site may not sign its visitor in, either, and nobody needs a token to be let in by our own."""
    for wanted in (csrf_protected(), csrf_protected() & optional, SIGNED_IN):
        assert sent([HOST, CROSS_SITE], wanted=wanted).reason == "csrf_failed"
    assert sent([HOST, ("Origin", SHOP)], wanted=csrf_protected()).ran == [""]
    assert sent([HOST, ("Origin", SHOP)], wanted=SIGNED_IN).reason == "missing_token"
    assert sent([HOST, CROSS_SITE], wanted=csrf_protected(), gate=Gate()).reason == "csrf_failed"


# ---- with other requirements


def judged(
    wanted: Requirement, identity: Identity = ALICE, *, fields: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[Reason | str | None, int]:
    """Return what is said of a POST of another site, how often the caller was asked for beside it."""
    source = Callers(identity)
    gate = Gate(tokens=source, rules=[Rule("*", "/**", wanted)], clock=lambda: NOW)
    foreign = {"sec-fetch-site": ("cross-site",)} if fields is None else fields
    outcome = fulfilled(gate.decide(AccessRequest("POST", "/orders/5", "10.1.2.3", foreign), OneRoute()))
    return outcome.decision.reason, source.asked


async def later(facts: Facts) -> bool:
    """Answer as a look-up does that found nothing."""
    return False


@pytest.mark.parametrize(
    ("wanted", "identity", "reason", "asked"),
    [
        (csrf_protected() & networks("192.0.2.0/24"), ALICE, Reason.IP_NOT_ALLOWED, 0),
        (csrf_protected() & deny, ALICE, Reason.ACCESS_DENIED, 0),
        (csrf_protected() & networks("10.0.0.0/8"), ALICE, Reason.CSRF_FAILED, 1),
        (scopes("z") & csrf_protected(), ALICE, Reason.CSRF_FAILED, 1),
        (authenticated & csrf_protected(), NOBODY, Reason.CSRF_FAILED, 1),
        (authenticated & csrf_protected(), FORGED, Reason.INVALID_TOKEN, 1),
        (csrf_protected(), KEYLESS, Reason.KEYS_UNAVAILABLE, 1),
        (requirement("own_code", lambda _: False, anonymous=True) & csrf_protected(), ALICE, Reason.CSRF_FAILED, 1),
        (requirement("awaited_code", later, anonymous=True) & csrf_protected(), ALICE, Reason.CSRF_FAILED, 1),
        (csrf_protected() | networks("10.0.0.0/8"), ALICE, None, 0),
        (csrf_protected() | scopes("a"), ALICE, None, 1),
        (csrf_protected() | scopes("z"), ALICE, Reason.CSRF_FAILED, 1),
        (csrf_protected() | networks("192.0.2.0/24"), ALICE, Reason.CSRF_FAILED, 1),
        ((csrf_protected() | networks("192.0.2.0/24")) & scopes("a"), ALICE, Reason.CSRF_FAILED, 1),
        (scopes("a") | (csrf_protected() & scopes("z")), ALICE, None, 1),
        (~csrf_protected(), ALICE, None, 1),
        (~csrf_protected(), FORGED, Reason.INVALID_TOKEN, 1),
        (~~csrf_protected(), ALICE, Reason.CSRF_FAILED, 1),
        (csrf_protected().concealed(), ALICE, Reason.CSRF_FAILED, 1),
    ],
    ids=lambda value: repr(value) if isinstance(value, Requirement) else None,
)
def test_it_stands_between_network_and_authentication(
    wanted: Requirement, identity: Identity, reason: Reason | None, asked: int
) -> None:
    """It is told after the network and before all that is about the caller, who is asked for where that matters."""
    assert judged(wanted, identity) == (reason, asked)


def test_what_cannot_be_told_opens_nothing_by_a_not() -> None:
    """`~` swaps what is known; headers that contradict each other are not."""
    two: Mapping[str, tuple[str, ...]] = {"sec-fetch-site": ("same-origin", "cross-site")}
    assert judged(~csrf_protected(), fields=two)[0] is Reason.CSRF_FAILED
    assert judged(~csrf_protected(), fields={"origin": (SHOP, EVIL)})[0] is Reason.CSRF_FAILED
    assert judged(~csrf_protected(), fields={"sec-fetch-site": ("same-origin",)})[0] is Reason.ACCESS_DENIED


def test_a_request_whose_headers_were_not_read_is_refused() -> None:
    """It knows nothing of the request, which is not the same as there being nothing."""
    for fields in ({}, {"origin": (), "host": (), "upgrade": ()}):
        unmet = csrf_protected().check(Facts(AccessRequest("GET", "/", fields=fields), ALICE))
        assert isinstance(unmet, Unmet)
        assert (unmet.reason, unmet.unknown) == (Reason.CSRF_FAILED, True)
    assert not Gate().can(ALICE, csrf_protected())


def test_concealed_it_is_the_apps_own_404() -> None:
    """Another site's page does not learn that there is anything."""
    found = by_session(CROSS_SITE, wanted=SIGNED_IN.concealed())
    assert (found.answer.status, found.reason, found.ran) == (404, None, [])


# ---- where it is written, and what is read for it


def test_headers_are_read_only_where_a_policy_looks_at_them() -> None:
    """A gate whose rules do not ask reads none of them; marks make them known for their own endpoints."""
    read = {"sec-fetch-site", "origin", "host", "upgrade"}
    assert gate_for().fields.isdisjoint(read)
    assert gate_for(rules=[Rule("*", "/x", ~(anyone & csrf_protected()))]).fields >= read
    assert gate_for(default=SIGNED_IN).fields >= read


class OfCallers(CsrfProtected):
    """One that is asked about known callers alone."""

    needs_identity = True
    tokenless = False


def test_headers_are_read_before_anybody_is_asked_for() -> None:
    """Wherever in a policy something looks at them, and whatever it needs besides."""
    for wanted in (scopes("z") | (authenticated & csrf_protected()), authenticated & OfCallers(())):
        assert by_session(("Sec-Fetch-Site", "same-origin"), wanted=wanted).ran == ["alice"]
        assert by_session(CROSS_SITE, wanted=wanted).ran == []


def test_a_mark_holds_that_was_found_later() -> None:
    """Routes and marks that were added after the first request are policies that look at headers, too."""
    ran: list[str] = []
    app = Starlette(routes=[Route("/first", requires(anyone)(noting([])))])
    guarded = wrapped(app, gate_for())
    assert drive(guarded, scope_of("/first"), BODYLESS).status == 200
    app.router.routes.append(Route("/later", requires(SIGNED_IN)(noting(ran)), methods=["POST"]))
    own = {"Cookie": "session=1", "Sec-Fetch-Site": "same-origin"}
    assert drive(guarded, scope_of("/later", "POST", headers=own | {"Sec-Fetch-Site": "x"}), BODYLESS).status == 403
    assert ran == []
    assert drive(guarded, scope_of("/later", "POST", headers=own), BODYLESS).status == 200

    def change() -> str:
        return "changed"

    flask_app = Flask("later")
    flask_app.add_url_rule("/later", view_func=change, methods=["POST"])
    authz403.flask.init_app(flask_app, gate=gate_for(default=anyone))

    def status(site: str) -> int:
        headers = {**own, "Sec-Fetch-Site": site}
        return wsgi_made.ask(flask_app, wsgi_made.environ_of("/later", "POST", headers=headers)).status

    assert status("cross-site") == 200
    requires(SIGNED_IN)(change)
    assert (status("cross-site"), status("same-origin")) == (403, 200)


def test_a_guard_holds_for_the_group() -> None:
    """A guard on the app holds for what is marked in it, besides the mark."""
    ran: list[str] = []
    app = Starlette(routes=[Route("/orders", requires(authenticated)(noting(ran)), methods=["POST"])])
    guarded = wrapped(guard(app, SIGNED_IN), gate_for())
    for headers, status in (([COOKIE, CROSS_SITE], 403), ([COOKIE], 200)):
        assert drive(guarded, scope_of("/orders", "POST", headers=headers), BODYLESS).status == status
    assert ran == ["alice"]


def test_a_gate_within_a_gate_reads_for_itself() -> None:
    """The policy of the inner gate is judged on the headers of the request, though the outer one looks at none."""
    ran: list[str] = []
    inner = wrapped(
        Starlette(routes=[Route("/orders", requires(SIGNED_IN)(noting(ran)), methods=["POST"])]), gate_for()
    )
    outer = Gate(rules=[Rule("*", "/**", anyone)])
    app = Starlette()
    app.mount("/", unwalkable(inner))
    guarded = wrapped(app, outer)
    for headers, status in (([COOKIE, CROSS_SITE], 403), ([COOKIE, ("Sec-Fetch-Site", "none")], 200)):
        assert drive(guarded, scope_of("/orders", "POST", headers=headers), BODYLESS).status == status
    assert ran == ["alice"]


def test_all_mistakes_are_told_at_once() -> None:
    """Origins are checked as those of Cors are, each with what is wrong with it."""
    wrong: list[Any] = ["*", "null", f"{SHOP}/", f"{SHOP}:443", SHOP.upper(), "https://*.shop.example", "", 5]
    with pytest.raises(ConfigurationError) as caught:
        csrf_protected(SHOP, *wrong)
    assert caught.value.part == "csrf_protected"
    told = {mistake.field: mistake.why for mistake in caught.value.mistakes}
    assert set(told) == {f"trusted_origins[{number}]" for number in range(1, len(wrong) + 1)}
    for origin, why in zip(wrong[2:5], (told[f"trusted_origins[{number}]"] for number in (3, 4, 5)), strict=True):
        with pytest.raises(ConfigurationError) as of_cors:
            Cors(origins=[origin])
        assert [mistake.why for mistake in of_cors.value.mistakes] == [why]


def test_an_openapi_document_says_what_it_refuses_with() -> None:
    """Its own reason, and those of bad tokens, but not of a missing one: that is refused by its own."""
    bad = frozenset({Reason.MISSING_TOKEN, Reason.INVALID_TOKEN})
    assert csrf_protected().reasons(bad) == {Reason.CSRF_FAILED, Reason.INVALID_TOKEN}
    assert (~csrf_protected()).reasons(bad) == {Reason.ACCESS_DENIED, Reason.CSRF_FAILED, Reason.INVALID_TOKEN}
    app = FastAPI()
    app.add_api_route("/open", requires(csrf_protected())(lambda: None), methods=["POST"])
    app.add_api_route("/closed", requires(SIGNED_IN)(lambda: None), methods=["POST"])
    describe_policies(app, gate=gate_for(TOKENS))
    told = {path: item["post"] for path, item in app.openapi()["paths"].items()}
    assert "security" not in told["/open"]
    assert told["/closed"]["security"] == [{"AuthzBearer": []}]
    assert all("csrf_failed" in one["responses"]["403"]["description"] for one in told.values())


def test_a_policy_says_what_is_trusted() -> None:
    """In the log and in `gate.coverage`, it is written as in the code."""
    assert repr(csrf_protected(SHOP, OTHER, SHOP)) == f"csrf_protected({SHOP!r}, {OTHER!r})"


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (csrf_protected(), True),
        (SIGNED_IN, True),
        (SIGNED_IN.concealed(), True),
        (scopes("a") & SIGNED_IN | csrf_protected() & scopes("b"), True),
        (deny, True),
        (authenticated, False),
        (anyone, False),
        (csrf_protected() | scopes("a"), False),
        (~csrf_protected() & authenticated, False),
        (~~csrf_protected(), True),
    ],
    ids=repr,
)
def test_a_requirement_protects_where_nobody_gets_in_without(
    wanted: Requirement,
    holds: bool,  # noqa: FBT001 - a column
) -> None:
    """Each way to meet it has to hold a csrf_protected."""
    assert protects(wanted) is holds


# ---- WebSockets


def opened(
    headers: Headers, gate: Gate, wanted: Requirement = SIGNED_IN, subprotocols: Iterable[str] = ()
) -> tuple[int, str | None, list[str]]:
    """Open a WebSocket; return the status (101 where it opened), the reason, and who got to the endpoint."""
    ran: list[str] = []

    async def live(websocket: WebSocket) -> None:
        ran.append(websocket.user.display_name)
        await websocket.accept()
        await websocket.close()

    app: ASGIApp = wrapped(Starlette(routes=[WebSocketRoute("/live", requires(wanted)(live))]), gate)
    offered = [("Sec-WebSocket-Protocol", ", ".join(subprotocols))] if subprotocols else []
    scope = scope_of(
        "/live",
        headers=[*headers, *offered],
        kind="websocket",
        extensions={"websocket.http.response": {}},
        subprotocols=list(subprotocols),
    )
    answer = drive(app, scope, CONNECT)
    if answer.messages[0]["type"] == "websocket.accept":
        return 101, None, ran
    return answer.status, answer.header("authz-reason"), ran


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((("Origin", SHOP),), None),
        ((("Origin", OTHER),), None),
        ((("Origin", SHOP), ("Sec-Fetch-Site", "same-origin")), None),
        ((), None),
        ((FROM_EVIL,), "csrf_failed"),
        ((("Origin", "null"),), "csrf_failed"),
        ((FROM_EVIL, CROSS_SITE), "csrf_failed"),
        ((("Origin", SHOP), FROM_EVIL), "csrf_failed"),
        ((("Sec-Fetch-Site", "same-site"),), "csrf_failed"),
    ],
    ids=str,
)
def test_a_websocket_is_judged_as_what_may_change_something(headers: Headers, reason: str | None) -> None:
    """CWE-1385: its handshake is a GET, and no browser asks before it; without an Origin it is no browser."""
    found = opened([HOST, COOKIE, *headers], gate_for(), authenticated & csrf_protected(OTHER))
    assert found == ((101, None, ["alice"]) if reason is None else (403, reason, []))


def test_a_websocket_with_a_token_in_its_header_is_not_bothered() -> None:
    """A subprotocol needs no preflight, so that any page may offer a token of its own beside its visitor's cookie."""
    both = BearerTokens(
        issuer=ISSUER,
        audience=AUDIENCE,
        key=SECRET,
        algorithms=["HS256"],
        read_from=["authorization", "sec-websocket-protocol"],
    )
    gate = gate_for(both, Sessions())
    headers = [HOST, COOKIE, FROM_EVIL]
    assert opened(headers, gate, subprotocols=["bearer", signed("ada")]) == (403, "csrf_failed", [])
    assert opened([HOST, COOKIE], gate, subprotocols=["bearer", signed("ada")]) == (101, None, ["ada"])
    assert opened(headers, gate, subprotocols=["chat", "v2"]) == (403, "csrf_failed", [])
    assert opened(headers, gate, subprotocols=["bearer", "junk"]) == (401, "invalid_token", [])
    assert opened([*headers, ("Authorization", "Bearer " + signed("ada"))], gate) == (101, None, ["ada"])


def test_cors_and_csrf_are_both_held_to() -> None:
    """`cors=` says which pages may open any WebSocket, and csrf_protected which may open this: both must let it in."""
    gate = gate_for(cors=Cors(origins=[SHOP, OTHER], credentials=True))
    assert opened([HOST, COOKIE, ("Origin", SHOP)], gate) == (101, None, ["alice"])
    assert opened([HOST, COOKIE, FROM_EVIL], gate) == (403, "origin_not_allowed", [])
    assert opened([HOST, COOKIE, FROM_EVIL], gate, csrf_protected(EVIL)) == (403, "origin_not_allowed", [])
    assert opened([HOST, COOKIE, ("Origin", OTHER)], gate) == (403, "csrf_failed", [])
    assert opened([HOST, COOKIE, ("Origin", OTHER)], gate, csrf_protected(OTHER))[0] == 101


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket", "h2c, websocket"])
def test_a_websocket_that_came_as_a_get_is_judged_as_one(upgrade: str) -> None:
    """Servers of WSGI show a handshake as the GET that it is, and extensions of Flask answer it."""
    ran: list[str] = []
    app = Flask("live")

    @app.get("/live")
    @requires(SIGNED_IN)
    def live() -> str:
        ran.append(flask.g.principal.sub)
        return "live"

    authz403.flask.init_app(app, gate=gate_for())

    def status(*headers: tuple[str, str]) -> int:
        return wsgi_made.ask(app, wsgi_made.environ_of("/live", headers=[HOST, COOKIE, *headers])).status

    asked = ("Upgrade", upgrade)
    assert status(asked, FROM_EVIL) == 403
    assert ran == []
    assert (status(asked, ("Origin", SHOP)), status(asked), status(FROM_EVIL)) == (200, 200, 200)
    assert by_session(asked, FROM_EVIL, method="GET").reason == "csrf_failed"


# ---- laws

words = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
foreign = st.sampled_from(
    [EVIL, "null", "", "http://shop.example:81", f"{SHOP}.evil.example", "https://evil", "shop.example"]
)
sites = st.sampled_from(["cross-site", "same-site", "", "Same-Origin", "same-origin, none"])
junk = st.one_of(
    words.map(lambda word: ("Authorization", word)),
    words.map(lambda word: ("Authorization", f"Bearer {word}")),
    words.map(lambda word: ("X-Forwarded-Host", word)),
    st.just(("X-HTTP-Method-Override", "GET")),
    st.just(("Host", "evil.example")),
    sites.map(lambda site: ("Sec-Fetch-Site", site)),
)


@given(
    method=st.one_of(st.sampled_from(METHODS), words).filter(lambda name: name not in {"GET", "HEAD", "OPTIONS"}),
    origin=foreign,
    more=st.lists(junk, max_size=4),
    wanted=st.sampled_from([SIGNED_IN, csrf_protected(), csrf_protected(OTHER) & optional, SIGNED_IN.concealed()]),
)
def test_what_a_foreign_page_sends_with_a_session_never_runs(
    method: str, origin: str, more: list[tuple[str, str]], wanted: Requirement
) -> None:
    """Whatever else stands in the request, the endpoint does not run: by ASGI and by WSGI."""
    headers = [HOST, COOKIE, ("Origin", origin), *more, ("Sec_Fetch_Site", "same-origin")]
    rules = [Rule("*", "/**", wanted)]
    ran: list[str] = []
    routes = [Route("/orders", requires(wanted)(noting(ran)), methods=[*METHODS, method])]
    answer = drive(
        wrapped(Starlette(routes=routes), gate_for()), scope_of("/orders", method, headers=headers), BODYLESS
    )
    assert answer.status in {400, 401, 403, 404, 405}

    def plain(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        ran.append("WSGI")
        start_response("200 OK", [])
        return [b""]

    guarded = authz403.wsgi.AuthzMiddleware(plain, gate=gate_for(rules=rules))
    # Servers of WSGI that let such a name pass put it into the place of the real one: no page can send it unasked.
    environ = wsgi_made.environ_of("/orders", method, headers=headers[:-1])
    wsgi_made.ask(guarded, environ, is_validated=False)
    assert ran == []


@given(
    method=st.sampled_from(METHODS),
    headers=st.lists(
        st.one_of(junk, foreign.map(lambda origin: ("Origin", origin)), st.just(("Sec-Fetch-Site", "same-origin"))),
        max_size=4,
    ),
    other=st.sampled_from([anyone, authenticated, optional, scopes("a"), networks("127.0.0.0/8"), deny]),
)
def test_it_never_opens_what_was_closed(method: str, headers: list[tuple[str, str]], other: Requirement) -> None:
    """Adding it to a policy lets nobody in who was not let in before."""
    with_it = sent([HOST, COOKIE, *headers], method, other & csrf_protected()).ran
    without = sent([HOST, COOKIE, *headers], method, other).ran
    assert with_it in ([], without)


def test_a_source_may_still_refuse_by_itself() -> None:
    """The reason of a source of one's own is told as it is."""
    refusing = Callers(Rejected(Reason.CSRF_FAILED, "its own way"))
    found = by_session(CROSS_SITE, gate=gate_for(refusing))
    assert (found.answer.status, found.reason, found.hint) == (403, "csrf_failed", "its own way")
    assert isinstance(csrf_protected(), CsrfProtected)
