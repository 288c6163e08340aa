"""CORS (the Fetch standard): preflights are answered before anything can refuse them, and every answer may be read.

Origins are compared exactly; all header values are made when the gate is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from authz403.errors import Mistakes
from authz403.request import TOKEN

Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]

ORIGIN: Final = "origin"
REQUEST_METHOD: Final = "access-control-request-method"
REQUEST_HEADERS: Final = "access-control-request-headers"

DEFAULT_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
DEFAULT_HEADERS: Final = ("Authorization", "Content-Type")
# What a browser hides from scripts unless it is exposed, and a client needs to understand a refusal.
ALWAYS_EXPOSED: Final = ("WWW-Authenticate", "Retry-After", "Authz-Reason", "Authz-Decision")
# Fetch standard, "forbidden method" and "forbidden request-header": no script can send them.
_FORBIDDEN_METHODS: Final = frozenset({"CONNECT", "TRACE", "TRACK"})
_FORBIDDEN_HEADERS: Final = frozenset(
    {
        "accept-charset",
        "accept-encoding",
        "access-control-request-headers",
        "access-control-request-method",
        "connection",
        "content-length",
        "cookie",
        "cookie2",
        "date",
        "dnt",
        "expect",
        "host",
        "keep-alive",
        "origin",
        "referer",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    }
)
_LONGEST_MAX_AGE: Final = 86_400  # seconds; no browser keeps a preflight longer

_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?)(?::([0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_LARGEST_PORT: Final = 65_535

_VARY: Final[Headers] = ((b"vary", b"Origin"),)
_VARY_PREFLIGHT: Final[Headers] = ((b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Which other origins' scripts may call the service, and what they may send and read.

    `origins` are exact origins such as `"https://app.example"`, or `"*"` alone; `methods` and `headers` are what a
    preflight may ask for; `expose` are further response headers that scripts may read; `credentials` lets cookies
    pass; `max_age` is how long a browser keeps a preflight, in seconds. Raises `ConfigurationError` listing every
    mistake.
    """

    origins: Iterable[str]
    methods: Iterable[str] = DEFAULT_METHODS
    headers: Iterable[str] = DEFAULT_HEADERS
    expose: Iterable[str] = ()
    credentials: bool = False
    max_age: int = 600
    _answers: Mapping[str, Headers] = field(init=False, repr=False, compare=False)
    _any_origin: Headers | None = field(init=False, repr=False, compare=False)
    _preflight: Headers = field(init=False, repr=False, compare=False)
    _header_names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mistakes = Mistakes("Cors")
        origins = mistakes.strings("origins", self.origins)
        methods = mistakes.strings("methods", self.methods)
        headers = mistakes.strings("headers", self.headers)
        expose = mistakes.strings("expose", self.expose)
        if not origins and not mistakes:
            mistakes.add("origins", list(origins), "name at least one origin, or leave cors= out")
        if not methods and self.methods is not DEFAULT_METHODS and not mistakes:
            mistakes.add("methods", list(methods), "name at least one method")
        for index, origin in enumerate(origins):
            why = self._wrong_with(origin, origins)
            if why:
                mistakes.add(f"origins[{index}]", origin, why)
        for index, method in enumerate(methods):
            why = _wrong_with_method(method)
            if why:
                mistakes.add(f"methods[{index}]", method, why)
        for name, values in (("headers", headers), ("expose", expose)):
            for index, value in enumerate(values):
                why = _wrong_with_header(value, sent_by_script=name == "headers")
                if why:
                    mistakes.add(f"{name}[{index}]", value, why)
        mistakes.flag("credentials", self.credentials)
        if (
            isinstance(self.max_age, bool)
            or not isinstance(self.max_age, int)
            or not 0 <= self.max_age <= _LONGEST_MAX_AGE
        ):
            mistakes.add("max_age", self.max_age, f"seconds from 0 to {_LONGEST_MAX_AGE} are needed")
        mistakes.raise_if_any()

        put = object.__setattr__
        put(self, "origins", origins)
        put(self, "methods", methods)
        put(self, "headers", headers)
        put(self, "expose", expose)
        put(self, "_header_names", frozenset(header.lower() for header in headers))
        put(self, "_answers", {origin: self._answer_headers(origin) for origin in origins})
        put(self, "_any_origin", self._answer_headers("*") if "*" in origins else None)
        preflight: Headers = (
            (b"access-control-allow-methods", ", ".join(methods).encode("ascii")),
            (b"access-control-allow-headers", ", ".join(headers).encode("ascii")),
            (b"access-control-max-age", str(self.max_age).encode("ascii")),
            *_VARY_PREFLIGHT,
        )
        put(self, "_preflight", preflight)

    def _wrong_with(self, origin: str, origins: tuple[str, ...]) -> str | None:
        if origin == "*":
            if self.credentials:
                return "with credentials any site could act as the signed-in user; name the origins"
            return "any origin already includes the others; write it alone" if len(origins) > 1 else None
        if origin == "null":
            return "sandboxed pages of anybody have this origin"
        if "*" in origin:
            return "patterns are not supported; name each origin"
        parts = _ORIGIN.fullmatch(origin)
        if parts is None:
            lowered = _ORIGIN.match(origin.lower())
            if lowered is not None and origin[len(lowered[0]) :][:1] in {"", "/", "?", "#"}:
                return f"an origin is lower-case, without path, query or trailing slash; write {lowered[0]}"
            return "not an origin such as https://app.example or http://localhost:3000"
        scheme, host, port = parts.groups()
        if port is not None and (port != port.lstrip("0") or int(port) > _LARGEST_PORT):
            return f"a port is 1 to {_LARGEST_PORT}, without leading zeros"
        if port is not None and _DEFAULT_PORTS.get(scheme) == port:
            return f"browsers leave the default port out; write {scheme}://{host}"
        return None

    def _answer_headers(self, origin: str) -> Headers:
        found = [
            (b"access-control-allow-origin", origin.encode("ascii")),
            (b"access-control-expose-headers", ", ".join((*ALWAYS_EXPOSED, *self.expose)).encode("ascii")),
        ]  # fmt: skip
        if self.credentials:
            found.append((b"access-control-allow-credentials", b"true"))
        return (*found, *_VARY)

    def allows(self, origin: str) -> bool:
        """Tell whether scripts of this origin may read answers."""
        return self._any_origin is not None or origin in self._answers

    def permits(self, header: str) -> bool:
        """Tell whether scripts may send this header, named in lower case."""
        return header in self._header_names

    def answer_headers(self, origins: tuple[str, ...] | None) -> Headers:
        """Return what every answer carries, given the request's Origin field lines."""
        if origins is None or len(origins) != 1:
            return self._any_origin or _VARY
        return self._any_origin or self._answers.get(origins[0], _VARY)

    def preflight(self, fields: Mapping[str, tuple[str, ...]]) -> tuple[Headers, str | None]:
        """Return the headers of the answer to a preflight and, where it is refused, which part of it failed."""
        origin = fields[ORIGIN][0]
        method = fields[REQUEST_METHOD][0]
        if not self.allows(origin):
            return _VARY_PREFLIGHT, f"origin {origin}"
        # Methods are case-sensitive (RFC 9110 section 9.1).
        if method not in self.methods:
            return _VARY_PREFLIGHT, f"method {method}"
        for line in fields.get(REQUEST_HEADERS, ()):
            for name in line.split(","):
                if name.strip(" \t").lower() not in self._header_names and name.strip(" \t"):
                    return _VARY_PREFLIGHT, f"header {name.strip()}"
        allowed = self._any_origin or self._answers[origin]
        return (*(header for header in allowed if header not in _VARY), *self._preflight), None


def is_preflight(method: str, fields: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell whether a request is a preflight: OPTIONS with exactly one Origin and one Access-Control-Request-Method."""
    return method == "OPTIONS" and len(fields.get(ORIGIN, ())) == 1 and len(fields.get(REQUEST_METHOD, ())) == 1


def _wrong_with_method(method: str) -> str | None:
    if method == "*":
        return "name the methods"
    if TOKEN.fullmatch(method) is None:
        return "not a method"
    if method.upper() in _FORBIDDEN_METHODS:
        return "browsers never send it"
    if method != method.upper():
        return f"methods are case-sensitive; write {method.upper()}"
    return None


def _wrong_with_header(header: str, *, sent_by_script: bool) -> str | None:
    if header == "*":
        return "it never covers Authorization; name the headers"
    if TOKEN.fullmatch(header) is None:
        return "not a header name"
    lowered = header.lower()
    if lowered.startswith("access-control-"):
        return "the gate writes these itself"
    if not sent_by_script and lowered in {"set-cookie", "set-cookie2"}:
        return "browsers let no script read it"
    if sent_by_script and (lowered in _FORBIDDEN_HEADERS or lowered.startswith(("sec-", "proxy-"))):
        return "browsers let no script send it"
    return None
