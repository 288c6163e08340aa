import base64
import json
import re
import string
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, x25519
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from authz403.jose import (
    ALGORITHMS,
    KeyRefused,
    KeySet,
    SignedToken,
    TokenRefused,
    VerificationKey,
    key_from_jwk,
    key_from_pem,
    key_from_secret,
    keys_from_jwks,
    read_json_file,
    read_token,
)
from tests.tokens_made import (
    PUBLIC_KEY_ALGORITHMS,
    RSA_ALGORITHMS,
    SECRET,
    SECRET_ALGORITHMS,
    base64url,
    claims_of,
    ec_key,
    ed_key,
    jwks,
    key_for,
    private_pem,
    public_jwk,
    public_pem,
    rsa_key,
    secret_jwk,
    signature,
    signed,
    signed_segments,
    token,
)

HEADER = {"alg": "ES256"}


def believed(text: str, *keys: VerificationKey) -> bool:
    """Tell whether a token is read and one of the keys that its kid allows verifies it."""
    try:
        return _verified(read_token(text), KeySet(keys))
    except TokenRefused:
        return False


def verifying(algorithm: str) -> VerificationKey:
    """Return the key that verifies what tests sign under an algorithm."""
    if algorithm in SECRET_ALGORITHMS:
        return key_from_secret(SECRET, [algorithm])
    return key_from_jwk(public_jwk(algorithm))


# Algorithms


@pytest.mark.parametrize("algorithm", [*PUBLIC_KEY_ALGORITHMS, *SECRET_ALGORITHMS])
def test_every_algorithm_verifies_its_own_signatures_alone(algorithm: str) -> None:
    """A signature is good under its algorithm and key; one bit of message or signature more or less, and it is not."""
    key = verifying(algorithm)
    good = signature(b"message", algorithm=algorithm)
    assert key.verifies(algorithm, b"message", good)
    assert not key.verifies(algorithm, b"massage", good)
    assert not key.verifies(algorithm, b"message", good[:-1])
    assert not key.verifies(algorithm, b"message", good + b"\0")
    assert not key.verifies(algorithm, b"message", bytes([good[0] ^ 1]) + good[1:])
    assert not key.verifies(algorithm, b"message", b"")
    assert believed(token(algorithm=algorithm), key)


@pytest.mark.parametrize("algorithm", PUBLIC_KEY_ALGORITHMS)
def test_another_key_of_the_same_kind_does_not_verify(algorithm: str) -> None:
    """A token that somebody else signed is not believed."""
    assert not believed(token(algorithm=algorithm, key=key_for(algorithm, nth=1)), verifying(algorithm))
    assert not believed(
        token(algorithm=algorithm, key=key_for(algorithm)), key_from_jwk(public_jwk(key_for(algorithm, 1)))
    )


def test_another_secret_does_not_verify() -> None:
    """A token under another secret is not believed."""
    assert not believed(token(algorithm="HS256", key=SECRET[::-1]), verifying("HS256"))


@pytest.mark.parametrize("said", sorted(ALGORITHMS))
@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA", "HS256"])
def test_the_header_cannot_choose_the_algorithm(algorithm: str, said: str) -> None:
    """A good signature under one algorithm is not believed under the name of another (RFC 8725 section 3.1)."""
    same = {algorithm, said} <= {"EdDSA", "Ed25519"} or algorithm == said
    assert believed(token(algorithm=algorithm, header={"alg": said}), verifying(algorithm)) is same


@pytest.mark.parametrize(
    "alg",
    ["none", "None", "NONE", "nOnE", "none ", "", " ", "null", None, [], ["none"], {}, 0, False, "none\0", "n\u043ene"],
    ids=repr,
)
def test_alg_none_is_refused_in_every_spelling(alg: object) -> None:
    """An unsecured token (RFC 7519 section 6; CVE-2015-9235) is none, with a signature or without."""
    header = base64url(json.dumps({"alg": alg}).encode())
    payload = base64url(b'{"sub":"alice"}')
    for last in ("", base64url(b"x"), base64url(signature(f"{header}.{payload}".encode()))):
        with pytest.raises(TokenRefused):
            read_token(f"{header}.{payload}.{last}")


@pytest.mark.parametrize(
    "alg", ["HS1", "RS1", "ES256K", "es256", "ES256 ", "HS256\n", "A128KW", "RSA-OAEP", "dir"], ids=repr
)
def test_an_algorithm_that_is_not_supported_is_refused(alg: str) -> None:
    """Names are compared exactly; encryption and the rest are not signatures."""
    with pytest.raises(TokenRefused, match="alg"):
        read_token(signed({"alg": alg}, {"sub": "alice"}))


def test_a_header_without_alg_is_refused() -> None:
    """RFC 7515 section 4.1.1: alg MUST be present."""
    with pytest.raises(TokenRefused, match="alg"):
        read_token(signed({"typ": "JWT"}, {"sub": "alice"}))


