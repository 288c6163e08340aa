"""Callers of tests: their claims, written where a gate's own source reads them, as a token or as a principal."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from authz403.claims import ClaimNames, ClaimPath, principal_of
from authz403.errors import Mistakes
from authz403.principal import Principal
from authz403.rbac import Rbac
from authz403.tokens import AUTHORIZATION, BearerTokens

SUB: Final = "tester"
ISSUER: Final = "https://issuer.test"
AUDIENCE: Final = "tests"
_LIFE: Final = 3_600  # seconds, of a token; more than any leeway
_NO_CLAIMS: Final[Mapping[str, object]] = MappingProxyType({})
_NOBODY_READS: Final = ClaimNames()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: a user with these scopes, roles and permissions, and more `claims`, which replace others.

    `signed_in_now` writes an `auth_time` of the moment. The rest says what is wrong with the token.
    """

    sub: str = SUB
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] | None = None
    permissions: tuple[str, ...] = ()
    claims: Mapping[str, object] = field(default_factory=lambda: _NO_CLAIMS)
    signed_in_now: bool = False
    expired: bool = False
    not_yet_valid: bool = False
    audience: str | None = None
    issuer: str | None = None
    other_key: bool = False
    algorithm: str | None = None


def names_in(field_name: str, value: str | Collection[str] | None) -> tuple[str, ...]:
    """Return names that were given as a collection, or as one text with spaces between them."""
    listed = value.split() if isinstance(value, str) else () if value is None else value
    mistakes = Mistakes("the caller")
    found = mistakes.strings(field_name, listed)
    mistakes.raise_if_any()
    return found


def claims_of(caller: Caller, source: BearerTokens | None, now: float) -> dict[str, object]:
    """Return the claims of a caller's token, each where `source` reads it. `now` is in seconds since the epoch."""
    names = _NOBODY_READS if source is None else source.names
    claims: dict[str, object] = {
        "iss": caller.issuer or (ISSUER if source is None else source.issuer),
        "iat": int(now) - (2 * _LIFE if caller.expired else 0),
        "exp": int(now) + (-_LIFE if caller.expired else 2 * _LIFE),
    }
    if caller.not_yet_valid:
        claims["nbf"] = int(now) + _LIFE
    if caller.signed_in_now:
        claims["auth_time"] = int(now)
    audience = AUDIENCE if source is None else next(iter(source.audience))
    _put(claims, names.client_id, "test-client")
    _put(claims, names.audience, caller.audience or audience)
    _put(claims, names.sub, caller.sub)
    _put(claims, names.token_id, secrets.token_hex(8))
    _put_lists(claims, names, caller)
    for needed in names.required:
        if not any(name in claims for name in needed):
            claims[needed[0]] = caller.sub if needed[0] == "sub" else _ALWAYS.get(needed[0], "test")
    return {**claims, **caller.claims}


# Amazon Cognito says of a token what it is for.
_ALWAYS: Final = {"token_use": "access"}


def _put_lists(claims: dict[str, object], names: ClaimNames, caller: Caller) -> None:
    """Write scopes, roles and permissions; two of them may share a claim."""
    held: dict[ClaimPath, list[str]] = {}
    for what, places in (("roles", names.roles), ("permissions", names.permissions), ("scopes", names.scopes)):
        wanted: tuple[str, ...] = getattr(caller, what) or ()
        if wanted and not places:
            continue  # tokens of this provider do not hold them; `writes` tells
        if wanted:
            held.setdefault(places[0], []).extend(wanted)
    shared = {path for places in (names.roles, names.permissions) for path in places[:1]}
    for path, values in held.items():
        _put(claims, (path,), " ".join(values) if path in names.scopes and path not in shared else values)


def _put(claims: dict[str, object], places: tuple[ClaimPath, ...], value: object) -> None:
    *outer, last = places[0]
    for name in outer:
        inner = claims.setdefault(name, {})
        assert isinstance(inner, dict)  # noqa: S101 - written here
        claims = inner
    claims[last] = value


def can_write(what: str, source: BearerTokens | None, rbac: Rbac | None) -> bool:
    """Tell whether a caller can be given roles (or scopes, permissions): by its token, or where roles are looked up."""
    if what == "roles" and rbac is not None and rbac.roles_for is not None:
        return True
    return bool(getattr(_NOBODY_READS if source is None else source.names, what))


def principal_for(caller: Caller, source: BearerTokens | None, rbac: Rbac | None, now: float) -> Principal:
    """Return the principal that a caller's token would name, with the roles that `rbac` makes of the given ones."""
    claims = claims_of(caller, source, now)
    names = _NOBODY_READS if source is None else source.names
    payload = json.dumps(claims).encode()
    found = principal_of(names, claims, payload, str(claims["iss"]), "of.a.test")
    field_name = AUTHORIZATION if source is not None and AUTHORIZATION in source.read_from else None
    found = replace(found, roles=frozenset(caller.roles or ()), token_field=field_name)
    return found if rbac is None else rbac.applied(found)


def source_of(sources: Iterable[object], issuer: str | None = None) -> BearerTokens | None:
    """Return the source that a caller's token is for: the one of this issuer, else the first; none where none is."""
    bearers = [source for source in sources if isinstance(source, BearerTokens)]
    named = [source for source in bearers if source.issuer == issuer]
    return next(iter([*named, *bearers]), None)
