"""A service that pages of another origin may call."""

from fastapi import FastAPI

from authz403 import BearerTokens, Cors, Gate, requires, scopes
from authz403.asgi import AuthzMiddleware

SECRET = "only-for-trying-out-0123456789abcdef"

gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"]),
    cors=Cors(
        origins=["https://app.example", "https://*.preview.example", "http://localhost:*"],
        headers=["Authorization", "Content-Type", "X-Request-Id"],
        expose=["X-Total-Count"],
    ),
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=gate)


@app.post("/orders")
@requires(scopes("orders:write"))
async def create_order() -> dict[str, str]:
    return {"status": "created"}


@app.get("/broken")
@requires(scopes("orders:write"))
async def broken() -> None:
    raise RuntimeError("the database is away")
