"""What a caller needs to meet a requirement, read from the requirement: one `Grant` for each way to meet it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from types import MappingProxyType
from typing import Final, NamedTuple

from authz403.addresses import Address, parse_address
from authz403.facts import Facts, Rejected
from authz403.leaves import Claim, Custom, Held, Networks, Param, Scopes, ServiceNetworks, SteppedUp
from authz403.network import Network
from authz403.policy import Kind, Requirement, Unmet, _Opposite, in_two
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.request import AccessRequest
from authz403.testing.callers import Caller

MOST_WAYS: Final = 8
"""How many ways to meet one requirement are tried."""

# RFC 5737 and 3849: addresses for documentation, which nobody has; then private ones and this machine.
_ELSEWHERE: Final = ("203.0.113.77", "198.51.100.77", "2001:db8::77", "10.77.77.77", "192.168.77.77", "127.0.0.1")
_ANYBODY: Final = Principal(sub="anybody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """All that one way to meet a requirement needs, in `words`.

    `caller` is `None` where nobody need be known. `forbidden` are callers' gains that close the way again, each in
    words. `unknown` says why it is not known what meets it.
    """

    words: str = ""
    caller: Caller | None = None
    has_networks: bool = False
    address: str = ""
    owned: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    forbidden: tuple[tuple[str, Caller], ...] = ()
    unknown: str | None = None


class Given(NamedTuple):
    """What a test says of callers: `claims` in every token, codes of own requirements that these meet, `addresses`."""

    claims: Mapping[str, object]
    meets: Collection[str]
    addresses: Collection[str]


def grants_for(
    requirement: Requirement, network: Network, params: Mapping[str, str], given: Given
) -> tuple[Grant, ...]:
    """Return what callers need, by the ways to meet a requirement, no more of them than `MOST_WAYS`.

    `params` are the path's parameters as text.
    """
    return tuple(_grant(way, network, params, given) for way in requirement.alternatives(MOST_WAYS))


def _grant(way: Sequence[Requirement], network: Network, params: Mapping[str, str], given: Given) -> Grant:
    caller = Caller(claims=MappingProxyType(dict(given.claims)))
    found = Grant(words=" & ".join(repr(leaf) for leaf in way))
    needs_caller = False
    for leaf in way:
        needs_caller = needs_caller or leaf.ensures_identity()
        if isinstance(leaf, Scopes):
            caller = _with(caller, "scopes", _enough(leaf.names, caller.scopes, one=leaf.one_is_enough))
        elif isinstance(leaf, Held):
            what = f"{leaf._what}s"
            held: tuple[str, ...] = getattr(caller, what) or ()
            caller = _with(caller, what, _enough(leaf._names, held, one=leaf.one_is_enough))
        elif isinstance(leaf, Claim):
            caller, unknown = _claimed(leaf, caller)
            found = replace(found, unknown=found.unknown or unknown)
        elif isinstance(leaf, Param):
            owned = params.get(leaf.name, "")
            found = replace(found, owned=MappingProxyType({**found.owned, leaf.claim: owned}))
            caller = _claiming(caller, leaf.claim, owned)
        elif isinstance(leaf, SteppedUp):
            caller = _stepped_up(leaf, caller)
        elif isinstance(leaf, Custom) and str(leaf.refusals[0]) not in given.meets:
            told = f"{leaf!r} is code of the app's own: say claims= that meet it and its code in meets="
            found = replace(found, unknown=told)
        elif isinstance(leaf, _Opposite):
            if isinstance(leaf._inner, Custom):
                found = replace(found, unknown=f"{leaf!r} is code of the app's own")
            found = replace(found, forbidden=(*found.forbidden, *_forbidden(leaf._inner, caller)))
    found = _at_an_address(found, way, network, given.addresses)
    return replace(found, caller=caller if needs_caller else None)


def _with(caller: Caller, what: str, names: Iterable[str]) -> Caller:
    held: tuple[str, ...] = getattr(caller, what) or ()
    together = tuple(dict.fromkeys([*held, *names]))
    if what == "scopes":
        return replace(caller, scopes=together)
    return replace(caller, roles=together) if what == "roles" else replace(caller, permissions=together)


def _enough(names: tuple[str, ...], held: tuple[str, ...], *, one: bool) -> tuple[str, ...]:
    if not one:
        return names
    return () if set(names).intersection(held) else names[:1]


def _claiming(caller: Caller, name: str, value: object) -> Caller:
    return replace(caller, claims=MappingProxyType({**caller.claims, name: value}))


def _claimed(leaf: Claim, caller: Caller) -> tuple[Caller, str | None]:
    if leaf.check(Facts(AccessRequest("", ""), replace(_ANYBODY, claims=caller.claims))) is None:
        return caller, None  # by what every caller's token says
    if leaf._predicate is not None:
        return caller, f"{leaf!r} is met by what a function says: give the claim in claims="
    return _claiming(caller, leaf._name, leaf._values[0]), None


def _stepped_up(leaf: SteppedUp, caller: Caller) -> Caller:
    unmet = leaf.check(Facts(AccessRequest("", ""), _ANYBODY))
    acr_values = () if unmet is None else unmet.acr_values
    caller = replace(caller, signed_in_now=True)
    return _claiming(caller, "acr", acr_values[0]) if acr_values else caller


def _forbidden(inner: Requirement, caller: Caller) -> Iterator[tuple[str, Caller]]:
    """Yield what a caller must not have, in words, and the caller who has it."""
    if isinstance(inner, Scopes):
        names = inner.names
        yield _having("scope", names), _with(caller, "scopes", names)
    elif isinstance(inner, Held):
        yield _having(inner._what, inner._names), _with(caller, f"{inner._what}s", inner._names)
    elif isinstance(inner, Claim) and inner._predicate is None:
        yield f"with the claim {inner._name}", _claiming(caller, inner._name, inner._values[0])


def _having(what: str, names: tuple[str, ...]) -> str:
    return f"with the {what}{'s' if len(names) > 1 else ''} {', '.join(names)}"


# ---- addresses


def _at_an_address(grant: Grant, way: Sequence[Requirement], network: Network, addresses: Collection[str]) -> Grant:
    leaves = [leaf for leaf in way if leaf.kind is Kind.NETWORK]
    tried = list(_addresses(leaves, network, addresses))
    for text, address in tried:
        if all(leaf.check(_seen_from(address)) is None for leaf in leaves):
            return replace(grant, has_networks=bool(leaves), address=text)
    why = "no address is known of its networks that is no proxy's: say addresses="
    return replace(grant, has_networks=True, address=tried[-1][0] if tried else "", unknown=why)


def addresses_for(requirement: Requirement, network: Network, addresses: Collection[str]) -> Iterator[str]:
    """Yield addresses that may make a difference to a requirement: some of nobody's networks, then some of its own."""
    yield from (text for text, _ in _addresses((), network, ()))
    yield from (text for text, _ in _addresses(requirement.leaves(), network, addresses))


