"""Policies in an OpenAPI document: who may call an operation, and what a refusal says."""

import json
import time
from collections.abc import Callable, Collection
from functools import reduce
from operator import and_
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2PasswordBearer
from pydantic import create_model
from starlette.applications import Starlette
from starlette.routing import Host, Mount
from starlette.testclient import TestClient

from authz403 import (
    BearerTokens,
    ConfigurationError,
    Denial,
    Gate,
    Principal,
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
    guard,
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
from authz403.facts import Rejected
from authz403.fastapi import describe_policies, needs
from authz403.problem import members
from authz403.request import AccessRequest
from tests.tokens_made import token, tokens

TOKENS_SAY = {
    "missing_token",
    "invalid_token",
    "token_expired",
    "token_not_yet_valid",
    "wrong_issuer",
    "wrong_audience",
    "wrong_token_type",
}


def described(app: FastAPI, gate: Gate | None = None, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - those of describe_policies
    """Return the document of an app with the policies of a gate, by default one with a bearer source and no rules."""
    describe_policies(app, gate=gate or Gate(tokens=tokens()), **options)
    return app.openapi()


def document_of(policy: Requirement | None, gate: Gate | None = None, **route: Any) -> dict[str, Any]:  # noqa: ANN401 - FastAPI's
    """Return the OpenAPI document of an app with one operation, GET /orders/{id}, under this policy."""
    app = FastAPI()

    async def read(id: int) -> None:  # noqa: A002 - the path parameter's name
        """Read an order."""

    app.get("/orders/{id}", **route)(read if policy is None else requires(policy)(read))
    return described(app, gate)


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
            assert set(response["headers"]["Authz-Reason"]["schema"]["enum"]) == said[status]
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
        (deny | scopes("a"), [{"AuthzBearer": ["a"]}]),
        (optional & networks("10.0.0.0/8"), [{"AuthzBearer": []}, {}]),
        (any_scope(*"abcdefghij") & any_scope(*"klmnopqrst"), [{"AuthzBearer": []}]),
        (any_scope(*"abcdefghijklmnopq") | networks("10.0.0.0/8"), [{"AuthzBearer": []}, {}]),
    ],
    ids=str,
)
def test_the_ways_to_be_let_in_are_the_security(policy: Requirement, security: list[object]) -> None:
    """One entry a way, with the scopes that it takes; beyond sixteen ways, being signed in is all that is told."""
    assert operation_of(policy)["security"] == security


