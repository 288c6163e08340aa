import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from django.test import Client
from starlette.testclient import TestClient

from authz403 import ConfigurationError, Gate, Rbac, Reason, Rule, authenticated, claim, csrf_protected
from authz403.testing import Authz, acting_as, assert_denied, capture_decisions
from tests.kit_made import FRAMEWORKS, Session, app_of, fastapi_app, flask_app, gate_with, starlette_app


def plain_client(framework: str, app: Any) -> Any:  # noqa: ANN401 - each framework's own
    """Return a client that knows nothing of gates."""
    if framework == "flask":
        return app.test_client()
    if framework.startswith("django"):
        return Client()
    if framework == "wsgi":
        return httpx2.Client(transport=httpx2.WSGITransport(app=app), base_url="http://testserver")
    return TestClient(app)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_request_is_of_that_caller_and_the_policy_holds(framework: str) -> None:
    """Inside, and not before or after; the same by any client."""
    with app_of(framework, gate_with()) as app:
        client = plain_client(framework, app)
        assert_denied(client.get("/orders"), Reason.MISSING_TOKEN)
        with acting_as(app, sub="ann", scopes={"orders:read"}) as ann:
            assert (ann.sub, ann.issuer) == ("ann", "https://id.example")
            assert client.get("/orders").status_code == 200
            assert_denied(client.delete("/orders/1"), Reason.ROLE_REQUIRED)
        with acting_as(app, roles="admin"):
            assert_denied(client.get("/orders"), Reason.INSUFFICIENT_SCOPE)
            assert client.delete("/orders/1").status_code == 200
        assert_denied(client.get("/orders"), Reason.MISSING_TOKEN)


def test_blocks_stand_within_each_other() -> None:
    """The innermost counts, each for its own app, and the outer one counts again after it."""
    one, other = starlette_app(gate_with()), starlette_app(gate_with())
    ask_one, ask_other = TestClient(one), TestClient(other)
    with acting_as(one, scopes="orders:read"):
        with acting_as(one, scopes="x"):
            assert_denied(ask_one.get("/orders"), Reason.INSUFFICIENT_SCOPE)
            assert_denied(ask_other.get("/orders"), Reason.MISSING_TOKEN)
        with acting_as(other, scopes="orders:read"):
            assert [ask.get("/orders").status_code for ask in (ask_one, ask_other)] == [200, 200]
        assert [ask.get("/orders").status_code for ask in (ask_one, ask_other)] == [200, 401]
    assert [ask.get("/orders").status_code for ask in (ask_one, ask_other)] == [401, 401]


def test_a_block_ends_when_a_test_fails_in_it() -> None:
    """Nobody acts for anybody after that."""
    app = starlette_app(gate_with())
    with pytest.raises(ZeroDivisionError), acting_as(app, scopes="orders:read"):
        raise ZeroDivisionError
    assert TestClient(app).get("/orders").status_code == 401


@pytest.mark.parametrize("make", [starlette_app, flask_app])
def test_another_thread_acts_for_nobody(make: Callable[[Gate], Any]) -> None:
    """Threads that act at the same time do not see each other, and the gate is its own again after the last."""
    app = make(gate_with())
    inside, go_on = threading.Barrier(3), threading.Event()
    seen: dict[str, list[int]] = {}

    def act(scope: str) -> None:
        client = plain_client("flask" if make is flask_app else "starlette", app)
        with acting_as(app, scopes=scope):
            inside.wait(timeout=30)
            seen[scope] = [client.get("/orders").status_code for _ in range(20)]
            go_on.wait(timeout=30)

    threads = [threading.Thread(target=act, args=(scope,)) for scope in ("orders:read", "x")]
    for thread in threads:
        thread.start()
    inside.wait(timeout=30)
    client = plain_client("flask" if make is flask_app else "starlette", app)
    assert [client.get("/orders").status_code for _ in range(20)] == [401] * 20
    go_on.set()
    for thread in threads:
        thread.join(timeout=30)
    assert seen == {"orders:read": [200] * 20, "x": [403] * 20}
    assert client.get("/orders").status_code == 401


