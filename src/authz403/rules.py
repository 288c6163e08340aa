"""Which policy applies: rules by path, marks and guards of the endpoint, and the default.

All that apply must hold. The table of combinations is filled once per pair of rule and endpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from authz403.decision import Decision
from authz403.endpoint import Betrayed, Endpoint, Found, Place, Policies, Policy
from authz403.errors import Mistakes
from authz403.marks import Mark
from authz403.paths import PathIndex, PathPattern, parse_pattern
from authz403.policy import IsMet, Requirement, all_of, anyone, deny, fields_of, in_two, no_policy
from authz403.request import KNOWN_METHODS, TOKEN

ANY_METHOD: Final = "*"
_MOST_JOINED: Final = 4_096


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy for paths: `Rule("GET", "/health", anyone)`, `Rule("*", "/admin/**", any_role("admin"))`.

    `methods` is one method or a list; `GET` names `HEAD` too, `"*"` names all methods and `WEBSOCKET`. In `path`, which
    is what the app's router sees, `*` is one segment and a final `/**` the path itself and all below. Raises
    `ConfigurationError` listing every mistake.
    """

    methods: str | Iterable[str]
    path: str
    requirement: Requirement
    named: frozenset[str] | None = field(init=False, repr=False, compare=False)
    pattern: PathPattern = field(init=False, repr=False, compare=False)
    where: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mistakes = Mistakes("Rule")
        methods = (self.methods,) if isinstance(self.methods, str) else mistakes.strings("methods", self.methods)
        for method in methods:
            if TOKEN.fullmatch(method) is None or (method != method.upper() and method.upper() in KNOWN_METHODS):
                mistakes.add(
                    "methods",
                    method,
                    f"a method such as GET, WEBSOCKET or * is needed; case matters: write {method.upper()}",
                )
        if not methods:
            mistakes.add("methods", [], "name a method, or * for all")
        if "HEAD" in methods and not {"GET", ANY_METHOD}.intersection(methods):
            mistakes.add("methods", "HEAD", "HEAD is judged as GET: name GET, which names both")
        pattern = parse_pattern(self.path) if isinstance(self.path, str) else "a path is needed"
        if isinstance(pattern, str):
            mistakes.add("path", self.path, pattern)
        if not isinstance(self.requirement, Requirement):
            mistakes.add("requirement", self.requirement, "a requirement is needed, such as scopes(...) or anyone")
        mistakes.raise_if_any()
        named = frozenset(methods)
        # RFC 9110 section 9.3.2: HEAD is GET without the content, so that it is judged as GET.
        named = named | {"HEAD"} if "GET" in named else named
        put = object.__setattr__
        put(self, "methods", methods[0] if len(methods) == 1 else methods)
        put(self, "named", None if ANY_METHOD in named else named)
        put(self, "pattern", pattern)
        frame = sys._getframe(2)  # noqa: SLF001 - the documented way to learn who calls: __init__ is between
        put(self, "where", f"{frame.f_code.co_filename}:{frame.f_lineno}")

    def covers(self, other: Rule) -> bool:
        """Tell whether this rule, standing earlier, matches every request that the other rule matches."""
        methods = self.named is None or (other.named is not None and other.named <= self.named)
        return methods and self.pattern.covers(other.pattern)

    def __str__(self) -> str:
        methods = self.methods if isinstance(self.methods, str) else ",".join(self.methods)
        return f"Rule({methods} {self.path})"


