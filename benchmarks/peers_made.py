"""What people put before their apps today: apps of one route behind the middleware of others, and of this library.

All verify the same RS256 token with a key made once; those that remember it verify it once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Final

import casbin
import flask
import jwt
import structlog
from authlib.oauth2.rfc6749 import ResourceProtector
from authlib.oauth2.rfc6750 import BearerTokenValidator
from fastapi import FastAPI, HTTPException, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from fastapi_authz import CasbinMiddleware
from flask_jwt_extended import JWTManager, jwt_required
from guardpost import AuthorizationStrategy, Identity, Policy
from guardpost.common import AuthenticatedRequirement
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser, requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import authz403
import authz403.flask
from authz403.asgi import AuthzMiddleware
from benchmarks.requests_made import AUDIENCE, ISSUER, ORIGIN, PEM, POLICY, PUBLIC_KEY, answer, gate


def verified(bearer: str) -> dict[str, Any]:
    """Verify a token as PyJWT does it, with a key that is ready."""
    found: dict[str, Any] = jwt.decode(bearer, PUBLIC_KEY, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)
    return found


cached: Final = lru_cache(maxsize=1024)(verified)


def starlette_app(*middleware: Middleware, endpoint: Callable[..., Any] = answer) -> Starlette:
    """Return an app with one route."""
    return Starlette(routes=[Route("/orders", endpoint)], middleware=middleware)


class PyJwtBackend(AuthenticationBackend):
    """What the documentation of Starlette shows, with a token verified by PyJWT."""

    def __init__(self, verify: Callable[[str], dict[str, Any]]) -> None:
        self._verify = verify

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        """See `AuthenticationBackend`."""
        scheme, _, bearer = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        claims = self._verify(bearer)
        return AuthCredentials(claims["scope"].split()), SimpleUser(claims["sub"])


class Nothing(BaseHTTPMiddleware):
    """A middleware that does nothing, in the way that is documented first."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Hand the request on."""
        return await call_next(request)


NETWORK: Final = ip_network("10.0.0.0/8")


LOG: Final = structlog.get_logger()


class Assembled:
    """What services write themselves: an address list, scopes, a JSON refusal, and a line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        request = Request(scope, receive)
        address = ip_address(request.headers["x-forwarded-for"].rsplit(",", maxsplit=1)[-1].strip())
        if address not in NETWORK or "orders:read" not in request.auth.scopes:
            LOG.warning("denied", path=request.url.path, sub=request.user.display_name, client=str(address))
            response = JSONResponse({"detail": "forbidden", "reason": "insufficient_scope"}, 403)
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)


class McpVerifier:
    """The verifier that the MCP SDK asks its users for."""

    async def verify_token(self, bearer: str) -> AccessToken | None:
        """See `TokenVerifier`."""
        claims = verified(bearer)
        return AccessToken(token=bearer, client_id=claims["client_id"], scopes=claims["scope"].split())


class _Claims(dict[str, Any]):
    """A token as Authlib asks about it."""

    def is_expired(self) -> bool:
        return False  # PyJWT has looked

    def is_revoked(self) -> bool:
        return False

    def get_scope(self) -> str:
        return str(self["scope"])


class AuthlibValidator(BearerTokenValidator):  # type: ignore[misc]  # it has no types
    """The validator that Authlib asks its users for."""

    def authenticate_token(self, token_string: str) -> _Claims:
        """See `BearerTokenValidator`."""
        return _Claims(verified(token_string))


class WithAuthlib:
    """A middleware that asks Authlib's resource protector."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._protector = ResourceProtector()
        self._protector.register_token_validator(AuthlibValidator())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        request = Request(scope)
        validator, bearer = self._protector.parse_request_authorization(request)
        validator.validate_token(validator.authenticate_token(bearer), ["orders:read"], request)
        await self.app(scope, receive, send)