def test_a_policy_of_very_many_ways_is_told_as_fast_as_any() -> None:
    """Forty pairs are a million million ways; nobody waits until they are listed."""
    pairs = [any_scope(f"a{number}", f"b{number}") for number in range(40)]
    ors = [scopes(f"c{number}") | roles(f"d{number}") for number in range(40)]
    started = time.perf_counter()
    for policy in (reduce(and_, pairs), reduce(and_, ors), (reduce(and_, ors) | anyone) & roles("r")):
        assert operation_of(policy)["security"] == [{"AuthzBearer": []}]
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "policy", [anyone, networks("10.0.0.0/8"), deny, deny & scopes("a"), scopes("a") | anyone], ids=str
)
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
        (~networks("10.0.0.0/8") & authenticated, {"access_denied", "ip_not_allowed"}),
        (~(networks("10.0.0.0/8") | roles("a")), {"access_denied", "ip_not_allowed"}),
        (scopes("a") & networks("10.0.0.0/8"), {"insufficient_scope", "ip_not_allowed"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_refusals_say_their_reasons(policy: Requirement, forbidden: set[str]) -> None:
    """The 403 holds what this policy can say and nothing else, the 401 what may be wrong with a token."""
    said = reasons_of(operation_of(policy))
    assert said.pop("400") == {"invalid_request"}
    assert said == {"401": TOKENS_SAY, **({"403": forbidden} if forbidden else {})}


def test_refusals_that_need_no_token_are_told() -> None:
    """A network, a deny and a missing policy refuse with 403 alone."""
    assert reasons_of(operation_of(networks("10.0.0.0/8"))) == {"403": {"ip_not_allowed"}}
    assert reasons_of(operation_of(deny)) == {"403": {"access_denied"}}
    assert reasons_of(operation_of(None)) == {"403": {"no_policy"}}
    assert reasons_of(operation_of(deny & scopes("a"))) == {"403": {"access_denied"}}
    assert reasons_of(operation_of(~networks("10.0.0.0/8"))) == {"403": {"access_denied", "ip_not_allowed"}}


@pytest.mark.parametrize("policy", [anyone, scopes("a") | anyone, anyone | networks("10.0.0.0/8")], ids=str)
def test_what_refuses_nobody_says_no_refusals(policy: Requirement) -> None:
    """Where anyone is let in, the other side of the alternative refuses nobody."""
    assert reasons_of(operation_of(policy)) == {}


def test_optional_asks_nobody_to_sign_in() -> None:
    """A missing token passes, and only a bad one is refused."""
    said = reasons_of(operation_of(optional))
    assert said == {"400": {"invalid_request"}, "401": TOKENS_SAY - {"missing_token"}}
    assert reasons_of(operation_of(~optional))["401"] == TOKENS_SAY - {"missing_token"}


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


def test_a_concealed_operation_is_not_in_the_document() -> None:
    """To the outside there is no such route: no path, no scope, no code, no model and no tag tells of one."""
    app = FastAPI(openapi_tags=[{"name": "plots"}, {"name": "orders"}, {"name": "later"}])
    shared, plot = create_model("Shared"), create_model("Plot", where=(str, ...))
    secret = create_model("Secret", shared=(shared, ...), plot=(plot, ...))
    order = create_model("Order", shared=(shared, ...))
    secret_scheme = Depends(APIKeyHeader(name="x-plotter", scheme_name="Plotters"))
    hidden = requires(requirement("not_a_plotter", lambda _: True) & scopes("plots:read").concealed())
    app.get("/secret", response_model=secret, tags=["plots"], dependencies=[secret_scheme])(hidden(lambda: None))
    app.get("/orders", response_model=order, tags=["orders"])(requires(scopes("orders:read"))(lambda: None))
    app.delete("/orders")(hidden(lambda: None))
    document = described(app)
    assert list(document["paths"]) == ["/orders"]
    assert list(document["paths"]["/orders"]) == ["get"]
    assert set(document["components"]["schemas"]) == {"Shared", "Order", "AuthzDenial"}
    assert document["tags"] == [{"name": "orders"}, {"name": "later"}]
    assert not {word for word in ("plot", "secret") if word in json.dumps(document).lower()}


def test_of_paths_that_are_partly_concealed_the_rest_is_told() -> None:
    """No scope and no reason of the hidden ones; but their 400 and 503 are no secret, and do come."""
    app = FastAPI()
    app.get("/files/{name}")(lambda: None)
    rules = [
        Rule("GET", "/files/plot", requirement("not_a_plotter", lambda _: True) & scopes("plots").concealed()),
        Rule("GET", "/files/*", networks("10.0.0.0/8")),
    ]
    gate = Gate(tokens=BearerTokens(issuer="https://id.example", audience="orders-api"), rules=rules)
    document = described(app, gate)
    operation = document["paths"]["/files/{name}"]["get"]
    assert "security" not in operation
    assert reasons_of(operation) == {
        "400": {"invalid_request"},
        "403": {"ip_not_allowed"},
        "503": {"keys_unavailable"},
    }
    assert "plot" not in json.dumps(document)


@pytest.mark.filterwarnings("ignore:Duplicate Operation ID")  # FastAPI says it of any route of two methods
def test_head_is_told_what_get_is() -> None:
    """HEAD is judged as GET, and answered without a body; one of its own is judged by its own."""
    app = FastAPI()
    app.api_route("/both", methods=["GET", "HEAD"])(requires(scopes("a"))(lambda: None))
    app.get("/apart")(requires(scopes("a"))(lambda: None))
    app.head("/apart")(requires(scopes("b"))(lambda: None))
    paths = described(app)["paths"]
    get, head = paths["/both"]["get"], paths["/both"]["head"]
    assert head["security"] == get["security"] == [{"AuthzBearer": ["a"]}]
    assert head["responses"]["403"]["headers"] == get["responses"]["403"]["headers"]
    assert "content" not in head["responses"]["403"]
    assert paths["/apart"]["head"]["security"] == [{"AuthzBearer": ["b"]}]


def test_what_the_app_says_itself_stays() -> None:
    """The description that somebody wrote for a status is not replaced; what a refusal is like is added to it."""
    mine = {"description": "mine", "model": create_model("Mine"), "headers": {"Authz-Reason": {"description": "mine"}}}
    operation = operation_of(scopes("a"), responses={403: mine})
    response = operation["responses"]["403"]
    assert response["description"] == "mine"
    assert set(response["content"]) == {"application/json", "application/problem+json"}
    assert response["headers"]["Authz-Reason"] == {"description": "mine"}
    assert "Authz-Decision" in response["headers"]
    assert "401" in operation["responses"]


@pytest.mark.parametrize(
    "mine",
    [
        {"description": "mine", "content": {"application/problem+json": {"schema": {"type": "object"}}}},
        {"$ref": "#/components/responses/Refused"},
    ],
)
def test_what_the_app_says_of_refusals_is_left_alone(mine: dict[str, Any]) -> None:
    """Whoever describes the problem document of an operation knows better, the codes of a handler for one."""
    extra = {"responses": {"403": mine}}
    assert operation_of(scopes("a"), openapi_extra=extra)["responses"]["403"] == mine


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


def test_rules_that_tell_very_many_paths_apart_are_told_in_short() -> None:
    """Sixteen ways is the most for all parts of an operation together."""
    app = FastAPI()
    app.get("/files/{name}")(lambda: None)
    parts = [Rule("GET", f"/files/{number}", scopes(f"s{number}")) for number in range(20)]
    rules = [*parts, Rule("GET", "/files/*", networks("10.0.0.0/8"))]
    operation = described(app, Gate(tokens=tokens(), rules=rules))["paths"]["/files/{name}"]["get"]
    assert operation["security"] == [{"AuthzBearer": []}, {}]


def test_what_no_route_serves_is_left_as_it_is() -> None:
    """A path that the app wrote into its document itself has no policy to tell."""
    app = FastAPI()
    mine = {"get": {"responses": {"200": {"description": "mine"}}}}
    app.openapi = lambda: {"openapi": "3.1.0", "paths": {"/elsewhere": mine}}  # type: ignore[method-assign]
    assert described(app)["paths"] == {"/elsewhere": mine}


def test_the_schema_has_every_reason_as_an_enum() -> None:
    """A generated client has all codes, those of the app's own requirements too, and the scheme to sign in by."""
    document = document_of(requirement("plan_expired", lambda _: True) & authenticated)
    enum = document["components"]["schemas"]["AuthzDenial"]["properties"]["reason"]["enum"]
    assert enum == [*(str(reason) for reason in Reason), "plan_expired"]
    assert document["components"]["securitySchemes"]["AuthzBearer"]["scheme"] == "bearer"
    json.dumps(document)


def test_codes_of_handlers_are_added_to_the_enum() -> None:
    """Nobody can know what a handler checks; what is named is in the schema, once, and in no operation."""
    app = FastAPI()
    app.get("/orders")(requires(authenticated)(lambda: None))
    document = described(app, codes=["order_locked", Reason.NOT_OWNER, "not_owner"])
    enum = document["components"]["schemas"]["AuthzDenial"]["properties"]["reason"]["enum"]
    assert enum == [*(str(reason) for reason in Reason), "order_locked"]
    assert "order_locked" not in json.dumps(document["paths"])


@pytest.mark.parametrize("codes", ["order_locked", ["Order Locked"], [5]])
def test_codes_have_to_be_codes(codes: Collection[str]) -> None:
    """What no refusal can say is a mistake."""
    with pytest.raises(ConfigurationError, match="describe_policies"):
        describe_policies(FastAPI(), gate=Gate(), codes=codes)


FULL = Denial(
    status=403,
    reason="x",
    required_scopes=("a",),
    missing_scopes=("a",),
    required_roles=("a",),
    required_permissions=("a",),
    acr_values=("a",),
    max_age=1,
    client_ip="::1",
    decision_id="1",
)
EMPTY = Denial(status=403, reason="x")


@pytest.mark.parametrize("disclose", ["full", "code"])
def test_the_schema_is_that_of_the_bodies_that_are_sent(disclose: Any) -> None:  # noqa: ANN401 - one of two words
    """What may be there is a property, and what is always there is required, whatever the gate discloses."""
    document = document_of(scopes("a"), Gate(tokens=tokens(), disclose=disclose))
    schema = document["components"]["schemas"]["AuthzDenial"]
    assert list(schema["properties"]) == list(members(FULL, disclose))
    assert schema["required"] == list(members(EMPTY, disclose))


def test_a_body_of_the_apps_own_is_not_described() -> None:
    """With render, the headers are all that is known."""
    gate = Gate(tokens=tokens(), render=lambda denial, _: ("text/plain", denial.reason.encode()))
    document = document_of(scopes("a"), gate)
    response = document["paths"]["/orders/{id}"]["get"]["responses"]["403"]
    assert "content" not in response
    assert response["headers"]["Authz-Reason"]["schema"]["enum"] == ["insufficient_scope"]
    assert "AuthzDenial" not in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("policy", "headers"),
    [
        (scopes("a"), {"400": True, "401": True, "403": True}),
        (roles("a"), {"400": True, "401": True, "403": False}),
        (networks("10.0.0.0/8"), {"403": False}),
    ],
    ids=str,
)
def test_the_headers_of_refusals_are_told(policy: Requirement, headers: dict[str, bool]) -> None:
    """Reason and decision always; the challenge where RFC 6750 has one."""
    responses = operation_of(policy)["responses"]
    for status, has_challenge in headers.items():
        told = set(responses[status]["headers"])
        assert told == {"Authz-Reason", "Authz-Decision", *(["WWW-Authenticate"] if has_challenge else [])}


def parts_of(document: object) -> list[object]:
    """Return every dict and list in a document."""
    if isinstance(document, dict):
        return [document, *(part for inner in document.values() for part in parts_of(inner))]
    if isinstance(document, list):
        return [document, *(part for inner in document for part in parts_of(inner))]
    return []


def test_no_part_of_a_document_stands_in_it_twice() -> None:
    """Whoever changes one operation or one document changes no other."""
    gate = Gate(tokens=BearerTokens(issuer="https://id.example", audience="orders-api"))
    both = [document_of(scopes("a"), gate), document_of(scopes("a"), gate)]
    identities = [id(part) for part in parts_of(both)]
    assert len(identities) == len(set(identities))


# ---- who signs in, and how


class ApiKeys:
    fields: Collection[str] = frozenset({"x-api-key"})

    def identify(self, request: AccessRequest, now: float) -> Principal | Rejected | None:
        return None


class Sessions(ApiKeys):
    fields = frozenset({"origin", "cookie"})
    reasons = (Reason.TOKEN_EXPIRED, Reason.CSRF_FAILED, Reason.INVALID_REQUEST)


class NamedSessions(Sessions):
    openapi_scheme = {"type": "apiKey", "in": "cookie", "name": "session"}  # noqa: RUF012 - as a user would write it


class Signed(ApiKeys):
    fields = frozenset({"x-signature", "x-key-id"})


IN_HEADER = {"type": "apiKey", "in": "header"}
BEARER = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


@pytest.mark.parametrize(
    ("sources", "schemes"),
    [
        ([tokens()], {"AuthzBearer": BEARER}),
        (
            [tokens(read_from="x-forwarded-access-token")],
            {"AuthzXForwardedAccessToken": {**IN_HEADER, "name": "x-forwarded-access-token"}},
        ),
        ([ApiKeys()], {"AuthzApiKeys": {**IN_HEADER, "name": "x-api-key"}}),
        ([NamedSessions()], {"AuthzNamedSessions": NamedSessions.openapi_scheme}),
        ([Sessions()], {"AuthzSessions": {**IN_HEADER, "name": "cookie", "description": "reads cookie, origin"}}),
        ([Signed()], {"AuthzSigned": {**IN_HEADER, "name": "x-key-id", "description": "reads x-key-id, x-signature"}}),
        (
            [ApiKeys(), tokens(), ApiKeys()],
            {
                "AuthzBearer": BEARER,
                "AuthzApiKeys": {**IN_HEADER, "name": "x-api-key"},
                "AuthzApiKeys2": {**IN_HEADER, "name": "x-api-key"},
            },
        ),
    ],
)
def test_the_schemes_are_what_the_sources_read(sources: list[Any], schemes: dict[str, object]) -> None:
    """Each way to sign in has its scheme, and each is an alternative."""
    document = document_of(scopes("a"), Gate(tokens=sources))
    assert document["components"]["securitySchemes"] == schemes
    assert document["paths"]["/orders/{id}"]["get"]["security"] == [{name: ["a"]} for name in schemes]


def test_a_token_that_only_websockets_send_is_in_no_operation() -> None:
    """No operation of a document is a WebSocket."""
    document = document_of(scopes("a"), Gate(tokens=tokens(read_from="sec-websocket-protocol")))
    assert "securitySchemes" not in document["components"]
    assert "security" not in document["paths"]["/orders/{id}"]["get"]


def test_a_source_says_what_it_rejects_with() -> None:
    """What it does not say is invalid_token; what it says is told by its status."""
    assert reasons_of(operation_of(roles("r"), Gate(tokens=ApiKeys()))) == {
        "401": {"missing_token", "invalid_token"},
        "403": {"role_required"},
    }
    assert reasons_of(operation_of(roles("r"), Gate(tokens=Sessions()))) == {
        "400": {"invalid_request"},
        "401": {"missing_token", "token_expired"},
        "403": {"role_required", "csrf_failed"},
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reasons", "invalid_token"),
        ("reasons", ["invalid_token"]),
        ("reasons", lambda: None),
        ("openapi_scheme", {"in": "cookie"}),
        ("openapi_scheme", "session"),
    ],
)
def test_what_a_source_says_of_itself_is_checked(field: str, value: object) -> None:
    """A mistake shows when the gate is made, and not when somebody reads the document."""
    source = ApiKeys()
    setattr(source, field, value)
    with pytest.raises(ConfigurationError, match=rf"tokens\[0\]\.{field}"):
        Gate(tokens=source)


