"""What is held in memory: for remembered tokens, addresses, the routes of an app, and requests that wait.

Run: `make bench`, or `PYTHONPATH=. .venv/bin/python benchmarks/bench_memory.py [networks] [--json]`. Bytes that
Python's own allocator has handed out and not got back (`tracemalloc`), after a full garbage collection; `peak` is the
most that was held meanwhile. What stays for good is made before. Of gates and requests, those of the bare app are taken
off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import jwt
from starlette.applications import Starlette

from authz403 import AddressSet, BearerTokens
from authz403.identity import MOST_TOKENS, Identifier
from benchmarks.bench_addresses import USUAL, networks
from benchmarks.bench_tokens import accept, claims
from benchmarks.bench_tokens import request as request_with
from benchmarks.measure import Cell, Report, traced
from benchmarks.requests_made import AUDIENCE, ISSUER, SECRET, App, bare, guarded, scope, serve, token

ROUTES: Final = 1_000
WAITING: Final = 1_000


def tokens() -> Identifier:
    """Return what has verified and remembers as many tokens as a gate does."""
    # Signed by HMAC, as that is quicker to make: neither signature nor text of a token is kept.
    source = BearerTokens(issuer=ISSUER, audience=AUDIENCE, key=SECRET, algorithms=["HS256"], claims="keycloak")
    identifier = Identifier((source,))
    for number in range(MOST_TOKENS):
        accept(identifier, [request_with(jwt.encode(claims(number), SECRET, "HS256", {"kid": "one"}))])
    return identifier


def app_of(make: Callable[..., Starlette]) -> Callable[[], App]:
    """Return what makes an app with many routes, and sends it a first request."""
    request = scope("/orders", token())

    def made() -> App:
        app = make(routes=ROUTES)
        asyncio.run(serve(app, request, 200))
        return app

    return made


def waiting(app: App) -> tuple[int, int]:
    """Return the bytes of many requests whose clients do not take their answers."""
    count, request = 0, scope("/orders", token())
    asyncio.run(serve(app, request, 200))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def started() -> Sequence[asyncio.Future[None]]:
        nonlocal count
        never, all_wait = asyncio.Event(), asyncio.Event()

        async def send(_: dict[str, Any]) -> None:
            nonlocal count
            count += 1
            if count == WAITING:
                all_wait.set()
            await never.wait()

        tasks = [asyncio.ensure_future(app(dict(request), receive, send)) for _ in range(WAITING)]
        await all_wait.wait()
        return tasks

    with asyncio.Runner() as runner:  # which in the end cancels them
        return traced(lambda: runner.run(started()))


def main() -> None:
    """Measure and tell everything."""
    report = Report(__doc__, 1_000_000, "networks")
    logging.disable(logging.CRITICAL)
    size, of_bare, of_guarded = int(report.number), app_of(bare), app_of(guarded)
    of_bare(), of_guarded()
    lines: list[dict[str, Cell]] = []

    def tell(name: str, count: int, found: tuple[int, int], less: tuple[int, int] = (0, 0)) -> None:
        kept = found[0] - less[0]
        lines.append({"what": name, "MB": kept / 1e6, "peak": found[1] / 1e6, "of": count, "bytes each": kept // count})

    tell("remembered tokens", MOST_TOKENS, traced(tokens))
    tell("an AddressSet of networks", size, traced(lambda: AddressSet(networks(size, USUAL))))
    base = traced(of_bare)
    tell("a bare app, routes", ROUTES, base)
    tell("its gate, routes", ROUTES, traced(of_guarded), base)
    base = waiting(bare())
    tell("bare requests that wait", WAITING, base)
    tell("what a gate adds to them", WAITING, waiting(guarded()), base)
    report.table("memory", "Held in memory", lines)
    report.end()


if __name__ == "__main__":
    main()
