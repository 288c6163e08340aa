from collections.abc import Collection
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403 import ConfigurationError, Principal, Rbac

SHOP = Rbac(
    hierarchy={"owner": ["admin"], "admin": ["seller", "auditor"], "seller": ["clerk"]},
    grants={"seller": ["orders:refund"], "clerk": ["orders:read"], "auditor": ["logs:read"]},
)


def caller(*roles: str, permissions: Collection[str] = ()) -> Principal:
    """Return a caller with the roles and permissions of a token."""
    return Principal(sub="alice", roles=frozenset(roles), permissions=frozenset(permissions))


@pytest.mark.parametrize(
    ("held", "roles", "permissions"),
    [
        ({"clerk"}, {"clerk"}, {"orders:read"}),
        ({"seller"}, {"seller", "clerk"}, {"orders:refund", "orders:read"}),
        (
            {"owner"},
            {"owner", "admin", "seller", "auditor", "clerk"},
            {"orders:refund", "orders:read", "logs:read"},
        ),
        ({"auditor", "clerk"}, {"auditor", "clerk"}, {"logs:read", "orders:read"}),
        ({"visitor"}, {"visitor"}, set()),
        ({"Admin"}, {"Admin"}, set()),
        (set(), set(), set()),
    ],
    ids=["leaf", "one level", "three levels", "two roles", "unknown role", "another case", "no role"],
)
def test_roles_include_roles_and_grant_permissions(held: set[str], roles: set[str], permissions: set[str]) -> None:
    """The effective roles are those held and all that they include; each grants its permissions."""
    effective = SHOP.applied(caller(*held))
    assert effective.roles == roles
    assert effective.permissions == permissions


def test_permissions_of_the_token_are_kept() -> None:
    """What roles grant is added to what the token grants."""
    assert SHOP.applied(caller("clerk", permissions={"own"})).permissions == {"own", "orders:read"}


def test_a_caller_whom_the_tables_do_not_concern_stays_the_same() -> None:
    """Nothing is copied where nothing changes."""
    somebody = caller("visitor")
    assert SHOP.applied(somebody) is somebody


def test_roles_that_were_asked_for_replace_those_of_the_token() -> None:
    """Roles from elsewhere stand instead of the token's: neither they nor what they grant remains."""
    effective = SHOP.applied(caller("owner"), ["clerk"])
    assert effective.roles == {"clerk"}
    assert effective.permissions == {"orders:read"}
    assert SHOP.applied(caller("owner"), []).roles == frozenset()


def test_a_role_reached_on_two_ways_is_no_cycle() -> None:
    """A diamond in the hierarchy is fine."""
    rbac = Rbac(hierarchy={"a": ["b", "c"], "b": ["d"], "c": ["d"]})
    assert rbac.applied(caller("a")).roles == {"a", "b", "c", "d"}


def test_a_deep_hierarchy_is_no_recursion() -> None:
    """Two thousand levels are followed."""
    rbac = Rbac(hierarchy={f"r{level}": [f"r{level + 1}"] for level in range(2_000)})
    assert len(rbac.applied(caller("r0")).roles) == 2_001


def test_the_tables_cannot_be_changed_from_outside() -> None:
    """Rbac keeps what it was given when it was made."""
    grants = {"clerk": ["orders:read"]}
    rbac = Rbac(grants=grants)
    grants["clerk"].append("orders:delete")
    grants["visitor"] = ["orders:delete"]
    assert rbac.applied(caller("clerk", "visitor")).permissions == {"orders:read"}


def roles_of(principal: Principal) -> list[str]:
    """Return roles."""
    return ["clerk"]


async def roles_of_async(principal: Principal) -> list[str]:
    """Return roles, later."""
    return ["clerk"]


class Directory:
    async def __call__(self, principal: Principal) -> list[str]:
        return ["clerk"]

    async def roles(self, principal: Principal) -> list[str]:
        return ["clerk"]


@pytest.mark.parametrize(
    ("roles_for", "asynchronous"),
    [
        (None, False),
        (roles_of, False),
        (roles_of_async, True),
        (partial(roles_of_async), True),
        (Directory().roles, True),
        (Directory(), True),
    ],
    ids=["none", "function", "coroutine function", "partial", "method", "object that is called"],
)
def test_rbac_knows_how_roles_are_asked_for(roles_for: Any, asynchronous: bool) -> None:  # noqa: ANN401, FBT001 - a table
    """A coroutine function is told from a plain one in whatever form it comes."""
    assert Rbac(roles_for=roles_for).asks_asynchronously is asynchronous


