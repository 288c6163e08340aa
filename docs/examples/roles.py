"""Roles that include roles, roles that grant permissions, and roles that the token does not know."""

from fastapi import FastAPI

from authz403 import BearerTokens, Gate, Principal, Rbac, any_role, permissions, requires
from authz403.asgi import AuthzMiddleware

SECRET = "only-for-trying-out-0123456789abcdef"
tokens = BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"])

rbac = Rbac(
    hierarchy={"admin": ["seller"], "seller": ["clerk"]},
    grants={"clerk": ["orders:list"], "seller": ["orders:refund"]},
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=Gate(tokens=tokens, rbac=rbac))


@app.get("/orders")
@requires(any_role("clerk", "auditor"))
async def list_orders() -> list[str]:
    return ["lamp", "chair"]


@app.post("/orders/{number}/refund")
@requires(permissions("orders:refund"))
async def refund(number: int) -> dict[str, int]:
    return {"refunded": number}


ROLES = {("https://id.example", "alice"): ["seller"]}


def roles_of(principal: Principal) -> list[str]:
    return ROLES.get(principal.key, [])


async def roles_from_database(principal: Principal) -> list[str]:
    return ROLES.get(principal.key, [])  # await your database here


looked_up = Rbac(
    hierarchy={"admin": ["seller"]},
    grants={"seller": ["orders:refund"]},
    roles_for=roles_from_database,
    roles_ttl=30,
)
