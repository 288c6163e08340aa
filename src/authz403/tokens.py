"""Bearer tokens (RFC 6750, RFC 9068): from a signed token to a principal, or the reason why not.

The signature is verified before any claim is believed; every claim has exactly one type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeGuard

from authz403.errors import Mistakes
from authz403.fetch import wrong_with_url
from authz403.jose import (
    ALGORITHMS,
    HMAC_KEY_BYTES,
    KeyRefused,
    KeySet,
    SignedToken,
    VerificationKey,
    key_from_jwk,
    key_from_pem,
    key_from_secret,
    keys_from_jwks,
    read_json_file,
)
from authz403.keys import FetchedKeys, FixedKeys, Keys, KeySource, KeysUnavailable
from authz403.need import Need
from authz403.policy import Rejected
from authz403.principal import Principal, is_numeric_date
from authz403.reasons import Reason

ClaimPath = str | Sequence[str]

_ACCESS_TOKEN_TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
# Many providers say JWT or nothing; other profiles (logout+jwt, dpop+jwt, ...) name themselves.
_LENIENT_TYPES: Final = _ACCESS_TOKEN_TYPES | {"jwt", "application/jwt"}
_DEEPEST_CLAIM: Final = 32  # objects and arrays within each other
_LARGEST_LEEWAY: Final = 300  # seconds
_FIELDS: Final = ("scopes", "roles", "permissions")


class Verified(NamedTuple):
    """A principal and the key that its token was verified with."""

    principal: Principal
    key: VerificationKey


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BearerTokens:
    """Access tokens of one issuer, in the Authorization header.

    `issuer` and `audience` (one or several of which a token must name one) are compared exactly with `iss` and `aud`.
    Keys come from one of: `key` (a PEM, a JWK or, with an HS algorithm named, a secret), `jwks` (a mapping or the path
    of a file), `jwks_url`, or else the issuer's discovery document. `algorithms` narrows what the keys allow. `leeway`
    is the tolerance for clocks, in seconds. `typ="strict"` accepts `at+jwt` alone (RFC 9068). `claims` says where
    `scopes`, `roles` and `permissions` stand, each a claim's name or a path into nested objects, such as
    `{"roles": ["realm_access", "roles"]}`; by default scopes come from `scope`, else `scp`. `realm` is what challenges
    say. Raises `ConfigurationError` listing every mistake; no message ever holds a key.
    """

    issuer: str
    audience: str | Iterable[str]
    key: str | bytes | Mapping[str, object] | None = field(default=None, repr=False)
    jwks: Mapping[str, object] | str | Path | None = field(default=None, repr=False)
    jwks_url: str | None = None
    algorithms: Iterable[str] | None = None
    leeway: float = 30
    typ: Literal["lenient", "strict"] = "lenient"
    claims: Mapping[str, ClaimPath] = field(default_factory=dict)
    realm: str | None = None
    dangerously_allow_http: bool = False
    keys: KeySource = field(init=False, repr=False)
    _audiences: frozenset[str] = field(init=False, repr=False)
    _algorithms: frozenset[str] = field(init=False, repr=False)
    _types: frozenset[str] = field(init=False, repr=False)
    _paths: Mapping[str, tuple[str, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mistakes = Mistakes("BearerTokens")
        if not isinstance(self.issuer, str) or not self.issuer or any(c.isspace() for c in self.issuer):
            mistakes.add("issuer", self.issuer, "the exact iss of the tokens is needed")
        audiences = (self.audience,) if isinstance(self.audience, str) else mistakes.strings("audience", self.audience)
        if not audiences or "" in audiences:
            mistakes.add("audience", list(audiences), "the aud that names this service is needed")
        if (
            isinstance(self.leeway, bool)
            or not isinstance(self.leeway, int | float)
            or not 0 <= self.leeway <= _LARGEST_LEEWAY
        ):
            mistakes.add("leeway", self.leeway, f"seconds from 0 to {_LARGEST_LEEWAY} are needed")
        mistakes.flag("dangerously_allow_http", self.dangerously_allow_http)
        if self.typ not in ("lenient", "strict"):
            mistakes.add("typ", self.typ, '"lenient" or "strict" is needed')
        realm = self.realm if self.realm is not None else (audiences[0] if audiences else "")
        if not isinstance(realm, str) or not realm.isprintable() or not realm.isascii():
            mistakes.add("realm", realm, "printable ASCII is needed; set realm= where the audience is something else")
        put = object.__setattr__
        put(self, "_paths", _claim_paths(mistakes, self.claims))
        if self.algorithms is not None:
            put(self, "algorithms", mistakes.strings("algorithms", self.algorithms))
        put(self, "_algorithms", _algorithms(mistakes, self.algorithms))
        put(self, "keys", _key_source(mistakes, self))
        mistakes.raise_if_any()
        put(self, "audience", audiences)
        put(self, "realm", realm)
        put(self, "algorithms", None if self.algorithms is None else tuple(sorted(self._algorithms)))
        put(self, "_audiences", frozenset(audiences))
        put(self, "_types", _ACCESS_TOKEN_TYPES if self.typ == "strict" else _LENIENT_TYPES)

    def issued(self, claims: Mapping[str, object]) -> bool:
        """Tell whether a token, not yet believed, says that it is of this issuer."""
        return claims.get("iss") == self.issuer

    def verify(self, token: str, signed: SignedToken, now: float) -> Verified | Rejected | Need[Verified | Rejected]:
        """Verify signature and claims. `now` is in seconds since the epoch."""
        hint = self._foreign(signed.claims)
        # A token of another issuer cannot make us fetch: our issuer's keys would not verify it.
        found = self.keys.find(signed.head.kid, now, fetch=hint is None or self.issued(signed.claims))
        if isinstance(found, Need):
            return found.then(lambda keys: self._judge(token, signed, keys, now, hint))
        return self._judge(token, signed, found, now, hint)

    def _judge(
        self, token: str, signed: SignedToken, keys: Keys | KeysUnavailable, now: float, hint: str | None
    ) -> Verified | Rejected:
        if isinstance(keys, KeysUnavailable) and not self.issued(signed.claims):
            return Rejected(Reason.INVALID_TOKEN, hint)
        if isinstance(keys, KeysUnavailable):
            return Rejected(Reason.KEYS_UNAVAILABLE, keys.why, retry_after=keys.retry_after)
        algorithm = signed.head.algorithm
        if algorithm not in self._algorithms:
            return Rejected(Reason.INVALID_TOKEN, hint or f"its algorithm {algorithm} is not allowed")
        for key in keys or self.keys.decoys():
            if key.verifies(algorithm, signed.message, signed.signature) and keys:
                refused = self._wrong_with(signed, now)
                if refused is not None:
                    reason, why = refused
                    return Rejected(reason, hint or why, _log_facts(signed.claims, token))
                try:
                    return Verified(self._principal(signed.claims, token), key)
                except _WrongType as error:
                    return Rejected(Reason.INVALID_TOKEN, str(error), _log_facts(signed.claims, token))
        known = (
            "its signature is not that of the key it names" if keys else "it is signed by a key that is not known here"
        )
        return Rejected(Reason.INVALID_TOKEN, hint or known)

    def _foreign(self, claims: Mapping[str, object]) -> str | None:
        """Return the hint for a token of another environment, whatever else is wrong with it; for the log alone."""
        issuer, audience = claims.get("iss"), claims.get("aud")
        if issuer != self.issuer:
            return f"the token says iss {issuer!r} and this service accepts {self.issuer!r}"
        if not self._audiences.intersection(_audiences_of(audience)):
            return f"the token says aud {audience!r} and this service is {sorted(self._audiences)!r}"
        return None

    def _wrong_with(self, signed: SignedToken, now: float) -> tuple[Reason, str] | None:
        """Check the registered claims (RFC 7519 section 4.1) of a token whose signature is good."""
        claims = signed.claims
        issuer, audience, expires, starts = claims.get("iss"), claims.get("aud"), claims.get("exp"), claims.get("nbf")
        if not isinstance(issuer, str) or not (isinstance(audience, str) or _is_list_of_strings(audience)):
            return Reason.INVALID_TOKEN, "it has no iss or no aud, or one of the wrong type"
        if issuer != self.issuer:
            return Reason.WRONG_ISSUER, f"its iss is {issuer!r}"
        if not self._audiences.intersection(_audiences_of(audience)):
            return Reason.WRONG_AUDIENCE, f"its aud is {audience!r}"
        typ = signed.head.typ
        # RFC 9068 section 4: the resource server MUST verify that the typ header is at+jwt; lenient mode knows why not.
        if typ is None and self.typ == "strict":
            return Reason.WRONG_TOKEN_TYPE, "it has no typ"
        if typ is not None and typ.lower() not in self._types:
            return Reason.WRONG_TOKEN_TYPE, f"its typ is {typ!r}"
        if (
            not is_numeric_date(expires)
            or not is_numeric_date(claims.get("nbf", 0))
            or not is_numeric_date(claims.get("iat", 0))
        ):
            return Reason.INVALID_TOKEN, "it has no exp, or exp, nbf or iat is not a number of seconds"
        if isinstance(starts, int | float) and now + self.leeway < starts:
            return (
                Reason.TOKEN_NOT_YET_VALID,
                f"it is not valid for another {starts - now:.0f} s: whose clock is wrong?",
            )
        if isinstance(expires, int | float) and now - self.leeway >= expires:
            return Reason.TOKEN_EXPIRED, f"it expired {now - expires:.0f} s ago"
        return None

    def _principal(self, claims: Mapping[str, object], token: str) -> Principal:
        client_id = _text(claims, "client_id") or _text(claims, "azp")
        sub = _text(claims, "sub") or client_id
        if not sub:
            raise _WrongType("it has neither sub nor client_id")
        expires = claims["exp"]
        return Principal(
            sub=sub,
            issuer=self.issuer,
            client_id=client_id,
            scopes=self._scopes(claims),
            roles=_list_of_strings(claims, self._paths["roles"]),
            permissions=_list_of_strings(claims, self._paths["permissions"]),
            claims=_frozen_mapping(claims),
            token_id=_text(claims, "jti") or fingerprint(token),
            expires_at=float(expires) if isinstance(expires, int | float) else None,
        )

    def _scopes(self, claims: Mapping[str, object]) -> frozenset[str]:
        path = self._paths.get("scopes")
        if path is None:
            path = ("scope",) if "scope" in claims else ("scp",)
        value = _at(claims, path)
        if value is None:
            return frozenset()
        # RFC 6749 section 3.3: space-delimited, case-sensitive strings. Some providers send a list in scp.
        if isinstance(value, str):
            return frozenset(name for name in value.split(" ") if name)
        if isinstance(value, list) and path != ("scope",):
            return _list_of_strings(claims, path)
        raise _WrongType(f"its {'.'.join(path)} is not a string")


class _WrongType(Exception):  # noqa: N818 - never leaves this module
    """A claim has a type that it cannot have."""


def fingerprint(token: str) -> str:
    """Return what the log calls a token that has no `jti`: enough to tell two apart, nothing to use."""
    return "sha256:" + hashlib.sha256(token.encode("ascii")).hexdigest()[:16]


def _claim_paths(mistakes: Mistakes, claims: object) -> Mapping[str, tuple[str, ...]]:
    paths: dict[str, tuple[str, ...]] = {"roles": ("roles",), "permissions": ("permissions",)}
    if not isinstance(claims, Mapping):
        mistakes.add("claims", claims, 'a mapping such as {"roles": ["realm_access", "roles"]} is needed')
        return paths
    for name, path in claims.items():
        if name not in _FIELDS:
            mistakes.add("claims", name, f"one of {', '.join(_FIELDS)} is needed")
            continue
        steps = (path,) if isinstance(path, str) else mistakes.strings(f"claims[{name!r}]", path)
        if not steps or "" in steps:
            mistakes.add(f"claims[{name!r}]", path, "the name of a claim, or a path of names, is needed")
        paths[name] = steps
    return paths


def _algorithms(mistakes: Mistakes, named: object) -> frozenset[str]:
    if named is None:
        return ALGORITHMS - HMAC_KEY_BYTES.keys()
    algorithms = frozenset(mistakes.strings("algorithms", named))
    for algorithm in sorted(algorithms - ALGORITHMS):
        mistakes.add("algorithms", algorithm, f"not one of {', '.join(sorted(ALGORITHMS))}")
    if not algorithms:
        mistakes.add("algorithms", [], "name at least one, or leave it out")
    if algorithms & HMAC_KEY_BYTES.keys() and algorithms - HMAC_KEY_BYTES.keys():
        mistakes.add(
            "algorithms", sorted(algorithms), "a secret and a public key never go together: one of them is known"
        )
    return algorithms


def _key_source(mistakes: Mistakes, tokens: BearerTokens) -> KeySource:
    given = [name for name in ("key", "jwks", "jwks_url") if getattr(tokens, name) is not None]
    if len(given) > 1:
        mistakes.add_secret(" and ".join(given), "one source of keys is needed; leave the others out")
        return FixedKeys(KeySet(()))
    if given in (["key"], ["jwks"]):
        return FixedKeys(_fixed_keys(mistakes, tokens))
    name, url = ("jwks_url", tokens.jwks_url) if given else ("issuer", tokens.issuer)
    wrong = wrong_with_url(url, allow_http=tokens.dangerously_allow_http)
    if wrong is not None:
        shown = url if isinstance(url, str) and "@" not in url else "..."  # what stands before an @ may be a password
        mistakes.add(name, shown, wrong if given else f"{wrong}; or give the keys by key=, jwks= or jwks_url=")
    if tokens.algorithms is not None and _algorithms(Mistakes(""), tokens.algorithms) & HMAC_KEY_BYTES.keys():
        mistakes.add("algorithms", list(tokens.algorithms), "an issuer publishes no secrets; HS algorithms need key=")
    return FetchedKeys(issuer=tokens.issuer, jwks_url=tokens.jwks_url, allow_http=tokens.dangerously_allow_http)


def _fixed_keys(mistakes: Mistakes, tokens: BearerTokens) -> KeySet:
    algorithms = _algorithms(Mistakes(""), tokens.algorithms)
    secrets = algorithms & HMAC_KEY_BYTES.keys()
    name = "key" if tokens.key is not None else "jwks"
    try:
        keys = _read_key(tokens.key, secrets) if tokens.key is not None else _read_jwks(mistakes, tokens.jwks, secrets)
    except KeyRefused as error:
        mistakes.add_secret(name, str(error))
        return KeySet(())
    if tokens.algorithms is not None:
        fitting = frozenset(algorithm for key in keys.keys for algorithm in key.algorithms)
        for algorithm in sorted((algorithms & ALGORITHMS) - fitting):
            mistakes.add("algorithms", algorithm, f"it does not fit the key, which allows {', '.join(sorted(fitting))}")
    return keys


def _read_key(key: object, secrets: frozenset[str]) -> KeySet:
    if isinstance(key, Mapping):
        return KeySet((key_from_jwk(key, hmac_algorithms=secrets),))
    if not isinstance(key, str | bytes):
        raise KeyRefused("a PEM, a JWK as a mapping, or a secret is needed")
    material = key.encode() if isinstance(key, str) else key
    if b"-----BEGIN" in material:
        if secrets:
            raise KeyRefused("a public key is no secret: HS algorithms do not go with a PEM")
        return KeySet((key_from_pem(material),))
    return KeySet((key_from_secret(material, secrets),))


def _read_jwks(mistakes: Mistakes, jwks: object, secrets: frozenset[str]) -> KeySet:
    document = read_json_file(Path(jwks)) if isinstance(jwks, str | Path) else jwks
    keys, refused = keys_from_jwks(document, hmac_algorithms=secrets)
    for why in refused:
        mistakes.add_secret("jwks", why)
    if not keys.keys and not refused:
        raise KeyRefused("it holds no key")
    return keys


def _audiences_of(value: object) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset({value})
    if isinstance(value, list):
        return frozenset(one for one in value if isinstance(one, str))
    return frozenset()


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _WrongType(f"its {name} is not a string")


def _at(claims: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = claims
    for step in path:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise _WrongType(f"its {'.'.join(path)} does not lead through objects")
        value = value.get(step)
    return value


def _list_of_strings(claims: Mapping[str, object], path: tuple[str, ...]) -> frozenset[str]:
    value = _at(claims, path)
    if value is None:
        return frozenset()
    if not _is_list_of_strings(value):
        raise _WrongType(f"its {'.'.join(path)} is not a list of strings")
    return frozenset(value)


def _is_list_of_strings(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _frozen_mapping(claims: Mapping[str, object], depth: int = 0) -> Mapping[str, object]:
    return MappingProxyType({name: _frozen(value, depth) for name, value in claims.items()})


def _frozen(value: object, depth: int) -> object:
    """Return a claim that nobody can change, as one principal serves many requests."""
    if depth >= _DEEPEST_CLAIM:
        raise _WrongType("its claims are nested too deep")
    if isinstance(value, dict):
        return _frozen_mapping(value, depth + 1)
    if isinstance(value, list):
        return tuple([_frozen(one, depth + 1) for one in value])
    return value


def _log_facts(claims: Mapping[str, object], token: str) -> Mapping[str, object]:
    """Return what the log says of a refused token whose signature is good."""
    names = {
        "sub": "sub",
        "client_id": "client_id",
        "iss": "iss",
        "aud": "aud",
        "exp": "token_expires",
        "jti": "token_id",
    }
    told = {told_as: claims[name] for name, told_as in names.items() if name in claims}
    return {"token_id": fingerprint(token), **told}
