from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403 import (
    ConfigurationError,
    Decision,
    Gate,
    Network,
    Requirement,
    Rule,
    anyone,
    authenticated,
    deny,
    requirement,
    roles,
    scopes,
)
from authz403.endpoint import Endpoint, Found, RulesAlone
from authz403.marks import Mark
from authz403.request import AccessRequest
from tests.gates_made import ALICE, NOBODY, NOW, OUTSIDE, Callers, Identity, OneRoute, fulfilled, requirements

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET", "get", "Post", "PROPFIND")


def decided(
    gate: Gate, method: str, path: str, *marks: Requirement, found: bool = True, peer: str | None = None
) -> Decision:
    """Return what a gate decides for a request to an endpoint with these marks, or to none."""
    return fulfilled(gate.decide(AccessRequest(method, path, peer), OneRoute(*marks, found=found))).decision


def gate_of(
    *rules: Rule, identity: Identity = ALICE, default: Requirement = deny, network: Network | None = None
) -> Gate:
    """Return a gate with these rules for which everybody is the same caller."""
    return Gate(tokens=Callers(identity), rules=rules, default=default, network=network, clock=lambda: NOW)


def mistakes_of(make: Callable[[], object]) -> list[tuple[str, str]]:
    """Return field and value of each mistake that a configuration is refused for."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    return [(mistake.field, mistake.value) for mistake in caught.value.mistakes]


# ---- which rule applies


def test_the_first_rule_that_fits_path_and_method_applies() -> None:
    """Order decides, not how narrow a pattern is."""
    gate = gate_of(
        Rule("GET", "/orders/open", anyone),
        Rule("GET", "/orders/*", deny),
        Rule("*", "/orders/**", scopes("a")),
        Rule("*", "/**", anyone),
    )
    assert decided(gate, "GET", "/orders/open").policy == "Rule(GET /orders/open): anyone"
    assert decided(gate, "GET", "/orders/closed").policy == "Rule(GET /orders/*): deny"
    assert decided(gate, "POST", "/orders/open").policy == "Rule(* /orders/**): scopes('a')"
    assert decided(gate, "GET", "/orders/1/lines").policy == "Rule(* /orders/**): scopes('a')"
    assert decided(gate, "GET", "/").policy == "Rule(* /**): anyone"


class SpelledOtherwise(OneRoute):
    """The routes of an app whose only endpoint is at /a, and is served at /a/ too."""

    def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
        found, params = super().find(native)
        return replace(found, own_path="/a"), params


@pytest.mark.parametrize(
    ("rules", "method", "needed"),
    [
        ([Rule("GET", "/a", scopes("x"))], "GET", "scopes('x')"),
        ([Rule("GET", "/a/", scopes("x"))], "GET", "authenticated & scopes('x')"),
        ([Rule("GET", "/a", scopes("x")), Rule("*", "/a/", anyone)], "GET", "scopes('x')"),
        ([Rule("*", "/a/**", scopes("x"))], "GET", "scopes('x')"),
        ([Rule("GET", "/a/", scopes("x"))], "get", "authenticated & no policy & scopes('x')"),
        ([Rule("GET", "/a/", anyone)], "POST", "authenticated & no policy"),
        ([], "GET", "authenticated"),
    ],
)
def test_a_path_that_its_router_takes_for_another_stands_under_the_rules_for_both(
    rules: list[Rule], method: str, needed: str
) -> None:
    """A slash more or less is no way around a rule, whatever was asked before."""
    gate = gate_of(*rules, default=authenticated)
    routes = SpelledOtherwise()
    for _ in range(2):
        outcome = fulfilled(gate.decide(AccessRequest(method, "/a/"), routes))
        assert outcome.decision.policy.rpartition(": ")[2] == needed
        assert all(outcome.decision.policy.count(str(rule)) <= 1 for rule in rules)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/a", "/a", True),
        ("/a", "/a/", False),
        ("/a", "/a/b", False),
        ("/a", "/ab", False),
        ("/a", "/A", False),
        ("/a", "/%61", False),
        ("/a/", "/a/", True),
        ("/a/", "/a", False),
        ("/", "/", True),
        ("/", "", False),
        ("/", "/a", False),
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/", False),
        ("/a/*", "/a", False),
        ("/a/*", "/a/b/c", False),
        ("/*/b", "/a/b", True),
        ("/*/b", "/a/c", False),
        ("/a/**", "/a", True),
        ("/a/**", "/a/", True),
        ("/a/**", "/a/b/c/", True),
        ("/a/**", "/ab", False),
        ("/a/*/**", "/a/b", True),
        ("/a/*/**", "/a", False),
        ("/a/*/c/**", "/a/b/c/d", True),
        ("/**", "/", True),
        ("/**", "", True),
        ("/**", "/a/b", True),
        ("/a b", "/a b", True),
        ("/é", "/é", True),
    ],
)
def test_a_pattern_matches_the_whole_path(pattern: str, path: str, fits: bool) -> None:  # noqa: FBT001 - a column
    """`*` is one segment that is not empty, a final `/**` the path itself and all below; nothing else matches."""
    assert decided(gate_of(Rule("*", pattern, anyone)), "GET", path).allowed is fits


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("methods", "named"),
    [
        ("GET", {"GET", "HEAD"}),
        (["POST", "PUT"], {"POST", "PUT"}),
        ("WEBSOCKET", {"WEBSOCKET"}),
        ("*", set(METHODS)),
        (["GET", "*"], set(METHODS)),
        ("PROPFIND", {"PROPFIND"}),
    ],
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value),
)
def test_a_rule_judges_the_methods_that_it_names(methods: str | list[str], named: set[str], method: str) -> None:
    """GET names HEAD (RFC 9110 section 9.3.2), `*` all and WEBSOCKET; lower-case methods are others, and denied."""
    decision = decided(gate_of(Rule(methods, "/a", anyone), default=anyone), method, "/a")
    assert decision.allowed is (method in named)
    if not decision.allowed:
        assert decision.reason == "no_policy"


def test_a_path_that_rules_name_is_closed_to_methods_that_they_do_not() -> None:
    """An unmarked endpoint beside a rule for another method is denied, whatever `default` says; a marked one is not."""
    gate = gate_of(Rule("GET", "/a/**", anyone), default=anyone)
    assert decided(gate, "POST", "/a/b").reason == "no_policy"
    assert decided(gate, "POST", "/a/b", scopes("a")).allowed
    assert decided(gate, "POST", "/b").allowed
    assert decided(gate, "POST", "/a/b", found=False).allowed


def test_rules_judge_paths_that_no_route_serves() -> None:
    """Behind a rule a stranger cannot tell what exists; elsewhere the app's own 404 follows."""
    gate = gate_of(Rule("*", "/admin/**", roles("admin")))
    for found in (True, False):
        assert decided(gate, "GET", "/admin/x", found=found).reason == "role_required"
    assert decided(gate, "GET", "/x", found=False).allowed
    assert decided(gate, "GET", "/x", found=True).reason == "no_policy"