@pytest.mark.parametrize("key_as_secret", ["pem", "der", "ssh", "jwk"])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret_for_a_token(algorithm: str, key_as_secret: str) -> None:
    """A token under HMAC with the public key's bytes is not believed (CVE-2016-10555, CVE-2022-29217)."""
    public = key_for(algorithm).public_key()
    forms = {
        "pem": public_pem(algorithm),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "ssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "jwk": json.dumps(public_jwk(algorithm)).encode(),
    }
    for hmac in SECRET_ALGORITHMS:
        assert not believed(token(algorithm=hmac, key=forms[key_as_secret]), verifying(algorithm))


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"])
def test_a_key_in_the_header_is_no_key(name: str) -> None:
    """A token cannot bring its own key (CVE-2018-0114)."""
    mine = ec_key(nth=9)
    header = {name: public_jwk(mine) if name == "jwk" else ["https://attacker.example/keys"]}
    text = token(key=mine, header=header)
    assert read_token(text).head == read_token(token()).head
    assert not believed(text, verifying("ES256"))
    assert believed(token(header=header), verifying("ES256"))


# Reading tokens


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("undefined", "it is the word undefined: the client sends a variable that was never set"),
        ("null", "it is the word null: the client"),
        ("None", "it is the word None: the client"),
        ("NaN", "it is the word NaN: the client"),
        ("Undefined", "it is an opaque token and not a JWT"),
        (
            "hunter2hunter2hunter2",
            "it is an opaque token and not a JWT: did the client ask its provider for this audience?",
        ),
        ("", "it is an opaque token"),
        ("a.b", "it does not have three parts"),
        ("undefined.undefined", "it does not have three parts"),
        ("a.b.c.d", "it does not have three parts"),
        ("a.b.c.d.e", "it is an encrypted token (JWE), which only its provider can read"),
        ("a.b.c.d.e.f", "it does not have three parts"),
        ("." * 100, "it does not have three parts"),
    ],
    ids=lambda value: value[:20],
)
def test_what_was_sent_in_the_place_of_a_token_is_told(text: str, hint: str) -> None:
    """The usual ways to send the wrong thing are named for the log, and what was sent is not repeated."""
    with pytest.raises(TokenRefused) as caught:
        read_token(text)
    assert str(caught.value).startswith(hint)
    assert "hunter2" not in str(caught.value)


def test_a_token_is_taken_apart() -> None:
    """Header, claims, message and signature are those of the token."""
    text = token(header={"kid": "k1"}, scope="read")
    taken = read_token(text)
    assert (taken.head.algorithm, taken.head.kid, taken.head.typ) == ("ES256", "k1", "at+jwt")
    assert taken.claims == claims_of(text)
    assert taken.message.decode() == text.rpartition(".")[0]
    assert base64url(taken.signature) == text.rpartition(".")[2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c.d",
        "." * 100_000,
        "eyJhbGciOiJFUzI1NiJ9",
        "eyJhbGciOiJFUzI1NiJ9.e30",
        "eyJhbGciOiJFUzI1NiJ9.e30.",
        "eyJhbGciOiJFUzI1NiJ9..AAAA",
        ".e30.AAAA",
        "eyJhbGciOiJFUzI1NiJ9.e30.AAAA.",
        "eyJhbGciOiJFUzI1NiJ9.e30.AAAA.AAAA.AAAA",
        '{"payload":"e30","protected":"eyJhbGciOiJFUzI1NiJ9","signature":"AAAA"}',
        "eyJhbGciOiJFUzI1NiJ9.e30.\N{LATIN SMALL LETTER E WITH ACUTE}AAA",
        "\ud800.e30.AAAA",
    ],
    ids=lambda text: ascii(text[:24]) + str(len(text)),
)
def test_what_is_not_three_parts_is_no_token(text: str) -> None:
    """A compact JWS has header, payload and signature, none of them empty (RFC 7515 section 7.1)."""
    with pytest.raises(TokenRefused):
        read_token(text)


