"""A refusal as HTTP: an RFC 9457 problem document, the Bearer challenge, and the headers that carry the reason.

What the caller is not entitled to know stays out: claims, rules, the list of networks, why a signature failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Final, Literal

from authz403.cors import Header, Headers
from authz403.decision import Decision, Denial, Response
from authz403.reasons import Reason
from authz403.request import AccessRequest

Render = Callable[[Denial, AccessRequest], tuple[str, bytes]]
Disclose = Literal["full", "code"]

DEFAULT_TYPE_BASE: Final = "urn:authz403:"
_PROBLEM_JSON: Final = "application/problem+json"
_MOST_TEMPLATES: Final = 1_024
_UNAUTHORIZED: Final = 401
_END: Final = b'"}'
_IP_NOT_ALLOWED: Final = Reason.IP_NOT_ALLOWED  # before Python 3.12, to look it up takes long
_REASONS: Final = {reason.value: reason for reason in Reason}


class Problems:
    """Turns decisions into answers, with every answer that was given before ready made."""

    def __init__(self, *, realm: str, disclose: Disclose, type_base: str) -> None:
        self._realm = realm.replace("\\", "\\\\").replace('"', '\\"')
        self._disclose = disclose
        self._type_base = type_base
        self._templates: dict[tuple[object, ...], tuple[Headers, bytes]] = {}

    def response(self, decision: Decision, decision_id: str, client_ip: str | None, cors: Headers) -> Response:
        """Return the whole answer to a refused request, with the headers that every answer carries."""
        shown_ip = client_ip if decision.reason is _IP_NOT_ALLOWED and self._disclose == "full" else None
        # Everything that the answer shows, but for the decision's id, which comes last in the document.
        template_key = decision[_SHOWN], shown_ip, len(decision_id)
        template = self._templates.get(template_key)
        if template is None:
            template = self._template(decision, decision_id, shown_ip)
            if len(self._templates) >= _MOST_TEMPLATES:
                self._templates.clear()
            self._templates[template_key] = template
        headers, start = template
        code = decision_id.encode("ascii")
        return Response(decision.status, (*headers, (b"authz-decision", code), *cors), b"".join((start, code, _END)))

    def rendered(
        self,
        render: Render,
        decision: Decision,
        decision_id: str,
        client_ip: str | None,
        request: AccessRequest,
        cors: Headers,
    ) -> Response:
        """Return the answer with the body that the user's own `render` makes. Raises what that raises."""
        denial = self.denial(decision, decision_id, client_ip)
        media_type, body = render(denial, request)
        if not isinstance(media_type, str) or not media_type.isprintable() or not isinstance(body, bytes):
            raise TypeError("render answers with a content type (str) and a body (bytes)")
        headers = self._headers(denial, media_type)
        more: Headers = ((b"authz-decision", decision_id.encode("ascii")), (b"content-length", b"%d" % len(body)))
        return Response(denial.status, (*headers, *more, *cors), body)

    def denial(self, decision: Decision, decision_id: str | None, client_ip: str | None) -> Denial:
        """Return what the caller may know of a decision."""
        reason = decision.reason or Reason.POLICY_ERROR
        known = _REASONS.get(reason)
        title = known.summary if known is not None else reason.replace("_", " ").capitalize()
        full = self._disclose == "full"
        told = (decision.detail or _detail(decision)) if full else None
        detail = told or (known.detail if known is not None else "This operation is not allowed.")
        return Denial(
            status=decision.status,
            reason=str(reason),
            title=title,
            detail=detail,
            remedy=(decision.remedy if full else None) or (known.remedy if known is not None else "contact_owner"),
            retryable=known.retryable if known is not None else False,
            type=self._type_base + str(reason),
            required_scopes=decision.required_scopes if full else (),
            missing_scopes=decision.missing_scopes if full else (),
            required_roles=decision.required_roles if full else (),
            required_permissions=decision.required_permissions if full else (),
            acr_values=decision.acr_values,
            max_age=decision.max_age,
            client_ip=client_ip if full and known is Reason.IP_NOT_ALLOWED else None,
            retry_after=decision.retry_after,
            decision_id=decision_id,
        )

    def _template(self, decision: Decision, decision_id: str, client_ip: str | None) -> tuple[Headers, bytes]:
        """Return the headers, the length of the body among them, and all of the body before the decision's id."""
        denial = self.denial(decision, decision_id, client_ip)
        document = json.dumps(members(denial, self._disclose), separators=(",", ":")).encode("ascii")
        headers = (*self._headers(denial, _PROBLEM_JSON), (b"content-length", b"%d" % len(document)))
        return headers, document.removesuffix(decision_id.encode("ascii") + _END)

    def _headers(self, denial: Denial, media_type: str) -> Headers:
        headers: list[Header] = [
            (b"content-type", media_type.encode("latin-1")),
            (b"cache-control", b"no-store"),
            (b"authz-reason", denial.reason.encode("ascii")),
        ]
        challenge = self.challenge(denial)
        if challenge is not None:
            headers.append((b"www-authenticate", challenge.encode("ascii")))
        if denial.retry_after is not None:
            headers.append((b"retry-after", b"%d" % denial.retry_after))
        return tuple(headers)

    def challenge(self, denial: Denial) -> str | None:
        """Return the Bearer challenge (RFC 6750 section 3, RFC 9470 section 3), where the reason has one."""
        known = _REASONS.get(denial.reason)
        error = known.error if known is not None else None
        if error is None and denial.status != _UNAUTHORIZED:
            return None
        parts = [f'Bearer realm="{self._realm}"']
        # RFC 6750 section 3.1: without any authentication information, no error code is included.
        if error is not None:
            parts.append(f'error="{error}"')
        if error == Reason.INSUFFICIENT_SCOPE and denial.required_scopes:
            parts.append(f'scope="{" ".join(denial.required_scopes)}"')
        if denial.acr_values:
            parts.append(f'acr_values="{" ".join(denial.acr_values)}"')
        if denial.max_age is not None:
            parts.append(f'max_age="{denial.max_age}"')
        return ", ".join(parts)


