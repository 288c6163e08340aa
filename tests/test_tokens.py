import base64
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from authz403 import BearerTokens, ConfigurationError, Reason
from authz403.facts import Rejected
from authz403.fetch import Document, FetchFailed
from authz403.jose import SignedToken, TokenRefused, read_token
from authz403.keys import FetchedKeys
from authz403.need import Need
from authz403.principal import Principal
from authz403.tokens import Verified
from tests.tokens_judged import accepted, judged, refused
from tests.tokens_made import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    NOW,
    PUBLIC_KEY_ALGORITHMS,
    SECRET,
    SECRET_ALGORITHMS,
    base64url,
    claims_of,
    ec_key,
    jwks,
    key_for,
    private_pem,
    public_jwk,
    public_pem,
    rsa_key,
    secret_jwk,
    signed,
    token,
    tokens,
)

# Signature and algorithm


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
@pytest.mark.parametrize("form", ["PEM", "JWK", "key set"])
def test_every_public_key_algorithm_is_accepted_without_configuration(algorithm: str, form: str) -> None:
    """The key says which algorithms are meant."""
    forms: dict[str, dict[str, Any]] = {
        "PEM": {"key": public_pem(algorithm)},
        "JWK": {"key": public_jwk(algorithm)},
        "key set": {"jwks": jwks(public_jwk("ES256" if algorithm != "ES256" else "RS256"), public_jwk(algorithm))},
    }
    options = forms[form]
    assert accepted(token(algorithm=algorithm), tokens(**options)).sub == "alice"
    assert refused(token(algorithm=algorithm, key=key_for(algorithm, 1)), tokens(**options))[0] == "invalid_token"


@pytest.mark.parametrize("algorithm", SECRET_ALGORITHMS)
def test_a_secret_works_where_its_algorithm_is_named(algorithm: str) -> None:
    """HMAC is by configuration alone."""
    for key in (SECRET, SECRET.decode(), secret_jwk()):
        assert accepted(token(algorithm=algorithm), tokens(key=key, algorithms=[algorithm])).sub == "alice"
    others = [other for other in SECRET_ALGORITHMS if other != algorithm]
    assert refused(token(algorithm=algorithm), tokens(key=SECRET, algorithms=others)).reason is Reason.INVALID_TOKEN


def test_configuration_narrows_what_the_key_allows() -> None:
    """Of the algorithms that a key allows, only those that are named are accepted."""
    source = tokens(key=public_pem("RS256"), algorithms=["PS256", "PS512"])
    accepted(token(algorithm="PS256"), source)
    accepted(token(algorithm="PS512"), source)
    answer = refused(token(algorithm="RS256"), source)
    assert answer.reason is Reason.INVALID_TOKEN
    assert answer.hint == "its algorithm RS256 is not allowed"
    assert source.algorithms == ("PS256", "PS512")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("form", ["pem", "der", "ssh", "jwk"])
def test_a_public_key_is_no_secret(algorithm: str, form: str) -> None:
    """A token under HMAC with the public key is refused (CVE-2016-10555, CVE-2022-29217)."""
    public = key_for(algorithm).public_key()
    secret = {
        "pem": public_pem(algorithm),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "ssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "jwk": json.dumps(public_jwk(algorithm)).encode(),
    }[form]
    for hmac in SECRET_ALGORITHMS:
        answer = refused(token(algorithm=hmac, key=secret), tokens(key=public_pem(algorithm)))
        assert answer.reason is Reason.INVALID_TOKEN


def test_keys_that_a_token_brings_along_cause_no_request() -> None:
    """jwk, jku, x5u and x5c are not looked at (CVE-2018-0114): one fetch, of the configured URL."""
    asked: list[str] = []

    def fetch(url: str) -> object:
        asked.append(url)
        return jwks(public_jwk(kid="k1"))

    source = source_that_fetches(fetch)
    mine = ec_key(nth=9)
    for header in (
        {"jwk": public_jwk(mine)},
        {"jku": "https://attacker.example/jwks"},
        {"x5u": "https://attacker.example/x5u"},
        {"x5c": [base64url(b"certificate")]},
    ):
        assert refused(token(key=mine, header={"kid": "k1", **header}), source).reason is Reason.INVALID_TOKEN
        assert accepted(token(header={"kid": "k1", **header}), source).sub == "alice"
    assert asked == ["https://id.example/jwks"]


def source_that_fetches(fetch: Callable[[str], object]) -> BearerTokens:
    """Return a source whose keys come from `fetch(url)`, which gives the content of a document."""
    source = tokens(jwks_url="https://id.example/jwks")
    keys = FetchedKeys(
        issuer=source.issuer, jwks_url=source.jwks_url, fetch=lambda url: Document(fetch(url), max_age=None)
    )
    object.__setattr__(source, "keys", keys)
    return source


def test_an_unknown_key_is_told_from_a_bad_signature_in_the_log_alone() -> None:
    """Both are invalid_token; the hint tells an operator which."""
    source = tokens(key=public_jwk(kid="k1"))
    unknown = refused(token(header={"kid": "k2"}), source)
    forged = refused(token(header={"kid": "k1"}, key=ec_key(nth=3)), source)
    assert unknown.reason is forged.reason is Reason.INVALID_TOKEN
    assert unknown.hint == "it is signed by a key that is not known here"
    assert forged.hint == "its signature is not that of the key it names"


def test_a_token_with_the_right_signature_of_no_known_kid_is_refused() -> None:
    """The key that is tried only for time's sake proves nothing."""
    source = tokens(key=public_jwk(kid="k1"))
    accepted(token(header={"kid": "k1"}), source)
    assert refused(token(header={"kid": "k2"}), source).reason is Reason.INVALID_TOKEN


def test_a_token_without_kid_is_tried_with_every_key() -> None:
    """Some issuers name no key."""
    source = tokens(jwks=jwks(public_jwk("RS256", kid="a"), public_jwk("ES256", kid="b")))
    assert accepted(token(), source).sub == "alice"


