"""Signed tokens (RFC 7515) and the keys that verify them (RFC 7517): strict reading, PyJWT's algorithms underneath.

The algorithm is chosen by the key and the configuration; what a token says of it must agree.
"""

from __future__ import annotations

import binascii
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt.algorithms import Algorithm, ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

_ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384),
    "ES512": ECAlgorithm(ECAlgorithm.SHA512),
    "EdDSA": OKPAlgorithm(),
    "Ed25519": OKPAlgorithm(),  # RFC 9864: the fully-specified name
    "HS256": HMACAlgorithm(HMACAlgorithm.SHA256),
    "HS384": HMACAlgorithm(HMACAlgorithm.SHA384),
    "HS512": HMACAlgorithm(HMACAlgorithm.SHA512),
}
# RFC 7518 section 3.2: a key of the same size as the hash output or larger MUST be used.
HMAC_KEY_BYTES: Final[Mapping[str, int]] = {"HS256": 32, "HS384": 48, "HS512": 64}
ALGORITHMS: Final = frozenset(_ALGORITHMS)

_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVE_ALGORITHMS: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
# RFC 7518 section 3.3: a key of size 2048 bits or larger MUST be used.
_SMALLEST_RSA_BITS: Final = 2048


class KeyRefused(ValueError):  # noqa: N818 - says what happened
    """A key cannot be used; the message says why and never holds the key."""


class TokenRefused(ValueError):  # noqa: N818 - says what happened
    """A token is not a signed token that can be read; the message says why and never holds the token."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerificationKey:
    """One key and the algorithms that it may be used with. Two keys are the same only if they are one object."""

    kid: str | None
    algorithms: frozenset[str]
    material: PublicKey | bytes

    def is_same_as(self, other: VerificationKey) -> bool:
        """Tell whether another key has the same id, algorithms and material."""
        mine, theirs = (self.kid, self.algorithms, self.material), (other.kid, other.algorithms, other.material)
        return mine == theirs

    def verifies(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is this key's under `algorithm`; never raises for a signature of any shape."""
        if algorithm not in self.algorithms:
            return False
        try:
            return bool(_ALGORITHMS[algorithm].verify(message, self.material, signature))
        except (ValueError, TypeError):
            return False


class KeySet:
    """Verification keys by key id; immutable, so that a reload is the exchange of one set for another."""

    __slots__ = ("_any_kid", "_by_kid", "keys")

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self.keys = tuple(keys)
        self._by_kid = {key.kid: (key,) for key in self.keys if key.kid is not None}
        self._any_kid = tuple(key for key in self.keys if key.kid is None)

    def candidates(self, kid: str | None) -> tuple[VerificationKey, ...]:
        """Return the keys that a token with this `kid` may be signed with; a key without one may have signed any."""
        if kid is None:
            return self.keys
        return self._by_kid.get(kid, self._any_kid)


def key_from_pem(pem: bytes) -> VerificationKey:
    """Read a public key or a certificate in PEM."""
    try:
        if b"-----BEGIN CERTIFICATE-----" in pem:
            material: object = load_pem_x509_certificate(pem).public_key()
        else:
            material = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        hint = "; it is a private key, and only the public one belongs here" if b"PRIVATE KEY" in pem else ""
        raise KeyRefused(f"not a public key in PEM{hint}") from error
    return _public_key(material, kid=None, named=None)


def key_from_secret(secret: bytes, algorithms: Iterable[str]) -> VerificationKey:
    """Take a shared secret for HMAC with the algorithms that the configuration names."""
    named = frozenset(algorithms)
    if b"-----BEGIN" in secret or secret.startswith((b"ssh-", b"ecdsa-sha2-")):
        # Everybody knows a public key, so that everybody could sign with it.
        raise KeyRefused("a public key is no secret: HS algorithms do not go with it")
    if secret.lstrip().startswith(b"{"):
        raise KeyRefused("a JWK is given as a mapping, not as its text")
    if not named or not named <= HMAC_KEY_BYTES.keys():
        named_how = "named in algorithms=; a PEM is given as its text, not as its path"
        raise KeyRefused(f"a secret goes with HS256, HS384 or HS512, {named_how}")
    least = max(HMAC_KEY_BYTES[name] for name in named)
    if len(secret) < least:
        raise KeyRefused(f"the secret is {len(secret)} bytes long and must have {least} or more (RFC 7518 section 3.2)")
    return VerificationKey(kid=None, algorithms=named, material=secret)


