"""Which endpoints the claims of a token reach: as the gate itself would decide, whatever else a request brings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from authz403 import (
    AddressFile,
    BearerTokens,
    Gate,
    Network,
    Principal,
    Rbac,
    Requirement,
    Rule,
    any_role,
    anyone,
    authenticated,
    claim,
    csrf_protected,
    networks,
    param,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.cli.reach import DEPENDS, MISSES, REACHES, identity_in, reach, wanted_in, wrong_with
from authz403.coverage import served_of
from authz403.facts import Rejected
from tests.gates_made import ALICE, IDENTITIES, NOBODY, PEERS, Callers, judged, requirements

SECRET = "0" * 32
ORDERS = BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"])
KEYCLOAK = BearerTokens(
    issuer="https://kc.example", audience="orders-api", key=SECRET, algorithms=["HS256"], claims="keycloak"
)


async def answer(request: Request) -> Response:
    """Stand for an endpoint."""
    raise NotImplementedError


APP = Starlette(routes=[Route("/orders/{order}", answer)])


def reached(wanted: Requirement, identity: Principal | Rejected, **parts: object) -> tuple[str, str]:
    """Return whether a caller reaches an endpoint with this policy, and why not."""
    gate = Gate(**{"tokens": Callers(None), "rules": [Rule("*", "/**", wanted)], **parts})  # type: ignore[arg-type]  # parts of a gate
    (found,) = reach(served_of(APP, gate.rules), identity, gate)
    return found.result, found.why


def read(tmp_path: Path, gate: Gate, **claims: object) -> Principal | Rejected:
    """Return whom claims name."""
    file = tmp_path / "claims.json"
    file.write_text(json.dumps(claims), encoding="utf-8")
    return identity_in(file, gate)


@given(requirements, st.sampled_from(IDENTITIES))
def test_it_says_what_the_gate_decides(wanted: Requirement, who: Principal | Rejected) -> None:
    """What is reached is reached from everywhere, and what is not from nowhere."""
    result, _ = reached(wanted, who)
    allowed = {judged(wanted, who, peer=peer, params={"order": "5"}).allowed for peer in PEERS}
    if result == REACHES:
        assert allowed == {True}
    elif result == MISSES:
        assert allowed == {False}


OWN = requirement("own", lambda _: True)
MACHINE = Principal(
    sub="machine", scopes=frozenset({"a"}), roles=frozenset({"seller"}), claims={"tenant": "acme", "auth_time": 5}
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (anyone, (REACHES, "")),
        (scopes("a"), (REACHES, "")),
        (scopes("a") & csrf_protected(), (REACHES, "")),
        (scopes("a", "b", "c"), (MISSES, "missing scopes b, c")),
        (any_role("admin", "owner"), (MISSES, "missing roles admin, owner")),
        (permissions("refund"), (MISSES, "missing permission refund")),
        (claim("tenant", "other"), (MISSES, "claim_required")),
        (networks("10.0.0.0/8"), (DEPENDS, "on networks('10.0.0.0/8')")),
        (networks("10.0.0.0/8") & scopes("b"), (MISSES, "missing scope b")),
        (networks("10.0.0.0/8") | scopes("a"), (REACHES, "")),
        (networks("10.0.0.0/8") & networks("11.0.0.0/8"), (MISSES, "ip_not_allowed")),
        (~networks("0.0.0.0/0", "::/0"), (MISSES, "access_denied")),
        (~networks("0.0.0.0/0"), (DEPENDS, "on networks('0.0.0.0/0')")),
        (param("order", claim="tenant"), (DEPENDS, "on param('order', claim='tenant')")),
        (param("order", claim="gone"), (MISSES, "not_owner")),
        (requirement("own", lambda _: True), (DEPENDS, "on requirement('own')")),
        (requirement("own", lambda _: True) & scopes("b"), (MISSES, "missing scope b")),
        (OWN | ~OWN, (DEPENDS, "on requirement('own')")),
        (requirement("own", lambda _: True) | scopes("a"), (REACHES, "")),
        (
            networks("10.0.0.0/8") & requirement("own", lambda _: True),
            (DEPENDS, "on networks('10.0.0.0/8'), requirement('own')"),
        ),
        (authenticated.stepped_up(max_age=60), (DEPENDS, "on the time since the sign-in")),
        (authenticated.stepped_up(acr_values=["gold"], max_age=60), (MISSES, "step_up_required")),
    ],
    ids=str,
)  # fmt: skip
def test_each_endpoint_is_reached_or_not_or_depends(wanted: Requirement, expected: tuple[str, str]) -> None:
    """On what the request brings besides the claims: its address, its path, what the app's own tests say."""
    assert reached(wanted, MACHINE) == expected


def test_the_networks_of_the_service_count() -> None:
    """They stand before every endpoint."""
    told = reached(scopes("a"), MACHINE, network=Network(allow=["10.0.0.0/8"]))
    assert told == (DEPENDS, "on service(allow=['10.0.0.0/8'])")


def test_networks_of_a_file_may_be_others_where_the_app_runs(tmp_path: Path) -> None:
    """What is in the file here proves nothing: all depends on it but what is refused, or let in, whatever it holds."""
    file = tmp_path / "allowed"
    file.write_text("10.0.0.0/8\n", encoding="utf-8")
    listed = AddressFile(file)
    depends = (DEPENDS, f"on networks(file('{file}'))")
    assert reached(networks(listed), MACHINE) == depends
    assert reached(~networks(listed), MACHINE) == depends
    assert reached(networks(listed) | ~networks(listed), MACHINE) == depends
    assert reached((networks(listed) & scopes("a")).concealed(), MACHINE) == depends
    assert reached(networks(listed) & scopes("b"), MACHINE) == (MISSES, "missing scope b")
    assert reached(networks(listed) | scopes("a"), MACHINE) == (REACHES, "")
    service = Network(allow=[listed])
    assert reached(anyone, MACHINE, network=service) == (DEPENDS, f"on service(allow=[file('{file}')])")


