"""Network: sets of networks, and the walk over proxies to the client's address; what is unclear is unknown."""

import ipaddress
import itertools
import json
import tracemalloc
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.addresses import Address, AddressSet, parse_address, parse_node
from authz403.decision import Outcome
from authz403.errors import ConfigurationError
from authz403.findings import PRIVATE
from authz403.gate import Gate
from authz403.network import Network
from authz403.policy import anyone
from authz403.request import AccessRequest

PROXY = "10.0.0.1"
PROXIES = ["10.0.0.0/8", "fd00::/8"]

ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
NETWORKS = st.builds(
    lambda address, length: ipaddress.ip_network((address, min(length, address.max_prefixlen)), strict=False),
    ADDRESSES,
    st.integers(0, 128),
)


def client(network: Network, *lines: str, peer: str | None = PROXY, name: str | None = None) -> str | None:
    """Return the client's address as text, given the lines of the header that the network reads."""
    name = name or network.source or ""
    address = network.client_address(AccessRequest("GET", "/", peer, {name: lines} if lines else {}))
    return None if address is None else str(address)


def mistakes_of(**options: Any) -> list[tuple[str, str, str]]:  # noqa: ANN401 - configuration of wrong types too
    """Return what is wrong with a Network."""
    with pytest.raises(ConfigurationError) as caught:
        Network(**options)
    assert caught.value.part == "Network"
    return [(mistake.field, mistake.value, mistake.why) for mistake in caught.value.mistakes]


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address."""
    return getattr(address, "ipv4_mapped", None) or address


# ---- configuration


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"source": "x-forwarded-for"}, ("trusted_proxies", "[]", "anybody could write x-forwarded-for")),
        ({"source": "X-Real-IP"}, ("trusted_proxies", "[]", "anybody could write x-real-ip")),
        ({"source": "forwarded", "allow": PROXIES}, ("trusted_proxies", "[]", "anybody could write forwarded")),
        ({"source": "x_real_ip", "trusted_proxies": PROXIES}, ("source", "'x_real_ip'", "underscores")),
        ({"source": "", "trusted_proxies": PROXIES}, ("source", "''", "is needed")),
        ({"source": "x real ip", "trusted_proxies": PROXIES}, ("source", "'x real ip'", "is needed")),
        ({"source": 5}, ("source", "5", "is needed")),
        ({"source": "peer", "trusted_proxies": PROXIES}, ("source", "'peer'", "never read")),
        ({"source": "peer", "hops": 1}, ("source", "'peer'", "never read")),
        ({"hops": 1}, ("source", "'peer'", "never read")),
        ({"hops": 0, "trusted_proxies": PROXIES}, ("hops", "0", "1 or more")),
        ({"hops": -1, "trusted_proxies": PROXIES}, ("hops", "-1", "1 or more")),
        ({"hops": True, "trusted_proxies": PROXIES}, ("hops", "True", "1 or more")),
        ({"hops": "1", "trusted_proxies": PROXIES}, ("hops", "'1'", "1 or more")),
        ({"hops": 1, "source": "x-real-ip", "trusted_proxies": PROXIES}, ("hops", "1", "nothing to count")),
        ({"trusted_proxies": "10.0.0.0/8"}, ("trusted_proxies", "'10.0.0.0/8'", "a list")),
        ({"trusted_proxies": "10.0.0.0/8", "source": "forwarded"}, ("trusted_proxies", "'10.0.0.0/8'", "a list")),
        ({"trusted_proxies": [7]}, ("trusted_proxies[0]", "7", "a string")),
        ({"trusted_proxies": ["UNIX"]}, ("trusted_proxies[0]", "'UNIX'", "not an address")),
        ({"trusted_proxies": ["unix", "*"]}, ("trusted_proxies[1]", "'*'", "not an address")),
        ({"trusted_proxies": ["10.1.0.0/8"]}, ("trusted_proxies[0]", "'10.1.0.0/8'", "has host bits set")),
        ({"allow": ["unix"]}, ("allow[0]", "'unix'", "not an address")),
        ({"allow": "10.0.0.0/8"}, ("allow", "'10.0.0.0/8'", "a list")),
        ({"deny": ["192.0.2.0/24", "x"]}, ("deny[1]", "'x'", "not an address")),
        ({"deny": None}, ("deny", "None", "a list")),
    ],
    ids=str,
)
def test_a_configuration_mistake_is_told(options: dict[str, Any], mistake: tuple[str, str, str]) -> None:
    """Each mistake is told once, with its field, value and why, and no other is made up from it."""
    ((field, value, why),) = mistakes_of(**options)

    assert (field, value) == mistake[:2]
    assert mistake[2] in why


def test_all_mistakes_are_told_at_once() -> None:
    """One error names everything that is wrong with a Network."""
    told = mistakes_of(
        source="x_ip", trusted_proxies=["010.0.0.1"], hops=0, allow=["10.0.0.1/8"], deny=["fe80::1%eth0"]
    )

    assert [field for field, _, _ in told] == ["source", "hops", "trusted_proxies[0]", "allow[0]", "deny[0]"]


@pytest.mark.parametrize(
    ("options", "source", "fields"),
    [
        ({}, "peer", set()),
        ({"source": "Peer"}, "peer", set()),
        ({"trusted_proxies": PROXIES}, "x-forwarded-for", {"x-forwarded-for", "transfer-encoding"}),
        ({"trusted_proxies": ["unix"], "source": "Forwarded"}, "forwarded", {"forwarded", "transfer-encoding"}),
        (
            {"trusted_proxies": PROXIES, "source": "CF-Connecting-IP"},
            "cf-connecting-ip",
            {"cf-connecting-ip", "transfer-encoding"},
        ),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_the_header_to_read_is_named(options: dict[str, Any], source: str, fields: set[str]) -> None:
    """Without proxies nothing but the connection is read; with them X-Forwarded-For, unless another is named."""
    network = Network(**options)

    assert (network.source, set(network.fields)) == (source, fields | ({"transfer-encoding"} if fields else set()))


def test_a_network_is_a_value() -> None:
    """What was given as any iterable is kept as tuples, so that equal networks are equal."""
    network = Network(trusted_proxies=iter(PROXIES), allow=iter(["192.0.2.0/24"]), deny=["192.0.2.7"])

    assert network == Network(trusted_proxies=PROXIES, allow=["192.0.2.0/24"], deny=["192.0.2.7"])
    assert (network.trusted_proxies, network.allow, network.deny) == (tuple(PROXIES), ("192.0.2.0/24",), ("192.0.2.7",))
    assert "192.0.2.7" in network.allowed
    assert "192.0.2.7" in network.denied
    assert "192.0.2.8" not in network.denied


# ---- the peer


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        (None, None),
        ("", None),
        ("localhost", None),
        ("unix", None),
        ("testclient", None),
    ],
    ids=str,
)
def test_without_proxies_the_peer_is_the_client(peer: str | None, address: str | None) -> None:
    """The connection's other end is the client, whatever headers say; what is no address is unknown."""
    assert client(Network(), "198.51.100.7", peer=peer, name="x-forwarded-for") == address


