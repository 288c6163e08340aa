"""What callers may do in the shop."""

from authz403 import BearerTokens, Cors, Gate, Rule, anyone

SECRET = "only-for-trying-out-0123456789abcdef"
gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="orders-api", key=SECRET, algorithms=["HS256"]),
    rules=[Rule("GET", "/health", anyone)],
    cors=Cors(origins=["https://shop.example"]),
)
