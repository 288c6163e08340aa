"""Sessions in a cookie beside bearer tokens: an identity source that awaits its store, and no pages of other sites."""

import hashlib

from fastapi import FastAPI, WebSocket

from authz403 import BearerTokens, Gate, Principal, Reason, any_role, csrf_protected, requires
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

    fields = frozenset({"cookie"})

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def identify(self, request: AccessRequest, now: float) -> Principal | Rejected | None:
        pairs = [pair.strip() for pair in ";".join(request.fields.get("cookie", ())).split(";")]
        ids = [pair.removeprefix(f"{COOKIE}=") for pair in pairs if pair.startswith(f"{COOKIE}=")]
        if not ids:
            return None
        if len(ids) > 1:
            return Rejected(Reason.INVALID_REQUEST, "the request has more than one session cookie")
        found = await self._store.find(ids[0])
        if found is None:
            return Rejected(Reason.INVALID_TOKEN, "this session is not known: it ended, or was never one")
        if found.expires_at is not None and found.expires_at <= now:
            return Rejected(Reason.TOKEN_EXPIRED, "this session is over")
        return found


store = SessionStore()
gate = Gate(
    tokens=[
        BearerTokens(issuer="https://id.example", audience="orders-api"),
        Sessions(store),
    ]
)

app = FastAPI()
app.add_middleware(AuthzMiddleware, gate=gate)

from_our_pages = csrf_protected(ORIGIN)  # named, as the proxy in front passes another Host on


@app.post("/sessions")
@requires(from_our_pages)
async def sign_in() -> dict[str, str]:
    return {}  # check a password here, and set the cookie


@app.post("/orders")
@requires(any_role("customer") & from_our_pages)
async def create_order(user: CurrentPrincipal) -> dict[str, str]:
    return {"for": user.sub}


@app.websocket("/orders/live")
@requires(any_role("customer") & from_our_pages)
async def live(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({"for": websocket.user.sub})
    await websocket.close()


# What signing in would do.
store.sessions[hashlib.sha256(b"only-for-trying-out").hexdigest()] = Principal(
    sub="alice", issuer=ORIGIN, roles=frozenset({"customer"})
)