# ---- rules, marks, default and the service together


def test_rule_and_marks_all_hold() -> None:
    """Neither `anyone` in a rule nor one in a mark opens what the other closes."""
    gate = gate_of(Rule("GET", "/open", anyone), Rule("GET", "/closed", scopes("c")), Rule("GET", "/denied", deny))
    assert decided(gate, "GET", "/open", scopes("d")).missing_scopes == ("d",)
    assert decided(gate, "GET", "/closed", anyone).missing_scopes == ("c",)
    decision = decided(gate, "GET", "/closed", scopes("d"), scopes("a"))
    assert (set(decision.required_scopes), set(decision.missing_scopes)) == ({"a", "c", "d"}, {"c", "d"})
    assert decided(gate, "GET", "/denied", anyone).reason == "access_denied"
    assert decided(gate, "GET", "/open", deny).reason == "access_denied"


def test_default_applies_where_no_rule_and_no_mark_does() -> None:
    """`default` is no floor: a mark or a rule takes its place; a plain `deny` is told as `no_policy`."""
    gate = gate_of(Rule("GET", "/open", anyone), default=scopes("c"))
    assert decided(gate, "GET", "/other").missing_scopes == ("c",)
    assert decided(gate, "GET", "/other", anyone).allowed
    assert decided(gate, "GET", "/open").allowed
    assert decided(gate_of(), "GET", "/").reason == "no_policy"
    assert decided(gate_of(default=~anyone), "GET", "/").reason == "access_denied"
    assert decided(gate_of(default=authenticated, identity=NOBODY), "GET", "/").reason == "missing_token"


