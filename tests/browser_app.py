"""The service that pages call in a real browser, by FastAPI and by Flask: `fastapi_app` and `flask_app` name origins.

`fastapi_any` and `flask_any` let any origin call, which excludes cookies.
"""

from __future__ import annotations

from typing import Final

import flask
from fastapi import FastAPI, Response, WebSocket

import authz403.flask
from authz403 import BearerTokens, Cors, Gate, Principal, authenticated, public, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal
from authz403.request import AccessRequest
from tests.apps_made import AUDIENCE, ISSUER, NOW, SECRET
from tests.attacked_app import write_down

COOKIE: Final = "session"
NAMED: Final = Cors(
    origins=["http://localhost:*", "http://*.shop.localhost:*"],
    headers=["Authorization", "Content-Type", "X-Own"],
    expose=["X-Total"],
    credentials=True,
    debug=True,
)
ANY: Final = Cors(origins=["*"])


class Sessions:
    """Callers by a cookie that holds their name."""

    fields = frozenset({"cookie"})

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        pairs = "; ".join(request.fields.get("cookie", ())).split("; ")
        names = [pair.removeprefix(f"{COOKIE}=") for pair in pairs if pair.startswith(f"{COOKIE}=")]
        return Principal(sub=names[0], issuer="sessions") if names else None


def gate_of(cors: Cors) -> Gate:
    """Return the gate before the service."""
    tokens = BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"])
    return Gate(tokens=[Sessions(), tokens], cors=cors, clock=lambda: NOW)


def by_fastapi(cors: Cors) -> FastAPI:
    """Return the service on FastAPI."""
    app = FastAPI()

    @app.post("/orders")
    @requires(scopes("orders:write"))
    async def order(response: Response) -> dict[str, str]:
        write_down("order")
        response.headers["X-Total"] = "1"
        return {"status": "created"}

    @app.get("/me")
    @requires(authenticated)
    async def me(user: CurrentPrincipal) -> dict[str, str]:
        write_down("me")
        return {"sub": user.sub}

    @app.get("/sign-in")
    @public
    async def sign_in(response: Response) -> dict[str, str]:
        response.set_cookie(COOKIE, "ada", httponly=True)
        return {}

    @app.get("/crash")
    @public
    async def crash() -> None:
        raise LookupError("a bug in the app")

    @app.websocket("/live")
    @public
    async def live(socket: WebSocket) -> None:
        write_down("live")
        await socket.accept()
        await socket.send_text("hello")
        await socket.close()

    app.add_middleware(AuthzMiddleware, gate=gate_of(cors))
    return app


def by_flask(cors: Cors) -> flask.Flask:
    """Return the service on Flask."""
    app = flask.Flask(__name__)

    @app.post("/orders")
    @requires(scopes("orders:write"))
    def order() -> tuple[dict[str, str], dict[str, str]]:
        write_down("order")
        return {"status": "created"}, {"X-Total": "1"}

    @app.get("/me")
    @requires(authenticated)
    def me() -> dict[str, str]:
        write_down("me")
        return {"sub": flask.g.principal.sub}

    @app.get("/sign-in")
    @public
    def sign_in() -> flask.Response:
        response = flask.jsonify({})
        response.set_cookie(COOKIE, "ada", httponly=True)
        return response

    @app.get("/crash")
    @public
    def crash() -> str:
        raise LookupError("a bug in the app")

    authz403.flask.init_app(app, gate=gate_of(cors))
    return app


fastapi_app, fastapi_any = by_fastapi(NAMED), by_fastapi(ANY)
flask_app, flask_any = by_flask(NAMED), by_flask(ANY)