@pytest.mark.parametrize("source", ["x-forwarded-for", "forwarded", "x-real-ip"])
@pytest.mark.parametrize("peer", ["198.51.100.7", "2001:db8::7", "::ffff:198.51.100.7", "11.0.0.1"])
def test_an_untrusted_peer_is_the_client_whatever_it_writes(source: str, peer: str) -> None:
    """A header is only read from a trusted proxy: others cannot pretend to be inside (CVE-2022-42252's class)."""
    spoofed = "for=10.1.2.3" if source == "forwarded" else "10.1.2.3"

    assert client(Network(source=source, trusted_proxies=PROXIES), spoofed, peer=peer) == str(parse_address(peer))


@pytest.mark.parametrize("peer", [None, "", "localhost", "unix"], ids=repr)
def test_a_unix_socket_is_trusted_where_it_is_named(peer: str | None) -> None:
    """Servers name the peer of a unix socket in different ways; with `"unix"` all are trusted, without it none."""
    assert client(Network(trusted_proxies=["unix"]), "198.51.100.7", peer=peer) == "198.51.100.7"
    assert client(Network(trusted_proxies=PROXIES), "198.51.100.7", peer=peer) is None


@pytest.mark.parametrize("peer", ["testclient", "proxy.internal", "10.0.0.1:80", "@"])
def test_a_peer_with_a_name_is_no_unix_socket(peer: str) -> None:
    """A peer that is neither an address nor a unix socket is not trusted, and not known."""
    assert client(Network(trusted_proxies=["unix", *PROXIES]), "198.51.100.7", peer=peer) is None


