"""Addresses: read strictly, and sets of networks that answer what the standard library answers, at any size."""

import ipaddress
import sys
import tracemalloc
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.addresses import (
    Address,
    AddressSet,
    Union,
    addresses_of,
    parse_address,
    parse_node,
)
from authz403.errors import ConfigurationError, Mistakes
from authz403.leaves import Networks
from tests.addresses_made import ADDRESSES, NETWORKS, unmapped

# ---- addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::ffff:0a00:0001", "10.0.0.1"),
        ("::ffff:10.0.0.1%eth0", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("64:ff9b::a00:1", "64:ff9b::a00:1"),
        ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - an address that is read, not one that is bound
    ],
)
def test_an_address_is_read(text: str, address: str) -> None:
    """A zone is dropped and an IPv4-mapped address is the IPv4 one; other ways to embed IPv4 are not looked into."""
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost", "testclient", "unknown", "abcd", "10.0.0.0/8", "10.0.0.1:80", "[::1]", "::1]", "1::2::3"),
        *("010.0.0.1", "::ffff:010.0.0.1", "10.1", "167772161", "0x0a000001", "\u0661.1.1.1", "10.0.0.1%eth0"),
        *(" 10.0.0.1", "10.0.0.1\n", "1" * 65, "fe80::1%" + "e" * 64),
    ],
    ids=ascii,
)
def test_what_is_no_address_is_none(text: str) -> None:
    """Leading zeros (CVE-2021-29921), short and hexadecimal forms, host names and raw bytes are no addresses."""
    assert parse_address(text) is None


@given(ADDRESSES)
def test_an_address_is_read_as_ipaddress_reads_it(address: Address) -> None:
    """Any address, in short or long form, is the one that the standard library reads."""
    assert parse_address(str(address)) == parse_address(address.exploded) == unmapped(address)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:443", "192.0.2.1"),
        (" \t192.0.2.1 ", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[fe80::1%eth0]:443", "fe80::1"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("_hidden:80", None),
        ("192.0.2.1:", None),
        ("192.0.2.1:http", None),
        ("192.0.2.1:-1", None),
        (":80", None),
        ("[2001:db8::1", None),
        ("[2001:db8::1]443", None),
        ("[2001:db8::1]:", None),
        ("[2001:db8::1]:http", None),
        ("2001:db8::1]", None),
        ("[192.0.2.1]", None),
        ("[192.0.2.1]:80", None),
        ("[]", None),
        ('"192.0.2.1"', None),
        ("192.0.2.1 192.0.2.2", None),
        ("192.0.2.1\n", None),
    ],
    ids=ascii,
)
def test_a_node_is_read_as_proxies_write_it(text: str, address: str | None) -> None:
    """Plain, bracketed and with a port; anything else is unknown."""
    node = parse_node(text)

    assert (None if node is None else str(node)) == address


@given(st.text() | st.text("0123456789abcdef.:[]% \t"))
def test_reading_a_node_never_raises(text: str) -> None:
    """Whatever a header holds, an address or nothing comes out."""
    node = parse_node(text)

    assert node is None or node == unmapped(ipaddress.ip_address(str(node)))


# ---- sets of networks


@given(networks=st.lists(NETWORKS, max_size=6), address=ADDRESSES, pick=st.integers(0, 5), offset=st.integers(0))
def test_a_set_holds_what_ipaddress_says(networks: list[Any], address: Address, pick: int, offset: int) -> None:
    """A set holds an address exactly where one of its networks does, by address and by text."""
    if networks:  # an address of one of the networks, else nearly none would hit
        network = networks[pick % len(networks)]
        address = network[offset % network.num_addresses]
    found = AddressSet(map(str, networks))

    # An IPv4-mapped network is the IPv4 one, and so is an address.
    within = any(
        unmapped(address) in ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
        if (mapped := getattr(network.network_address, "ipv4_mapped", None)) is not None and network.prefixlen >= 96
        else unmapped(address) in network
        for network in networks
    )
    assert (unmapped(address) in found) is within
    assert (str(address) in found) is within
    assert bool(found) is bool(networks)


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_ipv4_mapped_is_the_same_on_both_sides(address: ipaddress.IPv4Address, length: int) -> None:
    """An IPv4 network holds the mapped address, and a mapped network the IPv4 address."""
    network = ipaddress.ip_network((address, length), strict=False)
    mapped = f"::ffff:{network.network_address}/{length + 96}"

    assert f"::ffff:{address}" in AddressSet([str(network)])
    assert str(address) in AddressSet([mapped])
    assert f"::ffff:{address}" in AddressSet([mapped])


