"""Policies in an OpenAPI document: who may call an operation, and what a refusal says."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.testclient import TestClient

from authz403 import (
    BearerTokens,
    Gate,
    Rbac,
    Reason,
    Requirement,
    Rule,
    any_permission,
    any_role,
    any_scope,
    anyone,
    authenticated,
    claim,
    deny,
    networks,
    optional,
    param,
    permissions,
    requirement,
    requires,
    roles,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import describe_policies, needs
from tests.tokens_made import tokens

TOKENS_SAY = {
    "missing_token",
    "invalid_token",
    "token_expired",
    "token_not_yet_valid",
    "wrong_issuer",
    "wrong_audience",
    "wrong_token_type",
}


def document_of(policy: Requirement | None, gate: Gate | None = None, **route: Any) -> dict[str, Any]:  # noqa: ANN401 - FastAPI's
    """Return the OpenAPI document of an app with one operation, GET /orders/{id}, under this policy."""
    app = FastAPI()
    gate = gate or Gate(tokens=tokens())

    async def read(id: int) -> None:  # noqa: A002 - the path parameter's name
        """Read an order."""

    app.get("/orders/{id}", **route)(read if policy is None else requires(policy)(read))
    describe_policies(app, gate=gate)
    return app.openapi()


def operation_of(policy: Requirement | None, gate: Gate | None = None, **route: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Return that operation."""
    found: dict[str, Any] = document_of(policy, gate, **route)["paths"]["/orders/{id}"]["get"]
    return found


def reasons_of(operation: dict[str, Any]) -> dict[str, set[str]]:
    """Return by status the reasons that an operation says it may be refused with."""
    said = {}
    for status, response in operation["responses"].items():
        schema = response.get("content", {}).get("application/problem+json", {}).get("schema")
        if schema is not None:
            reference, narrowed = schema["allOf"]
            assert reference == {"$ref": "#/components/schemas/AuthzDenial"}
            said[status] = set(narrowed["properties"]["reason"]["enum"])
            assert all(reason in response["description"] for reason in said[status])
    return said


@pytest.mark.parametrize(
    ("policy", "security"),
    [
        (authenticated, [{"AuthzBearer": []}]),
        (scopes("a"), [{"AuthzBearer": ["a"]}]),
        (scopes("b") & scopes("a", "c") & roles("r"), [{"AuthzBearer": ["a", "b", "c"]}]),
        (any_scope("a", "b"), [{"AuthzBearer": ["a"]}, {"AuthzBearer": ["b"]}]),
        (any_scope("a", "b") & scopes("c"), [{"AuthzBearer": ["a", "c"]}, {"AuthzBearer": ["b", "c"]}]),
        (scopes("a") | roles("r"), [{"AuthzBearer": ["a"]}, {"AuthzBearer": []}]),
        (scopes("a") | networks("10.0.0.0/8"), [{"AuthzBearer": ["a"]}, {}]),
        ((scopes("a") | anyone) & roles("r"), [{"AuthzBearer": ["a"]}, {"AuthzBearer": []}]),
        (optional, [{"AuthzBearer": []}, {}]),
        (~roles("guest"), [{"AuthzBearer": []}]),
        (scopes("a").concealed(), [{"AuthzBearer": ["a"]}]),
        (any_scope(*"abcdefghij") & any_scope(*"klmnopqrst"), [{"AuthzBearer": []}]),
    ],
    ids=str,
)
def test_the_ways_to_be_let_in_are_the_security(policy: Requirement, security: list[object]) -> None:
    """One entry a way, with the scopes that it takes; beyond sixteen ways, being signed in is all that is told."""
    assert operation_of(policy)["security"] == security


@pytest.mark.parametrize("policy", [anyone, networks("10.0.0.0/8"), deny], ids=str)
def test_where_no_token_is_looked_at_there_is_no_security(policy: Requirement) -> None:
    """Nobody is told to sign in where that changes nothing."""
    assert "security" not in operation_of(policy)


@pytest.mark.parametrize(
    ("policy", "forbidden"),
    [
        (authenticated, set()),
        (scopes("a"), {"insufficient_scope"}),
        (roles("a") & permissions("b"), {"role_required", "permission_required"}),
        (any_role("a") | any_permission("b"), {"role_required", "permission_required"}),
        (claim("plan", "pro") & param("id", claim="order"), {"claim_required", "not_owner"}),
        (requirement("plan_expired", lambda _: True) & authenticated, {"plan_expired"}),
        (~scopes("a"), {"access_denied"}),
        (scopes("a") & networks("10.0.0.0/8"), {"insufficient_scope", "ip_not_allowed"}),
    ],
    ids=str,
)
def test_refusals_say_their_reasons(policy: Requirement, forbidden: set[str]) -> None:
    """The 403 holds what this policy can say and nothing else, the 401 what may be wrong with a token."""
    said = reasons_of(operation_of(policy))
    assert said == {"401": TOKENS_SAY, **({"403": forbidden} if forbidden else {})}


