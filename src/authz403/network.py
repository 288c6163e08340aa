"""Where a request comes from: the walk over proxies to the client's address, and the networks that may come in.

Only what a trusted peer wrote is read, from the right; anything unclear means that the address is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from authz403.addresses import (
    Address,
    Addresses,
    AddressSet,
    addresses_of,
    parse_address,
    parse_node,
)
from authz403.cidr import is_everything
from authz403.errors import Mistakes
from authz403.request import TOKEN, AccessRequest

__all__ = ["CHUNKED", "UNIX", "UNIX_PEERS", "Address", "AddressSet", "Network"]

# RFC 7239 section 4: forwarded-pair = token "=" value, value = token / quoted-string
_FORWARDED_PAIR = re.compile(r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s",;=\\]+)[ \t]*(?:;|\Z)""")


_MOST_WALKS: Final = 4_096
_LONGEST_FORWARDED: Final = 8_192  # characters; no chain of proxies is so long
# Clients write these themselves, and proxies pass them on.
_WRITTEN_BY_CLIENTS: Final = frozenset(
    {
        "accept",
        "authorization",
        "cookie",
        "forwarded-host",
        "host",
        "origin",
        "referer",
        "user-agent",
        "x-forwarded-host",
    }
)
_LONGEST_WAY: Final = 256  # characters of a header whose walk is remembered


class _NotWalked:
    """Stands for a way that is not known yet, as an unknown address is `None`."""


_NOT_WALKED: Final = _NotWalked()
UNIX: Final = "unix"
UNIX_PEERS: Final = frozenset({None, "", "localhost", UNIX})
"""What servers give for the peer of a unix socket."""