@pytest.mark.parametrize(
    "extension", [{"crit": []}, {"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"crit": None}]
)
def test_critical_extensions_are_refused(extension: dict[str, object]) -> None:
    """RFC 7515 section 4.1.11: what is critical and not understood makes the token invalid."""
    with pytest.raises(TokenRefused, match="extension"):
        read_token(token(header=extension))


@pytest.mark.parametrize("b64", [False, None, 0, 1, "false", "true"])
def test_an_unencoded_payload_is_refused(b64: object) -> None:
    """RFC 7797 section 6: b64 must be understood, so that only its default is accepted."""
    with pytest.raises(TokenRefused, match="extension"):
        read_token(token(header={"b64": b64}))
    assert read_token(token(header={"b64": True})).claims["sub"] == "alice"


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"ES256","alg":"ES256"}',
        b'{"alg":"ES256","alg":"none"}',
        b'{"alg":"ES256","kid":"a","kid":"b"}',
        b'{"alg":"ES256","a\\u006cg":"none"}',
        b'{"alg":"ES256","x":{"y":1,"y":1}}',
    ],
    ids=str,
)
def test_a_header_name_that_occurs_twice_is_refused(header: bytes) -> None:
    """RFC 7515 section 4: header parameter names MUST be unique."""
    with pytest.raises(TokenRefused, match="twice"):
        read_token(signed(header, {"sub": "alice"}))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sub":"alice","sub":"root"}',
        b'{"sub":"alice","sub":"alice"}',
        b'{"sub":"alice","s\\u0075b":"root"}',
        b'{"realm_access":{"roles":[],"roles":["admin"]}}',
        b'{"list":[{"a":1,"a":2}]}',
    ],
    ids=str,
)
def test_a_claim_that_occurs_twice_is_refused(payload: bytes) -> None:
    """RFC 7519 section 4: claim names MUST be unique, or two readers see two tokens."""
    with pytest.raises(TokenRefused, match="twice"):
        read_token(signed(HEADER, payload))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"exp":NaN}',
        b'{"exp":Infinity}',
        b'{"exp":-Infinity}',
        b'{"x":{"y":[NaN]}}',
        b'{"exp":' + b"9" * 5_000 + b"}",
        b"[]",
        b"[1]",
        b'"text"',
        b"1",
        b"null",
        b"true",
        b"{}{}",
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1}\0',
        b'{"a":"\x01"}',
        b'{"a":"\n"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-32"),
        '{"a":"\N{LATIN SMALL LETTER E WITH ACUTE}"}'.encode("latin-1"),
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xc0\xaf"}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"{" * 10_000,
    ],
    ids=lambda payload: ascii(payload[:24]) + str(len(payload)),
)
def test_what_is_not_one_json_object_in_utf_8_is_refused(payload: bytes) -> None:
    """Header and payload are JSON objects in UTF-8 (RFC 7519 section 7.2); what deviates never raises anything else."""
    with pytest.raises(TokenRefused):
        read_token(signed(HEADER, payload))
    with pytest.raises(TokenRefused):
        read_token(signed(payload, {"sub": "alice"}))


@pytest.mark.parametrize("field", ["kid", "typ"])
@pytest.mark.parametrize("value", [1, True, ["k1"], {"k": 1}, 1.5], ids=repr)
def test_kid_and_typ_are_strings(field: str, value: object) -> None:
    """RFC 7515 section 4.1.4: a kid that is no string cannot name a key."""
    with pytest.raises(TokenRefused, match="string"):
        read_token(token(header={field: value}))


@pytest.mark.parametrize("part", [0, 1, 2], ids=["header", "payload", "signature"])
@pytest.mark.parametrize(
    "respell",
    [
        lambda text: text + "=",
        lambda text: text + "==",
        lambda text: text + "====",
        lambda text: text + "\n",
        lambda text: text + " ",
        lambda text: " " + text,
        lambda text: text[:4] + "\n" + text[4:],
        lambda text: text[:4] + "?" + text[4:],
        lambda text: text[:4] + "+" + text[5:],
        lambda text: text[:4] + "/" + text[5:],
        lambda text: text[:4] + "%2e" + text[4:],
        lambda text: text[:4] + "\0" + text[4:],
        lambda text: text[:4] + "\u00e4" * 4 + text[4:],
        lambda text: text[:4] + "\ud800" + text[4:],
        lambda text: text + "A" * ((1 - len(text)) % 4),
    ],
    ids=[
        "one pad",
        "two pads",
        "four pads",
        "newline",
        "space",
        "leading space",
        "folded",
        "?",
        "plus",
        "slash",
        "percent",
        "NUL",
        "four letters",
        "a surrogate",
        "one over",
    ],
)
def test_base64url_has_one_alphabet_and_no_padding(part: int, respell: Any) -> None:  # noqa: ANN401 - a lambda
    """RFC 7515 section 2: no line breaks, white space, padding or other characters."""
    segments = token().split(".")
    segments[part] = respell(segments[part])
    with pytest.raises(TokenRefused, match=r"base64url|three parts"):
        read_token(".".join(segments))


@pytest.mark.parametrize(
    ("payload", "others"), [(b'{"a":12}', 3), (b'{"a":1}', 15), (b'{"a":123}', 0)], ids=["2", "4", "0"]
)
def test_a_token_has_one_spelling(payload: bytes, others: int) -> None:
    """Bits that no byte takes are zero: else one token has many texts, and a list of revoked texts can be passed by."""
    good = base64url(payload)
    padding = "=" * (-len(good) % 4)
    same = {
        last
        for last in string.ascii_letters + string.digits + "-_"
        if base64.urlsafe_b64decode(good[:-1] + last + padding) == payload
    }
    assert len(same) == 1 + others
    assert read_token(signed_segments(base64url(b'{"alg":"ES256"}'), good)).claims["a"]
    for last in same - {good[-1]}:
        with pytest.raises(TokenRefused, match="base64url"):
            read_token(signed_segments(base64url(b'{"alg":"ES256"}'), good[:-1] + last))


