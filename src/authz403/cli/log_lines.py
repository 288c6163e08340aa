"""A line of a log with one event of ours in it, explained: JSON, or what structlog writes for people."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from authz403.asking import routed
from authz403.cli.explain import in_short, quietly
from authz403.cli.loading import Failure
from authz403.diagnosis import diagnosed
from authz403.errors import ConfigurationError
from authz403.explanation import Caller, Client, Explanation, text_in, texts_in
from authz403.guarded import Guarded
from authz403.principal import is_numeric_date
from authz403.reasons import Reason
from authz403.request import AccessRequest
from authz403.witness import moment, written_for

_EVENTS: Final = ("authz.denied", "authz.allowed", "authz.error")
_COLORS: Final = re.compile(r"\x1b\[[0-9;]*m")
# name=value, of which the value is quoted, a list or mapping, or ends at a space
_PAIR: Final = re.compile(
    r"""(?:^|(?<=\s))([A-Za-z_][\w.]*)=('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\{[^}]*\}|\S*)"""
)
_LITERAL: Final = re.compile(r"['\"\[{(]|-?\d+(\.\d+)?$|(True|False|None)$")


def event_given() -> Mapping[str, object]:
    """Return the event in the first line of stdin that holds one; raises `Failure` where none does."""
    for line in sys.stdin:
        if "authz." in line:
            return event_in(line)
    raise Failure("there is no event of authz403 on stdin: a line of JSON, or of structlog's console or logfmt")


def event_in(line: str) -> Mapping[str, object]:
    """Read the event in a line of a log, whatever stands before it; raises `Failure` where it cannot be read."""
    line = _COLORS.sub("", line).strip()
    start = line.find("{")
    found = _json_in(line[start:]) if start >= 0 else None
    if found is None:
        found = {name: _value(text) for name, text in _PAIR.findall(line)}
        for event in (*_EVENTS, "authz.warning"):
            if re.search(rf"(?<![\w.]){re.escape(event)}(?![\w.])", line):
                found.setdefault("event", event)
    if found.get("event") == "authz.warning":
        raise Failure(f"this is a finding about the service, not a decision: {found.get('cause')}: {found.get('hint')}")
    if found.get("event") not in _EVENTS or not isinstance(found.get("method"), str):
        raise Failure("this line holds no decision of authz403: one with authz.denied, authz.allowed or authz.error")
    return found


def _json_in(text: str) -> dict[str, object] | None:
    """Return the object that stands at the start of a text."""
    try:
        found, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or "method" in found or "cause" in found:
        return found if isinstance(found, dict) else None
    # A collector has put the line, as a text, into an object of its own.
    inner = next((one for one in found.values() if isinstance(one, str) and one.lstrip().startswith("{")), None)
    return None if inner is None else _json_in(inner.lstrip())


def _value(text: str) -> object:
    if _LITERAL.match(text) is None:
        return text
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    # logfmt quotes what it made a text of: a list, a mapping
    return _value(value) if isinstance(value, str) and value[:1] in {"[", "{"} else value


def explained_event(event: Mapping[str, object], found: Guarded | None) -> Explanation:
    """Explain an event: from itself, and where the app is known, with the policy that it has there now."""
    answer = _json_in(text_in(event.get("response")) or "") or {}
    reason = text_in(event.get("reason"))
    told = Explanation(
        method=text_in(event.get("method")) or "?",
        path=text_in(event.get("path")) or "?",
        allowed=event["event"] == "authz.allowed",
        status=_number(event.get("status")),
        reason=reason,
        remedy=text_in(answer.get("remedy")),
        hint=text_in(event.get("hint")),
        detail=text_in(answer.get("detail")),
        route=text_in(event.get("route")),
        policy=text_in(event.get("policy")),
        concealed=event.get("concealed") is True,
        report_only=event.get("report_only") is True,
        caller=_caller(event, reason),
        client=Client(address=text_in(event.get("client_ip")), peer=text_in(event.get("peer"))),
        required_scopes=texts_in(event.get("required_scopes")),
        missing_scopes=texts_in(event.get("missing_scopes")),
        required_roles=texts_in(event.get("required_roles")),
        missing_roles=texts_in(event.get("missing_roles")),
        required_permissions=texts_in(event.get("required_permissions")),
        missing_permissions=texts_in(event.get("missing_permissions")),
        error=text_in(event.get("error")),
        facts=_facts(event.get("facts")),
        policy_version=text_in(event.get("policy_version")),
        decision_id=text_in(event.get("decision_id")),
    )
    if found is None:
        return diagnosed(told)
    with quietly():
        return _with_policy(told, found)


def _with_policy(told: Explanation, found: Guarded) -> Explanation:
    """Add where the policy of the same request is written, by the app as it is now."""
    gate = found.gate
    request = AccessRequest(told.method, told.path, told.client.peer)
    try:
        asked = routed(found.app)
        taken, _ = asked.routes.find(asked.native(request))
    except ConfigurationError as error:
        raise Failure(str(error)) from error
    written = tuple(dict.fromkeys(written_for(gate.rules, taken, told.path, told.method)))
    endpoint = taken.endpoint
    told = in_short(
        replace(
            told,
            route=told.route or (None if endpoint is None else endpoint.route),
            endpoint=None if endpoint is None else endpoint.name,
            written=written,
            is_default=endpoint is not None and not written,
        )
    )
    if told.policy_version in {None, gate.policy_version}:
        return told
    tip = "The event is of another configuration than this app has: see whether an old one still answers."
    return replace(told, advice=replace(told.advice, operator=f"{told.advice.operator} {tip}".strip()))


def _caller(event: Mapping[str, object], reason: str | None) -> Caller:
    subject = text_in(event.get("sub"))
    known = None if reason is None else Reason.__members__.get(reason.upper())
    # A refused token may say who it names; nobody is known by it.
    is_known = subject is not None and (known is None or known.error is None or known in _OF_THE_KNOWN)
    expires = event.get("token_expires")
    ends = float(expires) if is_numeric_date(expires) else None
    return Caller(
        is_known=is_known,
        is_asked_for=subject is not None or known is not None,
        reason=None if is_known else reason,
        subject=subject,
        issuer=text_in(event.get("iss")) or None,
        client_id=text_in(event.get("client_id")),
        audience=texts_in(event.get("aud")),
        scopes=texts_in(event.get("scopes")),
        roles=texts_in(event.get("roles")),
        token_id=text_in(event.get("token_id")),
        expires_at=ends,
        validity=None if ends is None else f"expires at {moment(ends)}",
    )


_OF_THE_KNOWN: Final = frozenset({Reason.INSUFFICIENT_SCOPE, Reason.STEP_UP_REQUIRED})


def _facts(value: object) -> Mapping[str, object] | None:
    return value if isinstance(value, dict) else None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