def test_a_trusted_unix_socket_does_not_make_addresses_trusted() -> None:
    """Where only unix sockets are trusted, a peer with an address is the client."""
    assert client(Network(trusted_proxies=["unix"]), "10.1.2.3", peer="127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "fd00::1%eth0"])
def test_a_trusted_peer_is_known_in_every_spelling(peer: str) -> None:
    """Mapped addresses and zones do not hide a trusted proxy."""
    assert Network(trusted_proxies=PROXIES).trusts_peer(peer)
    assert client(Network(trusted_proxies=PROXIES), "198.51.100.7", peer=peer) == "198.51.100.7"


# ---- the walk


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        (["198.51.100.7,10.0.0.2,\t10.0.0.3"], "198.51.100.7"),
        (["192.0.2.1, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        (["192.0.2.1", "198.51.100.7", "10.0.0.2"], "198.51.100.7"),
        (["198.51.100.7", "10.0.0.3, 10.0.0.2"], "198.51.100.7"),
        (["10.9.9.9, 198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7:4711, [fd00::2]:80"], "198.51.100.7"),
        (["::ffff:198.51.100.7, ::ffff:10.0.0.2"], "198.51.100.7"),
        (["garbage, 198.51.100.7"], "198.51.100.7"),
        (["garbage", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        (["198.51.100.7, garbage, 10.0.0.2"], None),
        (["198.51.100.7, garbage"], None),
        (["198.51.100.7, "], None),
        (["198.51.100.7", ""], None),
        (["198.51.100.7,,10.0.0.2"], None),
        (["10.0.0.2, 10.0.0.3"], None),
        (["unknown"], None),
        ([""], None),
        ([], None),
    ],
    ids=str,
)
def test_the_walk_goes_from_the_right_to_the_first_stranger(lines: list[str], address: str | None) -> None:
    """All lines are one list; what stands left of the client is its own to write, and garbage on the way denies."""
    assert client(Network(trusted_proxies=PROXIES), *lines) == address


@given(
    spoofed=st.lists(st.text() | ADDRESSES.map(str), max_size=3),
    stranger=ADDRESSES.filter(lambda address: unmapped(address) not in ipaddress.ip_network("10.0.0.0/8")),
    proxies=st.lists(
        st.integers(0, 2**24 - 1).map(lambda number: str(ipaddress.IPv4Address((10 << 24) + number))), max_size=3
    ),
    one_line=st.booleans(),
)
def test_what_a_client_writes_never_changes_who_it_is(
    spoofed: list[str], stranger: Address, proxies: list[str], *, one_line: bool
) -> None:
    """However a client fills X-Forwarded-For, each proxy appends whom it saw, and the client is found."""
    written = [*spoofed, str(stranger), *proxies]
    lines = [", ".join(written)] if one_line else written

    assert client(Network(trusted_proxies=["10.0.0.0/8"]), *lines) == str(unmapped(stranger))


@pytest.mark.parametrize(
    ("hops", "lines", "address"),
    [
        (1, ["192.0.2.1, 198.51.100.7"], "198.51.100.7"),
        (2, ["192.0.2.1, 198.51.100.7"], "192.0.2.1"),
        (2, ["192.0.2.1", "198.51.100.7"], "192.0.2.1"),
        (1, ["192.0.2.1, 10.0.0.2"], "10.0.0.2"),
        (2, ["192.0.2.1, garbage"], "192.0.2.1"),
        (2, ["garbage, 192.0.2.1"], None),
        (3, ["192.0.2.1, 198.51.100.7"], None),
        (1, [], None),
    ],
    ids=str,
)
def test_hops_take_the_entry_so_many_places_from_the_right(hops: int, lines: list[str], address: str | None) -> None:
    """Counted hops look at one entry alone; a shorter list means that a proxy was passed by, so nothing is known."""
    assert client(Network(trusted_proxies=PROXIES, hops=hops), *lines) == address


def test_hops_count_in_a_forwarded_header_too() -> None:
    """The elements of RFC 7239 are counted like those of X-Forwarded-For."""
    network = Network(source="forwarded", trusted_proxies=PROXIES, hops=2)

    assert client(network, "for=192.0.2.1", "for=198.51.100.7, for=10.0.0.2") == "198.51.100.7"


def test_hops_from_an_untrusted_peer_are_not_counted() -> None:
    """A peer that is no proxy is the client, whatever list it brings."""
    assert client(Network(trusted_proxies=PROXIES, hops=1), "10.1.2.3", peer="198.51.100.7") == "198.51.100.7"


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["198.51.100.7"], "198.51.100.7"),
        (["[2001:db8::7]:443"], "2001:db8::7"),
        (["10.1.2.3"], "10.1.2.3"),
        (["198.51.100.7", "198.51.100.7"], None),
        (["198.51.100.7, 192.0.2.1"], None),
        (["garbage"], None),
        ([""], None),
        ([], None),
    ],
    ids=str,
)
def test_a_single_header_holds_one_address(lines: list[str], address: str | None) -> None:
    """A header that the edge sets is one line with one address; twice means that somebody else wrote it too."""
    assert client(Network(source="X-Real-IP", trusted_proxies=PROXIES), *lines) == address


@pytest.mark.parametrize("name", ["x_forwarded_for", "x-forwarded-host", "forwarded", "x-real-ip"])
def test_other_headers_say_nothing(name: str) -> None:
    """Only the configured header is read; a missing one never means that the client is inside."""
    assert client(Network(trusted_proxies=PROXIES), "198.51.100.7", name=name) is None


def test_clients_of_one_proxy_are_told_apart_however_many_they_are() -> None:
    """Whatever is remembered of earlier requests, every request is answered for what it brings itself."""
    network = Network(trusted_proxies=PROXIES)
    clients = [str(ipaddress.IPv4Address((198 << 24) + number)) for number in range(5_000)]

    for _ in range(2):
        assert [client(network, address) for address in clients] == clients
    assert client(network, clients[0]) == clients[0]
    assert client(network, clients[0], peer="192.0.2.1") == "192.0.2.1"
    assert client(network, clients[0], clients[1]) == clients[1]
    assert client(network) is None


@pytest.mark.parametrize("peer", [PROXY, "192.0.2.1"], ids=["proxy", "stranger"])
def test_long_headers_do_not_fill_the_memory(peer: str) -> None:
    """What is remembered of earlier requests is bounded in bytes, not in requests alone (CWE-770)."""
    network = Network(trusted_proxies=PROXIES)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1_000):
            client(network, f"{number}, ".ljust(16_000, "x") + ", 198.51.100.7", peer=peer)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 2_000_000


