"""What a change of the policy means, in sentences that reviewers understand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403 import Principal, Requirement
from authz403.cli.changes import Kind, changes, compared
from authz403.cli.lockfile import Lock, read_lock
from authz403.facts import Rejected
from tests.gates_made import IDENTITIES, PEERS, judged, requirements


def lock(*lines: str) -> Lock:
    """Return the policy that these lines tell."""
    return read_lock("\n".join(["version: 1", *lines]), "authz.lock")


def told(before: list[str], after: list[str]) -> list[str]:
    """Return all changes between two files, as they are shown."""
    return [str(change) for change in changes(lock(*before), lock(*after))]


MAY = "before: some requests may pass that did not"
FENCED = "service(allow=['10.0.0.0/8'], deny=['10.6.6.6'])"
NOT_ENFORCED = "enforced: no, every request passes"
ORDER = "GET /orders/{id} (read_order): "


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("scopes('orders:read')", "anyone", "loosened, scopes('orders:read') is no longer needed: anyone may call it"),
        ("authenticated & scopes('a')", "authenticated", "loosened, scopes('a') is no longer needed"),
        ("scopes('a', 'b', 'c')", "scopes('b')", "loosened, scopes('a', 'c') is no longer needed"),
        (
            "roles('x') & scopes('a')",
            "authenticated",
            "loosened, authenticated is enough, where scopes('a') & roles('x') was needed",
        ),
        (
            "networks('10.0.0.0/8') & roles('x') & scopes('a')",
            "scopes('a')",
            "loosened, networks('10.0.0.0/8') and roles('x') are no longer needed",
        ),
        (
            "scopes('a')",
            "any_role('x') | scopes('a')",
            "loosened, scopes('a') | any_role('x') is enough, where scopes('a') was needed",
        ),
        (
            "networks('10.1.0.0/16') & scopes('a')",
            "networks('10.0.0.0/8') & scopes('a')",
            "loosened, networks('10.0.0.0/8') is enough, where networks('10.1.0.0/16') was needed",
        ),
        ("no_policy", "scopes('a')", "loosened, it was closed (no_policy), and now it needs scopes('a')"),
        ("deny", "anyone", "loosened, it was closed (deny), and now anyone may call it"),
        ("anyone", "scopes('a')", "tightened, scopes('a') is needed now"),
        ("scopes('a')", "scopes('a', 'b')", "tightened, scopes('b') is needed now"),
        (
            "any_role('x', 'y')",
            "any_role('x')",
            "tightened, any_role('x') is needed, where any_role('x', 'y') was enough",
        ),
        ("scopes('a')", "deny", "tightened, it is closed now (deny), and it needed scopes('a') before"),
        (
            "scopes('a')",
            "scopes('b')",
            f"changed, it needs scopes('b') now, and it needed scopes('a') {MAY}",
        ),
        (
            "claim('x', function())",
            "claim('x', function()) & scopes('a')",
            f"changed, it needs scopes('a') & claim('x', function()) now, and it needed claim('x', function()) {MAY}",
        ),
        (
            "scopes('a')",
            "scopes('a').concealed()",
            "changed, the same requests pass, and refusals look like a missing route now",
        ),
        (
            "scopes('a').concealed()",
            "scopes('a')",
            "changed, the same requests pass, and refusals no longer look like a missing route",
        ),
        ("scopes('a').concealed()", "anyone", "loosened, scopes('a') is no longer needed: anyone may call it"),
        (
            "any_scope('a')",
            "scopes('a')",
            "reworded, the same requests pass; it reads scopes('a') now",
        ),
    ],
)  # fmt: skip
def test_a_change_of_a_policy_is_told_in_a_sentence(before: str, after: str, sentence: str) -> None:
    """What is no longer needed, what is needed now, and what is not proven."""
    assert told([ORDER + before], [ORDER + after]) == [f"GET /orders/{{id}}: {sentence}"]


@given(requirements, requirements, st.sampled_from(IDENTITIES), st.sampled_from(PEERS))
def test_loosened_and_tightened_are_never_wrong(
    one: Requirement, other: Requirement, who: Principal | Rejected, peer: str | None
) -> None:
    """Where it is said to be tightened, nobody gets in who did not; where loosened, nobody is kept out who did."""
    for before, after in ((one, other), (one, one & other), (one | other, one), (one & other, one), (one, ~other)):
        found = compared(before.form(), after.form())
        was, now = judged(before, who, peer=peer).allowed, judged(after, who, peer=peer).allowed
        if found is None or found[0] is Kind.REWORDED:
            assert was == now
        elif found[0] is Kind.TIGHTENED:
            assert was or not now, f"{before!r} to {after!r} was said to be tightened"
        elif found[0] is Kind.LOOSENED:
            assert now or not was, f"{before!r} to {after!r} was said to be loosened"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], ["GET /x (x): anyone"], ["GET /x: new, anyone may call it"]),
        ([], ["GET /x (x): scopes('a')"], ["GET /x: new, it needs scopes('a')"]),
        (
            [],
            ["GET /x (x): no_policy"],
            ["GET /x: new, nobody wrote a policy for it, and nobody may call it (no_policy)"],
        ),
        (["GET /x (x): scopes('a')"], [], ["GET /x: removed, it needed scopes('a')"]),
        (["GET /x (x): anyone"], [], ["GET /x: removed, anyone might call it"]),
        (
            ["GET /x (x): scopes('a')"],
            ["GET /x (y): scopes('a')"],
            ["GET /x: moved, y serves it, and x did before; the policy is the same"],
        ),
        (
            ["GET /x (x): scopes('a')"],
            ["GET /v2/x (x): scopes('a')"],
            ["GET /v2/x: moved, it was GET /x; the policy is the same"],
        ),
        (
            ["GET /x (x): scopes('a')"],
            ["GET /v2/x (x): anyone"],
            ["GET /v2/x: loosened, scopes('a') is no longer needed: anyone may call it; it was GET /x"],
        ),
        (
            ["GET /x (x): scopes('a')", "GET /y (x): scopes('a')"],
            ["GET /z (x): scopes('a')"],
            [
                "GET /z: new, it needs scopes('a')",
                "GET /x: removed, it needed scopes('a')",
                "GET /y: removed, it needed scopes('a')",
            ],
        ),
        (
            ["GET /x (x): scopes('a')"],
            ["GET /x (y): anyone", "GET /x (x): scopes('a')"],
            ["GET /x: loosened, scopes('a') is no longer needed: anyone may call it"],
        ),
        (
            ["GET /x (x): scopes('a')", "GET /x (y): scopes('b')"],
            ["GET /x (y): scopes('b', 'c')", "GET /x (x): scopes('a', 'd')"],
            ["GET /x: tightened, scopes('c') is needed now", "GET /x: tightened, scopes('d') is needed now"],
        ),
        (
            ["GET /f/{p} (f): scopes('a')"],
            ["GET /f/{p} on /f/open/** (f): anyone", "GET /f/{p} (f): scopes('a')"],
            ["GET /f/{p} on /f/open/**: loosened, scopes('a') is no longer needed: anyone may call it"],
        ),
        (
            ["GET /f/{p} on /f/secret/** (f): roles('x')", "GET /f/{p} (f): anyone"],
            ["GET /f/{p} (f): anyone"],
            ["GET /f/{p} on /f/secret/**: loosened, roles('x') is no longer needed: anyone may call it"],
        ),
        (
            ["GET /f/{p} on /f/a/** (f): scopes('a')", "GET /f/{p} (f): scopes('b')"],
            ["GET /f/{p} on /f/** (f): scopes('a')", "GET /f/{p} (f): scopes('b')"],
            [
                f"GET /f/{{p}} on /f/**: changed, it needs scopes('a') now, and it needed scopes('b') {MAY}",
                f"GET /f/{{p}} on /f/a/**: changed, it needs scopes('b') now, and it needed scopes('a') {MAY}",
            ],
        ),
        (
            ["* /x (x): scopes('a')"],
            ["GET /x (x): anyone", "* /x (x): scopes('a')"],
            ["GET /x: loosened, scopes('a') is no longer needed: anyone may call it"],
        ),
        (
            ["* /x (x): scopes('a')"],
            ["GET /x (x): scopes('a')", "* /x (x): scopes('a')"],
            ["GET /x: reworded, rules tell other requests apart now; its policy is the same"],
        ),
        (
            ["GET /x (x): anyone", "* /x (x): no_policy"],
            ["* /x (x): scopes('a')"],
            [
                "* /x: loosened, it was closed (no_policy), and now it needs scopes('a')",
                "GET /x: tightened, scopes('a') is needed now",
            ],
        ),
        (
            ["default: deny"],
            ["default: anyone"],
            ["what has no policy: loosened, it was closed (deny), and now anyone may call it"],
        ),
        (
            ["every request: service(allow=['10.0.0.0/8'])"],
            ["every request: anyone"],
            ["every request: loosened, service(allow=['10.0.0.0/8']) is no longer needed: anyone may call it"],
        ),
        (
            ["every request: service(allow=['10.0.0.0/8'])"],
            [f"every request: {FENCED}"],
            [
                f"every request: tightened, {FENCED} is needed, where service(allow=['10.0.0.0/8']) was enough",
            ],
        ),
        ([], [NOT_ENFORCED], ["every request: loosened, refusals are only reported: every request passes"]),
        ([NOT_ENFORCED], [], ["every request: tightened, refusals are enforced, and were only reported before"]),
        (
            [],
            ["roles: looked up by function('shop.roles_for')"],
            ["roles: changed, they are found by function('shop.roles_for'), and in the token before"],
        ),
    ],
)  # fmt: skip
def test_every_kind_of_change_is_told(before: list[str], after: list[str], expected: list[str]) -> None:
    """Endpoints that come, go and move; parts of paths and methods that rules tell apart; what holds for all."""
    assert told(before, after) == expected


SELLER = "role 'seller': grants 'orders:refund'"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [SELLER], "role 'seller': loosened, it grants the permission 'orders:refund'"),
        ([SELLER], [], "role 'seller': tightened, it no longer grants the permission 'orders:refund'"),
        (
            [],
            ["role 'admin': includes 'seller', 'viewer'"],
            "role 'admin': loosened, it includes the roles 'seller', 'viewer'",
        ),
        (
            ["role 'admin': includes 'seller'"],
            ["role 'admin': includes 'viewer'"],
            "role 'admin': changed, it includes the role 'viewer' and no longer includes the role 'seller'",
        ),
        (
            ["role 'admin': includes 'seller'", SELLER],
            ["role 'admin': includes 'seller'", "role 'admin': grants 'orders:refund'", SELLER],
            "role 'admin': changed, it grants the permission 'orders:refund'",
        ),
        (
            ["GET /x (x): ~roles('seller')"],
            ["GET /x (x): ~roles('seller')", "role 'admin': includes 'seller'"],
            "role 'admin': changed, it includes the role 'seller'",
        ),
        (
            ["GET /x (x): requirement('own')"],
            ["GET /x (x): requirement('own')", "role 'admin': includes 'seller'"],
            "role 'admin': changed, it includes the role 'seller'",
        ),
    ],
)  # fmt: skip
def test_what_roles_mean_is_a_part_of_the_policy(before: list[str], after: list[str], expected: str) -> None:
    """Whoever holds a role gets in by what it stands for; where lacking it opens something, no direction is proven."""
    assert told(before, after) == [expected]


def test_what_opens_something_comes_first() -> None:
    """A reviewer reads the first line, and it is the one that matters."""
    before = ["GET /a (a): anyone", "GET /b (b): scopes('b')", "GET /c (c): scopes('c')", "GET /d (d): scopes('d')"]
    after = ["GET /a (a): scopes('a')", "GET /b (b): anyone", "GET /c (c): scopes('x')", "GET /e (e): scopes('e')"]
    kinds = [change.kind for change in changes(lock(*before), lock(*after))]
    assert kinds == [Kind.LOOSENED, Kind.CHANGED, Kind.NEW, Kind.TIGHTENED, Kind.REMOVED]


def test_the_same_policy_has_no_changes() -> None:
    """Order and comments say nothing."""
    lines = ["GET /a (a): scopes('a', 'b')", "POST /a (a): claim('level', function())", SELLER]
    assert told(lines, ["# a comment", *reversed(lines), ""]) == []
