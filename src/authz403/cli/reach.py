"""Which endpoints the claims of a token reach: the gate's own reading of claims, and its own decisions."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Final, NamedTuple

from authz403 import BearerTokens, Principal, Reason, Requirement
from authz403.authorizer import refusal
from authz403.claims import ClaimNames, WrongType, audiences_of, principal_of
from authz403.cli.loading import Failure
from authz403.cli.lockfile import Key
from authz403.decision import Decision
from authz403.endpoint import Covered, Served
from authz403.facts import Facts, Rejected
from authz403.forms import Form, Told, cidr_sets
from authz403.gate import Gate
from authz403.leaves import Custom, Networks, Param, ServiceNetworks, SteppedUp
from authz403.network import Address
from authz403.paths import PathPattern, parse_pattern, split
from authz403.policy import fields_of, in_two
from authz403.principal import is_numeric_date
from authz403.rbac import Rbac
from authz403.request import AccessRequest

REACHES: Final = "reaches"
DEPENDS: Final = "depends"
MISSES: Final = "does not reach"

_MOST_WORLDS: Final = 4_096
_LONG_AFTER: Final = 10 * 365 * 86_400  # seconds
_UNCLEAR: Final = frozenset({Reason.IP_NOT_ALLOWED, Reason.NOT_OWNER, Reason.POLICY_ERROR})
_RAISED: Final = RuntimeError("a requirement of the app's own raised")
_NOBODYS: Final = object()
"""A path parameter that is nobody's."""

Identity = Principal | Rejected


class Reach(NamedTuple):
    """Whether some claims reach an endpoint, and why not or on what it depends."""

    key: Key
    result: str
    why: str
    written: tuple[str, ...]


# ---- who


def identity_in(file: Path, gate: Gate) -> Identity:
    """Return the caller whom a token with the claims of a JSON file names, by the gate's own source of identities.

    `iss` and `aud` must fit where they are there; times are not looked at. Raises `Failure` for what is no such file.
    """
    try:
        claims = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Failure(f"{file}: {error}") from error
    if not isinstance(claims, dict):
        raise Failure(f"{file}: an object with the claims of a token is needed")
    found = _identity(claims, gate)
    if isinstance(found, Rejected) or gate.rbac is None or gate.rbac.roles_for is not None:
        return found
    return gate.rbac.applied(found)


def _identity(claims: dict[str, object], gate: Gate) -> Identity:
    bearers = [source for source in gate.sources if isinstance(source, BearerTokens)]
    if not bearers:
        return _principal(claims, ClaimNames(), "")
    named = [source for source in bearers if claims.get("iss", source.issuer) == source.issuer]
    if not named:
        accepted = ", ".join(repr(source.issuer) for source in bearers)
        return Rejected(Reason.WRONG_ISSUER, f"iss is {claims['iss']!r}, and this gate accepts {accepted}")
    source = named[0]
    if any("aud" in claims or path[0] in claims for path in source.names.audience):
        audiences = audiences_of(source.names, claims)
        if audiences is None or audiences.isdisjoint(source.audience):
            return Rejected(
                Reason.WRONG_AUDIENCE, f"aud is {claims.get('aud')!r}, and this gate is {source.audience!r}"
            )
    return _principal(claims, source.names, source.issuer)


def _principal(claims: dict[str, object], names: ClaimNames, issuer: str) -> Identity:
    identifying = {path[0] for path in (*names.sub, *names.client_id)}
    if identifying.isdisjoint(claims) and len(names.sub[0]) == 1:
        claims = {names.sub[0][0]: "anybody", **claims}
    try:
        return principal_of(names, claims, json.dumps(claims).encode(), issuer, "")
    except WrongType as error:
        return Rejected(Reason.INVALID_TOKEN, str(error))


# ---- what is reached


class _Unknown(NamedTuple):
    """Something that claims do not say, and what it may be."""

    what: str
    values: Sequence[object]


def reach(served: Iterable[tuple[Served, Covered]], identity: Identity, gate: Gate) -> list[Reach]:
    """Return for each endpoint whether a caller reaches it, in the order of the table."""
    return [_reach(row, identity, gate) for _, row in served]