@pytest.mark.parametrize("moment", range(6))
def test_requests_of_other_threads_do_not_come_in_between(moment: int) -> None:
    """Where other threads meet the same network in the middle of a request, whenever that is, it is still answered."""
    network = Network(trusted_proxies=PROXIES)
    looks = itertools.count()

    class Interrupted(str):
        __slots__ = ()

        def __hash__(self) -> int:
            if next(looks) == moment:
                for number in range(5_000):
                    client(network, str(ipaddress.IPv4Address((198 << 24) + number)))
            return super().__hash__()

    for _ in range(2):
        assert client(network, "203.0.113.7", peer=Interrupted(PROXY)) == "203.0.113.7"


# ---- Forwarded (RFC 7239)


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        (["for=198.51.100.7"], "198.51.100.7"),
        (["For=198.51.100.7;Proto=https;by=10.0.0.1;host=a.example"], "198.51.100.7"),
        (['for="[2001:db8:cafe::17]:4711"'], "2001:db8:cafe::17"),
        (['for="198.51.100.7:47011"'], "198.51.100.7"),
        (['for="198.51.100\\.7"'], "198.51.100.7"),
        (["for=192.0.2.43, for=198.51.100.7"], "198.51.100.7"),
        (["for=192.0.2.43,for=198.51.100.7 , for=10.0.0.2"], "198.51.100.7"),
        (["for=192.0.2.43", "for=198.51.100.7", "for=10.0.0.2"], "198.51.100.7"),
        (['host="a, for=192.0.2.1;b";for=198.51.100.7'], "198.51.100.7"),
        (['for=198.51.100.7;host="\\", for=192.0.2.1"'], "198.51.100.7"),
        (["for=192.0.2.1, proto=https"], None),
        (["for=198.51.100.7, for=unknown"], None),
        (["for=198.51.100.7, for=_hidden"], None),
        (["for=198.51.100.7, for="], None),
        (['for=198.51.100.7, for=""'], None),
        (["for=192.0.2.1;for=198.51.100.7"], None),
        (["for=192.0.2.1;FOR=198.51.100.7"], None),
        (["for = 198.51.100.7"], None),
        (['for="198.51.100.7'], None),
        (["for=198.51.100.7;"], None),
        (["for=198.51.100.7,"], None),
        (["for=198.51.100.7, \t"], None),
        (["198.51.100.7"], None),
        (["for=198.51.100.7 for=192.0.2.1"], None),
        (["for=10.0.0.2"], None),
        (['"for"=198.51.100.7'], None),
        ([""], None),
        ([], None),
    ],
    ids=str,
)
def test_a_forwarded_header_is_read(lines: list[str], address: str | None) -> None:
    """RFC 7239 section 4: elements, pairs, quoted strings; repeated parameters and any broken syntax are unknown."""
    assert client(Network(source="forwarded", trusted_proxies=PROXIES), *lines) == address


@pytest.mark.parametrize("garbage", ["garbage", 'for="', "for=192.0.2.1;", "=", ""], ids=repr)
def test_a_broken_forwarded_line_of_the_client_changes_nothing(garbage: str) -> None:
    """A proxy that adds its own line is believed for it, whatever the client wrote in lines before."""
    network = Network(source="forwarded", trusted_proxies=PROXIES)

    assert client(network, garbage, "for=198.51.100.7") == "198.51.100.7"
    assert client(network, garbage, "for=198.51.100.7, for=10.0.0.2", "for=10.0.0.3") == "198.51.100.7"
    assert client(network, garbage, "for=10.0.0.3") is None


def test_an_unreadable_address_does_not_lead_out_of_a_denied_network() -> None:
    """A client whose proxy appends to its broken Forwarded header must not escape `Network(deny=)` by being unknown."""
    network = Network(source="forwarded", trusted_proxies=PROXIES, deny=["198.51.100.0/24"])
    gate = Gate(network=network, default=anyone)

    def allowed(line: str) -> bool:
        outcome = gate.decide(AccessRequest("GET", "/", PROXY, {"forwarded": (line,)}))
        decision = getattr(outcome, "decision", None)
        assert decision is not None
        return bool(decision.allowed)

    assert allowed("for=192.0.2.1")
    assert not allowed("for=198.51.100.7")
    assert not allowed('for=", for=198.51.100.7')


@pytest.mark.parametrize("source", ["x-forwarded-for", "forwarded"])
def test_a_line_that_may_be_a_trailer_says_nothing(source: str) -> None:
    """RFC 9110 section 6.5.1: servers that merge trailers let a client write behind what its proxies wrote."""
    network = Network(source=source, trusted_proxies=PROXIES)
    prefix = "for=" if source == "forwarded" else ""
    both = {source: (f"{prefix}198.51.100.7", f"{prefix}192.0.2.1")}
    one = {source: (f"{prefix}198.51.100.7",)}
    chunked = {"transfer-encoding": ("chunked",)}

    def address(fields: Mapping[str, tuple[str, ...]]) -> str:
        return str(network.client_address(AccessRequest("POST", "/", PROXY, fields)))

    assert address(both) == "192.0.2.1"
    assert address({**both, **chunked}) == "None"
    assert address({**one, **chunked}) == "198.51.100.7"


