"""The table of parity through real WSGI servers: what a server makes of bytes, the gate answers as by ASGI."""

import json
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from tests.parity_cases import CASES, Case
from tests.parity_made import MODELS, WSGI_APPS, Seen, ask, seen
from tests.servers_made import WSGI_COMMANDS, Exchange, Served

PEER: Final = "127.0.0.1"
PATIENCE: Final = 30.0  # seconds; every request asks for the connection to be closed
IMPATIENCE: Final = 0.5  # seconds, where the server answers by itself, so that no event will come
BY_DEFAULT: Final = "gunicorn-sync"

TOO_LONG: Final = frozenset(
    {"over 16 KiB", *(f"Authorization: {name}" for name in ("longest", "too long", "too long of another scheme"))}
)
SAME_BY_THE_LAST: Final = frozenset(
    {
        *("preflight: headers in two lines", "preflight: allowed headers in two lines"),
        *(f"origin two, {what}" for what in ("allowed", "no token", "no scope", "bad request", "check", "headed")),
    }
)
"""Cases of a header that comes twice whose answer rests on the last one alone, or is the same without the first."""
REPEATED: Final = frozenset(
    name for name, case in CASES.items() if len({field.lower() for field, _ in case.headers}) < len(case.headers)
)
OTHERWISE: Final = {
    "gunicorn-sync": TOO_LONG,
    "gunicorn-gthread": TOO_LONG,
    "granian-wsgi": frozenset({"Authorization: of Latin-1", "preflight: debugging, header not of ASCII"}),
    "cheroot": REPEATED - SAME_BY_THE_LAST,
}
"""The cases that a server answers by itself, or tells otherwise than it got them; the docs say why."""


def as_bytes(kind: str, name: str, case: Case) -> bytes:
    """Return the request of a case as bytes."""
    target = quote(case.path) + (f"?{case.query}" if case.query else "")
    lines = [f"{case.method} {target} HTTP/1.1", "Host: testserver", f"X-Parity: {kind}; {name}", "Connection: close"]
    lines += [f"{field}: {value}" for field, value in case.headers if field != "Host"]  # all that name it name this one
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def as_seen(exchange: Exchange) -> Seen:
    """Return what was seen of an answer that came as bytes."""
    head, _, body = exchange.answer.partition(b"\r\n\r\n")
    pairs = [line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:]]
    lines = [(name, value) for name, _, value in pairs]
    if any(name.lower() == "transfer-encoding" for name, _ in lines):
        body = b"".join(re.findall(rb"[0-9a-fA-F]+\r\n(.*?)\r\n", body, re.DOTALL))
    return seen(exchange.status or 0, lines, body, [json.loads(event) for event in exchange.ran])


@pytest.mark.parametrize("kind", WSGI_APPS)
@pytest.mark.parametrize(
    "server",
    [pytest.param(name, marks=[pytest.mark.servers] * (name != BY_DEFAULT)) for name in WSGI_COMMANDS],
)
def test_a_server_changes_nothing_of_what_caller_and_operator_see(server: str, kind: str, tmp_path: Path) -> None:
    """Status, headers, body and event are those of ASGI, but for what the docs list."""
    differing = set()
    otherwise = OTHERWISE.get(server, frozenset())
    with Served(server, "tests.parity_served:app", tmp_path) as served:
        for name, case in CASES.items():
            if case.peer == PEER and case.path.startswith("/"):
                expected = ask(MODELS[kind], case, "rules")
                silence = IMPATIENCE if name in otherwise else PATIENCE
                found = as_seen(
                    served.exchange(as_bytes(kind, name, case), least=len(expected.events), silence=silence)
                )
                if found != expected:
                    differing.add(name)
    assert differing == otherwise