class Rules:
    """The rules of one gate, with its default and what every request must meet."""

    def __init__(self, rules: Sequence[Rule], default: Requirement, service: Requirement | None) -> None:
        self.rules = tuple(rules)
        self._index: PathIndex[tuple[int, Rule]] = PathIndex(
            (rule.pattern, (number, rule)) for number, rule in enumerate(self.rules)
        )
        self._default = no_policy if default is deny else default
        self._service = () if service is None else (service,)
        self._bare: dict[int | None, Policy] = {}
        # Joined policies with their parts, which keeps the parts' ids theirs.
        self._joined: dict[tuple[int, int], tuple[Policy, Policy, Policy]] = {}
        self.conceals = default.conceals or any(rule.requirement.conceals for rule in self.rules)
        self.fields = fields_of(default).union(*(fields_of(rule.requirement) for rule in self.rules))

    def rule_for(self, path: str, method: str) -> tuple[int | None, bool]:
        """Return the number of the first rule for path and method, and whether any rule names the path."""
        if not self.rules:
            return None, False
        found = self._index.find(path)
        for number, rule in found:
            if rule.named is None or method in rule.named:
                return number, True
        return None, bool(found)

    def policy_for(self, found: Found, path: str, method: str) -> Policy:
        """Return what a request must meet, given what the app's own router would do with it."""
        endpoint = found.endpoint
        if endpoint is None or found.betrayed is not None or found.own_path is not None:
            if endpoint is not None and found.own_path is not None:
                return self._as_spelled(replace(found, own_path=None), endpoint, found.own_path, path, method)
            return self._policy_for(found, path, method)
        policies = endpoint.policies
        if policies.rules is not self:
            return self._policy_for(found, path, method)
        policy = policies.by_method.get(method)
        if policy is not None:
            return policy
        if path[-1:] == "/":
            return self._policy_for(found, path, method)
        # The index gives the very same tuple wherever the same rules name the path, and keeps it.
        key = (id(self._index.find(path)), method)
        policy = policies.by_rules.get(key)
        if policy is None:
            policy = self._policy_for(found, path, method)
            if method in KNOWN_METHODS:
                policies.by_rules[key] = policy
        return policy

    def _policy_for(self, found: Found, path: str, method: str) -> Policy:
        endpoint = found.endpoint
        number, path_named = self.rule_for(path, method)
        if endpoint is None:
            policy = self.bare_policy(number)
        else:
            policy = self.policy(endpoint, number, method, path_named=path_named)
            if method in KNOWN_METHODS and self._is_same_on_all_paths(endpoint):
                endpoint.policies.by_method[method] = policy
            upper = method.upper()
            if upper != method:
                # Some endpoints find their method without regard to case, so that its rule holds besides.
                policy = self.both(policy, self.bare_policy(self.rule_for(path, upper)[0]))
            if endpoint.resolves_paths and path[-1:] == "/":
                # A file server finds the same file with a slash behind its name, and by the rule for that name.
                shorter, shorter_named = self.rule_for(path.rstrip("/"), method)
                if shorter_named and shorter != number:
                    policy = self.both(policy, self.policy(endpoint, shorter, method, path_named=True))
        return policy if found.betrayed is None else self._with_betrayed(policy, found.betrayed)

    def _as_spelled(self, found: Found, endpoint: Endpoint, own_path: str, path: str, method: str) -> Policy:
        """Return the policy of a route that takes another spelling of its path: the rules for both hold."""
        policy = self.policy_for(found, own_path, method)
        for named in dict.fromkeys((method, method.upper())):
            number, path_named = self.rule_for(path, named)
            if path_named:
                policy = self.both(policy, self.policy(endpoint, number, named, path_named=True))
        return policy

    def _is_same_on_all_paths(self, endpoint: Endpoint) -> bool:
        """Tell whether every rule that names some path of an endpoint names them all."""
        pattern = endpoint.pattern
        return all(rule.pattern.covers(pattern) or not rule.pattern.meets(pattern) for rule in self.rules)

    def _with_betrayed(self, policy: Policy, betrayed: Betrayed) -> Policy:
        """Return a policy with that of a concealed route besides which a 405 or a redirect would betray."""
        for method in betrayed.methods:
            number, path_named = self.rule_for(betrayed.path, method)
            told = self.policy(betrayed.endpoint, number, method, path_named=path_named)
            if told.conceals:
                return self.both(policy, told)
        return policy

    def missing_at(self, place: Place, path: str, method: str) -> int | None:
        """Return the router that answers for what is concealed: the one that holds it, or the whole group of it."""
        number, _ = self.rule_for(path, method)
        if number is not None and self.rules[number].requirement.conceals:
            pattern = self.rules[number].pattern
            for group, router in place.mounts:
                if pattern.covers(group):
                    return router
        return place.missing_at

    def policy(self, endpoint: Endpoint, number: int | None, method: str, *, path_named: bool) -> Policy:
        """Return what a request to an endpoint must meet, given the rule that applies."""
        policies = endpoint.policies
        if policies.rules is not self:
            policies = endpoint.policies = Policies(self)
        found = policies.get((number, path_named, method))
        if found is None:
            if endpoint.by_method:
                method = method.upper()  # a class-based endpoint finds its method without regard to case
            # A client may invent methods; they all share one entry.
            known = method if method in KNOWN_METHODS or method in endpoint.by_method else ""
            key = (number, path_named, known)
            found = policies.get(key)
            if found is None:
                found = policies[key] = self._combined(endpoint.marks_for(known), number, path_named=path_named)
        return found

    def bare_policy(self, number: int | None) -> Policy:
        """Return what a request must meet that no endpoint takes: the rule, and what holds for all."""
        found = self._bare.get(number)
        if found is None:
            parts = (*self._service, *(() if number is None else (self.rules[number].requirement,)))
            words = "" if number is None else str(self.rules[number])
            found = self._bare[number] = _policy(parts, words, ())
        return found

    def both(self, one: Policy, other: Policy) -> Policy:
        """Return the policy that holds where both do; each was made once, and so is this."""
        if one is other:
            return one
        key = (id(one), id(other))
        found = self._joined.get(key)
        if found is None:
            words = "; ".join(policy.words for policy in (one, other) if policy.requirement is not anyone)
            joined = _policy((one.requirement, other.requirement), words, ())
            joined = replace(joined, demanded=one.demanded | other.demanded)
            if len(self._joined) >= _MOST_JOINED:
                self._joined.clear()  # those of routes that are gone
            found = self._joined[key] = (joined, one, other)
        return found[0]

    def _combined(self, marks: tuple[Mark, ...], number: int | None, *, path_named: bool) -> Policy:
        parts = [*self._service]
        words = []
        if number is not None:
            parts.append(self.rules[number].requirement)
            words.append(str(self.rules[number]))
        parts.extend(mark.requirement for mark in marks)
        if marks:
            words.append("marks")
        elif number is None:
            # Rules that name the path but not this method are a policy that does not include it.
            parts.append(no_policy if path_named else self._default)
            words.append("default")
        return _policy(parts, ", ".join(words), marks)