@pytest.mark.parametrize("options", [{"deny": ["198.51.100.0/24"]}, {"allow": ["192.0.2.0/24"]}], ids=str)
def test_a_trailer_does_not_lead_out_of_a_denied_network(options: dict[str, Any]) -> None:
    """Nor into an allowed one: where the client may have written the address itself, the service stays closed."""
    gate = Gate(network=Network(trusted_proxies=PROXIES, **options), default=anyone)
    fields: Mapping[str, tuple[str, ...]] = {
        "x-forwarded-for": ("198.51.100.7", "192.0.2.1"),
        "transfer-encoding": ("chunked",),
    }
    outcome = gate.decide(AccessRequest("POST", "/", PROXY, fields))
    decision = getattr(outcome, "decision", None)
    assert decision is not None
    assert (decision.status, str(decision.reason)) == (403, "ip_not_allowed")
    assert "may be a trailer" in decision.hint


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({}, ("x" * 8_200 + ", 198.51.100.7",)),
        ({}, ("x" * 5_000, "x" * 5_000, "198.51.100.7")),
        ({"source": "forwarded"}, ("x" * 8_200 + ", for=198.51.100.7",)),
        ({"source": "x-real-ip"}, ("x", "198.51.100.7")),
        ({"source": "x-real-ip"}, ("x,198.51.100.7",)),
        ({"hops": 2}, ("198.51.100.7",)),
    ],
    ids=["too long", "too long in lines", "too long by Forwarded", "a line too many", "joined lines", "past a proxy"],
)
def test_what_a_client_writes_does_not_lead_out_of_a_denied_network(
    options: dict[str, Any], lines: tuple[str, ...]
) -> None:
    """Who is not known by their own doing is held to be inside; who sends nothing is not."""
    network = Network(trusted_proxies=PROXIES, deny=["198.51.100.0/24"], **options)
    gate = Gate(network=network, default=anyone)

    def reason(fields: Mapping[str, tuple[str, ...]]) -> str:
        outcome = gate.decide(AccessRequest("GET", "/", PROXY, fields))
        return str(outcome.decision.reason) if isinstance(outcome, Outcome) else "waiting"

    assert reason({str(network.source): lines}) == "ip_not_allowed"
    assert reason({}) == "None"


def quoted(text: str) -> str:
    """Write a quoted-string (RFC 9110 section 5.6.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def node_of(address: Address, port: int | None) -> str:
    """Write a node (RFC 7239 section 6): IPv6 is bracketed and quoted, and a port makes quotes necessary too."""
    bracketed = f"[{address}]" if address.version == 6 else str(address)
    if port is None and address.version == 4:
        return bracketed
    return quoted(bracketed if port is None else f"{bracketed}:{port}")


ELEMENTS = st.lists(
    st.tuples(ADDRESSES, st.none() | st.integers(0, 65_535), st.none() | st.text(st.characters(codec="latin-1"))),
    min_size=1,
    max_size=4,
)


@given(elements=ELEMENTS, name=st.sampled_from(["for", "For", "FOR"]), comma=st.sampled_from([",", ", ", " ,\t"]))
def test_the_forwarded_header_we_read_is_the_one_we_wrote(
    elements: list[tuple[Address, int | None, str | None]], name: str, comma: str
) -> None:
    """Any nodes, ports and quoted hosts are read back one by one, in one line or in many."""
    hosts = [(address, port, None if host is None else host.replace("\n", "")) for address, port, host in elements]
    written = [
        f"{name}={node_of(address, port)}" + ("" if host is None else f";host={quoted(host)}")
        for address, port, host in hosts
    ]
    for lines in ([comma.join(written)], written):
        read = [
            client(Network(source="forwarded", trusted_proxies=PROXIES, hops=hops), *lines)
            for hops in range(len(written), 0, -1)
        ]
        assert read == [str(unmapped(address)) for address, _, _ in elements]


@given(
    st.lists(st.text() | st.text('for=;,"\\ 1.:[]'), max_size=3),
    st.sampled_from(["forwarded", "x-forwarded-for", "x-ip"]),
)
def test_the_walk_never_raises(lines: list[str], source: str) -> None:
    """Whatever a header holds, an address or nothing comes out."""
    found = client(Network(source=source, trusted_proxies=PROXIES), *lines)

    assert found is None or parse_address(found) is not None


# ---- public vectors


def go_cases(path: Path, function: str) -> list[dict[str, Any]]:
    """Return the rows of one Go test table."""
    (table,) = [table for table in json.loads(path.read_text(encoding="utf-8")) if table["func"] == function]
    rows: list[dict[str, Any]] = table["cases"]
    assert len(rows) == table["n"]
    return rows


def peer_of(remote: str | None) -> str | None:
    """Return what an ASGI or WSGI server gives for Go's `ip:port`: the host alone."""
    if remote is None:
        return None
    if remote.startswith("["):
        return remote[1:].partition("]")[0]
    return remote.partition(":")[0] if remote.count(":") == 1 else remote


