"""Bearer tokens (RFC 6750, RFC 9068): from a signed token to a principal, or the reason why not.

The signature is verified before any claim is believed; every claim has exactly one type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from authz403.claims import (
    ClaimNames,
    Preset,
    WrongType,
    audiences_of,
    claim_names,
    fingerprint,
    has_scopes,
    principal_of,
)
from authz403.errors import Mistakes
from authz403.facts import Rejected
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
from authz403.need import Need, is_async
from authz403.principal import NO_CLAIMS, Principal, is_numeric_date
from authz403.reasons import Reason

AUTHORIZATION: Final = "authorization"
SUBPROTOCOL: Final = "sec-websocket-protocol"

_ACCESS_TOKEN_TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
# Many providers say JWT or nothing; other profiles (logout+jwt, dpop+jwt, ...) name themselves.
_LENIENT_TYPES: Final = _ACCESS_TOKEN_TYPES | {"jwt", "application/jwt"}
_LARGEST_LEEWAY: Final = 300  # seconds
FIELD_NAME: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
# A browser sends these by itself, or another party than the one that is to be identified writes them.
_NOT_FOR_TOKENS: Final = frozenset({"cookie", "host", "origin", "referer"})


@dataclass(slots=True)  # not frozen: each new token makes one, and that would take four times as long
class Verified:
    """A token that was found good: whom it names, and the source and the key that vouch for it.

    `until` is when it ends, in seconds since the epoch, the source's leeway included. `key` is `None` where keys are
    configured, so that they never change.
    """

    principal: Principal
    until: float
    source: BearerTokens
    key: VerificationKey | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BearerTokens:
    """Access tokens of one issuer, in the Authorization header.

    `issuer` and `audience` (one or several of which a token must name one) are compared exactly with `iss` and `aud`.
    Keys come from one of: `key` (a PEM, a JWK or, with an HS algorithm named, a secret), `jwks` (a mapping or the path
    of a file), `jwks_url`, or else the issuer's discovery document. `algorithms` narrows what the keys allow. `leeway`
    is the tolerance for clocks, in seconds. `typ="strict"` accepts `at+jwt` alone (RFC 9068).

    `claims` says where the fields of a principal stand: the name of a preset (`"auth0"`, `"cognito"`, `"entra"`,
    `"keycloak"`, `"okta"`, `"rfc9068"`), or a mapping of `scopes`, `roles`, `permissions`, `client_id`, `sub`,
    `token_id` and `audience` to a claim's name or a path into nested objects, such as
    `{"preset": "auth0", "roles": "https://shop.example/roles"}`; by default scopes come from `scope`, else `scp`.

    `read_from` is the lower-case name of the header that holds the token, or several: `authorization` after the word
    Bearer, `sec-websocket-protocol` (of WebSockets alone) after the subprotocol `bearer`, any other the token alone, as
    a proxy in front writes it. `is_revoked(principal)`, a plain function that must not block,
    is asked at every request. `realm` is what challenges say. Raises `ConfigurationError` listing every mistake; no
    message ever holds a key.
    """

    issuer: str
    audience: str | Iterable[str]
    key: str | bytes | Mapping[str, object] | None = field(default=None, repr=False)
    jwks: Mapping[str, object] | str | Path | None = field(default=None, repr=False)
    jwks_url: str | None = None
    algorithms: Iterable[str] | None = None
    leeway: float = 30
    typ: Literal["lenient", "strict"] = "lenient"
    claims: Preset | Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    read_from: str | Iterable[str] = AUTHORIZATION
    is_revoked: Callable[[Principal], bool] | None = None
    realm: str | None = None
    dangerously_allow_http: bool = False
    keys: KeySource = field(init=False, repr=False)
    names: ClaimNames = field(init=False, repr=False)
    _audiences: frozenset[str] = field(init=False, repr=False)
    _algorithms: frozenset[str] = field(init=False, repr=False)
    _types: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        mistakes = Mistakes("BearerTokens")
        if not isinstance(self.issuer, str) or not self.issuer or any(c.isspace() for c in self.issuer):
            mistakes.add("issuer", self.issuer, "the exact iss of the tokens is needed")
        audiences = (self.audience,) if isinstance(self.audience, str) else mistakes.strings("audience", self.audience)
        if not audiences or "" in audiences:
            mistakes.add("audience", list(audiences), "the aud that names this service is needed")
        mistakes.number(
            "leeway",
            self.leeway,
            lambda s: 0 <= s <= _LARGEST_LEEWAY,
            f"seconds from 0 to {_LARGEST_LEEWAY} are needed",
        )
        mistakes.flag("dangerously_allow_http", self.dangerously_allow_http)
        if self.typ not in ("lenient", "strict"):
            mistakes.add("typ", self.typ, '"lenient" or "strict" is needed')
        realm = self.realm if self.realm is not None else (audiences[0] if audiences else "")
        if not isinstance(realm, str) or not realm.isprintable() or not realm.isascii():
            mistakes.add("realm", realm, "printable ASCII is needed; set realm= where the audience is something else")
        fields = (self.read_from,) if isinstance(self.read_from, str) else mistakes.strings("read_from", self.read_from)
        for field_name in fields or ("",):
            if FIELD_NAME.fullmatch(field_name) is None:
                mistakes.add("read_from", self.read_from, "the lower-case name of a header is needed")
            elif field_name in _NOT_FOR_TOKENS:
                mistakes.add("read_from", field_name, "a header that browsers write by themselves holds no token here")
        if self.is_revoked is not None and (not callable(self.is_revoked) or is_async(self.is_revoked)):
            mistakes.add("is_revoked", self.is_revoked, "a plain function of the principal is needed")
        put = object.__setattr__
        put(self, "names", claim_names(mistakes, self.claims))
        if self.algorithms is not None:
            put(self, "algorithms", mistakes.strings("algorithms", self.algorithms))
        put(self, "_algorithms", _algorithms(mistakes, self.algorithms))
        put(self, "keys", _key_source(mistakes, self))
        mistakes.raise_if_any()
        put(self, "audience", audiences)
        put(self, "realm", realm)
        put(self, "read_from", tuple(dict.fromkeys(fields)))
        put(self, "algorithms", None if self.algorithms is None else tuple(sorted(self._algorithms)))
        put(self, "_audiences", frozenset(audiences))
        is_strict = self.typ == "strict" or self.names.is_strict
        put(self, "_types", _ACCESS_TOKEN_TYPES if is_strict else _LENIENT_TYPES)

    @property
    def fetches_keys(self) -> bool:
        """Whether keys come from somewhere that may be out of reach."""
        return isinstance(self.keys, FetchedKeys)

    def issued(self, claims: Mapping[str, object]) -> bool:
        """Tell whether a token, not yet believed, says that it is of this issuer."""
        return claims.get("iss") == self.issuer

    def verify(self, token: str, signed: SignedToken, now: float) -> Verified | Rejected | Need[Verified | Rejected]:
        """Verify signature and claims. `now` is in seconds since the epoch."""
        # A token of another issuer cannot make us fetch: our issuer's keys would not verify it.
        found = self.keys.find(signed.head.kid, now, fetch=self.issued(signed.claims))
        if isinstance(found, Need):
            return found.then(lambda keys: self._judge(token, signed, keys, now))
        return self._judge(token, signed, found, now)

    def _judge(
        self, token: str, signed: SignedToken, keys: Keys | KeysUnavailable, now: float, in_vain: Keys = ()
    ) -> Verified | Rejected | Need[Verified | Rejected]:
        if isinstance(keys, KeysUnavailable):
            if self.issued(signed.claims):
                return Rejected(Reason.KEYS_UNAVAILABLE, keys.why, retry_after=keys.retry_after)
            return self._refused(signed, Reason.INVALID_TOKEN)
        algorithm = signed.head.algorithm
        if algorithm not in self._algorithms:
            return self._refused(signed, Reason.INVALID_TOKEN, f"its algorithm {algorithm} is not allowed")
        for key in keys:
            if key.verifies(algorithm, signed.message, signed.signature):
                return self._accept(token, signed, key, now)
        if not keys and not in_vain:
            for decoy in self.keys.decoys():  # time shall not tell which key ids exist
                decoy.verifies(algorithm, signed.message, signed.signature)
        if keys and not in_vain and self.issued(signed.claims):
            # The issuer may have another key by now, under no id or under the same.
            found = self.keys.find(signed.head.kid, now, fetch=True, in_vain=keys)
            if isinstance(found, Need):
                return found.then(lambda newer: self._judge(token, signed, newer, now, keys))
            return self._judge(token, signed, found, now, keys)
        known = keys or in_vain
        why = (
            "its signature is not that of the key it names" if known else "it is signed by a key that is not known here"
        )
        return self._refused(signed, Reason.INVALID_TOKEN, why)

    def _accept(self, token: str, signed: SignedToken, key: VerificationKey, now: float) -> Verified | Rejected:
        """Read the claims of a token whose signature is good."""
        wrong = self._wrong_with(signed, now)
        if wrong is None:
            try:
                principal = principal_of(self.names, signed.claims, signed.payload, self.issuer, token)
                until = (principal.expires_at or 0.0) + self.leeway
                return Verified(principal, until, self, key if self.fetches_keys else None)
            except WrongType as error:
                wrong = Reason.INVALID_TOKEN, str(error)
        reason, why = wrong
        return self._refused(signed, reason, why, _log_facts(signed.claims, token))

    def _refused(
        self, signed: SignedToken, reason: Reason, why: str | None = None, facts: Mapping[str, object] = NO_CLAIMS
    ) -> Rejected:
        return Rejected(reason, self._diagnosis(signed) or why, facts)

    def _diagnosis(self, signed: SignedToken) -> str | None:
        """Say what an operator would otherwise hunt for, whatever else is wrong with a token; for the log alone."""
        claims = signed.claims
        issuer, audiences = claims.get("iss"), audiences_of(self.names, claims)
        found = []
        if issuer != self.issuer:
            found.append(f"the token says iss {issuer!r} and this service accepts {self.issuer!r}")
        if audiences is None or self._audiences.isdisjoint(audiences):
            said = claims.get("aud") if audiences is None else sorted(audiences)
            name = " or ".join(".".join(path) for path in self.names.audience)
            found.append(f"the token says {name} {said!r} and this service is {sorted(self._audiences)!r}")
        other = _other_kind(signed, self.names)
        if other is not None:
            found.append(other)
        return "; ".join(found) or None

    def _wrong_with(self, signed: SignedToken, now: float) -> tuple[Reason, str | None] | None:
        """Check the registered claims (RFC 7519 section 4.1) of a token whose signature is good."""
        claims = signed.claims
        issuer, expires, starts = claims.get("iss"), claims.get("exp"), claims.get("nbf")
        audiences = audiences_of(self.names, claims)
        if not isinstance(issuer, str) or audiences is None:
            return Reason.INVALID_TOKEN, None  # what is wrong with iss and aud is told by _diagnosis
        if issuer != self.issuer:
            return Reason.WRONG_ISSUER, None
        if self._audiences.isdisjoint(audiences):
            return Reason.WRONG_AUDIENCE, None
        other = self._wrong_kind(signed)
        if other is not None:
            return Reason.WRONG_TOKEN_TYPE, other
        if (
            not is_numeric_date(expires)
            or not is_numeric_date(claims.get("nbf", 0))
            or not is_numeric_date(claims.get("iat", 0))
        ):
            return Reason.INVALID_TOKEN, "it has no exp, or exp, nbf or iat is not a number of seconds"
        if is_numeric_date(starts) and now + self.leeway < starts:
            return (
                Reason.TOKEN_NOT_YET_VALID,
                f"it is not valid for another {starts - now:.0f} s: whose clock is wrong?",
            )
        if now - self.leeway >= expires:
            return Reason.TOKEN_EXPIRED, f"it expired {now - expires:.0f} s ago"
        return None

    def _wrong_kind(self, signed: SignedToken) -> str | None:
        """Say why a token is no access token of this provider, or `None`."""
        typ = signed.head.typ
        # RFC 9068 section 4: the resource server MUST verify that the typ header is at+jwt; lenient mode knows why not.
        if typ is None and self._types is _ACCESS_TOKEN_TYPES:
            return "it has no typ"
        if typ is not None and typ.lower() not in self._types:
            return f"its typ is {typ!r}"
        for names in self.names.required:
            if all(signed.claims.get(name) in (None, "") for name in names):
                return f"it has no {' or '.join(names)}, as this provider's access tokens have"
        kind = signed.claims.get("typ")
        if self.names.kinds and kind is not None and kind not in self.names.kinds:
            return f"its claim typ is {kind!r}: send the access token"
        return _other_kind(signed, self.names)


def _other_kind(signed: SignedToken, names: ClaimNames) -> str | None:
    """Say which other kind of token a JWT plainly is, or `None`; a typ of at+jwt settles it (RFC 9068 section 2.1)."""
    typ, claims = signed.head.typ, signed.claims
    if typ is not None and typ.lower() in _ACCESS_TOKEN_TYPES:
        return None
    use, kind = claims.get("token_use", "access"), claims.get("typ")
    if use != "access":
        return f"its token_use is {use!r}: send the access token"
    if kind in _OTHER_KINDS:
        return f"its claim typ is {kind!r}: send the access token"
    # OpenID Connect Core 1.0 section 2 and 3.3.2.11: at_hash, c_hash and nonce are claims of ID tokens.
    if "at_hash" in claims or "c_hash" in claims or ("nonce" in claims and not has_scopes(names, claims)):
        return "it is an ID token (it has at_hash, c_hash or nonce): send the access token"
    # RFC 8417 section 2.2, and OpenID Connect Back-Channel Logout 1.0 section 2.4
    return "it is a logout or security event token (it has events)" if "events" in claims else None


# What Keycloak writes into the claim typ of its other tokens.
_OTHER_KINDS: Final = ("ID", "Refresh", "Offline", "Logout")


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
    try:
        material = key.encode() if isinstance(key, str) else key
    except UnicodeEncodeError:
        raise KeyRefused("it holds characters that no encoding has") from None  # the error itself holds the key
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
