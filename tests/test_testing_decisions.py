import json
import logging
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest
import structlog
from django.http import HttpResponse, StreamingHttpResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.wrappers import Response as WerkzeugResponse

from authz403 import Gate, Network, Reason, Rule, anyone, authenticated, check, networks, public, roles
from authz403.testing import Authz, acting_as, assert_denied, capture_decisions
from tests.kit_made import FRAMEWORKS, app_of, gate_with, starlette_app

BODY = json.dumps({"reason": "role_required", "required_roles": ["admin"], "decision_id": "01A"}).encode()
HEADERS = {"content-type": "application/problem+json", "authz-reason": "role_required"}


class Answered:
    """A response as of `requests`, which need not be installed: these attributes are all that is looked at."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status_code, self.content, self.headers = status, body, headers


class Unread:
    """A response whose body nobody has read."""

    status_code = 403
    headers = HEADERS

    @property
    def content(self) -> bytes:
        raise RuntimeError("not read")


RESPONSES: Mapping[str, Any] = {
    "httpx2": httpx2.Response(403, content=BODY, headers=HEADERS),
    "requests": Answered(403, BODY, HEADERS),
    "starlette": TestClient(Response(BODY, 403, headers=HEADERS)).get("/"),
    "werkzeug": WerkzeugResponse(BODY, 403, headers=HEADERS),
    "django": HttpResponse(BODY, status=403, headers=HEADERS),
    "django-streaming": StreamingHttpResponse([BODY], status=403, headers=HEADERS),
    "unread": Unread(),
}


@pytest.mark.parametrize("library", RESPONSES)
def test_a_refusal_is_told_by_the_response_of_any_library(library: str) -> None:
    """What is missing comes back, as far as the body can be read."""
    denial = assert_denied(RESPONSES[library], Reason.ROLE_REQUIRED)
    assert (denial.status, denial.reason) == (403, "role_required")
    assert denial.required_roles == (() if library in {"unread", "django-streaming"} else ("admin",))
    assert_denied(RESPONSES[library], "role_required")
    with pytest.raises(AssertionError, match=r"with not_owner \(403\), and it was refused with role_required \(403\)"):
        assert_denied(RESPONSES[library], Reason.NOT_OWNER)
    with pytest.raises(AssertionError, match=r"role_required \(404\), and it was refused with role_required \(403\)"):
        assert_denied(RESPONSES[library], Reason.ROLE_REQUIRED, status=404)


def test_what_came_instead_is_told() -> None:
    """An answer of the app's, an error without a reason, and what may be concealed."""
    for answered, told in (
        (Answered(200, b"lamp", {}), r"answered with 200: no gate refused it\n  body: lamp"),
        (Answered(500, b"", {}), r"answered with 500, which names no reason\Z"),
        (
            Answered(404, b"Not Found", {}),
            r"names no reason\n  a concealed refusal .*capture_decisions\(\)\n  body: Not",
        ),
        (Answered(200, b"x" * 9_000, {}), r"body: x{2000}\Z"),
    ):
        with pytest.raises(AssertionError, match=told):
            assert_denied(answered, Reason.ROLE_REQUIRED)


def test_the_decision_and_its_hint_are_told_where_somebody_looks() -> None:
    """The policy, and what the log says to the operator alone."""
    network = Network(trusted_proxies=["10.0.0.1"])
    app = starlette_app(gate_with(network=network, rules=[Rule("GET", "/health", networks("172.16.0.0/12"))]))
    with capture_decisions(app):
        answer = TestClient(app, client=("192.0.2.1", 1)).get("/health", headers={"X-Forwarded-For": "172.16.0.1"})
    with pytest.raises(AssertionError) as raised:
        assert_denied(answer, Reason.ROLE_REQUIRED)
    assert "decision: GET /health: refused with ip_not_allowed (403) by Rule(GET /health)" in str(raised.value)
    assert "hint: X-Forwarded-For came from a peer that is not in trusted_proxies" in str(raised.value)
    assert '"client_ip":"192.0.2.1"' in str(raised.value)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_decision_is_captured(authz: Authz, framework: str) -> None:
    """Allowed and refused, in order, as values; and none of them after the block."""
    with app_of(framework, gate_with()) as app:
        with capture_decisions(app) as decisions:
            authz.client(app, sub="ann", scopes="orders:read", address="192.0.2.1").get("/orders")
            authz.client(app).delete("/orders/5")
            authz.client(app).get("/health")
        authz.client(app).get("/health")
    read, gone, health = decisions
    assert (read.method, read.path, read.client_ip) == ("GET", "/orders", "192.0.2.1")
    assert (read.allowed, read.let_in, read.enforced, read.reason, read.status) == (True, True, True, None, 200)
    assert read.principal is not None
    assert read.principal.sub == "ann"
    assert (gone.allowed, gone.let_in, gone.reason, gone.status) == (False, False, Reason.MISSING_TOKEN, 401)
    assert gone.decision.required_roles == ()
    assert (health.allowed, health.principal, health.hint) == (True, None, None)
    assert "allowed by" in str(read)
    assert "refused with missing_token (401) by" in str(gone)


