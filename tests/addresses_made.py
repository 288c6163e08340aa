"""Addresses and networks for tests: any of both IP versions."""

import ipaddress

from hypothesis import strategies as st

from authz403.addresses import Address

ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
NETWORKS = st.builds(
    lambda address, length: ipaddress.ip_network((address, min(length, address.max_prefixlen)), strict=False),
    ADDRESSES,
    st.integers(0, 128),
)


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address."""
    return getattr(address, "ipv4_mapped", None) or address
