"""Every reason as people read it, by the command and on the page of the docs, and as a JSON Schema for programs."""

from __future__ import annotations

import json
from typing import Final

from authz403 import Reason
from authz403.authorizer import refusal
from authz403.cli.loading import Failure
from authz403.decision import Decision
from authz403.openapi import denial_schema
from authz403.policy import Kind, Unmet
from authz403.problem import DEFAULT_TYPE_BASE, Problems
from authz403.reasons import REMEDIES

_CURED_BY: Final = {
    "sign_in": "the caller",
    "sign_in_again": "the caller",
    "refresh_token": "the client, without its user",
    "retry_later": "time, or whoever runs the service",
    "fix_request": "whoever writes the client",
    "request_scope": "whoever configures the client at the issuer, and a user who consents",
    "request_role": "whoever hands out roles",
    "change_network": "the caller, or whoever runs the service",
    "contact_owner": "the owner of the resource or of the service",
}
_CURED_BY_OTHERS: Final = {
    Reason.WRONG_ISSUER: "whoever configures the client: most often it is a token of another environment",
    Reason.WRONG_AUDIENCE: "whoever configures the client: it must ask for a token for this service",
    Reason.WRONG_TOKEN_TYPE: "whoever writes the client: it sends an ID or refresh token",
    Reason.NO_POLICY: "whoever writes the service: the endpoint needs a mark or a rule",
    Reason.CLAIM_REQUIRED: "whoever issues the tokens, or the owner of the service",
    Reason.POLICY_ERROR: "whoever writes the service: the log has the exception",
    Reason.ROUTE_MISMATCH: "whoever writes the service: the log has both routes",
    Reason.MISCONFIGURED: "whoever runs the service: the log lists every mistake",
}
_REACTIONS: Final = {
    "sign_in": "start a sign-in, then repeat the request once",
    "sign_in_again": "drop the token, start a sign-in, then repeat the request once",
    "refresh_token": "refresh the token, then repeat the request once; where that fails, sign in again",
    "retry_later": "wait for `Retry-After` (or a few seconds, longer each time), then repeat the same request",
    "fix_request": "do not repeat it; report a bug of the client",
    "request_scope": "ask the issuer for the scopes in `missing_scopes`, then repeat it once; else tell the user",
    "request_role": "do not repeat it; tell the user what is missing and show `decision_id`",
    "change_network": "do not repeat it; show `client_ip`, which the operator needs",
    "contact_owner": "do not repeat it; tell the user, and show `decision_id`, which the owner finds in the log",
}

# Published for identity sources and requirements of your own.
NOT_BY_ITSELF: Final = frozenset({Reason.TOKEN_REVOKED})

_ID: Final = "01JDX3Q8Z6M4T7V2K9C5R1B0NA"
_EXAMPLES: Final = {
    Reason.INSUFFICIENT_SCOPE: Unmet(
        Kind.SCOPE,
        Reason.INSUFFICIENT_SCOPE,
        required_scopes=("orders:read", "orders:write"),
        missing_scopes=("orders:write",),
    ),
    Reason.ROLE_REQUIRED: Unmet(Kind.ROLE, Reason.ROLE_REQUIRED, required_roles=("admin",), missing_roles=("admin",)),
    Reason.PERMISSION_REQUIRED: Unmet(
        Kind.PERMISSION, Reason.PERMISSION_REQUIRED, required_permissions=("orders:refund",)
    ),
    Reason.STEP_UP_REQUIRED: Unmet(
        Kind.AUTHENTICATION, Reason.STEP_UP_REQUIRED, acr_values=("urn:example:mfa",), max_age=300
    ),
}
_PROBLEMS: Final = Problems(realm="orders-api", disclose="full", type_base=DEFAULT_TYPE_BASE)


def cured_by(reason: Reason) -> str:
    """Say who can do something about it."""
    return _CURED_BY_OTHERS.get(reason, _CURED_BY[reason.remedy])


def reaction(reason: Reason) -> str:
    """Say what a client should do."""
    return _REACTIONS[reason.remedy]


def challenge(reason: Reason) -> str | None:
    """Return the WWW-Authenticate header of the example, where the reason has one."""
    return _PROBLEMS.challenge(_PROBLEMS.denial(_decision(reason), _ID, None))


