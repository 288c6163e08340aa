"""What the gate costs a request, in process: ratios over the bare app, interleaved in one run, on CPU time.

Run: `make bench`, or `.venv/bin/python benchmarks/bench_request.py [rounds]`. Rows are medians over rounds; the A/A row
measures the bare app against itself and shows the noise.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from authz403 import BearerTokens, Cors, Gate, Network, Rbac, Rule, any_role, networks, public, requires, scopes
from authz403.asgi import AuthzMiddleware

REQUESTS = 300  # a round
ISSUER, AUDIENCE = "https://id.example", "orders-api"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def token(scope: str) -> str:
    """Return a signed token with this scope."""
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "client_id": "web",
        "jti": "b0c4",
        "scope": scope,
    }
    claims |= {
        "roles": ["seller", "auditor"],
        "exp": int(time.time()) + 3600,
        "tenant": "t-0123456789",
        "note": "x" * 200,
    }
    return jwt.encode(claims, KEY, algorithm="RS256", headers={"typ": "at+jwt"})


def gate(rules: Iterable[Rule] = ()) -> Gate:
    """Return a gate with everything switched on."""
    return Gate(
        rules=rules,
        tokens=BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=PEM),
        rbac=Rbac(hierarchy={"admin": ["seller"]}),
        network=Network(trusted_proxies=["127.0.0.1/32"]),
        cors=Cors(origins=["https://app.example"]),
    )


POLICY = scopes("orders:read") & any_role("seller") & networks("10.0.0.0/8")


def starlette_app(*, guarded: bool, routes: int = 1) -> App:
    """Return a Starlette app with a policy per endpoint."""

    @requires(POLICY)
    async def orders(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    @public
    async def open_to_all(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    found = [Route("/orders", orders), Route("/public", open_to_all)]
    found += [Route(f"/r{number}/{{id}}", open_to_all) for number in range(routes)]
    app = Starlette(routes=found)
    if guarded:
        app.add_middleware(AuthzMiddleware, gate=gate())
    return app


def fastapi_app(*, guarded: bool) -> App:
    """Return a FastAPI app with one guarded endpoint."""
    app = FastAPI(openapi_url=None)

    @app.get("/orders")
    @requires(POLICY)
    async def orders() -> dict[str, str]:
        return {"status": "ok"}

    if guarded:
        app.add_middleware(AuthzMiddleware, gate=gate())
    return app


def scope(path: str, bearer: str | None) -> dict[str, Any]:
    """Return the ASGI scope of a request with ten headers."""
    headers = [
        (b"host", b"api.example"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
        (b"accept", b"application/json"),
        (b"accept-encoding", b"gzip, deflate, br"),
        (b"accept-language", b"en-GB,en;q=0.9"),
        (b"origin", b"https://app.example"),
        (b"referer", b"https://app.example/"),
        (b"x-forwarded-for", b"10.1.2.3"),
        (b"x-request-id", b"6b1f5f4e"),
    ]
    if bearer is not None:
        headers.append((b"authorization", b"Bearer " + bearer.encode()))
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers, "scheme": "http",
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip


async def serve(app: App, request: dict[str, Any], expected: int) -> None:
    """Send one request through an app, and check its status."""
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(dict(request), receive, send)
    assert statuses == [expected], statuses


async def round_of(app: App, request: dict[str, Any], expected: int) -> float:
    """Return the microseconds of CPU time that a request takes, over one round."""
    started = time.process_time_ns()
    for _ in range(REQUESTS):
        await serve(app, request, expected)
    return (time.process_time_ns() - started) / REQUESTS / 1000


async def main(rounds: int) -> None:
    """Measure all rows, interleaved, and print them."""
    logging.getLogger("authz403").setLevel(logging.CRITICAL)
    good, poor = token("orders:read orders:write"), token("orders:write")
    bare, bare_fastapi = starlette_app(guarded=False), fastapi_app(guarded=False)
    guarded, guarded_fastapi = starlette_app(guarded=True), fastapi_app(guarded=True)
    large = starlette_app(guarded=True, routes=1000)
    allow, refuse, none = scope("/orders", good), scope("/orders", poor), scope("/public", None)
    rows: list[tuple[str, App, dict[str, Any], int, str]] = [
        ("bare Starlette", bare, allow, 200, "bare Starlette"),
        ("A/A", bare, allow, 200, "bare Starlette"),
        ("allowed, warm token", guarded, allow, 200, "bare Starlette"),
        ("allowed, of 1,000 routes", large, allow, 200, "bare Starlette"),
        ("public endpoint", guarded, none, 200, "bare Starlette"),
        ("refused, no log event", guarded, refuse, 403, "bare Starlette"),
        ("bare FastAPI", bare_fastapi, allow, 200, "bare FastAPI"),
        ("FastAPI, allowed, warm token", guarded_fastapi, allow, 200, "bare FastAPI"),
    ]
    taken: dict[str, list[float]] = {name: [] for name, *_ in rows}
    for number in range(rounds + 2):
        for name, app, request, expected, _ in rows:
            microseconds = await round_of(app, request, expected)
            if number >= 2:
                taken[name].append(microseconds)
    print(f"CPython {sys.version.split()[0]}, {rounds} rounds of {REQUESTS} requests, CPU time, medians\n")
    print(f"{'':32}{'us':>8}{'spread':>9}{'ratio':>8}")
    for name, _, _, _, base in rows:
        median = statistics.median(taken[name])
        quartiles = statistics.quantiles(taken[name], n=4)
        ratio = statistics.median(one / two for one, two in zip(taken[name], taken[base], strict=True))
        print(f"{name:32}{median:8.1f}{quartiles[2] - quartiles[0]:9.1f}{ratio:8.2f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
