"""The quickstart of the README: a guarded service in ten lines."""

from fastapi import FastAPI

from authz403 import BearerTokens, Gate, requires, scopes
from authz403.asgi import AuthzMiddleware

SECRET = "only-for-trying-out-0123456789abcdef"
tokens = BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"])

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=Gate(tokens=tokens))


@app.post("/orders")
@requires(scopes("orders:write"))
async def create_order() -> dict[str, str]:
    return {"status": "created"}
