"""Policies for groups of routes: by path, by router and by mount."""

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from authz403 import BearerTokens, Gate, Rule, any_role, anyone, guard, networks, public, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import needs

SECRET = "only-for-trying-out-0123456789abcdef"

gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"]),
    rules=[
        Rule("GET", "/health", anyone),
        Rule(["GET", "POST"], "/partners/*/orders", scopes("partner")),
        Rule("*", "/admin/orders/**", networks("10.0.0.0/8")),
        Rule("*", "/admin/**", networks("10.0.0.0/8", "192.168.0.0/16")),
    ],
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=gate)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/partners/{name}/orders")
@requires(scopes("orders:read"))
async def partner_orders(name: str) -> list[str]:
    return [name]


admin = APIRouter(prefix="/admin", dependencies=[needs(any_role("admin"))])


@admin.delete("/orders/{number}")
@requires(scopes("orders:write"))
async def delete_order(number: int) -> dict[str, int]:
    return {"deleted": number}


@admin.get("/about")
@public
async def about() -> dict[str, str]:
    return {"about": "the back office"}


app.include_router(admin)


async def figures(request: Request) -> JSONResponse:
    return JSONResponse({"orders": 2})


reports = Starlette(routes=[Route("/figures", figures)])
app.mount("/reports", guard(reports, any_role("auditor")))
app.router.routes.append(guard(Mount("/archive", routes=[Route("/figures", figures)]), scopes("archive:read")))


def forgotten() -> list[str]:
    """Return the endpoints that nobody wrote a policy for."""
    return [f"{row.method} {row.path}" for row in gate.coverage(app) if row.is_default]


def table() -> list[str]:
    """Return a line for each kind of request: method, path and policy."""
    return [f"{row.method:7}{row.part or row.path:26}{row.policy}" for row in gate.coverage(app)]
