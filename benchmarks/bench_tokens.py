"""What a token costs: verified for the first time, beside `jwt.decode`, and remembered.

Run: `make bench`, or `PYTHONPATH=. .venv/bin/python benchmarks/bench_tokens.py [rounds] [--json]`. Times are CPU time,
medians over rounds that are interleaved in one run; the A/A row measures `jwt.decode` against itself and shows the
noise.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Final

import jwt

from authz403 import BearerTokens, Principal
from authz403.identity import Identifier
from authz403.request import AccessRequest
from benchmarks.measure import Bar, Report, Row, measured
from benchmarks.requests_made import AUDIENCE, ISSUER, KEY, PEM, PUBLIC_KEY

TOKENS: Final = 500  # a round
NOW: Final = time.time()
DECODE: Final = "jwt.decode with a ready key"
FIRST: Final = "verified for the first time"


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


def accept(identifier: Identifier, requests: list[AccessRequest]) -> None:
    """Identify the callers of all requests."""
    for one in requests:
        assert isinstance(identifier.identify(one, NOW), Principal)


def main() -> None:
    """Measure all rows, interleaved, and tell them."""
    report = Report(__doc__, 30)
    texts = [jwt.encode(claims(number), KEY, "RS256", {"kid": "one"}) for number in range(TOKENS)]
    requests = [request(text) for text in texts]
    source = BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=PEM, claims="keycloak")

    def decode() -> None:
        for text in texts:
            jwt.decode(text, PUBLIC_KEY, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)

    works: dict[str, Callable[[], object]] = {
        DECODE: decode,
        "A/A": decode,
        FIRST: lambda: accept(Identifier((source,), most_tokens=0), requests),
        "verified and remembered": lambda: accept(Identifier((source,)), requests),
        "remembered": partial(accept, Identifier((source,)), requests),
    }
    found = measured([Row(name, work, DECODE, units=TOKENS) for name, work in works.items()], report.number)
    title = f"A token by RS256, {len(texts[0])} characters, {TOKENS} a round, microseconds of CPU time, medians"
    report.table("rows", title, found.table())
    report.bars(Bar("verified for the first time, over jwt.decode", found.added(FIRST, DECODE), "us", 8, 0))
    report.end()


if __name__ == "__main__":
    main()