def test_async_tests_act_each_for_itself() -> None:
    """Tasks of one loop, each in its own block at the same time."""
    app = fastapi_app(gate_with())

    async def ask(scope: str, ready: asyncio.Barrier) -> list[int]:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            with acting_as(app, scopes=scope):
                await ready.wait()
                statuses = [(await client.get("/orders")).status_code for _ in range(5)]
                await ready.wait()
            return [*statuses, (await client.get("/orders")).status_code]

    async def main() -> list[list[int]]:
        ready = asyncio.Barrier(2)
        return list(await asyncio.gather(ask("orders:read", ready), ask("x", ready)))

    assert asyncio.run(main()) == [[200] * 5 + [401], [403] * 5 + [401]]


def test_lifespan_and_websockets_are_served_as_ever() -> None:
    """A client within a `with` has its own thread, and acts all the same."""
    app = starlette_app(gate_with())
    with TestClient(app) as client, acting_as(app, scopes="orders:read"):
        assert client.get("/orders").status_code == 200
    with acting_as(app, scopes="orders:read"), TestClient(app) as client:
        assert client.get("/orders").status_code == 200


def test_what_a_request_carries_makes_no_difference() -> None:
    """Neither a bad token nor a malformed header."""
    app = starlette_app(gate_with())
    with acting_as(app, scopes="orders:read"):
        for value in ("Bearer x.y.z", "Bearer", "Basic eDp5"):
            assert TestClient(app).get("/orders", headers={"Authorization": value}).status_code == 200


def test_roles_mean_what_they_mean_to_the_gate() -> None:
    """By hierarchy and grants, and no look-up is made."""

    def looked_up(_: object) -> list[str]:
        raise AssertionError("roles were looked up")

    gate = gate_with(rbac=Rbac(roles_for=looked_up, hierarchy={"root": ["admin"]}, grants={"admin": ["refund"]}))
    app = starlette_app(gate)
    with acting_as(app, roles="root", permissions={"x"}) as root:
        assert (sorted(root.roles), sorted(root.permissions)) == (["admin", "root"], ["refund", "x"])
        assert TestClient(app).delete("/orders/1").status_code == 200


def test_claims_are_those_of_a_token() -> None:
    """Read-only all the way down, lists as tuples."""
    gate = gate_with(rules=[Rule("GET", "/health", authenticated & claim("plan", "pro"))])
    app = starlette_app(gate)
    with acting_as(app, claims={"plan": ["pro", "old"], "org": {"id": [1]}}) as ann:
        assert TestClient(app).get("/health").status_code == 200
        assert (ann.claims["plan"], ann.claims["sub"]) == (("pro", "old"), "tester")
        with pytest.raises(TypeError):
            ann.claims["org"]["id"] = 2  # type: ignore[index]  # what must not be


def test_a_caller_of_a_session_is_known_by_no_token() -> None:
    """Pages of other sites are refused to act in the name of a session, and of a token they cannot."""
    for tokens, status in ((Session(), 403), (gate_with().sources[0], 200)):
        gate = Gate(tokens=tokens, rules=[Rule("*", "/**", csrf_protected() & authenticated)])
        with app_of("flask", gate) as app, acting_as(app, roles="admin"):
            client = app.test_client()
            assert client.delete("/orders/1").status_code == 200
            other = client.delete("/orders/1", headers={"Sec-Fetch-Site": "cross-site", "Origin": "https://x.example"})
            assert other.status_code == status


def test_the_hint_of_a_refusal_is_remembered() -> None:
    """`assert_denied` tells it without anybody capturing."""
    app = starlette_app(gate_with())
    with acting_as(app, scopes="ORDERS:READ"), pytest.raises(AssertionError, match="names are compared exactly"):
        assert_denied(TestClient(app).get("/orders"), Reason.ROLE_REQUIRED)


def test_an_app_without_a_gate_is_a_mistake() -> None:
    """Every request would pass."""
    app = starlette_app(gate_with())
    app.user_middleware.clear()
    with pytest.raises(ConfigurationError, match="no gate stands before it"):
        acting_as(app)
    with pytest.raises(ConfigurationError, match="no gate stands before it"), capture_decisions(app):
        pass


def test_a_task_that_outlives_its_block_acts_for_nobody() -> None:
    """It holds a copy of the context; and blocks may end in another order than they began in."""
    app = starlette_app(gate_with())
    with acting_as(app, sub="ann", scopes="orders:read"):
        kept = contextvars.copy_context()
    with Authz() as authz:
        client = authz.client(app)
        assert kept.run(client.get, "/orders").status_code == 401
    first, second = acting_as(app, scopes="orders:read"), acting_as(app, scopes="orders:read")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    with Authz() as authz:
        assert authz.client(app).get("/orders").status_code == 401