def _policy(parts: Iterable[Requirement], words: str, marks: Iterable[Mark]) -> Policy:
    requirement = all_of(parts)
    first, rest = in_two(requirement)
    demanded = frozenset(id(leaf) for mark in marks for leaf in (mark.requirement, *mark.requirement.leaves()))
    fields = fields_of(requirement)
    told = f"{words}: {requirement!r}" if words else repr(requirement)
    before = _AT_ONCE_NEVER if fields or rest is anyone or rest.tokenless else _at_once(first)
    is_looked_up = before is not _AT_ONCE_NEVER and first.is_fixed and rest.asks_names and not requirement.conceals
    return Policy(
        requirement,
        first,
        rest,
        told,
        Decision(allowed=True, policy=told, concealed=requirement.conceals),
        requirement.conceals,
        demanded,
        before=before,
        then=_at_once(rest),
        fields=fields,
        unsent=dict.fromkeys(fields, ()),
        is_looked_up=is_looked_up or requirement is anyone,
    )


def _at_once(requirement: Requirement) -> tuple[IsMet, ...]:
    found = requirement.at_once()
    return _AT_ONCE_NEVER if found is None else found


_AT_ONCE_NEVER: Final[tuple[IsMet, ...]] = (lambda *_: False,)


def as_rules(mistakes: Mistakes, rules: object) -> tuple[Rule, ...]:
    """Return the rules of `Gate(rules=)`, noting what is none."""
    if isinstance(rules, Rule) or not isinstance(rules, Iterable):
        mistakes.add("rules", rules, "a list of Rule(...) is needed")
        return ()
    listed = tuple(rules)
    for index, rule in enumerate(listed):
        if not isinstance(rule, Rule):
            mistakes.add(f"rules[{index}]", rule, "a Rule(...) is needed")
    return tuple(rule for rule in listed if isinstance(rule, Rule))


def shadowed_rules(mistakes: Mistakes, rules: Sequence[Rule]) -> None:
    """Note every rule that an earlier one leaves nothing for."""
    for later, rule in enumerate(rules):
        for earlier in range(later):
            if rules[earlier].covers(rule):
                why = f"never reached: rules[{earlier}], {rules[earlier]}, applies first; move this one up"
                mistakes.add(f"rules[{later}]", str(rule), why)
                break
