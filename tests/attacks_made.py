"""Requests that try to reach a handler by a way that its policy does not see, as bytes and as ASGI scopes.

>>> attacks_on("/admin", corpora)  # the public lists of such tricks, on one path
>>> for attack in MALFORMED: server.exchange(attack.raw(credentials_of(PARTLY)))
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

from starlette.types import Scope

from tests.apps_made import scope_of
from tests.attacked_app import PROTECTED, forged_credentials

_CREDENTIALS: Final = "{credentials}"
_FORGED: Final = "{forged}"
_AUTHORIZATION: Final = f"Authorization: {_CREDENTIALS}"


class Attack(NamedTuple):
    """One request. `lines` are its header lines after Host; those with `{credentials}` are left out by who has none."""

    name: str
    target: str
    method: str = "GET"
    lines: tuple[str, ...] = (_AUTHORIZATION,)
    version: str = " HTTP/1.1"
    body: str = ""

    @property
    def is_usual(self) -> bool:
        """Whether its header is one that a client in its right mind sends, so that it must have its answer."""
        return self.lines[:1] == (_AUTHORIZATION,) and all(line[:1] not in {" ", "\t"} for line in self.lines)

    def raw(self, credentials: str | None) -> bytes:
        """Return the request as bytes."""
        start = f"{self.method} {self.target}{self.version}"
        lines = self._lines(credentials)
        connection = [] if any(line.startswith("Connection:") for line in lines) else ["Connection: close"]
        head = [start, "Host: api.example", *connection, *lines]
        return ("\r\n".join(head) + "\r\n\r\n" + self.body).encode("utf-8")

    def scope(self, credentials: str | None) -> Scope | None:
        """Return the request as servers hand it to an app, or `None` where only a server can say what it is."""
        fields = [line.partition(": ") for line in ("Host: api.example", *self._lines(credentials))]
        if self.body or not all(colon and name.isprintable() and " " not in name for name, colon, _ in fields):
            return None
        path = unquote(self.target.partition("?")[0])
        return scope_of(path, self.method, headers=[(name, value) for name, _, value in fields])

    def _lines(self, credentials: str | None) -> list[str]:
        sent = [line for line in self.lines if credentials is not None or _CREDENTIALS not in line]
        return [line.format(credentials=credentials, forged=forged_credentials()) for line in sent]


def attacks_on(path: str, corpora: Path) -> Iterator[Attack]:
    """Yield the tricks of the public lists on one path: between its segments, behind it, by header and by method."""
    lists = corpora / "bypass-403"
    slashes = [number for number, char in enumerate(path) if char == "/"]
    for payload in _entries(lists / "midpaths"):
        for at in slashes:
            yield Attack(f"{payload} at {at}", f"{path[:at]}/{payload}{path[at + 1 :]}")
            yield Attack(f"{payload}/ at {at}", f"{path[:at]}/{payload}{path[at:]}")
    for payload in _entries(lists / "endpaths"):
        yield Attack(f"{payload} at the end", f"{path}{payload}")
    for change in _SPELLINGS:
        yield Attack("spelled otherwise", change(path))
    for method in (*_entries(lists / "httpmethods"), "get", "Get", "gET", "head", "post", "websocket", "WEBSOCKET"):
        yield Attack(f"method {method}", path, method)
    addresses = _entries(lists / "ips")
    for header in _entries(lists / "headers"):
        # Each header once with each address would be the same request over and over.
        for value in (*addresses[:2], "10.0.0.1", "http://127.0.0.1/public", "/public"):
            yield Attack(f"{header}: {value}", path, lines=(_AUTHORIZATION, f"{header}: {value}"))
            yield Attack(f"{header}: {path}", "/public", lines=(_AUTHORIZATION, f"{header}: {path}"))
    for line in _entries(lists / "simpleheaders"):
        name, _, value = line.partition(" ")
        yield Attack(line, path, lines=(_AUTHORIZATION, f"{name}: {value}"))
        yield Attack(line, path, "POST", lines=(_AUTHORIZATION, f"{name}: {value}"))


def _entries(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


_SPELLINGS: Final[tuple[Callable[[str], str], ...]] = (
    lambda path: path + "%0A",
    lambda path: path + "%0a%0a",
    lambda path: path + "%0d%0a",
    lambda path: path + "/%0A",
    lambda path: path + "%00",
    lambda path: path + "%e2%80%a8",
    lambda path: path + "%c2%85",
    lambda path: path + "%ff",
    lambda path: path.replace("/", "/%0A", 1),
    lambda path: path.upper(),
    lambda path: path.title(),
    lambda path: path.replace("/", "//", 1),
    lambda path: path.replace("/", "%2f"),
    lambda path: path.replace("/", "%252f"),
    lambda path: "/%" + f"{ord(path[1]):02x}" + path[2:],
    lambda path: "/%25" + f"{ord(path[1]):02x}" + path[2:],
    lambda path: path.replace("a", "%61"),
    lambda path: path.replace("i", "%c4%b1"),  # a dotless i, whose upper case is I
    lambda path: path.replace("5", "+5"),
    lambda path: path.replace("5", "%d9%a5"),  # five in Arabic digits
    lambda path: path.replace("5", "5_0"),
    lambda path: path.replace("5", "0005"),
    lambda path: path.replace("5", "5%0a"),
    lambda path: path.replace("/", "\\"),
    lambda path: "/public/.." + path,
    lambda path: "/public/%2e%2e" + path,
    lambda path: "/public;/.." + path,
    lambda path: "/public%2f.." + path,
    lambda path: "/public?" + path,
    lambda path: "/public?x=/../.." + path,
    lambda path: path + "?" + "a" * 9_000,
    lambda path: path + "/public",
    lambda path: path + ";/public",
    lambda path: path + "#/public",
    lambda path: "/public#" + path,
    lambda path: path[1:],  # no leading slash
    lambda path: "." + path,
    lambda path: "http://127.0.0.1" + path,  # absolute form, RFC 9112 section 3.2.2
    lambda path: "http://api.example" + path + "?x",
    lambda path: "http://127.0.0.1:1/public@api.example" + path,
    lambda path: "//127.0.0.1" + path,
    lambda path: "http:" + path,
    lambda path: "?" + path,
    lambda path: "@api.example" + path,
)


def malformed_on(path: str) -> Iterator[Attack]:
    """Yield requests that no client in its right mind sends."""
    yield Attack("two Authorization headers", path, lines=(_AUTHORIZATION, f"Authorization: {_FORGED}"))
    yield Attack("two the other way round", path, lines=(f"Authorization: {_FORGED}", _AUTHORIZATION))
    yield Attack("two in one line", path, lines=(f"Authorization: {_CREDENTIALS}, {_FORGED}",))
    yield Attack("the same twice", path, lines=(_AUTHORIZATION, _AUTHORIZATION))
    yield Attack("a forged one", path, lines=(f"Authorization: {_FORGED}",))
    yield Attack("folded", path, lines=("Authorization: Bearer", f" {_FORGED}"))
    yield Attack("folded behind another", path, lines=("X-Other: a", f"\tAuthorization: {_FORGED}"))
    yield Attack("white space before the colon", path, lines=(f"Authorization : {_FORGED}",))
    yield Attack("underscore", path, lines=(f"Authorization_: {_FORGED}", f"HTTP_AUTHORIZATION: {_FORGED}"))
    yield Attack("user headers", path, lines=("X-User: admin", "Remote-User: admin", "X-Forwarded-User: admin"))
    yield Attack("no colon", path, lines=("Authorization",))
    yield Attack("NUL in the header", path, lines=(f"Authorization: {_FORGED}\0",))
    yield Attack("bare CR in the header", path, lines=(f"X-A: b\rAuthorization: {_FORGED}",))
    yield Attack("bare LF in the header", path, lines=(f"X-A: b\nAuthorization: {_FORGED}",))
    yield Attack("two hosts", path, lines=("Host: 127.0.0.1", _AUTHORIZATION))
    yield Attack("HTTP/1.0", path, version=" HTTP/1.0")
    yield Attack("HTTP/0.9", path, version="")
    yield Attack("HTTP/2.0 in clear", path, version=" HTTP/2.0")
    yield Attack("white space before the target", f" {path}")
    yield Attack("white space behind the target", f"{path} ")
    yield Attack("a second target", f"/public {path}")
    yield Attack("tab in the request line", f"{path}\tHTTP/1.1", version=" HTTP/1.1")
    yield Attack("raw bytes in the target", f"{path}\u0085\u2028")
    yield Attack("method with a space", path, "GET /public")
    yield Attack("asterisk form", "*", "OPTIONS")
    yield Attack("authority form", "api.example:443", "CONNECT")
    chunked = (_AUTHORIZATION, "Transfer-Encoding: chunked")
    yield Attack(
        "two lengths", "/public", "POST", (*chunked, "Content-Length: 4"), body=f"0\r\n\r\nGET {path} HTTP/1.1\r\n"
    )
    trailer = f"0\r\nAuthorization: {forged_credentials()}\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"
    yield Attack("trailers", path, lines=("Transfer-Encoding: chunked",), body=f"1\r\na\r\n{trailer}")
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    for target in (path, "/live"):
        yield Attack("an upgrade", target, lines=(_AUTHORIZATION, "Connection: upgrade", *upgrade))
        yield Attack("an upgrade by POST", target, "POST", lines=(_AUTHORIZATION, "Connection: upgrade", *upgrade))
        yield Attack("an upgrade to h2c", target, lines=(_AUTHORIZATION, "Connection: upgrade", "Upgrade: h2c"))


def every_attack(corpora: Path) -> Iterator[Attack]:
    """Yield all attacks on all protected paths."""
    for path in PROTECTED:
        yield from attacks_on(path, corpora)
        yield from malformed_on(path)
