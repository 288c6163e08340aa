r"""WSGI apps behind gates, for real servers. `app` is several, of which a header X-App takes one.

>>> with Served("gunicorn-sync", "app", tmp_path) as served:
...     served.exchange(b"GET /whoami HTTP/1.1\r\nHost: a\r\nX-App: shop\r\n\r\n")
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final
from wsgiref.util import FileWrapper

from authz403 import Cors, Gate, Network, Reason, Rule, any_role, anyone, authenticated, check, networks, scopes
from authz403.wsgi import AuthzMiddleware
from tests.attacked_app import TOKENS, write_down

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

Environ = dict[str, Any]

ORIGIN: Final = "https://app.example"
PLAIN: Final = ("Content-Type", "text/plain")

# ---- the attacked app, as a WSGI framework of few manners would serve it

_HANDLERS: Final = {
    r"/": {"GET": "index"},
    r"/public": {"GET": "public", "POST": "public"},
    r"/admin": {"GET": "admin"},
    r"/admin/users/[0-9]+": {"GET": "admin user"},
    r"/orders/[0-9]+": {"GET": "order", "DELETE": "order removed"},
    r"/files/.+": {"GET": "file"},
    r"/inside": {"GET": "inside"},
    r"/forgotten": {"GET": "forgotten"},
    r"/v1/report": {"GET": "report"},
    r"/sub/admin": {"GET": "sub admin"},
    r"/sub/items": {"GET": "sub items", "POST": "sub items added"},
}
_RULES: Final = [
    Rule("GET", "/", anyone),
    Rule("GET", "/public", anyone),
    Rule("POST", "/public", anyone),
    Rule("*", "/admin/**", any_role("admin")),
    Rule("*", "/sub/admin", any_role("admin")),
    Rule("GET", "/orders/*", scopes("orders:read")),
    Rule("DELETE", "/orders/*", scopes("orders:write")),
    Rule("*", "/files/**", scopes("files")),
    Rule("GET", "/inside", networks("10.0.0.0/8")),
    Rule("*", "/v1/**", scopes("v1")),
    Rule("GET", "/sub/items", scopes("orders:read")),
    Rule("POST", "/sub/items", scopes("orders:write")),
]


def attacked(note: Callable[[str], object]) -> WSGIApplication:
    """Return an app whose handlers call `note`; it takes more spellings of a path for the same than it should."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        path = re.sub("/+", "/", environ["PATH_INFO"] or "/").rstrip("/\n ") or "/"
        method = {"HEAD": "GET"}.get(environ["REQUEST_METHOD"].upper(), environ["REQUEST_METHOD"].upper())
        for pattern, handlers in _HANDLERS.items():
            if re.fullmatch(pattern, path, re.DOTALL):
                if method not in handlers:
                    return _text(start_response, "no such method", "405 Method Not Allowed")
                note(handlers[method])
                return _text(start_response, handlers[method])
        return _text(start_response, "no such page", "404 Not Found")

    return app


def gate_of_attacked(network: Network | None = None) -> Gate:
    """Return the gate before the attacked app."""
    return Gate(tokens=TOKENS, rules=_RULES, network=network)


# ---- a shop, whose answers come in every way


def shop(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Serve one request."""
    kind = environ["PATH_INFO"].strip("/").partition("/")[0]
    write_down(kind)
    return _SHOP[kind](environ, start_response)


def _text(start_response: StartResponse, text: str, status: str = "200 OK") -> list[bytes]:
    body = text.encode()
    start_response(status, [PLAIN, ("Content-Length", str(len(body)))])
    return [body]


def _whoami(environ: Environ, start_response: StartResponse) -> list[bytes]:
    who = environ["authz403.principal"]
    told = {"sub": who.identity, "script_name": environ["SCRIPT_NAME"], "path_info": environ["PATH_INFO"]}
    return _text(start_response, json.dumps(told))


def _streaming(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [PLAIN])

    def pieces() -> Iterator[bytes]:
        for _ in range(3):
            yield environ["authz403.principal"].identity.encode() + b" "

    return pieces()


def _writing(environ: Environ, start_response: StartResponse) -> list[bytes]:
    write = start_response("200 OK", [PLAIN])
    write(b"written ")
    return [b"and returned"]


def _file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [PLAIN, ("Content-Length", "6")])
    wrapper: Callable[[io.BytesIO], Iterable[bytes]] = environ.get("wsgi.file_wrapper", FileWrapper)
    return wrapper(io.BytesIO(b"a file"))


def _crashing(environ: Environ, start_response: StartResponse) -> list[bytes]:
    raise LookupError("a bug in the app")


def _crashing_late(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    start_response("200 OK", [PLAIN])

    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise LookupError("a bug in the app")

    return pieces()


def _owned(environ: Environ, start_response: StartResponse) -> list[bytes]:
    check(environ["QUERY_STRING"] == "mine", Reason.NOT_OWNER)
    return _text(start_response, "yours")


def _owned_late(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    check(environ["QUERY_STRING"] == "mine", Reason.NOT_OWNER)
    start_response("200 OK", [PLAIN])
    yield b"yours"


def _reading(environ: Environ, start_response: StartResponse) -> list[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or -1))
    return _text(start_response, f"{len(body)} bytes")


_SHOP: Final[dict[str, WSGIApplication]] = {
    "whoami": _whoami,
    "streaming": _streaming,
    "writing": _writing,
    "file": _file,
    "crashing": _crashing,
    "crashing-late": _crashing_late,
    "owned": _owned,
    "owned-late": _owned_late,
    "reading": _reading,
    "scoped": _whoami,
}


def _gate_of_shop() -> Gate:
    return Gate(
        tokens=TOKENS,
        rules=[
            *(Rule("*", f"/{kind}", authenticated) for kind in ("whoami", "streaming", "reading")),
            Rule("*", "/scoped/**", scopes("orders:read")),
            Rule("*", "/*", anyone),
        ],
        cors=Cors(origins=[ORIGIN]),
    )


_APPS: Final[dict[str, WSGIApplication]] = {
    "guarded": AuthzMiddleware(attacked(write_down), gate=gate_of_attacked),
    "bare": attacked(write_down),
    "by peer": AuthzMiddleware(attacked(write_down), gate=gate_of_attacked(Network())),
    "behind proxy": AuthzMiddleware(
        attacked(write_down), gate=gate_of_attacked(Network(trusted_proxies=["127.0.0.0/8", "unix"]))
    ),
    "behind forwarded": AuthzMiddleware(
        attacked(write_down),
        gate=gate_of_attacked(Network(source="forwarded", trusted_proxies=["127.0.0.0/8", "unix"])),
    ),
    "shop": AuthzMiddleware(shop, gate=_gate_of_shop),
}


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Serve one request by the app that it names."""
    return _APPS[environ.pop("HTTP_X_APP", "guarded")](environ, start_response)
