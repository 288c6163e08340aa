from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any, Final, cast
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz403 import (
    AccessDenied,
    ConfigurationError,
    Decision,
    Reason,
    Requirement,
    any_permission,
    any_role,
    any_scope,
    anyone,
    authenticated,
    claim,
    deny,
    networks,
    optional,
    param,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.facts import Facts, Rejected
from tests.gates_made import (
    ALICE,
    FORGED,
    INSIDE,
    KEYLESS,
    NOBODY,
    NOW,
    OUTSIDE,
    Identity,
    identities,
    judged,
    peers,
    requirements,
    someone,
)

BOB: Final = someone("bob")


def refused_for(decision: Decision) -> str | None:
    """Return the reason of a refusal, `None` where the request passes."""
    return None if decision.allowed else str(decision.reason)


def mistakes_of(make: Callable[[], object]) -> list[tuple[str, str]]:
    """Return field and value of each mistake that a configuration is refused for."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    return [(mistake.field, mistake.value) for mistake in caught.value.mistakes]


# ---- every requirement alone


@pytest.mark.parametrize(
    ("wanted", "with_it", "without_it"),
    [
        pytest.param(scopes("a"), None, "insufficient_scope", id="scopes, one"),
        pytest.param(scopes("a", "b"), None, "insufficient_scope", id="scopes, all held"),
        pytest.param(scopes("a", "c"), "insufficient_scope", "insufficient_scope", id="scopes, one of two held"),
        pytest.param(any_scope("c", "a"), None, "insufficient_scope", id="any_scope, the second held"),
        pytest.param(any_scope("c", "d"), "insufficient_scope", "insufficient_scope", id="any_scope, none held"),
        pytest.param(roles("seller"), None, "role_required", id="roles, one"),
        pytest.param(roles("seller", "admin"), "role_required", "role_required", id="roles, one of two held"),
        pytest.param(any_role("admin", "seller"), None, "role_required", id="any_role, the second held"),
        pytest.param(any_role("admin"), "role_required", "role_required", id="any_role, none held"),
        pytest.param(permissions("orders:refund"), None, "permission_required", id="permissions, one"),
        pytest.param(
            permissions("orders:refund", "x"),
            "permission_required",
            "permission_required",
            id="permissions, one of two",
        ),
        pytest.param(any_permission("x", "orders:refund"), None, "permission_required", id="any_permission"),
        pytest.param(any_permission("x"), "permission_required", "permission_required", id="any_permission, none held"),
        pytest.param(claim("tenant", "acme"), None, "claim_required", id="claim, its value"),
        pytest.param(claim("tenant", "other", "acme"), None, "claim_required", id="claim, one of the values"),
        pytest.param(claim("tenant", "other"), "claim_required", "claim_required", id="claim, another value"),
        pytest.param(claim("groups", "y"), None, "claim_required", id="claim, a list that holds it"),
        pytest.param(claim("groups", "z"), "claim_required", "claim_required", id="claim, a list that does not"),
        pytest.param(authenticated, None, None, id="authenticated"),
        pytest.param(optional, None, None, id="optional"),
        pytest.param(anyone, None, None, id="anyone"),
        pytest.param(deny, "access_denied", "access_denied", id="deny"),
        pytest.param(networks("10.0.0.0/8", "fd00::/8"), None, None, id="networks"),
        pytest.param(networks("192.0.2.0/24"), "ip_not_allowed", "ip_not_allowed", id="networks, another"),
    ],
)
def test_a_requirement_tells_who_has_the_right_from_who_has_not(
    wanted: Requirement, with_it: str | None, without_it: str | None
) -> None:
    """Alice, who holds things, and Bob, who is signed in and holds nothing, each get the one right answer."""
    assert refused_for(judged(wanted, ALICE)) == with_it
    assert refused_for(judged(wanted, BOB)) == without_it


@pytest.mark.parametrize(
    ("held", "wanted"),
    [("orders", "orders:write"), ("orders:write", "orders"), ("orders:write", "ORDERS:WRITE"), ("*", "orders")],
)
@pytest.mark.parametrize("needs_one", [scopes, any_scope, roles, any_role, permissions, any_permission])
def test_a_name_is_held_whole_or_not_at_all(held: str, wanted: str, needs_one: Callable[[str], Requirement]) -> None:
    """Neither the start of a name nor another case nor a star stands for it."""
    caller = someone(scopes={held}, roles={held}, permissions={held})
    assert refused_for(judged(needs_one(held), caller)) is None
    assert refused_for(judged(needs_one(wanted), caller)) is not None


NEEDING_A_CALLER: Final = [
    scopes("a"),
    any_scope("a"),
    roles("seller"),
    any_role("seller"),
    permissions("p"),
    any_permission("p"),
    claim("tenant", "acme"),
    claim("tenant", lambda value: value != "evil"),
    param("tenant", claim="tenant"),
    authenticated,
    authenticated.stepped_up(max_age=60),
    requirement("own_code", lambda _: True),
]


@pytest.mark.parametrize("wanted", NEEDING_A_CALLER, ids=repr)
@pytest.mark.parametrize("identity", [NOBODY, FORGED, KEYLESS], ids=["no token", "bad token", "no keys"])
def test_who_is_not_known_gets_the_reason_why_not(wanted: Requirement, identity: Rejected) -> None:
    """Without a caller no requirement about the caller holds, nor its opposite; the answer is the credential's."""
    params = {"tenant": "acme"}
    assert refused_for(judged(wanted, identity, params=params)) == identity.reason
    assert refused_for(judged(~wanted, identity, params=params)) == identity.reason


def test_optional_lets_a_missing_token_pass_and_refuses_a_bad_one() -> None:
    """A caller may stay anonymous, but a broken token is not taken for that, and its opposite is not met either."""
    assert judged(optional, NOBODY).allowed
    assert refused_for(judged(optional, FORGED)) == "invalid_token"
    assert refused_for(judged(optional, KEYLESS)) == "keys_unavailable"
    assert refused_for(judged(~optional, FORGED)) == "invalid_token"
    assert refused_for(judged(~optional, NOBODY)) == "access_denied"


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (INSIDE, None),
        ("::ffff:10.1.2.3", None),
        ("fd00::1%eth0", None),
        (OUTSIDE, "ip_not_allowed"),
        (None, "ip_not_allowed"),
        ("", "ip_not_allowed"),
        ("testclient", "ip_not_allowed"),
    ],
)
def test_networks_need_a_known_address_inside(peer: str | None, reason: str | None) -> None:
    """An address outside fails and so does one that is not known, which is not known to be outside either."""
    wanted = networks("10.0.0.0/8", "fd00::/8")
    assert refused_for(judged(wanted, NOBODY, peer=peer)) == reason
    opposite = {None: "access_denied", OUTSIDE: None}.get(peer, "ip_not_allowed") if reason else "access_denied"
    if peer is None:
        opposite = "ip_not_allowed"
    assert refused_for(judged(~wanted, NOBODY, peer=peer)) == opposite


