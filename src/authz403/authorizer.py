"""The decision: a policy held against facts. Total and pure; 401 or 403 is decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from authz403.decision import Decision
from authz403.endpoint import Policy
from authz403.facts import Facts
from authz403.leaves import Custom
from authz403.policy import Unmet, anyone
from authz403.problem import whole_seconds
from authz403.reasons import Reason

_FORBIDDEN: Final = 403
_UNAVAILABLE: Final = 503
_RETRY: Final = 5  # seconds, where nobody knows better
_NO_FACTS: Final[Mapping[str, object]] = MappingProxyType({})


def authorize(policy: Policy, facts: Facts) -> Decision | Custom | None:
    """Decide.

    Return the decision; or `None` if the caller must be identified first; or the `Custom` requirement whose async test
    must be awaited first.
    """
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
        retry_after=_retry_after(unmet, status),
        concealed=conceals and _may_be_concealed(status),
        hint=unmet.hint,
        facts=facts,
        error=unmet.error,
    )


def _retry_after(unmet: Unmet, status: int) -> int | None:
    seconds = unmet.rejected.retry_after if unmet.rejected is not None else None
    if seconds is not None:
        return whole_seconds(seconds)
    return _RETRY if status == _UNAVAILABLE else None


def _may_be_concealed(status: int) -> bool:
    """Tell whether a refusal may look like a missing route: not a malformed request, and no failure of the service."""
    return 400 < status < 500  # noqa: PLR2004 - the statuses of RFC 9110 section 15.5, but for 400 itself
