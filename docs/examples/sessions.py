"""Sessions in a cookie beside bearer tokens: an identity source that awaits its store, and refuses foreign sites."""

import hashlib

from fastapi import FastAPI

from authz403 import BearerTokens, Gate, Principal, Reason, any_role, requires
from authz403.asgi import AuthzMiddleware
from authz403.fastapi import CurrentPrincipal
from authz403.identity import AccessRequest, Rejected

ORIGIN = "https://shop.example"
COOKIE = "__Host-session"


class SessionStore:
    """Who is signed in, by the SHA-256 of the session's id; yours asks Redis or a database."""

    def __init__(self) -> None:
        self.sessions: dict[str, Principal] = {}

    async def find(self, session_id: str) -> Principal | None:
        return self.sessions.get(hashlib.sha256(session_id.encode()).hexdigest())


class Sessions:
    """Callers by the session that their cookie names."""

    fields = frozenset({"cookie", "origin", "sec-fetch-site"})

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def identify(self, request: AccessRequest, now: float) -> Principal | Rejected | None:
        pairs = [pair.strip() for pair in ";".join(request.fields.get("cookie", ())).split(";")]
        ids = [pair.removeprefix(f"{COOKIE}=") for pair in pairs if pair.startswith(f"{COOKIE}=")]
        if not ids:
            return None
        if len(ids) > 1:
            return Rejected(Reason.INVALID_REQUEST, "the request has more than one session cookie")
        if is_cross_site(request):
            return Rejected(Reason.CSRF_FAILED, "another site's page sent this with the session's cookie")
        found = await self._store.find(ids[0])
        if found is None:
            return Rejected(Reason.INVALID_TOKEN, "this session is not known: it ended, or was never one")
        if found.expires_at is not None and found.expires_at <= now:
            return Rejected(Reason.TOKEN_EXPIRED, "this session is over")
        return found


def is_cross_site(request: AccessRequest) -> bool:
    """Tell whether a request that may change something comes from a page of another site."""
    if request.method in {"GET", "HEAD", "OPTIONS"}:
        return False
    site, origin = request.fields.get("sec-fetch-site"), request.fields.get("origin")
    if site is not None:
        return site not in {("same-origin",), ("none",)}
    return origin is not None and origin != (ORIGIN,)


store = SessionStore()
gate = Gate(
    tokens=[
        BearerTokens(issuer="https://id.example", audience="orders-api"),
        Sessions(store),
    ]
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=gate)


@app.post("/orders")
@requires(any_role("customer"))
async def create_order(user: CurrentPrincipal) -> dict[str, str]:
    return {"for": user.sub}


# What signing in would do.
store.sessions[hashlib.sha256(b"only-for-trying-out").hexdigest()] = Principal(
    sub="alice", issuer=ORIGIN, roles=frozenset({"customer"})
)