def test_the_networks_of_the_service_hold_for_every_request() -> None:
    """`Network(allow=, deny=)` closes endpoints, rules and paths that no route serves; deny wins."""
    network = Network(allow=["10.0.0.0/8"], deny=["10.6.6.0/24"])
    gate = gate_of(Rule("GET", "/open", anyone), default=anyone, network=network)
    for path, found in (("/open", True), ("/other", True), ("/missing", False)):
        assert decided(gate, "GET", path, found=found, peer="10.1.1.1").allowed
        for peer in ("10.6.6.6", OUTSIDE, None):
            decision = decided(gate, "GET", path, found=found, peer=peer)
            assert decision.reason == "ip_not_allowed", (path, peer)


def test_an_unknown_address_fails_allow_and_nothing_else() -> None:
    """A deny list alone does not close the service to peers that have no address."""
    gate = gate_of(default=anyone, network=Network(deny=["198.51.100.0/24"]))
    assert decided(gate, "GET", "/", peer=None).allowed
    assert decided(gate, "GET", "/", peer="10.1.1.1").allowed
    assert decided(gate, "GET", "/", peer=OUTSIDE).reason == "ip_not_allowed"
    hint = decided(gate_of(default=anyone, network=Network(allow=["10.0.0.0/8"])), "GET", "/", peer=None).hint
    assert hint == "the client's address is not known"


def test_methods_of_a_class_based_endpoint_have_marks_of_their_own() -> None:
    """A method's mark holds for it alone, and in whatever case the method came, as the endpoint finds it."""

    class Routes(RulesAlone):
        def __init__(self) -> None:
            by_method = {"DELETE": [Mark(roles("admin"), "x.py:2")]}
            self.found = Found(Endpoint("/", "View", [Mark(scopes("a"), "x.py:1")], by_method))

        def find(self, native: object) -> tuple[Found, Mapping[str, object]]:
            return self.found, {}

    gate, routes = gate_of(), Routes()

    def decision(method: str) -> Decision:
        return fulfilled(gate.decide(AccessRequest(method, "/"), routes)).decision

    assert decision("GET").allowed
    assert decision("PROPFIND").allowed
    for method in ("DELETE", "delete", "Delete"):
        assert decision(method).reason == "role_required"


def test_the_requirements_of_marks_are_told_to_who_asks_for_them() -> None:
    """`needs` in a dependency finds its own requirement among those that were decided, alone or combined."""
    one, other, ruled = scopes("a"), roles("seller"), scopes("b")
    gate = gate_of(Rule("*", "/**", ruled))
    both = one & other
    outcome = fulfilled(gate.decide(AccessRequest("GET", "/"), OneRoute(both)))
    assert {id(one), id(other), id(both)} <= outcome.demanded
    assert id(ruled) not in outcome.demanded
    choice = ~(one | other).concealed()
    outcome = fulfilled(gate.decide(AccessRequest("GET", "/"), OneRoute(choice)))
    assert {id(one), id(other), id(choice)} <= outcome.demanded


def test_a_table_of_routes_serves_many_requests() -> None:
    """Decisions about one endpoint by different rules and methods do not mix, in any order."""
    gate = gate_of(Rule("GET", "/a", scopes("a")), Rule("GET", "/b", scopes("c")), default=anyone)
    routes = OneRoute()
    expected = {
        ("GET", "/a"): None,
        ("GET", "/b"): "insufficient_scope",
        ("PUT", "/a"): "no_policy",
        ("PUT", "/c"): None,
    }
    for _ in range(3):
        for (method, path), reason in expected.items():
            assert fulfilled(gate.decide(AccessRequest(method, path), routes)).decision.reason == reason


def test_invented_methods_do_not_fill_the_memory() -> None:
    """What a client makes up is one entry, not one each."""
    gate, routes = gate_of(Rule("*", "/**", scopes("a"))), OneRoute()
    for number in range(100):
        assert fulfilled(gate.decide(AccessRequest(f"X{number}", "/"), routes)).decision.allowed
    endpoint = routes.found[0].endpoint
    assert endpoint is not None
    assert len(endpoint.policies) == 1


