"""Requirements of your own, and how they combine."""

from fastapi import FastAPI

from authz403 import (
    BearerTokens,
    Gate,
    Reason,
    any_role,
    authenticated,
    check,
    claim,
    networks,
    param,
    requirement,
    requires,
    scopes,
)
from authz403.asgi import AuthzMiddleware
from authz403.facts import Facts
from authz403.fastapi import CurrentPrincipal

SECRET = "only-for-trying-out-0123456789abcdef"
tokens = BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"])

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=Gate(tokens=tokens))


def has_paid(facts: Facts) -> bool:
    return facts.principal.claims.get("plan") == "pro"


paid_plan = requirement("plan_expired", has_paid, remedy="renew_plan")


@app.get("/reports")
@requires(paid_plan)
async def reports() -> list[str]:
    return []


UNPAID = {"carol"}


async def pays_bills(facts: Facts) -> bool:
    return facts.principal.sub not in UNPAID  # await your billing service here


@app.get("/invoices")
@requires(requirement("bill_unpaid", pays_bills))
async def invoices() -> list[str]:
    return []


@app.get("/beta")
@requires(claim("plan", "pro", "team"))
async def beta() -> list[str]:
    return []


@app.get("/tenants/{tenant_id}/orders")
@requires(param("tenant_id", claim="tenant"))
async def tenant_orders(tenant_id: str) -> dict[str, str]:
    return {"tenant": tenant_id}


OWNERS = {1: "alice", 2: "bob"}


@app.get("/orders/{number}")
@requires(scopes("orders:read"))
async def read_order(number: int, user: CurrentPrincipal) -> dict[str, int]:
    check(OWNERS.get(number) == user.sub, Reason.NOT_OWNER, order=number)
    return {"number": number}


@app.get("/stock")
@requires(scopes("stock:read") | networks("10.0.0.0/8"))
async def stock() -> list[str]:
    return []


@app.post("/votes")
@requires(authenticated & ~any_role("guest"))
async def vote() -> dict[str, str]:
    return {"status": "counted"}


@app.post("/transfers")
@requires(authenticated.stepped_up(acr_values=["urn:shop:mfa"], max_age=300))
async def transfer() -> dict[str, str]:
    return {"status": "sent"}


@app.get("/secret-project")
@requires(any_role("founder").concealed())
async def secret_project() -> dict[str, str]:
    return {"name": "lamp 2"}
