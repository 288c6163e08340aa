"""Many callers at once in one process: nobody is ever taken for another."""

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.attacked_app import credentials_of
from tests.servers_made import Served

CLIENTS: Final = 32
REFUSED: Final = 10  # every tenth request asks for what its caller may not


class Seen(NamedTuple):
    """What one client saw: how many answers of each status, and those that were not its own."""

    allowed: int
    refused: int
    wrong: list[object]


def hammer(address: tuple[str, int], name: str, until: float) -> Seen:
    """Send requests as one caller, in pieces and not, on one connection that stays open."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    headers = {"Authorization": str(credentials_of(name)), "X-App": "shop"}
    allowed = refused = 0
    wrong: list[object] = []
    while time.monotonic() < until or allowed == 0:
        number = allowed + refused
        path = "/scoped" if number % REFUSED == REFUSED - 1 else ("/whoami", "/streaming")[number % 2]
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        if path == "/scoped":
            refused += 1
            is_own = answer.status == 403 and json.loads(body)["reason"] == "insufficient_scope"
        else:
            allowed += 1
            is_own = answer.status == 200 and (json.loads(body)["sub"] if path == "/whoami" else body) in {
                name,
                f"{name} " * 3,
            }
        if not is_own:
            wrong.append((path, answer.status, body))
    connection.close()
    return Seen(allowed, refused, wrong)


@pytest.mark.parametrize(
    ("seconds", "least"),
    [pytest.param(2, 200, id="2s"), pytest.param(20, 4_000, id="20s", marks=pytest.mark.servers)],
)
def test_nobody_is_taken_for_another(seconds: int, least: int, tmp_path: Path) -> None:
    """32 clients and 32 threads of one worker: every answer names the caller whose token came with the request."""
    names = [f"caller-{number}" for number in range(CLIENTS)]
    with Served("gunicorn-gthread", "app", tmp_path) as served:
        served.connected().close()
        assert isinstance(served.address, tuple)
        address = served.address
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(CLIENTS) as threads:
            seen = list(threads.map(lambda name: hammer(address, name, until), names))
    assert [one.wrong for one in seen if one.wrong] == []
    assert sum(one.allowed for one in seen) > least
    assert sum(one.refused for one in seen) > least // REFUSED // 2