@pytest.mark.parametrize(
    "text",
    ["", "a.b.c", token(algorithm="HS256"), token(header={"alg": "none"})],
    ids=["empty", "no token", "HS256", "none"],
)
def test_a_refusal_never_quotes_the_token(text: str) -> None:
    """What is logged of a bad token is why, not the token."""
    try:
        read_token(text)
    except TokenRefused as refused:
        assert all(len(part) < 4 or part not in str(refused) for part in text.split("."))  # noqa: PT017 - a good one passes


# Keys


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (public_jwk("RS256"), set(RSA_ALGORITHMS)),
        (public_jwk("RS256", alg="PS384"), {"PS384"}),
        (public_jwk("ES256"), {"ES256"}),
        (public_jwk("ES384"), {"ES384"}),
        (public_jwk("ES512", alg="ES512"), {"ES512"}),
        (public_jwk("EdDSA"), {"EdDSA", "Ed25519"}),
        (public_jwk("EdDSA", alg="EdDSA"), {"EdDSA"}),
        (public_jwk("EdDSA", alg="Ed25519"), {"Ed25519"}),
        (public_jwk(ed_key("Ed448")), {"EdDSA"}),
        (public_jwk("ES256", use="sig", key_ops=["verify"]), {"ES256"}),
        (public_jwk("ES256", key_ops=["sign", "verify"], x5c=["garbage"], x5t="garbage", extra=[1]), {"ES256"}),
    ],
    ids=[
        "RSA",
        "RSA PS384",
        "P-256",
        "P-384",
        "P-521",
        "Ed25519",
        "Ed25519 EdDSA",
        "Ed25519 alone",
        "Ed448",
        "use",
        "key_ops",
    ],
)
def test_a_jwk_says_what_it_verifies(jwk: dict[str, object], algorithms: set[str]) -> None:
    """The algorithms of a key follow from its type, curve and alg."""
    assert key_from_jwk({**jwk, "kid": "k1"}).algorithms == algorithms
    assert key_from_jwk({**jwk, "kid": "k1"}).kid == "k1"


X25519 = x25519.X25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


