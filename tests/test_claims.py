"""Claims: tokens as each provider writes them become exactly the right principal; any other shape is refused whole."""

import copy
import json
import pickle
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403 import BearerTokens, Principal, Reason
from authz403.claims import TokenClaims
from authz403.facts import Rejected
from authz403.jose import TokenRefused, read_token
from authz403.tokens import Verified
from tests.tokens_judged import accepted, refused
from tests.tokens_made import ABSENT, AUDIENCE, ISSUER, NOW, signed, token, tokens

Claims = dict[str, Any]

IAT: Final = int(NOW) - 60
EXP: Final = int(NOW) + 3600
TIMES: Final = {"iat": IAT, "exp": EXP}


def source_for(preset: object, **options: object) -> BearerTokens:
    """Return a source with the claims of a preset, or of none."""
    return tokens(**({"claims": preset} if preset is not None else {}), **options)


def minted(claims: Claims, typ: object = "JWT") -> str:
    """Return a token of exactly these claims under the `typ` that a provider writes."""
    head = {"alg": "ES256", "kid": "k1", **({} if typ is ABSENT else {"typ": typ})}
    return signed(head, claims)


def unchangeable(value: object) -> object:
    """Return a JSON value as claims hold it: lists as tuples."""
    if isinstance(value, dict):
        return {name: unchangeable(one) for name, one in value.items()}
    return tuple(unchangeable(one) for one in value) if isinstance(value, list) else value


# Access tokens as providers write them


class Access(NamedTuple):
    """An access token of a provider, who accepts it, and the principal that it names."""

    preset: str | None
    audience: str
    typ: object
    claims: Claims
    named: dict[str, Any]


AUTH0: Final = "https://shop.eu.auth0.com/"
COGNITO: Final = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Q1w2E3r4T"
ENTRA_TENANT: Final = "9f2d1a64-53a7-4a0e-9f10-5b7d0e1c2a3b"
ENTRA_V1: Final = f"https://sts.windows.net/{ENTRA_TENANT}/"
ENTRA_V2: Final = f"https://login.microsoftonline.com/{ENTRA_TENANT}/v2.0"
ENTRA_API: Final = "6e74172b-be56-4843-9ff4-e66a39bb12e3"
ENTRA_CLIENT: Final = "71c50ea3-7e5f-4f0a-8f4d-1c6b5a4d3e2f"
KEYCLOAK: Final = "https://id.shop.example/realms/shop"
OKTA: Final = "https://shop.okta.com/oauth2/default"

