"""A decision explained, as values: what was asked, what applied, who asked, and each check with its result.

Nothing in here holds a token or a key. What others wrote is escaped, so that it can be shown anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Final, Literal

from authz403.audit import harmless_text
from authz403.reasons import Reason

Result = Literal["passed", "failed", "unknown", "not reached"]

PASSED: Final = "passed"
FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
NOT_REACHED: Final = "not reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One requirement held against the request, or a combination of some.

    `words` is the requirement as it is written. `result` is `"passed"`, `"failed"`, `"unknown"` (it cannot be told,
    which refuses as well) or `"not reached"` (the decision did not depend on it any more). `why` says what the request
    has instead, and `reason` what it refuses with. `parts` are what a combination is made of, in the order in which
    they are asked; `joined` says whether `"all"` of them must hold, or `"any"`.
    """

    words: str
    result: Result
    why: str | None = None
    reason: str | None = None
    joined: Literal["", "all", "any"] = ""
    parts: tuple[Check, ...] = ()

    def leaves(self) -> Iterator[Check]:
        """Yield the checks of single requirements."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asked, or why nobody is known.

    `is_known` says that an identity was found, `is_asked_for` that the decision rested on it. `token_field` is the
    header whose token named the caller, `None` where another source did or where that is not known. `reason` and `hint`
    say why nobody is known; what stands beside them then is what a token with a good signature says. Times are in
    seconds since the epoch; `validity` says them in words. `roles` and `permissions` are those after `Rbac`.
    """

    is_known: bool = False
    is_asked_for: bool = True
    token_field: str | None = None
    reason: str | None = None
    hint: str | None = None
    subject: str | None = None
    issuer: str | None = None
    client_id: str | None = None
    audience: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    token_id: str | None = None
    issued_at: float | None = None
    not_before: float | None = None
    expires_at: float | None = None
    validity: str | None = None

    @property
    def is_client(self) -> bool:
        """Whether it is a client that acts for itself, and no user."""
        return self.subject is not None and self.subject == self.client_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Where the request came from: the client's `address`, the other end of the connection, and `how` it was found."""

    address: str | None = None
    peer: str | None = None
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to do about a refusal: for whoever sent the request, and for whoever runs the service."""

    caller: str = ""
    operator: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One decision, and all that led to it.

    `diagnosis` says the cause in one line, and `advice` what to do. `route` is the path of the route that serves the
    request, `endpoint` the name of the function or class; where there is none, `answers_itself` says what the app does
    by itself. `policy` is in words, `written` where it was written (`file:line`), and `is_default` that nobody wrote
    one. `status` is that of the decision; where `concealed`, the caller sees the app's own 404. Where `report_only`,
    the request is let in whatever was decided. `error` is what a policy raised, and `facts` what a handler gave to
    `check`. `is_verified` is false where a token's claims were believed without its signature. `decision_id` is that of
    a log event.
    """

    method: str
    path: str
    allowed: bool
    status: int
    diagnosis: str = ""
    advice: Advice = Advice()
    reason: str | None = None
    remedy: str | None = None
    hint: str | None = None
    detail: str | None = None
    route: str | None = None
    endpoint: str | None = None
    answers_itself: str | None = None
    policy: str | None = None
    written: tuple[str, ...] = ()
    is_default: bool = False
    concealed: bool = False
    report_only: bool = False
    is_verified: bool = True
    caller: Caller = Caller()
    client: Client = Client()
    origin: str | None = None
    checks: tuple[Check, ...] = ()
    required_scopes: tuple[str, ...] = ()
    missing_scopes: tuple[str, ...] = ()
    required_roles: tuple[str, ...] = ()
    missing_roles: tuple[str, ...] = ()
    required_permissions: tuple[str, ...] = ()
    missing_permissions: tuple[str, ...] = ()
    error: str | None = None
    facts: Mapping[str, object] | None = None
    policy_version: str | None = None
    decision_id: str | None = None

    @property
    def asked(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"

    @property
    def known_reason(self) -> Reason | None:
        """The reason as a member of `Reason`; `None` for a code of the service's own."""
        return None if self.reason is None else Reason.__members__.get(self.reason.upper())

    def failing(self) -> Check | None:
        """Return the single check that the refusal tells of; `None` where it is none of the policy's."""
        leaves = [leaf for check in self.checks for leaf in check.leaves()]
        return next((leaf for leaf in leaves if leaf.reason is not None and leaf.reason == self.reason), None)

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON can hold it, every field there: sequences are lists, what has no value is `None`."""
        found = _plain(self)
        assert isinstance(found, dict)  # noqa: S101 - as this is a dataclass
        return found


def _plain(value: object) -> object:
    if isinstance(value, str):
        return harmless_text(value)
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {harmless_text(str(name)): _plain(one) for name, one in value.items()}
    return value if value is None or isinstance(value, bool | int | float) else harmless_text(repr(value))


def text_in(value: object) -> str | None:
    """Return what was given where it is text."""
    return value if isinstance(value, str) else None


def texts_in(value: object) -> tuple[str, ...]:
    """Return the texts of a list, or one that stands alone."""
    if isinstance(value, str):
        return (value,)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list | tuple) else ()
