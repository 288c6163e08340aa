"""Tokens for tests, signed here: keys of every kind made once a run, tokens of any claims, header and raw bytes.

>>> token()  # a good access token: ES256, ISSUER, AUDIENCE, sub "alice", exp NOW + 1 h
>>> token(scope="orders:read", roles=["seller"])  # more claims, or others
>>> token(exp=ABSENT, algorithm="RS256", header={"kid": "k1"})  # a claim left out, another algorithm, header fields
>>> signed(b'{"alg":"ES256"}', b'{"sub":1,"sub":2}')  # any bytes as header and payload, with a good signature
>>> tokens(claims={"roles": "groups"})  # the BearerTokens that accept token(); any option can be given

`NOW` is the time for `Gate(clock=lambda: NOW)`, `verify(..., NOW)` and the like. It lies in 2033, so that a token of
here is good on a real clock too.
"""

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt import PyJWS, PyJWT
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from authz403 import BearerTokens

ISSUER: Final = "https://id.example"
AUDIENCE: Final = "orders-api"
NOW: Final = 2_000_000_000.0
SECRET: Final = b"a secret of sixty-four bytes, and nobody knows it but for us two"

RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
PUBLIC_KEY_ALGORITHMS: Final = (*RSA_ALGORITHMS, "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
SECRET_ALGORITHMS: Final = ("HS256", "HS384", "HS512")


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""Leaves a claim or a header field out: `token(exp=ABSENT)`."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


@cache
def _made(kind: str, nth: int) -> PrivateKey:
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1(), "secp256k1": ec.SECP256K1()}
    if kind in curves:
        return ec.generate_private_key(curves[kind])
    if kind == "Ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind))


def rsa_key(bits: int = 2048, nth: int = 0) -> PrivateKey:
    """Return an RSA key; another one for each `nth`."""
    return _made(str(bits), nth)


def ec_key(curve: str = "P-256", nth: int = 0) -> PrivateKey:
    """Return an elliptic-curve key; another one for each `nth`."""
    return _made(curve, nth)


def ed_key(curve: str = "Ed25519", nth: int = 0) -> PrivateKey:
    """Return an Edwards-curve key (Ed25519 or Ed448); another one for each `nth`."""
    return _made(curve, nth)


def key_for(algorithm: str, nth: int = 0) -> PrivateKey:
    """Return the private key that this module signs with under a public-key algorithm; another one for each `nth`."""
    match algorithm:
        case "ES256" | "ES384" | "ES512":
            return ec_key({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm], nth)
        case "EdDSA" | "Ed25519":
            return ed_key(nth=nth)
        case _:
            return rsa_key(nth=nth)


def public_pem(key: PrivateKey | str = "ES256") -> bytes:
    """Return the public half of a key, or of the key of an algorithm, in PEM."""
    private = key_for(key) if isinstance(key, str) else key
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKey | str = "ES256") -> bytes:
    """Return a private key, or that of an algorithm, in PEM: what nobody should configure."""
    private = key_for(key) if isinstance(key, str) else key
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_jwk(key: PrivateKey | str = "ES256", **fields: object) -> dict[str, object]:
    """Return the public half of a key, or of the key of an algorithm, as a JWK with these `fields` besides."""
    private = key_for(key) if isinstance(key, str) else key
    public = private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name == "secp256k1":
        numbers = public.public_numbers()
        jwk = {"kty": "EC", "crv": "secp256k1", **{axis: _number(getattr(numbers, axis)) for axis in "xy"}}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return {name: value for name, value in {**jwk, **fields}.items() if value is not ABSENT}


def secret_jwk(secret: bytes = SECRET, **fields: object) -> dict[str, object]:
    """Return a secret as a JWK with these `fields` besides."""
    return {"kty": "oct", "k": base64url(secret), **fields}


def jwks(*keys: object) -> dict[str, object]:
    """Return a key set of these JWKs."""
    return {"keys": list(keys)}


def token(
    *,
    algorithm: str = "ES256",
    key: PrivateKey | bytes | None = None,
    header: Mapping[str, object] | None = None,
    **claims: object,
) -> str:
    """Return a token with sensible claims, changed by `claims` (`ABSENT` leaves one out) and signed under `algorithm`.

    Sign with another `key` than the one of here to forge; `header` adds fields and may say another `alg`.
    """
    sensible = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(NOW) + 3600}
    fields = {"alg": algorithm, "typ": "at+jwt", **(header or {})}
    return signed(_present(fields), _present({**sensible, **claims}), algorithm=algorithm, key=key)


def signed(
    header: Mapping[str, object] | bytes,
    payload: object,
    *,
    algorithm: str = "ES256",
    key: PrivateKey | bytes | None = None,
) -> str:
    """Return a token of this header and payload, each a value for JSON or raw bytes, whatever they say."""
    return signed_segments(base64url(_as_bytes(header)), base64url(_as_bytes(payload)), algorithm=algorithm, key=key)


def signed_segments(
    header: str, payload: str, *, algorithm: str = "ES256", key: PrivateKey | bytes | None = None
) -> str:
    """Return a token of these two segments as they stand (padded, folded, empty), with a good signature over them."""
    message = f"{header}.{payload}"
    return f"{message}.{base64url(signature(message.encode(), algorithm=algorithm, key=key))}"


def signature(message: bytes, *, algorithm: str = "ES256", key: PrivateKey | bytes | None = None) -> bytes:
    """Return the signature of a message under `algorithm`."""
    how: Algorithm = PyJWS().get_algorithm_by_name("EdDSA" if algorithm == "Ed25519" else algorithm)
    # Any: each algorithm of PyJWT takes its own type of key.
    using: Any = key if key is not None else SECRET if algorithm in SECRET_ALGORITHMS else key_for(algorithm)
    return how.sign(message, using)


def base64url(raw: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def bearer(text: str) -> str:
    """Return the value of an Authorization header with this token."""
    return f"Bearer {text}"


def tokens(**options: Any) -> BearerTokens:  # noqa: ANN401 - any option of BearerTokens
    """Return the `BearerTokens` that accept `token()`, with other options where they are given."""
    sources_of_keys = {"key", "jwks", "jwks_url"}
    if not sources_of_keys & options.keys():
        options["key"] = public_pem("ES256")
    return BearerTokens(**{"issuer": ISSUER, "audience": AUDIENCE, **options})


def claims_of(text: str) -> dict[str, Any]:
    """Return what a token says, believed or not, as PyJWT reads it."""
    return dict(PyJWT().decode(text, options={"verify_signature": False}))


def _present(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not ABSENT}


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def _number(value: int) -> str:
    return base64url(value.to_bytes(32, "big"))