def test_networks_say_in_the_log_that_the_address_is_not_known() -> None:
    """An unknown address is told from one outside by its hint alone."""
    assert judged(networks("10.0.0.0/8"), NOBODY, peer=None).hint == "the client's address is not known"
    assert judged(networks("10.0.0.0/8"), NOBODY, peer=OUTSIDE).hint is None


# ---- what is told of a refusal


def test_all_missing_scopes_are_told_in_one_answer() -> None:
    """`required_scopes` is every scope needed, wherever it was written; `missing_scopes` those not held."""
    decision = judged(scopes("a", "c") & scopes("d", "b") & any_scope("e", "f"))
    assert decision.required_scopes == ("a", "c", "d", "b", "e")
    assert decision.missing_scopes == ("c", "d", "e")


def test_every_scope_needed_is_told_where_only_one_part_misses_some() -> None:
    """A client that asks for the told scopes alone does not lose those that it holds."""
    decision = judged(scopes("a") & scopes("c"))
    assert (decision.required_scopes, decision.missing_scopes) == (("a", "c"), ("c",))


def test_without_a_token_all_scopes_needed_are_told() -> None:
    """Who has to sign in anyway can ask for all scopes at once."""
    decision = judged(authenticated & scopes("a") & scopes("c"), NOBODY)
    assert decision.reason is Reason.MISSING_TOKEN
    assert decision.required_scopes == decision.missing_scopes == ("a", "c")


def test_scopes_of_an_opposite_are_not_asked_for() -> None:
    """`~scopes("c")` wants a caller without the scope: telling an anonymous one to ask for it would be wrong."""
    decision = judged(scopes("a") & ~scopes("c"), NOBODY)
    assert decision.reason is Reason.MISSING_TOKEN
    assert decision.required_scopes == decision.missing_scopes == ("a",)
    assert judged(~scopes("c"), NOBODY).required_scopes == ()


def test_any_scope_asks_for_the_first_written_and_names_all() -> None:
    """The challenge needs one list of scopes; the sentence for people names the choice."""
    decision = judged(any_scope("c", "d"))
    assert decision.required_scopes == decision.missing_scopes == ("c",)
    assert decision.detail == "This operation needs one of the scopes c, d."
    assert judged(any_scope("c")).detail is None


def test_all_missing_roles_and_permissions_are_told() -> None:
    """Roles and permissions of all parts are joined, once each, as far as they are missing."""
    decision = judged(roles("seller", "admin") & roles("admin", "boss"))
    assert decision.required_roles == ("seller", "admin", "boss")
    assert decision.missing_roles == ("admin", "boss")
    decision = judged(permissions("orders:refund", "x") & any_permission("x", "y"))
    assert decision.required_permissions == ("orders:refund", "x", "y")
    assert decision.missing_permissions == ("x", "y")


@pytest.mark.parametrize(
    ("wanted", "detail"),
    [
        (roles("admin"), "This operation needs the role admin."),
        (roles("admin", "boss"), "This operation needs the roles admin, boss."),
        (any_role("admin"), "This operation needs the role admin."),
        (any_role("admin", "boss"), "This operation needs one of the roles admin, boss."),
        (permissions("x", "y"), "This operation needs the permissions x, y."),
        (any_permission("x", "y"), "This operation needs one of the permissions x, y."),
    ],
    ids=repr,
)
def test_the_sentence_says_one_or_all(wanted: Requirement, detail: str) -> None:
    """The caller reads whether one of the names is enough."""
    assert judged(wanted).detail == detail


def test_roles_are_not_told_to_the_anonymous() -> None:
    """The names of roles and permissions are for the signed in alone."""
    decision = judged(roles("admin") & permissions("x"), NOBODY)
    assert decision.required_roles == decision.required_permissions == ()
    assert "admin" not in repr(decision._replace(policy=""))


# ---- combining with &

IN_ORDER: Final[dict[str, tuple[Requirement, str]]] = {
    "verdict": (deny, "access_denied"),
    "network": (networks("192.0.2.0/24"), "ip_not_allowed"),
    "authentication": (authenticated.stepped_up(acr_values=["gold"]), "step_up_required"),
    "scope": (scopes("c"), "insufficient_scope"),
    "role": (roles("admin"), "role_required"),
    "permission": (permissions("x"), "permission_required"),
    "claim": (claim("tenant", "other"), "claim_required"),
    "ownership": (param("tenant", claim="tenant"), "not_owner"),
    "own": (requirement("plan_expired", lambda _: False), "plan_expired"),
}


