"""An app to attack, bare and behind its gate; its handlers note that they ran. Servers start it by the names below.

>>> make_app(ran.append, is_guarded=True)  # in process
>>> with Served("uvicorn-h11", "guarded", tmp_path) as served: ...  # over sockets
"""

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import jwt
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import BearerTokens, Gate, Network, Rule, any_role, networks, public, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import needs

RAN_FILE: Final = "AUTHZ403_TEST_RAN"
"""The variable that names the file to which a served app's handlers append their names."""

NOBODY: Final = "anonymous"
PARTLY: Final = "partly entitled"
FULLY: Final = "fully entitled"
CALLERS: Final = (NOBODY, PARTLY, FULLY)

WHO_MAY: Final[dict[str, Collection[str]]] = {
    "index": CALLERS,
    "public": CALLERS,
    "order": (PARTLY, FULLY),
    "order removed": (FULLY,),
    "admin": (FULLY,),
    "admin user": (FULLY,),
    "file": (FULLY,),
    "report": (FULLY,),
    "sub admin": (FULLY,),
    "sub items": (PARTLY, FULLY),
    "sub items added": (FULLY,),
    "live": (FULLY,),
    "inside": (),  # nobody here calls from its network
    "forgotten": (),
}
"""Every handler of the app, and who meets what stands before it."""

PROTECTED: Final = (
    *("/admin", "/admin/users/7", "/orders/5", "/files/a/b", "/v1/report"),
    *("/sub/admin", "/sub/items", "/inside", "/forgotten"),
)
"""Paths of handlers that not everybody may run."""

_ISSUER: Final = "https://id.example"
_AUDIENCE: Final = "attacked"
_SECRET: Final = "0123456789abcdef0123456789abcdef"
_FORGERS_SECRET: Final = "fedcba9876543210fedcba9876543210"
TOKENS: Final = BearerTokens(issuer=_ISSUER, audience=_AUDIENCE, key=_SECRET, algorithms=["HS256"])
_CLAIMS: Final[dict[str, dict[str, object]]] = {
    PARTLY: {"scope": "orders:read"},
    FULLY: {"scope": "orders:read orders:write files v1 live", "roles": ["admin"]},
}


def credentials_of(caller: str) -> str | None:
    """Return what a caller writes into the Authorization header; anybody but the three above has no scope at all."""
    return None if caller == NOBODY else _bearer(caller, _SECRET)


def forged_credentials() -> str:
    """Return those of the fully entitled caller, by somebody who does not have the key."""
    return _bearer(FULLY, _FORGERS_SECRET)


def _bearer(caller: str, secret: str) -> str:
    claims = {"iss": _ISSUER, "aud": _AUDIENCE, "sub": caller, "exp": int(time.time()) + 3_600}
    claims |= _CLAIMS.get(caller, {})
    return "Bearer " + jwt.encode(claims, secret, algorithm="HS256")


def make_app(note: Callable[[str], object], *, is_guarded: bool, network: Network | None = None) -> ASGIApp:
    """Return the app; each handler first calls `note` with its name."""

    def answering(name: str) -> Callable[[Request], object]:
        async def run(request: Request) -> Response:
            note(name)
            return PlainTextResponse(f"{name} {request.path_params}")

        return run

    class Items(HTTPEndpoint):
        @requires(scopes("orders:read"))
        async def get(self, request: Request) -> Response:
            note("sub items")
            return PlainTextResponse("sub items")

        @requires(scopes("orders:write"))
        async def post(self, request: Request) -> Response:
            note("sub items added")
            return PlainTextResponse("sub items added")

    app = FastAPI(openapi_url=None)
    app.get("/")(public(answering("index")))
    app.api_route("/public", methods=["GET", "POST"])(public(answering("public")))
    app.get("/admin")(answering("admin"))
    app.get("/admin/users/{user:int}")(answering("admin user"))
    app.get("/orders/{order:int}")(answering("order"))
    app.delete("/orders/{order:int}")(answering("order removed"))
    app.get("/files/{path:path}")(requires(scopes("files"))(answering("file")))
    app.get("/inside")(requires(networks("10.0.0.0/8"))(answering("inside")))
    app.get("/forgotten")(answering("forgotten"))
    v1 = APIRouter(prefix="/v1", dependencies=[needs(scopes("v1"))] if is_guarded else [])
    v1.get("/report")(answering("report"))
    app.include_router(v1)
    sub = Starlette(routes=[Route("/admin", answering("sub admin")), Route("/items", Items)])
    app.router.routes.append(Mount("/sub", sub))

    @app.websocket("/live")
    @requires(scopes("live"))
    async def live(websocket: WebSocket) -> None:
        note("live")
        await websocket.accept()
        await websocket.close()

    if not is_guarded:
        return app
    gate = Gate(
        tokens=TOKENS,
        rules=[
            Rule("*", "/admin/**", any_role("admin")),
            Rule("*", "/sub/admin", any_role("admin")),
            Rule("GET", "/orders/*", scopes("orders:read")),
            Rule("DELETE", "/orders/*", scopes("orders:write")),
        ],
        network=network,
    )
    return AuthzMiddleware(app, gate=gate)


def write_down(name: str) -> None:
    """Note in the file of a served app that a handler ran."""
    with Path(os.environ[RAN_FILE]).open("a", encoding="utf-8") as ran:
        ran.write(f"{name}\n")


def _served(*, is_guarded: bool, network: Network | None = None) -> ASGIApp:
    app: ASGIApp | None = None

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal app
        app = app or make_app(write_down, is_guarded=is_guarded, network=network)
        await app(scope, receive, send)

    return serve


bare: Final = _served(is_guarded=False)
guarded: Final = _served(is_guarded=True)
behind_proxy: Final = _served(is_guarded=True, network=Network(trusted_proxies=["127.0.0.0/8"]))