CHUNKED: Final = "transfer-encoding"
"""The field of requests that may have trailers. RFC 9110 section 6.5.1 forbids to merge these into the header section
blindly, and uvicorn with httptools does: a client's own X-Forwarded-For then stands behind what the proxies wrote.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How the client's address is found, and which addresses the whole service is open to.

    `source` says where the address stands: `"peer"` (the connection), `"x-forwarded-for"`, `"forwarded"` (RFC 7239)
    or the name of one header that the edge sets; with `trusted_proxies` it is `"x-forwarded-for"` unless said.
    `trusted_proxies` are the networks of the proxies in front, and `"unix"` for unix sockets; a header is read only
    where the peer is one of them, from the right to the first address that is not. `hops` takes, instead of that
    walk, the entry that many places from the right. `allow` and `deny` are networks that every request but a
    preflight is held against, CIDR strings, an `AddressSet`, an `AddressFile`, or a list of these; deny wins. Raises
    `ConfigurationError` listing every mistake.
    """

    source: str | None = None
    trusted_proxies: Iterable[str] = ()
    hops: int | None = None
    allow: Addresses | Iterable[str | Addresses] | None = None
    deny: Addresses | Iterable[str | Addresses] = ()
    allowed: Addresses = field(init=False, repr=False, compare=False)
    denied: Addresses = field(init=False, repr=False, compare=False)
    fields: frozenset[str] = field(init=False, repr=False, compare=False)
    _trusted: AddressSet = field(init=False, repr=False, compare=False)
    _trusts_unix: bool = field(init=False, repr=False, compare=False)
    is_peer: bool = field(init=False, repr=False, compare=False)
    _walked: dict[tuple[str | None, tuple[str, ...]], Address | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mistakes = Mistakes("Network")
        proxies = mistakes.strings("trusted_proxies", self.trusted_proxies)
        source = _checked_source(mistakes, self.source, proxies, self.hops)

        for index, cidr in enumerate(proxies):
            if is_everything(cidr):
                why = "this trusts everybody's headers; name the proxies' networks"
                mistakes.add(f"trusted_proxies[{index}]", cidr, why)
        put = object.__setattr__
        put(self, "_walked", {})
        put(self, "is_peer", source == "peer")
        put(self, "_trusts_unix", UNIX in proxies)
        put(self, "_trusted", AddressSet.noting(mistakes, "trusted_proxies", proxies, taken=lambda item: item == UNIX))
        put(self, "allowed", addresses_of(mistakes, "allow", () if self.allow is None else self.allow))
        put(self, "denied", addresses_of(mistakes, "deny", self.deny))
        if self.allow is not None and self.allowed.may_be_empty and not mistakes:
            why = "an empty list would let everybody in; leave it out if that is meant"
            mistakes.add("allow", [] if not self.allowed else self.allow, why)
        mistakes.raise_if_any()
        put(self, "source", source)
        put(self, "trusted_proxies", proxies)
        put(self, "allow", None if self.allow is None else _as_given(self.allowed))
        put(self, "deny", _as_given(self.denied))
        put(self, "fields", frozenset() if source == "peer" else frozenset({source, CHUNKED}))

    def client_address(self, request: AccessRequest) -> Address | None:
        """Return the address of the client, or `None` where nobody trustworthy says it."""
        peer, fields = request.peer, request.fields
        lines = () if self.is_peer else fields.get(self.source, ())  # type: ignore[arg-type]  # made a name at start
        if len(lines) > 1 and CHUNKED in fields:
            return None
        # Requests of one client come by the same way, so that a walk is done once.
        way = (peer, lines)
        address = self._walked.get(way, _NOT_WALKED)
        if isinstance(address, _NotWalked):
            address = self._walk(peer, lines)
            if self.is_usual_way(peer, sum(map(len, lines))):
                if len(self._walked) >= _MOST_WALKS:
                    self._walked.clear()
                self._walked[way] = address
        return address

    def is_usual_way(self, peer: str | None, length: int) -> bool:
        """Tell whether requests may well come this way again: `length` is that of the header, in characters."""
        return length <= _LONGEST_WAY and (self.is_peer or self.trusts_peer(peer))

    def may_read_trailers(self, request: AccessRequest) -> bool:
        """Tell whether what looks like the last line of the header may be a trailer of the client's own."""
        return CHUNKED in request.fields and len(request.fields.get(self.source or "", ())) > 1

    def may_be_hidden(self, request: AccessRequest) -> bool:
        """Tell whether an address may be unknown by the client's own doing, so that a deny list stays closed."""
        lines = request.fields.get(self.source or "", ())
        if sum(map(len, lines)) > _LONGEST_FORWARDED or self.may_read_trailers(request):
            return True
        if self.hops is not None and lines:
            return True  # it came by fewer proxies than there are, past the first of them
        is_list = self.source in {"x-forwarded-for", "forwarded"}
        return not is_list and (len(lines) > 1 or any("," in line for line in lines))

    def _walk(self, peer: str | None, lines: tuple[str, ...]) -> Address | None:
        if not self.trusts_peer(peer):
            return None if peer is None else parse_address(peer)
        if not lines or sum(map(len, lines)) > _LONGEST_FORWARDED:
            return None
        if self.source == "forwarded":
            nodes = _forwarded_for(lines)
        elif self.source == "x-forwarded-for":
            nodes = [parse_node(entry) for entry in ",".join(lines).split(",")]
        else:
            return parse_node(lines[0]) if len(lines) == 1 else None
        if self.hops is not None:
            return nodes[-self.hops] if len(nodes) >= self.hops else None
        for node in reversed(nodes):
            if node is None or node not in self._trusted:
                return node
        return None

    def trusts_peer(self, peer: str | None) -> bool:
        """Tell whether the other end of the connection is one of the trusted proxies."""
        address = None if peer is None else parse_address(peer)
        if address is not None:
            return address in self._trusted
        return self._trusts_unix and peer in UNIX_PEERS


def _as_given(addresses: Addresses) -> tuple[str | Addresses, ...]:
    """Return networks as they were given, but for a long list of strings, which is the set that was made of it."""
    given: list[str | Addresses] = []
    for part in addresses.parts():
        given += part.cidrs if isinstance(part, AddressSet) and part.is_kept() else (part,)
    return tuple(given)


def _forwarded_for(lines: tuple[str, ...]) -> list[Address | None]:
    """Return the `for` of each element of a Forwarded header (RFC 7239 section 4), `None` where it has no address.

    Read from the right: what the client wrote further left, open quotes included, hides nothing that a proxy added.
    """
    nodes: list[Address | None] = []
    for line in reversed(lines):
        end = len(line)
        while end >= 0:
            comma = line.rfind(",", 0, end)
            element = _forwarded_element(line[comma + 1 : end])
            while element is None and comma >= 0:
                comma = line.rfind(",", 0, comma)  # that comma stood inside a quoted string
                element = _forwarded_element(line[comma + 1 : end])
            if element is None:
                nodes.append(None)
                break
            nodes.append(parse_node(element["for"]) if "for" in element else None)
            end = comma
    return nodes[::-1]


def _forwarded_element(text: str) -> dict[str, str] | None:
    """Return the pairs of one forwarded-element, or `None` where it is none."""
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text) or not pairs:
        found = _FORWARDED_PAIR.match(text, position)
        if found is None or found[1].lower() in pairs:
            return None
        value = found[2]
        pairs[found[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        position = found.end()
    return None if text.endswith(";") else pairs


def _checked_source(mistakes: Mistakes, source: object, proxies: tuple[str, ...], hops: object) -> str:
    """Return where the client's address stands, having noted what does not go together."""
    source = source if source is not None else ("x-forwarded-for" if proxies else "peer")
    if not isinstance(source, str) or TOKEN.fullmatch(source) is None:
        mistakes.add("source", source, 'one of "peer", "x-forwarded-for", "forwarded" or a header name is needed')
        source = ""
    source = source.lower()
    if "_" in source:
        mistakes.add("source", source, "servers drop or confuse header names with underscores")
    if source in _WRITTEN_BY_CLIENTS:
        mistakes.add("source", source, "clients write this header themselves; name the one that your edge sets")
    if source == "peer" and (proxies or hops is not None):
        mistakes.add("source", source, "the peer is the client here, so trusted_proxies and hops are never read")
    if source not in {"", "peer"} and not proxies and not mistakes:
        mistakes.add("trusted_proxies", list(proxies), f"anybody could write {source}: name the proxies that may")
    if hops is not None and (isinstance(hops, bool) or not isinstance(hops, int) or hops < 1):
        mistakes.add("hops", hops, "a number of proxies, 1 or more, is needed")
    elif hops is not None and source not in {"x-forwarded-for", "forwarded", "peer", ""}:
        mistakes.add("hops", hops, f"{source} holds one address, so there is nothing to count")
    return source
