"""What a guarded request costs beside what people put before their apps today: ratios over the bare app, in one run.

Run: `make bench`, or `PYTHONPATH=. python benchmarks/bench_peers.py [rounds] [--json]` in an environment of
`requirements/bench.txt`. In process, interleaved, on CPU time: each round serves every row, a row is the median over
rounds, and the A/A rows measure the bare apps against themselves, which shows the noise. All rows verify the same RS256
token, with a key made once; those marked `cached` verify it once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final

import casbin
import flask
import jwt
import structlog
from authlib.oauth2.rfc6749 import ResourceProtector
from authlib.oauth2.rfc6750 import BearerTokenValidator
from fastapi import FastAPI, HTTPException, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
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
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import authz403
import authz403.flask
from authz403.asgi import AuthzMiddleware
from benchmarks.bench_request import AUDIENCE, ISSUER, KEY, PEM, POLICY, gate, scope, serve, token
from benchmarks.bench_wsgi import environ_of
from benchmarks.bench_wsgi import serve as serve_wsgi

REQUESTS: Final = 100  # a round
PUBLIC_KEY: Final = KEY.public_key()
Row = tuple[str, str, Callable[[], Awaitable[None]] | Callable[[], None]]


def verified(bearer: str) -> dict[str, Any]:
    """Verify a token as PyJWT does it, with a key that is ready."""
    found: dict[str, Any] = jwt.decode(bearer, PUBLIC_KEY, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)
    return found


cached: Final = lru_cache(maxsize=1024)(verified)


async def answer(request: Request) -> PlainTextResponse:  # noqa: ARG001 - the name that Starlette wants
    """Answer as every app here does."""
    return PlainTextResponse("ok")


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


def _json(event: dict[str, object], **_: object) -> bytes:
    return json.dumps(event).encode()


LOG: Final = structlog.wrap_logger(
    structlog.BytesLogger(Path("/dev/null").open("wb")),  # noqa: SIM115 - open as long as the process
    processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer(_json)],
)


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


class WithCasbin:
    """A middleware that asks casbin, with some policies."""

    def __init__(self, app: ASGIApp, *, policies: int) -> None:
        self.app = app
        model = casbin.Model()
        for section, key, text in (
            ("r", "r", "sub, obj, act"),
            ("p", "p", "sub, obj, act"),
            ("e", "e", "some(where (p.eft == allow))"),
            ("m", "m", "r.sub == p.sub && keyMatch(r.obj, p.obj) && r.act == p.act"),
        ):
            model.add_def(section, key, text)
        self._enforcer = casbin.Enforcer(model)
        self._enforcer.add_policies([[f"user{number}", f"/r{number}/*", "GET"] for number in range(policies - 1)])
        self._enforcer.add_policy("alice", "/orders", "GET")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        claims = cached(Request(scope).headers["authorization"].partition(" ")[2])
        assert self._enforcer.enforce(claims["sub"], scope["path"], scope["method"])
        await self.app(scope, receive, send)


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


def asgi_row(name: str, base: str, app: Any, bearer: str, expected: int = 200) -> Row:  # noqa: ANN401 - an ASGI app
    """Return a row that serves a request of ten headers."""
    request = scope("/orders", bearer)
    return name, base, lambda: serve(app, request, expected)


def wsgi_row(name: str, base: str, app: Any, bearer: str) -> Row:  # noqa: ANN401 - a WSGI app
    """Return a row of a Flask app."""
    environ = environ_of(bearer, is_full=True)
    return name, base, lambda: serve_wsgi(app, environ)


def guarded(*, policy: authz403.Requirement = POLICY) -> Starlette:
    """Return a Starlette app with everything switched on."""
    return starlette_app(Middleware(AuthzMiddleware, gate=gate()), endpoint=authz403.requires(policy)(answer))


def rows() -> list[Row]:
    """Return what is measured."""
    good, poor = token("orders:read orders:write"), token("orders:write")
    bare, plain_fastapi, plain_flask = starlette_app(), fastapi_app("bare"), flask_app("bare")
    backend = PyJwtBackend(verified)
    authenticated = Middleware(AuthenticationMiddleware, backend=backend)
    by_starlette = requires("orders:read")(answer)
    cors = Middleware(CORSMiddleware, allow_origins=["https://app.example"], allow_headers=["authorization"])
    whole = (cors, authenticated, Middleware(Assembled))
    mcp = (
        Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(McpVerifier())),
        Middleware(RequireAuthMiddleware, required_scopes=["orders:read"]),
    )
    on_starlette: Iterable[tuple[str, Any, str, int]] = (
        ("bare Starlette", bare, good, 200),
        ("A/A", bare, good, 200),
        ("authz403, allowed", guarded(), good, 200),
        ("authz403, refused, no log event", guarded(), poor, 403),
        ("authz403, public endpoint", guarded(policy=authz403.anyone), good, 200),
        ("CORSMiddleware alone", starlette_app(cors), good, 200),
        ("BaseHTTPMiddleware that does nothing", starlette_app(Middleware(Nothing)), good, 200),
        ("AuthenticationMiddleware + PyJWT", starlette_app(authenticated, endpoint=by_starlette), good, 200),
        (
            "AuthenticationMiddleware + PyJWT, cached",
            starlette_app(
                Middleware(AuthenticationMiddleware, backend=PyJwtBackend(cached)), endpoint=by_starlette
            ), good, 200,
        ),
        ("CORS + PyJWT + addresses, allowed", starlette_app(*whole), good, 200),
        ("CORS + PyJWT + addresses, refused, logged", starlette_app(*whole), poor, 403),
        ("MCP SDK", starlette_app(*mcp), good, 200),
        ("Authlib", starlette_app(Middleware(WithAuthlib)), good, 200),
        ("guardpost", starlette_app(Middleware(WithGuardpost)), good, 200),
        ("casbin, 10 policies, cached", starlette_app(Middleware(WithCasbin, policies=10)), good, 200),
        ("casbin, 1,000 policies, cached", starlette_app(Middleware(WithCasbin, policies=1_000)), good, 200),
    )  # fmt: skip
    return [
        *(asgi_row(name, "bare Starlette", app, bearer, status) for name, app, bearer, status in on_starlette),
        asgi_row("bare FastAPI", "bare FastAPI", plain_fastapi, good),
        asgi_row("A/A FastAPI", "bare FastAPI", plain_fastapi, good),
        asgi_row("authz403 on FastAPI", "bare FastAPI", fastapi_app("authz403"), good),
        asgi_row("FastAPI Security + PyJWT", "bare FastAPI", fastapi_app("Security"), good),
        wsgi_row("bare Flask", "bare Flask", plain_flask, good),
        wsgi_row("A/A Flask", "bare Flask", plain_flask, good),
        wsgi_row("authz403 on Flask", "bare Flask", flask_app("authz403"), good),
        wsgi_row("Flask-JWT-Extended", "bare Flask", flask_app("Flask-JWT-Extended"), good),
    ]


async def main(rounds: int, *, as_json: bool) -> None:
    """Measure all rows, interleaved, and print them."""
    logging.disable(logging.CRITICAL)
    measured = rows()
    taken: dict[str, list[float]] = {name: [] for name, *_ in measured}
    for number in range(rounds + 1):
        for name, _, ask in measured:
            started = time.process_time_ns()
            for _ in range(REQUESTS):
                done = ask()
                if done is not None:
                    await done
            if number:
                taken[name].append((time.process_time_ns() - started) / REQUESTS / 1000)
    told = []
    for name, base, _ in measured:
        low, median, high = statistics.quantiles(taken[name], n=4)
        pairs = list(zip(taken[name], taken[base], strict=True))
        told.append(
            {
                "row": name,
                "base": base,
                "us": round(median, 2),
                "spread": round(high - low, 2),
                "added": round(statistics.median(one - two for one, two in pairs), 2),
                "ratio": round(statistics.median(one / two for one, two in pairs), 3),
            }
        )
    if as_json:
        print(json.dumps({"python": sys.version.split()[0], "rounds": rounds, "rows": told}, indent=1))
        return
    print(f"CPython {sys.version.split()[0]}, {rounds} rounds of {REQUESTS} requests, CPU time, medians\n")
    print(f"{'':44}{'us':>8}{'spread':>8}{'added':>9}{'ratio':>8}")
    for row in told:
        print(f"{row['row']:44}{row['us']:8.1f}{row['spread']:8.1f}{row['added']:9.1f}{row['ratio']:8.2f}")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
    asyncio.run(main(numbers[0] if numbers else 30, as_json="--json" in sys.argv))