def key_from_jwk(jwk: Mapping[str, object], *, hmac_algorithms: Iterable[str] = ()) -> VerificationKey:
    """Read a JWK for verification; symmetric keys only where the configuration names HS algorithms."""
    kid, named = jwk.get("kid"), jwk.get("alg")
    if not isinstance(kid, str | None) or not isinstance(named, str | None):
        raise KeyRefused("its kid or alg is not a string")
    # RFC 7517 section 4.2 and 4.3: use and key_ops say what a key is for.
    if jwk.get("use") not in (None, "sig"):
        raise KeyRefused("its use is not sig")
    operations = jwk.get("key_ops")
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        raise KeyRefused("its key_ops do not hold verify")
    reader = _JWK_READERS.get(f"{jwk.get('kty')} {jwk.get('crv', '')}".rstrip())
    if reader is None:
        raise KeyRefused("its kty or crv is not one that is used for signatures here")
    try:
        material = reader(dict(jwk))
    except Exception as error:
        # What PyJWT and cryptography raise for broken keys is not one family.
        raise KeyRefused("its parameters do not make a key") from error
    if isinstance(material, bytes):
        allowed = key_from_secret(material, hmac_algorithms).algorithms
        if named is not None and named not in allowed:
            raise KeyRefused(f"its alg {named} is not among the algorithms configured")
        return VerificationKey(kid=kid, algorithms=frozenset({named}) if named else allowed, material=material)
    public = getattr(material, "public_key", None)
    return _public_key(public() if public is not None else material, kid=kid, named=named)


_JWK_READERS: Final[Mapping[str, Callable[[dict[str, object]], object]]] = {
    "oct": HMACAlgorithm.from_jwk,
    "RSA": RSAAlgorithm.from_jwk,
    "EC P-256": ECAlgorithm.from_jwk,
    "EC P-384": ECAlgorithm.from_jwk,
    "EC P-521": ECAlgorithm.from_jwk,
    "OKP Ed25519": OKPAlgorithm.from_jwk,
    "OKP Ed448": OKPAlgorithm.from_jwk,
}


def keys_from_jwks(document: object, *, hmac_algorithms: Iterable[str] = ()) -> tuple[KeySet, tuple[str, ...]]:
    """Read a JWKS (RFC 7517 section 5): the usable keys, and in words why others were left out.

    One bad key does not spoil the set; two different keys with one `kid` are both refused, as neither can be told.
    """
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list):
        raise KeyRefused('not a JWKS: an object with a list "keys" is needed')
    found: dict[int, VerificationKey] = {}
    refused: list[str] = []
    for index, jwk in enumerate(listed):
        if not isinstance(jwk, Mapping):
            refused.append(f"keys[{index}] is not an object")
            continue
        try:
            key = key_from_jwk(jwk, hmac_algorithms=hmac_algorithms)
        except KeyRefused as error:
            refused.append(f"keys[{index}]: {error}")
            continue
        if not any(key.is_same_as(other) for other in found.values()):
            found[index] = key
    occurrences = Counter(key.kid for key in found.values() if key.kid is not None)
    ambiguous = [index for index, key in found.items() if key.kid is not None and occurrences[key.kid] > 1]
    refused += [f"keys[{index}] shares its kid with another key" for index in ambiguous]
    return KeySet(key for index, key in found.items() if index not in ambiguous), tuple(refused)


def read_json_file(path: Path) -> object:
    """Read a JSON file of keys; raises `KeyRefused` saying why it cannot be."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise KeyRefused(f"the file cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise KeyRefused("the file is not JSON") from error


def _public_key(material: object, *, kid: str | None, named: str | None) -> VerificationKey:
    fitting: frozenset[str]
    if isinstance(material, RSAPublicKey):
        if material.key_size < _SMALLEST_RSA_BITS:
            raise KeyRefused(f"an RSA key of {material.key_size} bits is too weak; {_SMALLEST_RSA_BITS} are needed")
        fitting = _RSA_ALGORITHMS
    elif isinstance(material, EllipticCurvePublicKey) and material.curve.name in _CURVE_ALGORITHMS:
        fitting = frozenset({_CURVE_ALGORITHMS[material.curve.name]})
    elif isinstance(material, Ed25519PublicKey):
        fitting = frozenset({"EdDSA", "Ed25519"})
    elif isinstance(material, Ed448PublicKey):
        fitting = frozenset({"EdDSA"})
    else:
        raise KeyRefused("not an RSA, P-256, P-384, P-521, Ed25519 or Ed448 key")
    if named is not None:
        if named not in fitting:
            raise KeyRefused(f"its alg {named} does not fit its type")
        fitting = frozenset({named})
    return VerificationKey(kid=kid, algorithms=fitting, material=material)


class Head(NamedTuple):
    """What a token's header says. Not trusted: compared with what the key and the configuration allow."""

    algorithm: str
    kid: str | None
    typ: str | None


