"""Health: what a gate rests on, as plain values that a health endpoint may send."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from authz403 import AddressFile, BearerTokens, Gate, Network, Requirement, Rule, anyone, networks, requires, scopes
from authz403.asgi import AuthzMiddleware
from authz403.fetch import Document, FetchFailed
from authz403.keys import FetchedKeys
from authz403.need import Need
from authz403.startup import check_app
from tests.apps_made import drive, scope_of
from tests.tokens_made import NOW, jwks, public_jwk


@pytest.fixture
def listed(tmp_path: Path) -> AddressFile:
    """Return a list in a file."""
    path = tmp_path / "list"
    path.write_text("192.0.2.0/24\n10.0.0.0/8\n")
    return AddressFile(path)


def test_a_gate_that_rests_on_nothing_is_well() -> None:
    """There is nothing to tell."""
    assert Gate().health() == {"ok": True, "lists": [], "keys": []}


@pytest.mark.parametrize(
    "make",
    [
        lambda found: Gate(network=Network(allow=found)),
        lambda found: Gate(network=Network(deny=["192.0.2.1", found])),
        lambda found: Gate(rules=[Rule("*", "/a", anyone), Rule("*", "/b", ~networks(found))]),
        lambda found: Gate(default=networks("10.0.0.0/8", found).concealed()),
        lambda found: Gate(rules=[Rule("*", "/b", scopes("a") & (networks(found) | scopes("b")))], tokens=bearer()),
    ],
    ids=["allow", "deny", "not", "default", "nested"],
)
def test_a_list_is_told_wherever_it_stands(listed: AddressFile, make: Callable[[AddressFile], Gate]) -> None:
    """Once, with its path, how many networks it holds, its version and since when."""
    gate = make(listed)
    check_app(gate, None)

    health: Any = json.loads(json.dumps(gate.health()))
    (one,) = health["lists"]
    assert one == listed.health()
    assert (one["path"], one["entries"], one["error"], health["ok"]) == (listed.path, 2, None, True)


def test_a_list_in_a_mark_is_told_when_gate_and_app_have_met(listed: AddressFile) -> None:
    """Marks are found by looking at the app."""

    @requires(networks(listed))
    async def inside(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("inside")

    gate = Gate()
    app = AuthzMiddleware(Starlette(routes=[Route("/inside", inside)]), gate=gate)
    drive(app, scope_of("/inside", client=("192.0.2.1", 5)))

    assert gate.health()["lists"] == [listed.health()]


def test_an_error_is_not_well(listed: AddressFile) -> None:
    """Where the file as it is now is not taken, or the keys could not be fetched, the whole says so."""
    gate = Gate(network=Network(allow=AddressFile(listed.path, every=0.01)))
    Path(listed.path).unlink()

    until = time.monotonic() + 30
    while gate.health()["ok"] and time.monotonic() < until:
        time.sleep(0.005)
    (one,) = json.loads(json.dumps(gate.health()))["lists"]
    assert (one["error"], one["entries"]) == ("No such file or directory", 2)


def bearer() -> BearerTokens:
    """Return a source of identities with its own key."""
    return BearerTokens(issuer="https://id.example", audience="api", key="k" * 32, algorithms=["HS256"])


def test_configured_keys_are_counted() -> None:
    """They are neither fetched nor do they end."""
    assert Gate(tokens=bearer()).health() == {
        "ok": True,
        "lists": [],
        "keys": [{"issuer": "https://id.example", "keys": 1, "fetched_at": None, "usable_until": None, "error": None}],
    }


def test_fetched_keys_tell_since_when_and_until_when_they_serve() -> None:
    """Before a first fetch there are none, and asking fetches nothing; a fetch that fails leaves them and tells why."""
    answers: list[Document | Exception] = [Document(jwks(public_jwk(kid="one")), None), FetchFailed("it answers 500")]

    def fetch(_url: str) -> Document:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    keys = FetchedKeys(issuer="https://id.example", jwks_url="https://id.example/keys", fetch=fetch)
    assert keys.health() == {"keys": 0, "fetched_at": None, "usable_until": None, "error": None}
    assert len(answers) == 2

    def ask(kid: str, now: float) -> None:
        need = keys.find(kid, now, fetch=True)
        assert isinstance(need, Need)
        need.work().result(30)  # type: ignore[attr-defined]  # a future

    ask("one", NOW)
    assert keys.health() == {
        "keys": 1,
        "fetched_at": "2033-05-18T03:33:20+00:00",
        "usable_until": "2033-05-19T03:43:20+00:00",
        "error": None,
    }
    ask("two", NOW + 60)
    assert keys.health()["error"] == "it answers 500"
    assert keys.health()["keys"] == 1


def test_a_list_in_many_policies_is_told_once(listed: AddressFile) -> None:
    """However many requirements hold it."""
    wanted: list[Requirement] = [networks(listed) for _ in range(5)]
    gate = Gate(rules=[Rule("*", f"/{number}", one) for number, one in enumerate(wanted)])

    assert gate.health()["lists"] == [listed.health()]
