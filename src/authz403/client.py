"""For clients: a refusal read back from any HTTP library's response, of this library or of any OAuth server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from authz403.decision import Denial
from authz403.reasons import Reason

_PROBLEM_JSON: Final = "application/problem+json"
_LARGEST_BODY: Final = 256 * 1024  # bytes; a refusal is small
# RFC 9110 section 11.2: auth-param = token BWS "=" BWS ( token / quoted-string )
_AUTH_PARAM: Final = re.compile(r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s",]+)\s*(?:,|\Z)""")
_SCHEME: Final = re.compile(r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]+|(?=,)|\Z)")
_EMPTY: Final = re.compile(r"\s*,")
_STATUSES: Final = frozenset({400, 401, 403, 404, 500, 503})
# RFC 6750 section 3.1 and RFC 9470 section 3: what the error of a bare challenge says
_BY_ERROR: Final[Mapping[str, Reason]] = {
    "invalid_request": Reason.INVALID_REQUEST,
    "invalid_token": Reason.INVALID_TOKEN,
    "insufficient_scope": Reason.INSUFFICIENT_SCOPE,
    "insufficient_user_authentication": Reason.STEP_UP_REQUIRED,
}
_REASONS: Final = {reason.value: reason for reason in Reason}


def parse_denial(
    status: int, headers: Mapping[str, str] | Iterable[tuple[str, str]], body: bytes | str = b""
) -> Denial | None:
    """Return the refusal that a response is, or `None`: `parse_denial(r.status_code, r.headers, r.content)`.

    Reads this library's problem document (RFC 9457) and, from any other server, a bare Bearer challenge (RFC 6750,
    RFC 9470). Never raises for what a server sent; parts that it did not send, or not in their shape, stay empty.
    """
    if status not in _STATUSES:
        return None
    fields = _fields(headers)
    challenge = _bearer_challenge(fields.get("www-authenticate", []))
    # Other servers' JSON has reasons too, which mean something else.
    is_problem = all(value.lower().startswith(_PROBLEM_JSON) for value in fields.get("content-type", []))
    document = _document(body) if is_problem or "authz-reason" in fields else {}
    told = document.get("reason")
    reason = told if isinstance(told, str) and told else next(iter(fields.get("authz-reason", [])), "")
    if not reason:
        if challenge is None:
            return None
        error = challenge.get("error", "")
        known = _BY_ERROR.get(error, Reason.INVALID_TOKEN if error else Reason.MISSING_TOKEN)
        reason = known.value
    return _denial(status, reason, document, challenge or {}, fields)


def _denial(
    status: int,
    reason: str,
    document: Mapping[str, object],
    challenge: Mapping[str, str],
    fields: Mapping[str, list[str]],
) -> Denial:
    known = _REASONS.get(reason)
    required = _strings(document.get("required_scopes")) or tuple(challenge.get("scope", "").split())
    return Denial(
        status=status,
        reason=reason,
        title=_string(document.get("title")) or (known.summary if known else ""),
        detail=_string(document.get("detail")) or challenge.get("error_description", ""),
        remedy=_string(document.get("remedy")) or (known.remedy if known else ""),
        retryable=document["retryable"] is True if "retryable" in document else bool(known and known.retryable),
        type=_string(document.get("type")) or "about:blank",
        required_scopes=required,
        missing_scopes=_strings(document.get("missing_scopes")),
        required_roles=_strings(document.get("required_roles")),
        required_permissions=_strings(document.get("required_permissions")),
        acr_values=_strings(document.get("acr_values")) or tuple(challenge.get("acr_values", "").split()),
        max_age=_seconds(document.get("max_age", challenge.get("max_age"))),
        client_ip=_string(document.get("client_ip")) or None,
        retry_after=_seconds(next(iter(fields.get("retry-after", [])), None)),
        decision_id=_string(document.get("decision_id")) or next(iter(fields.get("authz-decision", [])), None),
    )


def _fields(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        if isinstance(name, str) and isinstance(value, str):
            fields.setdefault(name.lower(), []).append(value)
    return fields


def _document(body: bytes | str) -> Mapping[str, object]:
    if len(body) > _LARGEST_BODY:
        return {}
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _bearer_challenge(lines: Iterable[str]) -> dict[str, str] | None:
    """Return the parameters of the first Bearer challenge (RFC 9110 section 11.6.1: several may share a line)."""
    for line in lines:
        position, scheme = 0, ""
        found: dict[str, str] | None = None
        while position < len(line):
            parameter = _AUTH_PARAM.match(line, position)
            if parameter is not None:
                if scheme == "bearer" and found is not None:
                    found.setdefault(parameter[1].lower(), _unquoted(parameter[2]))
                position = parameter.end()
                continue
            empty = _EMPTY.match(line, position)
            if empty is not None:
                position = empty.end()
                continue
            if found is not None:
                break
            named = _SCHEME.match(line, position)
            if named is None:
                comma = line.find(",", position)
                position = len(line) if comma < 0 else comma + 1
                continue
            scheme = named[1].lower()
            found = {} if scheme == "bearer" else None
            position = named.end()
        if found is not None:
            return found
    return None


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _strings(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _seconds(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # RFC 9110 section 10.2.3: Retry-After may be a date too; it is left to the caller then.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10 else None  # noqa: PLR2004 - years
