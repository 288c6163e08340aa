from policy_tests.fastapi_service import app
from starlette.testclient import TestClient

from authz403 import Reason
from authz403.testing import Authz, acting_as, assert_denied, capture_decisions

ORDERS = "/tenants/t1/orders"


def test_a_reader_reads_and_does_not_write(authz: Authz) -> None:
    reader = authz.client(app, scopes={"orders:read"}, claims={"tenant": "t1"})
    assert reader.get(ORDERS).json() == ["t1"]
    denial = assert_denied(reader.post(ORDERS), Reason.INSUFFICIENT_SCOPE)
    assert denial.missing_scopes == ("orders:write",)


def test_an_admin_deletes_from_the_office(authz: Authz) -> None:
    token = authz.token(app=app, roles={"root"}, scopes="orders:write", claims={"tenant": "t1"})
    inside = authz.client(app, token=token, address="10.1.2.3")
    assert inside.delete(f"{ORDERS}/5").status_code == 200
    outside = authz.client(app, token=token, address="198.51.100.7")
    assert_denied(outside.delete(f"{ORDERS}/5"), Reason.IP_NOT_ALLOWED)


def test_an_old_token_says_so(authz: Authz) -> None:
    headers = {"Authorization": f"Bearer {authz.token(app=app, scopes='orders:read', expired=True)}"}
    assert_denied(TestClient(app).get(ORDERS, headers=headers), Reason.TOKEN_EXPIRED)


def test_somebody_acts() -> None:
    client = TestClient(app)
    with acting_as(app, sub="ann", scopes={"orders:read"}, claims={"tenant": "t1"}):
        assert client.get(f"{ORDERS}/5").json() == 5
        assert_denied(client.get("/tenants/t2/orders"), Reason.NOT_OWNER)
    assert_denied(client.get(ORDERS), Reason.MISSING_TOKEN)


def test_what_was_decided_is_seen() -> None:
    with capture_decisions(app) as decisions, acting_as(app, scopes="items:read", claims={"tenant": "t1"}):
        TestClient(app).get(ORDERS)
    (decided,) = decisions
    assert (decided.route, decided.allowed) == ("/tenants/{tenant}/orders", False)
    assert decided.hint is not None