@pytest.mark.parametrize(
    ("jwk", "why"),
    [
        (public_jwk(rsa_key(1024)), "1024 bits"),
        (public_jwk("RS256", e="AQ"), "parameters"),
        (public_jwk("RS256", n="AQAB"), "parameters|weak"),
        (public_jwk("RS256", n=5), "parameters"),
        (public_jwk("RS256", alg="ES256"), "alg ES256 does not fit"),
        (public_jwk("RS256", alg="HS256"), "alg HS256 does not fit"),
        (public_jwk("RS256", alg="RSA-OAEP"), "does not fit"),
        (public_jwk("RS256", alg="none"), "does not fit"),
        (public_jwk("RS256", alg=5), "not a string"),
        (public_jwk("RS256", kty="EC"), "kty or crv"),
        (public_jwk("ES256", alg="ES384"), "alg ES384 does not fit"),
        (public_jwk("ES256", alg="ES256K"), "does not fit"),
        (public_jwk("ES256", crv="P-384"), "parameters"),
        (public_jwk("ES256", crv="P-224"), "kty or crv"),
        (public_jwk("ES256", crv=["P-256"]), "kty or crv"),
        (public_jwk("ES256", x="AAAA"), "parameters"),
        (public_jwk("ES256", y=public_jwk("ES256")["x"]), "parameters"),
        (public_jwk(ec_key("secp256k1")), "kty or crv"),
        (public_jwk("EdDSA", crv="X25519", x=base64url(X25519)), "kty or crv"),
        (public_jwk("EdDSA", crv="X25519", x=base64url(X25519), alg="EdDSA"), "kty or crv"),
        (public_jwk("EdDSA", crv="Ed448"), "parameters"),
        (public_jwk("EdDSA", alg="ES256"), "does not fit"),
        (public_jwk("ES256", use="enc"), "use"),
        (public_jwk("ES256", use="SIG"), "use"),
        (public_jwk("ES256", use=["sig"]), "use"),
        (public_jwk("ES256", key_ops=["encrypt"]), "key_ops"),
        (public_jwk("ES256", key_ops=["sign"]), "key_ops"),
        (public_jwk("ES256", key_ops=[]), "key_ops"),
        (public_jwk("ES256", key_ops="verify"), "key_ops"),
        (public_jwk("ES256", kid=7), "not a string"),
        (secret_jwk(), "HS256, HS384 or HS512"),
        (secret_jwk(alg="HS256"), "HS256, HS384 or HS512"),
        ({"kty": "oct"}, "parameters"),
        ({}, "kty or crv"),
        ({"kty": None}, "kty or crv"),
        ({"kty": "EC"}, "kty or crv"),
        ({"kty": "rsa"}, "kty or crv"),
        ({"kty": "RSA"}, "parameters"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_a_jwk_that_does_not_agree_with_itself_is_refused(jwk: dict[str, object], why: str) -> None:
    """kty, crv, alg, use, key_ops and the numbers must fit one another, and the key must be strong enough."""
    with pytest.raises(KeyRefused, match=why):
        key_from_jwk(jwk)


def test_a_private_jwk_verifies_as_its_public_half() -> None:
    """Whatever a key set publishes by mistake, only the public half is used."""
    key = ec_key()
    assert isinstance(key, EllipticCurvePrivateKey)
    jwk = {**public_jwk(key), "d": base64url(key.private_numbers().private_value.to_bytes(32, "big"))}
    assert believed(token(), key_from_jwk(jwk))


@pytest.mark.parametrize(
    ("jwk", "named", "algorithms"),
    [
        (secret_jwk(), ["HS256"], {"HS256"}),
        (secret_jwk(), ["HS256", "HS512"], {"HS256", "HS512"}),
        (secret_jwk(alg="HS512"), ["HS256", "HS512"], {"HS512"}),
    ],
    ids=["one", "two", "the key says one"],
)
def test_a_secret_is_used_where_the_configuration_says_so(
    jwk: dict[str, object], named: list[str], algorithms: set[str]
) -> None:
    """HMAC needs the configuration's word; the JWK's own alg narrows it."""
    assert key_from_jwk(jwk, hmac_algorithms=named).algorithms == algorithms


@pytest.mark.parametrize(
    ("jwk", "named", "why"),
    [
        (secret_jwk(alg="HS256"), ["HS512"], "not among"),
        (secret_jwk(alg="RS256"), ["HS256"], "not among"),
        (secret_jwk(alg="A128KW"), ["HS256"], "not among"),
        (secret_jwk(SECRET[:31]), ["HS256"], "31 bytes long and must have 32"),
        (secret_jwk(SECRET[:47]), ["HS256", "HS384"], "must have 48"),
        (secret_jwk(SECRET[:63]), ["HS512"], "must have 64"),
        (secret_jwk(b""), ["HS256"], "0 bytes|parameters"),
        (secret_jwk(public_pem("RS256")), ["HS256"], "public key"),
        (public_jwk("ES256", alg="HS256"), ["HS256"], "does not fit"),
    ],
    ids=["other HS", "RS", "encryption", "short 256", "short 384", "short 512", "empty", "PEM inside", "EC as HS"],
)
def test_a_secret_that_does_not_fit_is_refused(jwk: dict[str, object], named: list[str], why: str) -> None:
    """RFC 7518 section 3.2: as long as the hash or longer; and what is public is no secret."""
    with pytest.raises(KeyRefused, match=why):
        key_from_jwk(jwk, hmac_algorithms=named)


@pytest.mark.parametrize("form", ["pem", "certificate", "ssh", "private pem"])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_refused_as_a_secret(algorithm: str, form: str) -> None:
    """Whoever configures a public key as the HMAC secret would let everybody sign (CVE-2022-29217)."""
    public = key_for(algorithm).public_key()
    forms = {
        "pem": public_pem(algorithm),
        "certificate": certificate(algorithm),
        "ssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "private pem": private_pem(algorithm),
    }
    with pytest.raises(KeyRefused):
        key_from_secret(forms[form], ["HS256"])


@pytest.mark.parametrize("named", [[], ["RS256"], ["HS256", "RS256"], ["HS1"]], ids=str)
def test_a_secret_goes_with_hmac_alone(named: list[str]) -> None:
    """A secret under another kind of algorithm is refused, and the message does not hold it."""
    with pytest.raises(KeyRefused, match="HS256, HS384 or HS512") as caught:
        key_from_secret(SECRET, named)
    assert SECRET.decode() not in str(caught.value)


def certificate(algorithm: str) -> bytes:
    """Return a self-signed certificate in PEM."""
    key = key_for(algorithm)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "id.example")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, start, start.replace(year=2036))
    how = None if algorithm == "EdDSA" else hashes.SHA256()
    return builder.sign(key, how).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
@pytest.mark.parametrize("form", ["public key", "certificate"])
def test_a_pem_holds_a_public_key_or_a_certificate(algorithm: str, form: str) -> None:
    """Both forms that issuers hand out verify their tokens."""
    pem = public_pem(algorithm) if form == "public key" else certificate(algorithm)
    key = key_from_pem(pem)
    assert key.kid is None
    assert believed(token(algorithm=algorithm, header={"kid": "any"}), key)


def spki(algorithm: str) -> bytes:
    """Return the PEM of a public key under an algorithm (an OID in hex, with parameters) that nobody knows."""
    inner = bytes.fromhex(algorithm)
    body = bytes([0x30, len(inner)]) + inner + b"\x03\x1e\0\4" + b"x" * 28
    der = bytes([0x30, len(body)]) + body
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (private_pem("ES256"), "it is a private key, and only the public one belongs here"),
        (private_pem("RS256"), "private key"),
        (public_pem(rsa_key(1024)), "1024 bits"),
        (public_pem(ec_key("secp256k1")), "not an RSA, P-256"),
        (
            dsa.generate_private_key(2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "not an RSA, P-256",
        ),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a public key in PEM$"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not a public key in PEM$"),
        (public_pem("ES256")[:60], "not a public key in PEM$"),
        (b"", "not a public key in PEM$"),
        (spki("060a2b060104018237010203"), "not a public key in PEM$"),
        (spki("06072a8648ce3d020106052b81040006"), "not a public key in PEM$"),
    ],
    ids=[
        "private EC",
        "private RSA",
        "weak",
        "secp256k1",
        "DSA",
        "broken",
        "broken certificate",
        "cut",
        "empty",
        "unknown type",
        "unknown curve",
    ],
)
def test_a_pem_of_another_kind_is_refused(pem: bytes, why: str) -> None:
    """What is not a strong public key for signatures is refused in words, and never quoted."""
    with pytest.raises(KeyRefused, match=why) as caught:
        key_from_pem(pem)
    body = pem.decode().split("\n")[1] if b"\n" in pem else "BEGIN"
    assert body not in str(caught.value)