@given(
    st.lists(st.tuples(st.sampled_from(["GET", "*", "POST"]), st.sampled_from(["/a", "/*", "/a/**"]), requirements)),
    requirements,
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["/a", "/b", "/a/b"]),
)
def test_a_mark_never_opens_what_was_closed(
    written: list[tuple[str, str, Requirement]], mark: Requirement, method: str, path: str
) -> None:
    """Whatever rules say, another mark on a marked endpoint closes or changes nothing."""
    rules: list[Rule] = []
    for methods, pattern, wanted in written:
        rule = Rule(methods, pattern, wanted)
        if not any(earlier.covers(rule) for earlier in rules):
            rules.append(rule)
    gate = gate_of(*rules)
    if not decided(gate, method, path, anyone).allowed:
        assert not decided(gate, method, path, anyone, mark).allowed


# ---- mistakes


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(lambda: Rule("get", "/a", anyone), [("methods", "'get'")], id="lower-case"),
        pytest.param(lambda: Rule(["GET", "Post"], "/a", anyone), [("methods", "'Post'")], id="mixed case"),
        pytest.param(lambda: Rule("websocket", "/a", anyone), [("methods", "'websocket'")], id="websocket"),
        pytest.param(lambda: Rule("GET POST", "/a", anyone), [("methods", "'GET POST'")], id="two in one"),
        pytest.param(lambda: Rule("", "/a", anyone), [("methods", "''")], id="empty"),
        pytest.param(lambda: Rule([], "/a", anyone), [("methods", "[]")], id="none"),
        pytest.param(
            lambda: Rule(cast("Any", [5]), "/a", anyone), [("methods[0]", "5"), ("methods", "[]")], id="a number"
        ),
        pytest.param(
            lambda: Rule(cast("Any", None), "/a", anyone), [("methods", "None"), ("methods", "[]")], id="nothing"
        ),
        pytest.param(lambda: Rule("GET", "a", anyone), [("path", "'a'")], id="no slash"),
        pytest.param(lambda: Rule("GET", "", anyone), [("path", "''")], id="no path"),
        pytest.param(lambda: Rule("GET", cast("str", None), anyone), [("path", "None")], id="path None"),
        pytest.param(lambda: Rule("GET", "/a/../b", anyone), [("path", "'/a/../b'")], id="dot segments"),
        pytest.param(lambda: Rule("GET", "//a", anyone), [("path", "'//a'")], id="two slashes"),
        pytest.param(lambda: Rule("GET", "/a\n", anyone), [("path", "'/a\\n'")], id="line break"),
        pytest.param(lambda: Rule("GET", "/a\\b", anyone), [("path", "'/a\\\\b'")], id="backslash"),
        pytest.param(lambda: Rule("GET", "/{id}", anyone), [("path", "'/{id}'")], id="parameter"),
        pytest.param(lambda: Rule("GET", "/a*", anyone), [("path", "'/a*'")], id="star within a segment"),
        pytest.param(lambda: Rule("GET", "/**/a", anyone), [("path", "'/**/a'")], id="two stars within"),
        pytest.param(lambda: Rule("GET", "/a**", anyone), [("path", "'/a**'")], id="two stars without a slash"),
        pytest.param(
            lambda: Rule("GET", "/a", cast("Any", "admin")), [("requirement", "'admin'")], id="requirement a string"
        ),
        pytest.param(
            lambda: Rule("get", "a", cast("Any", None)),
            [("methods", "'get'"), ("path", "'a'"), ("requirement", "None")],
            id="all wrong",
        ),
    ],
)
def test_a_wrong_rule_is_refused_where_it_is_written(
    make: Callable[[], object], expected: list[tuple[str, str]]
) -> None:
    """Every mistake of a rule is told at once, with field and value."""
    assert mistakes_of(make) == expected


