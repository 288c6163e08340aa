from dataclasses import replace
from ipaddress import ip_address
from typing import Final

import pytest
from hypothesis import example, given

from authz403 import (
    Decision,
    Reason,
    Requirement,
    any_permission,
    any_role,
    any_scope,
    anyone,
    authenticated,
    deny,
    networks,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.authorizer import authorize, refusal
from authz403.endpoint import Endpoint, Policy
from authz403.facts import Facts, Rejected
from authz403.leaves import Custom
from authz403.marks import Mark
from authz403.policy import Kind, Unmet
from authz403.principal import Principal
from authz403.request import AccessRequest
from authz403.rules import Rules
from tests.gates_made import ALICE, FORGED, INSIDE, NOBODY, NOW, OUTSIDE, Identity, identities, peers, requirements

REQUEST: Final = AccessRequest("GET", "/")


def policy_of(wanted: Requirement) -> Policy:
    """Return the policy that asks for one requirement."""
    return Rules((), anyone, None).policy(Endpoint("/", "x", [Mark(wanted, "x.py:1")]), None, "GET", path_named=False)


def facts_of(identity: Identity | None, address: str | None = "10.1.2.3") -> Facts:
    """Return the facts of a request of this caller from this address."""
    return Facts(REQUEST, identity, None if address is None else ip_address(address), now=NOW)


def test_what_is_met_is_allowed_in_the_words_of_the_policy() -> None:
    """An allowed request gets the policy's own decision, ready made."""
    policy = policy_of(scopes("a"))
    assert authorize(policy, facts_of(ALICE)) is policy.allowed


@pytest.mark.parametrize("reason", list(Reason), ids=str)
def test_the_reason_decides_the_status(reason: Reason) -> None:
    """401 or 403 is a matter of the reason alone: a known caller without a right is never sent to sign in."""
    decision = authorize(policy_of(authenticated), facts_of(Rejected(reason, "hint")))
    assert isinstance(decision, Decision)
    assert (decision.allowed, decision.reason, decision.status, decision.hint) == (False, reason, reason.status, "hint")
    assert decision.policy == "marks: authenticated"


def test_a_code_of_the_users_own_is_a_403() -> None:
    """A code that the library does not know refuses a known caller, so signing in would not help."""
    decision = authorize(policy_of(requirement("plan_expired", lambda _: False)), facts_of(ALICE))
    assert isinstance(decision, Decision)
    assert (decision.reason, decision.status) == ("plan_expired", 403)


def test_without_the_caller_it_asks_for_the_caller() -> None:
    """Where the policy depends on who asks, nothing is decided before that is known."""
    assert authorize(policy_of(scopes("a")), facts_of(None)) is None
    assert authorize(policy_of(networks("192.0.2.0/24") | scopes("a")), facts_of(None)) is None
    assert authorize(policy_of(~scopes("a")), facts_of(None)) is None


def test_without_the_caller_it_decides_what_needs_no_caller() -> None:
    """A token is not looked at for a request that passes or fails without it."""
    assert isinstance(authorize(policy_of(networks("192.0.2.0/24") & scopes("a")), facts_of(None)), Decision)
    assert isinstance(authorize(policy_of(networks("10.0.0.0/8") | scopes("a")), facts_of(None)), Decision)
    assert isinstance(authorize(policy_of(anyone), facts_of(None)), Decision)


def test_an_async_test_is_handed_back_to_be_asked() -> None:
    """The core awaits nothing: it names the requirement and goes on with its answer."""

    async def test(facts: Facts) -> bool:
        return True

    own = requirement("own_code", test)
    policy, facts = policy_of(own & authenticated), facts_of(ALICE)
    assert authorize(policy, facts) is own
    for answer, allowed in ((True, True), (False, False), (ValueError("x"), False), ("yes", False)):
        assert isinstance(own, Custom)
        decision = authorize(policy, replace(facts, answers={id(own): answer}))
        assert isinstance(decision, Decision)
        assert decision.allowed is allowed


@pytest.mark.parametrize("reason", list(Reason), ids=str)
def test_only_400_and_5xx_are_told_of_a_concealed_policy(reason: Reason) -> None:
    """What the caller or the server did wrong in form is no secret; whether the thing exists is."""
    decision = refusal(Unmet(Kind.VERDICT, reason), conceals=True)
    assert decision.concealed is (reason.status in {401, 403})
    assert not refusal(Unmet(Kind.VERDICT, reason)).concealed


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(None, 5), (0.0, 1), (0.2, 1), (1.0, 1), (1.01, 2), (59.5, 60), (-3.0, 1)]
)
def test_retry_after_is_whole_seconds_and_never_too_early(retry_after: float | None, seconds: int | None) -> None:
    """RFC 9110 section 10.2.3: delay-seconds is a non-negative decimal integer; 0 would be asked at once."""
    identity = Rejected(Reason.KEYS_UNAVAILABLE, retry_after=retry_after)
    decision = authorize(policy_of(scopes("a")), facts_of(identity))
    assert isinstance(decision, Decision)
    assert decision.retry_after == seconds


