"""The outcomes of a policy, as a table: requests and the refusals that they get, whatever the protocol."""

from typing import NamedTuple

import jwt

from authz403 import (
    Requirement,
    any_role,
    any_scope,
    authenticated,
    claim,
    deny,
    networks,
    optional,
    param,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.facts import Facts
from tests.apps_made import AUDIENCE, ISSUER, NOW, SECRET, signed

Headers = tuple[tuple[str, str], ...]

REALM = f'Bearer realm="{AUDIENCE}"'
INVALID_TOKEN = f'{REALM}, error="invalid_token"'
INVALID_REQUEST = f'{REALM}, error="invalid_request"'
STEP_UP = f'{REALM}, error="insufficient_user_authentication"'


def authorization(*values: str) -> Headers:
    """Return one Authorization field line for each value."""
    return tuple(("Authorization", value) for value in values)


def caller(*, typ: str = "JWT", **claims: object) -> Headers:
    """Return the Authorization header of a caller with these claims."""
    return authorization("Bearer " + signed(typ=typ, **claims))  # type: ignore[arg-type]  # all of these are claims


def of_hs512() -> str:
    """Return a token whose algorithm the configuration does not allow, signed with the right secret."""
    known = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(NOW) + 300}
    return jwt.encode(known, SECRET * 2, algorithm="HS512")


class Case(NamedTuple):
    """A request and the refusal that it gets."""

    requirement: Requirement
    headers: Headers
    reason: str
    status: int
    remedy: str
    challenge: str | None = None
    retryable: bool = False


def no_token(*headers: tuple[str, str]) -> Case:
    """Return the case of a request without usable credentials."""
    return Case(authenticated, headers, "missing_token", 401, "sign_in", REALM)


def malformed(headers: Headers) -> Case:
    """Return the case of credentials that break the syntax."""
    return Case(authenticated, headers, "invalid_request", 400, "fix_request", INVALID_REQUEST)


def bad_token(headers: Headers, reason: str = "invalid_token", remedy: str = "sign_in_again") -> Case:
    """Return the case of a token that is refused."""
    return Case(authenticated, headers, reason, 401, remedy, INVALID_TOKEN, retryable=reason == "token_not_yet_valid")


def own_crash(facts: Facts) -> bool:
    """Fail as somebody's policy might."""
    raise LookupError("a bug in the policy")


CASES = {
    "no credentials": no_token(),
    "another scheme": no_token(("Authorization", "Basic YWRhOng=")),
    "empty Authorization": no_token(("Authorization", "")),
    "two Authorization headers": malformed(authorization("Bearer " + signed(), "Bearer " + signed())),
    "Bearer without a token": malformed(authorization("Bearer")),
    "two tokens": malformed(authorization("Bearer a b")),
    "a colon after Bearer": malformed(authorization("Bearer: x")),
    "listed values": malformed(authorization(f"Bearer {signed()}, Bearer {signed()}")),
    "over 16 KiB": malformed(authorization("Bearer " + "a" * 17_000)),
    "not a token": bad_token(authorization("Bearer abc")),
    "bad signature": bad_token(authorization("Bearer " + signed(secret="x" * 32))),
    "algorithm not allowed": bad_token(authorization("Bearer " + of_hs512())),
    "alg none": bad_token(authorization("Bearer " + jwt.encode({"iss": ISSUER}, "", algorithm="none"))),
    "a claim of the wrong type": bad_token(caller(scope=5)),
    "expired": bad_token(caller(exp=int(NOW) - 31), "token_expired", "refresh_token"),
    "not yet valid": bad_token(caller(nbf=int(NOW) + 60), "token_not_yet_valid", "retry_later"),
    "issuer not ours": bad_token(caller(iss="https://other.example"), "wrong_issuer"),
    "audience not ours": bad_token(caller(aud="other-api"), "wrong_audience"),
    "typ not ours": bad_token(caller(typ="logout+jwt"), "wrong_token_type"),
    "optional, with a bad token": bad_token(authorization("Bearer abc"))._replace(requirement=optional),
    "acr too weak": Case(
        authenticated.stepped_up(acr_values=["mfa"]),
        caller(acr="pwd"),
        "step_up_required",
        401,
        "sign_in_again",
        f'{STEP_UP}, acr_values="mfa"',
    ),
    "sign-in too old": Case(
        authenticated.stepped_up(max_age=60),
        caller(auth_time=NOW - 61),
        "step_up_required",
        401,
        "sign_in_again",
        f'{STEP_UP}, max_age="60"',
    ),
    "scopes missing": Case(
        scopes("orders:read", "orders:write"),
        caller(scope="orders:read"),
        "insufficient_scope",
        403,
        "request_scope",
        f'{REALM}, error="insufficient_scope", scope="orders:read orders:write"',
    ),
    "one of several scopes missing": Case(
        any_scope("a", "b"),
        caller(),
        "insufficient_scope",
        403,
        "request_scope",
        f'{REALM}, error="insufficient_scope", scope="a"',
    ),
    "role missing": Case(any_role("admin"), caller(roles=["clerk"]), "role_required", 403, "request_role"),
    "permission missing": Case(permissions("orders:refund"), caller(), "permission_required", 403, "request_role"),
    "claim missing": Case(claim("plan", "pro"), caller(plan="free"), "claim_required", 403, "contact_owner"),
    "client address not allowed": Case(networks("10.0.0.0/8"), (), "ip_not_allowed", 403, "change_network"),
    "not the owner": Case(param("owner", claim="sub"), caller(), "not_owner", 403, "contact_owner"),
    "an explicit deny": Case(deny, caller(), "access_denied", 403, "contact_owner"),
    "an unmet not": Case(~roles("guest"), caller(roles=["guest"]), "access_denied", 403, "contact_owner"),
    "the user's own": Case(
        requirement("plan_expired", lambda facts: facts.principal.claims.get("plan") == "pro", remedy="buy_plan"),
        caller(),
        "plan_expired",
        403,
        "buy_plan",
    ),
    "policy crashed": Case(requirement("own_rule", own_crash), caller(), "policy_error", 500, "contact_owner"),
    "policy answered no bool": Case(
        requirement("own_rule", lambda _: 1),  # type: ignore[arg-type]  # what is being refused
        caller(),
        "policy_error",
        500,
        "contact_owner",
    ),
}
