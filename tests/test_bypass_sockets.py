"""The same tricks as bytes sent to real servers: whatever a server makes of them, no handler runs that may not."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.attacked_app import CALLERS, FULLY, PROTECTED, WHO_MAY, credentials_of
from tests.attacks_made import Attack, attacks_on, malformed_on
from tests.servers_made import COMMANDS, Served

OTHERS = ("hypercorn", "granian", "daphne")  # `make test-servers` runs them


class Seat(NamedTuple):
    """A server that runs the attacked app for one caller, so that a handler that runs late is not another's."""

    served: Served
    caller: str

    def send(self, attack: Attack) -> tuple[int | None, tuple[str, ...]]:
        """Send one request as this caller: the status, if any, and the handlers that ran."""
        exchange = self.served.exchange(attack.raw(credentials_of(self.caller)))
        return exchange.status, exchange.ran


def servers(*callers: str) -> pytest.MarkDecorator:
    """Run a test with each server, once for each caller."""
    return pytest.mark.parametrize(
        "seat",
        [
            pytest.param((server, caller), id=f"{server}-{caller}", marks=[pytest.mark.servers] * (server in OTHERS))
            for server in COMMANDS
            for caller in callers
        ],
        indirect=True,
        scope="module",
    )


on_each_server = pytest.mark.parametrize(
    "server", [pytest.param(server, marks=[pytest.mark.servers] * (server in OTHERS)) for server in COMMANDS]
)


@pytest.fixture(scope="module")
def seat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seat]:
    """Return the guarded app on the server that the test names, for its caller."""
    server, caller = request.param
    with Served(server, "guarded", tmp_path_factory.mktemp("served")) as served:
        yield Seat(served, caller)


@servers(*CALLERS)
def test_no_bytes_run_what_their_sender_may_not(seat: Seat) -> None:
    """Whatever a server makes of requests that no client in its right mind sends."""
    for attack in (attack for path in PROTECTED for attack in malformed_on(path)):
        status, ran = seat.send(attack)
        assert [name for name in ran if seat.caller not in WHO_MAY[name]] == [], (attack, status)
        assert status != 500, attack


@servers(*CALLERS)
def test_no_trick_runs_what_its_sender_may_not(seat: Seat, corpora: Path) -> None:
    """The public lists, every fourth of them, others on each path: in process, all of them are tried."""
    for first, path in enumerate(PROTECTED):
        for attack in islice(attacks_on(path, corpora), first % 4, None, 4):
            status, ran = seat.send(attack)
            assert [name for name in ran if seat.caller not in WHO_MAY[name]] == [], (attack, status)
            assert status != 500, attack


@servers(FULLY)
def test_who_may_is_served_as_by_the_bare_app(seat: Seat, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The gate takes nothing from those who may: with all rights, the same handler runs, with the same status."""
    server, _ = request.node.callspec.params["seat"]
    with Served(server, "bare", tmp_path) as served:
        bare = Seat(served, FULLY)
        for path in PROTECTED:
            for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
                for target in (path, f"{path}/", f"{path}?a=/..", path.replace("/", "/%61", 1), f"{path}%20"):
                    attack = Attack("none", target, method)
                    before = bare.send(attack)
                    if all(FULLY in WHO_MAY[name] for name in before[1]):
                        assert seat.send(attack) == before, attack


@on_each_server
def test_a_trailer_is_no_forwarded_address(server: str, tmp_path: Path) -> None:
    """Uvicorn with httptools takes trailers for header lines, and they come behind what the proxy wrote."""
    forwarded = Attack("forwarded", "/inside", lines=("X-Forwarded-For: 10.0.0.1",))
    chunked = ("X-Forwarded-For: 198.51.100.7", "Transfer-Encoding: chunked")
    by_trailer = Attack("trailer", "/inside", lines=chunked, body="1\r\na\r\n0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
    with Served(server, "behind_proxy", tmp_path) as served:
        assert served.exchange(forwarded.raw(None))[:2] == (200, ("inside",))
        assert served.exchange(by_trailer.raw(None))[:2] == (403, ())
