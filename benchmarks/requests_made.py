"""A gate with everything switched on, an app behind it, and the tokens and requests that the benchmarks send."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from authz403 import BearerTokens, Cors, Gate, Network, Rbac, Requirement, Rule, any_role, networks, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.findings import FIRST

ISSUER: Final = "https://id.example"
AUDIENCE: Final = "orders-api"
KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC_KEY: Final = KEY.public_key()
PEM: Final = PUBLIC_KEY.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
SECRET: Final = "only-for-measuring-0123456789abcdef"
ORIGIN: Final = "https://app.example"
POLICY: Final = scopes("orders:read") & any_role("seller") & networks("10.0.0.0/8")
ENOUGH: Final = "orders:read orders:write"
"""The scopes of a token that the policy lets in."""
TOO_LITTLE: Final = "orders:write"
WARM: Final = FIRST + 50
"""A gate looks closely at its first requests; what is measured are those that come later."""

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def token(scope: str = ENOUGH, *, jti: str = "b0c4", by_secret: bool = False) -> str:
    """Return a token with this scope: signed by RSA, or by a secret that every process of a benchmark knows."""
    claims: dict[str, object] = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "web", "jti": jti, "scope": scope,
        "roles": ["seller", "auditor"], "exp": int(time.time()) + 3600, "tenant": "t-0123456789", "note": "x" * 200,
    }  # fmt: skip
    key, algorithm = (SECRET, "HS256") if by_secret else (KEY, "RS256")
    return jwt.encode(claims, key, algorithm, headers={"typ": "at+jwt"})


def gate(rules: Iterable[Rule] = (), *, by_secret: bool = False) -> Gate:
    """Return a gate with everything switched on."""
    tokens = (
        BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"])
        if by_secret
        else BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=PEM)
    )
    return Gate(
        rules=rules,
        tokens=tokens,
        rbac=Rbac(hierarchy={"admin": ["seller"]}),
        network=Network(trusted_proxies=["127.0.0.1/32"]),
        cors=Cors(origins=[ORIGIN]),
    )


async def answer(request: Request) -> PlainTextResponse:  # noqa: ARG001 - the name that Starlette wants
    """Answer as every app here does."""
    return PlainTextResponse("ok")


async def updates(websocket: WebSocket) -> None:
    """Accept a WebSocket, and close it."""
    await websocket.accept()
    await websocket.close()


def bare(*, routes: int = 0) -> Starlette:
    """Return a Starlette app with a route, a WebSocket, and so many further routes."""
    further = [Route(f"/r{number}/{{id}}", answer) for number in range(routes)]
    return Starlette(routes=[Route("/orders", answer), WebSocketRoute("/updates", updates), *further])


def guarded(policy: Requirement = POLICY, *, routes: int = 0, by_secret: bool = False) -> Starlette:
    """Return the same app behind a gate."""

    # Functions of its own, as a mark stays on its function.
    @requires(policy)
    async def orders(request: Request) -> PlainTextResponse:  # noqa: ARG001 - as above
        return PlainTextResponse("ok")

    @requires(policy)
    async def news(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    further = [Route(f"/r{number}/{{id}}", orders) for number in range(routes)]
    return Starlette(
        routes=[Route("/orders", orders), WebSocketRoute("/updates", news), *further],
        middleware=[Middleware(AuthzMiddleware, gate=gate(by_secret=by_secret))],
    )


def headers(bearer: str | None) -> dict[str, str]:
    """Return ten header fields as a browser and a proxy send them, or nine without a token."""
    found = {
        "host": "api.example",
        "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
        "accept": "application/json",
        "accept-encoding": "gzip, deflate, br",
        "accept-language": "en-GB,en;q=0.9",
        "origin": ORIGIN,
        "referer": f"{ORIGIN}/",
        "x-forwarded-for": "10.1.2.3",
        "x-request-id": "6b1f5f4e",
    }
    return found if bearer is None else {**found, "authorization": f"Bearer {bearer}"}


def scope(path: str, bearer: str | None, *, method: str = "GET", **further: str) -> dict[str, Any]:
    """Return the ASGI scope of a request; further header fields have `_` for `-`."""
    fields = headers(bearer) | {name.replace("_", "-"): value for name, value in further.items()}
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": b"", "scheme": "http",
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip


def handshake(path: str, bearer: str) -> dict[str, Any]:
    """Return the ASGI scope of a WebSocket."""
    found = scope(path, bearer) | {"type": "websocket", "scheme": "ws", "subprotocols": []}
    del found["method"]
    return found


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


async def shake_hands(app: App, request: dict[str, Any]) -> None:
    """Open a WebSocket, which the app closes as soon as it has accepted it."""
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    await app(dict(request), receive, send)
    assert sent == ["websocket.accept", "websocket.close"], sent