def answered(options: dict[str, Any], row: dict[str, Any]) -> str:
    """Return the client's address as the vectors word it: empty for none, `error` for a refused configuration."""
    try:
        network = Network(**options)
    except ConfigurationError:
        return "error"
    headers = {name.lower(): tuple(lines) for name, lines in row["args"].get("headers", {}).items()}
    address = network.client_address(AccessRequest("GET", "/", peer_of(row["args"].get("remoteAddr")), headers))
    return "" if address is None else str(address)


def wanted(row: dict[str, Any]) -> str:
    """Return what a row wants, without a zone."""
    return "error" if row.get("wantErr") else str(row["want"]).partition("%")[0]


def differing(rows: Iterable[dict[str, Any]], options: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the rows that we answer otherwise, with our answer."""
    answers = {row["name"]: (answered(options[row["name"]], row), wanted(row)) for row in rows}
    return {name: ours for name, (ours, theirs) in answers.items() if ours != theirs}


UNSPECIFIED = "0.0.0.0"  # noqa: S104 - an address that is read, not one that is bound


def test_the_peer_vectors_of_realclientip_are_followed(corpora: Path) -> None:
    """The connection's address, with the rows that we see otherwise and why."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "TestRemoteAddrStrategy")

    assert differing(rows, {row["name"]: {} for row in rows}) == {
        # The unspecified address is an address like another: no network holds it but one of all addresses.
        "Fail: zero RemoteAddr IP": UNSPECIFIED,
        "Fail: unspecified RemoteAddr IP": "::",
    }


def test_the_single_header_vectors_of_realclientip_are_followed(corpora: Path) -> None:
    """One header of the edge, with the rows that we see otherwise and why."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "TestSingleIPHeaderStrategy")
    options = {row["name"]: {"source": row["args"]["headerName"], "trusted_proxies": ["unix"]} for row in rows}

    assert differing(rows, options) == {
        "Fail: zero IP": UNSPECIFIED,  # as above
        # Here the same name asks for the walk.
        "Error: X-Forwarded-For header": "3.3.3.3",
    }


def test_the_private_network_vectors_of_realclientip_are_followed(corpora: Path) -> None:
    """The rightmost address that is not private, with the rows that we see otherwise and why."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "TestRightmostNonPrivateStrategy")
    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "::1", "fc00::/7", "fe80::/10"]
    options = {
        row["name"]: {"source": row["args"]["headerName"], "trusted_proxies": ["unix", *private]} for row in rows
    }

    assert differing(rows, options) == {
        # Garbage ends the walk: nobody knows who wrote what stands left of it.
        "XFF: rightmost not desirable": "",
        "Forwarded: rightmost not desirable": "",
        "Fail: XFF: none acceptable": UNSPECIFIED,  # as above
        "Fail: Forwarded: none acceptable": UNSPECIFIED,  # as above
        # A peer that is no proxy is the client.
        "Fail: XFF: no header": "9.9.9.9",
        # A header of another name is a single one here.
        "Error: invalid header": "::1",
    }


def test_the_counting_vectors_of_realclientip_are_followed(corpora: Path) -> None:
    """The entry so many places from the right, with the rows that we see otherwise and why."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "TestRightmostTrustedCountStrategy")
    options = {
        row["name"]: {
            "source": row["args"]["headerName"],
            "trusted_proxies": ["unix"],
            "hops": -999 if row["args"]["trustedCount"] == {"go": "-999"} else row["args"]["trustedCount"],
        }
        for row in rows
    }

    assert differing(rows, options) == {"Fail: zero value at count index": UNSPECIFIED}  # as above


def test_the_trusted_range_vectors_of_realclientip_are_followed(corpora: Path) -> None:
    """The walk over trusted networks, with the rows that we see otherwise and why."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "TestRightmostTrustedRangeStrategy")
    options = {}
    for row in rows:
        ranges = row["args"]["trustedRanges"] or []
        ranges = ["2400:cb00::/32"] if ranges == {"go": "ranges.Cloudflare"} else ranges
        # Where a row has no peer, its reader trusts whoever is in front.
        unix = [] if "remoteAddr" in row["args"] else ["unix"]
        options[row["name"]] = {"source": row["args"]["headerName"], "trusted_proxies": [*unix, *ranges]}

    assert differing(rows, options) == {
        # Host bits are a mistake here: the row has ::ffff:4.4.4.4/124 and 64:ff9b::188.0.2.128/112.
        "Many kinds of ranges": "error",
        # A peer that is no trusted address vouches for nothing.
        "Peer Unix socket: walks header as normal": "",
        "Peer empty: walks header as normal": "",
        "Peer garbage: walks header as normal": "",
        "Peer unspecified IP: walks header as normal": UNSPECIFIED,
        "Fail: rightmost non-trusted IP unspecified": "::",  # as above
        # A header of another name is a single one here.
        "Error: bad header nanme": "",
    }


