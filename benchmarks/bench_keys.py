"""What a real identity provider costs those who call: how often it is asked, and who waits for it when it hangs.

Run: `make bench`, or `PYTHONPATH=. .venv/bin/python benchmarks/bench_keys.py [seconds] [--json]`. In process, one
request after the other, on the wall clock. The load comes in slices, in turns: a provider that answers, the same again
(A/A, the noise), and one that is frozen (SIGSTOP: it takes connections and answers none), `seconds` in all for each of
the three. Every slice starts with keys that are known and due for a refresh.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import statistics
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from itertools import cycle
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from authz403 import BearerTokens, Gate, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.keys import COOL_DOWN, DEFAULT_LIFE
from benchmarks.measure import Cell, Report
from tests.provider_made import AUDIENCE, Fetches, Provider, missing

UNKNOWN = 10_000
COLD = 200
TOKENS = 50
ROUNDS = 3
DUE = DEFAULT_LIFE * 0.85  # seconds after a fetch; a slice must be over before the life is

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


class Clock:
    """The time of a gate: that of the wall, unless it is held, and moved ahead at will."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.held: float | None = None

    def __call__(self) -> float:
        """Return seconds since the epoch."""
        return self.ahead + (time.time() if self.held is None else self.held)


def app_for(provider: Provider, clock: Clock) -> App:
    """Return a guarded app that finds the provider's keys by discovery."""

    @requires(scopes("items:read"))
    async def items(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/items", items)])
    gate = Gate(tokens=BearerTokens(issuer=provider.issuer, audience=AUDIENCE), clock=clock)
    return AuthzMiddleware(app, gate=gate)


async def send(app: App, token: str) -> int:
    """Send a request with a token and return the status of the answer."""
    statuses: list[int] = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/items",
        "raw_path": b"/items", "root_path": "", "query_string": b"", "scheme": "http", "state": {},
        "headers": [(b"host", b"api.example"), (b"authorization", b"Bearer " + token.encode())],
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, keep)
    return statuses[0]


def with_kid(token: str, kid: str) -> str:
    """Return a token that names another key, as somebody makes one up."""
    head, _, rest = token.partition(".")
    fields = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))) | {"kid": kid}
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode() + f".{rest}"


async def unknown_keys(provider: Provider) -> Fetches:
    """Count the fetches for tokens of unknown keys, within one cool-down."""
    clock, token = Clock(), provider.access_token()
    app = app_for(provider, clock)
    assert await send(app, token) == 200
    clock.held, clock.ahead = time.time(), COOL_DOWN
    before = provider.fetches()
    for number in range(UNKNOWN):
        assert await send(app, with_kid(token, f"k{number}")) == 401
    return provider.fetches() - before


async def cold_start(provider: Provider) -> Fetches:
    """Count the fetches for requests that all come before there are keys."""
    app, tokens, before = app_for(provider, Clock()), [provider.access_token() for _ in range(COLD)], provider.fetches()
    assert set(await asyncio.gather(*(send(app, token) for token in tokens))) == {200}
    return provider.fetches() - before


async def load(app: App, tokens: list[str], seconds: float) -> array[float]:
    """Send one request after the other; return the milliseconds that each took."""
    taken = array("d")
    ends = time.perf_counter() + seconds
    for token in cycle(tokens):
        started = time.perf_counter()
        assert await send(app, token) == 200
        done = time.perf_counter()
        taken.append((done - started) * 1000)
        if done >= ends:
            break
    return taken


async def refreshed(provider: Provider, before: Fetches) -> None:
    """Wait until the provider has seen the refresh that the load began; a thawed one first reads what has come."""
    while provider.fetches() == before:  # noqa: ASYNC110 - another process counts, and says so when it is asked
        await asyncio.sleep(0.01)


async def latencies(provider: Provider, seconds: float) -> dict[str, array[float]]:
    """Measure requests of known keys with a provider that answers, the same again, and one that is frozen."""
    taken = {name: array("d") for name in ("answers", "answers (A/A)", "frozen")}
    tokens = [provider.access_token() for _ in range(TOKENS)]
    for _ in range(ROUNDS):
        for name in taken:
            clock = Clock()
            app = app_for(provider, clock)
            assert await send(app, tokens[0]) == 200  # the keys are here, and one token of many was seen
            clock.ahead = DUE
            before = provider.fetches()
            with provider.frozen() if name == "frozen" else nullcontext():
                taken[name] += await load(app, tokens, seconds / ROUNDS)
            await asyncio.wait_for(refreshed(provider, before), COOL_DOWN)
    return taken


def main() -> None:
    """Measure and tell everything."""
    report = Report(__doc__, 21, "seconds")
    lack = missing()
    if lack is not None:
        report.skipped(f"skipped: needs node and the provider's packages: {lack}")
        report.end()
        return
    if not 0 < report.number / ROUNDS <= DEFAULT_LIFE - DUE:
        sys.exit(f"the keys live for {DEFAULT_LIFE - DUE:.0f} s more: give {ROUNDS * (DEFAULT_LIFE - DUE):.0f} at most")
    logging.getLogger("authz403").setLevel(logging.CRITICAL)
    with Provider("RS256") as provider:
        fetches = {
            f"{UNKNOWN:,} unknown key ids in one cool-down": asyncio.run(unknown_keys(provider)),
            f"{COLD} concurrent requests on a cold start": asyncio.run(cold_start(provider)),
        }
        report.table(
            "fetches",
            "RS256, keys by discovery; fetches that the provider counted",
            [{"row": name, "metadata": count.metadata, "keys": count.keys} for name, count in fetches.items()],
        )
        taken = asyncio.run(latencies(provider, report.number))
    title = f"{report.number:g} s of load for each, in {ROUNDS} slices in turns, ms on the wall clock"
    report.table("waits", title, [line(name, waits) for name, waits in taken.items()])
    report.end()


def line(name: str, waits: array[float]) -> dict[str, Cell]:
    """Return a line of the table."""
    p99 = statistics.quantiles(waits, n=100)[98]
    told = {"median": statistics.median(waits), "p99": p99, "max": max(waits)}
    return {"the provider": name, "requests": len(waits), **told}


if __name__ == "__main__":
    main()
