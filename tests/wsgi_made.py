"""Environs for tests, and a small WSGI server that notes what an app sends, through the validator of wsgiref.

>>> answer = ask(app, environ_of("/orders/5", headers=[("Authorization", f"Bearer {signed()}")]))
>>> answer.status, answer.reason, answer.closed
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from wsgiref.validate import validator

from authz403 import Gate
from authz403.wsgi import AuthzMiddleware

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

Environ = dict[str, Any]
Lines = list[tuple[str, str]]

PEER: Final = "127.0.0.1"


def environ_of(
    path: str = "/",
    method: str = "GET",
    *,
    headers: Iterable[tuple[str, str]] | Mapping[str, str] = (),
    body: bytes = b"",
    more: Mapping[str, object] = MappingProxyType({}),
) -> Environ:
    """Return the environ of a request; lines of one header are joined by commas, as servers do.

    `path` is text, which servers hand over as the latin-1 of its UTF-8. `more` replaces and adds keys, `None`
    leaves one out.
    """
    lines = headers.items() if isinstance(headers, Mapping) else headers
    fields: dict[str, str] = {}
    for name, value in lines:
        key = "HTTP_" + name.upper().replace("-", "_")
        fields[key] = f"{fields[key]},{value}" if key in fields else value
    environ: Environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode("utf-8").decode("latin-1"),
        "QUERY_STRING": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": PEER,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        **fields,
        **more,
    }
    return {key: value for key, value in environ.items() if value is not None}


@dataclass
class Answer:
    """What an app sent for one request, what it raised, and whether what it returned was closed."""

    status_line: str = ""
    headers: Lines = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    error: Exception | None = None
    closed: bool = False
    starts: int = 0

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self.status_line[:3])

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def reason(self) -> object:
        """The reason in the problem document."""
        return json.loads(self.body)["reason"]

    def header(self, name: str) -> str | None:
        """Return the value of a header; fails where there are two."""
        found = [value for given, value in self.headers if given.lower() == name]
        assert len(found) <= 1, f"{name} was sent twice"
        return found[0] if found else None


def ask(app: WSGIApplication, environ: Environ, *, is_validated: bool = True, at_most: int | None = None) -> Answer:
    """Serve one request as PEP 3333 says; a client that goes away leaves after `at_most` pieces of the body."""
    answer = Answer()

    def start_response(status: str, headers: Lines, exc_info: Any = None) -> Any:  # noqa: ANN401 - as PEP 3333 has it
        answer.starts += 1
        if exc_info is None:
            assert not answer.status_line, "start_response was called twice"
        elif answer.chunks:
            raise exc_info[1].with_traceback(exc_info[2])
        answer.status_line, answer.headers = status, headers
        return answer.chunks.append

    served = validator(app) if is_validated else app
    returned: Iterable[bytes] = ()
    try:
        returned = served(environ, start_response)
        pieces = iter(returned)
        while at_most is None or len(answer.chunks) < at_most:
            piece = next(pieces, None)
            if piece is None:
                break
            assert answer.status_line, "a body came before start_response"
            answer.chunks.append(piece)
    except Exception as error:  # noqa: BLE001 - what an app raises is part of its answer
        answer.error = error
    finally:
        close = getattr(returned, "close", None)
        if close is not None:
            close()
            answer.closed = True
    return answer


def guarded(app: WSGIApplication, gate: Gate | Callable[[], Gate], *, is_validated: bool = True) -> AuthzMiddleware:
    """Put a gate before an app, with the validator between them, so that both sides of the gate are looked at."""
    return AuthzMiddleware(validator(app) if is_validated else app, gate=gate)


def page(text: str = "hello", status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()) -> WSGIApplication:
    """Return an app that answers with a text."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response(status, [("Content-Type", "text/plain"), *headers])
        return [text.encode()]

    return app
