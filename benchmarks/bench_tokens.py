"""What a token costs: verified for the first time, beside `jwt.decode`; remembered; and the memory that this takes.

Run: `make bench`, or `.venv/bin/python benchmarks/bench_tokens.py [rounds]`. Times are CPU time, medians over rounds
that are interleaved in one run; the A/A row measures `jwt.decode` against itself and shows the noise. Memory is the
growth of the process while 100,000 different tokens are verified and remembered.
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz403 import BearerTokens, Principal
from authz403.identity import Identifier
from authz403.request import AccessRequest

TOKENS = 500  # a round
REMEMBERED = 100_000
ISSUER, AUDIENCE = "https://sso.example/realms/shop", "orders-api"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_KEY = KEY.public_key()
PEM = PUBLIC_KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SECRET = "only-for-measuring-0123456789abcdef"
NOW = time.time()


def claims(number: int) -> dict[str, object]:
    """Return what Keycloak says of a user, with ids of their own."""
    return {
        "exp": int(NOW) + 3600 + number % 600, "iat": int(NOW), "auth_time": int(NOW) - number % 600,
        "jti": str(uuid.uuid4()), "iss": ISSUER, "aud": AUDIENCE, "sub": str(uuid.uuid4()), "typ": "Bearer",
        "azp": "web", "sid": str(uuid.uuid4()), "acr": "1", "realm_access": {"roles": ["seller", "auditor"]},
        "scope": ("openid profile orders:read", "openid orders:read orders:write")[number % 2],
        "email_verified": True, "preferred_username": f"user{number}@shop.example",
    }  # fmt: skip


def request(token: str) -> AccessRequest:
    """Return a request with this token."""
    return AccessRequest("GET", "/orders", fields={"authorization": (f"Bearer {token}",)})


def memory() -> int:
    """Return the bytes that this process takes: now, where the system says so, else at most so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def accept(identifier: Identifier, requests: list[AccessRequest]) -> None:
    """Identify the callers of all requests."""
    for one in requests:
        assert isinstance(identifier.identify(one, NOW), Principal)


def times(rounds: int) -> None:
    """Measure and print what a token costs in time."""
    texts = [jwt.encode(claims(n), KEY, "RS256", {"kid": "one"}) for n in range(TOKENS)]
    requests = [request(text) for text in texts]
    source = BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=PEM, claims="keycloak")
    warm = Identifier((source,))
    accept(warm, requests)

    def decode() -> None:
        for text in texts:
            jwt.decode(text, PUBLIC_KEY, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)

    rows: dict[str, Callable[[], None]] = {
        "jwt.decode with a ready key": decode,
        "A/A": decode,
        "verified for the first time": lambda: accept(Identifier((source,), most_tokens=0), requests),
        "verified and remembered": lambda: accept(Identifier((source,)), requests),
        "remembered": lambda: accept(warm, requests),
    }
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 2):
        for name, work in rows.items():
            started = time.process_time_ns()
            work()
            if number >= 2:
                taken[name].append((time.process_time_ns() - started) / TOKENS / 1000)
    print(f"CPython {sys.version.split()[0]}, RS256, {len(texts[0])} characters, {rounds} rounds of {TOKENS} tokens\n")
    print(f"{'':32}{'us':>8}{'spread':>9}{'over jwt.decode':>17}")
    base = taken["jwt.decode with a ready key"]
    for name, measured in taken.items():
        quartiles = statistics.quantiles(measured, n=4)
        more = statistics.median(one - two for one, two in zip(measured, base, strict=True))
        print(f"{name:32}{statistics.median(measured):8.1f}{quartiles[2] - quartiles[0]:9.1f}{more:+17.1f}")


def space() -> None:
    """Measure and print what remembered tokens take."""
    # Signed by HMAC, as that is quicker to make: neither signature nor text of a token is kept.
    identifier = Identifier(
        (BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"], claims="keycloak"),),
        most_tokens=REMEMBERED,
    )
    gc.collect()
    before = memory()
    for number in range(REMEMBERED):
        accept(identifier, [request(jwt.encode(claims(number), SECRET, "HS256", {"kid": "one"}))])
    gc.collect()
    grown = memory() - before
    print(f"\n{REMEMBERED:,} remembered tokens: {grown / 1e6:.0f} MB, {grown / REMEMBERED:.0f} bytes each")


if __name__ == "__main__":
    space()  # first, while the process is small
    times(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