@pytest.mark.parametrize(("first", "second"), list(combinations(IN_ORDER, 2)))
def test_and_reports_the_first_failing_kind_however_it_is_written(first: str, second: str) -> None:
    """Network, authentication, scope, role, permission, claim, ownership, the user's own: that order is the reason."""
    (one, reason), (other, _) = IN_ORDER[first], IN_ORDER[second]
    params = {"tenant": "evil"}
    for wanted in (one & other, other & one, ~~other & one, (other | other) & one):
        assert refused_for(judged(wanted, params=params)) == reason


@pytest.mark.parametrize("kind", list(IN_ORDER))
def test_and_holds_where_both_hold_and_fails_where_one_fails(kind: str) -> None:
    """Every kind closes what the others open."""
    failing, reason = IN_ORDER[kind]
    holding = authenticated & scopes("a") & networks("10.0.0.0/8") & roles("seller") & claim("level", 1)
    assert judged(holding).allowed
    assert refused_for(judged(holding & failing, params={"tenant": "evil"})) == reason


def test_a_failing_network_asks_for_no_token() -> None:
    """What is refused without knowing the caller is refused before anybody looks at a token."""
    decision = judged(scopes("a") & networks("192.0.2.0/24"), None)
    assert decision.reason is Reason.IP_NOT_ALLOWED


def test_own_tests_are_not_asked_about_requests_that_are_refused_anyway() -> None:
    """The user's code is the last and may rely on the rest."""
    asked: list[str] = []

    def ask(facts: Facts) -> bool:
        asked.append(facts.principal.sub)
        return True

    own = requirement("own_code", ask)
    assert refused_for(judged(own & scopes("c"))) == "insufficient_scope"
    assert asked == []
    assert judged(own & scopes("a")).allowed
    assert asked == ["alice"]


def test_anyone_adds_nothing_and_the_same_part_counts_once() -> None:
    """What lets everybody pass opens nothing that another part closes."""
    assert refused_for(judged(anyone & scopes("c") & anyone)) == "insufficient_scope"
    assert judged(anyone & anyone).allowed
    part = scopes("c")
    assert judged(part & part).missing_scopes == ("c",)


# ---- combining with |


def test_or_tries_first_what_needs_no_token() -> None:
    """A caller in the right network is let in although nothing could say whose token it is."""
    assert judged(scopes("a") | networks("10.0.0.0/8"), None).allowed
    assert judged(scopes("a") | networks("10.0.0.0/8"), KEYLESS).allowed
    assert judged(scopes("a") | (roles("x") | anyone), FORGED).allowed


def test_or_needs_one_that_is_known_to_hold() -> None:
    """One alternative that holds is enough, and one that cannot be told is none."""
    assert judged(roles("admin") | scopes("a")).allowed
    assert refused_for(judged(roles("admin") | roles("boss"))) == "role_required"
    assert refused_for(judged(networks("192.0.2.0/24") | authenticated, NOBODY)) is not None


@pytest.mark.parametrize(
    ("wanted", "identity", "reason"),
    [
        pytest.param(scopes("c", "d") | roles("admin"), ALICE, "role_required", id="one role before two scopes"),
        pytest.param(roles("admin") | scopes("c", "d"), ALICE, "role_required", id="the same, the other way round"),
        pytest.param(scopes("c") | roles("admin"), ALICE, "insufficient_scope", id="a tie: the first written, scope"),
        pytest.param(roles("admin") | scopes("c"), ALICE, "role_required", id="a tie: the first written, role"),
        pytest.param(scopes("a", "c") | roles("x", "y"), ALICE, "insufficient_scope", id="what is held does not count"),
        pytest.param(
            (scopes("c") & roles("admin")) | permissions("x"), ALICE, "permission_required", id="one before one and one"
        ),
        pytest.param(scopes("c") | networks("192.0.2.0/24"), NOBODY, "ip_not_allowed", id="sign-in and scope are two"),
        pytest.param(authenticated | networks("192.0.2.0/24"), NOBODY, "missing_token", id="sign-in alone is one"),
        pytest.param(
            (scopes("c") & roles("x")) | (networks("192.0.2.0/24") & networks("203.0.113.0/24")),
            NOBODY,
            "ip_not_allowed",
            id="sign-in, scope and role are three",
        ),
        pytest.param(networks("192.0.2.0/24") | authenticated, NOBODY, "ip_not_allowed", id="a tie with sign-in"),
        pytest.param(deny | scopes("c", "d", "e"), ALICE, "insufficient_scope", id="a deny cannot be cured"),
        pytest.param(~scopes("a") | scopes("c", "d"), ALICE, "insufficient_scope", id="nor can an opposite"),
        pytest.param(
            any_role("x", "y", "z") | scopes("c", "d"), ALICE, "role_required", id="one of three roles is one"
        ),
        pytest.param(claim("tenant", "o") | scopes("c", "d"), ALICE, "claim_required", id="a claim is one"),
        pytest.param(param("x", claim="tenant") | scopes("c", "d"), ALICE, "not_owner", id="an ownership is one"),
        pytest.param(requirement("own", lambda _: False) | scopes("c", "d"), ALICE, "own", id="an own test is one"),
    ],
)
def test_or_reports_the_alternative_that_is_easiest_to_cure(
    wanted: Requirement, identity: Identity, reason: str
) -> None:
    """The fewest things missing, then the first written: sign-in, scope, role, permission, claim, own, network."""
    assert refused_for(judged(wanted, identity)) == reason