OAUTH = OAuth2PasswordBearer(tokenUrl="token", scopes={"a": "A"}, auto_error=False)


@pytest.mark.parametrize(
    ("dependency", "policy", "security"),
    [
        (OAUTH, scopes("a"), [{"OAuth2PasswordBearer": ["a"]}]),
        (OAUTH, any_scope("a", "b"), [{"OAuth2PasswordBearer": ["a"]}, {"OAuth2PasswordBearer": ["b"]}]),
        (OAUTH, scopes("a") | networks("10.0.0.0/8"), [{"OAuth2PasswordBearer": ["a"]}, {"OAuth2PasswordBearer": []}]),
        (OAUTH, deny, [{"OAuth2PasswordBearer": []}]),
        (HTTPBearer(), scopes("a"), [{"HTTPBearer": ["a"]}]),
        (APIKeyHeader(name="x-key"), scopes("a"), [{"APIKeyHeader": []}]),
    ],
)
def test_security_of_the_apps_own_gets_the_scopes(dependency: Any, policy: Requirement, security: list[object]) -> None:  # noqa: ANN401 - FastAPI's
    """The app's scheme stays the one to sign in by, with the scopes that the gate asks for where it can hold them."""
    assert operation_of(policy, dependencies=[Depends(dependency)])["security"] == security