ONE: Final = scopes("a")


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Rule("*", "/**", ONE), Rule("GET", "/a", ONE)),
        (Rule("GET", "/a", ONE), Rule("GET", "/a", deny)),
        (Rule("*", "/a", ONE), Rule(["HEAD", "GET"], "/a", ONE)),
        (Rule("GET", "/a", ONE), Rule(["HEAD", "GET"], "/a", ONE)),
        (Rule("*", "/a/*", ONE), Rule("WEBSOCKET", "/a/b", ONE)),
        (Rule("*", "/a/**", ONE), Rule("*", "/a", ONE)),
        (Rule("*", "/a/**", ONE), Rule("*", "/a/*/**", ONE)),
        (Rule("*", "/a/*", ONE), Rule("*", "/a/*", ONE)),
        (Rule(["GET", "POST"], "/**", ONE), Rule("POST", "/**", ONE)),
    ],
    ids=str,
)
def test_a_rule_that_an_earlier_one_shadows_is_refused(earlier: Rule, later: Rule) -> None:
    """A rule that can never apply is a policy that somebody believes in and nobody enforces."""
    assert mistakes_of(lambda: gate_of(Rule("*", "/other", ONE), earlier, later)) == [("rules[2]", repr(str(later)))]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (Rule("GET", "/a", ONE), Rule("*", "/a", ONE)),
        (Rule("POST", "/a", ONE), Rule("GET", "/a", ONE)),
        (Rule("GET", "/a", ONE), Rule(["GET", "POST"], "/a", ONE)),
        (Rule("*", "/a", ONE), Rule("*", "/*", ONE)),
        (Rule("*", "/a", ONE), Rule("*", "/a/**", ONE)),
        (Rule("*", "/a", ONE), Rule("*", "/a/", ONE)),
        (Rule("*", "/a/*", ONE), Rule("*", "/a/**", ONE)),
        (Rule("*", "/a/*", ONE), Rule("*", "/a/", ONE)),
        (Rule("*", "/a/*/**", ONE), Rule("*", "/a/**", ONE)),
        (Rule("*", "/*/b", ONE), Rule("*", "/a/*", ONE)),
        (Rule("WEBSOCKET", "/a", ONE), Rule("GET", "/a", ONE)),
    ],
    ids=str,
)
def test_a_rule_that_leaves_something_is_no_shadow(earlier: Rule, later: Rule) -> None:
    """Overlapping rules are fine as long as each can apply."""
    assert gate_of(earlier, later).policy_version


def test_every_shadowed_rule_is_told_with_the_one_that_hides_it() -> None:
    """The error names both rules, so that it can be corrected without a search."""
    with pytest.raises(ConfigurationError) as caught:
        gate_of(Rule("*", "/a/**", ONE), Rule("GET", "/a", ONE), Rule("PUT", "/b", ONE), Rule("PUT", "/b", deny))
    assert [mistake.field for mistake in caught.value.mistakes] == ["rules[1]", "rules[3]"]
    assert "rules[0], Rule(* /a/**), applies first" in str(caught.value)


def test_rules_are_rules() -> None:
    """One rule instead of a list, or something else in the list, is told."""
    assert mistakes_of(lambda: Gate(rules=cast("Any", Rule("GET", "/a", ONE))))[0][0] == "rules"
    assert mistakes_of(lambda: Gate(rules=cast("Any", 5))) == [("rules", "5")]
    assert mistakes_of(lambda: Gate(rules=cast("Any", [Rule("GET", "/a", ONE), "x", ("GET", "/b", ONE)])))[0] == (
        "rules[1]",
        "'x'",
    )
    assert mistakes_of(lambda: Gate(default=cast("Any", None))) == [("default", "None")]


def test_rules_may_come_from_a_generator() -> None:
    """Any iterable of rules will do."""
    gate = Gate(rules=(Rule("GET", path, anyone) for path in ("/a", "/b")))
    assert decided(gate, "GET", "/b").allowed


def test_a_policy_that_crashes_denies_and_another_path_is_untouched() -> None:
    """One broken requirement closes what it stands for, and nothing else."""
    gate = gate_of(Rule("*", "/broken", requirement("own_code", lambda _: 1 / 0 > 0)), default=anyone)
    decision = decided(gate, "GET", "/broken")
    assert (decision.reason, decision.status) == ("policy_error", 500)
    assert isinstance(decision.error, ZeroDivisionError)
    assert decided(gate, "GET", "/fine").allowed


@pytest.mark.parametrize("methods", ["HEAD", ["HEAD", "POST"]], ids=str)
def test_a_rule_does_not_tell_head_from_get(methods: str | list[str]) -> None:
    """RFC 9110 section 9.3.2: HEAD is GET without the content, so that opening it alone would open GET's handler."""
    with pytest.raises(ConfigurationError, match="HEAD is judged as GET"):
        Rule(methods, "/x", anyone)
    assert Rule(["HEAD", "GET"], "/x", anyone).named == Rule("GET", "/x", anyone).named
