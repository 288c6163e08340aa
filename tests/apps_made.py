"""Small apps, gates and tokens for tests, and an ASGI client that sends what no well-behaved client can."""

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import jwt
import structlog
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from authz403 import BearerTokens, Gate
from authz403.asgi import AuthzMiddleware

ISSUER: Final = "https://id.example"
AUDIENCE: Final = "orders-api"
SECRET: Final = "0123456789abcdef0123456789abcdef"
NOW: Final = 1_800_000_000.0
PEER: Final = ("127.0.0.1", 50_000)
ORIGIN: Final = "https://app.example"

TOKENS: Final = BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"])
FRAMEWORKS: Final = (Starlette, FastAPI)

AnyEndpoint = Callable[[Request], Awaitable[Response]]

gate_with = functools.partial(Gate, tokens=TOKENS, clock=lambda: NOW)
"""A gate that knows the tokens made here, at a time that stands still."""


def signed(sub: str = "ada", *, secret: str = SECRET, typ: str | None = "JWT", **claims: object) -> str:
    """Return a token of the test issuer, valid for five minutes; `claims` replace and add, `None` leaves one out."""
    known = {"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "iat": int(NOW), "exp": int(NOW) + 300, **claims}
    kept = {name: value for name, value in known.items() if value is not None}
    return jwt.encode(kept, secret, algorithm="HS256", headers={"typ": typ} if typ is not None else {"typ": None})


def bearer(sub: str = "ada", **claims: object) -> dict[str, str]:
    """Return the Authorization header of a caller."""
    return {"Authorization": f"Bearer {signed(sub, **claims)}"}  # type: ignore[arg-type]  # all of these are claims


def client_of(app: ASGIApp, *, raise_server_exceptions: bool = True) -> TestClient:
    """Return a client whose address is an IP, and which follows no redirects."""
    return TestClient(
        app,
        client=PEER,
        base_url="http://testserver",
        follow_redirects=False,
        raise_server_exceptions=raise_server_exceptions,
    )


def ran_by(name: str, ran: list[str]) -> AnyEndpoint:
    """Return an endpoint that notes that it ran, and answers with its name."""

    async def run(request: Request) -> Response:
        ran.append(name)
        return PlainTextResponse(name)

    return run


def add_route(app: Starlette, path: str, endpoint: AnyEndpoint, methods: Iterable[str] = ("GET",)) -> None:
    """Add a route the way of the app's framework."""
    if isinstance(app, FastAPI):
        app.add_api_route(path, endpoint, methods=list(methods))
    else:
        app.router.routes.append(Route(path, endpoint, methods=list(methods)))


def add_websocket(app: Starlette, path: str, endpoint: Callable[[WebSocket], Awaitable[None]]) -> None:
    """Add a WebSocket route the way of the app's framework."""
    if isinstance(app, FastAPI):
        app.add_api_websocket_route(path, endpoint)
    else:
        app.router.add_websocket_route(path, endpoint)


def guarded(app: Starlette, gate: Gate) -> Starlette:
    """Put the app behind a gate by `add_middleware`."""
    app.add_middleware(AuthzMiddleware, gate=gate)
    return app


def wrapped(app: ASGIApp, gate: Gate) -> AuthzMiddleware:
    """Put the app behind a gate from outside."""
    return AuthzMiddleware(app, gate=gate)


def unwalkable(app: ASGIApp) -> ASGIApp:
    """Return the app in a wrapper that hides what it wraps."""

    async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)

    return hidden


def answering(name: str, ran: list[str]) -> ASGIApp:
    """Return a plain ASGI app that notes each request it gets."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        ran.append(name)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await PlainTextResponse(name)(scope, receive, send)

    return run


# ---- an ASGI client of few manners


@dataclass
class Answer:
    """What an app sent for one connection, and what it raised."""

    messages: list[Message] = field(default_factory=list)
    error: Exception | None = None
    body_was_read: bool = False

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self._start["status"])

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header lines of the answer, as they were sent."""
        return [(name, value) for name, value in self._start["headers"]]

    def header(self, name: str) -> str | None:
        """Return the value of a header; fails where there are two."""
        found = [value.decode("latin-1") for given, value in self.headers if given == name.encode()]
        assert len(found) <= 1, f"{name} was sent twice"
        return found[0] if found else None

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        return b"".join(message.get("body", b"") for message in self.messages if message["type"].endswith(".body"))

    @property
    def reason(self) -> object:
        """The reason in the problem document."""
        return json.loads(self.body)["reason"]

    @property
    def _start(self) -> Message:
        starts = [message for message in self.messages if message["type"].endswith("response.start")]
        assert len(starts) == 1, f"one answer was expected: {self.messages}"
        return starts[0]


def scope_of(
    path: str = "/",
    method: str = "GET",
    *,
    headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
    kind: str = "http",
    **more: object,
) -> Scope:
    """Return an ASGI scope; `more` replaces and adds members, `None` leaves one out."""
    lines = headers.items() if isinstance(headers, Mapping) else headers
    scope: dict[str, object] = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in lines],
        "client": PEER,
        "server": ("testserver", 80),
        "method": method if kind == "http" else None,
        "subprotocols": [] if kind == "websocket" else None,
        **more,
    }
    return {name: value for name, value in scope.items() if value is not None}


async def connect(app: ASGIApp, scope: Scope, incoming: Iterable[Message] | None = None) -> Answer:
    """Run an app for one connection. Without `incoming`, asking for a message is noted and answered by a disconnect."""
    answer = Answer()
    waiting = None if incoming is None else iter(incoming)

    async def receive() -> Message:
        if waiting is None:
            answer.body_was_read = True
        message = None if waiting is None else next(waiting, None)
        return {"type": f"{scope['type']}.disconnect"} if message is None else message

    async def send(message: Message) -> None:
        answer.messages.append(message)

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - what an app raises is part of its answer
        answer.error = error
    return answer


def drive(app: ASGIApp, scope: Scope, incoming: Iterable[Message] | None = None) -> Answer:
    """Run an app for one connection, in an event loop of its own."""
    return asyncio.run(connect(app, scope, incoming))


CONNECT: Final[tuple[Message, ...]] = ({"type": "websocket.connect"},)
BODYLESS: Final[tuple[Message, ...]] = ({"type": "http.request", "body": b"", "more_body": False},)


# ---- the log


@contextmanager
def listening() -> Iterator[list[dict[str, object]]]:
    """Collect the events of the library, as an app that configured no logging for structlog writes them.

    The list of what has no policy is left out: it comes once an app, whatever the test is about.
    """
    found: list[dict[str, object]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            event = json.loads(record.getMessage())
            if event.get("cause") != "default_applies":
                found.append(event)

    structlog.reset_defaults()
    logger = logging.getLogger("authz403")
    handler = Collect()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