ACCESS_TOKENS: Final = {
    "no preset": Access(
        None,
        AUDIENCE,
        "at+jwt",
        {
            "iss": ISSUER,
            "aud": [AUDIENCE],
            "sub": "alice",
            "client_id": "shop",
            "scope": "orders:read orders:write",
            "roles": ["seller"],
            "permissions": ["orders:refund"],
            "jti": "j1",
        },
        {
            "sub": "alice",
            "client_id": "shop",
            "scopes": {"orders:read", "orders:write"},
            "roles": {"seller"},
            "permissions": {"orders:refund"},
            "token_id": "j1",
        },
    ),
    "auth0 user": Access(
        "auth0",
        "https://api.shop.example",
        "JWT",
        {
            "iss": AUTH0,
            "sub": "auth0|65f1c0ffee",
            "aud": ["https://api.shop.example", f"{AUTH0}userinfo"],
            "azp": "y9xQ2CkK1mN3",
            "scope": "openid profile orders:read",
            "permissions": ["orders:read", "orders:refund"],
            "https://shop.example/roles": ["admin"],
        },
        {
            "sub": "auth0|65f1c0ffee",
            "client_id": "y9xQ2CkK1mN3",
            "scopes": {"openid", "profile", "orders:read"},
            "permissions": {"orders:read", "orders:refund"},
        },
    ),
    "auth0 machine": Access(
        "auth0",
        "https://api.shop.example",
        "JWT",
        {
            "iss": AUTH0,
            "sub": "m2mQ7Zx@clients",
            "aud": "https://api.shop.example",
            "azp": "m2mQ7Zx",
            "scope": "orders:read",
            "gty": "client-credentials",
            "permissions": ["orders:read"],
        },
        {
            "sub": "m2mQ7Zx@clients",
            "client_id": "m2mQ7Zx",
            "scopes": {"orders:read"},
            "permissions": {"orders:read"},
        },
    ),
    "auth0 user in the profile of RFC 9068": Access(
        "auth0",
        "https://api.shop.example",
        "at+jwt",
        {
            "iss": AUTH0,
            "sub": "auth0|65f1c0ffee",
            "aud": ["https://api.shop.example"],
            "client_id": "y9xQ2CkK1mN3",
            "jti": "Zm9vYmFy",
            "scope": "orders:read",
        },
        {
            "sub": "auth0|65f1c0ffee",
            "client_id": "y9xQ2CkK1mN3",
            "scopes": {"orders:read"},
            "token_id": "Zm9vYmFy",
        },
    ),
    "cognito user": Access(
        "cognito",
        "3n4b5urk1ft4fl3mg5e62d9ado",
        ABSENT,
        {
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "cognito:groups": ["sellers", "admins"],
            "iss": COGNITO,
            "version": 2,
            "client_id": "3n4b5urk1ft4fl3mg5e62d9ado",
            "origin_jti": "e0c1",
            "event_id": "64f513be",
            "token_use": "access",
            "scope": "aws.cognito.signin.user.admin orders/read",
            "auth_time": IAT,
            "jti": "c7b1",
            "username": "alice",
        },
        {
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "client_id": "3n4b5urk1ft4fl3mg5e62d9ado",
            "scopes": {"aws.cognito.signin.user.admin", "orders/read"},
            "roles": {"sellers", "admins"},
            "token_id": "c7b1",
        },
    ),
    "cognito user with resource binding": Access(
        "cognito",
        "https://api.shop.example",
        ABSENT,
        {
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "aud": "https://api.shop.example",
            "iss": COGNITO,
            "client_id": "3n4b5urk1ft4fl3mg5e62d9ado",
            "token_use": "access",
            "scope": "https://api.shop.example/read",
            "jti": "c7b2",
            "username": "alice",
        },
        {
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "client_id": "3n4b5urk1ft4fl3mg5e62d9ado",
            "scopes": {"https://api.shop.example/read"},
            "token_id": "c7b2",
        },
    ),
    "cognito machine": Access(
        "cognito",
        "5qvhm2h",
        ABSENT,
        {
            "sub": "5qvhm2h",
            "token_use": "access",
            "scope": "orders/read",
            "auth_time": IAT,
            "iss": COGNITO,
            "version": 2,
            "jti": "c7b3",
            "client_id": "5qvhm2h",
        },
        {"sub": "5qvhm2h", "client_id": "5qvhm2h", "scopes": {"orders/read"}, "token_id": "c7b3"},
    ),
    "entra v1 user": Access(
        "entra",
        "api://orders",
        "JWT",
        {
            "aud": "api://orders",
            "iss": ENTRA_V1,
            "nbf": IAT,
            "acr": "1",
            "aio": "AXQAi/8TAAAA",
            "amr": ["pwd"],
            "appid": ENTRA_CLIENT,
            "appidacr": "0",
            "family_name": "Liddell",
            "ipaddr": "203.0.113.9",
            "oid": "8a2c1b0d",
            "rh": "0.AXAA",
            "roles": ["Orders.Admin"],
            "scp": "Orders.Read Orders.Write",
            "sub": "HKZpfaHyWadeOouYlitjrI",
            "tid": ENTRA_TENANT,
            "unique_name": "alice@shop.example",
            "uti": "4MDvr0TsIkGAAA",
            "ver": "1.0",
        },
        {
            "sub": "HKZpfaHyWadeOouYlitjrI",
            "client_id": ENTRA_CLIENT,
            "scopes": {"Orders.Read", "Orders.Write"},
            "roles": {"Orders.Admin"},
            "token_id": "4MDvr0TsIkGAAA",
        },
    ),
    "entra v1 machine": Access(
        "entra",
        "api://orders",
        "JWT",
        {
            "aud": "api://orders",
            "iss": ENTRA_V1,
            "nbf": IAT,
            "appid": ENTRA_CLIENT,
            "appidacr": "1",
            "idp": ENTRA_V1,
            "oid": "b1c2",
            "roles": ["Orders.Sync"],
            "sub": "b1c2",
            "tid": ENTRA_TENANT,
            "uti": "u2",
            "ver": "1.0",
        },
        {"sub": "b1c2", "client_id": ENTRA_CLIENT, "roles": {"Orders.Sync"}, "token_id": "u2"},
    ),
    "entra v2 user": Access(
        "entra",
        ENTRA_API,
        "JWT",
        {
            "aud": ENTRA_API,
            "iss": ENTRA_V2,
            "nbf": IAT,
            "aio": "AXQAi/8TAAAA",
            "azp": ENTRA_CLIENT,
            "azpacr": "0",
            "name": "Alice Liddell",
            "oid": "8a2c1b0d",
            "preferred_username": "alice@shop.example",
            "rh": "0.AXAA",
            "scp": "access_as_user",
            "sub": "HKZpfaHyWadeOouYlitjrI",
            "tid": ENTRA_TENANT,
            "uti": "fqiBqXLPj0eQa82S",
            "ver": "2.0",
        },
        {
            "sub": "HKZpfaHyWadeOouYlitjrI",
            "client_id": ENTRA_CLIENT,
            "scopes": {"access_as_user"},
            "token_id": "fqiBqXLPj0eQa82S",
        },
    ),
    "entra v2 machine": Access(
        "entra",
        ENTRA_API,
        "JWT",
        {
            "aud": ENTRA_API,
            "iss": ENTRA_V2,
            "nbf": IAT,
            "azp": ENTRA_CLIENT,
            "azpacr": "1",
            "idtyp": "app",
            "oid": "b1c2",
            "roles": ["Orders.Sync"],
            "sub": "b1c2",
            "tid": ENTRA_TENANT,
            "uti": "u4",
            "ver": "2.0",
        },
        {"sub": "b1c2", "client_id": ENTRA_CLIENT, "roles": {"Orders.Sync"}, "token_id": "u4"},
    ),
    "keycloak user": Access(
        "keycloak",
        "orders-api",
        "JWT",
        {
            "jti": "onrtac:5d1f",
            "iss": KEYCLOAK,
            "aud": ["orders-api", "account"],
            "sub": "f:1234:alice",
            "typ": "Bearer",
            "azp": "shop-spa",
            "sid": "a9b8",
            "acr": "1",
            "allowed-origins": ["https://shop.example"],
            "realm_access": {"roles": ["offline_access", "seller"]},
            "resource_access": {"orders-api": {"roles": ["manager"]}, "account": {"roles": ["view-profile"]}},
            "scope": "openid email profile",
            "email_verified": True,
            "preferred_username": "alice",
        },
        {
            "sub": "f:1234:alice",
            "client_id": "shop-spa",
            "scopes": {"openid", "email", "profile"},
            "roles": {"offline_access", "seller"},
            "token_id": "onrtac:5d1f",
        },
    ),
    "keycloak machine": Access(
        "keycloak",
        "orders-api",
        "JWT",
        {
            "jti": "trrtcc:77",
            "iss": KEYCLOAK,
            "aud": "orders-api",
            "sub": "0c5e",
            "typ": "Bearer",
            "azp": "sync-job",
            "acr": "1",
            "realm_access": {"roles": ["importer"]},
            "scope": "email profile",
            "clientHost": "203.0.113.9",
            "clientAddress": "203.0.113.9",
            "client_id": "sync-job",
            "preferred_username": "service-account-sync-job",
        },
        {
            "sub": "0c5e",
            "client_id": "sync-job",
            "scopes": {"email", "profile"},
            "roles": {"importer"},
            "token_id": "trrtcc:77",
        },
    ),
    "okta user": Access(
        "okta",
        "api://default",
        ABSENT,
        {
            "ver": 1,
            "jti": "AT.kuH",
            "iss": OKTA,
            "aud": "api://default",
            "cid": "0oabv6kx4qq6h1U5l0h7",
            "uid": "00ujm2i5",
            "scp": ["openid", "orders.read"],
            "auth_time": IAT,
            "sub": "alice@shop.example",
            "groups": ["Everyone", "Sellers"],
        },
        {
            "sub": "alice@shop.example",
            "client_id": "0oabv6kx4qq6h1U5l0h7",
            "scopes": {"openid", "orders.read"},
            "roles": {"Everyone", "Sellers"},
            "token_id": "AT.kuH",
        },
    ),
    "okta machine": Access(
        "okta",
        "api://default",
        ABSENT,
        {
            "ver": 1,
            "jti": "AT.m2m",
            "iss": OKTA,
            "aud": "api://default",
            "cid": "0oam2m",
            "scp": ["orders.sync"],
            "sub": "0oam2m",
        },
        {"sub": "0oam2m", "client_id": "0oam2m", "scopes": {"orders.sync"}, "token_id": "AT.m2m"},
    ),
    "rfc9068 user": Access(
        "rfc9068",
        "https://rs.example.com/",
        "at+jwt",
        {
            "iss": "https://authorization-server.example.com/",
            "sub": "5ba552d67",
            "aud": "https://rs.example.com/",
            "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
            "client_id": "s6BhdRkqt3",
            "scope": "openid profile reademail",
            "roles": ["seller"],
            "groups": ["staff"],
            "entitlements": ["refund"],
        },
        {
            "sub": "5ba552d67",
            "client_id": "s6BhdRkqt3",
            "scopes": {"openid", "profile", "reademail"},
            "roles": {"seller"},
            "permissions": {"refund"},
            "token_id": "dbe39bf3a3ba4238a513f51d6e1691c4",
        },
    ),
    "rfc9068 machine": Access(
        "rfc9068",
        "https://rs.example.com/",
        "application/at+jwt",
        {
            "iss": "https://authorization-server.example.com/",
            "sub": "sync",
            "aud": ["https://rs.example.com/"],
            "jti": "j2",
            "client_id": "sync",
            "scope": "sync",
        },
        {"sub": "sync", "client_id": "sync", "scopes": {"sync"}, "token_id": "j2"},
    ),
}