def test_or_describes_the_reported_alternative_alone() -> None:
    """`required_scopes` and `missing_scopes` are those of one alternative, not of all."""
    decision = judged(scopes("c", "d", "e") | scopes("a", "f") | scopes("g", "h"))
    assert (decision.required_scopes, decision.missing_scopes) == (("a", "f"), ("f",))


def test_every_scope_needed_is_told_besides_a_choice() -> None:
    """Where scopes are needed beside a choice, those of the choice come with them."""
    decision = judged(scopes("c") & (scopes("d") | scopes("e", "f")))
    assert decision.required_scopes == decision.missing_scopes == ("c", "d")


# ---- three values


def _world(identity: Identity, peer: str | None) -> dict[str, str]:
    """Return what each leaf of the random requirements is in a world, written down from their meaning."""
    known = identity in (ALICE, BOB)
    alice = identity is ALICE
    need = "met" if alice else "unmet" if known else "unknown"
    return {
        "anyone": "met",
        "deny": "unmet",
        "authenticated": "met" if known else "unknown",
        "optional": "met" if known or identity is NOBODY else "unknown",
        "networks('10.0.0.0/8')": {INSIDE: "met", OUTSIDE: "unmet", None: "unknown"}[peer],
        "scopes('a')": need,
        "scopes('c')": "unmet" if known else "unknown",
        "scopes('a', 'c')": "unmet" if known else "unknown",
        "roles('seller')": need,
        "roles('admin')": "unmet" if known else "unknown",
        "requirement('says_yes')": "met" if known else "unknown",
        "requirement('says_no')": "unmet" if known else "unknown",
        "requirement('fails')": "unknown",
        "requirement('says_yes_to_all')": "met",
        "requirement('says_no_to_all')": "unmet",
        "requirement('fails_for_all')": "unknown",
        "requirement('says_yes_later')": "met" if known else "unknown",
        "requirement('says_yes_later_to_all')": "met",
        "requirement('says_no_later')": "unmet",
        "requirement('fails_later')": "unknown",
    }


Tree = tuple[Any, ...]


def _leaf(wanted: Requirement) -> tuple[Tree, Requirement]:
    return ("leaf", repr(wanted)), wanted


def _trees() -> st.SearchStrategy[tuple[Tree, Requirement]]:
    from tests.gates_made import LEAVES  # noqa: PLC0415 - beside the trees made of it

    return st.recursive(
        st.sampled_from(LEAVES).map(_leaf),
        lambda inner: st.one_of(
            st.builds(lambda one, other: (("and", one[0], other[0]), one[1] & other[1]), inner, inner),
            st.builds(lambda one, other: (("or", one[0], other[0]), one[1] | other[1]), inner, inner),
            st.builds(lambda one: (("not", one[0]), ~one[1]), inner),
        ),
        max_leaves=7,
    )


def kleene(tree: Tree, world: dict[str, str]) -> str:
    """Evaluate a tree in Kleene's strong logic of three values, by truth table."""
    if tree[0] == "leaf":
        return world[tree[1]]
    values = [kleene(part, world) for part in tree[1:]]
    if tree[0] == "not":
        return {"met": "unmet", "unmet": "met", "unknown": "unknown"}[values[0]]
    order = ["unmet", "unknown", "met"]
    ranks = [order.index(value) for value in values]
    return order[min(ranks) if tree[0] == "and" else max(ranks)]


def state(wanted: Requirement, identity: Identity, peer: str | None) -> str:
    """Return what a user can see of a requirement's value: it passes, its opposite passes, or neither."""
    passes, opposite = judged(wanted, identity, peer=peer).allowed, judged(~wanted, identity, peer=peer).allowed
    assert not (passes and opposite)
    return "met" if passes else "unmet" if opposite else "unknown"


@given(_trees(), identities, peers)
def test_combinations_follow_the_logic_of_three_values(
    made: tuple[Tree, Requirement], identity: Identity, peer: str | None
) -> None:
    """`&`, `|` and `~` of met, unmet and unknown are Kleene's, however they are nested."""
    tree, wanted = made
    assert state(wanted, identity, peer) == kleene(tree, _world(identity, peer))


@given(_trees(), identities, peers)
def test_nothing_passes_that_the_logic_of_three_values_refuses(
    made: tuple[Tree, Requirement], identity: Identity, peer: str | None
) -> None:
    """Whatever else an optimisation may do, it never lets pass what is unmet or unknown."""
    tree, wanted = made
    if judged(wanted, identity, peer=peer).allowed:
        assert kleene(tree, _world(identity, peer)) == "met"


@pytest.mark.parametrize("wanted", [scopes("a"), networks("10.0.0.0/8"), requirement("fails", lambda _: 1 / 0 > 0)])
def test_the_opposite_of_unknown_is_unknown(wanted: Requirement) -> None:
    """What could not be found out opens nothing, in any number of negations."""
    for opposite in (~wanted, ~~wanted, ~~~wanted):
        assert not judged(opposite, NOBODY, peer=None).allowed


def test_an_unmet_opposite_is_access_denied() -> None:
    """`~` has no cure to offer: whoever holds what is not wanted is denied."""
    assert refused_for(judged(~scopes("a"))) == "access_denied"
    assert refused_for(judged(~networks("10.0.0.0/8"), NOBODY)) == "access_denied"
    assert judged(~scopes("c")).allowed
    assert judged(~deny).allowed
    assert refused_for(judged(~anyone)) == "access_denied"


