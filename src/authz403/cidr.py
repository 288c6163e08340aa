"""How a network is read: as strictly as can be, and fast where it is spelled as usual.

Host bits, netmasks, hostmasks, leading zeros, zones and names are refused, as each has been read in two ways.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Network, ip_network
from socket import AF_INET6, inet_aton, inet_ntoa, inet_pton
from typing import Final

_IPV4_MAPPED = IPv6Network("::ffff:0:0/96")
_CIDR = re.compile(r"[0-9A-Fa-f:.]+(?:/(?:0|[1-9][0-9]{0,2}))?")
_LENGTHS: Final = {str(length): length for length in range(129)}


_HOST_BITS: Final = tuple((1 << bits) - 1 for bits in range(129))
MAPPED: Final = 0xFFFF
"""What stands above the IPv4 address in an IPv4-mapped one (RFC 4291 section 2.5.5.2)."""


def parse_network(cidr: str) -> tuple[int, int, int]:
    """Return (version, prefix length, first address); a `ValueError` says in words what is wrong."""
    text, slash, written = cidr.partition("/")
    try:
        if ":" not in text:
            packed = inet_aton(text)
            length = _LENGTHS[written] if slash else 32
            number = int.from_bytes(packed)
            # Systems read more than dotted decimals here; what they write is one of these.
            if length <= 32 and not number & _HOST_BITS[32 - length] and inet_ntoa(packed) == text:  # noqa: PLR2004
                return 4, length, number
        elif "%" not in text and "." not in text:
            length = _LENGTHS[written] if slash else 128
            number = int.from_bytes(inet_pton(AF_INET6, text))
            if not number & _HOST_BITS[128 - length] and number >> 32 != MAPPED:
                return 6, length, number
    except (OSError, KeyError, ValueError):
        pass
    return _parse_slowly(cidr)


def span_of(cidr: str) -> tuple[int, int, int]:
    """Return a network's IP version, its first address and the one behind its last, as numbers."""
    version, length, first = parse_network(cidr)
    return version, first, first + (1 << (32 if version == 4 else 128) - length)  # noqa: PLR2004 - an IP version


def is_everything(cidr: str) -> bool:
    """Tell whether a network holds all addresses of its IP version."""
    try:
        return parse_network(cidr)[1] == 0
    except ValueError:
        return False


def _parse_slowly(cidr: str) -> tuple[int, int, int]:
    """Do the same by the standard library, for the rare spellings and those that are wrong."""
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
    number = int(network.network_address)
    if isinstance(network, IPv6Network) and network.subnet_of(_IPV4_MAPPED):
        # Addresses are unmapped before they are looked up, so networks are too.
        return 4, network.prefixlen - 96, number & 0xFFFFFFFF
    return network.version, network.prefixlen, number
