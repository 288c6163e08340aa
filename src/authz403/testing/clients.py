"""Test clients for apps of every framework, with an identity, an address and an origin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from ipaddress import ip_network
from json import dumps
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from authz403.addresses import parse_address
from authz403.cors import ORIGIN
from authz403.errors import Mistakes
from authz403.guarded import Guarded
from authz403.network import UNIX, Network
from authz403.request import WEBSOCKET
from authz403.tokens import AUTHORIZATION, SUBPROTOCOL, BearerTokens

_BASE: Final = "http://testserver"
_PORT: Final = 50_000
HERE: Final = "127.0.0.1"
Within = Callable[[], AbstractContextManager[object]]


class Sent(NamedTuple):
    """What a client sends with every request: header fields by lower-case name, and the peer that it comes from."""

    headers: Mapping[str, str]
    peer: str


class Client(NamedTuple):
    """A test client of its framework's own kind (`native`), and a way to send one request that is the same for all."""

    native: Any
    send: Callable[[str, str, object], Any]


def token_fields(source: BearerTokens, token: str, *, websocket: bool = False) -> dict[str, str]:
    """Return the header field that a source reads a token from."""
    fields = [name for name in source.read_from if websocket or name != SUBPROTOCOL]
    if not fields:
        mistakes = Mistakes("the client")
        mistakes.add("read_from", list(source.read_from), "tokens are read from WebSockets alone; use acting_as")
        mistakes.raise_if_any()
    name = fields[0]
    if name == SUBPROTOCOL:
        return {name: f"bearer, {token}"}
    return {name: f"Bearer {token}" if name == AUTHORIZATION else token}


def sent_from(network: Network, address: str | None) -> Sent:
    """Return what a request looks like that comes from an address, by way of the proxies that a gate trusts."""
    if address is None:
        return Sent({}, HERE)
    mistakes = Mistakes("the client")
    parsed = parse_address(address)
    proxy = _proxy(network)
    if parsed is None:
        mistakes.add("address", address, "an IP address is needed")
    elif proxy is not None and network.hops is None and network.trusts_peer(address):
        mistakes.add("address", address, "it is one of trusted_proxies, and a trusted proxy is never the client")
    mistakes.raise_if_any()
    if network.source == "peer" or proxy is None:
        return Sent({}, address)
    way = [address, *[proxy if proxy != UNIX else HERE] * ((network.hops or 1) - 1)]
    if network.source == "forwarded":
        shown = ", ".join(f'for="[{one}]"' if ":" in one else f"for={one}" for one in way)
    else:
        shown = ", ".join(way)
    return Sent({str(network.source): shown}, proxy)


def _proxy(network: Network) -> str | None:
    """Return the address of a proxy that is trusted, if any is."""
    cidrs = [cidr for cidr in network.trusted_proxies if cidr != UNIX]
    if cidrs:
        return str(next(iter(ip_network(cidrs[0]))))
    return UNIX if network.trusted_proxies else None


def origin_fields(origin: str | None) -> dict[str, str]:
    """Return the header field that says which page a request comes from."""
    return {} if origin is None else {ORIGIN: origin}


def client_of(found: Guarded, sent: Sent, within: Within = nullcontext, *, raises: bool = True) -> Client:
    """Return a client that sends `sent` with every request, each served `within` a context.

    `raises` says that what crashes in the app is raised in the test.
    """
    kinds = {kind.__module__.partition(".")[0] for kind in type(found.entry).__mro__}
    if "django" in kinds:
        return _django(sent, within, raises=raises)
    if "flask" in kinds:
        return _flask(found.entry, sent, within)
    if found.kind == "asgi":
        return _asgi(found.entry, sent, within, raises=raises)
    return _wsgi(found.entry, sent, within, raises=raises)


def _asgi(app: Any, sent: Sent, within: Within, *, raises: bool) -> Client:
    from starlette.testclient import TestClient  # noqa: PLC0415 - it needs what other kinds of apps do not

    async def entry(scope: Any, receive: Any, send: Any) -> None:
        with within():
            await app(scope, receive, send)

    client = TestClient(
        app if within is nullcontext else entry,
        base_url=_BASE,
        raise_server_exceptions=raises,
        headers=dict(sent.headers),
        client=(sent.peer, _PORT),
        follow_redirects=False,
    )

    def send(method: str, path: str, json: object) -> Any:
        if method == WEBSOCKET:
            return _handshake(client, quote(path))
        return client.request(method, quote(path), json=json)

    return Client(client, send)


def _handshake(client: Any, path: str) -> Any:
    """Open a WebSocket and close it again; return the answer that refused it, if one did."""
    from starlette.testclient import WebSocketDenialResponse  # noqa: PLC0415 - as above
    from starlette.websockets import WebSocketDisconnect  # noqa: PLC0415 - as above

    try:
        with client.websocket_connect(path):
            return None
    except WebSocketDenialResponse as denied:
        return denied
    except WebSocketDisconnect:
        return None


def _wsgi(app: Any, sent: Sent, within: Within, *, raises: bool) -> Client:
    import httpx2  # noqa: PLC0415 - it takes its time

    def entry(environ: Any, start_response: Any) -> Iterator[bytes]:
        with within():
            body = app(environ, start_response)
            try:
                yield from body
            finally:
                getattr(body, "close", _nothing)()

    transport = httpx2.WSGITransport(
        app=app if within is nullcontext else entry, raise_app_exceptions=raises, remote_addr=sent.peer
    )
    client = httpx2.Client(transport=transport, base_url=_BASE, headers=dict(sent.headers))
    return Client(client, lambda method, path, json: client.request(method, quote(path), json=json))


def _nothing() -> None:
    """Stand for a `close` that a body does not have."""


def _flask(app: Any, sent: Sent, within: Within) -> Client:
    client = app.test_client()
    client.environ_base.update(_environ(sent), REMOTE_ADDR=sent.peer)
    _serve_within(client, "open", within)
    return Client(client, lambda method, path, json: client.open(quote(path), method=method, json=json))


def _django(sent: Sent, within: Within, *, raises: bool) -> Client:
    from django.test import Client as DjangoClient  # noqa: PLC0415 - its apps have loaded it

    client = DjangoClient(raise_request_exception=raises, REMOTE_ADDR=sent.peer, **_environ(sent))  # type: ignore[arg-type]  # META of every request
    _serve_within(client, "request", within)

    def send(method: str, path: str, json: object) -> Any:
        data = "" if json is None else dumps(json)
        return client.generic(method, quote(path), data, "application/json" if data else "application/octet-stream")

    return Client(client, send)


def _environ(sent: Sent) -> dict[str, str]:
    return {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in sent.headers.items()}


def _serve_within(client: Any, name: str, within: Within) -> None:
    """Let a client make each of its requests within a context."""
    if within is nullcontext:
        return
    ask = getattr(client, name)

    def asking(*args: Any, **options: Any) -> Any:
        with within():
            return ask(*args, **options)

    setattr(client, name, asking)