# Registered claims


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://id.example/"}, "wrong_issuer"),
        ({"iss": "https://ID.example"}, "wrong_issuer"),
        ({"iss": "https://attacker.example"}, "wrong_issuer"),
        ({"iss": ""}, "wrong_issuer"),
        ({"iss": ABSENT}, "invalid_token"),
        ({"iss": None}, "invalid_token"),
        ({"iss": [ISSUER]}, "invalid_token"),
        ({"iss": {ISSUER: 1}}, "invalid_token"),
        ({"iss": 5}, "invalid_token"),
        ({"aud": "billing-api"}, "wrong_audience"),
        ({"aud": "Orders-api"}, "wrong_audience"),
        ({"aud": "orders-api "}, "wrong_audience"),
        ({"aud": "orders"}, "wrong_audience"),
        ({"aud": "orders-api billing-api"}, "wrong_audience"),
        ({"aud": ["billing-api"]}, "wrong_audience"),
        ({"aud": []}, "wrong_audience"),
        ({"aud": ""}, "wrong_audience"),
        ({"aud": ABSENT}, "invalid_token"),
        ({"aud": None}, "invalid_token"),
        ({"aud": 5}, "invalid_token"),
        ({"aud": {"orders-api": True}}, "invalid_token"),
        ({"aud": [AUDIENCE, 5]}, "invalid_token"),
        ({"aud": [[AUDIENCE]]}, "invalid_token"),
        ({"exp": ABSENT}, "invalid_token"),
        ({"exp": None}, "invalid_token"),
        ({"exp": str(int(NOW) + 60)}, "invalid_token"),
        ({"exp": True}, "invalid_token"),
        ({"exp": False}, "invalid_token"),
        ({"exp": []}, "invalid_token"),
        ({"exp": [NOW + 60]}, "invalid_token"),
        ({"exp": {}}, "invalid_token"),
        ({"exp": -1}, "invalid_token"),
        ({"exp": 10**30}, "invalid_token"),
        ({"exp": 253_402_300_800}, "invalid_token"),
        ({"exp": 1e300}, "invalid_token"),
        ({"exp": int(NOW) * 10**9}, "invalid_token"),
        ({"exp": 0}, "token_expired"),
        ({"exp": NOW - 31}, "token_expired"),
        ({"exp": NOW - 30}, "token_expired"),
        ({"nbf": NOW + 31}, "token_not_yet_valid"),
        ({"nbf": True}, "invalid_token"),
        ({"nbf": "0"}, "invalid_token"),
        ({"nbf": -1}, "invalid_token"),
        ({"nbf": 10**30}, "invalid_token"),
        ({"nbf": []}, "invalid_token"),
        ({"nbf": None}, "invalid_token"),
        ({"iat": "yesterday"}, "invalid_token"),
        ({"iat": True}, "invalid_token"),
        ({"iat": None}, "invalid_token"),
        ({"iat": 10**30}, "invalid_token"),
        ({"sub": ABSENT}, "invalid_token"),
        ({"sub": ""}, "invalid_token"),
        ({"sub": 5}, "invalid_token"),
        ({"sub": ["alice"]}, "invalid_token"),
        ({"client_id": 5}, "invalid_token"),
        ({"azp": ["shop"]}, "invalid_token"),
        ({"jti": 5}, "invalid_token"),
        ({"scope": ["orders:read"]}, "invalid_token"),
        ({"scope": 5}, "invalid_token"),
        ({"scope": {"orders:read": True}}, "invalid_token"),
        ({"scope": True}, "invalid_token"),
        ({"scp": 5}, "invalid_token"),
        ({"scp": {"orders:read": True}}, "invalid_token"),
        ({"scp": ["orders:read", 5]}, "invalid_token"),
        ({"scp": [["orders:read"]]}, "invalid_token"),
        ({"roles": "admin"}, "invalid_token"),
        ({"roles": "admin seller"}, "invalid_token"),
        ({"roles": {"admin": True}}, "invalid_token"),
        ({"roles": ["admin", None]}, "invalid_token"),
        ({"roles": [["admin"]]}, "invalid_token"),
        ({"roles": True}, "invalid_token"),
        ({"permissions": "orders:refund"}, "invalid_token"),
        ({"permissions": [1]}, "invalid_token"),
        ({"permissions": {}}, "invalid_token"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:40],
)
def test_a_claim_that_is_wrong_refuses_the_token(claims: dict[str, Any], reason: str) -> None:
    """Every claim has its type; what must be there must be right; no value ever means "for ever"."""
    assert refused(token(**claims)).reason == reason


@pytest.mark.parametrize(
    "raw",
    ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 400, "1" * 4_000, "1e16", '"NaN"', "null", "true"],
    ids=lambda raw: raw[:12],
)
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_no_number_of_seconds_means_for_ever(claim: str, raw: str) -> None:
    """Numbers that JSON does not have, or that are too large for a time, are refused before or after reading."""
    sensible = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(NOW) + 60}
    sensible.pop(claim, None)
    payload = json.dumps(sensible)[:-1] + f', "{claim}": {raw}}}'
    text = signed({"alg": "ES256"}, payload.encode())
    try:
        taken = read_token(text)
    except TokenRefused:
        return
    answer = tokens().verify(text, taken, NOW)
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.INVALID_TOKEN


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"aud": [AUDIENCE]},
        {"aud": ["billing-api", AUDIENCE]},
        {"exp": NOW - 29},
        {"exp": NOW + 0.5},
        {"exp": 253_402_300_799},
        {"nbf": NOW + 30, "iat": NOW + 30},
        {"nbf": 0, "iat": 0},
        {"nbf": NOW - 5.5},
        {"iat": NOW + 3600},
        {"scope": ""},
        {"roles": [], "permissions": []},
        {"realm_access": "not ours", "groups": 5, "scopes": {}},
    ],
    ids=str,
)
def test_a_good_token_is_accepted(claims: dict[str, Any]) -> None:
    """What is allowed stays allowed: lists of audiences, clocks that differ a little, claims that nobody reads."""
    assert accepted(token(**claims)).sub == "alice"


@pytest.mark.parametrize(("leeway", "late"), [(0, 0), (0.5, 0.5), (300, 300)])
def test_leeway_is_the_tolerance_for_clocks(leeway: float, late: float) -> None:
    """RFC 7519 section 4.1.4: on or after exp a token is refused, but for the leeway; section 4.1.5 likewise."""
    source = tokens(leeway=leeway)
    accepted(token(exp=NOW), source, NOW + late - 0.25)
    assert refused(token(exp=NOW), source, NOW + late).reason is Reason.TOKEN_EXPIRED
    accepted(token(nbf=NOW), source, NOW - late)
    answer = refused(token(nbf=NOW), source, NOW - late - 60)
    assert answer.reason is Reason.TOKEN_NOT_YET_VALID
    assert f"another {late + 60:.0f} s" in str(answer.hint)


