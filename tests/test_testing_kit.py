import threading
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, get_args

import pytest
from django.test import override_settings
from starlette.testclient import TestClient

import authz403.wsgi
from authz403 import (
    BearerTokens,
    ConfigurationError,
    Cors,
    Gate,
    Network,
    Principal,
    Rbac,
    Reason,
    Requirement,
    Rule,
    any_role,
    authenticated,
    claim,
    networks,
    permissions,
    roles,
    scopes,
)
from authz403.claims import Preset
from authz403.testing import Authz, assert_denied, capture_decisions
from tests import tokens_made, wsgi_made
from tests.kit_made import FRAMEWORKS, Session, app_of, fastapi_app, flask_app, gate_with, starlette_app
from tests.tokens_made import NOW, PUBLIC_KEY_ALGORITHMS, SECRET, SECRET_ALGORITHMS, public_pem


def who_is_seen(authz: Authz, gate: Gate, **asked: Any) -> Principal:  # noqa: ANN401 - any option of a client
    """Return the caller that a gate makes out of a client's request."""
    app = authz403.wsgi.AuthzMiddleware(wsgi_made.page(), gate=gate)
    with capture_decisions(app) as decisions:
        authz.client(app, **asked).get("/")
    (decided,) = decisions
    assert decided.principal is not None, decided
    return decided.principal