# Key sets


def test_a_key_set_gives_keys_by_kid() -> None:
    """A kid names one key; a key without one may have signed what no other key is named for."""
    named, other, nameless = (
        key_from_jwk(public_jwk("ES256", kid="a")),
        key_from_jwk(public_jwk("ES384", kid="b")),
        key_from_jwk(public_jwk("ES512")),
    )
    keys = KeySet([named, other, nameless])
    assert keys.candidates("a") == (named,)
    assert keys.candidates("b") == (other,)
    assert keys.candidates("c") == (nameless,)
    assert keys.candidates("A") == (nameless,)
    assert keys.candidates("") == (nameless,)
    assert keys.candidates(None) == (named, other, nameless)
    assert KeySet([named]).candidates("c") == ()


def test_one_bad_key_does_not_spoil_the_set() -> None:
    """Good keys are kept, and each of the others is said to be left out and why, without its numbers."""
    listed: list[Any] = [
        public_jwk("ES256", kid="good"),
        public_jwk("ES384", kid="enc", use="enc"),
        public_jwk(rsa_key(1024), kid="weak"),
        secret_jwk(kid="oct"),
        "nonsense",
        None,
        {},
        public_jwk("EdDSA", kid="good too"),
    ]
    keys, refused = keys_from_jwks(jwks(*listed))
    assert [key.kid for key in keys.keys] == ["good", "good too"]
    assert [why.split("]")[0] for why in refused] == [f"keys[{index}" for index in range(1, 7)]
    assert base64url(SECRET) not in "".join(refused)
    assert believed(token(header={"kid": "good"}), *keys.keys)


def test_symmetric_keys_in_a_key_set_are_refused() -> None:
    """What everybody can fetch is no secret; only configuration can allow HMAC."""
    keys, refused = keys_from_jwks(jwks(secret_jwk(kid="a"), secret_jwk(kid="b", alg="HS256", use="sig")))
    assert keys.keys == ()
    assert len(refused) == 2
    allowed, refused = keys_from_jwks(jwks(secret_jwk(kid="a")), hmac_algorithms=["HS256"])
    assert [key.kid for key in allowed.keys] == ["a"]
    assert refused == ()


def test_keys_that_share_a_kid_are_refused() -> None:
    """Of two keys with one kid neither can be told, wherever they stand; the others are kept."""
    keys, refused = keys_from_jwks(
        jwks(
            public_jwk("ES256", kid="twice"),
            public_jwk("ES384", kid="once"),
            public_jwk("ES512", kid="twice"),
            public_jwk("EdDSA"),
            public_jwk("RS256"),
        )
    )
    assert [key.kid for key in keys.keys] == ["once", None, None]
    assert refused == ("keys[0] shares its kid with another key", "keys[2] shares its kid with another key")


@pytest.mark.parametrize("kid", [["a"], {"a": 1}, 1, True], ids=repr)
def test_a_kid_of_any_type_is_survived(kid: object) -> None:
    """A kid that is no string, hashable or not, once or twice, costs its own keys and no other."""
    bad = public_jwk("ES256", kid=kid)
    keys, refused = keys_from_jwks(jwks(bad, bad, public_jwk("ES384", kid="good")))
    assert [key.kid for key in keys.keys] == ["good"]
    assert len(refused) == 2


