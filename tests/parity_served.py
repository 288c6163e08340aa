"""The apps of tests/parity_made.py behind a server: each request says which of them, and every event is noted."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from tests.attacked_app import write_down
from tests.parity_cases import CASES
from tests.parity_made import WSGI_APPS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse


class _Note(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if json.loads(record.getMessage()).get("cause") != "default_applies":
            write_down(record.getMessage())


logging.getLogger("authz403").addHandler(_Note())
logging.getLogger("authz403").setLevel(logging.DEBUG)


def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Serve one request by an app of its own."""
    kind, name = environ.pop("HTTP_X_PARITY").split("; ", 1)
    return WSGI_APPS[kind](CASES[name], "rules")(environ, start_response)
