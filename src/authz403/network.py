"""Where a request comes from: sets of networks, and the walk over proxies to the client's address.

Only what a trusted peer wrote is read, from the right; anything unclear means that the address is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from authz403.errors import Mistakes
from authz403.request import TOKEN, AccessRequest

Address = IPv4Address | IPv6Address

_LONGEST_ADDRESS = 64  # characters; an IPv6 address with a zone is shorter
_IPV4_MAPPED = IPv6Network("::ffff:0:0/96")
_CIDR = re.compile(r"[0-9A-Fa-f:.]+(?:/(?:0|[1-9][0-9]{0,2}))?")
# RFC 7239 section 4: forwarded-pair = token "=" value, value = token / quoted-string
_FORWARDED_PAIR = re.compile(r"""[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s",;=\\]+)[ \t]*(?:;|\Z)""")


def parse_address(text: str) -> Address | None:
    """Read an IP address; a zone is dropped, an IPv4-mapped address is the IPv4 one, anything else is `None`."""
    if len(text) > _LONGEST_ADDRESS:
        return None
    return _parse_address(text)


@lru_cache(maxsize=16_384)
def _parse_address(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_node(text: str) -> Address | None:
    """Read an address as proxies write it in a header: plain, `[v6]`, `[v6]:port` or `v4:port`."""
    text = text.strip(" \t")
    if text.startswith("["):
        inside, bracket, port = text[1:].partition("]")
        if not bracket or (port and not (port.startswith(":") and port[1:].isdecimal())):
            return None
        return parse_address(inside) if ":" in inside else None
    if text.count(":") == 1:
        text, _, port = text.partition(":")
        if not port.isdecimal():
            return None
    return parse_address(text)


class AddressSet:
    """A set of networks: `address in AddressSet(["10.0.0.0/8", "fd00::/8"])`.

    Takes CIDR strings, an address alone meaning itself, and raises `ConfigurationError` with all that are wrong: host
    bits, hostmasks, leading zeros, zones. Looks up in one dictionary step per prefix length in use.
    """

    __slots__ = ("_ipv4", "_ipv6", "cidrs")

    def __init__(self, cidrs: Iterable[str], *, part: str = "AddressSet") -> None:
        mistakes = Mistakes(part)
        self.cidrs = mistakes.strings("cidrs", cidrs)
        by_length: dict[tuple[int, int], set[int]] = {}
        for index, cidr in enumerate(self.cidrs):
            try:
                version, length, number = _parse_network(cidr)
            except ValueError as error:
                mistakes.add(f"cidrs[{index}]", cidr, str(error))
                continue
            by_length.setdefault((version, length), set()).add(number)
        mistakes.raise_if_any()
        self._ipv4 = tuple((32 - length, found) for (version, length), found in by_length.items() if version == 4)  # noqa: PLR2004 - IP versions
        self._ipv6 = tuple((128 - length, found) for (version, length), found in by_length.items() if version == 6)  # noqa: PLR2004

    def __contains__(self, address: Address | str) -> bool:
        if isinstance(address, str):
            parsed = parse_address(address)
            if parsed is None:
                return False
            address = parsed
        number = int(address)
        for shift, networks in self._ipv4 if isinstance(address, IPv4Address) else self._ipv6:
            if number >> shift in networks:
                return True
        return False

    def __bool__(self) -> bool:
        return bool(self.cidrs)

    def __repr__(self) -> str:
        return f"AddressSet({list(self.cidrs)!r})"


def _parse_network(cidr: str) -> tuple[int, int, int]:
    """Return (version, prefix length, the network's leading bits); a `ValueError` says in words what is wrong."""
    if _CIDR.fullmatch(cidr) is None:
        raise ValueError("not an address or a network such as 10.0.0.0/8 (no zone, netmask, hostmask or host name)")
    try:
        network = ip_network(cidr)
    except ValueError as error:
        try:
            meant = ip_network(cidr, strict=False)
        except ValueError:
            raise ValueError(str(error)) from None
        raise ValueError(f"has host bits set; write {meant} or one address") from None
    length = network.prefixlen
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        # Addresses are unmapped before they are looked up, so networks are too.
        length -= 96
        return 4, length, (int(network.network_address) & 0xFFFFFFFF) >> (32 - length)
    return network.version, length, int(network.network_address) >> (network.max_prefixlen - length)


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
    preflight is held against; deny wins. Raises `ConfigurationError` listing every mistake.
    """

    source: str | None = None
    trusted_proxies: Iterable[str] = ()
    hops: int | None = None
    allow: Iterable[str] | None = None
    deny: Iterable[str] = ()
    allowed: AddressSet = field(init=False, repr=False, compare=False)
    denied: AddressSet = field(init=False, repr=False, compare=False)
    fields: frozenset[str] = field(init=False, repr=False, compare=False)
    _trusted: AddressSet = field(init=False, repr=False, compare=False)
    _trusts_unix: bool = field(init=False, repr=False, compare=False)
    _is_peer: bool = field(init=False, repr=False, compare=False)
    _walked: dict[tuple[str | None, tuple[str, ...]], Address | None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mistakes = Mistakes("Network")
        proxies = mistakes.strings("trusted_proxies", self.trusted_proxies)
        source = _checked_source(mistakes, self.source, proxies, self.hops)

        def addresses(name: str, networks: tuple[str, ...]) -> AddressSet:
            sound: list[str] = []
            for index, cidr in enumerate(networks):
                if name == "trusted_proxies" and cidr == UNIX:
                    continue
                try:
                    _, length, _ = _parse_network(cidr)
                except ValueError as error:
                    mistakes.add(f"{name}[{index}]", cidr, str(error))
                    continue
                if name == "trusted_proxies" and length == 0:
                    mistakes.add(
                        f"{name}[{index}]", cidr, "this trusts everybody's headers; name the proxies' networks"
                    )
                sound.append(cidr)
            return AddressSet(sound)

        put = object.__setattr__
        put(self, "_walked", {})
        put(self, "_is_peer", source == "peer")
        put(self, "_trusts_unix", UNIX in proxies)
        put(self, "_trusted", addresses("trusted_proxies", proxies))
        put(self, "allowed", addresses("allow", () if self.allow is None else mistakes.strings("allow", self.allow)))
        put(self, "denied", addresses("deny", mistakes.strings("deny", self.deny)))
        if self.allow is not None and not self.allowed and not mistakes:
            mistakes.add("allow", [], "an empty list would let everybody in; leave it out if that is meant")
        mistakes.raise_if_any()
        put(self, "source", source)
        put(self, "trusted_proxies", proxies)
        put(self, "allow", None if self.allow is None else self.allowed.cidrs)
        put(self, "deny", self.denied.cidrs)
        put(self, "fields", frozenset() if source == "peer" else frozenset({source, CHUNKED}))

    def client_address(self, request: AccessRequest) -> Address | None:
        """Return the address of the client, or `None` where nobody trustworthy says it."""
        peer, fields = request.peer, request.fields
        lines = () if self._is_peer else fields.get(self.source, ())  # type: ignore[arg-type]  # made a name at start
        if len(lines) > 1 and CHUNKED in fields:
            return None
        # Requests of one client come by the same way, so that a walk is done once.
        way = (peer, lines)
        address = self._walked.get(way, _NOT_WALKED)
        if isinstance(address, _NotWalked):
            address = self._walk(peer, lines)
            if sum(map(len, lines)) <= _LONGEST_WAY and (self._is_peer or self.trusts_peer(peer)):
                if len(self._walked) >= _MOST_WALKS:
                    self._walked.clear()
                self._walked[way] = address
        return address

    def may_read_trailers(self, request: AccessRequest) -> bool:
        """Tell whether what looks like the last line of the header may be a trailer of the client's own."""
        return CHUNKED in request.fields and len(request.fields.get(self.source or "", ())) > 1

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