@pytest.mark.parametrize("roles_timeout", [0.001, 1, 60, 60.0])
def test_a_look_up_may_take_up_to_a_minute(roles_timeout: float) -> None:
    """More than no time, and a minute at most."""
    assert Rbac(roles_for=roles_of, roles_timeout=roles_timeout).roles_timeout == roles_timeout


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"hierarchy": ["admin"]}, ["hierarchy"]),
        ({"hierarchy": {"admin": "seller"}}, ["hierarchy['admin']"]),
        ({"hierarchy": {"admin": [1]}}, ["hierarchy['admin'][0]"]),
        ({"hierarchy": {"": ["seller"]}}, ["hierarchy"]),
        ({"hierarchy": {7: ["seller"]}}, ["hierarchy"]),
        ({"hierarchy": {"a": ["a"]}}, ["hierarchy['a']"]),
        ({"hierarchy": {"a": ["b"], "b": ["c"], "c": ["a"]}}, ["hierarchy['a']", "hierarchy['b']", "hierarchy['c']"]),
        ({"hierarchy": {"top": ["a"], "a": ["b"], "b": ["a"]}}, ["hierarchy['a']", "hierarchy['b']"]),
        ({"grants": {"admin": None}}, ["grants['admin']"]),
        ({"grants": "admin"}, ["grants"]),
        ({"roles_for": "admin"}, ["roles_for"]),
        ({"roles_ttl": -1}, ["roles_ttl"]),
        ({"roles_ttl": True}, ["roles_ttl"]),
        ({"roles_ttl": "60"}, ["roles_ttl"]),
        ({"roles_ttl": float("nan")}, ["roles_ttl"]),
        ({"roles_timeout": 0}, ["roles_timeout"]),
        ({"roles_timeout": -1}, ["roles_timeout"]),
        ({"roles_timeout": 61}, ["roles_timeout"]),
        ({"roles_timeout": True}, ["roles_timeout"]),
        ({"roles_timeout": "5"}, ["roles_timeout"]),
        ({"roles_timeout": None}, ["roles_timeout"]),
        ({"roles_timeout": float("nan")}, ["roles_timeout"]),
        ({"roles_timeout": float("inf")}, ["roles_timeout"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value)[:60],
)
def test_a_mistake_is_named_by_its_field(options: dict[str, Any], fields: list[str]) -> None:
    """Each wrong option, cycles included, is a mistake with its field."""
    with pytest.raises(ConfigurationError) as caught:
        Rbac(**options)
    assert [mistake.field for mistake in caught.value.mistakes] == fields


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody has to mend one mistake to learn of the next."""
    wrong: dict[str, Any] = {
        "hierarchy": {"a": ["a"]},
        "grants": 1,
        "roles_for": 2,
        "roles_ttl": None,
        "roles_timeout": 0,
    }
    with pytest.raises(ConfigurationError) as caught:
        Rbac(**wrong)
    assert {mistake.field for mistake in caught.value.mistakes} == {
        "hierarchy['a']",
        "grants",
        "roles_for",
        "roles_ttl",
        "roles_timeout",
    }
    assert caught.value.part == "Rbac"


ROLES = st.sampled_from("abcdefgh")
TREES = st.dictionaries(ROLES, st.lists(ROLES, max_size=4), max_size=8)


@given(
    hierarchy=TREES, grants=st.dictionaries(ROLES, st.lists(st.sampled_from("123"), max_size=2)), held=st.sets(ROLES)
)
def test_effective_roles_are_closed(
    hierarchy: dict[str, list[str]], grants: dict[str, list[str]], held: set[str]
) -> None:
    """Applying twice changes nothing; more roles never mean less; a cyclic hierarchy is never accepted."""
    downwards = {role: [other for other in listed if other > role] for role, listed in hierarchy.items()}
    rbac = Rbac(hierarchy=downwards, grants=grants)
    once = rbac.applied(caller(*held))
    assert rbac.applied(once) == once
    assert held <= once.roles
    assert all(set(downwards.get(role, ())) <= once.roles for role in once.roles)
    assert once.permissions == {one for role in once.roles for one in grants.get(role, ())}
    more = rbac.applied(caller(*held, "a"))
    assert once.roles <= more.roles
    assert once.permissions <= more.permissions