@pytest.mark.parametrize("access", ACCESS_TOKENS.values(), ids=ACCESS_TOKENS)
def test_an_access_token_names_its_principal(access: Access) -> None:
    """Every field comes from where the provider writes it; what the provider does not write is empty."""
    claims = {**access.claims, **TIMES}
    source = source_for(access.preset, issuer=claims["iss"], audience=access.audience)
    principal = accepted(minted(claims, access.typ), source)
    expected: dict[str, Any] = {"client_id": None, "scopes": (), "roles": (), "permissions": (), **access.named}
    for name in ("scopes", "roles", "permissions"):
        expected[name] = frozenset(expected[name])
    if "token_id" not in expected:
        assert re.fullmatch("sha256:[0-9a-f]{16}", str(principal.token_id))
        expected["token_id"] = principal.token_id
    assert principal == Principal(
        issuer=claims["iss"],
        expires_at=float(EXP),
        claims=cast("Mapping[str, object]", unchangeable(claims)),
        **expected,
    )


def test_a_preset_in_a_mapping_is_the_same_preset() -> None:
    """`{"preset": name}` alone changes nothing."""
    for access in ACCESS_TOKENS.values():
        if access.preset is not None:
            claims = {**access.claims, **TIMES}
            options: Any = {"issuer": claims["iss"], "audience": access.audience}
            text = minted(claims, access.typ)
            in_mapping = accepted(text, source_for({"preset": access.preset}, **options))
            assert in_mapping == accepted(text, source_for(access.preset, **options))


# Other tokens of the same providers


class Other(NamedTuple):
    """A token of a provider that is no access token, and what the log is to say of it."""

    preset: str
    typ: object
    claims: Claims
    kind: str


OTHER_TOKENS: Final = {
    "auth0 ID token": Other(
        "auth0",
        "JWT",
        {"iss": AUTH0, "aud": "y9xQ", "sub": "auth0|65f1", "sid": "s1", "nonce": "n-0S6", "email": "a@shop.example"},
        "ID token",
    ),
    "auth0 logout token": Other(
        "auth0",
        "logout+jwt",
        {
            "iss": AUTH0,
            "aud": "y9xQ",
            "sub": "auth0|65f1",
            "jti": "j",
            "sid": "s1",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        },
        "logout",
    ),
    "cognito ID token": Other(
        "cognito",
        ABSENT,
        {
            "iss": COGNITO,
            "aud": "3n4b",
            "sub": "aaaaaaaa",
            "cognito:groups": ["admins"],
            "cognito:username": "alice",
            "token_use": "id",
            "at_hash": "9sX",
            "nonce": "n",
            "jti": "j",
        },
        "token_use is 'id'",
    ),
    "entra v2 ID token": Other(
        "entra",
        "JWT",
        {"iss": ENTRA_V2, "aud": ENTRA_CLIENT, "sub": "HKZ", "nonce": "n", "oid": "o", "uti": "u", "roles": ["Admin"]},
        "no azp or appid or scp",
    ),
    "entra ID token without nonce": Other(
        "entra",
        "JWT",
        {"iss": ENTRA_V1, "aud": ENTRA_CLIENT, "sub": "HKZ", "oid": "o", "uti": "u", "ver": "1.0"},
        "no azp or appid or scp",
    ),
    "keycloak ID token": Other(
        "keycloak",
        "JWT",
        {
            "iss": KEYCLOAK,
            "aud": "shop-spa",
            "azp": "shop-spa",
            "sub": "f:1",
            "typ": "ID",
            "at_hash": "x",
            "realm_access": {"roles": ["admin"]},
        },
        "claim typ is 'ID'",
    ),
    "keycloak refresh token": Other(
        "keycloak",
        "JWT",
        {"iss": KEYCLOAK, "aud": KEYCLOAK, "azp": "shop-spa", "sub": "f:1", "typ": "Refresh", "scope": "openid"},
        "claim typ is 'Refresh'",
    ),
    "keycloak offline token": Other(
        "keycloak",
        "JWT",
        {"iss": KEYCLOAK, "aud": KEYCLOAK, "azp": "shop-spa", "sub": "f:1", "typ": "Offline", "scope": "openid"},
        "claim typ is 'Offline'",
    ),
    "keycloak logout token": Other(
        "keycloak",
        "JWT",
        {
            "iss": KEYCLOAK,
            "aud": "shop-spa",
            "sub": "f:1",
            "typ": "Logout",
            "sid": "s",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        },
        "claim typ is 'Logout'",
    ),
    "okta ID token": Other(
        "okta",
        ABSENT,
        {"iss": OKTA, "aud": "0oa", "sub": "00u", "ver": 1, "amr": ["pwd"], "at_hash": "h", "groups": ["Admins"]},
        "no cid",
    ),
    "rfc9068 ID token": Other(
        "rfc9068",
        "JWT",
        {"iss": ISSUER, "aud": "s6B", "sub": "5ba", "nonce": "n", "jti": "j", "client_id": "s6B"},
        "typ is 'JWT'",
    ),
    "rfc9068 token without typ": Other(
        "rfc9068", ABSENT, {"iss": ISSUER, "aud": "s6B", "sub": "5ba", "jti": "j", "client_id": "s6B"}, "no typ"
    ),
}