def test_the_leftmost_vectors_of_realclientip_are_not_followed(corpora: Path) -> None:
    """The leftmost entry is the client's own to write: by the same headers, we find who stands at the right."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "TestLeftmostNonPrivateStrategy")
    private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "::1", "fc00::/7", "fe80::/10"]
    options = {
        row["name"]: {"source": row["args"]["headerName"], "trusted_proxies": ["unix", *private]} for row in rows
    }

    assert differing(rows, options) == {
        # The rightmost entry that is not a proxy, each time.
        "IPv4 with port": "4.4.4.4",
        "IPv4 with no port": "6.6.6.6",
        "IPv6 with port": "4.4.4.4",
        "IPv6 with port and zone": "6.6.6.6",
        "IPv6 with port and zone, no quotes": "6.6.6.6",
        "IPv4-mapped IPv6": "4.4.4.4",
        "IPv4-mapped IPv6 with port": "4.4.4.4",
        "IPv4-mapped IPv6 in IPv6 (hex) form": "6.6.6.6",
        "NAT64 IPv4-mapped IPv6": "4.4.4.4",
        "XFF: leftmost not desirable": "5.5.5.5",
        "Fail: Forwarded: none acceptable": UNSPECIFIED,  # as above
        # A header of another name is a single one here.
        "Error: invalid header": "::1",
    }


def test_the_chain_vectors_of_realclientip_are_not_followed(corpora: Path) -> None:
    """Where one header is missing, another is not asked: clients write what their proxy does not."""
    single, several, *failing = go_cases(corpora / "client-ip" / "realclientip.json", "TestChainStrategy")

    assert answered({}, single) == single["want"]
    walk = {"source": "forwarded", "trusted_proxies": [several["args"]["remoteAddr"]]}
    assert (several["want"], answered(walk, several)) == ("1.1.1.1", "")
    assert [row["name"] for row in failing] == ["Fail: No strategies", "Fail: Multiple strategies, all fail"]
    assert [answered(walk, row) for row in failing] == ["", ""]


def test_the_private_address_vectors_of_realclientip_are_followed(corpora: Path) -> None:
    """What is private for our warnings, with the rows that we see otherwise and why."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "Test_isPrivateOrLocal")

    assert [row["name"] for row in rows if (row["ip"] in PRIVATE) is not row["want"]] == [
        "IPv4 RFC 2544 benchmarking",  # no proxy is at an address that routers are measured with
    ]


def test_every_table_of_the_vectors_is_looked_at(corpora: Path) -> None:
    """A table that is new in there wants a test, and so does a new file."""
    tables = json.loads((corpora / "client-ip" / "realclientip.json").read_text(encoding="utf-8"))
    here = Path(__file__).read_text(encoding="utf-8")

    assert {table["func"] for table in tables if f'"{table["func"]}"' not in here} == set()
    assert {path.name for path in (corpora / "client-ip").iterdir() if f'"{path.name}"' not in here} == set()


def test_the_network_vectors_of_realclientip_are_followed(corpora: Path) -> None:
    """Addresses and ranges as networks, with the rows that we see otherwise and why."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "TestAddressesAndRangesToIPNets")

    def refused(row: dict[str, Any]) -> bool:
        try:
            AddressSet(row["ranges"] or [])
        except ConfigurationError:
            return True
        return False

    differs = [row["name"] for row in rows if refused(row) is not bool(row.get("wantErr"))]
    # Host bits are a mistake here.
    assert differs == ["Single IPv4 range", "Single IPv6 range", "Mixed input"]


@pytest.mark.parametrize("function", ["TestParseIPAddr", "Test_goodIPAddr"])
def test_the_address_vectors_of_realclientip_are_followed(corpora: Path, function: str) -> None:
    """Addresses as proxies write them, with the rows that we see otherwise and why."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", function)
    differs = {}
    for row in rows:
        theirs = None if row.get("want") is None else str(ipaddress.ip_address(row["want"]["IP"]))
        node = parse_node(row["ipStr"])
        ours = None if node is None else str(node)
        if ours != theirs:
            differs[row["name"]] = ours

    # An IPv4 address has no zone, not even an empty one, and a port is a number.
    expected: dict[str, str | None] = {"Empty zone": None, "Bad port (is discarded)": None}
    if function == "Test_goodIPAddr":  # the unspecified address, as above
        expected |= {"Error: Zero address": UNSPECIFIED, "Error: Unspecified address": "::"}
    assert differs == expected


def go_address(value: Any) -> str | None:  # noqa: ANN401 - a row holds a Go expression or nothing
    """Return the address of `mustParseIPAddrPtr("...")`, without a zone."""
    if value is None:
        return None
    text = value["go"].removeprefix('mustParseIPAddrPtr("').removesuffix('")').partition("%")[0]
    return str(ipaddress.ip_address(text))


