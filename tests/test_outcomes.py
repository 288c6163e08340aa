"""Every outcome, through HTTP and WebSocket: status, challenge, body and log event of each case."""

import json
from collections.abc import Collection, Iterable

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import (
    BearerTokens,
    Gate,
    Network,
    Principal,
    Rbac,
    Reason,
    Requirement,
    Rule,
    any_role,
    authenticated,
    deny,
    requires,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.facts import Rejected
from authz403.request import AccessRequest
from tests.apps_made import (
    AUDIENCE,
    ISSUER,
    NOW,
    TOKENS,
    Answer,
    answering,
    drive,
    gate_with,
    listening,
    scope_of,
    signed,
)
from tests.outcomes_made import CASES, REALM, Case, Headers, authorization, caller, no_token

KINDS = ("http", "websocket")


def app_with(wanted: Requirement | None, ran: list[str]) -> Starlette:
    """Return an app with one HTTP and one WebSocket endpoint at /orders/{owner}, both under `wanted`."""

    async def over_http(request: Request) -> Response:
        ran.append("http")
        return PlainTextResponse("ok")

    async def over_websocket(websocket: WebSocket) -> None:
        ran.append("websocket")
        await websocket.accept()
        await websocket.close()

    if wanted is not None:
        requires(wanted)(over_http)
        requires(wanted)(over_websocket)
    routes = [Route("/orders/{owner}", over_http), WebSocketRoute("/orders/{owner}", over_websocket)]
    return Starlette(routes=routes)


def ask(app: ASGIApp, kind: str, headers: Headers = (), path: str = "/orders/bob", query: bytes = b"") -> Answer:
    """Send one request or handshake, on a server that can send a denial of a handshake as HTTP."""
    extensions: dict[str, object] | None = {"websocket.http.response": {}} if kind == "websocket" else None
    return drive(app, scope_of(path, kind=kind, headers=headers, query_string=query, extensions=extensions))


def assert_refused(answer: Answer, events: list[dict[str, object]], case: Case) -> None:
    """Assert all that caller and operator see of a refusal."""
    document = json.loads(answer.body)
    assert answer.error is None
    assert answer.body_was_read is False
    assert (answer.status, document["status"]) == (case.status, case.status)
    assert (document["reason"], answer.header("authz-reason")) == (case.reason, case.reason)
    assert document["remedy"] == case.remedy
    assert document["retryable"] is case.retryable
    assert document["type"] == f"urn:authz403:{case.reason}"
    assert document["title"]
    assert document["detail"]
    assert answer.header("www-authenticate") == case.challenge
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("cache-control") == "no-store"
    if answer.messages[0]["type"] == "http.response.start":
        assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("authz-decision") == document["decision_id"]
    [event] = events
    assert event["event"] == ("authz.error" if case.status >= 500 else "authz.denied")
    assert event["level"] == ("error" if case.status >= 500 else "warning")
    assert (event["reason"], event["status"]) == (case.reason, case.status)
    assert event["decision_id"] == document["decision_id"]
    assert event["response"] == answer.body.decode()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_refusal_says_why_to_the_caller_and_to_the_log(case: Case, kind: str) -> None:
    """Status, challenge, problem document and event are those of the table, and nothing ran."""
    ran: list[str] = []
    app = AuthzMiddleware(app_with(case.requirement, ran), gate=gate_with())
    with listening() as events:
        answer = ask(app, kind, case.headers)
    assert ran == []
    assert_refused(answer, events, case)
    assert events[0]["route"] == "/orders/{owner}"
    assert events[0]["path"] == "/orders/bob"
    assert events[0]["method"] == ("GET" if kind == "http" else "WEBSOCKET")


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_in_the_query_is_no_token(kind: str) -> None:
    """RFC 6750 section 2.3 is off: a token only in the query is a missing one, and never shows in the log."""
    ran: list[str] = []
    with listening() as events:
        answer = ask(
            AuthzMiddleware(app_with(authenticated, ran), gate=gate_with()),
            kind,
            query=b"access_token=" + signed().encode(),
        )
    assert ran == []
    assert_refused(answer, events, no_token())
    assert signed() not in json.dumps(events)


@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_without_a_policy_is_refused_and_says_so(kind: str) -> None:
    """What nobody wrote a policy for is closed, with a code of its own."""
    ran: list[str] = []
    with listening() as events:
        answer = ask(AuthzMiddleware(app_with(None, ran), gate=gate_with()), kind, caller())
    assert ran == []
    assert_refused(answer, events, Case(deny, (), "no_policy", 403, "contact_owner"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "path",
    [
        "/orders/bob\n",
        "/orders/b\x00b",
        "/orders/b\x7fb",
        "/orders\\bob",
        "orders/bob",
        "/orders/\ufffd",
        "/orders/\x85",
    ],
    ids=["newline", "NUL", "DEL", "backslash", "no leading slash", "U+FFFD", "C1"],
)
def test_an_ambiguous_path_is_refused(path: str, kind: str) -> None:
    """A path that two readers may read differently is refused before any policy, even where everything is open."""
    ran: list[str] = []
    with listening() as events:
        answer = ask(AuthzMiddleware(app_with(authenticated, ran), gate=gate_with()), kind, caller(), path)
    assert ran == []
    assert_refused(answer, events, Case(deny, (), "invalid_path", 400, "fix_request"))


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_cannot_be_fetched_are_a_503_that_says_when_to_try_again(kind: str) -> None:
    """An unreachable issuer is the server's trouble, not the caller's."""
    ran: list[str] = []
    unreachable = BearerTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url="http://127.0.0.1:1/jwks")
    app = AuthzMiddleware(app_with(authenticated, ran), gate=Gate(tokens=unreachable, clock=lambda: NOW))
    rs256 = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0." + signed().split(".", 1)[1]
    with listening() as events:
        answer = ask(app, kind, authorization("Bearer " + rs256))
    assert ran == []
    decided = [event for event in events if event["event"] != "authz.warning"]
    assert_refused(answer, decided, Case(deny, (), "keys_unavailable", 503, "retry_later", retryable=True))
    assert int(answer.header("retry-after") or "") >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_role_source_that_fails_is_a_503(kind: str) -> None:
    """Without roles nothing can be decided, and nothing is let in."""

    def roles_for(principal: Principal) -> Collection[str]:
        raise ConnectionError("database down")

    ran: list[str] = []
    app = AuthzMiddleware(app_with(any_role("admin"), ran), gate=gate_with(rbac=Rbac(roles_for=roles_for)))
    with listening() as events:
        answer = ask(app, kind, caller(roles=["admin"]))
    assert ran == []
    assert_refused(answer, events, Case(deny, (), "policy_unavailable", 503, "retry_later", retryable=True))
    assert int(answer.header("retry-after") or "") >= 1
    assert "database down" not in answer.body.decode()
    assert "database down" in json.dumps(events)


class Sessions:
    """An identity source that refuses every request for one reason."""

    fields: Iterable[str] = ("cookie", "origin")

    def __init__(self, reason: Reason) -> None:
        self.reason = reason

    def identify(self, request: AccessRequest, now: float) -> Rejected:
        return Rejected(self.reason)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "case",
    [
        Case(deny, (), "token_revoked", 401, "sign_in_again", 'Bearer realm="authz403", error="invalid_token"'),
        Case(deny, (), "csrf_failed", 403, "fix_request"),
    ],
    ids=lambda case: case.reason,
)
def test_what_an_identity_source_refuses_is_answered_with_its_reason(case: Case, kind: str) -> None:
    """A source of the user's own chooses among the published reasons."""
    ran: list[str] = []
    gate = Gate(tokens=Sessions(Reason(case.reason)), clock=lambda: NOW)  # type: ignore[arg-type]  # fields is a tuple
    with listening() as events:
        answer = ask(AuthzMiddleware(app_with(authenticated, ran), gate=gate), kind)
    assert ran == []
    assert_refused(answer, events, case)