@pytest.mark.parametrize("other", OTHER_TOKENS.values(), ids=OTHER_TOKENS)
def test_another_kind_of_token_is_no_access_token(other: Other) -> None:
    """Where a service takes its client's id as audience, an ID token would pass as an access token (RFC 8725, 2.8)."""
    claims = {**other.claims, **TIMES}
    source = source_for(other.preset, issuer=claims["iss"], audience=claims["aud"])
    answer = refused(minted(claims, other.typ), source)
    assert answer.reason is Reason.WRONG_TOKEN_TYPE
    hint = str(answer.hint)
    assert other.kind in hint or "send the access token" in hint or "logout" in hint


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("auth0 ID token", "it is an ID token"),
        ("auth0 logout token", "it is a logout or security event token"),
        ("cognito ID token", "its token_use is 'id'"),
        ("entra v2 ID token", "it is an ID token"),
        ("keycloak ID token", "its claim typ is 'ID'"),
        ("keycloak refresh token", "its claim typ is 'Refresh'"),
        ("keycloak offline token", "its claim typ is 'Offline'"),
        ("keycloak logout token", "its claim typ is 'Logout'"),
        ("okta ID token", "it is an ID token"),
        ("rfc9068 ID token", "it is an ID token"),
    ],
)
def test_another_kind_for_another_audience_is_told_as_both(name: str, kind: str) -> None:
    """An ID token is for the client: the hint says whom it is for and what it is, so that nobody loosens aud."""
    other = OTHER_TOKENS[name]
    claims = {**other.claims, **TIMES}
    answer = refused(minted(claims, other.typ), source_for(other.preset, issuer=claims["iss"]))
    assert answer.reason is Reason.WRONG_AUDIENCE
    name = "aud or client_id" if other.preset == "cognito" else "aud"
    assert f"the token says {name} {[claims['aud']]!r} and this service is ['orders-api']; {kind}" in str(answer.hint)


def test_a_keycloak_refresh_token_under_its_realms_secret_is_told_too() -> None:
    """Keycloak signs these by HS512, which is refused before any claim is believed; the hint still says what it is."""
    claims = {"iss": KEYCLOAK, "aud": KEYCLOAK, "sub": "f:1", "typ": "Refresh", **TIMES}
    text = signed({"alg": "HS512", "typ": "JWT", "kid": "k2"}, claims, algorithm="HS512")
    answer = refused(text, source_for("keycloak", issuer=KEYCLOAK))
    assert answer.reason is Reason.INVALID_TOKEN
    assert "its claim typ is 'Refresh'" in str(answer.hint)


# A minimal token of each preset, changed one claim at a time

MINIMAL: Final[dict[str | None, Claims]] = {
    None: {},
    "auth0": {"azp": "c"},
    "cognito": {"token_use": "access"},
    "entra": {"scp": "a"},
    "keycloak": {},
    "okta": {"cid": "c"},
    "rfc9068": {"client_id": "c", "iat": IAT, "jti": "j"},
}
MARKS: Final = [
    ("auth0", ["azp"]),
    ("cognito", ["token_use"]),
    ("entra", ["scp"]),
    ("okta", ["cid"]),
    ("rfc9068", ["sub"]),
    ("rfc9068", ["client_id"]),
    ("rfc9068", ["iat"]),
    ("rfc9068", ["jti"]),
]


def minimal(preset: str | None, **claims: object) -> str:
    """Return the least that a preset accepts, changed by `claims`."""
    return token(**{**MINIMAL[preset], **claims})


@pytest.mark.parametrize("preset", MINIMAL)
def test_the_least_token_of_a_preset_is_accepted(preset: str | None) -> None:
    """What the tables below change is good as it stands."""
    assert accepted(minimal(preset), source_for(preset)).sub == "alice"


@pytest.mark.parametrize(("preset", "names"), MARKS, ids=str)
@pytest.mark.parametrize("value", [ABSENT, None], ids=["missing", "null"])
def test_a_token_without_the_marks_of_its_provider_is_refused(preset: str, names: list[str], value: object) -> None:
    """What every access token of a provider has, a token needs; null is as good as nothing."""
    answer = refused(minimal(preset, **dict.fromkeys(names, value)), source_for(preset))
    assert answer.reason in {Reason.WRONG_TOKEN_TYPE, Reason.INVALID_TOKEN}
    if (names, value) != (["iat"], None):  # a null iat is no number of seconds
        assert answer.reason is Reason.WRONG_TOKEN_TYPE
    assert names[0] in str(answer.hint)