def test_nothing_is_logged_or_configured_for_it(caplog: pytest.LogCaptureFixture) -> None:
    """Allowed requests are seen although no log wants them."""
    app = starlette_app(gate_with())
    was_configured = structlog.is_configured()
    logging.getLogger("authz403").setLevel(logging.CRITICAL)
    try:
        with capture_decisions() as decisions:
            TestClient(app).get("/health")
            TestClient(app).get("/orders")
    finally:
        logging.getLogger("authz403").setLevel(logging.NOTSET)
    assert [decided.allowed for decided in decisions] == [True, False]
    assert structlog.is_configured() is was_configured
    assert not caplog.records


def test_gates_are_as_they_were_when_the_last_looks_away() -> None:
    """Blocks end in any order."""
    before = (Gate.record, Gate.denied_by_app, Gate.denied_too_late)
    one, other = capture_decisions(), capture_decisions()
    first, second = one.__enter__(), other.__enter__()
    app = starlette_app(gate_with())
    TestClient(app).get("/health")
    one.__exit__(None, None, None)
    TestClient(app).get("/health")
    assert (len(first), len(second)) == (1, 2)
    assert Gate.record is not before[0]
    other.__exit__(None, None, None)
    assert before == (Gate.record, Gate.denied_by_app, Gate.denied_too_late)


def test_only_the_gate_of_an_app_is_looked_at_where_one_is_named() -> None:
    """And all of them else."""
    one, other = starlette_app(gate_with()), starlette_app(gate_with())
    with capture_decisions() as both, capture_decisions(one) as alone:
        TestClient(one).get("/health")
        TestClient(other).get("/health")
    assert (len(both), len(alone)) == (2, 1)


@public
async def owned(request: Request) -> Response:
    """Refuse by a check."""
    check(condition=False, reason=Reason.NOT_OWNER, order=5)
    return JSONResponse({})


@public
async def late(request: Request) -> Response:
    """Refuse when the answer has started."""

    class Late(PlainTextResponse):
        async def __call__(self, scope: object, receive: object, send: object) -> None:
            await super().__call__(scope, receive, send)  # type: ignore[arg-type]  # as ASGI has them
            check(condition=False, reason=Reason.NOT_OWNER)

    return Late("too late")


@pytest.mark.parametrize("is_enforced", [True, False], ids=["enforced", "reported"])
def test_a_check_in_a_handler_is_told_from_the_gate(*, is_enforced: bool) -> None:
    """The gate let the request in, and it is refused all the same."""
    app = starlette_app(gate_with(dangerously_report_only=not is_enforced))
    app.router.routes.append(Route("/owned", owned))
    with capture_decisions(app) as decisions, acting_as(app):
        answer = TestClient(app).get("/owned")
    (decided,) = decisions
    assert answer.status_code == (403 if is_enforced else 200)
    assert (decided.allowed, decided.let_in, decided.reason) == (False, True, Reason.NOT_OWNER)
    assert (decided.enforced, decided.decision.facts) == (is_enforced, {"order": 5})


def test_a_check_that_comes_too_late_is_told_of_besides() -> None:
    """First that the request was allowed, as the client was told, then that it should not have been."""
    app = starlette_app(gate_with())
    app.router.routes.append(Route("/late", late))
    with capture_decisions(app) as decisions:
        TestClient(app, raise_server_exceptions=False).get("/late")
    assert [(decided.allowed, decided.reason) for decided in decisions] == [(True, None), (False, Reason.NOT_OWNER)]
    assert [decided.let_in for decided in decisions] == [True, True]


def test_what_is_concealed_is_told_with_its_true_reason() -> None:
    """The response is a 404 like any other."""
    rules = [Rule("*", "/orders/**", (authenticated & roles("x")).concealed()), Rule("*", "/health", anyone)]
    app = starlette_app(gate_with(rules=rules))
    with capture_decisions(app) as decisions, acting_as(app, scopes="orders:read"):
        assert TestClient(app).get("/orders").status_code == 404
    assert [(decided.reason, decided.decision.concealed) for decided in decisions] == [(Reason.ROLE_REQUIRED, True)]