@given(requirements, requirements, identities, peers)
def test_adding_a_requirement_never_allows_what_was_denied(
    one: Requirement, other: Requirement, identity: Identity, peer: str | None
) -> None:
    """`&` only closes."""
    if not judged(one, identity, peer=peer).allowed:
        assert not judged(one & other, identity, peer=peer).allowed
        assert not judged(other & one, identity, peer=peer).allowed


@given(requirements, requirements, identities, peers)
def test_adding_an_alternative_never_denies_what_was_allowed(
    one: Requirement, other: Requirement, identity: Identity, peer: str | None
) -> None:
    """`|` only opens."""
    if judged(one, identity, peer=peer).allowed:
        assert judged(one | other, identity, peer=peer).allowed
        assert judged(other | one, identity, peer=peer).allowed


@given(requirements, identities, peers)
@example(requirement("fails", lambda _: 1 / 0 > 0), ALICE, None)
def test_deciding_never_raises_and_says_why(wanted: Requirement, identity: Identity, peer: str | None) -> None:
    """Every requirement in every world is a decision, and every refusal has a reason and a status of its own."""
    decision = judged(wanted, identity, peer=peer)
    assert decision.allowed is (decision.reason is None)
    assert decision.status == 200 if decision.allowed else decision.status in {401, 403, 500, 503}


@given(requirements, identities, peers)
def test_what_ensures_an_identity_lets_nobody_else_in(
    wanted: Requirement, identity: Identity, peer: str | None
) -> None:
    """A handler that takes the caller may trust a policy that says that there is one."""
    if wanted.ensures_identity() and judged(wanted, identity, peer=peer).allowed:
        assert identity in (ALICE, BOB)


@pytest.mark.parametrize(
    ("wanted", "ensured"),
    [
        (authenticated, True),
        (scopes("a") & networks("10.0.0.0/8"), True),
        (~scopes("a"), True),
        (roles("a") | scopes("b"), True),
        (requirement("own", lambda _: True), True),
        (scopes("a").concealed(), True),
        (~(scopes("a") | networks("10.0.0.0/8")), True),
        (optional, False),
        (~optional, False),
        (anyone, False),
        (scopes("a") | anyone, False),
        (networks("10.0.0.0/8"), False),
        (~(scopes("a") & networks("10.0.0.0/8")), False),
        (requirement("own", lambda _: True, anonymous=True), False),
    ],
    ids=repr,
)
def test_whether_a_policy_ensures_an_identity_is_told_exactly(wanted: Requirement, ensured: bool) -> None:  # noqa: FBT001 - a column
    """Neither a policy that always knows its caller is doubted, nor one that may not is trusted."""
    assert wanted.ensures_identity() is ensured


# ---- how they are written


@pytest.mark.parametrize(
    "combine",
    [
        pytest.param(lambda: scopes("a") and roles("b"), id="and"),
        pytest.param(lambda: scopes("a") or roles("b"), id="or"),
        pytest.param(lambda: not scopes("a"), id="not"),
        pytest.param(lambda: 1 if scopes("a") else 2, id="if"),
        pytest.param(lambda: all([scopes("a"), anyone]), id="all"),
    ],
)
def test_words_for_operators_are_refused(combine: Callable[[], object]) -> None:
    """`scopes("a") and roles("b")` would be `roles("b")` alone, so it raises."""
    with pytest.raises(TypeError, match="combine requirements with"):
        combine()


@pytest.mark.parametrize("operator", ["__and__", "__or__"])
@pytest.mark.parametrize("other", [True, None, "scopes:a", pytest.param(scopes, id="scopes")], ids=repr)
def test_a_requirement_combines_with_requirements_alone(operator: str, other: object) -> None:
    """A condition or a forgotten call beside a requirement is a mistake, not a policy."""
    with pytest.raises(TypeError):
        scopes("a") & other if operator == "__and__" else scopes("a") | other  # type: ignore[operator]


@pytest.mark.parametrize("make", [scopes, any_scope, roles, any_role, permissions, any_permission, networks])
def test_an_empty_requirement_is_a_mistake(make: Callable[..., Requirement]) -> None:
    """A list that came out empty must not let everybody in."""
    assert mistakes_of(make) == [("names", "[]")]


@pytest.mark.parametrize("make", [scopes, any_scope, roles, any_role, permissions, any_permission])
def test_every_wrong_name_is_told_at_once(make: Callable[..., Requirement]) -> None:
    """Empty names, white space around a name and other types are all told with their place."""
    found = mistakes_of(lambda: make("good", "", " padded", 7, None))
    assert {value for _, value in found} == {"''", "' padded'", "7", "None"}
    assert mistakes_of(lambda: make(["a", "b"])) == [("names[0]", "['a', 'b']")]


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\\b", "é", "a\nb", "a\x7f"])
def test_scopes_are_scope_tokens(name: str) -> None:
    """RFC 6750 section 3: nothing that a challenge could not quote is a scope."""
    assert mistakes_of(lambda: scopes(name)) == [("names[0]", repr(name))]
    assert mistakes_of(lambda: any_scope("a", name)) == [("names[1]", repr(name))]


