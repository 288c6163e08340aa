"""What an operator would otherwise hunt for: the likely cause of a refusal in a sentence, for the log alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from authz403.decision import Decision
from authz403.network import Network
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.request import AccessRequest

PROXY_FIELDS: Final = frozenset({"x-forwarded-for", "forwarded", "via"})
"""The header fields by which a proxy in front shows itself."""

STRIPPED: Final = "no Authorization header came through the proxy in front: does it strip it?"

# Before Python 3.12, to look up a member of an enum takes longer than all that is asked about it here.
_IP_NOT_ALLOWED: Final = Reason.IP_NOT_ALLOWED
_MISSING_TOKEN: Final = Reason.MISSING_TOKEN
_INSUFFICIENT_SCOPE: Final = Reason.INSUFFICIENT_SCOPE
_ROLE_REQUIRED: Final = Reason.ROLE_REQUIRED

# Where providers write scopes and roles; a claim that is there and not read is the first thing to look at.
_SCOPE_CLAIMS: Final = (("scope",), ("scp",), ("scopes",), ("permissions",))
_ROLE_CLAIMS: Final = (
    ("roles",),
    ("role",),
    ("groups",),
    ("realm_access", "roles"),
    ("cognito:groups",),
    ("permissions",),
)


def hint_for(
    decision: Decision,
    request: AccessRequest,
    principal: Principal | None,
    network: Network,
    *,
    has_address: bool,
    reads_authorization: bool,
    authorization_came: bool,
) -> str | None:
    """Return the hint of a refusal: what was found on the way, else what can be told from the whole.

    `authorization_came` says that the proxy in front has let an Authorization header through before.
    """
    reason = decision.reason
    if reason is _IP_NOT_ALLOWED:
        return _about_address(request, network, has_address=has_address) or decision.hint
    if decision.hint is not None:
        return decision.hint
    if reason is _MISSING_TOKEN:
        is_absent = reads_authorization and not request.fields.get("authorization")
        came_by_proxy = any(request.fields.get(field) for field in PROXY_FIELDS)
        return STRIPPED if is_absent and came_by_proxy and not authorization_came else None
    if principal is None:
        return None
    if reason is _INSUFFICIENT_SCOPE:
        return _kept_or_found(_about_scopes, principal, decision.missing_scopes)
    if reason is _ROLE_REQUIRED:
        return _kept_or_found(_about_roles, principal, decision.missing_roles)
    return None


_Find = Callable[[Principal, tuple[str, ...]], str | None]
_kept: Final[dict[tuple[_Find, int, tuple[str, ...]], tuple[str | None, Principal]]] = {}
_MOST_KEPT: Final = 1_024


def _kept_or_found(find: _Find, principal: Principal, missing: tuple[str, ...]) -> str | None:
    """Return a hint that rests on the caller and what is missing alone: who is refused once soon asks again."""
    key = find, id(principal), missing
    kept = _kept.get(key)
    if kept is None:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        # The principal is kept with it, so that nobody else gets its id.
        kept = _kept[key] = find(principal, missing), principal
    return kept[0]


def _about_address(request: AccessRequest, network: Network, *, has_address: bool) -> str | None:
    is_trusted = network.trusts_peer(request.peer)
    for field, name in (("x-forwarded-for", "X-Forwarded-For"), ("forwarded", "Forwarded")):
        if request.fields.get(field) and not is_trusted:
            return f"{name} came from a peer that is not in trusted_proxies, and was not read"
    if is_trusted and network.may_read_trailers(request):
        return (
            f"a chunked request came with {network.source} in several lines, and the last may be a trailer that the "
            "client wrote: let the proxy put everything into one line"
        )
    if not has_address and is_trusted:
        return f"the client's address is not known: the trusted proxy sent no usable {network.source}"
    return None


def _about_scopes(principal: Principal, missing: tuple[str, ...]) -> str | None:
    if not missing:
        return None  # a requirement or a check of the app's own names none
    elsewhere = _elsewhere(principal.claims, _SCOPE_CLAIMS, missing)
    if elsewhere is not None:
        return f"the token holds {elsewhere}, and scopes are not read from there: set claims=, or ask for permissions()"
    alike = _alike(principal.scopes, missing)
    if alike is not None:
        return f"the caller has the scope {alike}: names are compared exactly"
    if "iss" not in principal.claims:
        return None
    wanted, held = ", ".join(missing), "other scopes" if principal.scopes else "no scope at all"
    return (
        f"the token has {held}: if {wanted} was asked for, the provider dropped it; "
        "does it know this scope, and may this client have it?"
    )


def _about_roles(principal: Principal, missing: tuple[str, ...]) -> str | None:
    told = [] if principal.roles else ["the caller is signed in and has no role at all"]
    elsewhere = _elsewhere(principal.claims, _ROLE_CLAIMS, missing)
    alike = _alike(principal.roles, missing)
    if elsewhere is not None:
        told.append(f"the token holds {elsewhere}, and roles are not taken from there")
    elif alike is not None:
        told.append(f"the caller has the role {alike}: names are compared exactly")
    return "; ".join(told) or None


def _elsewhere(claims: Mapping[str, object], places: Iterable[tuple[str, ...]], missing: tuple[str, ...]) -> str | None:
    """Say which well-known claim holds what is missing: it was not read, or it would not be missing."""
    for path in places:
        value: object = claims
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else None
        held = value.split(" ") if isinstance(value, str) else value
        if isinstance(held, list | tuple):
            found = [name for name in missing if name in held]
            if found:
                return f"{', '.join(found)} in its claim {'.'.join(path)}"
    return None


def _alike(held: Iterable[str], missing: tuple[str, ...]) -> str | None:
    """Find a name that differs from a missing one in case alone, or in a prefix such as `api://orders/`."""
    wanted = {name.casefold() for name in missing}
    wanted_bare = {name.rpartition("/")[2] for name in wanted}
    for name in sorted(held):
        folded = name.casefold()
        if folded in wanted | wanted_bare or folded.rpartition("/")[2] in wanted:
            return name
    return None
