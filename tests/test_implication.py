"""Proofs that one requirement is at least as strict as another: never wrong, and found where people expect them."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz403 import (
    Network,
    Principal,
    Requirement,
    any_permission,
    any_role,
    any_scope,
    anyone,
    authenticated,
    claim,
    csrf_protected,
    deny,
    networks,
    optional,
    param,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.addresses import parse_address
from authz403.facts import Facts, Rejected
from authz403.forms import read
from authz403.implication import conjuncts, implies, negated
from authz403.leaves import ServiceNetworks
from authz403.request import AccessRequest
from tests.gates_made import (
    ALICE,
    FORGED,
    INSIDE,
    KEYLESS,
    NOBODY,
    NOW,
    OUTSIDE,
    judged,
    someone,
)
from tests.gates_made import LEAVES as PLAIN_LEAVES

TRUE: Final[object] = True  # as a claim

LEAVES: Final = (
    *PLAIN_LEAVES,
    any_scope("a", "c"),
    any_scope("c", "d"),
    any_role("seller", "admin"),
    permissions("orders:refund"),
    any_permission("orders:refund", "orders:read"),
    networks("10.1.0.0/16"),
    networks("10.0.0.0/9", "10.128.0.0/9"),
    networks("0.0.0.0/0", "::/0"),
    networks("198.51.100.7", "::ffff:10.0.0.0/104"),
    claim("level", 1),
    claim("level", 1, 2),
    claim("level", TRUE),
    claim("groups", "x"),
    claim("groups", "y", "z"),
    claim("level", lambda level: level == 1),
    claim("level", lambda level: level == 2),
    param("order", claim="number"),
    param("gone", claim="number"),
    authenticated.stepped_up(acr_values=["gold"]),
    authenticated.stepped_up(acr_values=["gold", "silver"], max_age=300),
    authenticated.stepped_up(max_age=60),
)

IDENTITIES: Final[tuple[Principal | Rejected, ...]] = (
    ALICE,
    someone("bob"),
    someone("eve", scopes=["c"], roles=["admin"], claims={"acr": "gold", "auth_time": NOW - 100, "level": True}),
    someone("mia", scopes=["a", "c"], claims={"acr": "silver", "auth_time": NOW - 10, "level": 2, "number": 5}),
    NOBODY,
    FORGED,
    KEYLESS,
)
PEERS: Final = (INSIDE, "10.200.0.1", OUTSIDE, "2001:db8::1", None)

leaves: Final = st.sampled_from(LEAVES)
trees: Final[st.SearchStrategy[Requirement]] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(lambda one, other: one & other, inner, inner),
        st.builds(lambda one, other: one | other, inner, inner),
        st.builds(lambda one: ~one, inner),
        st.builds(lambda one: one.concealed(), inner),
    ),
    max_leaves=4,
)
# Two policies of which one was made from the other, as in a change that somebody makes.
pairs: Final = st.one_of(
    st.tuples(trees, trees),
    st.builds(lambda one, other: (one, one & other), trees, trees),
    st.builds(lambda one, other: (one, one | other), trees, trees),
    st.builds(lambda one, two, other: (one & two, one & other), trees, trees, trees),
    st.builds(lambda one, two, other: (~(one & two), ~one | other), trees, trees, trees),
)


def lets_in(wanted: Requirement, who: Principal | Rejected, peer: str | None) -> bool:
    """Tell what a real gate decides."""
    return judged(wanted, who, peer=peer, params={"order": "5"}).allowed


@given(pairs, st.sampled_from(IDENTITIES), st.sampled_from(PEERS))
@example((optional, ~authenticated), NOBODY, INSIDE)
@example((~deny, anyone), NOBODY, None)
@example((~scopes("a"), ~scopes("a", "c")), ALICE, INSIDE)
def test_what_is_proven_holds_for_every_request(
    pair: tuple[Requirement, Requirement], who: Principal | Rejected, peer: str | None
) -> None:
    """Where one is proven to imply the other, no request is let in by the one and refused by the other."""
    for one, other in (pair, pair[::-1]):
        if implies(one.form(), other.form()) and lets_in(one, who, peer):
            assert lets_in(other, who, peer), f"{one!r} was said to imply {other!r}"
        text = str(one.form())
        assert implies(read(text), other.form()) == implies(one.form(), other.form())


NETWORKS: Final = [
    ServiceNetworks(Network(trusted_proxies=["127.0.0.1"], allow=allow, deny=deny))
    for allow in (None, ["10.0.0.0/8"], ["10.0.0.0/8", "fd00::/8"])
    for deny in ([], ["10.6.6.6"], ["10.6.0.0/16"])
    if allow or deny
]


@pytest.mark.parametrize("address", ["10.1.2.3", "10.6.6.6", "10.6.0.1", "fd00::1", OUTSIDE, None])
@pytest.mark.parametrize("may_be_hidden", [False, True], ids=["no trailers", "trailers"])
def test_networks_of_the_service_are_followed(address: str | None, *, may_be_hidden: bool) -> None:
    """`Network(allow=, deny=)`, with what it says of an unknown address and of one that a trailer may hide."""
    fields = {"transfer-encoding": ("chunked",), "x-forwarded-for": ("a", "b")} if may_be_hidden else {}
    request = AccessRequest("GET", "/", None, fields)
    facts = Facts(request, NOBODY, None if address is None else parse_address(address))
    for one in NETWORKS:
        for other in (*NETWORKS, networks("10.0.0.0/8"), anyone):
            if implies(one.form(), other.form()) and one.check(facts) is None:
                assert other.check(facts) is None, f"{one.form()} was said to imply {other.form()}"


def test_of_two_networks_of_the_service_the_stricter_is_found() -> None:
    """Allowing more and denying less loosens; an unknown address fails `allow` alone."""

    def proven(one: str, other: str) -> bool:
        return implies(read(f"service({one})"), read(f"service({other})"))

    assert proven("allow=['10.0.0.0/8']", "allow=['10.0.0.0/8', 'fd00::/8']")
    assert proven("allow=['10.0.0.0/8'], deny=['10.6.6.6']", "allow=['10.0.0.0/8']")
    assert proven("deny=['10.6.0.0/16']", "deny=['10.6.6.6']")
    assert proven("allow=['10.0.0.0/8']", "deny=['11.0.0.0/8']")
    assert not proven("deny=['10.6.6.6']", "deny=['10.6.0.0/16']")
    assert not proven("deny=['10.6.6.6']", "allow=['0.0.0.0/0', '::/0']")
    assert implies(read("service(allow=['10.0.0.0/8'])"), read("networks('10.0.0.0/8')"))
    assert not implies(read("anyone"), read("service(deny=['10.6.6.6'])"))


SHOP, OTHER = "https://shop.example", "https://other.example"
BY_SCRIPT: Final = someone("sue", scopes=["a"], token_field="authorization")
protected: Final[st.SearchStrategy[Requirement]] = st.recursive(
    st.sampled_from(
        [
            csrf_protected(),
            csrf_protected(SHOP),
            csrf_protected(SHOP, OTHER),
            scopes("a"),
            authenticated,
            optional,
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda one, other: one & other, inner, inner),
        st.builds(lambda one, other: one | other, inner, inner),
        st.builds(lambda one: ~one, inner),
    ),
    max_leaves=4,
)
SENT: Final[tuple[dict[str, tuple[str, ...]], ...]] = (
    {},
    {"origin": (SHOP,), "sec-fetch-site": ("cross-site",)},
    {"origin": (OTHER,), "host": ("shop.example",)},
    {"origin": ("https://evil.example",)},
    {"origin": (SHOP,), "host": ("shop.example",)},
    {"sec-fetch-site": ("same-origin",)},
    {"origin": (SHOP, OTHER)},
)


@given(
    protected,
    protected,
    st.sampled_from((ALICE, BY_SCRIPT, NOBODY, FORGED, KEYLESS)),
    st.sampled_from(("GET", "POST")),
    st.sampled_from(SENT),
)
def test_requests_of_other_pages_are_followed(
    one: Requirement, other: Requirement, who: Principal | Rejected, method: str, sent: dict[str, tuple[str, ...]]
) -> None:
    """`csrf_protected(...)`, with the pages that it trusts and the tokens that make up for any page."""
    fields = dict.fromkeys(("origin", "host", "sec-fetch-site", "upgrade"), ()) | sent
    facts = Facts(AccessRequest(method, "/", None, fields), who)
    for premise, conclusion in ((one, other), (one & other, other), (other, one | other)):
        if implies(premise.form(), conclusion.form()) and premise.check(facts) is None:
            assert conclusion.check(facts) is None, f"{premise!r} was said to imply {conclusion!r}"


@pytest.mark.parametrize(
    ("stricter", "looser"),
    [
        (scopes("a"), anyone),
        (deny, scopes("a")),
        (~anyone, deny),
        (scopes("a", "b"), scopes("b")),
        (scopes("a"), any_scope("a", "b")),
        (scopes("a"), authenticated),
        (authenticated, optional),
        (scopes("a") & roles("b"), roles("b")),
        (scopes("a") & (roles("b") | roles("c")), (scopes("a") & roles("b")) | (scopes("a") & roles("c"))),
        ((scopes("a") & roles("b")) | (scopes("a") & roles("c")), scopes("a") & any_role("b", "c")),
        (networks("10.1.0.0/16"), networks("10.0.0.0/8")),
        (networks("10.0.0.0/8"), networks("10.0.0.0/9", "10.128.0.0/9")),
        (networks("10.0.0.0/9", "10.128.0.0/9"), networks("10.0.0.0/8", "fd00::/8")),
        (networks("::ffff:10.0.0.0/104"), networks("10.0.0.0/8")),
        (networks("10.0.0.0/8"), networks("0.0.0.0/0", "::/0")),
        (networks("10.0.0.0/8") & networks("11.0.0.0/8"), deny),
        (~networks("10.0.0.0/8"), ~networks("10.1.0.0/16")),
        (networks("192.0.2.0/24"), ~networks("10.0.0.0/8")),
        (claim("level", 1), claim("level", 1, 2)),
        (claim("level", 1) & scopes("a"), claim("level", 1)),
        (param("id", claim="sub"), authenticated),
        (requirement("own", lambda _: True) & scopes("a"), requirement("own", lambda _: True)),
        (requirement("own", lambda _: True), requirement("own", lambda _: True, anonymous=True)),
        (authenticated.stepped_up(acr_values=["gold"], max_age=60), authenticated.stepped_up(max_age=300)),
        (authenticated.stepped_up(acr_values=["gold"]), authenticated.stepped_up(acr_values=["gold", "silver"])),
        (csrf_protected(), csrf_protected(SHOP)),
        (authenticated & csrf_protected(SHOP), authenticated & csrf_protected(SHOP, OTHER)),
        (csrf_protected() & scopes("a"), scopes("a")),
        (~scopes("a"), ~scopes("a", "b")),
        (~~scopes("a"), scopes("a")),
        (~(scopes("a") | roles("b")), ~scopes("a") & ~roles("b")),
        (scopes("a").concealed(), scopes("a")),
    ],
    ids=str,
)  # fmt: skip
def test_what_people_expect_is_proven(stricter: Requirement, looser: Requirement) -> None:
    """The changes that reviewers meet are told for what they are."""
    assert implies(stricter.form(), looser.form())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (anyone, scopes("a")),
        (scopes("a"), scopes("b")),
        (any_scope("a", "b"), scopes("a")),
        (optional, authenticated),
        (anyone, optional),
        (anyone, scopes("a") | ~scopes("a")),
        (authenticated, deny | ~authenticated),
        (authenticated, networks("10.0.0.0/8") | ~networks("10.0.0.0/8")),
        (authenticated, requirement("own", lambda _: True) | ~requirement("own", lambda _: True)),
        (networks("10.0.0.0/8"), networks("10.0.0.0/9", "10.129.0.0/16")),
        (networks("10.0.0.0/8"), networks("fd00::/8")),
        (claim("level", 1), claim("level", TRUE)),
        (claim("level", 1), claim("size", 1)),
        (requirement("own", lambda _: True, anonymous=True), requirement("own", lambda _: True)),
        (csrf_protected(SHOP), csrf_protected()),
        (csrf_protected(SHOP), csrf_protected(OTHER)),
        (authenticated, csrf_protected()),
        (authenticated, csrf_protected() | ~csrf_protected()),
        (~scopes("a", "b"), ~scopes("a")),
        (~(scopes("a") & roles("b")), ~scopes("a")),
        (~param("id", claim="sub"), anyone & ~authenticated),
        (authenticated.stepped_up(max_age=300), authenticated.stepped_up(max_age=60)),
        (claim("level", lambda _: True), claim("level", lambda _: True)),
        (claim("level", lambda _: True) & scopes("a"), claim("level", lambda _: False)),
        (
            (requirement("own", lambda _: True) & scopes("a")) | (requirement("own", lambda _: False) & scopes("b")),
            requirement("own", lambda _: False),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_follow_is_not_proven(one: Requirement, other: Requirement) -> None:
    """Nothing is said of what is not known: functions without a name, unknown facts, types that only look equal."""
    assert not implies(one.form(), other.form())


def test_a_proof_that_takes_too_long_is_none() -> None:
    """It ends in bounded time, and proves nothing then, though it would hold."""
    # Eight callers in seven places, each place for one alone: nobody can be let in, which takes long to find out.
    places = [[f"{caller}:{place}" for place in range(7)] for caller in range(8)]
    crowded: Requirement = anyone
    for number, mine in enumerate(places):
        crowded &= any_scope(*mine)
        for others in places[:number]:
            for one, other in zip(mine, others, strict=True):
                crowded &= ~scopes(one, other)
    assert not implies(crowded.form(), deny.form())


def test_networks_of_a_file_may_be_any() -> None:
    """The same file holds the same networks, whatever they are; an unknown address is in none and outside of none."""
    file, cidr = read("networks(file('allowed'))"), read("networks('10.0.0.0/8')")
    both = read("networks('10.0.0.0/8', file('allowed'))")
    assert implies(file, both)
    assert implies(cidr, both)
    assert implies(both, read("networks('10.0.0.0/8') | networks(file('allowed'))"))
    assert not implies(both, cidr)
    assert not implies(both, file)
    assert not implies(file, read("networks(file('other'))"))
    assert implies(file, read("networks('0.0.0.0/0', '::/0')"))
    assert not implies(read("anyone"), read("networks(file('allowed')) | ~networks(file('allowed'))"))
    assert implies(read("~networks('10.0.0.0/8', file('allowed'))"), read("~networks(file('allowed'))"))


def test_long_lists_are_followed() -> None:
    """Hundreds of names cost steps, not powers of them."""
    many = [f"s{number}" for number in range(500)]
    assert implies(scopes(*many).form(), any_scope(*many).form())
    assert implies(any_scope(*many[1:]).form(), any_scope(*many).form())
    assert not implies(any_scope(*many).form(), any_scope(*many[1:]).form())


def test_conjuncts_are_the_least_things_that_all_must_hold() -> None:
    """Each scope alone, so that one that is gone is told alone."""
    form = (scopes("b", "a") & (roles("x") | roles("y")) & networks("10.0.0.0/8")).concealed().form()
    told = [str(one) for one in conjuncts(form)]
    assert told == ["networks('10.0.0.0/8')", "scopes('a')", "scopes('b')", "roles('x') | roles('y')"]
    assert conjuncts(anyone.form()) == ()


def test_what_stands_under_a_not_is_found() -> None:
    """Twice negated is not negated."""
    form = (~(roles("a") & ~roles("b")) | scopes("c")).form()
    assert [str(one) for one in negated(form)] == ["roles('a')"]