@pytest.mark.parametrize("kind", KINDS)
def test_another_request_than_was_decided_is_a_500(kind: str) -> None:
    """What an inner middleware makes of a request after the decision runs nothing."""

    class Rewrites:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "path": "/orders/eve"}, receive, send)

    ran: list[str] = []
    inner = Rewrites(app_with(authenticated, ran))
    with listening() as events:
        answer = ask(AuthzMiddleware(inner, gate=gate_with()), kind, caller())
    assert ran == []
    assert_refused(answer, events, Case(deny, (), "route_mismatch", 500, "contact_owner"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_that_does_not_fit_its_app_answers_500(kind: str) -> None:
    """Without lifespan, every request tells of the misconfiguration; what is wrong is in the log alone."""
    ran: list[str] = []
    gate = gate_with(rules=[Rule("GET", "/nowhere", deny)])
    with listening() as events:
        answer = ask(AuthzMiddleware(app_with(authenticated, ran), gate=gate), kind, caller())
    assert ran == []
    assert_refused(answer, events, Case(deny, (), "misconfigured", 500, "contact_owner"))
    assert "/nowhere" in str(events[0]["hint"])
    assert "/nowhere" not in answer.body.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_networks_refuse_before_anything_else(kind: str) -> None:
    """`Network(allow=)` stands before authentication: nobody outside learns that a token is wanted."""
    ran: list[str] = []
    gate = gate_with(network=Network(allow=["10.0.0.0/8"]))
    with listening() as events:
        answer = ask(AuthzMiddleware(app_with(authenticated, ran), gate=gate), kind)
    assert ran == []
    assert_refused(answer, events, Case(deny, (), "ip_not_allowed", 403, "change_network"))
    assert json.loads(answer.body)["client_ip"] == "127.0.0.1"
    assert "10.0.0.0" not in answer.body.decode()


@pytest.mark.parametrize(
    "headers", [{"authorization": "bearer "}, {"authorization": "BEARER "}], ids=["lower", "upper"]
)
def test_the_scheme_is_compared_without_regard_to_case(headers: dict[str, str]) -> None:
    """RFC 9110 section 11.1: `bearer x` is as good as `Bearer x`."""
    ran: list[str] = []
    app = AuthzMiddleware(app_with(authenticated, ran), gate=gate_with())
    answer = ask(app, "http", (("authorization", headers["authorization"] + signed()),))
    assert (answer.status, ran) == (200, ["http"])


def test_a_denied_head_has_headers_and_no_content() -> None:
    """RFC 9110 section 9.3.2: the same headers as GET, and no body."""
    app = AuthzMiddleware(app_with(scopes("a"), []), gate=gate_with())
    answer = drive(app, scope_of("/orders/bob", "HEAD"))
    assert (answer.status, answer.body) == (401, b"")
    assert answer.header("authz-reason") == "missing_token"
    assert answer.header("www-authenticate") == REALM
    assert int(answer.header("content-length") or "0") > 0


def test_a_handshake_is_closed_where_the_server_can_send_no_denial() -> None:
    """Without the extension websocket.http.response a handshake is refused by a close before accept."""
    ran: list[str] = []
    app = AuthzMiddleware(app_with(authenticated, ran), gate=gate_with())
    with listening() as events:
        answer = drive(app, scope_of("/orders/bob", kind="websocket"))
    assert ran == []
    assert answer.messages == [{"type": "websocket.close", "code": 1008}]
    assert [event["reason"] for event in events] == ["missing_token"]


def test_an_allowed_request_is_one_debug_event_without_a_body() -> None:
    """What passed is told once, at the level for it, with who it was."""
    app = AuthzMiddleware(app_with(scopes("a"), []), gate=gate_with())
    with listening() as events:
        answer = ask(app, "http", caller(scope="a b", client_id="web", jti="t-1"))
    assert answer.status == 200
    [event] = events
    assert (event["event"], event["level"], event["status"]) == ("authz.allowed", "debug", 200)
    assert (event["sub"], event["client_id"], event["iss"]) == ("ada", "web", ISSUER)
    assert (event["scopes"], event["token_id"], event["token_expires"]) == (["a", "b"], "t-1", NOW + 300)
    assert event["policy"] == "marks: scopes('a')"
    assert "response" not in event
    assert isinstance(event["duration_us"], int)


def test_the_query_is_no_part_of_the_event() -> None:
    """Queries hold secrets often enough to be left out."""
    app = AuthzMiddleware(app_with(authenticated, []), gate=gate_with())
    with listening() as events:
        ask(app, "http", query=b"code=s3cret")
    assert "s3cret" not in json.dumps(events)


def test_a_mounted_app_that_cannot_be_walked_is_one_endpoint() -> None:
    """A policy for what lies behind is a rule or a guard; without one it is closed."""
    ran: list[str] = []
    app = Router([Mount("/legacy", answering("legacy", ran))])
    with listening() as events:
        answer = ask(AuthzMiddleware(app, gate=Gate(tokens=TOKENS, clock=lambda: NOW)), "http", caller(), "/legacy/a/b")
    assert ran == []
    assert (answer.status, answer.reason, events[0]["route"]) == (403, "no_policy", "/legacy/**")
