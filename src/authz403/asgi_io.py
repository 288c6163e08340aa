"""The native side of ASGI: scopes read into facts, answers sent, headers put on. No decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from authz403.cors import Headers
from authz403.credentials import BEARER_SUBPROTOCOL
from authz403.decision import Response
from authz403.request import WEBSOCKET, AccessRequest

POLICY_VIOLATION: Final = 1008  # RFC 6455 section 7.4.1
STARTS_ANSWER: Final = frozenset(
    {"http.response.start", "websocket.accept", "websocket.close", "websocket.http.response.start"}
)
_OF_NO_INTEREST: Final = frozenset({b"content-type", b"content-length"})  # as nearly every answer has them
_WEBSOCKET_ANSWERS: Final = frozenset({"websocket.close", "websocket.accept"})


def access_request(scope: Scope, wanted: Mapping[bytes, str]) -> AccessRequest:
    """Read the facts of a request, with the header fields that are `wanted`, in one pass over the headers."""
    method = WEBSOCKET
    if scope["type"] == "http":
        method = scope["method"]
        if method == WEBSOCKET:  # a client may invent a method of that name
            method = f"HTTP {method}"
    path = get_route_path(scope) if scope.get("root_path") else scope["path"]
    return facts_of(method, path, scope.get("client"), scope["headers"], wanted)


def facts_of(
    method: str,
    path: str,
    client: Sequence[Any] | None,
    headers: Iterable[tuple[bytes, bytes]],
    wanted: Mapping[bytes, str],
) -> AccessRequest:
    """Return the facts of a request: `client` is its peer and that one's port, as the scope has it."""
    fields: dict[str, tuple[str, ...]] = {}
    for name, value in headers:
        if name in wanted:
            field, text = wanted[name], value.decode("latin-1")
            fields[field] = (*fields[field], text) if field in fields else (text,)
    peer = client[0] if client else None
    return AccessRequest(
        method,
        path,
        peer if isinstance(peer, str) else None,
        fields,
        # uvicorn's own reading of X-Forwarded-For leaves the forwarded address with port 0
        "x-forwarded-for" in fields and bool(client and len(client) > 1 and client[1] == 0),
    )


async def respond(response: Response, scope: Scope, send: Send) -> None:
    """Send an answer of the gate's own, without reading the body of the request."""
    status, headers, body = response
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        # RFC 9110 section 9.3.2: no content in the response to HEAD.
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
    elif "websocket.http.response" in scope.get("extensions", {}):
        # Servers add a Content-Length of their own here, and a second one breaks the handshake's answer.
        framed = [header for header in headers if header[0] != b"content-length"]
        await send({"type": "websocket.http.response.start", "status": status, "headers": framed})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})


def with_headers(message: Message, own: Headers, keep_out_of_caches: bool) -> Message:  # noqa: FBT001 - a keyword costs
    """Return the start of an answer with the gate's CORS headers in place of the app's.

    Where anything is concealed, a 404 is kept out of caches: a stored one would tell the missing from the forbidden.
    """
    if not (own or keep_out_of_caches) or message["type"] in _WEBSOCKET_ANSWERS:
        return message
    headers: list[tuple[bytes, bytes]] = []
    varies = cached = False
    for header in message.get("headers", ()):
        name = header[0]
        if name in _OF_NO_INTEREST:
            headers.append(header)
            continue
        name = name.lower()
        if own and name.startswith(b"access-control-"):
            continue
        if name == b"vary":
            varies = varies or b"origin" in [field.strip() for field in header[1].lower().split(b",")]
        elif name == b"cache-control":
            cached = True
        headers.append(header)
    headers.extend([header for header in own if header[0] != b"vary"] if varies else own)
    if keep_out_of_caches and not cached:
        headers.append((b"cache-control", b"no-store"))
    return {**message, "headers": headers}


def hide_token(scope: Scope) -> str | None:
    """Take a token out of the subprotocols that the app may choose from; return the word before it as it was offered.

    The header itself stays, as the gate's inner fellows read it.
    """
    offered = list(scope.get("subprotocols", ()))
    for number, name in enumerate(offered):
        if name.lower() == BEARER_SUBPROTOCOL:
            scope["subprotocols"] = offered[:number] + offered[number + 2 :]
            return str(name)
    return None


def choosing_subprotocol(message: Message, offered: str) -> Message:
    """Return the message that accepts a WebSocket, with the subprotocol of tokens where the app chose none.

    RFC 6455 section 4.1: a client that offered subprotocols fails the connection where none of them is chosen, letter
    by letter.
    """
    if message["type"] != "websocket.accept" or message.get("subprotocol"):
        return message
    return {**message, "subprotocol": offered}


async def crash_page(error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a crash of the app as the app itself would, so that a browser may read it; the exception goes on."""
    app = scope.get("app")
    handlers = app.exception_handlers if isinstance(app, Starlette) else {}
    handler = handlers.get(500) or handlers.get(Exception)

    async def crashed(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    page = ServerErrorMiddleware(crashed, handler=handler, debug=isinstance(app, Starlette) and app.debug)
    await page(scope, receive, send)


async def missing_page(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as a Starlette app does for a path that it does not have, with its own handler for that, if any."""
    app = scope.get("app")
    handlers = {
        key: handler
        for key, handler in (app.exception_handlers if isinstance(app, Starlette) else {}).items()
        if key not in {500, Exception}
    }
    page = ExceptionMiddleware(Router().not_found, handlers=handlers)
    await page(scope, receive, send)