def _reach(row: Covered, identity: Identity, gate: Gate) -> Reach:
    key = Key(row.path, row.part, row.method)
    asked = {leaf: _as_asked(leaf) for leaf in row.requirement.leaves()}
    row = row._replace(requirement=row.requirement.replaced(asked.__getitem__))
    unknowns = _unknowns(row.requirement, identity, gate)
    if _size(unknowns) > _MOST_WORLDS:
        return Reach(key, DEPENDS, f"on {_listed(unknowns)}", row.written)
    refusals = {
        world: _refused(row, identity, gate, [one.values[at] for one, at in zip(unknowns, world, strict=True)])
        for world in itertools.product(*(range(len(one.values)) for one in unknowns))
    }
    if all(refused is None for refused in refusals.values()):
        return Reach(key, REACHES, "", row.written)
    if all(refused is not None for refused in refusals.values()):
        told = [refused for refused in refusals.values() if refused is not None]
        clear = next((one for one in told if isinstance(one.reason, Reason) and one.reason not in _UNCLEAR), told[0])
        return Reach(key, MISSES, _missing(clear), row.written)
    matter = [one for index, one in enumerate(unknowns) if _matters(index, refusals)]
    return Reach(key, DEPENDS, f"on {_listed(matter)}", row.written)


class _Elsewhere(Custom):
    """Networks of a file, which is another where the app runs: an address may be inside, outside, or unknown."""

    def __init__(self, networks: Networks | ServiceNetworks) -> None:
        super().__init__(Reason.IP_NOT_ALLOWED, lambda _: False, Reason.IP_NOT_ALLOWED.remedy, anonymous=True)
        self._networks = networks

    def form(self) -> Form:
        """See `Requirement`."""
        return self._networks.form()


def _as_asked(leaf: Requirement) -> Requirement:
    """Return a single requirement as it can be asked here."""
    if isinstance(leaf, Networks | ServiceNetworks):
        form = leaf.form()
        told = (form.values, *(value for _, value in form.options if isinstance(value, tuple)))
        if any(isinstance(cidr, Told) for cidrs in told for cidr in cidrs):
            return _Elsewhere(leaf)
    return leaf


def _unknowns(requirement: Requirement, identity: Identity, gate: Gate) -> list[_Unknown]:
    """Return what the policy asks of a request and the claims do not say."""
    leaves = list(dict.fromkeys(requirement.leaves()))
    networked = [leaf for leaf in leaves if isinstance(leaf, Networks | ServiceNetworks)]
    found = []
    if networked:
        found.append(_Unknown(" and ".join(str(leaf.form()) for leaf in networked), _addresses(networked)))
    claims = identity.claims if isinstance(identity, Principal) else {}
    for name in dict.fromkeys(leaf.name for leaf in leaves if isinstance(leaf, Param)):
        told = [leaf for leaf in leaves if isinstance(leaf, Param) and leaf.name == name]
        values = [*(claims[leaf.claim] for leaf in told if leaf.claim in claims), _NOBODYS]
        found.append(_Unknown(" and ".join(map(repr, told)), [(name, value) for value in values]))
    # It may be met or not, and it may raise, which `~` leaves unknown.
    found += [
        _Unknown(str(leaf.form()), [(leaf, answer) for answer in (True, False, _RAISED)])
        for leaf in leaves
        if isinstance(leaf, Custom)
    ]
    signed_in = claims.get("auth_time")
    if is_numeric_date(signed_in) and any(isinstance(leaf, SteppedUp) and leaf.max_age is not None for leaf in leaves):
        found.append(_Unknown("the time since the sign-in", [float(signed_in), float(signed_in) + _LONG_AFTER]))
    if isinstance(identity, Principal) and gate.rbac is not None and gate.rbac.roles_for is not None:
        asked = {str(name) for form in map(_form, leaves) if form.name in _HELD for name in form.values}
        if asked:
            found.append(_Unknown("the roles that roles_for finds", _role_sets(asked, gate.rbac)))
    return found


def _form(leaf: Requirement) -> Form:
    return leaf.form()


def _role_sets(asked: set[str], rbac: Rbac) -> list[frozenset[str]]:
    """Return the sets of roles that may make a difference: all of them, where they are few."""
    known = sorted(asked | set(rbac.hierarchy) | set(rbac.grants))
    sizes = range(len(known) + 1) if len(known) <= _MOST_ROLES else (0, 1, len(known))
    return [frozenset(some) for size in sizes for some in itertools.combinations(known, size)]


_MOST_ROLES: Final = 8  # of which all sets are tried
_HELD: Final = frozenset({"roles", "any_role", "permissions", "any_permission"})


def _addresses(leaves: Sequence[Networks | ServiceNetworks]) -> list[Address | None]:
    """Return an address for each part that the networks divide all addresses into, and one that is not known."""
    found: dict[tuple[bool | None, ...], Address | None] = {}
    candidates: list[Address | None] = [None, IPv4Address(0), IPv6Address(0)]
    for cidr in (cidr for leaf in leaves for cidrs in cidr_sets(leaf.form()) for cidr in cidrs):
        network = ip_network(cidr)
        first = network.network_address
        candidates.append(getattr(first, "ipv4_mapped", None) or first)
        if int(network.broadcast_address) + 1 < 1 << network.max_prefixlen:
            candidates.append(network.broadcast_address + 1)
    for address in candidates:
        facts = Facts(AccessRequest("GET", "/"), address=address)
        unmet = [leaf.check(facts) for leaf in leaves]
        found.setdefault(tuple(None if one is None else one.unknown for one in unmet), address)
    return list(found.values())