def test_one_mark_of_a_group_is_enough() -> None:
    """Tokens of Entra ID say azp (v2), appid (v1) or, for a user, scp."""
    for name in ("azp", "appid", "scp"):
        mark: Claims = {name: "x"}
        accepted(token(**mark), source_for("entra"))


# Shapes

NOT_TEXT: Final[list[object]] = [0, 5, 1.5, True, False, [], ["x"], {}, {"x": "y"}]
NOT_SCOPES: Final[list[object]] = [0, 5, True, False, {}, {"a": True}, ["a", 5], [["a"]], [None], ["a", None], [True]]
NOT_A_LIST: Final[list[object]] = ["admin", "", "admin seller", *NOT_SCOPES]
LISTS: Final[list[object]] = [[], ["a"], ["a", "b"]]


class Read(NamedTuple):
    """A claim that a preset reads, and the shapes that it cannot have."""

    preset: str | None
    path: str
    wrong: list[object]


READ: Final = [
    *(
        Read(preset, name, NOT_TEXT)
        for preset, names in (
            (None, ("sub", "client_id", "azp", "jti")),
            ("auth0", ("sub", "client_id", "azp", "jti")),
            ("cognito", ("sub", "client_id", "jti")),
            ("entra", ("sub", "azp", "appid", "uti")),
            ("keycloak", ("sub", "client_id", "azp", "jti")),
            ("okta", ("sub", "cid", "jti")),
            ("rfc9068", ("sub", "client_id", "jti")),
        )
        for name in names
    ),
    *(Read(preset, "scope", NOT_SCOPES + LISTS) for preset in (None, "auth0", "cognito", "keycloak", "rfc9068")),
    *(Read(preset, "scp", NOT_SCOPES) for preset in (None, "entra", "okta")),
    *(
        Read(preset, name, NOT_A_LIST)
        for preset, names in (
            (None, ("roles", "permissions")),
            ("auth0", ("permissions",)),
            ("cognito", ("cognito:groups", "permissions")),
            ("entra", ("roles", "permissions")),
            ("keycloak", ("realm_access.roles", "permissions")),
            ("okta", ("groups", "permissions")),
            ("rfc9068", ("roles", "entitlements")),
        )
        for name in names
    ),
    Read("keycloak", "realm_access", ["roles", 5, True, [], ["roles"]]),
]


def at(path: str, value: object) -> Claims:
    """Return the claims that hold a value at a dotted path."""
    first, dot, rest = path.partition(".")
    return {first: at(rest, value) if dot else value}


@pytest.mark.parametrize("read", READ, ids=[f"{read.preset} {read.path}" for read in READ])
def test_a_claim_of_the_wrong_shape_refuses_the_whole_token(read: Read) -> None:
    """Never a grant in part: neither `["admin", 5]` nor a string for a list says admin. The hint names the claim."""
    source = source_for(read.preset)
    for wrong in read.wrong:
        first: Claims = {"azp": ABSENT} if (read.preset, read.path) == ("auth0", "client_id") else {}
        answer = refused(minimal(read.preset, **first, **at(read.path, wrong)), source)
        assert answer.reason is Reason.INVALID_TOKEN, wrong
        assert f"its {read.path}" in str(answer.hint)


OPTIONAL: Final = [
    (read.preset, read.path)
    for read in READ
    if read.path != "sub" and (read.preset, [read.path.partition(".")[0]]) not in MARKS
]


@pytest.mark.parametrize(("preset", "path"), OPTIONAL, ids=str)
def test_a_claim_that_is_null_or_missing_gives_nothing(preset: str | None, path: str) -> None:
    """Nothing is granted for it, and it costs nothing."""
    source = source_for(preset)
    missing = accepted(minimal(preset, **{path.partition(".")[0]: ABSENT}), source)
    null = accepted(minimal(preset, **at(path, None)), source)
    for principal in (missing, null):
        assert (principal.sub, principal.roles, principal.permissions) == ("alice", frozenset(), frozenset())
        assert principal.scopes == ({"a"} if preset == "entra" else frozenset())
        assert principal.token_id == "j" or str(principal.token_id).startswith("sha256:")


@pytest.mark.parametrize("sub", [ABSENT, None, ""], ids=["missing", "null", "empty"])
def test_a_client_stands_in_for_a_missing_subject(sub: object) -> None:
    """A machine's token may name the client alone, where no preset says that its provider always writes a subject."""
    principal = accepted(minimal(None, sub=sub, client_id="sync"), source_for(None))
    assert (principal.sub, principal.client_id) == ("sync", "sync")
    answer = refused(minimal(None, sub=sub), source_for(None))
    assert (answer.reason, answer.hint) == (Reason.INVALID_TOKEN, "it has neither sub nor client_id")


@pytest.mark.parametrize("preset", [preset for preset in MINIMAL if preset is not None])
@pytest.mark.parametrize("sub", [ABSENT, None, ""], ids=["missing", "null", "empty"])
def test_a_client_stands_in_for_no_user_of_a_known_provider(preset: str, sub: object) -> None:
    """Providers that always write a subject leave it out by a misconfiguration: all users would be one caller."""
    client = {"auth0": "azp", "entra": "azp", "keycloak": "azp", "okta": "cid"}.get(preset, "client_id")
    answer = refused(minimal(preset, **{"sub": sub, client: "webapp"}), source_for(preset))
    assert answer.reason is Reason.WRONG_TOKEN_TYPE
    assert "it has no sub" in str(answer.hint)


