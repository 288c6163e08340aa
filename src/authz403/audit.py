"""One structured log event a request, enough to find the cause of a refusal in a minute (the only file that logs).

Where the host has configured structlog, events go through it; else to the stdlib logger `authz403`, as JSON. Nothing
secret is written, and what a client wrote cannot forge a line.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any, Final, Literal

import structlog

from authz403.decision import Outcome

Level = Literal["debug", "warning", "error"]

LOGGER: Final = "authz403"
_LONGEST_VALUE: Final = 1_024  # characters
_MOST_VALUES: Final = 50  # of a list
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STDLIB_LEVELS: Final[Mapping[Level, int]] = {
    "debug": logging.DEBUG,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_stdlib_logger = logging.getLogger(LOGGER)


class Audit:
    """Writes the events of one gate."""

    def __init__(self, policy_version: str) -> None:
        self._policy_version = policy_version
        self._told: set[str] = set()

    def wants(self, level: Level) -> bool:
        """Tell whether an event of this level would be written anywhere; asked before the work for it is done."""
        if not structlog.is_configured():
            return _stdlib_logger.isEnabledFor(_STDLIB_LEVELS[level])
        return level != "debug" or _structlog_enabled_for_debug()

    def record(self, outcome: Outcome, *, body: bytes | None = None, report_only: bool = False) -> None:
        """Write the event of a decided request."""
        decision = outcome.decision
        if decision.allowed:
            self._write("debug", "authz.allowed", self._fields(outcome))
            return
        fields = self._fields(outcome)
        if body is not None:
            fields["response"] = body.decode("utf-8", "replace")
        if report_only:
            fields["report_only"] = True
        is_error = decision.status >= 500  # noqa: PLR2004 - the server's own failures
        if decision.error is not None:
            fields["error"] = repr(decision.error)
        if is_error and decision.error is not None:
            self._write("error", "authz.error", fields, decision.error)
        else:
            self._write("error" if is_error else "warning", "authz.error" if is_error else "authz.denied", fields)

    def warn_once(self, cause: str, hint: str) -> None:
        """Write `authz.warning` about something that an operator should know, the first time it is seen."""
        if (cause + hint) not in self._told and len(self._told) < 1_000:  # noqa: PLR2004 - bounded
            self._told.add(cause + hint)
            self._write(
                "warning", "authz.warning", {"cause": cause, "hint": hint, "policy_version": self._policy_version}
            )

    def error(self, reason: str, hint: str, error: BaseException | None = None) -> None:
        """Write `authz.error` about a failure that belongs to no single decision."""
        fields: dict[str, object] = {"reason": reason, "hint": hint, "policy_version": self._policy_version}
        self._write("error", "authz.error", fields, error)

    def _fields(self, outcome: Outcome) -> dict[str, object]:
        request, decision, principal = outcome.request, outcome.decision, outcome.principal
        fields: dict[str, object] = {
            "decision_id": outcome.decision_id,
            "reason": None if decision.reason is None else str(decision.reason),
            "status": decision.status,
            "method": request.method,
            "path": request.path,
            "route": outcome.route,
            "client_ip": None if outcome.address is None else str(outcome.address),
            "peer": request.peer,
            "forwarded_for": ", ".join(request.fields.get("x-forwarded-for") or request.fields.get("forwarded") or ())
            or None,
        }
        if principal is not None:
            fields |= {
                "sub": principal.sub,
                "client_id": principal.client_id,
                "iss": principal.issuer,
                "aud": principal.claims.get("aud"),
                "scopes": sorted(principal.scopes),
                "roles": sorted(principal.roles),
                "token_id": principal.token_id,
                "token_expires": principal.expires_at,
            }
        else:
            fields |= outcome.rejected_facts
        fields |= {
            "required_scopes": decision.required_scopes,
            "missing_scopes": decision.missing_scopes,
            "required_roles": decision.required_roles,
            "missing_roles": decision.missing_roles,
            "required_permissions": decision.required_permissions,
            "missing_permissions": decision.missing_permissions,
            "policy": decision.policy or None,
            "policy_version": self._policy_version,
            "hint": decision.hint,
            "duration_us": round((time.perf_counter() - outcome.started) * 1e6),
        }
        if decision.concealed:
            fields["concealed"] = True
        if decision.facts:
            fields["facts"] = dict(decision.facts)
        return fields

    def _write(
        self, level: Level, event: str, fields: Mapping[str, object], error: BaseException | None = None
    ) -> None:
        told = {name: _harmless(value) for name, value in fields.items() if value is not None and value != ()}
        about = {name: value for name, value in structlog.contextvars.get_contextvars().items() if name not in told}
        if structlog.is_configured():
            logger = structlog.get_logger(LOGGER)
            getattr(logger, level)(event, **{**about, **told}, **({"exc_info": error} if error is not None else {}))
            return
        if _stdlib_logger.isEnabledFor(_STDLIB_LEVELS[level]):
            line = {"event": event, "level": level, **{name: _harmless(value) for name, value in about.items()}, **told}
            _stdlib_logger.log(_STDLIB_LEVELS[level], "%s", json.dumps(line, default=repr), exc_info=error)


def _structlog_enabled_for_debug() -> bool:
    """Ask the host's structlog whether debug events go anywhere, without making one."""
    config = structlog.get_config()
    wrapper: Any = config["wrapper_class"]
    if wrapper is structlog.stdlib.BoundLogger:
        return _stdlib_logger.isEnabledFor(logging.DEBUG)
    level = _LEVELS.get(wrapper)
    if level is None:
        logger = structlog.get_logger(LOGGER).bind()
        effective = getattr(logger, "get_effective_level", None)
        level = effective() if effective is not None else logging.DEBUG
        if len(_LEVELS) < 16:  # noqa: PLR2004 - a host has one wrapper class; tests make a few
            _LEVELS[wrapper] = level
    return level <= logging.DEBUG


_LEVELS: dict[object, int] = {}


def _harmless(value: object) -> object:
    """Return a value that no renderer can be misled by: control characters escaped, lengths capped."""
    if isinstance(value, str):
        shown = value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "..."
        return _CONTROL.sub(_escaped, shown)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(_harmless(str(name))): _harmless(one) for name, one in list(value.items())[:_MOST_VALUES]}
    if isinstance(value, list | tuple | set | frozenset):
        return [_harmless(one) for one in list(value)[:_MOST_VALUES]]
    return _harmless(repr(value))


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


_BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(one + other for one in _BASE32 for other in _BASE32)


def new_decision_id() -> str:
    """Return a ULID: 26 characters that sort by time, 80 bits of them random."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