# ---- every framework


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_client_is_whom_it_says(authz: Authz, framework: str) -> None:
    """Each framework's own client comes with an identity, and the policy holds."""
    with app_of(framework, gate_with()) as app:
        assert authz.client(app).get("/health").status_code == 200
        assert_denied(authz.client(app).get("/orders"), Reason.MISSING_TOKEN)
        assert_denied(authz.client(app, sub="ann").get("/orders"), Reason.INSUFFICIENT_SCOPE)
        assert authz.client(app, scopes={"orders:read"}).get("/orders").status_code == 200
        assert_denied(authz.client(app, roles="guest").delete("/orders/5"), Reason.ROLE_REQUIRED)
        assert authz.client(app, roles={"admin"}).delete("/orders/5").status_code == 200
        token = authz.token(app=app, scopes="orders:read")
        assert authz.client(app, token=token).get("/orders").status_code == 200
        assert authz.client(app).get("/orders", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_client_comes_from_its_address_and_its_page(authz: Authz, framework: str) -> None:
    """By the peer where no proxy is trusted, and with the header of a browser."""
    gate = gate_with(cors=Cors(origins=["https://app.example"]))
    with app_of(framework, gate) as app, capture_decisions() as decisions:
        answer = authz.client(app, address="192.0.2.7", origin="https://app.example").get("/orders")
        if framework != "wsgi":  # its rules are those of another gate
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert [decided.client_ip for decided in decisions] == ["192.0.2.7"]


# ---- trust begins and ends


def test_tokens_of_a_test_are_taken_in_that_test_alone() -> None:
    """Before and after, the gate knows its own issuer's keys alone; nothing that was taken is remembered."""
    gate = gate_with()
    app, identifier = starlette_app(gate), gate.identifier
    own = tokens_made.token(scope="orders:read")
    client = TestClient(app)

    def asked_with(token: str) -> int:
        return client.get("/orders", headers={"Authorization": f"Bearer {token}"}).status_code

    with Authz() as authz:
        token = authz.token(scopes="orders:read", issuer="https://id.example", audience="orders-api")
        assert (asked_with(token), asked_with(own)) == (401, 200)
        authz.use(app)
        token = authz.token(scopes="orders:read")
        assert (asked_with(token), asked_with(own)) == (200, 401)
        authz.use(app)
        assert asked_with(token) == 200
    assert (asked_with(token), asked_with(own)) == (401, 200)
    assert gate.identifier is identifier


def test_two_kits_do_not_take_the_gate_from_each_other() -> None:
    """One ends before the other, in either order."""
    app = starlette_app(gate_with())
    for first_ends_first in (True, False):
        one, other = Authz(), Authz()
        one.__enter__()
        other.__enter__()
        clients = [kit.client(app, scopes="orders:read") for kit in (one, other)]
        assert [client.get("/orders").status_code for client in clients] == [200, 200]
        (one if first_ends_first else other).__exit__(None, None, None)
        assert clients[1 if first_ends_first else 0].get("/orders").status_code == 200
        (other if first_ends_first else one).__exit__(None, None, None)
        assert [client.get("/orders").status_code for client in clients] == [401, 401]


def test_two_kits_know_the_roles_that_either_gave() -> None:
    """Whichever of them came last."""

    def looked_up(_: object) -> list[str]:
        raise AssertionError("roles were looked up")

    app = starlette_app(gate_with(rbac=Rbac(roles_for=looked_up)))
    with Authz() as one, Authz() as other:
        clients = [kit.client(app, roles="admin") for kit in (one, other)]
        assert [client.delete("/orders/1").status_code for client in clients] == [200, 200]


def test_a_source_that_gates_share_is_not_touched(authz: Authz) -> None:
    """Another gate with the same `BearerTokens` takes no token of a test."""
    source = BearerTokens(issuer="https://id.example", audience="orders-api", key=public_pem())
    used, other = starlette_app(Gate(tokens=source)), starlette_app(Gate(tokens=source))
    token = authz.token(app=used, scopes="orders:read")
    headers = {"Authorization": f"Bearer {token}"}
    assert TestClient(used).get("/orders", headers=headers).status_code == 200
    assert TestClient(other).get("/orders", headers=headers).status_code == 401


def test_keys_are_never_fetched(authz: Authz, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they would be found by discovery, they are not looked for."""

    def fetched(*_: object) -> None:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("authz403.keys.fetch_json", fetched)
    app = starlette_app(Gate(tokens=BearerTokens(issuer="https://id.example", audience="orders-api")))
    assert authz.client(app, scopes="orders:read").get("/orders").status_code == 200
    assert_denied(authz.client(app, token=authz.token(key="other")).get("/orders"), Reason.INVALID_TOKEN)


def test_a_gate_that_a_test_makes_takes_its_tokens(authz: Authz) -> None:
    """By plain configuration, and without an app."""
    app = starlette_app(Gate(tokens=authz.tokens))
    token = authz.token(scopes="orders:read")
    assert TestClient(app).get("/orders", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert (authz.tokens.issuer, authz.tokens.audience) == (authz.issuer, (authz.audience,))


def test_a_server_in_another_thread_takes_tokens(authz: Authz) -> None:
    """A token is a token, whoever serves the request."""
    app = flask_app(gate_with())
    client = authz.client(app, scopes="orders:read")
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(client.get("/orders").status_code))
    thread.start()
    thread.join()
    assert statuses == [200]


@pytest.mark.parametrize("make", [starlette_app, fastapi_app, flask_app])
def test_the_gate_that_a_function_makes_is_the_one_that_decides(authz: Authz, make: Callable[..., Any]) -> None:
    """Made once, whether the kit or a request comes first."""
    for is_served_first in (False, True):
        made: list[Gate] = []

        def gate(made: list[Gate] = made) -> Gate:
            made.append(gate_with())
            return made[-1]

        app = make(gate)
        if is_served_first:
            client = app.test_client() if make is flask_app else TestClient(app)
            assert client.get("/orders").status_code == 401
        assert authz.client(app, scopes="orders:read").get("/orders").status_code == 200
        assert_denied(authz.client(app).get("/orders"), Reason.MISSING_TOKEN)


def test_a_django_project_must_name_its_gate(authz: Authz) -> None:
    """A function would make another one for each handler."""
    with (
        app_of("django-wsgi", gate_with()) as app,
        override_settings(AUTHZ403_GATE=gate_with),
        pytest.raises(ConfigurationError, match=r"AUTHZ403_GATE.*name the gate itself"),
    ):
        authz.client(app)


# ---- claims are written where they are read


PRESETS: Final = get_args(Preset)


@pytest.mark.parametrize("preset", [*PRESETS, None])
def test_claims_stand_where_a_preset_reads_them(authz: Authz, preset: Preset | None) -> None:
    """Scopes, roles and permissions arrive as they were given."""
    source = BearerTokens(issuer="https://id.example", audience="a", key=public_pem(), claims=preset or {})
    gate = Gate(tokens=source, rules=[Rule("*", "/**", authenticated)])
    held = {} if preset == "auth0" else {"roles": {"admin", "seller"}}
    seen = who_is_seen(authz, gate, sub="ann", scopes={"a", "b"}, permissions="x y", **held)
    assert (seen.sub, seen.issuer) == ("ann", "https://id.example")
    assert sorted(seen.scopes) == ["a", "b"]
    assert sorted(seen.permissions) == ["x", "y"]
    assert seen.roles == held.get("roles", set())


def test_claims_stand_where_a_configuration_reads_them(authz: Authz) -> None:
    """Within objects, under names of the app's own, and where two fields share a claim."""
    where = {
        "sub": "email",
        "roles": ["access", "shop", "roles"],
        "scopes": "grants",
        "permissions": "grants",
        "client_id": ["access", "client"],
        "audience": "for",
        "token_id": "id",
    }
    source = BearerTokens(issuer="https://id.example", audience=["a", "b"], key=public_pem(), claims=where)
    gate = Gate(tokens=source, rules=[Rule("*", "/**", authenticated)])
    seen = who_is_seen(authz, gate, sub="ann@x", roles="admin", scopes="a", permissions="b", claims={"plan": "pro"})
    assert (seen.sub, list(seen.roles)) == ("ann@x", ["admin"])
    assert sorted(seen.scopes) == sorted(seen.permissions) == ["a", "b"]
    assert (seen.claims["plan"], seen.claims["for"]) == ("pro", "a")


def test_roles_that_tokens_do_not_hold_are_a_mistake(authz: Authz) -> None:
    """Auth0's stand under a name that only the configuration knows."""
    source = BearerTokens(issuer="https://id.example", audience="a", key=public_pem(), claims="auth0")
    app = starlette_app(Gate(tokens=source))
    with pytest.raises(ConfigurationError, match=r"roles.*tokens of this provider do not hold them"):
        authz.token(app=app, roles="admin")


@pytest.mark.parametrize("algorithm", [*PUBLIC_KEY_ALGORITHMS, *SECRET_ALGORITHMS])
def test_a_token_is_signed_as_the_gate_wants_it(authz: Authz, algorithm: str) -> None:
    """Under the algorithm that the source allows."""
    key = SECRET if algorithm in SECRET_ALGORITHMS else public_pem(algorithm)
    source = BearerTokens(issuer="https://id.example", audience="a", key=key, algorithms=[algorithm])
    app = starlette_app(Gate(tokens=source))
    assert authz.client(app, scopes="orders:read").get("/orders").status_code == 200
    other = "ES256" if algorithm != "ES256" else "RS256"
    refused = authz.client(app, token=authz.token(algorithm=other)).get("/orders")
    assert_denied(refused, Reason.INVALID_TOKEN)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"expired": True}, Reason.TOKEN_EXPIRED),
        ({"not_yet_valid": True}, Reason.TOKEN_NOT_YET_VALID),
        ({"audience": "another"}, Reason.WRONG_AUDIENCE),
        ({"issuer": "https://other.example"}, Reason.WRONG_ISSUER),
        ({"key": "other"}, Reason.INVALID_TOKEN),
        ({"algorithm": "HS256"}, Reason.INVALID_TOKEN),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_token_is_wrong_in_the_way_that_is_asked_for(authz: Authz, wrong: dict[str, Any], reason: Reason) -> None:
    """By a clock of the gate's own, too, and with the most that is forgiven."""
    source = BearerTokens(issuer="https://id.example", audience="a", key=public_pem(), leeway=300)
    app = starlette_app(Gate(tokens=source, clock=lambda: NOW + 1e8))
    good = authz.client(app, token=authz.token(app=app, scopes="orders:read"))
    assert good.get("/orders").status_code == 200
    assert_denied(authz.client(app, token=authz.token(scopes="orders:read", **wrong)).get("/orders"), reason)


