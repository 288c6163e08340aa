"""Apps behind gates that look for the client in every way, by ASGI (`app`) and by WSGI (`wsgi_app`), for real servers.

A header X-App takes one of them, and /closed refuses everybody and says whom it saw. Events go to the file that
`events_of` reads.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from authz403 import Gate, Network, Rule, anyone, authenticated, networks
from authz403 import asgi as by_asgi
from authz403 import wsgi as by_wsgi
from tests.attacked_app import RAN_FILE, TOKENS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

PROXY: Final = "127.0.0.1"  # where proxies and health checks connect from; clients have other addresses
INSIDE: Final = "127.7.0.0/16"
OUTSIDE: Final = "127.8.0.1"
EVENTS_FILE: Final = "events.jsonl"

_NETWORKS: Final = {
    "peer": Network(),
    "appending": Network(trusted_proxies=[PROXY]),
    "counted": Network(trusted_proxies=[PROXY], hops=2),
    "forwarded": Network(source="forwarded", trusted_proxies=[PROXY]),
    "single": Network(source="x-real-ip", trusted_proxies=[PROXY]),
    "unix": Network(trusted_proxies=["unix"]),
    "fenced": Network(trusted_proxies=[PROXY], allow=[INSIDE, "127.8.0.0/16"], deny=["127.7.66.0/24"]),
    "stripped": Network(trusted_proxies=[PROXY]),
    "mistaken": Network(trusted_proxies=["10.0.0.0/8"]),
}


def _gate(network: Network) -> Gate:
    return Gate(
        tokens=TOKENS,
        rules=[
            Rule("*", "/closed", networks("192.0.2.255")),
            Rule("*", "/inside", networks(INSIDE)),
            Rule("*", "/outside", ~networks(INSIDE)),
            Rule("*", "/me", authenticated),
            Rule("*", "/open", anyone),
        ],
        network=network,
    )


async def _ran(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"ran"})


def _ran_wsgi(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ran"]


_APPS: Final[dict[str, ASGIApp]] = {
    name: by_asgi.AuthzMiddleware(_ran, gate=_gate(network), routes_of=None) for name, network in _NETWORKS.items()
}
_WSGI_APPS: Final[dict[str, WSGIApplication]] = {
    name: by_wsgi.AuthzMiddleware(_ran_wsgi, gate=_gate(network)) for name, network in _NETWORKS.items()
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request by the app that it names."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    name = next((value.decode() for name, value in scope["headers"] if name == b"x-app"), "appending")
    await _APPS[name](scope, receive, send)


def wsgi_app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Serve one request by the app that it names."""
    return _WSGI_APPS[environ.get("HTTP_X_APP", "appending")](environ, start_response)


def events_of(folder: Path) -> list[dict[str, Any]]:
    """Return what the app that is served from a folder has logged so far."""
    return [json.loads(line) for line in (folder / EVENTS_FILE).read_text(encoding="utf-8").splitlines()]


if RAN_FILE in os.environ:
    _handler = logging.FileHandler(Path(os.environ[RAN_FILE]).parent / EVENTS_FILE)
    _handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("authz403").addHandler(_handler)
