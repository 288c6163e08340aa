"""Keys that are made when first needed, once a process, and tokens signed with them: no network, no files."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt import PyJWS
from jwt.algorithms import OKPAlgorithm

from authz403.jose import ALGORITHMS, HMAC_KEY_BYTES, KeySet, VerificationKey
from authz403.keys import FixedKeys, Keys

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

# The quickest to make and to sign with come first.
PREFERRED: Final = ("ES256", "EdDSA", "Ed25519", "HS256", "HS384", "HS512", "ES384", "ES512", *sorted(ALGORITHMS))

_KID: Final = "authz403-testing-"
_CURVES: Final = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@cache
def _key(kind: str, which: str) -> PrivateKey | bytes:  # noqa: ARG001 - two of each kind are kept
    if kind in HMAC_KEY_BYTES:
        return secrets.token_bytes(HMAC_KEY_BYTES[kind])
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _key_for(algorithm: str, which: str) -> PrivateKey | bytes:
    kind = "Ed25519" if algorithm == "EdDSA" else "RSA" if algorithm[:2] in {"RS", "PS"} else algorithm
    return _key(kind, which)


def sign(claims: Mapping[str, object], algorithm: str, *, other_key: bool = False) -> str:
    """Return a token of these claims, signed under `algorithm`, or with another key than the one that it names."""
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r}: one of {', '.join(sorted(ALGORITHMS))} is needed")
    header = {"typ": "at+jwt", "kid": f"{_KID}{algorithm}"}
    key = _key_for(algorithm, "other" if other_key else "own")
    jws = PyJWS()
    if algorithm == "Ed25519":  # RFC 9864, which PyJWT does not know as yet
        jws.register_algorithm(algorithm, OKPAlgorithm())
    return jws.encode(json.dumps(claims).encode(), key, algorithm=algorithm, headers=header)


def public_pem() -> str:
    """Return the public half of the ES256 key, as a gate is configured with it."""
    key = _key_for("ES256", "own")
    assert not isinstance(key, bytes)  # noqa: S101 - a key pair
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class TestKeys(FixedKeys):
    """The keys of this process, as a `KeySource`; each is there when a token was signed with it."""

    __test__ = False  # no class of tests

    def __init__(self) -> None:
        super().__init__(KeySet(()))

    def find(self, kid: str | None, now: float, *, fetch: bool, in_vain: Keys = ()) -> Keys:
        """See `KeySource`."""
        del now, fetch
        key = _verification_key(kid) if kid is not None and kid.startswith(_KID) else None
        return () if key is None or key in in_vain else (key,)


@cache
def _verification_key(kid: str) -> VerificationKey | None:
    algorithm = kid.removeprefix(_KID)
    if algorithm not in ALGORITHMS:
        return None
    key = _key_for(algorithm, "own")
    material = key if isinstance(key, bytes) else key.public_key()
    return VerificationKey(kid=kid, algorithms=frozenset({algorithm}), material=material)
