"""Role-based access: roles that include roles, roles that grant permissions, and roles that the token does not know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from authz403.errors import Mistakes
from authz403.need import is_async
from authz403.principal import Principal

_MOST_COMBINATIONS: Final = 4_096  # of roles and permissions that callers hold, whose meaning is kept at hand
_LONGEST_WAIT: Final = 60.0  # seconds

RolesFor = Callable[[Principal], Collection[str]] | Callable[[Principal], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rbac:
    """What roles mean.

    `hierarchy` maps a role to the roles that it includes (`{"admin": ["seller"]}`: an admin is a seller too), `grants`
    a role to its permissions. `roles_for(principal)`, sync or async, gives the roles of a caller where the token does
    not know them; it replaces the token's roles, and a caller is asked about again after `roles_ttl` seconds. A request
    whose look-up takes longer than `roles_timeout` seconds, or fails, is refused with 503 `policy_unavailable`. Raises
    `ConfigurationError` listing every mistake, cycles included.
    """

    hierarchy: Mapping[str, Iterable[str]] = field(default_factory=dict)
    grants: Mapping[str, Iterable[str]] = field(default_factory=dict)
    roles_for: RolesFor | None = None
    roles_ttl: float = 60.0
    roles_timeout: float = 5.0
    asks_asynchronously: bool = field(init=False, repr=False, compare=False)
    _meaning: Callable[[frozenset[str], frozenset[str]], tuple[frozenset[str], frozenset[str]]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        mistakes = Mistakes("Rbac")
        hierarchy = _table(mistakes, "hierarchy", self.hierarchy)
        grants = _table(mistakes, "grants", self.grants)
        if self.roles_for is not None and not callable(self.roles_for):
            mistakes.add("roles_for", self.roles_for, "a function of the principal is needed")
        mistakes.number("roles_ttl", self.roles_ttl, lambda s: s >= 0, "seconds, 0 or more, are needed")
        longest = f"seconds, up to {_LONGEST_WAIT:g}, are needed"
        mistakes.number("roles_timeout", self.roles_timeout, lambda s: 0 < s <= _LONGEST_WAIT, longest)
        closure: dict[str, frozenset[str]] = {}
        for role in hierarchy:
            included, cyclic = _closed(role, hierarchy)
            if cyclic:
                mistakes.add(
                    f"hierarchy[{role!r}]",
                    list(hierarchy[role]),
                    "the role includes itself, directly or through other roles; remove one step of the circle",
                )
            closure[role] = included
        mistakes.raise_if_any()
        put = object.__setattr__
        put(self, "hierarchy", hierarchy)
        put(self, "grants", grants)
        put(self, "_meaning", _meaning(closure, grants))
        put(self, "asks_asynchronously", is_async(self.roles_for))

    def applied(self, principal: Principal, roles: Collection[str] | None = None) -> Principal:
        """Return the principal with its effective roles and permissions; `roles` replace those of the token."""
        held = principal.roles if roles is None else frozenset(roles)
        effective, granted = self._meaning(held, principal.permissions)
        if effective == principal.roles and granted == principal.permissions:
            return principal
        return replace(principal, roles=effective, permissions=granted)


def _meaning(
    closure: Mapping[str, frozenset[str]], grants: Mapping[str, tuple[str, ...]]
) -> Callable[[frozenset[str], frozenset[str]], tuple[frozenset[str], frozenset[str]]]:
    """Return what gives roles and permissions that are held their effective ones, equal answers as one object."""

    @lru_cache(maxsize=_MOST_COMBINATIONS)
    def meaning(held: frozenset[str], permissions: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        effective = held.union(*(closure.get(role, ()) for role in held))
        return effective, permissions.union(*(grants.get(role, ()) for role in effective))

    return meaning


def _table(mistakes: Mistakes, name: str, value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        mistakes.add(name, value, "a mapping of role names to lists is needed")
        return {}
    table: dict[str, tuple[str, ...]] = {}
    for role, listed in value.items():
        if not isinstance(role, str) or not role:
            mistakes.add(name, role, "a role's name is needed")
            continue
        table[role] = mistakes.strings(f"{name}[{role!r}]", listed)
    return table


def _closed(role: str, hierarchy: Mapping[str, tuple[str, ...]]) -> tuple[frozenset[str], bool]:
    """Return all that a role includes, and whether it includes itself."""
    found: set[str] = set()
    waiting = list(hierarchy[role])
    while waiting:
        included = waiting.pop()
        if included not in found:
            found.add(included)
            waiting.extend(hierarchy.get(included, ()))
    return frozenset(found), role in found