def test_the_scopes_of_an_operation_are_its_own_and_the_gates() -> None:
    """What the app asks for itself is not taken away."""
    extra = {"security": [{"Mine": ["z"]}, {}]}
    assert operation_of(scopes("a"), openapi_extra=extra)["security"] == [{"Mine": ["z"]}, {}]


def test_in_openapi_3_0_only_oauth_has_scopes() -> None:
    """Before 3.1, the array of any other type has to be empty."""
    app = FastAPI()
    app.openapi_version = "3.0.3"
    app.get("/plain")(requires(any_scope("a", "b"))(lambda: None))
    app.get("/oauth", dependencies=[Depends(OAUTH)])(requires(scopes("a"))(lambda: None))
    app.get("/bearer", dependencies=[Depends(HTTPBearer())])(requires(scopes("a"))(lambda: None))
    paths = described(app)["paths"]
    assert paths["/plain"]["get"]["security"] == [{"AuthzBearer": []}]
    assert paths["/oauth"]["get"]["security"] == [{"OAuth2PasswordBearer": ["a"]}]
    assert paths["/bearer"]["get"]["security"] == [{"HTTPBearer": []}]


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


BAD = {"Authorization": "Bearer a b"}
GOOD = {"Authorization": f"Bearer {token()}"}


@pytest.mark.parametrize("disclose", ["full", "code"])
@pytest.mark.parametrize(
    ("policy", "headers", "peer"),
    [
        (scopes("a") & roles("r"), {}, "10.0.0.1"),
        (scopes("a") & roles("r"), BAD, "10.0.0.1"),
        (any_scope("a", "b"), GOOD, "10.0.0.1"),
        (claim("plan", "pro"), GOOD, "10.0.0.1"),
        (optional, BAD, "10.0.0.1"),
        (deny & scopes("a"), BAD, "10.0.0.1"),
        (networks("10.0.0.0/8") & scopes("a"), BAD, "192.0.2.1"),
        (~networks("10.0.0.0/8"), {}, "10.0.0.1"),
        (~networks("10.0.0.0/8"), {}, "nowhere"),
    ],
)
def test_a_refusal_is_one_that_was_promised(
    policy: Requirement,
    headers: dict[str, str],
    peer: str,
    disclose: Any,  # noqa: ANN401 - one of two words
) -> None:
    """What the gate answers is what the document says: the reason, the members of the body and the headers."""
    app = FastAPI()
    gate = Gate(tokens=tokens(), disclose=disclose)
    app.add_middleware(AuthzMiddleware, gate=gate)
    describe_policies(app, gate=gate)
    endpoint: Callable[[], None] = lambda: None  # noqa: E731 - the shortest endpoint
    app.get("/orders")(requires(policy)(endpoint))
    answer = TestClient(app, client=(peer, 1)).get("/orders", headers=headers)
    operation = app.openapi()["paths"]["/orders"]["get"]
    assert answer.json()["reason"] in reasons_of(operation)[str(answer.status_code)]
    schema = app.openapi()["components"]["schemas"]["AuthzDenial"]
    assert set(schema["required"]) <= answer.json().keys() <= schema["properties"].keys()
    headers_told = {name.lower() for name in operation["responses"][str(answer.status_code)]["headers"]}
    ours = {"www-authenticate", "authz-reason", "authz-decision", "retry-after"} & answer.headers.keys()
    assert ours <= headers_told  # a status may be given with a challenge and without


