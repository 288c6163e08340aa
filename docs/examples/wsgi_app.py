"""A WSGI app behind a gate."""

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from authz403 import BearerTokens, Gate, Reason, Rule, anyone, check, scopes
from authz403.wsgi import AuthzMiddleware

SECRET = "only-for-trying-out-0123456789abcdef"
gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"]),
    rules=[
        Rule("GET", "/health", anyone),
        Rule("GET", "/orders/**", scopes("orders:read")),
        Rule("*", "/orders/**", scopes("orders:write")),
    ],
)


def shop(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    caller = environ["authz403.principal"]
    if environ["PATH_INFO"] == "/orders/2":
        check(caller.sub == "bob", Reason.NOT_OWNER, order=2)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"hello, {caller.display_name or 'stranger'}".encode()]


app = AuthzMiddleware(shop, gate=gate)