class WithGuardpost:
    """A middleware that asks guardpost's authorization strategy."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._strategy = AuthorizationStrategy(Policy("signed in", AuthenticatedRequirement()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        bearer = Request(scope).headers["authorization"].partition(" ")[2]
        await self._strategy.authorize("signed in", Identity(verified(bearer), "Bearer"))
        await self.app(scope, receive, send)


def with_casbin(*, policies: int) -> tuple[Middleware, Middleware]:
    """Return the middleware of fastapi-authz, which asks casbin, with some policies, and one that knows the caller."""
    model = casbin.Model()
    for section, key, text in (
        ("r", "r", "sub, obj, act"),
        ("p", "p", "sub, obj, act"),
        ("e", "e", "some(where (p.eft == allow))"),
        ("m", "m", "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"),
    ):
        model.add_def(section, key, text)
    enforcer = casbin.Enforcer(model)
    enforcer.add_policies([[f"user{number}", f"/r{number}/*", "GET"] for number in range(policies - 1)])
    enforcer.add_policy("alice", "/orders", "GET")
    return Middleware(AuthenticationMiddleware, backend=PyJwtBackend(cached)), Middleware(
        CasbinMiddleware, enforcer=enforcer
    )


SCHEME: Final = OAuth2PasswordBearer(tokenUrl="token")


async def signed_in(security: SecurityScopes, bearer: Annotated[str, Security(SCHEME)]) -> dict[str, Any]:
    """Return the caller, as the documentation of FastAPI shows."""
    claims = verified(bearer)
    if not set(security.scopes) <= set(claims["scope"].split()):
        raise HTTPException(403)
    return claims


def fastapi_app(kind: str) -> FastAPI:
    """Return a FastAPI app: bare, with its own security dependencies, or guarded."""
    app = FastAPI(openapi_url=None)
    if kind == "Security":

        @app.get("/orders")
        async def secured(_: Annotated[dict[str, Any], Security(signed_in, scopes=["orders:read"])]) -> dict[str, str]:
            return {"status": "ok"}
    else:

        @app.get("/orders")
        @authz403.requires(POLICY)
        async def orders() -> dict[str, str]:
            return {"status": "ok"}

    if kind == "authz403":
        app.add_middleware(AuthzMiddleware, gate=gate())
    return app


def flask_app(kind: str) -> flask.Flask:
    """Return a Flask app: bare, with Flask-JWT-Extended, or guarded."""
    app = flask.Flask("orders")
    view: Callable[[], str] = authz403.requires(POLICY)(lambda: "ok")
    if kind == "Flask-JWT-Extended":
        app.config |= {
            "JWT_ALGORITHM": "RS256", "JWT_PUBLIC_KEY": PEM.decode(), "JWT_DECODE_AUDIENCE": AUDIENCE,
            "JWT_DECODE_ISSUER": ISSUER, "JWT_TOKEN_LOCATION": ["headers"],
        }  # fmt: skip
        JWTManager(app)
        view = jwt_required()(lambda: "ok")
    app.add_url_rule("/orders", "orders", view)
    if kind == "authz403":
        authz403.flask.init_app(app, gate=gate())
    return app


CORS: Final = Middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_headers=["authorization"])
NOTHING: Final = Middleware(Nothing)
PYJWT: Final = Middleware(AuthenticationMiddleware, backend=PyJwtBackend(verified))
PYJWT_CACHED: Final = Middleware(AuthenticationMiddleware, backend=PyJwtBackend(cached))
ASSEMBLED: Final = (CORS, PYJWT, Middleware(Assembled))
ASSEMBLED_CACHED: Final = (CORS, PYJWT_CACHED, Middleware(Assembled))
MCP: Final = (
    Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(McpVerifier())),
    Middleware(RequireAuthMiddleware, required_scopes=["orders:read"]),
)
AUTHLIB: Final = Middleware(WithAuthlib)
GUARDPOST: Final = Middleware(WithGuardpost)
BY_STARLETTE: Final = requires("orders:read")(answer)