@pytest.mark.parametrize(
    ("typ", "lenient", "strict"),
    [
        ("at+jwt", True, True),
        ("AT+JWT", True, True),
        ("application/at+jwt", True, True),
        ("JWT", True, False),
        ("jwt", True, False),
        ("application/jwt", True, False),
        (ABSENT, True, False),
        ("", False, False),
        ("id+jwt", False, False),
        ("logout+jwt", False, False),
        ("dpop+jwt", False, False),
        ("token-introspection+jwt", False, False),
        ("JWE", False, False),
        ("at+jwt ", False, False),
        ("jose", False, False),
    ],
    ids=repr,
)
def test_a_token_of_another_profile_is_no_access_token(typ: object, lenient: bool, strict: bool) -> None:  # noqa: FBT001 - a table
    """RFC 8725 section 3.11: explicit types tell kinds of tokens apart; RFC 9068 section 4: strict wants at+jwt."""
    for mode, fits in (("lenient", lenient), ("strict", strict)):
        answer = judged(token(header={"typ": typ}), tokens(typ=mode))
        if fits:
            assert isinstance(answer, Principal)
        else:
            assert isinstance(answer, Rejected)
            assert answer.reason is Reason.WRONG_TOKEN_TYPE


@pytest.mark.parametrize(
    ("claims", "kind"),
    [
        ({"token_use": "id"}, "its token_use is 'id': send the access token"),
        ({"token_use": "refresh"}, "its token_use is 'refresh'"),
        ({"token_use": ""}, "its token_use is ''"),
        ({"token_use": None}, "its token_use is None"),
        ({"token_use": ["access"]}, "its token_use is ['access']"),
        ({"token_use": "Access"}, "its token_use is 'Access'"),
        ({"typ": "ID"}, "its claim typ is 'ID': send the access token"),
        ({"typ": "Refresh"}, "its claim typ is 'Refresh'"),
        ({"typ": "Offline"}, "its claim typ is 'Offline'"),
        ({"typ": "Logout"}, "its claim typ is 'Logout'"),
        ({"at_hash": "x"}, "it is an ID token"),
        ({"at_hash": "x", "scope": "openid"}, "it is an ID token"),
        ({"at_hash": None}, "it is an ID token"),
        ({"c_hash": "x"}, "it is an ID token"),
        ({"nonce": "x"}, "it is an ID token"),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, "it is a logout or security event"),
        ({"events": None}, "it is a logout or security event"),
    ],
    ids=str,
)
@pytest.mark.parametrize("typ", ["JWT", ABSENT], ids=["JWT", "no typ"])
def test_a_token_that_is_plainly_of_another_kind_is_no_access_token(
    claims: dict[str, Any], kind: str, typ: object
) -> None:
    """Providers that write no typ mark their ID, refresh and logout tokens otherwise; a typ of at+jwt settles it."""
    answer = refused(token(header={"typ": typ}, **claims))
    assert answer.reason is Reason.WRONG_TOKEN_TYPE
    assert str(answer.hint).startswith(kind)
    for settled in ("at+jwt", "AT+JWT", "application/at+jwt"):
        assert accepted(token(header={"typ": settled}, **claims)).sub == "alice"
        assert accepted(token(header={"typ": settled}, **claims), tokens(typ="strict")).sub == "alice"


@pytest.mark.parametrize(
    "claims",
    [
        {"token_use": "access"},
        {"typ": "Bearer"},
        {"typ": "id"},
        {"typ": ["ID"]},
        {"typ": 5},
        {"typ": None},
        {"nonce": "x", "scope": "openid orders:read"},
        {"nonce": "x", "scope": ""},
        {"nonce": "x", "scp": ["orders:read"]},
        {"azp": "shop", "sid": "s1", "auth_time": NOW, "amr": ["pwd"], "acr": "1", "email": "a@shop.example"},
        {"cnf": {"jkt": "x"}, "events_seen": 5},
    ],
    ids=str,
)
def test_what_access_tokens_of_some_providers_hold_is_no_mark_of_another_kind(claims: dict[str, Any]) -> None:
    """Keycloak writes nonce into access tokens, beside scope; sessions and profiles stand in many."""
    for typ in ("JWT", ABSENT):
        assert accepted(token(header={"typ": typ}, **claims)).sub == "alice"


@pytest.mark.parametrize(
    ("typ", "fits"),
    [
        ("at+jwt", True),
        ("AT+jwt", True),
        ("application/at+jwt", True),
        ("JWT", False),
        ("application/jwt", False),
        ("id+jwt", False),
        ("", False),
        (ABSENT, False),
    ],
    ids=repr,
)
@pytest.mark.parametrize("claims", ["rfc9068", {"preset": "rfc9068", "roles": "groups"}], ids=str)
def test_the_preset_of_rfc_9068_is_strict_about_the_type(claims: object, typ: object, fits: bool) -> None:  # noqa: FBT001 - a table
    """RFC 9068 section 4: a resource server MUST reject any other typ, whatever `typ=` says."""
    text = token(header={"typ": typ}, client_id="shop", iat=NOW, jti="j1")
    answer = judged(text, tokens(claims=claims))
    if fits:
        assert isinstance(answer, Principal)
    else:
        assert isinstance(answer, Rejected)
        assert answer.reason is Reason.WRONG_TOKEN_TYPE
        assert answer.hint == ("it has no typ" if typ is ABSENT else f"its typ is {typ!r}")


def test_the_signature_comes_before_every_claim() -> None:
    """Of a forged token nothing is believed, not even that it has expired."""
    for claims in ({"exp": 1}, {"iss": "https://x.example"}, {"aud": "x"}, {"nbf": NOW + 99}, {"roles": 5}, {}):
        answer = refused(token(key=ec_key(nth=4), **claims))
        assert answer.reason is Reason.INVALID_TOKEN
        assert answer.facts == {}


SICK: dict[str, dict[str, Any]] = {
    "nothing else": {},
    "expired": {"exp": 1},
    "not yet valid": {"nbf": NOW + 600},
    "forged": {"key": ec_key(nth=4)},
    "an unknown key": {"header": {"kid": "k9"}},
    "another algorithm": {"algorithm": "ES384"},
    "an ID token": {"header": {"typ": "JWT"}, "nonce": "n"},
    "a role of the wrong type": {"roles": 5},
}
OF_STAGE = "the token says iss 'https://stage.example' and this service accepts 'https://id.example'"
FOR_BILLING = "the token says aud ['billing'] and this service is ['orders-api']"


