"""The service of the tutorial, as it stands at the end."""

from fastapi import APIRouter, FastAPI, HTTPException

from authz403 import BearerTokens, Gate, Reason, Rule, any_role, anyone, check, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal, needs

SECRET = "only-for-trying-out-0123456789abcdef"

gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"]),
    rules=[
        Rule("GET", "/health", anyone),
        Rule("GET", "/docs", anyone),
        Rule("GET", "/openapi.json", anyone),
    ],
)

app = FastAPI(title="Orders")
app.add_middleware(AuthzMiddleware, gate=gate)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


ORDERS = {1: {"owner": "alice", "item": "lamp"}, 2: {"owner": "bob", "item": "chair"}}


@app.post("/orders", status_code=201)
@requires(scopes("orders:read", "orders:write"))
async def create_order(user: CurrentPrincipal) -> dict[str, str]:
    number = max(ORDERS, default=0) + 1
    ORDERS[number] = {"owner": user.sub, "item": "table"}
    return ORDERS[number]


@app.get("/orders/{number}")
@requires(scopes("orders:read"))
async def read_order(number: int, user: CurrentPrincipal) -> dict[str, str]:
    order = ORDERS.get(number)
    if order is None:
        raise HTTPException(404)
    check(order["owner"] == user.sub, Reason.NOT_OWNER, order=number)
    return order


admin = APIRouter(prefix="/admin", dependencies=[needs(any_role("admin"))])


@admin.delete("/orders/{number}", status_code=204)
async def delete_order(number: int) -> None:
    ORDERS.pop(number, None)


app.include_router(admin)
