"""Networks as texts: read as the standard library reads them, but for what can be read in two ways."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.addresses import AddressSet
from authz403.cidr import is_everything, parse_network
from authz403.errors import ConfigurationError
from tests.addresses_made import NETWORKS, unmapped


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("10.1.0.0/8", "has host bits set; write 10.0.0.0/8 or one address"),
        ("2001:db8::1/32", "has host bits set; write 2001:db8::/32 or one address"),
        ("10.0.0.0/255.0.0.0", "not an address or a network"),
        ("10.0.0.0/0.255.255.255", "not an address or a network"),
        ("010.0.0.0/8", "does not appear to be"),
        ("10.0.0.0/08", ""),
        ("10.0.0.0/33", "does not appear to be"),
        ("::/129", "does not appear to be"),
        ("10.0.0.0/", "not an address or a network"),
        ("10.0.0.0/-1", "not an address or a network"),
        ("10.0.0.0/8/8", "not an address or a network"),
        ("10/8", "does not appear to be"),
        ("10.0.0.0-10.0.0.9", "not an address or a network"),
        ("fe80::1%eth0", "not an address or a network"),
        ("fe80::%eth0/10", "not an address or a network"),
        ("localhost", "not an address or a network"),
        ("*", "not an address or a network"),
        ("", "not an address or a network"),
        (" 10.0.0.0/8", "not an address or a network"),
        ("10.0.0.0/8\n", "not an address or a network"),
    ],
    ids=ascii,
)
def test_a_wrong_network_is_told(cidr: str, why: str) -> None:
    """Host bits, netmasks, hostmasks, leading zeros, zones and names are configuration errors, not guesses."""
    with pytest.raises(ConfigurationError) as caught:
        AddressSet(["192.0.2.0/24", cidr], part="networks")

    (mistake,) = caught.value.mistakes
    assert caught.value.part == "networks"
    assert (mistake.field, mistake.value) == ("cidrs[1]", repr(cidr))
    assert why in mistake.why


def read_by_the_standard_library(cidr: str) -> tuple[int, int, int] | None:
    """Return what `ipaddress` reads, with the host bits, masks and zones that are refused here refused."""
    text, slash, length = cidr.partition("/")
    if "%" in text or (slash and (not length.isdecimal() or not length.isascii() or str(int(length)) != length)):
        return None
    try:
        network = ipaddress.ip_network(cidr)
    except ValueError:
        return None
    first = unmapped(network.network_address)
    if first.version == network.version:
        return network.version, network.prefixlen, int(first)
    return (
        (4, network.prefixlen - 96, int(first)) if network.prefixlen >= 96 else (6, network.prefixlen, int(network[0]))
    )


def read(cidr: str) -> tuple[int, int, int] | None:
    """Return what a network is read as."""
    try:
        return parse_network(cidr)
    except ValueError:
        return None


@given(NETWORKS, st.sampled_from(["short", "long", "upper", "alone", "mapped", "mapped in hex"]))
def test_a_network_is_read_as_the_standard_library_reads_it(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, spelling: str
) -> None:
    """However an address is spelled, its network is the same number."""
    first, length, is_ipv4 = network.network_address, network.prefixlen, network.version == 4
    cidr = {
        "short": str(network),
        "long": network.exploded,
        "upper": str(network).upper(),
        "alone": str(first),
        "mapped": f"::ffff:{first}/{length + 96}" if is_ipv4 else str(network),
        "mapped in hex": f"::ffff:{int(first) >> 16:x}:{int(first) & 0xFFFF:x}/{length + 96}"
        if is_ipv4
        else str(network),
    }[spelling]

    assert read(cidr) == read_by_the_standard_library(cidr)
    assert read(cidr) is not None


@given(
    st.text("0123456789abcdefABCDEF.:/%x \t\n-+_", max_size=24)
    | st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){0,4}(/[0-9]{1,4})?", fullmatch=True)
    | st.from_regex(r"[0-9a-fA-F:]{2,24}(:[0-9.]{7,12})?(/[0-9]{1,4})?", fullmatch=True)
    | st.text(max_size=12)
)
def test_what_the_standard_library_refuses_is_refused(text: str) -> None:
    """Nothing is read that `ipaddress` does not read, nor read otherwise; no text makes reading crash."""
    assert read(text) == read_by_the_standard_library(text)


@pytest.mark.parametrize(
    "text",
    [
        "10.1",
        "167772161",
        "0x0a000001",
        "0xa.0.0.1",
        "012.0.0.1",
        "10.0.0.1 x",
        "10.0.0.1\0",
        "10.0.0",
        "::1%lo",
        "\ud800",
    ],
    ids=ascii,
)
def test_what_systems_read_as_an_address_besides_is_refused(text: str) -> None:
    """Hexadecimal, octal, short and commented forms, which the system's own functions take, are mistakes."""
    assert read(text) is None


@pytest.mark.parametrize(
    ("cidr", "is_it"),
    [
        ("0.0.0.0/0", True),
        ("::/0", True),
        ("0::0/0", True),
        ("::ffff:0:0/96", True),
        ("::/96", False),
        ("0.0.0.0/1", False),
        ("0.0.0.0", False),  # noqa: S104 - an address that is read, not one that is bound
        ("x/0", False),
        ("unix", False),
    ],
)
def test_everything_is_known_in_every_spelling(cidr: str, is_it: bool) -> None:  # noqa: FBT001 - a column of a table
    """All of IPv4, also as IPv6 writes it, and all of IPv6."""
    assert is_everything(cidr) is is_it