@pytest.mark.parametrize("sickness", SICK.values(), ids=SICK)
def test_a_token_of_another_environment_is_recognized_in_the_log(sickness: dict[str, Any]) -> None:
    """Whatever else is wrong, the hint names the other issuer or audience beside ours: the usual mistake behind it."""
    source = tokens(jwks=jwks(public_jwk(kid="k1")), algorithms=["ES256"])
    usual: dict[str, Any] = {"header": {"kid": "k1"}, **sickness}
    if "header" in sickness:
        usual["header"] = {"kid": "k1", **sickness["header"]}
    kind = "; it is an ID token (it has at_hash, c_hash or nonce): send the access token" if "nonce" in usual else ""
    assert refused(token(iss="https://stage.example", **usual), source).hint == OF_STAGE + kind
    assert refused(token(aud="billing", **usual), source).hint == FOR_BILLING + kind
    both = refused(token(iss="https://stage.example", aud=["billing"], **usual), source)
    assert both.hint == f"{OF_STAGE}; {FOR_BILLING}{kind}"


@pytest.mark.parametrize(
    ("sickness", "reason", "hint"),
    [
        ({"exp": NOW - 90}, "token_expired", "it expired 90 s ago"),
        ({"nbf": NOW + 90}, "token_not_yet_valid", "it is not valid for another 90 s: whose clock is wrong?"),
        ({"key": ec_key(nth=4)}, "invalid_token", "its signature is not that of the key it names"),
        ({"header": {"kid": "k9"}}, "invalid_token", "it is signed by a key that is not known here"),
        ({"algorithm": "ES384"}, "invalid_token", "its algorithm ES384 is not allowed"),
        ({"roles": 5}, "invalid_token", "its roles is not a list of strings"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else value,
)
def test_a_token_for_us_is_told_by_what_is_wrong_with_it(sickness: dict[str, Any], reason: str, hint: str) -> None:
    """No talk of environments where issuer and audience are right."""
    source = tokens(jwks=jwks(public_jwk(kid="k1")), algorithms=["ES256"])
    answer = refused(token(**{"header": {"kid": "k1"}, **sickness}), source)
    assert (answer.reason, answer.hint) == (reason, hint)


@pytest.mark.parametrize("value", [ABSENT, None, 5, {"a": 1}, ["x", 5]], ids=str)
@pytest.mark.parametrize("forged", [False, True], ids=["signed", "forged"])
def test_an_issuer_or_audience_of_any_type_is_told(value: object, forged: bool) -> None:  # noqa: FBT001 - a table
    """The hint says that it is wrong, whatever it is, and who this service is."""
    key = ec_key(nth=4) if forged else None
    for claim, ours in (("iss", ISSUER), ("aud", AUDIENCE)):
        wrong: dict[str, Any] = {claim: value}
        answer = refused(token(key=key, **wrong))
        assert answer.reason is Reason.INVALID_TOKEN
        assert f"the token says {claim} " in str(answer.hint)
        assert ours in str(answer.hint)


def test_what_the_log_says_of_a_refused_token_is_true() -> None:
    """Facts come from tokens whose signature is good, and never hold the token."""
    text = token(exp=1, jti="j1", client_id="shop")
    facts = refused(text).facts
    assert facts == {
        "sub": "alice",
        "client_id": "shop",
        "iss": ISSUER,
        "aud": AUDIENCE,
        "token_expires": 1,
        "token_id": "j1",
    }
    nameless = token(exp=1)
    token_id = str(refused(nameless).facts["token_id"])
    assert token_id.startswith("sha256:")
    assert len(token_id) < 30
    assert refused(token(roles="admin")).facts["sub"] == "alice"
    assert not any(part in str(refused(nameless)) for part in nameless.split("."))


# The principal


def test_a_principal_is_what_the_token_says() -> None:
    """Each field comes from its claim."""
    text = token(
        client_id="shop",
        scope="orders:read orders:write",
        roles=["seller"],
        permissions=["orders:refund"],
        jti="j1",
        tenant="acme",
    )
    principal = accepted(text)
    assert principal.key == (ISSUER, "alice")
    assert principal.client_id == "shop"
    assert principal.scopes == {"orders:read", "orders:write"}
    assert principal.roles == {"seller"}
    assert principal.permissions == {"orders:refund"}
    assert principal.token_id == "j1"
    assert principal.expires_at == NOW + 3600
    assert principal.claims["tenant"] == "acme"
    assert dict(principal.claims) == {**claims_of(text), "roles": ("seller",), "permissions": ("orders:refund",)}


@pytest.mark.parametrize(
    ("claims", "sub", "client_id"),
    [
        ({}, "alice", None),
        ({"sub": ABSENT, "client_id": "shop"}, "shop", "shop"),
        ({"sub": ABSENT, "azp": "shop"}, "shop", "shop"),
        ({"sub": "", "client_id": "shop"}, "shop", "shop"),
        ({"sub": None, "client_id": "shop"}, "shop", "shop"),
        ({"azp": "web", "client_id": "shop"}, "alice", "shop"),
        ({"azp": "web"}, "alice", "web"),
    ],
    ids=str,
)
def test_a_client_stands_in_where_there_is_no_subject(claims: dict[str, Any], sub: str, client_id: str | None) -> None:
    """A token of client_credentials may name the client alone."""
    principal = accepted(token(**claims))
    assert (principal.sub, principal.client_id) == (sub, client_id)


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "a b"}, {"a", "b"}),
        ({"scope": " a  b "}, {"a", "b"}),
        ({"scope": "a\tb\nc"}, {"a\tb\nc"}),
        ({"scope": "a\u00a0b a\u2003c"}, {"a\u00a0b", "a\u2003c"}),
        ({"scope": "a,b"}, {"a,b"}),
        ({"scope": "A a"}, {"A", "a"}),
        ({"scope": ""}, set()),
        ({}, set()),
        ({"scp": "a b"}, {"a", "b"}),
        ({"scp": ["a", "b"]}, {"a", "b"}),
        ({"scp": []}, set()),
        ({"scope": "a", "scp": ["b"]}, {"a"}),
        ({"scope": "", "scp": ["b"]}, set()),
        ({"scopes": ["a"], "permissions": ["b"]}, set()),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_scopes_are_split_on_spaces_alone(claims: dict[str, Any], scopes: set[str]) -> None:
    """RFC 6749 section 3.3: space-delimited and case-sensitive, from `scope`, else from `scp`, never from both."""
    assert accepted(token(**claims)).scopes == scopes