# ---- documents, and whose they are


@pytest.mark.parametrize(("kind", "name"), [("schemas", "AuthzDenial"), ("securitySchemes", "AuthzBearer")])
def test_a_name_that_the_app_has_itself_is_a_mistake(kind: str, name: str) -> None:
    """The app's own must not stand for ours, nor switch off that policies are described."""
    app = FastAPI()
    if kind == "schemas":
        app.get("/own", response_model=create_model(name))(lambda: None)
    else:
        app.get("/own", dependencies=[Depends(HTTPBearer(scheme_name=name))])(lambda: None)
    with pytest.raises(ConfigurationError, match=rf"components\.{kind} = '{name}'"):
        described(app)


def test_two_gates_cannot_describe_one_app() -> None:
    """The second would be ignored; the same once more changes nothing."""
    app, gate = FastAPI(), Gate(tokens=tokens())
    describe_policies(app, gate=gate)
    describe_policies(app, gate=gate)
    for other in (Gate(tokens=tokens()), gate):
        with pytest.raises(ConfigurationError, match="described already"):
            describe_policies(app, gate=other, codes=["more"] if other is gate else [])


def test_what_the_app_makes_of_the_document_is_not_described_twice() -> None:
    """An app may keep a document that it has changed as its own."""
    app = FastAPI()
    app.get("/orders")(requires(any_scope("a", "b"))(lambda: None))
    first = described(app)
    app.openapi_schema = {**first, "info": {"title": "mine", "version": "1"}}
    assert app.openapi()["info"]["title"] == "mine"
    assert app.openapi()["paths"] == first["paths"]
    app.get("/late")(requires(scopes("late"))(lambda: None))
    assert app.openapi()["paths"]["/late"]["get"]["security"] == [{"AuthzBearer": ["late"]}]