def test_networks_are_networks() -> None:
    """Host bits, names and zones are told at once, before anybody relies on them."""
    assert [value for _, value in mistakes_of(lambda: networks("10.0.0.1/8", "10.0.0.0/8", "localhost"))] == [
        "'10.0.0.1/8'",
        "'localhost'",
    ]


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        pytest.param(lambda: claim("", "x"), ["name"], id="no name"),
        pytest.param(lambda: claim(cast("str", 5)), ["name", "values"], id="no name and no value"),
        pytest.param(lambda: claim("tenant"), ["values"], id="no value"),
        pytest.param(lambda: claim("tenant", "x", bool), ["values"], id="value and predicate"),
        pytest.param(lambda: param("", claim=""), ["name", "claim"], id="param without names"),
        pytest.param(lambda: param("x", claim=cast("str", None)), ["claim"], id="param without claim"),
        pytest.param(authenticated.stepped_up, ["acr_values"], id="step-up to nothing"),
        pytest.param(lambda: authenticated.stepped_up(acr_values="gold"), ["acr_values"], id="acr_values no list"),
        pytest.param(
            lambda: authenticated.stepped_up(acr_values=['g"', "ok", "a b"], max_age=-1),
            ["acr_values[0]", "acr_values[2]", "max_age"],
            id="step-up, all wrong",
        ),
        pytest.param(lambda: authenticated.stepped_up(max_age=True), ["max_age"], id="max_age a bool"),
        pytest.param(
            lambda: requirement("X", cast("Any", "no"), remedy="call us"),
            ["code", "test", "remedy"],
            id="own, all wrong",
        ),
        pytest.param(lambda: requirement("ab", bool), ["code"], id="own code too short"),
        pytest.param(lambda: requirement("plan-expired", bool), ["code"], id="own code with a dash"),
        pytest.param(lambda: requirement("plan_expired\n", bool), ["code"], id="own code with a line break"),
        pytest.param(lambda: requirement("missing_token", bool), ["code"], id="own code of a 401"),
        pytest.param(lambda: requirement(Reason.POLICY_ERROR, bool), ["code"], id="own code of a 500"),
        pytest.param(lambda: requirement(cast("str", None), bool), ["code"], id="own code none"),
    ],
)
def test_wrong_requirements_are_mistakes(make: Callable[[], object], fields: list[str]) -> None:
    """What cannot be meant is told where it is written, all at once."""
    assert [field for field, _ in mistakes_of(make)] == fields


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (scopes("a", "b") & any_role("c"), "scopes('a', 'b') & any_role('c')"),
        (scopes("a") & (roles("b") | any_scope("c")), "scopes('a') & (roles('b') | any_scope('c'))"),
        (~(permissions("a") & any_permission("b")), "~(permissions('a') & any_permission('b'))"),
        (~deny | networks("10.0.0.0/8"), "~deny | networks('10.0.0.0/8')"),
        (claim("a", 1, "x") & param("b", claim="c"), "claim('a', 1, 'x') & param('b', claim='c')"),
        (claim("a", bool), "claim('a', bool)"),
        (optional.concealed(), "(optional).concealed()"),
        (
            authenticated.stepped_up(acr_values=["g"], max_age=5),
            "authenticated.stepped_up(acr_values=['g'], max_age=5)",
        ),
        (requirement("own_code", bool) & authenticated, "requirement('own_code') & authenticated"),
    ],
    ids=repr,
)
def test_a_decision_names_the_policy_as_it_was_written(wanted: Requirement, words: str) -> None:
    """The log shows the policy in the words of the code."""
    assert judged(wanted).policy == f"Rule(* /**): {words}"


# ---- claims and path parameters


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [
        ("level", 1, True),
        ("level", True, False),
        ("level", 1.0, False),
        ("level", "1", False),
        ("active", True, True),
        ("active", 1, False),
        ("active", "true", False),
        ("number", "5", True),
        ("number", 5, False),
        ("nothing", None, True),
        ("absent", None, False),
        ("absent", "", False),
        ("absent", False, False),
        ("groups", "xy", False),
        ("tenant", "ACME", False),
        ("tenant", "acm", False),
    ],
)
def test_claims_are_compared_with_their_type(name: str, value: object, met: bool) -> None:  # noqa: FBT001 - a column
    """True, 1, 1.0 and "1" are four things in a policy, and a claim that is not there equals nothing."""
    assert refused_for(judged(claim(name, value))) == (None if met else "claim_required")


def test_a_predicate_judges_the_claim() -> None:
    """A function of the claim's value decides, and only `True` is yes."""
    assert judged(claim("level", lambda level: level == 1)).allowed
    assert refused_for(judged(claim("level", lambda level: level == 2))) == "claim_required"
    assert refused_for(judged(claim("level", cast("Any", lambda level: level)))) == "policy_error"


def test_a_predicate_is_not_asked_about_a_claim_that_is_not_there() -> None:
    """A token without the claim lacks it: neither the policy's failure nor a predicate that happens to say yes."""
    assert refused_for(judged(claim("absent", lambda level: cast("int", level) >= 2))) == "claim_required"
    assert refused_for(judged(claim("absent", lambda status: status != "banned"))) == "claim_required"


@pytest.mark.parametrize(
    ("given_param", "owned", "owner"),
    [
        pytest.param(5, "5", True, id="converted int, claim a string"),
        pytest.param(5, 5, True, id="int and int"),
        pytest.param("5", "5", True, id="text and text"),
        pytest.param("5", 5, False, id="text is no number"),
        pytest.param(5, "05", False, id="leading zero"),
        pytest.param(5, "5\n", False, id="line break"),
        pytest.param(5, " 5", False, id="white space"),
        pytest.param(1, True, False, id="1 is not true"),
        pytest.param("True", True, False, id="text is not true"),
        pytest.param(5, 5.0, False, id="5 is not 5.0"),
        pytest.param("acme", "ACME", False, id="case"),
        pytest.param("", "", True, id="empty and empty"),
        pytest.param(
            UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678", True, id="UUID"
        ),
        pytest.param(
            UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345679", False, id="other UUID"
        ),
        pytest.param("None", None, False, id="null is not the text None"),
        pytest.param("acme", ("acme", "other"), False, id="a list is not its member"),
    ],
)
def test_a_path_parameter_is_compared_as_converted(given_param: object, owned: object, owner: bool) -> None:  # noqa: FBT001 - a column
    """What the route's converter made of the path equals the claim, or the caller is not the owner."""
    caller = someone(claims={"order": owned})
    decision = judged(param("order", claim="order"), caller, params={"order": given_param})
    assert refused_for(decision) == (None if owner else "not_owner")


