"""What finding the policy of a request costs, and that it does not grow with the number of routes.

Run: `make bench`, or `PYTHONPATH=. .venv/bin/python benchmarks/bench_routing.py [rounds] [--json]`. `policy` is all
that the gate does to find it: the route by the table, by asking the route's own `matches()`, and the policy by rules
and marks. `matches` is that one call alone, and `router` what the app's own router spends on finding the same route, no
part of the gate. Medians over interleaved rounds, in microseconds of CPU time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Route

from authz403 import BearerTokens, Gate, Rule, any_role, networks, requires, scopes
from authz403.door import Doors
from authz403.route_objects import flat_routes
from authz403.walk import AppRoutes
from benchmarks.measure import Bar, Report, Row, measured

CALLS: Final = 2_000  # a round
SIZES: Final = (10, 100, 1_000)


@requires(scopes("orders:read") & networks("10.0.0.0/8"))
async def endpoint(_request: Request) -> PlainTextResponse:
    """Answer."""
    return PlainTextResponse("ok")


def starlette_app(routes: int) -> Starlette:
    """Return an app with so many routes with a parameter, and one without in the end."""
    found = [Route(f"/api/r{number}/{{id}}", endpoint) for number in range(routes)]
    return Starlette(routes=[*found, Route("/orders", endpoint)])


def fastapi_app(routes: int) -> FastAPI:
    """Return the same app with its routes in an included router."""
    router = APIRouter(prefix="/api")
    for number in range(routes):
        router.add_api_route(f"/r{number}/{{id}}", endpoint)
    app = FastAPI(openapi_url=None)
    app.include_router(router)
    app.add_api_route("/orders", endpoint)
    return app


def gate() -> Gate:
    """Return a gate with rules by path besides the marks."""
    rules = [Rule("*", "/admin/**", any_role("admin")), Rule("*", "/api/**", networks("10.0.0.0/8"))]
    tokens = BearerTokens(issuer="https://id.example", audience="api", key="k" * 32, algorithms=["HS256"])
    return Gate(tokens=tokens, rules=rules, shared=True)


def scope_of(path: str) -> dict[str, Any]:
    """Return an ASGI scope."""
    return {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "query_string": b""}


def rows() -> Iterator[Row]:
    """Yield what is measured."""
    for make in (starlette_app, fastapi_app):
        for size in SIZES:
            app, one = make(size), gate()
            routes = AppRoutes(app, Doors(one))
            for path in ("/orders", f"/api/r{size - 1}/5"):
                yield from rows_of(f"{make.__name__[:-4]}, {size:5,} routes, {path}", app, one, routes, path)


def rows_of(name: str, app: Starlette, one: Gate, routes: AppRoutes, path: str) -> Iterator[Row]:
    """Yield the three rows of a path."""
    scope = scope_of(path)
    top = list(app.router.routes)

    def policy() -> object:
        found, _ = routes.find((scope, [], path))
        return one.rules.policy_for(found, path, "GET")

    def router() -> object:
        return next(route for route in top if route.matches(scope)[0] is Match.FULL)

    taken = next(route for route, _ in flat_routes(app.router) if route.matches(scope)[0] is Match.FULL)
    yield Row(f"{name}: policy", policy, calls=CALLS)
    yield Row(f"{name}: matches", lambda: taken.matches(scope), calls=CALLS)
    yield Row(f"{name}: router", router, calls=20)


def main() -> None:
    """Measure all rows, interleaved, and tell them."""
    report = Report(__doc__, 20)
    asked = list(rows())
    found = measured(asked, report.number)
    report.table("rows", f"A look-up, {CALLS} a round, microseconds of CPU time, medians", found.table())
    slowest = max(found.us(row.name) for row in asked if row.name.endswith(": policy"))
    report.bars(Bar("finding the policy, the slowest of these", slowest, "us", 3, 2))
    report.end()


if __name__ == "__main__":
    main()
