"""Origins as browsers write them (HTML standard, "serialization of an origin"), and patterns of them.

A pattern matches whole labels: `https://*.example.com` is every host below `example.com`, and never that host itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, NamedTuple

LONGEST_ORIGIN: Final = 326  # characters: a scheme of 64, a host of 253, a port, and what divides them
_LONGEST_SCHEME: Final = 64
_LONGEST_HOST: Final = 253  # RFC 1035 section 2.3.4, without the final dot
_LARGEST_PORT: Final = 65_535
DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

_LABEL: Final = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_PATTERN: Final = re.compile(
    rf"([a-z][a-z0-9+.-]*)://(\*\.)?(\[[0-9a-f:.]+\]|{_LABEL}(?:\.{_LABEL})*)(?::([0-9]{{1,5}}|\*))?"
)
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-f]*")

EXTRA: Final = "authz403[patterns]"


class Parts(NamedTuple):
    """What an origin or a pattern is made of; `below` says that all names below `host` are meant, not that one."""

    scheme: str
    below: bool
    host: str
    port: str | None

    @property
    def is_pattern(self) -> bool:
        """Whether this stands for more than one origin."""
        return self.below or self.port == "*"

    @property
    def is_insecure(self) -> bool:
        """Whether somebody on the way could write the pages of this origin: neither https, nor on this machine."""
        if self.scheme == "https" or self.host == "localhost" or self.host.endswith(".localhost"):
            return False
        address = _address(self.host)
        return address is None or not address.is_loopback


def parts_of(text: str) -> Parts | str:
    """Return the parts of an origin or of a pattern, or why it is neither."""
    if text == "null":
        return "sandboxed pages of anybody have this origin"
    if len(text) > LONGEST_ORIGIN:
        return f"no origin is longer than {LONGEST_ORIGIN} characters"
    found = _PATTERN.fullmatch(text)
    if found is None:
        return _as_written(text)
    scheme, star, host, port = found.groups()
    parts = Parts(scheme, star is not None, host, port)
    why = _wrong_with_port(parts) if port not in {None, "*"} else None
    if why is None and (scheme == "file" or len(scheme) > _LONGEST_SCHEME):
        why = "browsers send no such scheme; pages of files have the origin null"
    return why or _wrong_with_host(parts) or parts


def _as_written(text: str) -> str:
    """Say what is wrong with the shape of a text, and what to write instead where that is certain."""
    lowered = _PATTERN.match(text.lower())
    if lowered is not None and text[len(lowered[0]) :][:1] in {"", "/", "?", "#"}:
        return f"an origin is lower-case, without path, query or trailing slash; write {lowered[0]}"
    if "*" in text:
        return "a * stands for whole labels left of a host, as in https://*.app.example, or for any port"
    return "not an origin such as https://app.example or http://localhost:3000"


def _wrong_with_port(parts: Parts) -> str | None:
    port = parts.port or ""
    if port != port.lstrip("0") or int(port) > _LARGEST_PORT:
        return f"a port is 1 to {_LARGEST_PORT}, without leading zeros"
    if DEFAULT_PORTS.get(parts.scheme) == port:
        return f"browsers leave the default port out; write {parts.scheme}://{'*.' * parts.below}{parts.host}"
    return None


def _wrong_with_host(parts: Parts) -> str | None:
    host = parts.host
    if host.startswith("[") or _ends_in_number(host):
        address = _address(host)
        if address is None:
            return "not an address, and no name ends in a number"
        if parts.below:
            return "there are no names below an address"
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            return f"write the IPv4 address, {address.ipv4_mapped}"
        if str(address) != host.strip("[]"):
            return f"browsers write it {address}"
        return None
    if len(host) + 2 * parts.below > _LONGEST_HOST:
        return f"no host is longer than {_LONGEST_HOST} characters"
    if "xn--" in host and not all(_is_punycode(label) for label in host.split(".") if label.startswith("xn--")):
        return "what follows xn-- is no name"
    return None


def _ends_in_number(host: str) -> bool:
    """Tell whether a host is an IPv4 address or no host at all (URL standard, "ends in a number checker")."""
    last = host[host.rfind(".") + 1 :]
    return last.isdigit() or _HEXADECIMAL.fullmatch(last) is not None


def _is_punycode(label: str) -> bool:
    try:
        return bool(label.removeprefix("xn--").encode("ascii").decode("punycode"))
    except UnicodeError:
        return False


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return IPv6Address(host[1:-1]) if host.startswith("[") else IPv4Address(host)
    except ValueError:
        return None


class Patterns:
    """A set of patterns, asked by `origin in patterns` at a cost that only the origin's own labels set."""

    def __init__(self, patterns: Iterable[str]) -> None:
        parts = [found for found in map(parts_of, patterns) if isinstance(found, Parts)]
        self._at = _by_host(part for part in parts if not part.below)
        self._below = _by_host(part for part in parts if part.below)

    def __contains__(self, origin: str) -> bool:
        parts = parts_of(origin) if self._at or self._below else None
        if not isinstance(parts, Parts) or parts.is_pattern:
            return False
        scheme, _, host, port = parts
        wanted = ((scheme, port), (scheme, "*"))
        meant, start = self._at.get(host), 0
        while meant is None or meant.isdisjoint(wanted):
            start = host.find(".", start) + 1
            if start == 0:
                return False
            meant = self._below.get(host[start:])
        return True


def _by_host(parts: Iterable[Parts]) -> dict[str, set[tuple[str, str | None]]]:
    """Return schemes and ports by their host."""
    found: dict[str, set[tuple[str, str | None]]] = {}
    for scheme, _, host, port in parts:
        found.setdefault(host, set()).add((scheme, port))
    return found


def public_suffixes_at_or_below(hosts: Iterable[str]) -> dict[str, str] | None:
    """Return, of these hosts, those below which strangers register names, each with a suffix that says so.

    `None` where the package that brings the list is not installed. It is asked once, and nothing is fetched.
    """
    try:
        from publicsuffixlist import PSLFILE, PublicSuffixList, encode_idn  # noqa: PLC0415 - it takes 0.1 s
    except ImportError:
        return None
    listed = PublicSuffixList()
    found = {host: host for host in hosts if listed.is_public(host)}
    lines = Path(PSLFILE).read_text(encoding="utf-8").splitlines()
    for rule in (line.split()[0] for line in lines if line.strip() and not line.startswith(("//", "!"))):
        suffix = encode_idn(rule.removeprefix("*."))
        for host in hosts:
            if suffix.endswith(f".{host}"):
                found.setdefault(host, suffix)
    return found