def body(reason: Reason) -> dict[str, object]:
    """Return the body of a refusal as an example: the library's own answer."""
    client_ip = "203.0.113.7" if reason is Reason.IP_NOT_ALLOWED else None
    answer = _PROBLEMS.response(_decision(reason), _ID, client_ip, ())
    found: dict[str, object] = json.loads(answer.body)
    return found


def _decision(reason: Reason) -> Decision:
    return refusal(_EXAMPLES.get(reason, Unmet(Kind.VERDICT, reason)))


# ---- the command


def table() -> str:
    """Return all reasons, a line each."""
    width = max(map(len, Reason))
    return "\n".join(f"{reason.status}  {reason:{width}}  {reason.__doc__}" for reason in _by_status())


def told(code: str) -> str:
    """Return all about one reason; raises `Failure` for a code that is none."""
    try:
        reason = Reason(code.lower())
    except ValueError:
        raise Failure(f"{code!r} is no reason of this library: a service may have codes of its own") from None
    lines = [
        f"{reason} ({reason.status}): {reason.summary}",
        "",
        f"{reason.__doc__}",
        "",
        f"Who can cure it:   {cured_by(reason)}",
        f"What to do:        {REMEDIES[reason.remedy]}",
        f"For a client:      {reaction(reason)}",
        f"WWW-Authenticate:  {challenge(reason) or 'none'}",
        "",
        json.dumps(body(reason), indent=2),
    ]
    return "\n".join(lines)


def json_schema() -> str:
    """Return a JSON Schema (2020-12) of the body, with the reasons as an enum of its own."""
    # A service may tell less than all: what every body has is needed, and whatever one may have is told.
    schema = {**denial_schema("full", ()), "required": denial_schema("code", ())["required"]}
    codes = [str(reason) for reason in Reason]
    known = {
        "title": "Reason",
        "description": "Why a request was refused. New ones may come.",
        "enum": codes,
    }
    own = {"type": "string", "pattern": "^[a-z][a-z0-9_]{2,}$", "description": "A code of the service's own."}
    schema["properties"]["reason"] = {"anyOf": [{"$ref": "#/$defs/Reason"}, own]}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{DEFAULT_TYPE_BASE}denial"}
    return json.dumps({**head, **schema, "$defs": {"Reason": known}}, indent=2)


# ---- the page

_HEAD: Final = """\
# Reasons

<!-- Made by tools/reasons_page.py from the Reason enum and src/authz403/cli/reasons.py: change these, then run
     .venv/bin/python tools/reasons_page.py > docs/reference/reasons.md -->

A refusal has one reason. It stands in the `reason` member of the [body](denial.md), in the `Authz-Reason` header and in
the [log event](log-event.md). In Python, `authz403.Reason` holds them all: `Reason.NOT_OWNER == "not_owner"`, and a
member knows its `status`, `remedy`, `summary` (the title), `detail`, `error` (of the challenge) and `retryable`.
`authz403 reasons` says all of this [on the command line](command-line.md#authz403-reasons), and gives clients in other
languages a JSON Schema.

A published code is never renamed and never used for something else. New ones may come, so a program should look at the
status and the `remedy` where it does not know the reason. A service may add [codes of its
own](../how-to/own-requirements.md); they match `[a-z][a-z0-9_]{2,}` and have status 403.
"""


def page() -> str:
    """Return docs/reference/reasons.md."""
    parts = [_HEAD]
    for status in sorted({reason.status for reason in Reason}):
        parts.append(f"\n## Status {status}\n")
        parts.extend(f"\n{_section(reason)}\n" for reason in Reason if reason.status == status)
    return "".join(parts)


def _section(reason: Reason) -> str:
    header = challenge(reason)
    lines = [
        f"### `{reason}`",
        "",
        f"{reason.__doc__}",
        "",
        f"- Status: {reason.status}",
        f"- Who can cure it: {cured_by(reason)}.",
        f"- Remedy: `{reason.remedy}`. {REMEDIES[reason.remedy]}",
        f"- For a client: {reaction(reason)}.",
        f"- Challenge: {'none' if header is None else f'`{header}`'}",
    ]
    if reason in NOT_BY_ITSELF:
        lines.append("- Nothing in this version gives it by itself: it is for identity sources and checks of your own.")
    lines += ["", "```json", json.dumps(body(reason), indent=2), "```"]
    return "\n".join(lines)


def _by_status() -> list[Reason]:
    return sorted(Reason, key=lambda reason: reason.status)
