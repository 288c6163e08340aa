"""Role-based access: roles that include roles, roles that grant permissions, and roles that the token does not know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from authz403.errors import Mistakes
from authz403.need import is_async
from authz403.principal import Principal

RolesFor = Callable[[Principal], Collection[str]] | Callable[[Principal], Awaitable[Collection[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rbac:
    """What roles mean.

    `hierarchy` maps a role to the roles that it includes (`{"admin": ["seller"]}`: an admin is a seller too), `grants`
    a role to its permissions. `roles_for(principal)`, sync or async, gives the roles of a caller where the token does
    not know them; it replaces the token's roles, and a caller is asked about again after `roles_ttl` seconds. Raises
    `ConfigurationError` listing every mistake, cycles included.
    """

    hierarchy: Mapping[str, Iterable[str]] = field(default_factory=dict)
    grants: Mapping[str, Iterable[str]] = field(default_factory=dict)
    roles_for: RolesFor | None = None
    roles_ttl: float = 60.0
    asks_asynchronously: bool = field(init=False, repr=False, compare=False)
    _closure: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mistakes = Mistakes("Rbac")
        hierarchy = _table(mistakes, "hierarchy", self.hierarchy)
        grants = _table(mistakes, "grants", self.grants)
        if self.roles_for is not None and not callable(self.roles_for):
            mistakes.add("roles_for", self.roles_for, "a function of the principal is needed")
        if isinstance(self.roles_ttl, bool) or not isinstance(self.roles_ttl, int | float) or not self.roles_ttl >= 0:
            mistakes.add("roles_ttl", self.roles_ttl, "seconds, 0 or more, are needed")
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
        put(self, "_closure", closure)
        put(self, "asks_asynchronously", is_async(self.roles_for))

    def applied(self, principal: Principal, roles: Collection[str] | None = None) -> Principal:
        """Return the principal with its effective roles and permissions; `roles` replace those of the token."""
        held = principal.roles if roles is None else frozenset(roles)
        effective = held.union(*(self._closure.get(role, frozenset()) for role in held))
        granted = principal.permissions.union(*(self.grants.get(role, ()) for role in effective))
        if effective == principal.roles and granted == principal.permissions:
            return principal
        return replace(principal, roles=effective, permissions=granted)


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