def mounted() -> tuple[FastAPI, FastAPI]:
    """Return an app with an operation under a rule, a guard and a mark of its own once it is mounted, and the outer."""
    outer, inner = FastAPI(), FastAPI()
    inner.get("/items/{id}")(requires(scopes("items"))(lambda: None))
    outer.get("/submarine")(requires(scopes("boat"))(lambda: None))
    guard(inner, roles("partner"))
    return outer, inner


SUB_RULES = [Rule("GET", "/api/sub/**", networks("10.0.0.0/8"))]


def test_a_mounted_app_is_described_as_it_stands_in_the_outer_one() -> None:
    """Its rules are those of the whole path, and the guards on the way hold."""
    outer, inner = mounted()
    outer.mount("/api", Starlette(routes=[Mount("/sub", inner)]))
    gate = Gate(tokens=tokens(), rules=SUB_RULES)
    operation = described(inner, gate, within=outer)["paths"]["/items/{id}"]["get"]
    assert operation["security"] == [{"AuthzBearer": ["items"]}]
    assert reasons_of(operation)["403"] == {"ip_not_allowed", "role_required", "insufficient_scope"}


def test_an_app_behind_a_host_is_described_too() -> None:
    """A Host route is a mount without a path."""
    outer, inner = mounted()
    outer.routes.append(Host("api.example", inner))
    operation = described(inner, within=outer)["paths"]["/items/{id}"]["get"]
    assert reasons_of(operation)["403"] == {"role_required", "insufficient_scope"}


