"""The first step of the tutorial: a guarded service in which nothing is open yet."""

from fastapi import FastAPI

from authz403 import BearerTokens, Gate
from authz403.asgi import AuthzMiddleware

SECRET = "only-for-trying-out-0123456789abcdef"

gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"]),
)

app = FastAPI(title="Orders")
app.add_middleware(AuthzMiddleware, gate=gate)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}