class SignedToken(NamedTuple):
    """A compact JWS, taken apart and not yet believed. `payload` is the JSON that `claims` were read from."""

    head: Head
    claims: dict[str, object]
    payload: bytes
    message: bytes
    signature: bytes


_DEEPEST: Final = 32  # objects and arrays within each other; what reads deeper JSON later may run out of stack
# What base64 has and base64url has not becomes what neither has.
_TO_STANDARD_ALPHABET: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
_PADDING: Final = (b"", None, b"==", b"=")
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# With two or three characters left over, the last one's low bits are unused: one spelling a token, not sixteen.
_LAST_CHARACTERS: Final[tuple[frozenset[str], ...]] = (
    frozenset(_ALPHABET),
    frozenset(),
    frozenset(_ALPHABET[::16]),
    frozenset(_ALPHABET[::4]),
)


def read_token(token: str) -> SignedToken:
    """Take a compact JWS (RFC 7515 section 3.1) apart, strictly; raises `TokenRefused`."""
    segments = token.split(".", 5)
    if len(segments) != 3:  # noqa: PLR2004 - header, payload, signature
        raise TokenRefused(_instead_of_three(token, len(segments)))
    head, payload, signature = segments
    raw = _decode(payload, "its payload")
    return SignedToken(
        _read_head(head),
        _read_object(raw, "its payload"),
        raw,
        token[: len(head) + 1 + len(payload)].encode("ascii"),
        _decode(signature, "its signature"),
    )


# What JavaScript makes of a variable that nobody set.
_UNSET: Final = frozenset({"undefined", "null", "None", "NaN"})


def _instead_of_three(token: str, parts: int) -> str:
    """Say what a text without three parts is, where that can be told: the usual ways to send the wrong thing."""
    if token in _UNSET:
        return f"it is the word {token}: the client sends a variable that was never set"
    if parts == 1:
        return "it is an opaque token and not a JWT: did the client ask its provider for this audience?"
    if parts == 5:  # noqa: PLR2004 - RFC 7516 section 3.1: the parts of an encrypted token
        return "it is an encrypted token (JWE), which only its provider can read: did the client ask for this audience?"
    return "it does not have three parts"


@lru_cache(maxsize=256)
def _read_head(segment: str) -> Head:
    # All tokens that one key signed have the same header, so that it is read once.
    fields = _read_object(_decode(segment, "its header"), "its header")
    algorithm, kid, typ = fields.get("alg"), fields.get("kid"), fields.get("typ")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRefused("its alg is not a signature algorithm that is supported")
    if (kid is not None and not isinstance(kid, str)) or (typ is not None and not isinstance(typ, str)):
        raise TokenRefused("its kid or typ is not a string")
    # RFC 7515 section 4.1.11: extensions that are not understood make the JWS invalid; RFC 7797 section 6 likewise.
    if "crit" in fields or fields.get("b64", True) is not True:
        raise TokenRefused("it uses an extension (crit, b64) that is not supported")
    return Head(algorithm, kid, typ)


def _decode(segment: str, what: str) -> bytes:
    left_over = len(segment) % 4
    padding = _PADDING[left_over]
    if padding is None or segment[-1:] not in _LAST_CHARACTERS[left_over]:
        raise TokenRefused(f"{what} is not base64url")
    standard = segment.encode("ascii", "replace").translate(_TO_STANDARD_ALPHABET)
    try:
        return binascii.a2b_base64(standard + padding, strict_mode=True)
    except binascii.Error as error:
        raise TokenRefused(f"{what} is not base64url") from error


def _read_object(raw: bytes, what: str) -> dict[str, object]:
    try:
        value = _JSON.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise TokenRefused(f"{what} is not JSON in UTF-8, or has a name twice") from error
    if not isinstance(value, dict):
        raise TokenRefused(f"{what} is not a JSON object")
    # Each opening bracket nests once at most, so that most tokens need no walk.
    if raw.count(b"{") + raw.count(b"[") > _DEEPEST and _is_deep(value):
        raise TokenRefused(f"{what} is nested too deep")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)  # type: ignore[attr-defined]  # a list
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # RFC 7519 section 4: a JWT with duplicate claim names is rejected here, not read one way or the other.
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
