"""CORS (the Fetch standard): preflights are answered before anything can refuse them, and every answer may be read.

Origins are compared exactly, or by whole labels with a pattern; header values are made when the gate is, but for those
of origins that only a pattern knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from authz403.errors import Mistakes
from authz403.origins import EXTRA, LONGEST_ORIGIN, Parts, Patterns, parts_of, public_suffixes_at_or_below
from authz403.request import TOKEN

Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]

ORIGIN: Final = "origin"
REQUEST_METHOD: Final = "access-control-request-method"
REQUEST_HEADERS: Final = "access-control-request-headers"
REQUEST_PRIVATE_NETWORK: Final = "access-control-request-private-network"
FIELDS: Final = frozenset({ORIGIN, REQUEST_METHOD, REQUEST_HEADERS, REQUEST_PRIVATE_NETWORK})
"""The header fields that CORS rests on."""

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

_VARY: Final[Headers] = ((b"vary", b"Origin"),)
_ASKED: Final = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_VARY_PREFLIGHT: Final[Headers] = ((b"vary", f"{_ASKED}, Access-Control-Request-Private-Network".encode("ascii")),)
_PRIVATE_NETWORK: Final[Header] = (b"access-control-allow-private-network", b"true")
_REFUSED_PART: Final = b"authz-preflight"
_LONGEST_PART: Final = LONGEST_ORIGIN + len("origin ")  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Cors:
    """Which other origins' scripts may call the service, and what they may send and read.

    `origins` are exact origins such as `"https://app.example"`, patterns of them (`"https://*.app.example"` for every
    name below that host, which needs the extra `authz403[patterns]`; `"http://localhost:*"` for any port), or `"*"`
    alone; `methods` and `headers` are what a preflight may ask for; `expose` are further response headers that scripts
    may read; `credentials` lets cookies pass; `max_age` is how long a browser keeps a preflight, in seconds.
    `private_network` lets public pages call into a private network, where a browser asks for that (Private Network
    Access, a draft that Local Network Access has replaced). `debug` says in a header of refused preflights,
    `Authz-Preflight`, which part was refused. `dangerously_allow_insecure` lets origins that are neither https nor on
    this machine have credentials and the private network. Raises `ConfigurationError` listing every mistake.
    """

    origins: Iterable[str]
    methods: Iterable[str] = DEFAULT_METHODS
    headers: Iterable[str] = DEFAULT_HEADERS
    expose: Iterable[str] = ()
    credentials: bool = False
    max_age: int = 600
    private_network: bool = False
    debug: bool = False
    dangerously_allow_insecure: bool = False
    by_line: Mapping[bytes, Headers] = field(init=False, repr=False, compare=False)
    """What every answer carries, by the origins that are written out."""
    _answers: Mapping[str, Headers] = field(init=False, repr=False, compare=False)
    _any_origin: Headers | None = field(init=False, repr=False, compare=False)
    _patterns: Patterns = field(init=False, repr=False, compare=False)
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
        found = {origin: parts_of(origin) for origin in origins if origin != "*"}
        self._check_origins(mistakes, origins, found)
        for index, method in enumerate(methods):
            why = _wrong_with_method(method)
            if why:
                mistakes.add(f"methods[{index}]", method, why)
        for name, values in (("headers", headers), ("expose", expose)):
            for index, value in enumerate(values):
                why = _wrong_with_header(value, sent_by_script=name == "headers")
                if why:
                    mistakes.add(f"{name}[{index}]", value, why)
        for flag in ("credentials", "private_network", "debug", "dangerously_allow_insecure"):
            mistakes.flag(flag, getattr(self, flag))
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
        patterns = {origin for origin, parts in found.items() if isinstance(parts, Parts) and parts.is_pattern}
        put(self, "_answers", {origin: self._answer_headers(origin) for origin in origins if origin not in patterns})
        put(self, "_patterns", Patterns(patterns))
        put(self, "_any_origin", self._answer_headers("*") if "*" in origins else None)
        put(self, "by_line", {one.encode("ascii"): answer for one, answer in self._answers.items()})
        preflight: Headers = (
            (b"access-control-allow-methods", ", ".join(methods).encode("ascii")),
            (b"access-control-allow-headers", ", ".join(headers).encode("ascii")),
            (b"access-control-max-age", str(self.max_age).encode("ascii")),
            *_VARY_PREFLIGHT,
        )
        put(self, "_preflight", preflight)

    def _check_origins(self, mistakes: Mistakes, origins: tuple[str, ...], found: Mapping[str, Parts | str]) -> None:
        """Note every origin that is none, or that may not have what the others have."""
        below = {parts.host for parts in found.values() if isinstance(parts, Parts) and parts.below}
        shared = public_suffixes_at_or_below(below) if below else {}
        for index, origin in enumerate(origins):
            for why in self._wrong_with_any(origins) if origin == "*" else self._wrong_with(found[origin], shared):
                mistakes.add(f"origins[{index}]", origin, why)

    def _wrong_with_any(self, origins: tuple[str, ...]) -> Iterator[str]:
        if self.credentials:
            yield "with credentials any site could act as the signed-in user; name the origins"
        if self.private_network:
            yield "with private_network any site could call into the private network; name the origins"
        if len(origins) > 1:
            yield "any origin already includes the others; write it alone"

    def _wrong_with(self, parts: Parts | str, shared: Mapping[str, str] | None) -> Iterator[str]:
        if isinstance(parts, str):
            yield parts
            return
        used = [name for name in ("credentials", "private_network") if getattr(self, name)]
        if parts.is_insecure and used and not self.dangerously_allow_insecure:
            yield (
                f"anybody on the way to a page of it could change the page and use {' and '.join(used)}; serve it by "
                "https, or say dangerously_allow_insecure=True"
            )
        if parts.below and shared is None:
            yield f"a pattern is checked against the list of public suffixes; install {EXTRA}, or name each origin"
        if parts.below and shared and parts.host in shared:
            yield f"anybody may have names below {shared[parts.host]}, a public suffix; name each origin"

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
        return self._any_origin is not None or origin in self._answers or origin in self._patterns

    def permits(self, header: str) -> bool:
        """Tell whether scripts may send this header, named in lower case."""
        return header in self._header_names

    def answer_headers(self, origins: tuple[str, ...] | None) -> Headers:
        """Return what every answer carries, given the request's Origin field lines."""
        if origins is None or len(origins) != 1:
            return self._any_origin or _VARY
        return self._any_origin or self._answers.get(origins[0]) or self._answers_by_pattern(origins[0])

    def _answers_by_pattern(self, origin: str) -> Headers:
        return self._answer_headers(origin) if origin in self._patterns else _VARY

    def preflight(self, fields: Mapping[str, tuple[str, ...]]) -> tuple[Headers, str | None]:
        """Return the headers of the answer to a preflight and, where it is refused, which part of it failed."""
        failed = self._refused_part(fields)
        if failed is not None:
            return (*_VARY_PREFLIGHT, (_REFUSED_PART, _as_value(failed))) if self.debug else _VARY_PREFLIGHT, failed
        allowed = [header for header in self.answer_headers(fields[ORIGIN]) if header not in _VARY]
        if _asks_for_private_network(fields):
            allowed.append(_PRIVATE_NETWORK)
        return (*allowed, *self._preflight), None

    def _refused_part(self, fields: Mapping[str, tuple[str, ...]]) -> str | None:
        origin = fields[ORIGIN][0]
        method = fields[REQUEST_METHOD][0]
        if not self.allows(origin):
            return f"origin {origin}"
        if _asks_for_private_network(fields) and not self.private_network:
            return "private network"
        # Methods are case-sensitive (RFC 9110 section 9.1).
        if method not in self.methods:
            return f"method {method}"
        for line in fields.get(REQUEST_HEADERS, ()):
            for name in line.split(","):
                if name.strip(" \t").lower() not in self._header_names and name.strip(" \t"):
                    return f"header {name.strip()}"
        return None


def is_preflight(method: str, fields: Mapping[str, tuple[str, ...]]) -> bool:
    """Tell whether a request is a preflight: OPTIONS with exactly one Origin and one Access-Control-Request-Method."""
    return method == "OPTIONS" and len(fields.get(ORIGIN, ())) == 1 and len(fields.get(REQUEST_METHOD, ())) == 1


def _asks_for_private_network(fields: Mapping[str, tuple[str, ...]]) -> bool:
    return "true" in fields.get(REQUEST_PRIVATE_NETWORK, ())


def _as_value(text: str) -> bytes:
    """Return what a client sent as part of a header's value: printable ASCII alone, and not too long."""
    return "".join(each if " " <= each <= "~" else "?" for each in text[:_LONGEST_PART]).encode("ascii")


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