def test_what_only_the_log_may_know_is_in_the_decision() -> None:
    """Facts of a check and the exception of a crash reach the log."""
    error = ValueError("x")
    decision = refusal(Unmet(Kind.OWN, "own_code", error=error), "words", facts={"order": 7})
    assert (decision.policy, decision.facts, decision.error) == ("words", {"order": 7}, error)


@given(requirements, identities, peers)
def test_authorizing_is_total_and_pure(wanted: Requirement, identity: Identity, peer: str | None) -> None:
    """The same facts give the same decision, however often, and nothing is raised."""
    policy, facts = policy_of(wanted), facts_of(identity, peer)
    first = authorize(policy, facts)
    again = authorize(policy, facts)
    if isinstance(first, Decision) and isinstance(again, Decision):
        # Exceptions are equal only to themselves.
        first, again = first._replace(error=None), again._replace(error=None)
    assert first == again


@pytest.mark.parametrize("identity", [NOBODY, FORGED], ids=["no token", "bad token"])
def test_a_claim_of_any_size_is_a_decision(identity: Identity) -> None:
    """Numbers beyond floating point in `auth_time` are refused like any other, by a value and not by an exception."""
    wanted = authenticated.stepped_up(max_age=60)
    for auth_time in (10**400, -(10**400), float("inf"), float("nan"), "x", None):
        caller = type(ALICE)(sub="alice", claims={"auth_time": auth_time})
        decision = authorize(policy_of(wanted), facts_of(caller))
        assert isinstance(decision, Decision)
        assert decision.reason is Reason.STEP_UP_REQUIRED
    assert isinstance(authorize(policy_of(wanted), facts_of(identity)), Decision)


@pytest.mark.parametrize("wanted", [deny, networks("192.0.2.0/24"), deny & scopes("a"), ~anyone], ids=repr)
def test_a_known_caller_is_held_against_what_needs_no_token_too(wanted: Requirement) -> None:
    """CWE-863: whoever hands in the caller at once gets the decision about the whole policy."""
    decision = authorize(policy_of(wanted), facts_of(ALICE))
    assert isinstance(decision, Decision)
    assert not decision.allowed


@given(requirements, identities, peers)
@example(scopes("a", "c"), ALICE, INSIDE)
@example(any_scope("c", "d"), ALICE, INSIDE)
@example(roles("seller", "admin"), ALICE, INSIDE)
@example(any_role("admin"), ALICE, INSIDE)
@example(permissions("orders:refund", "x"), ALICE, INSIDE)
@example(any_permission("x"), ALICE, INSIDE)
@example(networks("10.0.0.0/8") & scopes("a"), ALICE, OUTSIDE)
@example(networks("10.0.0.0/8") & scopes("a"), ALICE, None)
def test_what_is_told_at_once_is_what_checking_tells(wanted: Requirement, identity: Identity, peer: str | None) -> None:
    """The short way of most requests allows nothing that the long way refuses."""
    policy, facts = policy_of(wanted), facts_of(identity, peer)
    may_ask = all(is_met(None, facts.address) for is_met in policy.before)
    if may_ask:
        assert policy.first.check(facts) is None
        assert policy.rest.needs_identity
    if isinstance(identity, Principal) and may_ask and all(is_met(identity, facts.address) for is_met in policy.then):
        assert authorize(policy, facts) is policy.allowed


@pytest.mark.parametrize(
    "wanted",
    [
        authenticated,
        scopes("a"),
        any_scope("a", "x"),
        roles("seller"),
        any_role("seller", "x"),
        permissions("orders:refund"),
        any_permission("orders:refund", "x"),
        networks("10.0.0.0/8") & scopes("a") & roles("seller"),
        scopes("a").concealed(),
    ],
    ids=repr,
)
def test_what_most_policies_ask_for_is_told_at_once(wanted: Requirement) -> None:
    """Sets are compared, and nothing else is made, where a caller has what is asked for."""
    policy, facts = policy_of(wanted), facts_of(ALICE)
    assert all(is_met(None, facts.address) for is_met in policy.before)
    assert all(is_met(ALICE, facts.address) for is_met in policy.then)


@pytest.mark.parametrize(
    "wanted",
    [anyone, deny, networks("10.0.0.0/8"), networks("10.0.0.0/8") | scopes("a"), requirement("own", lambda _: True)],
    ids=repr,
)
def test_a_token_is_asked_for_at_once_only_where_nothing_else_will_do(wanted: Requirement) -> None:
    """What may be settled without a token goes the long way, which finds that out."""
    policy = policy_of(wanted)
    if wanted.tokenless:
        assert not all(is_met(None, facts_of(None).address) for is_met in policy.before)
    assert not policy.then or not all(is_met(ALICE, facts_of(None).address) for is_met in policy.then)