def test_a_client_stands_in_for_no_user_whose_name_is_elsewhere() -> None:
    """A user's token without the claim that was to name the user is nobody's, and not its client's."""
    source = source_for(None, claims={"sub": "oid"})
    answer = refused(minimal(None, sub="alice", client_id="spa"), source)
    assert answer.reason is Reason.INVALID_TOKEN
    assert answer.hint == "it has a sub, and not the claim that is configured for it"
    for sub in ("spa", "", ABSENT):
        assert accepted(minimal(None, sub=sub, client_id="spa"), source).sub == "spa"


@pytest.mark.parametrize(
    "kind", ["InitialAccessToken", "refresh", "verify-email", "bearer", "", 5, ["Bearer"]], ids=repr
)
def test_only_what_keycloak_calls_bearer_is_its_access_token(kind: object) -> None:
    """Keycloak writes the kind of each of its tokens into the claim typ, whatever the header says."""
    for typ in ("JWT", "at+jwt"):
        text = token(header={"typ": typ}, **{**MINIMAL["keycloak"], "typ": kind})
        assert refused(text, source_for("keycloak")).reason is Reason.WRONG_TOKEN_TYPE
    for good in ("Bearer", "DPoP", ABSENT, None):
        assert accepted(minimal("keycloak", typ=good), source_for("keycloak")).sub == "alice"


@pytest.mark.parametrize(
    ("preset", "first", "second"),
    [
        (None, "client_id", "azp"),
        ("auth0", "azp", "client_id"),
        ("entra", "azp", "appid"),
        ("keycloak", "azp", "client_id"),
    ],
)
def test_of_several_places_the_first_that_is_there_counts(preset: str | None, first: str, second: str) -> None:
    """Both there: the first. The first null or missing: the second. The first of a wrong shape: no token."""
    source = source_for(preset)
    assert accepted(minimal(preset, **{first: "one", second: "two"}), source).client_id == "one"
    assert accepted(minimal(preset, **{first: None, second: "two"}), source).client_id == "two"
    assert accepted(minimal(preset, **{first: ABSENT, second: "two"}), source).client_id == "two"
    assert refused(minimal(preset, **{first: 5, second: "two"}), source).reason is Reason.INVALID_TOKEN


@pytest.mark.parametrize("preset", MINIMAL)
def test_what_a_preset_does_not_read_grants_nothing(preset: str | None) -> None:
    """Claims of other providers, some of which users write themselves, are no roles here, whatever shape they have."""
    source = source_for(preset)
    read = {name.partition(".")[0] for at_preset, name, _ in READ if at_preset == preset}
    elsewhere: Claims = {
        "scope": "admin",
        "scp": ["admin"],
        "scopes": ["admin"],
        "roles": ["admin"],
        "role": "admin",
        "groups": ["admin"],
        "cognito:groups": ["admin"],
        "realm_access": {"roles": ["admin"]},
        "resource_access": {"orders-api": {"roles": ["admin"]}},
        "realm_access.roles": ["admin"],
        "permissions": ["admin"],
        "entitlements": ["admin"],
        "authorities": ["admin"],
        "https://shop.example/roles": ["admin"],
    }
    others = {name: value for name, value in elsewhere.items() if name not in read}
    for claims in (others, dict.fromkeys(others, 5)):
        principal = accepted(minimal(preset, **claims), source)
        assert "admin" not in principal.scopes | principal.roles | principal.permissions


# Whom a token is for


def test_a_cognito_token_is_for_the_client_that_it_names() -> None:
    """Without resource binding, client_id stands for aud; another client's token is not ours."""
    source = source_for("cognito", audience=["web", "mobile"])
    for client in ("web", "mobile"):
        assert accepted(minimal("cognito", aud=ABSENT, client_id=client), source).client_id == client
    answer = refused(minimal("cognito", aud=ABSENT, client_id="somebody-elses"), source)
    assert answer.reason is Reason.WRONG_AUDIENCE
    assert answer.hint == "the token says aud or client_id ['somebody-elses'] and this service is ['mobile', 'web']"


def test_a_cognito_token_that_has_an_aud_is_for_that() -> None:
    """With resource binding, a client's token for another resource is not ours although the client is known."""
    source = source_for("cognito", audience=["web", "https://api.shop.example"])
    accepted(minimal("cognito", aud="https://api.shop.example", client_id="other"), source)
    answer = refused(minimal("cognito", aud="https://billing.shop.example", client_id="web"), source)
    assert answer.reason is Reason.WRONG_AUDIENCE
    assert refused(minimal("cognito", aud=[], client_id="web"), source).reason is Reason.WRONG_AUDIENCE


@pytest.mark.parametrize("client_id", [ABSENT, None, 5, True, {}, ["web", 5]], ids=str)
def test_a_cognito_token_for_nobody_is_refused(client_id: object) -> None:
    """Neither aud nor client_id in a usable shape: whom it is for is not known."""
    answer = refused(minimal("cognito", aud=ABSENT, client_id=client_id), source_for("cognito", audience="web"))
    assert answer.reason is Reason.INVALID_TOKEN


@pytest.mark.parametrize("preset", [preset for preset in MINIMAL if preset not in ("cognito", "rfc9068")])
def test_a_client_is_no_audience_elsewhere(preset: str | None) -> None:
    """Only for Cognito does client_id say whom a token is for."""
    named: Claims = {"aud": ABSENT, "client_id": AUDIENCE, "azp": AUDIENCE, "cid": AUDIENCE, "appid": AUDIENCE}
    assert refused(minimal(preset, **named), source_for(preset)).reason is Reason.INVALID_TOKEN


# Places of one's own

PLACES: Final[dict[str, tuple[object, object]]] = {
    "sub": ("bob", "bob"),
    "client_id": ("kiosk", "kiosk"),
    "scopes": ("x y", {"x", "y"}),
    "roles": (["x"], {"x"}),
    "permissions": (["x"], {"x"}),
    "token_id": ("t", "t"),
}
NAMESPACED: Final = "https://shop.example/it"


