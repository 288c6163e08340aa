"""The decision: a policy held against facts. Total and pure; 401 or 403 is decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from authz403.decision import Decision
from authz403.endpoint import Policy
from authz403.leaves import Custom
from authz403.policy import Facts, Unmet, anyone
from authz403.problem import whole_seconds
from authz403.reasons import Reason

_FORBIDDEN: Final = 403
_NOT_CONCEALED: Final = 500  # from here on, and for 400, the truth is told even of a concealed policy
_BAD_REQUEST: Final = 400
_NO_FACTS: Final[Mapping[str, object]] = MappingProxyType({})


def authorize(policy: Policy, facts: Facts) -> Decision | Custom | None:
    """Decide. Where it cannot be told yet, return `None` for the caller's identity or the requirement to be asked."""
    unmet = policy.first.check(facts)
    if unmet is None:
        if policy.rest is anyone:
            return policy.allowed
        if facts.identity is None and not policy.rest.tokenless:
            return None
        unmet = policy.rest.check(facts)
    if unmet is None:
        return policy.allowed
    if unmet.waiting is True:
        return None
    if isinstance(unmet.waiting, Custom):
        return unmet.waiting
    return refusal(unmet, policy.words, conceals=policy.conceals)


def refusal(
    unmet: Unmet, words: str = "", *, conceals: bool = False, facts: Mapping[str, object] = _NO_FACTS
) -> Decision:
    """Return the decision that refuses for one thing that is not met."""
    reason = unmet.reason
    status = reason.status if isinstance(reason, Reason) else _FORBIDDEN
    rejected = unmet.rejected
    retry_after = rejected.retry_after if rejected is not None else None
    return Decision(
        allowed=False,
        policy=words,
        reason=reason,
        status=status,
        remedy=unmet.remedy,
        detail=unmet.detail,
        required_scopes=unmet.required_scopes,
        missing_scopes=unmet.missing_scopes,
        required_roles=unmet.required_roles,
        missing_roles=unmet.missing_roles,
        required_permissions=unmet.required_permissions,
        missing_permissions=unmet.missing_permissions,
        acr_values=unmet.acr_values,
        max_age=unmet.max_age,
        retry_after=None if retry_after is None else whole_seconds(retry_after),
        concealed=conceals and status < _NOT_CONCEALED and status != _BAD_REQUEST,
        hint=unmet.hint,
        facts=facts,
        error=unmet.error,
    )
