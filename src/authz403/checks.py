"""Checks inside a handler, for what only the handler knows: whose order this is."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from authz403.decision import Outcome
from authz403.errors import AccessDenied, ConfigurationError, Mistake
from authz403.reasons import Reason
from authz403.requirements import own_code_or_reason

current: Final[ContextVar[Outcome | None]] = ContextVar("authz403_outcome", default=None)
"""The outcome of the request that is being answered; set by the middleware around the app."""


def check(condition: bool, reason: Reason | str, **facts: object) -> None:  # noqa: FBT001 - reads as a sentence
    """Refuse unless `condition` is true: `check(order.owner == user.sub, Reason.NOT_OWNER, order=order.id)`.

    `reason` is a `Reason` or a code of your own; `facts` go to the log event. Raises `AccessDenied`, which the
    middleware turns into the answer; `TypeError` where `condition` is not a bool; `ConfigurationError` where no gate
    decided the request, since nobody would answer then.
    """
    outcome = decided_outcome("check")
    if not isinstance(condition, bool):
        raise TypeError(f"check takes True or False, not {type(condition).__name__}")
    code = own_code_or_reason("check", reason)
    if not condition:
        denied = AccessDenied(code, **facts)
        if not outcome.report_only:
            raise denied
        outcome.check_failed = denied


def decided_outcome(part: str) -> Outcome:
    """Return the outcome of the current request; a `ConfigurationError` where no gate decided it."""
    outcome = current.get()
    if outcome is None:
        why = "no gate decided this request; wrap the app in AuthzMiddleware"
        raise ConfigurationError(part, [Mistake("gate", "", why)])
    return outcome
