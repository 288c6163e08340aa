"""Which claims of a token say what: where each identity provider writes scopes, roles and the rest.

Every claim has exactly one type; a token with a claim of another type is refused whole, never granted in part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeGuard, get_args

from authz403.errors import Mistakes
from authz403.principal import NO_NAMES, Principal, is_numeric_date

ClaimPath = tuple[str, ...]
Preset = Literal["auth0", "cognito", "entra", "keycloak", "okta", "rfc9068"]

# Of claims that were read once more, because a policy or the app asked for them, so many stay at hand.
_MOST_CLAIMS_AT_HAND: Final = 1_000
_MOST_INTERNED: Final = 4_096


class WrongType(Exception):  # noqa: N818 - says what is wrong with a token, and is caught where tokens are judged
    """A claim has a type that it cannot have."""


class ClaimNames(NamedTuple):
    """Where a token says what: for each field the places to look, of which the first that is there counts.

    A token needs one claim of each group in `required`, by which an access token of this provider is told from its
    other tokens, and a claim `typ` of one of the `kinds`, where it has any. `is_strict` says that its header `typ` must
    be that of RFC 9068.
    """

    sub: tuple[ClaimPath, ...] = (("sub",),)
    client_id: tuple[ClaimPath, ...] = (("client_id",), ("azp",))
    audience: tuple[ClaimPath, ...] = (("aud",),)
    scopes: tuple[ClaimPath, ...] = (("scope",), ("scp",))
    roles: tuple[ClaimPath, ...] = (("roles",),)
    permissions: tuple[ClaimPath, ...] = (("permissions",),)
    token_id: tuple[ClaimPath, ...] = (("jti",),)
    required: tuple[tuple[str, ...], ...] = ()
    kinds: tuple[str, ...] = ()
    is_strict: bool = False


_PRESETS: Final[Mapping[str, ClaimNames]] = {
    # Roles have no claim of their own: an Action writes them under a name that is a URL.
    "auth0": ClaimNames(
        client_id=(("azp",), ("client_id",)), scopes=(("scope",),), roles=(), required=(("sub",), ("azp", "client_id"))
    ),
    # An access token has an aud only with resource binding; else client_id is all that says whom it is for.
    "cognito": ClaimNames(
        audience=(("aud",), ("client_id",)),
        client_id=(("client_id",),),
        scopes=(("scope",),),
        roles=(("cognito:groups",),),
        required=(("sub",), ("token_use",)),
    ),
    # appid is azp in tokens of version 1.0. An ID token has none of the three.
    "entra": ClaimNames(
        client_id=(("azp",), ("appid",)),
        scopes=(("scp",),),
        token_id=(("uti",),),
        required=(("sub",), ("azp", "appid", "scp")),
    ),
    "keycloak": ClaimNames(
        client_id=(("azp",), ("client_id",)),
        scopes=(("scope",),),
        roles=(("realm_access", "roles"),),
        required=(("sub",),),
        kinds=("Bearer", "DPoP"),
    ),
    "okta": ClaimNames(client_id=(("cid",),), scopes=(("scp",),), roles=(("groups",),), required=(("sub",), ("cid",))),
    # RFC 9068 section 2.2: iss, exp, aud, sub, client_id, iat and jti are REQUIRED; 2.2.3.1 names roles, entitlements.
    "rfc9068": ClaimNames(
        client_id=(("client_id",),),
        scopes=(("scope",),),
        permissions=(("entitlements",),),
        required=(("sub",), ("client_id",), ("iat",), ("jti",)),
        is_strict=True,
    ),
}
_FIELDS: Final = ("sub", "client_id", "audience", "scopes", "roles", "permissions", "token_id")


def claim_names(mistakes: Mistakes, claims: object) -> ClaimNames:
    """Read `BearerTokens(claims=)`: the name of a preset, or a mapping of fields to the claims that hold them."""
    if isinstance(claims, str):
        return _preset(mistakes, "claims", claims)
    if not isinstance(claims, Mapping):
        mistakes.add("claims", claims, 'a preset or a mapping such as {"roles": ["realm_access", "roles"]} is needed')
        return ClaimNames()
    names = _preset(mistakes, "claims['preset']", claims["preset"]) if "preset" in claims else ClaimNames()
    places: dict[str, tuple[ClaimPath, ...]] = {}
    for field, written in claims.items():
        if field == "preset":
            continue
        if field not in _FIELDS:
            mistakes.add("claims", field, f"one of preset, {', '.join(_FIELDS)} is needed")
            continue
        steps = (written,) if isinstance(written, str) else mistakes.strings(f"claims[{field!r}]", written)
        if isinstance(written, Mapping) or written in ("", [], ()) or "" in steps:
            mistakes.add(f"claims[{field!r}]", written, "the name of a claim, or a path of names, is needed")
        places[field] = (steps,)
    # mypy cannot see that only fields which hold places were written above
    return names._replace(**places)  # type: ignore[arg-type]


def _preset(mistakes: Mistakes, field: str, name: object) -> ClaimNames:
    if not isinstance(name, str) or name not in _PRESETS:
        mistakes.add(field, name, f"one of the presets {', '.join(get_args(Preset))} is needed")
        return ClaimNames()
    return _PRESETS[name]


def audiences_of(names: ClaimNames, claims: Mapping[str, object]) -> frozenset[str] | None:
    """Return whom a token is for, or `None` where it does not say so in a string or a list of strings."""
    try:
        value, _ = _first(names.audience, claims)
    except WrongType:
        return None
    if isinstance(value, str):
        return frozenset((value,))
    return frozenset(value) if _is_list_of_strings(value) else None


def has_scopes(names: ClaimNames, claims: Mapping[str, object]) -> bool:
    """Tell whether a token says anything of scopes, of whatever type."""
    return any(path[0] in claims for path in names.scopes)


def principal_of(names: ClaimNames, claims: Mapping[str, object], payload: bytes, issuer: str, token: str) -> Principal:
    """Return the caller that the verified claims in `payload` name; raises `WrongType`."""
    client_id = _text(names.client_id, claims)
    sub = _text(names.sub, claims)
    if not sub and claims.get("sub") not in (None, "", client_id):
        # The client stands in for nobody: this is a user's token, and another claim was to say which user's.
        raise WrongType("it has a sub, and not the claim that is configured for it")
    sub = sub or client_id
    if not sub:
        raise WrongType("it has neither sub nor client_id")
    expires = claims.get("exp")
    return Principal(
        sub=sub,
        issuer=issuer,
        client_id=None if client_id is None else _interned_text(client_id),
        scopes=_scopes(names.scopes, claims),
        roles=_list_of_strings(names.roles, claims),
        permissions=_list_of_strings(names.permissions, claims),
        claims=TokenClaims(payload),
        token_id=_text(names.token_id, claims) or fingerprint(token),
        expires_at=float(expires) if is_numeric_date(expires) else None,
    )


def fingerprint(token: str) -> str:
    """Return what the log calls a token that has no `jti`: enough to tell two apart, nothing to use."""
    signed = token.rpartition(".")[0]  # some signatures have a second form that is as good
    return "sha256:" + hashlib.sha256(signed.encode("ascii")).hexdigest()[:16]


class TokenClaims(Mapping[str, object]):
    """The claims of a verified token: read-only all the way down, objects as mappings and arrays as tuples.

    They are kept as the JSON that was signed, a third of the size of what is read from it, and read when asked for.
    """

    __slots__ = ("_payload",)

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def __getitem__(self, name: str) -> object:
        return _read(self._payload)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_read(self._payload))

    def __len__(self) -> int:
        return len(_read(self._payload))

    def __repr__(self) -> str:
        return repr(dict(self))


@lru_cache(maxsize=_MOST_CLAIMS_AT_HAND)
def _read(payload: bytes) -> Mapping[str, object]:
    claims: dict[str, object] = json.loads(payload)
    return MappingProxyType({name: _frozen(value) for name, value in claims.items()})


def _frozen(value: object) -> object:
    """Return a claim that nobody can change, as one principal serves many requests."""
    if isinstance(value, dict):
        return MappingProxyType({name: _frozen(one) for name, one in value.items()})
    if isinstance(value, list):
        return tuple([_frozen(one) for one in value])
    return value


def _first(places: tuple[ClaimPath, ...], claims: Mapping[str, object]) -> tuple[object, ClaimPath]:
    for path in places:
        value = claims.get(path[0]) if len(path) == 1 else _value_at(path, claims)
        if value is not None:
            return value, path
    return None, ()


def _value_at(path: ClaimPath, claims: Mapping[str, object]) -> object:
    """Return what stands at a path of names, `None` where it ends early; raises `WrongType` where it cannot lead on."""
    value = claims.get(path[0])
    for step in path[1:]:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise WrongType(f"its {'.'.join(path)} does not lead through objects")
        value = value.get(step)
    return value


def _text(places: tuple[ClaimPath, ...], claims: Mapping[str, object]) -> str | None:
    value, path = _first(places, claims)
    if value is None or isinstance(value, str):
        return value
    raise WrongType(f"its {'.'.join(path)} is not a string")


def _scopes(places: tuple[ClaimPath, ...], claims: Mapping[str, object]) -> frozenset[str]:
    value, path = _first(places, claims)
    if value is None:
        return NO_NAMES
    # RFC 6749 section 3.3: space-delimited, case-sensitive strings. Some providers send a list in scp.
    if isinstance(value, str):
        return _interned_words(value)
    if path != ("scope",) and _is_list_of_strings(value):
        return _interned_names(frozenset(value))
    raise WrongType(f"its {'.'.join(path)} is not a string")


def _list_of_strings(places: tuple[ClaimPath, ...], claims: Mapping[str, object]) -> frozenset[str]:
    value, path = _first(places, claims)
    if value is None:
        return NO_NAMES
    if not _is_list_of_strings(value):
        raise WrongType(f"its {'.'.join(path)} is not a list of strings")
    return _interned_names(frozenset(value))


def _is_list_of_strings(value: object) -> TypeGuard[Sequence[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


# A hundred thousand callers have a few dozen sets of scopes and roles between them: equal ones are one object.


@lru_cache(maxsize=_MOST_INTERNED)
def _interned_words(text: str) -> frozenset[str]:
    return frozenset(name for name in text.split(" ") if name)


@lru_cache(maxsize=_MOST_INTERNED)
def _interned_names(names: frozenset[str]) -> frozenset[str]:
    return names


@lru_cache(maxsize=_MOST_INTERNED)
def _interned_text(text: str) -> str:
    return text
