"""What shows only when a gate meets an app: every mistake of that meeting, reported at once."""

from __future__ import annotations

from typing import Final

from authz403.coverage import covered
from authz403.errors import Mistakes
from authz403.gate import Gate
from authz403.policy import deny
from authz403.request import WEBSOCKET
from authz403.routing import AppRoutes, Served
from authz403.rules import Rule

_MOST_TOLD: Final = 20
_MARK_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", WEBSOCKET)


def check_app(gate: Gate, routes: AppRoutes | None) -> None:
    """Raise one `ConfigurationError` with everything that does not fit between a gate and an app."""
    mistakes = Mistakes("the gate for this app")
    served = [] if routes is None else routes.walk.served
    if routes is not None:
        mistakes.take(routes.walk.mistakes)
        if not gate.shared:
            for number, rule in enumerate(gate.rules.rules):
                if not any(_can_apply(rule, one) for one in served):
                    why = (
                        "no route of this app can match it; correct it, or say shared=True if it is for something else"
                    )
                    mistakes.add(f"rules[{number}]", str(rule), why)
    if not gate.has_tokens:
        for what in _needing_tokens(gate, served):
            mistakes.add("tokens", None, f"{what} asks who the caller is, and the gate has no source of identities")
    for one in served:
        if one.endpoint.takes_identity and not _identity_is_ensured(gate, one):
            why = "it takes CurrentPrincipal, and its policy does not ask for an identity; take MaybePrincipal"
            mistakes.add("endpoint", f"{one.endpoint.route} {one.endpoint.name}", why)
    mistakes.raise_if_any()
    if routes is not None:
        _tell_of_default(gate, routes)


def _tell_of_default(gate: Gate, routes: AppRoutes) -> None:
    """List once what nobody wrote a policy for."""
    unwritten = [f"{row.method} {row.path}" for row in covered(routes.walk, gate.rules) if row.is_default]
    if unwritten:
        more = f" and {len(unwritten) - _MOST_TOLD} more" if len(unwritten) > _MOST_TOLD else ""
        told = ", ".join(unwritten[:_MOST_TOLD]) + more
        gate.audit.warn_once(
            "default_applies", f"nobody wrote a policy for {told}: the default applies, {gate.default!r}"
        )


def _can_apply(rule: Rule, served: Served) -> bool:
    if not rule.pattern.meets(served.pattern):
        return False
    return rule.named is None or served.methods is None or not rule.named.isdisjoint(served.methods)


def _needing_tokens(gate: Gate, served: list[Served]) -> list[str]:
    found = [str(rule) for rule in gate.rules.rules if rule.requirement.needs_identity]
    if gate.default.needs_identity:
        found.append("default")
    for one in served:
        marks = [mark for method in _MARK_METHODS for mark in one.endpoint.marks_for(method)]
        if any(mark.requirement.needs_identity for mark in marks):
            found.append(one.endpoint.route)
    return list(dict.fromkeys(found))


def _identity_is_ensured(gate: Gate, served: Served) -> bool:
    """Tell whether some policy that applies to an endpoint lets nobody in but known callers."""
    endpoint = served.endpoint
    for method in served.methods or _MARK_METHODS:
        if any(mark.requirement.ensures_identity() for mark in endpoint.marks_for(method)):
            return True
    rules = [rule for rule in gate.rules.rules if _can_apply(rule, served)]
    if any(rule.requirement.ensures_identity() for rule in rules):
        return True
    return not endpoint.marks and not rules and (gate.default.ensures_identity() or gate.default is deny)
