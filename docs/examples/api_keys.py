"""API keys beside bearer tokens: an identity source of your own."""

import hashlib

from fastapi import FastAPI

from authz403 import BearerTokens, Gate, Principal, Reason, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal
from authz403.identity import AccessRequest, Rejected


class ApiKeys:
    """Callers by the SHA-256 of the key that they send in X-Api-Key."""

    fields = frozenset({"x-api-key"})

    def __init__(self, callers: dict[str, Principal]) -> None:
        self._callers = callers

    def identify(self, request: AccessRequest, now: float) -> Principal | Rejected | None:
        lines = request.fields.get("x-api-key", ())
        if not lines:
            return None
        if len(lines) > 1:
            return Rejected(Reason.INVALID_REQUEST, "the request has more than one X-Api-Key header")
        caller = self._callers.get(hashlib.sha256(lines[0].encode("latin-1")).hexdigest())
        return caller or Rejected(Reason.INVALID_TOKEN, "this API key is not known")


# python -c 'import hashlib; print(hashlib.sha256(b"only-for-trying-out").hexdigest())'
CALLERS = {
    "67228e9e914344a55cc86828398378ced6e383623bc51f65d7525d17d4111d32": Principal(
        sub="nightly-export", issuer="api-keys", scopes=frozenset({"orders:read"})
    ),
}

gate = Gate(
    tokens=[
        BearerTokens(issuer="https://id.example", audience="orders-api"),
        ApiKeys(CALLERS),
    ]
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=gate)


@app.get("/orders")
@requires(scopes("orders:read"))
async def list_orders(user: CurrentPrincipal) -> dict[str, str]:
    return {"for": user.sub}
