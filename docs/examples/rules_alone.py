"""Rules alone, for an app that cannot be looked into."""

from starlette.types import Receive, Scope, Send

from authz403 import BearerTokens, Gate, Rule, anyone, scopes
from authz403.asgi import AuthzMiddleware

SECRET = "only-for-trying-out-0123456789abcdef"
gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"]),
    rules=[Rule("GET", "/health", anyone), Rule("*", "/orders/**", scopes("orders"))],
)


async def any_asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


app = AuthzMiddleware(any_asgi_app, gate=gate, routes_of=None)