def _addresses(
    leaves: Iterable[Requirement], network: Network, addresses: Collection[str]
) -> Iterator[tuple[str, Address]]:
    """Yield addresses to try, but for those that are taken for proxies."""
    cidrs = [cidr for leaf in leaves for cidr in _cidrs_of(leaf, network)]
    for text in (*addresses, *(one for cidr in cidrs for one in _in(cidr)), *_ELSEWHERE):
        address = parse_address(text)
        if address is not None and (network.hops is not None or not network.trusts_peer(text)):
            yield text, address


def _cidrs_of(leaf: Requirement, network: Network) -> tuple[str, ...]:
    if isinstance(leaf, ServiceNetworks):
        return (*network.allowed.cidrs, *network.denied.cidrs)
    inner = leaf._inner if isinstance(leaf, _Opposite) else leaf
    return inner.cidrs if isinstance(inner, Networks) else ()


def _in(cidr: str) -> Iterator[str]:
    """Yield addresses of a network: one near its start, its first and its last."""
    network = ip_network(cidr)
    for number in (min(10, network.num_addresses - 1), 0, network.num_addresses - 1):
        yield str(network[number])


def _seen_from(address: Address) -> Facts:
    return Facts(AccessRequest("", ""), None, address)


# ---- what must become of a request


def refused_for(
    requirement: Requirement,
    identity: Principal | Rejected,
    address: str,
    *,
    method: str,
    path: str,
    params: Mapping[str, str],
    fields: Mapping[str, str],
    now: float,
    own: bool,
    meets: Collection[str],
) -> Unmet | None:
    """Return what a requirement says of a request, or `None` where it is met.

    None of the code of the app's own requirements runs: those with a code in `meets` count as met, and all others as
    `own` says.
    """
    leaves = tuple(requirement.leaves())
    sent: dict[str, tuple[str, ...]] = {name: () for leaf in leaves for name in leaf.fields}
    sent |= {name: (value,) for name, value in fields.items()}
    facts = Facts(
        AccessRequest(method, path, address, sent),
        identity,
        parse_address(address),
        params,
        now,
        {id(leaf): own or str(leaf.refusals[0]) in meets for leaf in _own(leaves)},
    )
    first, rest = in_two(requirement)  # in the order in which a gate tells it
    return first.check(facts) or rest.check(facts)


def _own(leaves: Iterable[Requirement]) -> Iterator[Custom]:
    for leaf in leaves:
        inner = leaf._inner if isinstance(leaf, _Opposite) else leaf
        if isinstance(inner, Custom):
            yield inner


BAD_TOKENS: Final = (
    ("with an expired token", Reason.TOKEN_EXPIRED, MappingProxyType({"expired": True})),
    ("with a token for another audience", Reason.WRONG_AUDIENCE, MappingProxyType({"audience": "another-service"})),
    ("with a token of another key", Reason.INVALID_TOKEN, MappingProxyType({"other_key": True})),
)
"""What may be wrong with a token, whatever a policy needs: in words, the reason, and what makes a caller's token so."""
