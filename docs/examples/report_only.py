"""A service whose gate only reports, until the log is quiet."""

import os

from fastapi import FastAPI

from authz403 import BearerTokens, Gate, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import MaybePrincipal

SECRET = "only-for-trying-out-0123456789abcdef"
tokens = BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"])

gate = Gate(
    tokens=tokens,
    dangerously_report_only=os.environ.get("AUTHZ_REPORT_ONLY") == "yes",
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=gate)


@app.get("/orders")
@requires(scopes("orders:read"))
async def list_orders(user: MaybePrincipal) -> dict[str, str | None]:
    return {"for": user.sub if user else None}


@app.get("/forgotten")
async def forgotten() -> dict[str, str]:
    return {"status": "nobody wrote a policy for this"}