def members(denial: Denial, disclose: Disclose) -> dict[str, object]:
    """Return the members of the problem document (RFC 9457 section 3), the id last."""
    found: dict[str, object] = {"type": denial.type, "title": denial.title, "status": denial.status}
    if disclose == "full":
        found["detail"] = denial.detail
    found["reason"] = denial.reason
    if disclose == "full":
        for name in ("required_scopes", "missing_scopes", "required_roles", "required_permissions", "acr_values"):
            value = getattr(denial, name)
            if value:
                found[name] = list(value)
        for name in ("max_age", "client_ip"):
            value = getattr(denial, name)
            if value is not None:
                found[name] = value
        found["retryable"] = denial.retryable
        found["remedy"] = denial.remedy
    found["decision_id"] = denial.decision_id
    return found


# All that an answer shows of a decision, and little more: two decisions that agree in these are answered alike.
_SHOWN: Final = slice(Decision._fields.index("reason"), Decision._fields.index("concealed"))


def _detail(decision: Decision) -> str | None:
    """Say in one sentence what is missing, where that is a list of names."""
    for names, what in (
        (decision.missing_scopes if decision.reason is Reason.INSUFFICIENT_SCOPE else (), "scope"),
        (decision.required_roles if decision.reason is Reason.ROLE_REQUIRED else (), "role"),
        (decision.required_permissions if decision.reason is Reason.PERMISSION_REQUIRED else (), "permission"),
    ):
        if names:
            return f"This operation needs the {what}{'s' if len(names) > 1 else ''} {', '.join(names)}."
    return None


def whole_seconds(seconds: float) -> int:
    """Return a Retry-After (RFC 9110 section 10.2.3): whole seconds, never too early."""
    return max(1, math.ceil(seconds))