def test_claims_are_read_where_the_configuration_says() -> None:
    """A name or a path into nested objects, for each of the three."""
    source = tokens(
        claims={"roles": ["realm_access", "roles"], "permissions": "https://shop.example/may", "scopes": "scopes"}
    )
    claims: dict[str, Any] = {
        "realm_access": {"roles": ["admin"]},
        "https://shop.example/may": ["refund"],
        "scopes": ["a", "b"],
        "scope": "never",
        "roles": ["not these"],
        "permissions": ["nor these"],
    }
    principal = accepted(token(**claims), source)
    assert principal.roles == {"admin"}
    assert principal.permissions == {"refund"}
    assert principal.scopes == {"a", "b"}


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        ({}, set()),
        ({"realm_access": None}, set()),
        ({"realm_access": {}}, set()),
        ({"realm_access": {"roles": None}}, set()),
        ({"realm_access": {"roles": []}}, set()),
        ({"realm_access.roles": ["admin"]}, set()),
        ({"realm_access": []}, None),
        ({"realm_access": "roles"}, None),
        ({"realm_access": {"roles": {"admin": 1}}}, None),
        ({"realm_access": {"roles": "admin"}}, None),
    ],
    ids=str,
)
def test_a_path_that_ends_early_gives_nothing(claims: dict[str, Any], roles: set[str] | None) -> None:
    """What is missing is no role; what has the wrong shape is no token."""
    answer = judged(token(**claims), tokens(claims={"roles": ("realm_access", "roles")}))
    if roles is None:
        assert isinstance(answer, Rejected)
        assert answer.reason is Reason.INVALID_TOKEN
    else:
        assert isinstance(answer, Principal)
        assert answer.roles == roles


def test_claims_cannot_be_changed() -> None:
    """A handler that writes into claims would write into everybody's: objects are read-only, arrays are tuples."""
    principal = accepted(token(a={"b": [{"c": [1, [2]]}]}))
    inner: Any = principal.claims["a"]
    assert inner["b"][0]["c"] == (1, (2,))
    for mapping in (principal.claims, inner, inner["b"][0]):
        assert isinstance(mapping, Mapping)
        with pytest.raises(TypeError):
            mapping["x"] = 1  # type: ignore[index]  # what a handler must not be able to do
    assert isinstance(inner["b"], tuple)


@pytest.mark.parametrize("depth", [100, 300, 400, 500, 700, 900, 10_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
@pytest.mark.parametrize("claim", ["x", "iss", "aud", "roles"])
def test_a_deep_claim_raises_nothing(claim: str, opening: bytes, closing: bytes, depth: int) -> None:
    """However deep the nesting, a token is good or refused, never a crash."""
    sensible = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(NOW) + 60}
    sensible.pop(claim, None)
    deep = opening * depth + b"1" + closing * depth
    text = signed({"alg": "ES256"}, json.dumps(sensible).encode()[:-1] + b',"%s":%s}' % (claim.encode(), deep))
    try:
        taken = read_token(text)
    except TokenRefused:
        return
    answer = tokens().verify(text, taken, NOW)
    if isinstance(answer, Rejected):
        assert answer.reason.status == 401
    else:
        assert claim == "x"


@pytest.mark.parametrize("claim", ["iss", "aud", "token_use", "typ"])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["arrays", "objects"])
def test_a_deep_claim_raises_nothing_further_down_the_stack(claim: str, opening: bytes, closing: bytes) -> None:
    """A token is read here and judged there, once its key has come: what could be read then can also be told of."""

    def judged_below(frames: int, text: str, taken: SignedToken) -> object:
        return judged_below(frames - 1, text, taken) if frames else tokens().verify(text, taken, NOW)

    for depth in (30, 33, 200, 350, 600, 800):
        deep = opening * depth + b"1" + closing * depth
        sensible = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(NOW) + 60}
        sensible.pop(claim, None)
        payload = json.dumps(sensible).encode()[:-1] + b',"%s":%s}' % (claim.encode(), deep)
        text = signed({"alg": "ES256"}, payload, key=ec_key(nth=4))
        try:
            taken = read_token(text)
        except TokenRefused:
            continue
        answer = judged_below(300, text, taken)
        assert isinstance(answer, Rejected)
        assert answer.reason is Reason.INVALID_TOKEN


# Keys that are fetched


def test_a_token_that_cannot_be_ours_causes_no_fetch() -> None:
    """Another issuer's token is refused as such, whether keys are there or not, and nothing is fetched for it."""
    asked: list[str] = []

    def fetch(url: str) -> object:
        asked.append(url)
        return jwks(public_jwk(kid="k1"))

    source = source_that_fetches(fetch)
    answer = refused(token(iss="https://stage.example", header={"kid": "k1"}), source)
    assert asked == []
    assert answer.reason is Reason.INVALID_TOKEN
    assert "https://stage.example" in str(answer.hint)
    accepted(token(header={"kid": "k1"}), source)
    assert refused(token(iss="https://stage.example", header={"kid": "k9"}), source, NOW + 60).reason == "invalid_token"
    assert len(asked) == 1


def test_without_keys_a_token_is_not_judged() -> None:
    """503 material: a reason of its own, why, and when to ask again; never a 401 that logs people out."""

    def down(url: str) -> object:
        raise FetchFailed("id.example answered 502")

    answer = refused(token(), source_that_fetches(down))
    assert answer == Rejected(Reason.KEYS_UNAVAILABLE, "id.example answered 502", retry_after=10.0)


def test_a_token_waits_for_its_key_and_is_judged_then() -> None:
    """The one need of a source: the fetch, followed by the verdict."""
    go_on = threading.Event()

    def slow(url: str) -> object:
        assert go_on.wait(10)
        return jwks(public_jwk(kid="k1"))

    source = source_that_fetches(slow)
    text = token(header={"kid": "k1"})
    need = source.verify(text, read_token(text), NOW)
    assert isinstance(need, Need)
    future = need.work()
    assert isinstance(future, Future)
    assert not future.done()
    go_on.set()
    verified = need.resume(future.result(10))
    assert isinstance(verified, Verified)
    assert verified.principal.sub == "alice"
    assert verified.key is not None
    assert verified.key.kid == "k1"


class Published:
    """An issuer's key set that may change; `fetches` counts how often it was fetched."""

    def __init__(self, *keys: dict[str, object]) -> None:
        self.keys = keys
        self.fetches = 0
        self.is_down = False

    def fetch(self, url: str) -> object:
        self.fetches += 1
        if self.is_down:
            raise FetchFailed("id.example answered 502")
        return jwks(*self.keys)


