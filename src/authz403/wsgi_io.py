"""The native side of WSGI (PEP 3333): environs read into facts, answers sent, headers put on. No decisions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from authz403.cors import ORIGIN, REQUEST_METHOD, Headers
from authz403.decision import Response
from authz403.network import UNIX
from authz403.request import WEBSOCKET, AccessRequest, environ_key

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

Environ = dict[str, Any]
Write = Callable[[bytes], object]
Lines = list[tuple[str, str]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_PROXY_FIX: Final = "werkzeug.proxy_fix.orig"
_NOT_TEXT: Final = "\ufffd"  # no path may hold it
_OF_NO_INTEREST: Final = frozenset({"Content-Type", "Content-Length", "content-type", "content-length"})
# Servers join the lines of one header with commas. Neither field can hold a comma itself (RFC 6454, RFC 9110).
_SINGLE: Final = frozenset({ORIGIN, REQUEST_METHOD})


def wanted_keys(fields: Iterable[str]) -> Mapping[str, str]:
    """Return the header fields that a gate reads, by their keys in an environ."""
    return {environ_key(name): name for name in sorted(fields)}


def access_request(environ: Environ, wanted: Mapping[str, str]) -> AccessRequest:
    """Read the facts of a request, with the header fields that are `wanted`."""
    fields: dict[str, tuple[str, ...]] = {}
    for key in wanted:
        if key in environ:
            fields[wanted[key]] = (environ[key],)
    if ORIGIN in fields and ("," in fields[ORIGIN][0] or REQUEST_METHOD in fields):
        for name in _SINGLE.intersection(fields):
            fields[name] = tuple(part.strip(" \t") for part in fields[name][0].split(","))
    method = environ["REQUEST_METHOD"]
    if method == WEBSOCKET:  # a client may invent a method of that name
        method = f"HTTP {method}"
    path = environ.get("PATH_INFO") or "/"
    # Over a unix socket, the peer is the name that the other end bound its own socket to, and that may look like an
    # address. gunicorn leaves the port out there, and granian calls its own port 0. ProxyFix writes that, too, and some
    # servers take it from the Host header: by what a client wrote.
    if "REMOTE_PORT" not in environ and (
        "gunicorn.socket" in environ or environ.get(_PROXY_FIX, environ).get("SERVER_PORT") == "0"
    ):
        peer: str | None = UNIX
    else:
        peer = environ.get("REMOTE_ADDR")
    rewritten = _PROXY_FIX in environ and "x-forwarded-for" in fields
    return AccessRequest(method, path if path.isascii() else path_of(environ), peer, fields, rewritten)


def path_of(environ: Mapping[str, Any]) -> str:
    """Return the path of a request below `SCRIPT_NAME`, which stands in an environ as bytes decoded by latin-1."""
    path: str = environ.get("PATH_INFO", "")
    if path.isascii():
        return path or "/"
    try:
        return path.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return _NOT_TEXT


def respond(
    response: Response, environ: Environ, start_response: StartResponse, exc_info: ExcInfo | None = None
) -> list[bytes]:
    """Send an answer of the gate's own, without reading the body of the request."""
    status, headers, body = response
    return _send(environ, start_response, status, list(as_text(headers)), body, exc_info)


def plain_page(
    status: HTTPStatus, environ: Environ, start_response: StartResponse, exc_info: ExcInfo | None = None
) -> list[bytes]:
    """Answer with nothing but the words of a status: for what is missing, and for what crashed."""
    body = status.phrase.encode("ascii")
    lines = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
    return _send(environ, start_response, status, lines, body, exc_info)


def _send(
    environ: Environ,
    start_response: StartResponse,
    status: int,
    lines: Lines,
    body: bytes,
    exc_info: ExcInfo | None,
) -> list[bytes]:
    told = f"{int(status)} {HTTPStatus(status).phrase}"
    if exc_info is None:
        start_response(told, lines)
    else:
        start_response(told, lines, exc_info)
    # RFC 9110 section 9.3.2: no content in the response to HEAD.
    return [body] if body and environ["REQUEST_METHOD"] != "HEAD" else []


@lru_cache(maxsize=1024)
def as_text(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return headers as WSGI wants them."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def with_headers(lines: Iterable[tuple[str, str]], own: Headers, *, keep_out_of_caches: bool) -> Lines:
    """Return the headers of an answer with the gate's CORS headers in place of the app's.

    Where anything is concealed, a 404 is kept out of caches: a stored one would tell the missing from the forbidden.
    """
    found: Lines = []
    varies = cached = False
    for line in lines:
        name = line[0]
        if name in _OF_NO_INTEREST:
            found.append(line)
            continue
        name = name.lower()
        if own and name.startswith("access-control-"):
            continue
        if name == "vary":
            varies = varies or "origin" in [field.strip() for field in line[1].lower().split(",")]
        elif name == "cache-control":
            cached = True
        found.append(line)
    added = as_text(own)
    found.extend([line for line in added if line[0] != "vary"] if varies else added)
    if keep_out_of_caches and not cached:
        found.append(("cache-control", "no-store"))
    return found


def is_sent_as_file(body: object, environ: Environ) -> bool:
    """Tell whether a body is the server's own file wrapper, which it sends in a way of its own if it gets it back."""
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def then_raising(body: list[bytes], error: Exception) -> Iterator[bytes]:
    """Yield a page about a crash, then hand the crash on to the server, which logs it."""
    yield from body or [b""]  # with nothing to send after them, headers are sent all the same
    raise error


def raised() -> ExcInfo:
    """Return the exception that is being handled, as `start_response` wants it."""
    return sys.exc_info()
