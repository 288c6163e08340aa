"""What the demo runs: a token issuer with fresh keys, and an orders service that the library guards."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi import APIRouter, FastAPI, WebSocket
from jwt.algorithms import RSAAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from authz403 import (
    BearerTokens,
    Cors,
    Gate,
    Network,
    Rbac,
    Reason,
    Rule,
    any_role,
    anyone,
    check,
    networks,
    public,
    requires,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal, needs

AUDIENCE: Final = "orders-api"
BROWSER_ORIGIN: Final = "http://localhost:5173"
_START_TIMEOUT: Final = 10.0  # seconds

ORDERS: Final = {1: {"owner": "alice", "item": "lamp"}, 2: {"owner": "bob", "item": "chair"}}


class Issuer:
    """A token issuer for the demo: an RSA key made now, its metadata and its JWKS."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public_key: dict[str, Any] = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self._jwks = {"keys": [{**public_key, "kid": "demo", "use": "sig", "alg": "RS256"}]}

    def token(
        self, sub: str, *, scope: str = "", roles: tuple[str, ...] = (), aud: str = AUDIENCE, lives: int = 600
    ) -> str:
        """Return a signed access token (RFC 9068) that lives so many seconds."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": aud, "sub": sub, "client_id": "demo", "iat": now, "exp": now + lives}
        claims |= {"scope": scope, "roles": list(roles), "jti": f"demo-{sub}-{now}"}
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": "demo", "typ": "at+jwt"})

    def app(self) -> ASGIApp:
        """Return the issuer's web app: its metadata and its keys."""

        async def metadata(_request: Request) -> JSONResponse:
            return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"})

        async def jwks(_request: Request) -> JSONResponse:
            return JSONResponse(self._jwks, headers={"Cache-Control": "max-age=300"})

        return Starlette(routes=[Route("/.well-known/openid-configuration", metadata), Route("/jwks", jwks)])


def orders_service(issuer: str) -> FastAPI:
    """Return the guarded service: the policy of each endpoint stands at the endpoint."""
    gate = Gate(
        tokens=BearerTokens(issuer=issuer, audience=AUDIENCE),
        rules=[
            Rule("GET", "/docs", anyone),
            Rule("GET", "/openapi.json", anyone),
            Rule("*", "/reports/**", networks("10.0.0.0/8")),
        ],
        rbac=Rbac(hierarchy={"admin": ["seller"]}),
        network=Network(trusted_proxies=["127.0.0.1/32"]),
        cors=Cors(origins=[BROWSER_ORIGIN]),
    )
    app = FastAPI(title="Orders")
    app.add_middleware(AuthzMiddleware, gate=gate)

    @app.get("/health")
    @public
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/orders/{number}")
    @requires(scopes("orders:read"))
    async def read_order(number: int, user: CurrentPrincipal) -> dict[str, str]:
        order = ORDERS.get(number, {"owner": "nobody", "item": ""})
        check(order["owner"] == user.sub, Reason.NOT_OWNER, order=number)
        return order

    @app.post("/orders", status_code=201)
    @requires(scopes("orders:read", "orders:write"))
    async def create_order(user: CurrentPrincipal) -> dict[str, str]:
        return {"owner": user.sub, "item": "table"}

    @app.get("/reports/today")
    @requires(scopes("orders:read"))
    async def report() -> dict[str, int]:
        return {"orders": len(ORDERS)}

    @app.websocket("/live")
    @requires(scopes("orders:read"))
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    admin = APIRouter(prefix="/admin", dependencies=[needs(any_role("admin"))])

    @admin.delete("/orders/{number}")
    async def delete_order(number: int) -> dict[str, int]:
        return {"deleted": number}

    app.include_router(admin)
    return app


def listening_socket() -> tuple[socket.socket, str]:
    """Return a socket on a free port of this machine, and its URL."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    return found, f"http://127.0.0.1:{found.getsockname()[1]}"


@contextmanager
def running(app: ASGIApp, where: socket.socket) -> Iterator[None]:
    """Serve an app by uvicorn in a thread. The library reads X-Forwarded-For itself, so uvicorn leaves it alone."""
    # uvicorn calls a WebSocket that was answered by HTTP an error in its log, so that only worse is shown here.
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [where]}, daemon=True)
    thread.start()
    try:
        ends = time.monotonic() + _START_TIMEOUT
        while not server.started:
            if not thread.is_alive() or time.monotonic() > ends:
                raise RuntimeError("the server of the demo did not start")
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(_START_TIMEOUT)
        where.close()
