"""The example projects of Flask and Django, each started with real servers and asked over HTTP."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import jwt
import pytest

from tests.servers_made import Served

EXAMPLES: Final = Path(__file__).parent.parent / "docs" / "examples"
SECRET: Final = "only-for-trying-out-0123456789abcdef"
LATER: Final = 4_000_000_000  # seconds since the epoch
SERVED: Final = [
    ("gunicorn-sync", "flask_shop:create_app()"),
    ("gunicorn-gthread", "django_shop.wsgi:application"),
    ("uvicorn-h11", "django_shop.asgi:application"),
]


@pytest.fixture(scope="module", params=SERVED, ids=" ".join)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Return where an example is served, as its readers would serve it."""
    server, app = request.param
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(EXAMPLES))
        with Served(server, app, tmp_path_factory.mktemp("shop")) as served:
            served.connected().close()
            assert isinstance(served.address, tuple)
            yield served.address


def call(shop: tuple[str, int], path: str, scope: str | None = None, method: str = "GET") -> tuple[int, object]:
    """Call the shop as alice, or as nobody; return the status, and the reason or what else came."""
    headers = {"Content-Type": "application/json", "Origin": "https://shop.example"}
    if scope is not None:
        claims = {
            "iss": "https://id.example",
            "aud": "orders-api",
            "sub": "alice",
            "scope": scope,
            "exp": LATER,
        }
        headers["Authorization"] = f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"
    connection = http.client.HTTPConnection(*shop, timeout=30)
    connection.request(method, path, body='{"item": "desk"}' if method == "POST" else None, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.getheader("Access-Control-Allow-Origin") == "https://shop.example"
    if answer.getheader("Authz-Reason") is not None:
        return answer.status, json.loads(body)["reason"]
    return answer.status, json.loads(body) if body.startswith((b"{", b"[")) else body.partition(b"\n")[0].decode()


def test_the_shop_lets_in_whom_its_policy_lets_in(shop: tuple[str, int]) -> None:
    """Scopes by method, ownership by a check, and everything else closed or missing."""
    read, write = "orders:read", "orders:write"
    assert call(shop, "/health") == (200, "ok")
    assert call(shop, "/orders") == (401, "missing_token")
    assert call(shop, "/orders", write) == (403, "insufficient_scope")
    status, own = call(shop, "/orders", read)
    assert (status, own) in [(200, [1]), (200, {"orders": [1]})]
    assert call(shop, "/orders", read, "POST") == (403, "insufficient_scope")
    assert call(shop, "/orders", write, "POST") == (201, {"owner": "alice", "item": "desk"})
    assert call(shop, "/orders/1", read) == (200, {"owner": "alice", "item": "lamp"})
    assert call(shop, "/orders/2", read) == (403, "not_owner")
    assert call(shop, "/orders/3", read)[0] == 404
    assert call(shop, "/nothing", read)[0] == 404


def test_the_shop_answers_preflights(shop: tuple[str, int]) -> None:
    """Before anything may refuse them."""
    connection = http.client.HTTPConnection(*shop, timeout=30)
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    connection.request("OPTIONS", "/orders", headers=asked)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (204, b"")
    assert "POST" in str(answer.getheader("Access-Control-Allow-Methods"))
    connection.close()