@pytest.mark.parametrize("preset", MINIMAL)
@pytest.mark.parametrize("field", PLACES)
@pytest.mark.parametrize("place", [NAMESPACED, ["ext", "deep", "it"]], ids=["a name", "a path"])
def test_each_field_may_stand_elsewhere(preset: str | None, field: str, place: str | list[str]) -> None:
    """A name (dots and all) or a path, beside a preset or without: read there, and nowhere else."""
    value, expected = PLACES[field]
    claims: Claims = {field: place} if preset is None else {"preset": preset, field: place}
    source = tokens(claims=claims)
    there: Claims = {NAMESPACED: value} if isinstance(place, str) else {"ext": {"deep": {"it": value}}}
    usual: Claims = {"azp": "usual", "client_id": "usual", "cid": "usual", "jti": "usual", "uti": "usual"}
    # A role under its usual name has to be ignored, whatever its shape, where the field stands elsewhere.
    ignored: Claims = {
        "scopes": {"scope": 5, "scp": 5},
        "roles": {"roles": 5, "groups": 5, "cognito:groups": 5, "realm_access": 5},
        "permissions": {"permissions": 5, "entitlements": 5},
    }.get(field, {})
    principal = accepted(minimal(preset, **{**usual, **there, **ignored}), source)
    assert getattr(principal, field) == expected
    if field != "client_id":
        assert principal.client_id == "usual"
    if field != "token_id":
        assert principal.token_id == "usual"
    if field == "sub":
        assert refused(minimal(preset, **usual), source).reason is Reason.INVALID_TOKEN
        return
    empty = accepted(minimal(preset, **{**usual, **ignored}), source)
    if field == "token_id":
        assert str(empty.token_id).startswith("sha256:")
    else:
        assert not getattr(empty, field)


@pytest.mark.parametrize("preset", MINIMAL)
@pytest.mark.parametrize("place", [NAMESPACED, ["ext", "it"]], ids=["a name", "a path"])
def test_the_audience_may_stand_elsewhere(preset: str | None, place: str | list[str]) -> None:
    """What is read there decides, and aud does not."""
    source = tokens(claims={"audience": place} if preset is None else {"preset": preset, "audience": place})
    accepted(minimal(preset, **_placed(place, [AUDIENCE]), aud="elsewhere"), source)
    accepted(minimal(preset, **_placed(place, AUDIENCE), aud=ABSENT), source)
    assert refused(minimal(preset, **_placed(place, "billing")), source).reason is Reason.WRONG_AUDIENCE
    wrongs: list[object] = [5, None, {}, [5]]
    for wrong in wrongs:
        assert refused(minimal(preset, **_placed(place, wrong)), source).reason is Reason.INVALID_TOKEN
    assert refused(minimal(preset, ext=5), source).reason is Reason.INVALID_TOKEN


def _placed(place: str | list[str], value: object) -> Claims:
    return {place: value} if isinstance(place, str) else {"ext": {"it": value}}


def test_scopes_elsewhere_are_a_string_or_a_list() -> None:
    """As in scp; only `scope` itself is a string alone (RFC 8693 section 4.2)."""
    for place in (["ext", "scope"], NAMESPACED):
        source = tokens(claims={"scopes": place})
        there = {NAMESPACED: "a b"} if isinstance(place, str) else {"ext": {"scope": "a b"}}
        assert accepted(token(**there), source).scopes == {"a", "b"}
        listed = {NAMESPACED: ["a", "b c"]} if isinstance(place, str) else {"ext": {"scope": ["a", "b c"]}}
        assert accepted(token(**listed), source).scopes == {"a", "b c"}
    assert refused(token(scope=["a"]), tokens(claims={"scopes": "scope"})).reason is Reason.INVALID_TOKEN


def test_a_preset_stays_strict_when_it_is_changed() -> None:
    """Roles read elsewhere do not loosen what kind of token is accepted."""
    source = tokens(claims={"preset": "rfc9068", "roles": "groups"})
    text = minimal("rfc9068", groups=["x"])
    assert accepted(text, source).roles == {"x"}
    for typ in ("JWT", ABSENT):
        loose = minimal("rfc9068", header={"typ": typ})
        assert refused(loose, source).reason is Reason.WRONG_TOKEN_TYPE
    assert refused(token(groups=["x"]), tokens(claims={"preset": "okta", "roles": "g"})).reason == "wrong_token_type"


# The claims of a principal

TOLD: Final[Claims] = {
    "sub": "alice",
    "address": {"city": "K\u00f6ln", "lines": ["a", {"b": [1, 2.5, None, True]}]},
    "tags": [],
    "nothing": None,
}


def test_claims_are_a_mapping_like_any_other() -> None:
    """Reading, length, order, membership, default, equality and repr are those of a dict."""
    claims: Any = TokenClaims(json.dumps(TOLD).encode())
    assert claims == unchangeable(TOLD)
    assert unchangeable(TOLD) == claims
    assert claims == TokenClaims(json.dumps(TOLD, indent=1).encode())
    assert claims != {**TOLD, "sub": "bob"}
    assert list(claims) == list(claims.keys()) == list(TOLD)
    assert len(claims) == 4
    assert "nothing" in claims
    assert "missing" not in claims
    assert claims.get("missing", "x") == "x"
    assert claims["address"]["city"] == "K\u00f6ln"
    assert claims != 5
    assert 5 not in claims
    assert dict(claims.items())["tags"] == ()
    assert repr(TokenClaims(b'{"a": "b", "n": 1}')) == "{'a': 'b', 'n': 1}"
    assert not TokenClaims(b"{}")
    with pytest.raises(KeyError):
        claims["missing"]


def test_claims_are_read_only_all_the_way_down() -> None:
    """What one handler could write would be in every other request of the same caller."""
    claims: Any = TokenClaims(json.dumps(TOLD).encode())
    for mapping in (claims, claims["address"], claims["address"]["lines"][1]):
        with pytest.raises(TypeError):
            mapping["x"] = 1
        with pytest.raises(TypeError):
            del mapping["x"]
        for method in ("update", "pop", "clear", "setdefault"):
            assert not hasattr(mapping, method)
    assert isinstance(claims["address"]["lines"], tuple)
    assert claims["address"]["lines"][1]["b"] == (1, 2.5, None, True)
    with pytest.raises(AttributeError):
        claims.extra = 1
    with pytest.raises(TypeError):
        hash(claims)