@pytest.mark.parametrize("kid", ["k1", ABSENT], ids=["the same kid", "no kid"])
def test_a_key_that_changed_without_a_new_id_is_fetched_anew(kid: object) -> None:
    """An issuer that restarts with a new key under the old name, or under none, is understood after one fetch."""
    published = Published(public_jwk(ec_key(nth=0), kid=kid))
    source = source_that_fetches(published.fetch)
    header = {"kid": kid}
    old, new = token(key=ec_key(nth=0), header=header), token(key=ec_key(nth=1), header=header)
    accepted(old, source)
    published.keys = (public_jwk(ec_key(nth=1), kid=kid),)
    assert accepted(new, source, NOW + 20).sub == "alice"
    assert published.fetches == 2
    assert refused(old, source, NOW + 21).hint == "its signature is not that of the key it names"
    accepted(new, source, NOW + 22)
    assert published.fetches == 2


def test_a_key_that_is_added_without_a_kid_is_found() -> None:
    """Where keys have no ids, all that are known are tried before the issuer is asked, and then the new one alone."""
    published = Published(public_jwk(ec_key(nth=0)))
    source = source_that_fetches(published.fetch)
    accepted(token(key=ec_key(nth=0)), source)
    published.keys = (public_jwk(ec_key(nth=0)), public_jwk(ec_key(nth=1)))
    accepted(token(key=ec_key(nth=1)), source, NOW + 20)
    accepted(token(key=ec_key(nth=0)), source, NOW + 20)
    assert published.fetches == 2


@pytest.mark.parametrize("kid", ["k1", ABSENT], ids=["a known kid", "no kid"])
def test_a_flood_of_bad_signatures_costs_one_fetch_a_cool_down(kid: object) -> None:
    """Whoever sends forged tokens cannot make us flood the issuer, nor keep good tokens out."""
    published = Published(public_jwk(kid=kid))
    source = source_that_fetches(published.fetch)
    good, forged = token(header={"kid": kid}), token(header={"kid": kid}, key=ec_key(nth=4))
    accepted(good, source)
    for tenths in range(500):
        answer = refused(forged, source, NOW + tenths / 10)
        assert answer.reason is Reason.INVALID_TOKEN
        assert answer.hint == "its signature is not that of the key it names"
    assert published.fetches == 5
    accepted(good, source, NOW + 50)
    assert published.fetches == 5


def test_a_bad_signature_during_an_outage_is_a_bad_signature() -> None:
    """The issuer cannot be asked for a newer key: forged stays 401, and good tokens stay good."""
    published = Published(public_jwk(kid="k1"))
    source = source_that_fetches(published.fetch)
    good = token(header={"kid": "k1"})
    accepted(good, source)
    published.is_down = True
    answer = refused(token(header={"kid": "k1"}, key=ec_key(nth=4)), source, NOW + 20)
    assert answer.reason is Reason.INVALID_TOKEN
    assert published.fetches == 2
    accepted(good, source, NOW + 21)


@pytest.mark.parametrize(
    "claims", [{"iss": "https://stage.example"}, {"iss": ABSENT}, {"iss": [ISSUER]}, {"iss": f"{ISSUER}/"}], ids=str
)
def test_a_bad_signature_on_another_issuers_token_causes_no_fetch(claims: dict[str, Any]) -> None:
    """Our issuer's newer keys would not verify it either."""
    published = Published(public_jwk(kid="k1"))
    source = source_that_fetches(published.fetch)
    accepted(token(header={"kid": "k1"}), source)
    refused(token(header={"kid": "k1"}, key=ec_key(nth=4), **claims), source, NOW + 20)
    assert published.fetches == 1


def test_an_algorithm_that_is_not_allowed_causes_no_fetch() -> None:
    """No key that the issuer may have by now would do."""
    published = Published(public_jwk(kid="k1"))
    source = source_that_fetches(published.fetch)
    accepted(token(header={"kid": "k1"}), source)
    assert refused(token(algorithm="HS256", header={"kid": "k1"}), source, NOW + 20).reason is Reason.INVALID_TOKEN
    assert published.fetches == 1


@pytest.mark.parametrize("kid", ["k1", "k9", ABSENT], ids=["known", "unknown", "none"])
def test_configured_keys_are_judged_by_at_once(kid: object) -> None:
    """Nothing is waited for: a bad signature under configured keys is refused as it comes."""
    for source in (tokens(jwks=jwks(public_jwk(kid="k1"))), tokens(key=public_pem())):
        text = token(header={"kid": kid}, key=ec_key(nth=4))
        answer = source.verify(text, read_token(text), NOW)
        assert isinstance(answer, Rejected)
        assert answer.reason is Reason.INVALID_TOKEN


# Configuration


def mistakes_of(**options: Any) -> dict[str, str]:  # noqa: ANN401 - wrong ones, too
    """Return the mistakes of a configuration: field and why."""
    with pytest.raises(ConfigurationError) as caught:
        BearerTokens(**options)
    assert caught.value.part == "BearerTokens"
    told: dict[str, str] = {}
    for mistake in caught.value.mistakes:
        told[mistake.field] = f"{told.get(mistake.field, '')} {mistake.why}"
    return told


GOOD: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "key": public_pem()}


