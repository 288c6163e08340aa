"""What a guarded request costs beside what people put before their apps today: ratios over the bare app, in one run.

Run: `make bench`, or `PYTHONPATH=. python benchmarks/bench_peers.py [rounds] [--json]` in an environment of
`requirements/bench.txt`. In process, interleaved, on CPU time: each round serves every row, a row is the median over
rounds, `spread` the distance of its quartiles, and the A/A rows measure the bare apps against themselves, which shows
the noise. Where a row writes an event, or could, structlog is configured as in production (orjson to bytes, which go to
/dev/null); the other rows of this library have no log at all. `cached` rows verify their token once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final

from starlette.middleware import Middleware

import authz403
from benchmarks import peers_made as peers
from benchmarks.bench_wsgi import environ_of
from benchmarks.bench_wsgi import serve as serve_wsgi
from benchmarks.logs_made import configured
from benchmarks.measure import Bar, Measured, Report, Row, asked_a_round, measured
from benchmarks.requests_made import (
    TOO_LITTLE,
    WARM,
    App,
    answer,
    bare,
    guarded,
    handshake,
    scope,
    serve,
    shake_hands,
    token,
)

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

REQUESTS: Final = 100  # a round
FEW: Final = 20  # of those that take long, or whose tokens do to make

STARLETTE: Final = "bare Starlette"
FASTAPI: Final = "bare FastAPI"
FLASK: Final = "bare Flask"
WEBSOCKET: Final = "bare WebSocket handshake"
ALLOWED: Final = "authz403, allowed"
REFUSED: Final = "authz403, refused, no event"
LOGGED: Final = "authz403, refused, with its event"
PUBLIC: Final = "authz403, public endpoint"
PREFLIGHT: Final = "authz403, preflight"
HANDSHAKE: Final = "authz403, WebSocket handshake"
ON_FASTAPI: Final = "authz403 on FastAPI, allowed"
STACK: Final = "CORS + PyJWT + addresses, allowed"
STACK_CACHED: Final = "CORS + PyJWT + addresses, allowed, cached"
STACK_REFUSED: Final = "CORS + PyJWT + addresses, refused, logged"
CORS_PREFLIGHT: Final = "CORSMiddleware, preflight"


class Cold:
    """A row whose tokens nobody has shown before; the requests that warm it up have one token."""

    def __init__(self, rounds: int) -> None:
        self._app = guarded()
        fresh = [scope("/orders", token(jti=str(number))) for number in range(rounds * asked_a_round(FEW))]
        self._requests: Iterator[dict[str, Any]] = chain(repeat(scope("/orders", token()), WARM), fresh)

    async def serve(self) -> None:
        """Serve the next request."""
        await serve(self._app, next(self._requests), 200)


def asgi_row(name: str, base: str, app: App, request: dict[str, Any], expected: int = 200) -> Row:
    """Return a row that sends a request to an app."""
    return Row(name, lambda: serve(app, request, expected), base, REQUESTS, warm=WARM)


def own_rows(rounds: int) -> list[Row]:
    """Return the rows of this library on Starlette, and the bare ones."""
    plain = bare()
    allow, refuse = scope("/orders", token()), scope("/orders", token(TOO_LITTLE))
    wanted = {"access_control_request_method": "GET", "access_control_request_headers": "authorization"}
    preflight, hand = scope("/orders", None, method="OPTIONS", **wanted), handshake("/updates", token())
    at_debug = partial(configured, level=logging.DEBUG)

    def row(name: str, app: App, request: dict[str, Any], expected: int = 200) -> Row:
        return asgi_row(name, STARLETTE, app, request, expected)

    def handshake_row(name: str, app: App) -> Row:
        return Row(name, lambda: shake_hands(app, hand), WEBSOCKET, REQUESTS, warm=WARM)

    return [
        row(STARLETTE, plain, allow),
        row("A/A", plain, allow),
        row(ALLOWED, guarded(), allow),
        row(f"{ALLOWED}, structlog configured at info", guarded(), allow)._replace(within=configured),
        row(f"{ALLOWED}, with an event at debug", guarded(), allow)._replace(within=at_debug),
        row(f"{ALLOWED}, of 1,000 routes", guarded(routes=1_000), allow),
        Row(f"{ALLOWED}, token not seen before", Cold(rounds).serve, STARLETTE, FEW, warm=WARM),
        row(REFUSED, guarded(), refuse, 403),
        row(LOGGED, guarded(), refuse, 403)._replace(within=configured),
        row(PUBLIC, guarded(authz403.anyone), scope("/orders", None)),
        row(PREFLIGHT, guarded(), preflight, 204),
        row(CORS_PREFLIGHT, peers.starlette_app(peers.CORS), preflight),
        handshake_row(WEBSOCKET, plain),
        handshake_row("A/A, WebSocket", plain),
        handshake_row(HANDSHAKE, guarded()),
    ]


def peer_rows() -> list[Row]:
    """Return the rows of what others offer on Starlette."""
    allow, refuse = scope("/orders", token()), scope("/orders", token(TOO_LITTLE))

    def row(name: str, *middleware: Middleware, endpoint: Callable[..., Any] = answer) -> Row:
        return asgi_row(name, STARLETTE, peers.starlette_app(*middleware, endpoint=endpoint), allow)._replace(warm=FEW)

    refused = asgi_row(STACK_REFUSED, STARLETTE, peers.starlette_app(*peers.ASSEMBLED), refuse, 403)
    return [
        row("CORSMiddleware alone", peers.CORS),
        row("BaseHTTPMiddleware that does nothing", peers.NOTHING),
        row("AuthenticationMiddleware + PyJWT", peers.PYJWT, endpoint=peers.BY_STARLETTE),
        row("AuthenticationMiddleware + PyJWT, cached", peers.PYJWT_CACHED, endpoint=peers.BY_STARLETTE),
        row(STACK, *peers.ASSEMBLED)._replace(within=configured),
        row(STACK_CACHED, *peers.ASSEMBLED_CACHED)._replace(within=configured),
        refused._replace(warm=FEW, within=configured),
        row("MCP SDK", *peers.MCP),
        row("Authlib", peers.AUTHLIB),
        row("guardpost", peers.GUARDPOST),
        row("fastapi-authz (casbin), 10 policies, cached", *peers.with_casbin(policies=10)),
        row("fastapi-authz (casbin), 1,000 policies, cached", *peers.with_casbin(policies=1_000))._replace(calls=FEW),
    ]


def framework_rows() -> list[Row]:
    """Return the rows of FastAPI and Flask: bare, with this library, and with what is theirs."""
    bearer = token()
    allow, environ = scope("/orders", bearer), environ_of(bearer, is_full=True)

    def fastapi_row(name: str, app: App) -> Row:
        return asgi_row(name, FASTAPI, app, allow)

    def flask_row(name: str, app: WSGIApplication) -> Row:
        return Row(name, lambda: serve_wsgi(app, environ), FLASK, REQUESTS, warm=WARM)

    fastapi, flask = peers.fastapi_app("bare"), peers.flask_app("bare")
    return [
        fastapi_row(FASTAPI, fastapi),
        fastapi_row("A/A, FastAPI", fastapi),
        fastapi_row(ON_FASTAPI, peers.fastapi_app("authz403")),
        fastapi_row("FastAPI Security + PyJWT", peers.fastapi_app("Security")),
        flask_row(FLASK, flask),
        flask_row("A/A, Flask", flask),
        flask_row("authz403 on Flask, allowed", peers.flask_app("authz403")),
        flask_row("Flask-JWT-Extended", peers.flask_app("Flask-JWT-Extended")),
    ]


def bars(found: Measured) -> list[Bar]:
    """Return the ratios that this project holds itself to."""

    def added_of(one: str, other: str) -> float:
        return found.added(one, STARLETTE) / found.added(other, STARLETTE)

    return [
        Bar("allowed, over bare Starlette", found.ratio(ALLOWED, STARLETTE), "x", 1.65, 1.5),
        Bar("allowed, over bare FastAPI", found.ratio(ON_FASTAPI, FASTAPI), "x", 1.22, 1.15),
        Bar("refused, no event, of a bare 200", found.ratio(REFUSED, STARLETTE), "x", 0.65, 0.5),
        Bar("refused, with its event, of a bare 200", found.ratio(LOGGED, STARLETTE), "x", 1.8, 1.6),
        Bar("public endpoint, over bare Starlette", found.ratio(PUBLIC, STARLETTE), "x", 1.35, 1.25),
        Bar("what is added, of what the assembled stack adds: allowed", added_of(ALLOWED, STACK), "x", 1 / 15, 1 / 20),
        Bar("the same, refused and logged", added_of(LOGGED, STACK_REFUSED), "x", 1 / 15, 1 / 20),
    ]


def main() -> None:
    """Measure all rows, interleaved, and tell them."""
    report = Report(__doc__, 30)
    logging.disable(logging.CRITICAL)
    found = measured([*own_rows(max(int(report.number), 2)), *peer_rows(), *framework_rows()], report.number)
    title = f"A request, {REQUESTS} a round, microseconds of CPU time, medians"
    report.table("rows", title, found.table())
    further = (
        ("preflight, over CORSMiddleware's", PREFLIGHT, CORS_PREFLIGHT),
        ("WebSocket handshake, over a bare one", HANDSHAKE, WEBSOCKET),
        ("allowed, over the assembled stack with cached tokens", ALLOWED, STACK_CACHED),
    )
    report.table(
        "further", "Further ratios", [{"row": name, "ratio": found.ratio(one, base)} for name, one, base in further]
    )
    report.bars(*bars(found))
    report.end()


if __name__ == "__main__":
    main()
