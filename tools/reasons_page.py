"""Prints docs/reference/reasons.md, made from the Reason enum: tools/reasons_page.py > docs/reference/reasons.md."""

from typing import Final

from authz403 import Reason

HEAD: Final = """\
# Reasons

<!-- Made by tools/reasons_page.py from the Reason enum: change the enum, then run
     .venv/bin/python tools/reasons_page.py > docs/reference/reasons.md -->

A refusal has one reason. It stands in the `reason` member of the [body](denial.md), in the `Authz-Reason` header and in
the [log event](log-event.md). In Python, `authz403.Reason` holds them all: `Reason.NOT_OWNER == "not_owner"`, and a
member knows its `status`, `remedy`, `summary` (the title), `detail`, `error` (of the challenge) and `retryable`.

A published code is never renamed and never used for something else. New ones may come, so a program should look at the
status and the `remedy` where it does not know the reason. A service may add [codes of its
own](../how-to/own-requirements.md); they match `[a-z][a-z0-9_]{2,}` and have status 403.
"""

REMEDIES: Final = {
    "sign_in": "Sign in, and send the access token as `Authorization: Bearer <token>`.",
    "sign_in_again": "Sign in again, and send the new access token.",
    "refresh_token": "Use the refresh token to get a new access token.",
    "retry_later": "Send the same request again later; `Retry-After`, where it is there, says after how many seconds.",
    "fix_request": "Correct the request; the same one will be refused again.",
    "request_scope": "Ask the issuer for a token that has the scopes named.",
    "request_role": "Ask whoever hands out roles for what is named.",
    "change_network": "Call from an allowed network, or ask the operator to allow the address.",
    "contact_owner": "Nothing that the caller can do alone: ask the owner of the resource or of the service.",
}

# Published for identity sources and requirements of your own.
NOT_BY_ITSELF: Final = frozenset({Reason.TOKEN_REVOKED})


def challenge(reason: Reason) -> str:
    """Return what the WWW-Authenticate header of a reason says."""
    if reason.error is not None:
        more = {"insufficient_scope": ", `scope`", "insufficient_user_authentication": ", `acr_values`, `max_age`"}
        return f'`error="{reason.error}"`{more.get(reason.error, "")}'
    return "`Bearer realm=...` alone" if reason.status == 401 else "none"  # noqa: PLR2004 - every 401 has one


def section(reason: Reason) -> str:
    """Return the part of the page about one reason."""
    lines = [
        f"### `{reason}`",
        "",
        f"{reason.__doc__}",
        "",
        f"- Status: {reason.status}",
        f"- Remedy: `{reason.remedy}`. {REMEDIES[reason.remedy]}",
        f"- Challenge: {challenge(reason)}",
        f"- Title and detail: {reason.summary}. {reason.detail.replace('<', '&lt;')}",
    ]
    if reason in NOT_BY_ITSELF:
        lines.append("- Nothing in this version gives it by itself: it is for identity sources and checks of your own.")
    return "\n".join(lines)


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for status in sorted({reason.status for reason in Reason}):
        parts.append(f"\n## Status {status}\n")
        parts.extend(f"\n{section(reason)}\n" for reason in Reason if reason.status == status)
    return "".join(parts)


if __name__ == "__main__":
    print(page(), end="")