def _refused(row: Covered, identity: Identity, gate: Gate, values: Iterable[object]) -> Decision | None:
    """Ask the authorizer about one request that may come; `None` where it is let in."""
    address: Address | None = None
    now = time.time()
    params: dict[str, object] = {}
    answers: dict[int, object] = {}
    for value in values:
        match value:
            case IPv4Address() | IPv6Address():
                address = value
            case (Custom() as leaf, answer):
                answers[id(leaf)] = answer
            case (str(name), given):
                params[name] = given
            case float():
                now = value
            case frozenset() if isinstance(identity, Principal) and gate.rbac is not None:
                identity = gate.rbac.applied(identity, value)
            case _:
                pass
    # Without a header of those that only browsers send: a program calls, no page.
    request = AccessRequest(row.method, row.path, fields=dict.fromkeys(fields_of(row.requirement), ()))
    facts = Facts(request, identity, address, params, now, answers)
    for part in in_two(row.requirement):
        unmet = part.check(facts)
        if unmet is not None:
            return refusal(unmet)
    return None


def _matters(index: int, refusals: Mapping[tuple[int, ...], Decision | None]) -> bool:
    """Tell whether one unknown thing alone ever makes the difference."""
    by_rest: dict[tuple[int, ...], set[bool]] = {}
    for world, refused in refusals.items():
        by_rest.setdefault((*world[:index], *world[index + 1 :]), set()).add(refused is None)
    return any(len(found) > 1 for found in by_rest.values())


def _size(unknowns: Iterable[_Unknown]) -> int:
    size = 1
    for one in unknowns:
        size *= len(one.values)
    return size


def _listed(unknowns: Iterable[_Unknown]) -> str:
    return ", ".join(dict.fromkeys(one.what for one in unknowns))


def _missing(decision: Decision) -> str:
    for what, names in (
        ("scope", decision.missing_scopes),
        ("role", decision.missing_roles),
        ("permission", decision.missing_permissions),
    ):
        if names:
            return f"missing {what}{'s' if len(names) > 1 else ''} {', '.join(names)}"
    return str(decision.reason)


# ---- what must be reached


def wanted_in(given: Iterable[str]) -> list[tuple[str, str]]:
    """Read what must be reached: `METHOD path`, or files of such lines. Raises `Failure` for anything else."""
    found: list[tuple[str, str]] = []
    for one in given:
        file = Path(one)
        try:
            lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else [one]
        except (OSError, ValueError) as error:
            raise Failure(f"{one}: {error}") from error
        for line in lines:
            if line.strip() and not line.startswith("#"):
                method, _, path = line.strip().partition(" ")
                if not path.strip().startswith("/"):
                    raise Failure(f"{line!r} is neither a file nor a request such as GET /orders/5")
                found.append((method.upper(), path.strip()))
    return found


def wrong_with(
    wanted: Iterable[tuple[str, str]], served: Sequence[tuple[Served, Covered]], found: Sequence[Reach]
) -> list[str]:
    """Return a line for each request that must be reached and is not."""
    told = []
    for method, path in wanted:
        rows = [(place, one) for (place, _), one in zip(served, found, strict=True) if _takes(place, one.key, path)]
        reached = [one for _, one in rows if _is_for(one.key, method, [other.key for _, other in rows])]
        if not reached:
            told.append(f"{method} {path}: no endpoint serves it")
        # A route's own path stands for all that it serves, any other for what takes it first.
        asked = [one for one in reached if one.key.path == path] or reached[:1]
        told += [f"{method} {path}: {one.why}" for one in asked if one.result == MISSES]
    return told


def _takes(place: Served, key: Key, path: str) -> bool:
    """Tell whether a path may lead to what an entry is about."""
    if key.path == path:
        return True
    literal = PathPattern(tuple(split(path)), below=False)
    part = None if key.part is None else parse_pattern(key.part)
    return place.pattern.covers(literal) and (not isinstance(part, PathPattern) or part.covers(literal))


def _is_for(key: Key, method: str, others: Iterable[Key]) -> bool:
    """Tell whether an entry is about a method: `*` is every one that no other entry of the path names."""
    method = "GET" if method == "HEAD" else method  # RFC 9110 section 9.3.2
    if key.method != "*":
        return key.method == method
    return not any(other.path == key.path and other.method == method for other in others)