def test_a_large_key_set_is_read_in_linear_time() -> None:
    """Half a megabyte of entries is read once, not once for each entry."""

    class Counted(str):
        compared = 0
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return str.__eq__(self, other)

        def __hash__(self) -> int:
            return str.__hash__(self)

    keys, refused = keys_from_jwks(jwks(*({"kid": Counted(index)} for index in range(500))))
    assert keys.keys == ()
    assert len(refused) == 500
    assert Counted.compared < 5_000


@pytest.mark.parametrize(
    "document", [None, [], "", 5, {}, {"keys": None}, {"keys": {}}, {"keys": "x"}, {"Keys": []}], ids=repr
)
def test_what_is_no_key_set_is_refused(document: object) -> None:
    """RFC 7517 section 5: an object with a list of keys."""
    with pytest.raises(KeyRefused, match="not a JWKS"):
        keys_from_jwks(document)


def test_a_file_of_keys_is_read(tmp_path: Path) -> None:
    """JSON comes back as it stands."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(jwks(public_jwk())))
    assert read_json_file(path) == jwks(public_jwk())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000], ids=lambda content: ascii(content[:5]))
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, content: bytes) -> None:
    """The message says so and quotes nothing."""
    path = tmp_path / "jwks.json"
    path.write_bytes(content)
    with pytest.raises(KeyRefused, match=r"^the file is not JSON$"):
        read_json_file(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """The message holds the reason and not the path: it may be the key itself, given by mistake."""
    with pytest.raises(KeyRefused, match=r"cannot be read: No such file or directory$"):
        read_json_file(tmp_path / "nothing.json")


# Laws


KEYS = tuple(verifying(algorithm) for algorithm in (*RSA_ALGORITHMS[:1], "ES256", "EdDSA", "HS256"))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_\-=+/ .]*\.[A-Za-z0-9_\-]*\.[A-Za-z0-9_\-]*", fullmatch=True))
def test_reading_any_text_raises_nothing_else(text: str) -> None:
    """Whatever is sent as a token is read or refused, and not believed."""
    assert not believed(text, *KEYS)


@given(header=st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()), payload=st.binary())
def test_any_bytes_under_a_good_signature_raise_nothing_else(header: bytes, payload: bytes) -> None:
    """Whatever stands in header and payload is read or refused."""
    believed(signed(header, payload), *KEYS)
    believed(signed(HEADER, payload), *KEYS)


@given(st.dictionaries(st.text(), ANY_JSON))
def test_claims_are_read_as_they_were_written(claims: dict[str, Any]) -> None:
    """What the issuer wrote is what we read; numbers that are not JSON refuse the token."""
    text = signed(HEADER, claims)
    try:
        read = read_token(text).claims
    except TokenRefused:
        assert any(name in json.dumps(claims) for name in ("NaN", "Infinity"))
    else:
        assert read == claims


@given(st.data())
def test_no_changed_token_is_believed(data: st.DataObject) -> None:
    """One character of any segment changed, and the token is nobody's: there is no second spelling either."""
    algorithm = data.draw(st.sampled_from(["RS256", "ES256", "EdDSA", "HS256"]))
    text = token(algorithm=algorithm)
    position = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.sampled_from(string.printable).filter(lambda one: one != text[position]))
    assert believed(text, *KEYS)
    assert not believed(text[:position] + character + text[position + 1 :], *KEYS)


@given(st.binary(max_size=600), st.sampled_from(sorted(ALGORITHMS)))
def test_a_signature_of_any_shape_raises_nothing(raw: bytes, algorithm: str) -> None:
    """Verification says no to bytes of any length."""
    assert not any(key.verifies(algorithm, b"message", raw) for key in KEYS)


def test_a_key_of_another_kind_verifies_nothing() -> None:
    """Even where a public key came to stand for HMAC by a mistake inside, no signature is good, and nothing raises."""
    public = verifying("RS256").material
    mistaken = VerificationKey(kid=None, algorithms=frozenset({"HS256"}), material=public)
    assert not mistaken.verifies("HS256", b"message", signature(b"message", algorithm="HS256", key=public_pem("RS256")))


# Public test vectors


def accepted(jws: str, keys: KeySet) -> bool:
    """Tell whether a JWS is believed; its payload, in the vectors mostly plain text or nothing, need not be JSON."""
    try:
        return _verified(read_token(jws), keys)
    except TokenRefused as refused:
        about_json = re.search("payload is not (JSON|a JSON)", str(refused))
        head, payload, last = jws.split(".") if jws.count(".") == 2 else ("", "", "")
        return (not payload or about_json is not None) and _accepted_without_payload(head, payload, last, keys)


def _accepted_without_payload(head: str, payload: str, last: str, keys: KeySet) -> bool:
    try:
        taken = read_token(f"{head}.e30.{last}")
    except TokenRefused:
        return False
    return _verified(taken._replace(message=f"{head}.{payload}".encode()), keys)