def test_an_app_that_a_router_mounts_is_found() -> None:
    """Included routers put their prefix before the mount, and their needs before what is in it."""
    outer, inner = mounted()
    router = APIRouter(dependencies=[needs(any_permission("p"))])
    router.mount("/in", inner)
    outer.include_router(router, prefix="/v1")
    gate = Gate(tokens=tokens(), rules=[Rule("GET", "/v1/in/items/*", networks("10.0.0.0/8"))])
    operation = described(inner, gate, within=outer)["paths"]["/items/{id}"]["get"]
    told = {"ip_not_allowed", "role_required", "permission_required", "insufficient_scope"}
    assert reasons_of(operation)["403"] == told


@pytest.mark.parametrize("mounts", [(), ("/one", "/two")])
def test_an_app_has_to_be_mounted_once(mounts: tuple[str, ...]) -> None:
    """One document cannot describe what is elsewhere, or two places."""
    outer, inner = mounted()
    for path in mounts:
        outer.mount(path, inner)
    with pytest.raises(ConfigurationError, match="mounted"):
        describe_policies(inner, gate=Gate(tokens=tokens()), within=outer)


def test_what_it_is_mounted_in_has_to_have_routes() -> None:
    """An app that cannot be looked into tells nothing."""
    with pytest.raises(ConfigurationError, match="cannot be found"):
        describe_policies(FastAPI(), gate=Gate(tokens=tokens()), within=lambda: None)
