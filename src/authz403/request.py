"""What the core knows of a request: facts read once by an adapter, never a framework's object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

# RFC 9110 section 5.6.2: what methods and header names are made of
TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

NO_FIELDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})

WEBSOCKET: Final = "WEBSOCKET"
"""The method that rules and marks give a WebSocket handshake."""


KNOWN_METHODS: Final = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY"),
    WEBSOCKET,
)
"""The methods that policies are kept for one by one; a client may invent others."""


def lines_in_environ(environ: Mapping[str, Any], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return those of the header fields that a WSGI environ has; a server has joined the lines of each with commas."""
    keys = ((name, environ_key(name)) for name in names)
    return {name: (environ[key],) for name, key in keys if key in environ}


def environ_key(name: str) -> str:
    """Return the key of a WSGI environ that a header field stands under (PEP 3333)."""
    key = name.upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


@dataclass(slots=True)  # not frozen: every request makes one, and that would take four times as long
class AccessRequest:
    """The facts of one request that a decision may rest on.

    `method` is as received (`WEBSOCKET` for a handshake), `path` is what the app's router sees (decoded, after
    `root_path`), `peer` is the address of the other end of the connection as the server gives it, or `None`.
    `fields` holds the header fields that the gate asked for: lower-case name to all its values, in order, decoded as
    latin-1. `peer_rewritten` is true where the server itself seems to have replaced the peer by a forwarded address.
    """

    method: str
    path: str
    peer: str | None = None
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: NO_FIELDS)
    peer_rewritten: bool = False