def _verified(taken: SignedToken, keys: KeySet) -> bool:
    candidates = keys.candidates(taken.head.kid)
    return any(key.verifies(taken.head.algorithm, taken.message, taken.signature) for key in candidates)


def configured(key: Mapping[str, Any]) -> KeySet:
    """Return the keys of a vector as a careful operator configures them: HMAC allowed where a JWK says HS."""
    listed = key.get("keys", [key])
    said = {str(one.get("alg")) for one in listed if one.get("kty") == "oct"}
    return keys_from_jwks(jwks(*listed), hmac_algorithms=said & set(SECRET_ALGORITHMS))[0]


def wycheproof(path: Path) -> Iterator[tuple[int, str, bool, bool]]:
    """Yield number, JWS, what the vector wants and what we do for each signature in a file."""
    for group in json.loads(path.read_text())["testGroups"]:
        keys = configured(group.get("public") or group["private"])
        for test in group["tests"]:
            if isinstance(jws := test.get("jws"), str):
                yield test["tcId"], jws, test["result"] == "valid", accepted(jws, keys)


NOT_FOLLOWED: dict[str, dict[int, str]] = {
    "json_web_signature_test.json": {
        346: "a PS384 signature by a key that says alg PS256: alg is what the key is for (RFC 7517 section 4.4)",
        347: "a key that says alg ES521, which no standard knows",
        350: "as 346",
        351: "as 347",
        367: "byte for byte the valid row 357: its padding was lost in the file",
        370: "as 367",
        372: "a header segment with a character that is not base64url (RFC 7515 section 2)",
        373: "a payload segment with a character that is not base64url",
    },
    "json_web_key_test.json": {
        1: "a secret and a public key in one set: HMAC is by configuration alone, and each key has its algorithms",
        7: "an RSA key with the ROCA weakness: nothing looks for it here, its issuer has to",
    },
    "json_web_crypto_test.json": {
        46: "as 7 of json_web_key_test.json",
        47: "as 1 of json_web_key_test.json",
    },
}


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_wycheproof_signatures(corpora: Path, name: str) -> None:
    """Valid signatures are accepted and invalid ones refused, but for the listed rows, and nothing raises."""
    rows = list(wycheproof(corpora / "wycheproof" / name))
    assert {number for number, _, wanted, got in rows if wanted != got} == set(NOT_FOLLOWED[name])
    assert any(wanted and got for _, _, wanted, got in rows)
    assert len(rows) >= 20


def test_jose_cookbook_signatures(corpora: Path) -> None:
    """Examples of RFC 7520 section 4 and RFC 8037 verify in compact form; in another form or changed they do not."""
    verified: list[str] = []
    for path in sorted((corpora / "jose-cookbook").glob("*.json")):
        example = json.loads(path.read_text())
        compact = example["output"].get("compact")
        if not isinstance(compact, str) or not isinstance(example["input"]["key"], dict):
            assert not accepted(json.dumps(example["output"]), KeySet(KEYS))
            continue
        key = {**example["input"]["key"], "alg": example["input"]["alg"]}
        keys = configured(key)
        if ".." in compact:
            assert not accepted(compact, keys)
            head, _, last = compact.split(".")
            compact = f"{head}.{base64url(example['input']['payload'].encode())}.{last}"
        assert accepted(compact, keys)
        assert not accepted(compact[:-4] + ("AAAA" if compact[-4:] != "AAAA" else "BBBB"), keys)
        verified.append(path.stem)
    assert [name.split(".")[0] for name in verified] == ["4_1", "4_2", "4_3", "4_4", "4_5", "curve25519-jws"]


def test_ed25519_has_both_names() -> None:
    """RFC 9864: a token may say Ed25519 instead of EdDSA, by a key that allows it."""
    assert believed(token(algorithm="Ed25519"), key_from_jwk(public_jwk(ed_key())))
    assert not believed(token(algorithm="Ed25519"), key_from_jwk(public_jwk(ed_key(), alg="EdDSA")))


def test_a_key_that_is_listed_twice_is_one_key() -> None:
    """Two entries that agree leave nothing to choose."""
    keys, refused = keys_from_jwks(jwks(public_jwk(kid="a"), public_jwk(kid="a")))
    assert ([key.kid for key in keys.keys], refused) == (["a"], ())


def test_only_usable_keys_share_a_kid() -> None:
    """A key for encryption under the same kid takes nothing from the one for signatures."""
    keys, refused = keys_from_jwks(jwks(public_jwk(ec_key(nth=1), kid="a", use="enc"), public_jwk(kid="a")))
    assert [key.kid for key in keys.keys] == ["a"]
    assert refused == ("keys[0]: its use is not sig",)


def test_null_says_nothing_about_the_use_of_a_key() -> None:
    """Null is as good as nothing for use and key_ops."""
    assert key_from_jwk(public_jwk(use=None, key_ops=None)).algorithms == {"ES256"}