def test_refusals_that_need_no_token_are_told() -> None:
    """A network, a deny and a missing policy refuse with 403 alone."""
    assert reasons_of(operation_of(networks("10.0.0.0/8"))) == {"403": {"ip_not_allowed"}}
    assert reasons_of(operation_of(deny)) == {"403": {"access_denied"}}
    assert reasons_of(operation_of(None)) == {"403": {"no_policy"}}
    assert reasons_of(operation_of(anyone)) == {}


def test_what_may_be_out_of_reach_is_a_503() -> None:
    """Keys that are fetched and roles that are looked up may fail; fixed ones do not."""
    fetched = BearerTokens(issuer="https://id.example", audience="orders-api", is_revoked=lambda _: False)
    said = reasons_of(operation_of(scopes("a"), Gate(tokens=fetched, rbac=Rbac(roles_for=lambda _: []))))
    assert said["503"] == {"keys_unavailable", "policy_unavailable"}
    assert said["401"] == TOKENS_SAY | {"token_revoked"}
    assert "Retry-After" in operation_of(scopes("a"), Gate(tokens=fetched))["responses"]["503"]["headers"]
    assert "503" not in reasons_of(operation_of(scopes("a")))


def test_a_stronger_sign_in_is_a_401() -> None:
    """RFC 9470: step-up is a matter of signing in."""
    assert "step_up_required" in reasons_of(operation_of(authenticated.stepped_up(max_age=60)))["401"]


def test_a_concealed_operation_shows_no_refusal() -> None:
    """A document that lists a hidden operation's refusals would tell that there is something."""
    assert reasons_of(operation_of(scopes("a").concealed())) == {}


def test_what_the_app_says_itself_stays() -> None:
    """The description that somebody wrote for a status is not replaced."""
    operation = operation_of(scopes("a"), responses={403: {"description": "mine"}})
    assert operation["responses"]["403"]["description"] == "mine"
    assert "401" in operation["responses"]


def test_rules_and_groups_count() -> None:
    """Whatever applies is shown: rules, the dependencies of a router, and rules for a part of a route's paths."""
    app = FastAPI()
    orders = APIRouter(prefix="/orders", dependencies=[needs(scopes("orders:read"))])
    orders.get("/{id}")(lambda: None)
    orders.delete("/{id}")(lambda: None)
    app.include_router(orders, prefix="/v1")
    rules = [Rule("GET", "/v1/orders/7", any_role("admin")), Rule("DELETE", "/v1/**", scopes("orders:write"))]
    describe_policies(app, gate=Gate(tokens=tokens(), rules=rules))
    path = app.openapi()["paths"]["/v1/orders/{id}"]
    assert path["delete"]["security"] == [{"AuthzBearer": ["orders:read", "orders:write"]}]
    assert reasons_of(path["get"])["403"] == {"role_required", "insufficient_scope"}


def test_the_schema_has_every_reason_as_an_enum() -> None:
    """A generated client has all codes, those of the app's own requirements too, and the scheme to sign in by."""
    document = document_of(requirement("plan_expired", lambda _: True) & authenticated)
    enum = document["components"]["schemas"]["AuthzDenial"]["properties"]["reason"]["enum"]
    assert enum == [*(str(reason) for reason in Reason), "plan_expired"]
    assert document["components"]["securitySchemes"]["AuthzBearer"]["scheme"] == "bearer"
    json.dumps(document)


def test_without_tokens_there_is_no_scheme() -> None:
    """A gate that knows nobody tells nobody how to sign in."""
    assert "securitySchemes" not in document_of(networks("10.0.0.0/8"), Gate())["components"]


def test_the_document_is_served_and_holds_routes_that_came_later() -> None:
    """What /openapi.json answers is the whole, made once and not twice."""
    app = FastAPI()
    gate = Gate(tokens=tokens(), rules=[Rule("GET", "/openapi.json", anyone)])
    app.add_middleware(AuthzMiddleware, gate=gate)
    describe_policies(app, gate=gate)
    app.get("/late")(requires(scopes("late"))(lambda: None))
    served = TestClient(app).get("/openapi.json").json()
    assert served["paths"]["/late"]["get"]["security"] == [{"AuthzBearer": ["late"]}]
    assert TestClient(app).get("/openapi.json").json() == served == app.openapi()


@pytest.mark.parametrize("policy", [scopes("a") & roles("r"), any_scope("a", "b"), claim("plan", "pro")], ids=str)
def test_a_refusal_is_one_that_was_promised(policy: Requirement) -> None:
    """What the gate answers is in the document: the reason of a call without a token."""
    app = FastAPI()
    gate = Gate(tokens=tokens())
    app.add_middleware(AuthzMiddleware, gate=gate)
    describe_policies(app, gate=gate)
    endpoint: Callable[[], None] = lambda: None  # noqa: E731 - the shortest endpoint
    app.get("/orders")(requires(policy)(endpoint))
    answer = TestClient(app).get("/orders")
    promised = reasons_of(app.openapi()["paths"]["/orders"]["get"])
    assert answer.json()["reason"] in promised[str(answer.status_code)]
    properties = app.openapi()["components"]["schemas"]["AuthzDenial"]["properties"]
    assert answer.json().keys() <= properties.keys()