def test_an_issuer_chooses_among_several(authz: Authz) -> None:
    """Each token is written as the source of its issuer reads it."""
    keycloak = BearerTokens(issuer="https://kc.example", audience="k", key=public_pem(), claims="keycloak")
    plain = BearerTokens(issuer="https://id.example", audience="p", key=public_pem())
    app = starlette_app(Gate(tokens=[plain, keycloak]))
    for issuer in ("https://id.example", "https://kc.example"):
        client = authz.client(app, token=authz.token(app=app, issuer=issuer, roles="admin"))
        assert client.delete("/orders/1").status_code == 200


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"key": "mine"}, "another key"),
        ({"scopes": 5}, "scopes = 5: a list of strings"),
        ({"roles": [1]}, r"roles\[0\]"),
    ],
    ids=["key", "scopes", "roles"],
)
def test_a_mistyped_token_is_a_mistake(authz: Authz, options: dict[str, Any], told: str) -> None:
    """It would be refused for a reason that a test takes for the right one."""
    with pytest.raises(ConfigurationError, match=told):
        authz.token(**options)
    with pytest.raises(ValueError, match="algorithm='none'"):
        authz.token(algorithm="none")


def test_the_policy_of_the_source_still_holds(authz: Authz) -> None:
    """What is revoked stays so."""
    source = BearerTokens(
        issuer="https://id.example", audience="a", key=public_pem(), is_revoked=lambda who: who.sub == "mallory"
    )
    app = starlette_app(Gate(tokens=source))
    assert authz.client(app, sub="ann", scopes="orders:read").get("/orders").status_code == 200
    refused = authz.client(app, sub="mallory", scopes="orders:read").get("/orders")
    assert_denied(refused, Reason.TOKEN_REVOKED)