def test_many_unknown_things_are_not_followed_forever() -> None:
    """Beyond a bound, it depends on all of them."""
    asked: list[object] = []

    def is_noted(tenant: object) -> bool:
        asked.append(tenant)
        return True

    wanted = claim("tenant", is_noted)
    for number in range(13):
        wanted &= requirement(f"own_{number}", lambda _: True)
    result, why = reached(wanted, MACHINE)
    assert result == DEPENDS
    assert why.count("requirement(") == 13
    assert len(asked) <= 4_096


def test_roles_that_are_looked_up_are_not_known(tmp_path: Path) -> None:
    """The token's own do not count then, and permissions that roles grant depend on them."""

    def roles_for(principal: Principal) -> list[str]:
        raise NotImplementedError

    rbac = Rbac(roles_for=roles_for, grants={"seller": ["refund"]}, hierarchy={"admin": ["seller"]})
    depends = (DEPENDS, "on the roles that roles_for finds")
    assert reached(roles("seller"), MACHINE, rbac=rbac) == depends
    assert reached(permissions("refund"), MACHINE, rbac=rbac) == depends
    assert reached(roles("seller") & ~roles("admin"), MACHINE, rbac=rbac) == depends
    assert reached(permissions("nobody"), MACHINE, rbac=rbac) == (MISSES, "missing permission nobody")
    assert reached(scopes("a"), MACHINE, rbac=rbac) == (REACHES, "")
    found = read(tmp_path, Gate(tokens=ORDERS, rbac=rbac), roles=["seller"])
    assert isinstance(found, Principal)
    assert not found.permissions


def test_claims_are_read_as_the_gate_reads_a_token(tmp_path: Path) -> None:
    """By the source of their issuer, with its names of claims, and what roles mean."""
    gate = Gate(tokens=[ORDERS, KEYCLOAK], rbac=Rbac(hierarchy={"admin": ["seller"]}, grants={"seller": ["refund"]}))
    found = read(tmp_path, gate, iss="https://kc.example", sub="m", realm_access={"roles": ["admin"]}, scope="a b")
    assert isinstance(found, Principal)
    assert [sorted(held) for held in (found.scopes, found.roles, found.permissions)] == [
        ["a", "b"],
        ["admin", "seller"],
        ["refund"],
    ]
    assert found.issuer == "https://kc.example"
    ours = read(tmp_path, gate, scope="a", roles=["seller"], exp=1)
    assert isinstance(ours, Principal)
    assert (ours.sub, ours.issuer) == ("anybody", "https://id.example")
    assert [sorted(held) for held in (ours.scopes, ours.roles, ours.permissions)] == [["a"], ["seller"], ["refund"]]
    other = read(tmp_path, Gate(tokens=Callers(ALICE)), client_id="m", scope="a")
    assert isinstance(other, Principal)
    assert (other.sub, sorted(other.scopes)) == ("m", ["a"])


@pytest.mark.parametrize(
    ("claims", "reason", "hint"),
    [
        ({"iss": "https://other.example"}, "wrong_issuer", "this gate accepts 'https://id.example'"),
        ({"aud": "other-api"}, "wrong_audience", "aud is 'other-api', and this gate is"),
        ({"aud": {}}, "wrong_audience", "aud is {}"),
        ({"scope": 5}, "invalid_token", "its scope is not a string"),
        ({"roles": "admin"}, "invalid_token", "its roles is not a list of strings"),
    ],
)  # fmt: skip
def test_claims_of_a_token_that_would_be_refused_reach_nothing(
    tmp_path: Path, claims: dict[str, object], reason: str, hint: str
) -> None:
    """But what is open to anyone."""
    found = read(tmp_path, Gate(tokens=ORDERS), **claims)
    assert isinstance(found, Rejected)
    assert found.reason == reason
    assert hint in str(found.hint)
    assert reached(scopes("a"), found) == (MISSES, "missing scope a")
    assert reached(authenticated, found) == (MISSES, reason)
    assert reached(anyone, found) == (REACHES, "")


def test_a_request_is_judged_by_the_route_that_takes_it_first() -> None:
    """A route's own path stands for all parts of it; any other for the part that it lies in."""
    app = Starlette(
        routes=[Route("/files/latest", answer), Route("/files/{path:path}", answer, methods=["GET", "PUT"])]
    )
    rules = [
        Rule("GET", "/files/latest", anyone),
        Rule("*", "/files/secret/**", scopes("b")),
        Rule("*", "/files/**", scopes("a")),
    ]
    gate = Gate(tokens=Callers(None), rules=rules)
    served = served_of(app, gate.rules)

    def wrong(*given: str, who: Principal | Rejected = MACHINE) -> list[str]:
        return wrong_with(wanted_in(given), served, reach(served, who, gate))

    assert wrong("GET /files/latest", "head /files/a/b", "PUT /files/a") == []
    assert wrong("GET /files/secret/x") == ["GET /files/secret/x: missing scope b"]
    assert wrong("GET /files/{path}") == ["GET /files/{path}: missing scope b"]
    assert wrong("GET /files/latest", who=NOBODY) == []
    assert wrong("PUT /files/{path}") == ["PUT /files/{path}: missing scope b"]
    assert wrong("DELETE /files/a", "GET /") == [
        "DELETE /files/a: no endpoint serves it",
        "GET /: no endpoint serves it",
    ]
