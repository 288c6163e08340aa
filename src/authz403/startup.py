"""What shows only when a gate meets an app: every mistake of that meeting, reported at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from authz403.cors import ORIGIN
from authz403.coverage import covered
from authz403.csrf import protects
from authz403.endpoint import Covered, Served, Walked
from authz403.errors import ConfigurationError, Mistakes
from authz403.gate import Gate, as_gate
from authz403.leaves import Param
from authz403.paths import PathPattern
from authz403.policy import Requirement, deny
from authz403.request import WEBSOCKET
from authz403.rules import Rule
from authz403.tokens import BearerTokens

T = TypeVar("T")

_MOST_TOLD: Final = 20
_COOKIE: Final = "cookie"


def meeting(part: str, gate: Gate | Callable[[], Gate], meet: Callable[[Gate], T]) -> T | ConfigurationError:
    """Bring a gate and an app together by `meet`, which raises where they do not fit; return the error then.

    `part` is the enforcement point that they meet at.
    """
    try:
        return meet(as_gate(gate))
    except ConfigurationError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a factory or an app that raises here is a mistake of the configuration
        mistakes = Mistakes(part)
        mistakes.add_secret("gate", f"meeting the app raised {error!r}")
        failure = ConfigurationError(part, mistakes)
        failure.__cause__ = error
        return failure


def check_app(gate: Gate, walk: Walked | None) -> None:
    """Raise one `ConfigurationError` with everything that does not fit between a gate and an app."""
    mistakes = Mistakes("the gate for this app")
    rows = () if walk is None else tuple(covered(walk, gate.rules))
    if walk is not None:
        mistakes.take(walk.mistakes)
        mistakes.take(walk.misplaced())
        _check_rules(mistakes, gate, walk.served)
        _check_params(mistakes, rows)
        _check_origins(mistakes, gate, rows)
    _check_identities(mistakes, gate, rows)
    mistakes.raise_if_any()
    asked = [rule.requirement for rule in gate.rules.rules]
    policies = (*asked, gate.default, *(row.requirement for _, row in rows))
    gate.findings.watch(policies)
    gate.watch(policies)
    if walk is not None:
        _tell_of_default(gate, rows)
        _tell_of_betrayal(gate, walk)


def _check_rules(mistakes: Mistakes, gate: Gate, served: Sequence[Served]) -> None:
    """Note every rule that nothing in the app can match."""
    for number, rule in enumerate(() if gate.shared else gate.rules.rules):
        if not any(_can_apply(rule, one) for one in served):
            why = "no route of this app can match it; correct it, or say shared=True if it is for something else"
            near = _near(rule, served)
            mistakes.add(f"rules[{number}]", str(rule), f"{why} (there is {near})" if near else why)


def _can_apply(rule: Rule, served: Served) -> bool:
    if not rule.pattern.meets(served.pattern):
        return False
    return rule.named is None or served.methods is None or not rule.named.isdisjoint(served.methods | served.answered)


def _near(rule: Rule, served: Iterable[Served]) -> str | None:
    """Return the route that a rule may have been meant for: with a slash more or less, or another method."""
    for one in served:
        if rule.pattern.meets(one.pattern):
            return f"{one.endpoint.route}, for {', '.join(sorted(one.methods or ()))}"
        if _without_slash(rule.pattern).meets(_without_slash(one.pattern)):
            return one.endpoint.route
    return None


def _without_slash(pattern: PathPattern) -> PathPattern:
    segments = pattern.segments
    return PathPattern(segments[:-1] if segments[-1:] == ("",) else segments, pattern.below)


def _check_params(mistakes: Mistakes, rows: Iterable[tuple[Served, Covered]]) -> None:
    """Note every path parameter that a policy names and its route does not have."""
    told = set[tuple[str, str]]()
    for served, row in rows:
        for leaf in row.requirement.leaves():
            if isinstance(leaf, Param) and leaf.name not in served.params and (leaf.name, row.path) not in told:
                told.add((leaf.name, row.path))
                mistakes.add(
                    "param", leaf.name, f"{row.path} has no path parameter {leaf.name} (see {', '.join(row.written)})"
                )


def _check_origins(mistakes: Mistakes, gate: Gate, rows: Iterable[tuple[Served, Covered]]) -> None:
    """Note a WebSocket that any page may open with the cookie of its visitor (RFC 6455 section 10.2)."""
    sources = [source for source in gate.sources if not isinstance(source, BearerTokens)]
    read = frozenset[str]().union(*(source.fields for source in sources))
    # A source that reads Origin itself knows what it does.
    if gate.cors is None and _COOKIE in read and ORIGIN not in read:
        opened = [
            row.path
            for _, row in rows
            if row.method == WEBSOCKET and row.requirement.needs_identity and not protects(row.requirement)
        ]
        if opened:
            why = (
                f"a page of any origin could open {', '.join(dict.fromkeys(opened))} with its visitor's cookie; "
                "say cors=Cors(origins=[...]) with the origins that may, or add csrf_protected(...) to its policy"
            )
            mistakes.add("cors", None, why)


def _check_identities(mistakes: Mistakes, gate: Gate, rows: Iterable[tuple[Served, Covered]]) -> None:
    """Note what asks who the caller is where nobody can say it, and what takes the caller without asking."""
    if not gate.has_tokens:
        needing: list[str] = [str(rule) for rule in gate.rules.rules if rule.requirement.needs_identity]
        if gate.default.needs_identity:
            needing.append("default")
        needing += [
            row.path
            for served, row in rows
            if any(mark.requirement.needs_identity for mark in served.endpoint.all_marks())
        ]
        for what in dict.fromkeys(needing):
            mistakes.add("tokens", None, f"{what} asks who the caller is, and the gate has no source of identities")
    told = set[int]()
    for served, row in rows:
        endpoint = served.endpoint
        if endpoint.takes_identity and _lets_strangers_in(row.requirement) and id(endpoint) not in told:
            told.add(id(endpoint))
            why = "it takes CurrentPrincipal, and its policy does not ask for an identity; take MaybePrincipal"
            part = f" for {row.part}" if row.part is not None else ""
            mistakes.add("endpoint", f"{row.method} {endpoint.route}{part} {endpoint.name}", why)


def _lets_strangers_in(requirement: Requirement) -> bool:
    return not requirement.ensures_identity() and bool(requirement.alternatives(1))


def _tell_of_default(gate: Gate, rows: Iterable[tuple[Served, Covered]]) -> None:
    """List once what nobody wrote a policy for."""
    unwritten: dict[str, list[str]] = defaultdict(list)
    for _, row in rows:
        if row.is_default:
            by_default = gate.default is deny or row.requirement.alternatives(1)
            holds = f"the default applies, {gate.default!r}" if by_default else "rules name other methods there: closed"
            unwritten[holds].append(f"{row.method} {row.part or row.path}")
    for holds, names in unwritten.items():
        more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
        told = ", ".join(names[:_MOST_TOLD]) + more
        gate.audit.warn_once("default_applies", f"nobody wrote a policy for {told}: {holds}")


def _tell_of_betrayal(gate: Gate, walk: Walked) -> None:
    """Say once that what is concealed can be told from what is missing."""
    if walk.answers_itself and (walk.conceals or gate.rules.conceals):
        where = ", ".join(dict.fromkeys(walk.answers_itself))
        gate.audit.warn_once(
            "concealed_differs",
            f"{where} answers unknown paths by a default or frontend of its own, and concealed ones by the usual 404",
        )