def test_an_ipv4_mapped_address_object_is_the_ipv4_one() -> None:
    """Also where somebody asks with an address of `ipaddress`: a deny list is not passed by spelling."""
    asked = ipaddress.ip_address("::ffff:10.0.0.1")

    assert asked in AddressSet(["10.0.0.0/8"])
    assert asked not in AddressSet(["::/0"])


def test_what_is_no_address_is_in_no_set() -> None:
    """Even the set of all addresses holds no host name."""
    assert "localhost" not in AddressSet(["0.0.0.0/0", "::/0"])
    assert "10.0.0.1" not in AddressSet(["::/0"])
    assert not AddressSet([])


def test_a_set_shows_its_networks() -> None:
    """The repr is what one would write."""
    assert repr(AddressSet(["10.0.0.0/8"])) == "AddressSet(['10.0.0.0/8'])"


def test_all_wrong_networks_of_a_set_are_told_at_once() -> None:
    """One error names them all."""
    with pytest.raises(ConfigurationError) as caught:
        AddressSet(["10.1.0.0/8", "10.0.0.0/8", "localhost"])

    assert [mistake.field for mistake in caught.value.mistakes] == ["cidrs[0]", "cidrs[2]"]


# ---- large sets


@cache
def blocks(count: int, *, version: int) -> list[str]:
    """Return so many networks that do not touch, of a few prefix lengths, over the whole of an IP version."""
    bits, longest = (32, 28) if version == 4 else (128, 64)
    width = bits - (count - 1).bit_length()
    make = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    lengths = range(bits - width + 1, max(longest, bits - width + 2) + 1)
    return [str(make((number << width, lengths[number % len(lengths)]))) for number in range(count)]


MANY: Final = 20_000  # more than one list holds


@pytest.fixture(scope="module")
def many() -> AddressSet:
    """Return a set with many networks of both versions."""
    return AddressSet([*blocks(MANY, version=4), *blocks(MANY, version=6)])


@given(address=ADDRESSES, pick=st.integers(0, 2 * MANY - 1), edge=st.sampled_from([-1, 0, 1, 2]))
def test_a_large_set_holds_what_its_networks_hold(many: AddressSet, address: Address, pick: int, edge: int) -> None:
    """First and last addresses are inside, their neighbours outside, and any other as the standard library says."""
    cidrs = blocks(MANY, version=4) if pick < MANY else blocks(MANY, version=6)
    network = ipaddress.ip_network(cidrs[pick % MANY])
    first, last = int(network[0]), int(network[-1])
    number = {-1: first - 1, 0: first, 1: last, 2: last + 1}[edge]
    make = type(network[0])

    if 0 <= number < 1 << network.max_prefixlen:
        assert (make(number) in many) is (edge in {0, 1})
    place = int(address) >> (address.max_prefixlen - (MANY - 1).bit_length())
    around = blocks(MANY, version=address.version)[place : place + 1]
    if unmapped(address) is address:
        assert (address in many) is any(address in ipaddress.ip_network(cidr) for cidr in around)


@pytest.mark.parametrize("version", [4, 6])
def test_a_set_of_every_prefix_length_is_looked_up(version: int) -> None:
    """A path of networks, each within the one before, holds what the widest holds, and beside it the others."""
    bits, make = (32, ipaddress.ip_address("128.0.0.0")) if version == 4 else (128, ipaddress.ip_address("8000::"))
    lengths = range(1, bits + 1)
    cidrs = [f"{type(make)(1 << (bits - length))}/{length}" for length in lengths]  # each beside all others
    found = AddressSet(cidrs)

    assert all(type(make)(1 << (bits - length)) in found for length in lengths)
    assert type(make)((1 << bits) - 1) in found
    assert type(make)(0) not in found