def test_claims_are_read_when_they_are_asked_for() -> None:
    """Making them costs nothing: that bytes are no JSON shows when somebody asks."""
    claims = TokenClaims(b"not JSON")
    with pytest.raises(ValueError, match="Expecting value"):
        len(claims)


def test_claims_are_the_same_whenever_they_are_asked_for() -> None:
    """However many others were read in between, and of whichever token."""
    mine = TokenClaims(b'{"sub":"alice","n":0}')
    assert mine["sub"] == "alice"
    others = [TokenClaims(b'{"sub":"u%d","n":%d}' % (number, number)) for number in range(1_500)]
    assert [claims["n"] for claims in others] == list(range(1_500))
    assert (mine["sub"], mine["n"], others[3]["sub"]) == ("alice", 0, "u3")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301 - our own bytes
def test_a_principal_can_be_copied_and_pickled(copied: Any) -> None:  # noqa: ANN401 - a table of functions
    """A task queue takes it along: the copy is equal, claims and all."""
    principal = accepted(token(scope="a b", roles=["x"], address={"lines": ["a"]}))
    again = copied(principal)
    assert again == principal
    assert again.claims["address"]["lines"] == ("a",)
    assert again.credentials.scopes == ("authenticated", "a", "b")


# Depth


def nested(opening: str, closing: str, levels: int, inside: str = "1") -> str:
    """Return a token whose claim `x` nests so many levels, in the claims' object, which is one more."""
    claims = json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": EXP})
    return signed({"alg": "ES256"}, f'{claims[:-1]}, "x": {opening * levels}{inside}{closing * levels}}}'.encode())


@pytest.mark.parametrize("inside", ["1", '""', "null", "false"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"])
def test_claims_nest_32_levels_and_no_deeper(opening: str, closing: str, inside: str) -> None:
    """The claims' object and 31 levels in it are read; one more, and the token is refused."""
    claims: Any = accepted(nested(opening, closing, 31, inside)).claims
    value = claims["x"]
    for _ in range(31):
        value = value["a"] if isinstance(value, Mapping) else value[0]
    assert value == json.loads(inside)
    for levels in (32, 33, 100):
        answer = refused(nested(opening, closing, levels, inside))
        assert answer.reason is Reason.INVALID_TOKEN
        assert answer.hint is not None
        assert "too deep" in answer.hint


@pytest.mark.parametrize(("inside", "levels"), [("[]", 30), ("{}", 30), ("[1]", 30), ("[{}]", 29), ('{"a":[]}', 29)])
def test_an_empty_level_is_a_level(inside: str, levels: int) -> None:
    """Depth is that of objects and arrays, whether there is something in the innermost or not."""
    accepted(nested("[", "]", levels, inside))
    assert refused(nested("[", "]", levels + 1, inside)).reason is Reason.INVALID_TOKEN


def test_width_is_not_depth() -> None:
    """Many brackets side by side, or in strings, are no nesting."""
    wide = [[number] for number in range(200)]
    named: Claims = {"[{" * 80: 1}
    principal = accepted(token(x=wide, y={str(number): {} for number in range(100)}, z="[{" * 500, **named))
    assert principal.claims["x"] == tuple((number,) for number in range(200))
    assert principal.claims["z"] == "[{" * 500


# Laws

ANY_JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["a b", "admin", "\ud800", "", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES: Final = sorted({read.path.partition(".")[0] for read in READ} | {"token_use", "typ", "nonce", "events", "aud"})
SOURCES: Final = {preset: source_for(preset) for preset in MINIMAL}


def strings_in(value: object) -> set[str]:
    """Return every string that stands in a JSON value, and its words; names of objects are none of them."""
    if isinstance(value, str):
        return {value, *value.split(" ")}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*(strings_in(one) for one in inner))


@given(
    preset=st.sampled_from(list(MINIMAL)),
    claims=st.dictionaries(st.sampled_from(NAMES), ANY_JSON | st.dictionaries(st.just("roles"), ANY_JSON), max_size=4),
    typ=st.sampled_from(["at+jwt", "JWT"]),
)
def test_any_claims_are_refused_or_grant_what_stands_in_them(preset: str | None, claims: Claims, typ: str) -> None:
    """Whatever JSON stands where claims are read: nothing raises, and nothing is granted that is not said."""
    text = minimal(preset, **claims, header={"typ": typ})
    said = {**MINIMAL[preset], "sub": "alice", **claims}
    try:
        signed_token = read_token(text)
    except TokenRefused:
        return
    answer = SOURCES[preset].verify(text, signed_token, NOW)
    if isinstance(answer, Rejected):
        assert answer.reason.status == 401
        return
    assert isinstance(answer, Verified)
    principal = answer.principal
    everything = strings_in(said)
    assert principal.sub in everything - {""}
    assert principal.client_id is None or principal.client_id in everything
    assert principal.token_id in everything or str(principal.token_id).startswith("sha256:")
    assert principal.scopes <= strings_in([said.get("scope"), said.get("scp")])
    assert principal.roles <= strings_in([said.get(name) for name in ("roles", "groups", "cognito:groups")]) | (
        strings_in(said.get("realm_access"))
    )
    assert principal.permissions <= strings_in([said.get("permissions"), said.get("entitlements")])
    assert principal.claims == cast("Mapping[str, object]", unchangeable(signed_token.claims))


def test_a_fingerprint_is_of_what_was_signed() -> None:
    """A signature may have a second form that is as good: who revokes a token without jti revokes that, too."""
    one, other = token(jti=ABSENT), token(jti=ABSENT)
    assert one != other, "ES256 signs by chance"
    assert accepted(one).token_id == accepted(other).token_id
    assert accepted(token(jti=ABSENT, sub="bob")).token_id != accepted(one).token_id