async def asks_asynchronously(principal: Principal) -> bool:
    """Stand for a look-up that nobody would await."""
    return False


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"issuer": ""}, "issuer", "exact iss"),
    ({"issuer": None}, "issuer", "exact iss"),
    ({"issuer": 5}, "issuer", "exact iss"),
    ({"audience": ""}, "audience", "aud"),
    ({"audience": []}, "audience", "aud"),
    ({"audience": ["a", ""]}, "audience", "aud"),
    ({"audience": None}, "audience", "aud"),
    ({"audience": [AUDIENCE, 5]}, "audience[1]", "a string"),
    ({"leeway": -1}, "leeway", "0 to 300"),
    ({"leeway": 301}, "leeway", "0 to 300"),
    ({"leeway": True}, "leeway", "0 to 300"),
    ({"leeway": "30"}, "leeway", "0 to 300"),
    ({"leeway": float("nan")}, "leeway", "0 to 300"),
    ({"leeway": None}, "leeway", "0 to 300"),
    ({"typ": "at+jwt"}, "typ", "lenient"),
    ({"realm": "a\nb"}, "realm", "printable ASCII"),
    ({"realm": "caf\u00e9"}, "realm", "printable ASCII"),
    ({"realm": 5}, "realm", "printable ASCII"),
    ({"audience": "caf\u00e9"}, "realm", "set realm="),
    ({"claims": "okta2"}, "claims", "one of the presets auth0, cognito, entra, keycloak, okta, rfc9068"),
    ({"claims": {"preset": "okta2"}}, "claims['preset']", "one of the presets"),
    ({"claims": {"preset": None}}, "claims['preset']", "one of the presets"),
    ({"claims": ["roles"]}, "claims", "a preset or a mapping"),
    ({"claims": {"groups": "groups"}}, "claims", "one of preset, sub, client_id, audience, scopes, roles"),
    ({"read_from": "X-Token"}, "read_from", "the lower-case name of a header"),
    ({"read_from": "x_token"}, "read_from", "the lower-case name of a header"),
    ({"read_from": ""}, "read_from", "the lower-case name of a header"),
    ({"read_from": None}, "read_from", "the lower-case name of a header"),
    ({"read_from": "cookie"}, "read_from", "browsers write"),
    ({"is_revoked": {"b0c4"}}, "is_revoked", "a plain function"),
    ({"is_revoked": asks_asynchronously}, "is_revoked", "a plain function"),
    ({"claims": {"roles": ""}}, "claims['roles']", "a path of names"),
    ({"claims": {"roles": []}}, "claims['roles']", "a path of names"),
    ({"claims": {"roles": ["a", ""]}}, "claims['roles']", "a path of names"),
    ({"claims": {"roles": ["a", 5]}}, "claims['roles'][1]", "a string"),
    ({"algorithms": []}, "algorithms", "at least one"),
    ({"algorithms": "ES256"}, "algorithms", ""),
    ({"algorithms": ["es256"]}, "algorithms", "not one of"),
    ({"algorithms": ["none"]}, "algorithms", "not one of"),
    ({"algorithms": ["RS256"]}, "algorithms", "does not fit the key, which allows ES256"),
    ({"algorithms": ["HS256"]}, "key", "a public key is no secret"),
    ({"key": SECRET, "algorithms": ["HS256", "ES256"]}, "algorithms", "a secret and a public key never go together"),
    ({"key": private_pem()}, "key", "only the public one belongs here"),
    ({"key": "-----BEGIN PUBLIC KEY-----"}, "key", "not a public key in PEM"),
    ({"key": 5}, "key", "a PEM, a JWK"),
    ({"key": "\udcff" * 40, "algorithms": ["HS256"]}, "key", "no encoding has"),
    ({"key": None, "jwks_url": "https://id.example/a b"}, "jwks_url", "without spaces"),
    ({"key": None, "jwks_url": "https://id.example/\0"}, "jwks_url", "without spaces"),
    ({"claims": {"roles": {"realm_access": "roles"}}}, "claims['roles']", "a path of names"),
    ({"key": SECRET}, "key", "named in algorithms="),
    ({"key": ""}, "key", "named in algorithms="),
    ({"key": secret_jwk()}, "key", "named in algorithms="),
    ({"key": json.dumps(secret_jwk()), "algorithms": ["HS256"]}, "key", "a JWK is given as a mapping"),
    ({"key": SECRET[:31], "algorithms": ["HS256"]}, "key", "31 bytes long"),
    ({"key": public_pem(rsa_key(1024))}, "key", "1024 bits"),
    ({"key": public_jwk(use="enc")}, "key", "use"),
    ({"key": {}}, "key", "kty"),
    ({"jwks": jwks(public_jwk())}, "key and jwks", "one source of keys"),
    ({"jwks_url": "https://id.example/jwks"}, "key and jwks_url", "one source of keys"),
    ({"key": None, "jwks": {}}, "jwks", "not a JWKS"),
    ({"key": None, "jwks": jwks()}, "jwks", "no key"),
    ({"key": None, "jwks": jwks(secret_jwk())}, "jwks", "keys[0]"),
    ({"key": None, "jwks": jwks(public_jwk(), public_jwk(use="enc"))}, "jwks", "keys[1]"),
    ({"key": None, "jwks": jwks(public_jwk(kid="a"), public_jwk(ec_key(nth=1), kid="a"))}, "jwks", "shares its kid"),
    ({"key": None, "jwks": "nothing.json"}, "jwks", "cannot be read"),
    ({"key": None, "jwks": Path("nothing.json")}, "jwks", "cannot be read"),
    ({"key": None, "jwks": json.dumps(jwks(secret_jwk()))}, "jwks", "cannot be read"),
    ({"key": None, "jwks": "\0"}, "jwks", "not JSON"),
    ({"key": None, "jwks": 5}, "jwks", "not a JWKS"),
    ({"key": None, "jwks_url": "http://id.example/jwks"}, "jwks_url", "dangerously_allow_http"),
    ({"key": None, "jwks_url": ""}, "jwks_url", "a URL such as"),
    ({"key": None, "jwks_url": 5}, "jwks_url", "a URL is needed"),
    ({"key": None, "issuer": "orders"}, "issuer", "or give the keys by key="),
    ({"key": None, "issuer": "http://id.example"}, "issuer", "use https"),
    ({"key": None, "algorithms": ["HS256"]}, "algorithms", "publishes no secrets"),
]