def test_networks_within_others_hide_nothing() -> None:
    """A narrow network that begins where, or after, a wide one does, does not end it."""
    close = AddressSet(["172.16.0.0/12", "172.16.0.0/24", "172.20.0.0/16", "2001:db8::/32", "2001:db8:1::/48"])
    asked = ("172.16.1.0", "172.31.255.255", "172.32.0.0", "2001:db8:2::1", "2001:db9::")
    assert [text in close for text in asked] == [True, True, False, True, False]
    found = AddressSet(["10.0.0.0/8", "10.0.0.0/24", "10.200.0.0/16", "10.200.0.7", "192.0.2.0/25", "192.0.2.128/25"])

    assert [text in found for text in ("10.0.1.0", "10.255.255.255", "10.200.1.1", "11.0.0.0", "9.255.255.255")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert [text in found for text in ("192.0.2.0", "192.0.2.127", "192.0.2.128", "192.0.3.0")] == [True] * 3 + [False]


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_within_a_wide_network_is_not_counted(version: int) -> None:
    """A set with all of the addresses holds one network, however many others it was given."""
    everything = "0.0.0.0/0" if version == 4 else "::/0"
    found = AddressSet([*blocks(MANY, version=version), everything])

    assert found == AddressSet([everything])
    assert found.changes_since(AddressSet(blocks(MANY, version=version))) == (1, MANY)
    assert found.entries == MANY + 1


def test_a_large_set_keeps_no_strings(many: AddressSet) -> None:
    """Its memory is that of numbers, its repr is short, and differs with what it holds."""
    texts = blocks(20_000, version=4)
    tracemalloc.start()
    try:
        found = AddressSet(text[:1] + text[1:] for text in texts)  # strings that nobody else holds
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert taken < sum(map(sys.getsizeof, texts)) / 2
    assert (found.cidrs, found.entries, bool(found)) == ((), 20_000, True)
    assert repr(found).startswith("AddressSet(<20,000 networks, ")
    assert repr(found) == repr(AddressSet(texts[::-1])) != repr(AddressSet([*texts[1:], "192.0.2.1"]))
    assert len(repr(many)) < 60


def test_sets_of_the_same_networks_are_equal() -> None:
    """Order and spelling do not matter, nor does what is inside of another; one address does."""
    found = AddressSet(["10.0.0.0/8", "2001:db8::/32"])

    assert found == AddressSet(["2001:DB8::/32", "10.0.0.0/8", "10.1.0.0/16", "::ffff:10.0.0.0/104"])
    assert hash(found) == hash(AddressSet(["2001:DB8::/32", "10.0.0.0/8"]))
    assert found != AddressSet(["10.0.0.0/8"])
    assert found != "10.0.0.0/8"


def test_of_many_mistakes_the_first_are_told_and_how_many_more() -> None:
    """An error of a million lines would be of no use."""
    with pytest.raises(ConfigurationError) as caught:
        AddressSet([f"wrong{number}" for number in range(1_234)])

    told = [(mistake.field, mistake.why) for mistake in caught.value.mistakes]
    assert [field for field, _ in told] == [*(f"cidrs[{number}]" for number in range(50)), "and"]
    assert told[-1][1] == "1,184 more that are wrong"


@pytest.mark.parametrize("given", ["10.0.0.0/8", b"10.0.0.0/8", None, 7], ids=repr)
def test_what_is_no_list_is_a_mistake(given: object) -> None:
    """A lone string would be taken for its letters."""
    with pytest.raises(ConfigurationError, match="a list of strings is needed"):
        AddressSet(given)  # type: ignore[arg-type]  # as somebody may write it


def test_a_set_has_one_order() -> None:
    """The mistakes of a `set` are told in the same order by every process."""
    with pytest.raises(ConfigurationError) as caught:
        AddressSet({"b", "a", "c"})

    assert [mistake.value for mistake in caught.value.mistakes] == ["'a'", "'b'", "'c'"]


# ---- changes


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("sizes", [(10, 10), (10, MANY), (MANY, 10), (MANY, MANY)], ids=str)
def test_the_difference_of_two_sets_is_counted(version: int, sizes: tuple[int, int]) -> None:
    """Added and removed networks are counted, whether a set is small or large, and nothing else changes."""
    cidrs = blocks(MANY, version=version)
    old, new = AddressSet(cidrs[: sizes[0]]), AddressSet(cidrs[-sizes[1] :])
    added, removed = set(cidrs[-sizes[1] :]), set(cidrs[: sizes[0]])

    assert new.changes_since(old) == (len(added - removed), len(removed - added))
    assert new == AddressSet(cidrs[-sizes[1] :])
    assert new.changes_since(new) == (0, 0)


# ---- several as one


def test_strings_and_sets_go_together() -> None:
    """A list may hold CIDR strings and sets of them; an address is in it where it is in one of these."""
    mistakes = Mistakes("test")
    both = addresses_of(mistakes, "allow", ["10.0.0.0/8", AddressSet(["192.0.2.0/24"])])

    assert isinstance(both, Union)
    assert [text in both for text in ("10.0.0.1", "192.0.2.1", "192.0.3.1")] == [True, True, False]
    assert (both.written(), both.may_be_empty) == ("'10.0.0.0/8', '192.0.2.0/24'", False)
    assert repr(Networks(both)) == "networks('10.0.0.0/8', '192.0.2.0/24')"
    assert not mistakes


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        (["x", AddressSet([])], ["allow[0]"]),
        ([AddressSet([]), 7, "y"], ["allow[1]", "allow[2]"]),
        ("10.0.0.0/8", ["allow"]),
        (None, ["allow"]),
    ],
    ids=str,
)
def test_mistakes_beside_sets_keep_their_places(given: object, fields: list[str]) -> None:
    """What is neither a string nor a set is told with its place in the list."""
    mistakes = Mistakes("test")

    assert addresses_of(mistakes, "allow", given).may_be_empty
    assert [mistake.field for mistake in mistakes] == fields