# ---- roles that are looked up


async def _by_loop(principal: Principal) -> Collection[str]:
    return ["admin"] if principal.sub == "root" else []


def _plainly(principal: Principal) -> Collection[str]:
    return ["admin"] if principal.sub == "root" else []


@pytest.mark.parametrize("look_up", [_plainly, _by_loop], ids=["plain", "async"])
@pytest.mark.parametrize("framework", ["starlette", "flask"])
def test_roles_that_are_given_are_not_looked_up(
    authz: Authz, look_up: Callable[[Principal], Awaitable[Collection[str]]], framework: str
) -> None:
    """And those of a caller without any are."""
    rbac = Rbac(roles_for=look_up, hierarchy={"root": ["admin"]})
    with app_of(framework, gate_with(rbac=rbac)) as app:
        assert authz.client(app, sub="ann", roles={"root"}).delete("/orders/1").status_code == 200
        assert authz.client(app, sub="root").delete("/orders/1").status_code == 200
        assert_denied(authz.client(app, sub="root", roles=()).delete("/orders/1"), Reason.ROLE_REQUIRED)
        assert_denied(authz.client(app, sub="ann").delete("/orders/1"), Reason.ROLE_REQUIRED)


# ---- addresses


@pytest.mark.parametrize(
    ("network", "address"),
    [
        (Network(), "192.0.2.7"),
        (Network(trusted_proxies=["172.16.0.0/12"]), "192.0.2.7"),
        (Network(trusted_proxies=["172.16.0.0/12"]), "2001:db8::7"),
        (Network(trusted_proxies=["172.16.0.0/12"], hops=3), "192.0.2.7"),
        (Network(trusted_proxies=["fd00::/8"], source="forwarded"), "192.0.2.7"),
        (Network(trusted_proxies=["10.0.0.1"], source="forwarded", hops=2), "2001:db8::7"),
        (Network(trusted_proxies=["10.0.0.1"], source="cf-connecting-ip"), "192.0.2.7"),
        (Network(trusted_proxies=["unix"]), "192.0.2.7"),
        (Network(trusted_proxies=["unix"], hops=2), "192.0.2.7"),
    ],
    ids=["peer", "xff", "xff-v6", "hops", "forwarded", "forwarded-hops", "header", "unix", "unix-hops"],
)
@pytest.mark.parametrize("framework", ["fastapi", "flask", "django-wsgi"])
def test_an_address_comes_by_the_way_that_the_gate_trusts(
    authz: Authz, network: Network, address: str, framework: str
) -> None:
    """Through a trusted proxy and its header, or as the peer."""
    with app_of(framework, gate_with(network=network)) as app, capture_decisions(app) as decisions:
        authz.client(app, address=address).get("/orders")
    assert [decided.client_ip for decided in decisions] == [address]


