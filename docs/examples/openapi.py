"""Policies in the OpenAPI document of a FastAPI app."""

from fastapi import FastAPI

from authz403 import BearerTokens, Gate, Rule, anyone, requires, roles, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal, describe_policies

SECRET = "only-for-trying-out-0123456789abcdef"
tokens = BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"])
gate = Gate(
    tokens=tokens,
    rules=[Rule("GET", "/openapi.json", anyone), Rule("GET", "/docs", anyone)],
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=gate)
describe_policies(app, gate=gate, codes=["order_locked"])


@app.post("/orders")
@requires(scopes("orders:write") | roles("seller"))
async def create_order(user: CurrentPrincipal) -> dict[str, str]:
    return {"for": user.sub}
