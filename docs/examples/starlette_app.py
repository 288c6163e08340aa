"""A guarded Starlette app, with request.user, request.auth and Starlette's own requires."""

from starlette.applications import Starlette
from starlette.authentication import requires as starlette_requires
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from authz403 import BearerTokens, Gate, authenticated, guard, optional, public, requires, scopes
from authz403.asgi import AuthzMiddleware

SECRET = "only-for-trying-out-0123456789abcdef"
tokens = BearerTokens(
    issuer="https://id.example",
    audience="orders-api",
    key=SECRET,
    algorithms=["HS256"],
    read_from=["authorization", "sec-websocket-protocol"],
)
gate = Gate(tokens=tokens)


@public
async def health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


@requires(authenticated)
async def whoami(request: Request) -> JSONResponse:
    return JSONResponse({"sub": request.user.sub, "scopes": request.auth.scopes})


@requires(optional)
async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"hello": request.user.display_name or "stranger"})


class Orders(HTTPEndpoint):
    @requires(scopes("orders:read"))
    async def get(self, request: Request) -> JSONResponse:
        return JSONResponse(["lamp", "chair"])

    @requires(scopes("orders:write"))
    async def post(self, request: Request) -> JSONResponse:
        return JSONResponse({"status": "created"}, status_code=201)


@requires(scopes("orders:read"))
async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({"hello": websocket.user.sub})
    await websocket.close()


@starlette_requires(["authenticated", "orders:read"])
async def old_report(request: Request) -> JSONResponse:
    return JSONResponse({"for": request.user.identity})


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/whoami", whoami),
        Route("/hello", hello),
        Route("/orders", Orders),
        WebSocketRoute("/live", live),
        guard(Mount("/old", routes=[Route("/report", old_report)]), optional),
    ],
    middleware=[Middleware(AuthzMiddleware, gate=gate)],
)