def test_a_missing_parameter_or_claim_owns_nothing() -> None:
    """Two absent things are not equal."""
    wanted = param("order", claim="order")
    assert refused_for(judged(wanted, someone(claims={"order": "5"}))) == "not_owner"
    assert refused_for(judged(wanted, someone(), params={"order": "5"})) == "not_owner"
    assert refused_for(judged(wanted, someone(), params={})) == "not_owner"


# ---- step-up


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"acr": "gold", "auth_time": int(NOW) - 300}, None),
        ({"acr": "gold", "auth_time": NOW - 299.5}, None),
        ({"acr": "gold", "auth_time": int(NOW) - 301}, "step_up_required"),
        ({"acr": "silver", "auth_time": int(NOW)}, "step_up_required"),
        ({"auth_time": int(NOW)}, "step_up_required"),
        ({"acr": "gold"}, "step_up_required"),
        ({"acr": ("gold",), "auth_time": int(NOW)}, "step_up_required"),
        ({"acr": "gold", "auth_time": str(int(NOW))}, "step_up_required"),
        ({"acr": "gold", "auth_time": True}, "step_up_required"),
        ({"acr": "gold", "auth_time": float("nan")}, "step_up_required"),
        ({"acr": "gold", "auth_time": float("inf")}, "step_up_required"),
        ({"acr": "gold", "auth_time": 10**400}, "step_up_required"),
        ({"acr": "gold", "auth_time": -(10**400)}, "step_up_required"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_step_up_needs_a_strong_and_recent_sign_in(claims: dict[str, object], reason: str | None) -> None:
    """RFC 9470: `acr` is one of the values and `auth_time` at most `max_age` ago; no odd value is recent for ever."""
    wanted = authenticated.stepped_up(acr_values=["platinum", "gold"], max_age=300)
    decision = judged(wanted, someone(claims=claims))
    assert refused_for(decision) == reason
    if reason:
        assert (decision.acr_values, decision.max_age, decision.status) == (("platinum", "gold"), 300, 401)


def test_a_step_up_may_ask_for_one_of_the_two() -> None:
    """Class and age are each enough to ask for."""
    caller = someone(claims={"acr": "gold", "auth_time": int(NOW) - 1000})
    assert judged(authenticated.stepped_up(acr_values=["gold"]), caller).allowed
    assert judged(authenticated.stepped_up(max_age=1000), caller).allowed
    assert not judged(authenticated.stepped_up(max_age=999), caller).allowed


# ---- the user's own


def yes(facts: Facts) -> bool:
    """Answer yes for Alice's own order."""
    return facts.principal.sub == "alice" and facts.path == "/orders/5" and facts.method == "GET"


async def yes_later(facts: Facts) -> bool:
    """Answer the same, asynchronously."""
    return yes(facts)


class Test:
    def __call__(self, facts: Facts) -> bool:
        return yes(facts)


class AsyncTest:
    async def __call__(self, facts: Facts) -> bool:
        return yes(facts)


@pytest.mark.parametrize(
    "test",
    [yes, yes_later, partial(yes), partial(yes_later), Test(), AsyncTest(), Test().__call__, AsyncTest().__call__],
    ids=["def", "async", "partial", "async partial", "object", "async object", "method", "async method"],
)
def test_an_own_requirement_may_be_any_function(test: Any) -> None:  # noqa: ANN401 - any shape of callable
    """Sync or async, function, partial, object or method: True passes, False is its own code and remedy."""
    wanted = requirement("plan_expired", test, remedy="renew_plan")
    assert judged(wanted).allowed
    decision = judged(wanted, BOB)
    assert (decision.reason, decision.status, decision.remedy) == ("plan_expired", 403, "renew_plan")
    assert refused_for(judged(~wanted, ALICE)) == "access_denied"
    assert judged(~wanted, BOB).allowed


def test_an_own_requirement_may_use_a_published_reason() -> None:
    """A published 403 reason brings its remedy; a code of one's own asks the owner unless it says otherwise."""
    assert judged(requirement("not_owner", lambda _: False)).reason is Reason.NOT_OWNER
    assert judged(requirement(Reason.ROLE_REQUIRED, lambda _: False)).remedy == "request_role"
    assert judged(requirement("own_code", lambda _: False)).remedy == "contact_owner"


def _raising(error: Exception) -> Callable[[Facts], bool]:
    def ask(facts: Facts) -> bool:
        raise error

    return ask


def _raising_later(error: Exception) -> Callable[[Facts], Any]:
    async def ask(facts: Facts) -> bool:
        raise error

    return ask


def _answering(answer: object) -> Callable[[Facts], Any]:
    return lambda _: answer


def _answering_later(answer: object) -> Callable[[Facts], Any]:
    async def ask(facts: Facts) -> object:
        return answer

    return ask


def _forgets_to_await(facts: Facts) -> object:
    return _answering_later(answer=True)(facts)


@pytest.mark.parametrize(
    "test",
    [
        pytest.param(_raising(ValueError("x")), id="raises"),
        pytest.param(_raising(AccessDenied("not_owner")), id="raises AccessDenied"),
        pytest.param(_raising_later(LookupError("x")), id="raises later"),
        *(
            pytest.param(make(answer), id=f"{make.__name__} {answer!r}")
            for make in (_answering, _answering_later)
            for answer in (None, 1, 0, "yes", "", [], [True], ValueError("x"), scopes("a"))
        ),
        pytest.param(_forgets_to_await, id="a coroutine out of a plain function"),
        pytest.param(lambda facts: facts.principal.claims["plan"] == "pro", id="KeyError"),
    ],
)
def test_whatever_is_not_true_or_false_is_a_policy_error(test: Any) -> None:  # noqa: ANN401 - any shape of mistake
    """A crash, a truthy value or a forgotten await denies with 500, under `~` too, and the log gets the exception."""
    for wanted in (
        requirement("own_code", test),
        ~requirement("own_code", test),
        claim("level", 1) & ~~requirement("own_code", test),
    ):
        decision = judged(wanted)
        assert (decision.allowed, decision.reason, decision.status) == (False, Reason.POLICY_ERROR, 500)
        assert isinstance(decision.error, Exception)


def test_an_own_requirement_is_asked_about_known_callers_alone() -> None:
    """It may rely on `principal`; only where it says `anonymous=True` it is asked about anybody, before any token."""
    assert refused_for(judged(requirement("own_code", lambda _: True), NOBODY)) == "missing_token"
    seen: list[str | None] = []

    def ask(facts: Facts) -> bool:
        seen.append(facts.client_ip)
        return True

    assert judged(requirement("own_code", ask, anonymous=True), None).allowed
    assert judged(requirement("own_code", ask, anonymous=True), None, peer=None).allowed
    assert seen == [INSIDE, None]


def test_a_test_of_anybody_that_reads_the_caller_opens_nothing() -> None:
    """Where nobody is signed in there is no caller to be mistaken for."""
    wanted = requirement("own_code", lambda facts: facts.principal.sub != "evil", anonymous=True)
    assert refused_for(judged(wanted & optional, NOBODY)) == "policy_error"


async def _yes(facts: Facts) -> bool:
    return True


def test_an_async_test_is_asked_beside_a_network() -> None:
    """An alternative whose answer takes time is waited for, also where it stands beside what needs no token."""
    own = requirement("own_code", _yes, anonymous=True)
    for wanted in (networks("192.0.2.0/24") | own, own | deny, own & ~deny):
        assert judged(wanted, NOBODY).allowed


def test_a_crash_is_told_although_another_alternative_is_reported() -> None:
    """The operator learns of the exception whichever alternative the caller is told of."""
    decision = judged(scopes("c") | requirement("own_code", _raising(ValueError("broken"))))
    assert not decision.allowed
    assert isinstance(decision.error, ValueError)


def test_own_tests_see_the_path_parameters_and_the_time() -> None:
    """The facts are the request, the caller, the address, the converted parameters and the clock."""
    seen: list[Facts] = []

    def ask(facts: Facts) -> bool:
        seen.append(facts)
        return True

    assert judged(requirement("own_code", ask), params={"order": 5}, now=42.0).allowed
    (facts,) = seen
    assert (facts.path_params, facts.now, facts.client_ip) == ({"order": 5}, 42.0, INSIDE)
    assert (facts.principal, facts.method, facts.path) == (ALICE, "GET", "/orders/5")


# ---- concealment


@pytest.mark.parametrize(
    "wanted",
    [
        scopes("c").concealed(),
        scopes("c").concealed() & scopes("d"),
        scopes("d") & (roles("x").concealed() | scopes("e")),
        ~(scopes("a").concealed()),
        (scopes("c") & roles("admin")).concealed(),
        scopes("c").concealed().concealed(),
        anyone.concealed() & scopes("c"),
    ],
    ids=["alone", "in an and", "in an or", "in a not", "around an and", "twice", "of anyone"],
)
def test_one_concealed_part_conceals_the_whole_policy(wanted: Requirement) -> None:
    """Wherever `.concealed()` stands, every refusal of the policy is to look like the app's own 404."""
    for identity in (ALICE, NOBODY, FORGED):
        decision = judged(wanted, identity)
        assert not decision.allowed
        assert decision.concealed


def test_concealment_changes_no_decision() -> None:
    """A concealed requirement lets the same requests pass and keeps its true reason for the log."""
    assert judged(scopes("a").concealed()).allowed
    decision = judged(scopes("c").concealed() & scopes("d"))
    assert (decision.reason, decision.missing_scopes) == (Reason.INSUFFICIENT_SCOPE, ("c", "d"))
    decision = judged(scopes("c").concealed().concealed() & scopes("a"))
    assert decision.required_scopes == ("c", "a")


def test_server_errors_are_not_concealed() -> None:
    """A 5xx is the truth even of a concealed policy: an outage that looks like a 404 would be believed."""
    assert not judged(scopes("a").concealed(), KEYLESS).concealed
    assert not judged(requirement("own_code", _raising(ValueError())).concealed()).concealed
    assert not judged(scopes("a").concealed(), Rejected(Reason.INVALID_REQUEST)).concealed


@given(requirements, identities, peers)
@example(deny & anyone.concealed().concealed(), ALICE, None)
def test_what_is_replaced_by_itself_decides_alike(wanted: Requirement, who: Identity, peer: str | None) -> None:
    """Whatever a requirement is made of, its parts can be replaced one by one."""
    again = wanted.replaced(lambda leaf: leaf)
    assert again.form() == wanted.form()
    assert judged(again, who, peer=peer).allowed == judged(wanted, who, peer=peer).allowed
    closed = wanted.replaced(lambda _: deny)
    assert {str(leaf) for leaf in closed.leaves()} <= {"deny", "anyone"}