def test_the_forwarded_vectors_of_realclientip_are_followed(corpora: Path) -> None:
    """Elements of Forwarded headers, with the rows that we see otherwise and why."""
    path = corpora / "client-ip" / "realclientip.json"
    network = Network(source="forwarded", trusted_proxies=["unix"])
    items = {
        row["name"]: (client(network, row["fwd"], peer=None), go_address(row["want"]))
        for row in go_cases(path, "Test_parseForwardedListItem")
    }

    assert {name: ours for name, (ours, theirs) in items.items() if ours != theirs} == {
        # RFC 7239 section 4 has no white space around the equals sign.
        "RFC deviation: Incorrect whitespace": None,
    }


def test_the_deviation_vectors_of_realclientip_are_judged_by_the_rfc(corpora: Path) -> None:
    """Where that library knowingly leaves RFC 7239, we keep to it; what stands left of something broken is not read."""
    rows = go_cases(corpora / "client-ip" / "realclientip.json", "Test_forwardedHeaderRFCDeviations")
    differs = {}
    for row in rows:
        lines = row["args"]["headers"]["Forwarded"]
        ours = [
            client(Network(source="forwarded", trusted_proxies=["unix"], hops=hops), *lines, peer=None)
            for hops in range(len(row["want"]), 0, -1)
        ]
        if ours != [go_address(value) for value in row["want"]]:
            differs[row["name"]] = ours

    assert differs == {
        # Read from the right up to the first element that is broken: nobody knows where that one begins.
        "Comma in quotes": [None, None, None, "4.4.4.4"],  # not broken: a comma in quotes separates nothing
        "Invalid characters": [None, "2.2.2.2"],
        "Duplicate token": [None, "3.3.3.3"],
        "Equal sign spaces": [None, None],
        # RFC 7239 section 4 takes the quoted-string of HTTP, with its escapes.
        "Escaped character": ["3.3.3.3"],
        # RFC 7239 section 6: brackets are for IPv6.
        "IPv4 brackets": [None],
    }


def test_the_address_vectors_of_go_are_followed(corpora: Path) -> None:
    """Every address that Go's netip takes is read, every other is none; a zone is dropped."""
    vectors = json.loads((corpora / "client-ip" / "netip-parse.json").read_text(encoding="utf-8"))

    assert [text for text in vectors["valid"] if parse_address(text) is None] == []
    refused = [*vectors["leading_zero_invalid"], *vectors["invalid"]]
    assert {text for text in refused if parse_address(text) is not None} == {
        "fe80::1%",  # an empty zone is no zone: the address is the same
    }
    assert [text for text in vectors["valid"] if "%" in text and str(parse_address(text)).count("%")] == []


def test_the_vectors_of_envoy_are_followed(corpora: Path) -> None:
    """X-Forwarded-For as Envoy's documentation counts it, with the case that we see otherwise and why."""
    vectors = json.loads((corpora / "client-ip" / "envoy-xff.json").read_text(encoding="utf-8"))
    differs = {}
    for case in vectors["cases"]:
        options: dict[str, Any] = {}
        if case["hops"] or not case["use_remote_address"]:
            # Envoy counts from the connection where it uses its address, else from the header's last entry.
            hops = case["hops"] + (not case["use_remote_address"])
            options = {"trusted_proxies": [case["peer"]], "hops": hops}
        lines = [] if case["xff"] is None else [case["xff"]]
        found = client(Network(**options), *lines, peer=case["peer"], name="x-forwarded-for")
        if found != case["want"]:
            differs[case["id"]] = found

    # A trusted proxy that says nothing is not the client.
    assert differs == {5: None}


def test_the_forwarded_examples_of_the_rfc_are_read(corpora: Path) -> None:
    """Every example of RFC 7239 gives its nodes; obfuscated and unknown ones have no address."""
    vectors = json.loads((corpora / "rfc-http-auth" / "vectors.json").read_text(encoding="utf-8"))["forwarded"]

    assert len(vectors) == 9
    for row in vectors:
        read = [
            client(Network(source="forwarded", trusted_proxies=["unix"], hops=hops), row["v"], peer=None)
            for hops in range(len(row["for"]), 0, -1)
        ]
        assert read == [None if parse_address(node) is None else node for node in row["for"]], row["v"]


def test_very_long_forwarding_headers_are_not_read() -> None:
    """No chain of proxies needs 8 KiB; reading more would only cost time."""
    network = Network(source="forwarded", trusted_proxies=["10.0.0.0/8"])
    assert client(network, "," * 9_000 + "for=192.0.2.1") is None
    assert client(network, "," * 100 + "for=192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"allow": []}, "allow"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "trusted_proxies[0]"),
        ({"trusted_proxies": ["10.0.0.0/8", "::/0"]}, "trusted_proxies[1]"),
        ({"source": "Host", "trusted_proxies": ["10.0.0.0/8"]}, "source"),
        ({"source": "x-forwarded-host", "trusted_proxies": ["10.0.0.0/8"]}, "source"),
    ],
    ids=repr,
)
def test_what_would_let_everybody_in_is_a_mistake(options: dict[str, Any], field: str) -> None:
    """An empty allow list, trust in everybody, and headers that clients write open what they seem to close."""
    assert [mistake[0] for mistake in mistakes_of(**options)] == [field]