@pytest.mark.parametrize(
    ("changes", "field", "why"), MISTAKES, ids=[f"{number} {field}" for number, (_, field, _) in enumerate(MISTAKES)]
)
def test_a_mistake_is_named(changes: dict[str, Any], field: str, why: str) -> None:
    """Each wrong option is told by its field with what is needed instead, and is the only one told."""
    told = mistakes_of(**{**GOOD, **changes})
    assert why in told.get(field, f"{field} is not among {told}")
    assert {name.partition("[")[0] for name in told} <= {field.partition("[")[0], "audience"}


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody has to mend one mistake to learn of the next."""
    told = mistakes_of(
        issuer="",
        audience=[],
        key=b"short",
        algorithms=["HS256"],
        leeway=-1,
        typ="loose",
        claims={"groups": "groups"},
        realm="\n",
    )
    assert told.keys() == {"issuer", "audience", "key", "leeway", "typ", "claims", "realm"}


@pytest.mark.parametrize(
    "options",
    [
        {"key": SECRET},
        {"key": SECRET.decode(), "algorithms": ["RS256"]},
        {"key": SECRET[:40], "algorithms": ["HS512"]},
        {"key": secret_jwk(), "algorithms": ["ES256"]},
        {"key": secret_jwk(use="enc"), "algorithms": ["HS256"]},
        {"jwks": jwks(secret_jwk())},
        {"jwks": {"keys": secret_jwk()}},
        {"jwks": json.dumps(jwks(secret_jwk()))},
        {"jwks": SECRET.decode()},
        {"key": SECRET, "jwks": jwks(secret_jwk()), "algorithms": ["HS256"]},
        {"key": [SECRET], "algorithms": ["HS256"]},
        {"jwks_url": f"https://user:{SECRET.decode().replace(' ', '-')}@id.example/jwks"},
        {"key": SECRET, "algorithms": ["HS256"], "leeway": -1},
    ],
    ids=[
        *("no HS named", "RS named", "too short", "JWK without HS", "JWK for encryption", "key set", "keys no list"),
        *("JSON for a path", "secret for a path", "two sources", "list", "in a URL", "another mistake"),
    ],
)
def test_no_message_holds_a_secret(options: dict[str, Any]) -> None:
    """A start-up error ends up in logs and tickets: no key in it, whatever is wrong with it."""
    with pytest.raises(ConfigurationError) as caught:
        BearerTokens(issuer=ISSUER, audience=AUDIENCE, **options)
    said = str(caught.value) + repr(caught.value.mistakes) + repr(caught.value)
    for spelled in (SECRET.decode(), SECRET.decode().replace(" ", "-"), base64url(SECRET)):
        assert all(spelled[start : start + 12] not in said for start in range(len(spelled) - 12))


@pytest.mark.parametrize("form", ["ssh", "certificate", "pem in a JWK"])
def test_a_public_key_configured_as_a_secret_is_a_mistake(form: str) -> None:
    """Everybody could sign with it (CVE-2022-29217)."""
    ssh = key_for("EdDSA").public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    key = {"ssh": ssh, "certificate": public_pem(), "pem in a JWK": secret_jwk(public_pem())}[form]
    assert "key" in mistakes_of(issuer=ISSUER, audience=AUDIENCE, key=key, algorithms=["HS256"])


def test_a_source_never_shows_its_keys() -> None:
    """Its repr goes to logs."""
    source = tokens(key=SECRET, algorithms=["HS256"])
    assert SECRET.decode() not in repr(source)
    assert "key=" not in repr(source)
    assert base64url(SECRET) not in repr(tokens(jwks=jwks(secret_jwk()), algorithms=["HS256"]))


def test_lists_may_be_any_iterable() -> None:
    """A set, a tuple, a generator: read once, whatever it is."""
    source = tokens(
        audience=(name for name in ["billing", AUDIENCE]), key=SECRET, algorithms=(name for name in ["HS256", "HS384"])
    )
    accepted(token(algorithm="HS384"), source)
    assert source.algorithms == ("HS256", "HS384")
    accepted(token(aud="billing", algorithm="HS256"), source)


def test_a_key_set_is_read_from_a_file(tmp_path: Path) -> None:
    """`jwks` takes the path of a file, as a string or a Path."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks(public_jwk(kid="k1"))))
    for given_as in (path, str(path)):
        assert accepted(token(header={"kid": "k1"}), tokens(jwks=given_as)).sub == "alice"


def test_a_secret_in_a_key_set_needs_its_algorithm() -> None:
    """A configured key set may hold secrets where HS is named."""
    source = tokens(jwks=jwks(secret_jwk(kid="s")), algorithms=["HS256"])
    assert accepted(token(algorithm="HS256", header={"kid": "s"}), source).sub == "alice"


def test_challenges_say_the_realm_or_the_audience() -> None:
    """`realm` is the first audience unless it is given."""
    assert tokens().realm == AUDIENCE
    assert tokens(audience=["a", "b"]).realm == "a"
    assert tokens(realm="Shop").realm == "Shop"
    assert tokens(audience="caf\u00e9", realm="cafe").realm == "cafe"


@pytest.mark.parametrize(
    ("claims", "fits"),
    [({"iss": ISSUER}, True), ({"iss": f"{ISSUER}/"}, False), ({}, False), ({"iss": [ISSUER]}, False)],
    ids=str,
)
def test_a_source_knows_its_issuer(claims: dict[str, Any], fits: bool) -> None:  # noqa: FBT001 - a table
    """Compared exactly."""
    assert tokens().issued(claims) is fits


@pytest.mark.parametrize(
    "options",
    [{}, {"jwks_url": "https://keys.example/jwks"}, {"issuer": "http://localhost:8080", "audience": "x"}],
    ids=["discovery", "jwks_url", "this machine"],
)
def test_making_a_source_fetches_nothing(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are fetched when the first token needs them: a service starts while its issuer is down."""
    begun: list[object] = []
    monkeypatch.setattr("authz403.keys.Thread", begun.append)
    BearerTokens(**{"issuer": ISSUER, "audience": AUDIENCE, **options})
    assert begun == []


def test_http_keys_need_a_dangerous_word() -> None:
    """`dangerously_allow_http` is the only way to keys over http from elsewhere."""
    allowed = BearerTokens(issuer="http://id.internal", audience=AUDIENCE, dangerously_allow_http=True)
    assert allowed.issuer == "http://id.internal"


# Laws


SOURCE = tokens(jwks=jwks(*(public_jwk(name) for name in ("RS256", "ES256", "EdDSA"))))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(ISSUER) | st.just(AUDIENCE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "iss",
        "aud",
        "exp",
        "nbf",
        "iat",
        "sub",
        "client_id",
        "azp",
        "jti",
        "scope",
        "scp",
        "roles",
        "permissions",
        "x",
        "realm_access",
    ]
)


@given(claims=st.dictionaries(NAMES, ANY_JSON), header=st.dictionaries(st.sampled_from(["kid", "typ", "x"]), ANY_JSON))
def test_verifying_raises_nothing(claims: dict[str, Any], header: dict[str, Any]) -> None:
    """Whatever a well-signed token says, there is a principal with a sub or a reason of 401."""
    text = token(header=header, **claims)
    try:
        taken = read_token(text)
    except TokenRefused:
        return
    answer = SOURCE.verify(text, taken, NOW)
    if isinstance(answer, Verified):
        assert answer.principal.sub
        assert isinstance(claims.get("exp", NOW), int | float)
        assert claims.get("iss", ISSUER) == ISSUER
    else:
        assert isinstance(answer, Rejected)
        assert answer.reason.status == 401


@given(st.data())
def test_a_changed_token_is_never_accepted(data: st.DataObject) -> None:
    """One byte of any segment changed, and nobody is named: neither alice nor anybody else."""
    algorithm = data.draw(st.sampled_from(["RS256", "ES256", "EdDSA"]))
    segments = [bytearray(raw) for raw in _raw_segments(token(algorithm=algorithm, scope="read"))]
    part = data.draw(st.integers(0, 2))
    position = data.draw(st.integers(0, len(segments[part]) - 1))
    segments[part][position] ^= data.draw(st.integers(1, 255))
    text = ".".join(base64url(bytes(segment)) for segment in segments)
    try:
        taken = read_token(text)
    except TokenRefused:
        return
    answer = SOURCE.verify(text, taken, NOW)
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.INVALID_TOKEN


def _raw_segments(text: str) -> list[bytes]:

    return [base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4)) for segment in text.split(".")]