@pytest.mark.parametrize(
    ("address", "told"), [("here", "an IP address is needed"), ("172.16.5.5", "one of trusted_proxies")]
)
def test_an_address_that_no_client_can_have_is_a_mistake(authz: Authz, address: str, told: str) -> None:
    """The gate would see another one, or none."""
    app = starlette_app(gate_with(network=Network(trusted_proxies=["172.16.0.0/12"])))
    with pytest.raises(ConfigurationError, match=told):
        authz.client(app, address=address)


# ---- other identities than tokens


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_client_of_a_gate_without_tokens_is_known_all_the_same(authz: Authz, framework: str) -> None:
    """As by `acting_as`, and for its own requests alone."""
    with app_of(framework, Gate(tokens=Session())) as app:
        client, nobody = authz.client(app, scopes="orders:read", sub="ann"), authz.client(app)
        assert client.get("/orders").status_code == 200
        assert_denied(nobody.get("/orders"), Reason.MISSING_TOKEN)
        assert_denied(client.delete("/orders/1"), Reason.ROLE_REQUIRED)
        for options in ({"app": app}, {}):
            with pytest.raises(ConfigurationError, match="no BearerTokens"):
                authz.token(**options)
        with pytest.raises(ConfigurationError, match="no BearerTokens"):
            authz.client(app, token="a.b.c")


def test_a_token_goes_into_the_header_that_is_read(authz: Authz) -> None:
    """One that a proxy writes holds the token alone; WebSockets offer it as a subprotocol."""
    source = BearerTokens(issuer="https://id.example", audience="a", key=public_pem(), read_from="x-token")
    app = starlette_app(Gate(tokens=source))
    assert authz.client(app, scopes="orders:read").get("/orders").status_code == 200
    source = BearerTokens(
        issuer="https://id.example", audience="a", key=public_pem(), read_from="sec-websocket-protocol"
    )
    app = starlette_app(Gate(tokens=source))
    with pytest.raises(ConfigurationError, match="from WebSockets alone"):
        authz.client(app, scopes="orders:read")


@pytest.mark.parametrize(
    "requirement",
    [scopes("a"), roles("a"), permissions("a"), claim("a", 1), any_role("a"), networks("192.0.2.0/24")],
    ids=["scopes", "roles", "permissions", "claim", "any_role", "networks"],
)
def test_whatever_is_needed_can_be_given(authz: Authz, requirement: Requirement) -> None:
    """Each kind of requirement is met by a client that was given it, and by no other."""
    app = authz403.wsgi.AuthzMiddleware(wsgi_made.page(), gate=gate_with(rules=[Rule("*", "/**", requirement)]))
    client = authz.client(app, scopes="a", roles="a", permissions="a", claims={"a": 1}, address="192.0.2.1")
    assert client.get("/").status_code == 200
    assert authz.client(app, sub="ann").get("/").status_code == 403
