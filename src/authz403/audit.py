"""One structured log event a request, enough to find the cause of a refusal in a minute (the only file that logs).

Where the host has configured structlog, events go through it; else to the stdlib logger `authz403`, as JSON. Nothing
secret is written, and what a client wrote cannot forge a line.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
import traceback
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, Literal

import structlog
from structlog import is_configured

from authz403.decision import Outcome

Level = Literal["debug", "warning", "error"]

LOGGER: Final = "authz403"
_LONGEST_VALUE: Final = 1_024  # characters
_MOST_VALUES: Final = 50  # of a list
_DEEPEST_VALUE: Final = 4  # lists and mappings within each other
_WIDEST_NUMBER: Final = 64  # bits
# What loggers give a meaning of their own; an event has no field of such a name.
_LOGGERS_OWN: Final = frozenset({"event", "level", "log_level", "exc_info", "stack_info", "self"})
_CONTROL: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# What looks like a token, wherever it was quoted: after its scheme, or by how a JSON header begins in base64.
_SECRET: Final = re.compile(r"(?i:bearer) +[\w.~+/=-]+|eyJ[\w-]{8,}(?:\.[\w-]*){0,2}")
_COMMA: Final = re.compile(r"[ \t]*+,[ \t]*+")
_STDLIB_LEVELS: Final[Mapping[Level, int]] = {
    "debug": logging.DEBUG,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_stdlib_logger = logging.getLogger(LOGGER)
_is_enabled_for = _stdlib_logger.isEnabledFor


class Audit:
    """Writes the events of one gate."""

    def __init__(self, policy_version: str) -> None:
        self._policy_version = policy_version
        self._told: set[str] = set()

    def wants_debug(self) -> bool:
        """Tell whether an event of what was allowed would be written anywhere; asked before the work for it is done."""
        return _structlog_enabled_for_debug() if is_configured() else _is_enabled_for(logging.DEBUG)

    def wants_warning(self) -> bool:
        """Tell the same of an event of what was refused."""
        return is_configured() or _is_enabled_for(logging.WARNING)

    def record(
        self, outcome: Outcome, *, body: bytes | None = None, report_only: bool = False, failed: bool = False
    ) -> None:
        """Write the event of a decided request; `failed` says that the refusal itself could not be answered."""
        decision = outcome.decision
        if decision.allowed:
            self._write("debug", "authz.allowed", self._fields(outcome))
            return
        fields = self._fields(outcome)
        if body is not None:
            fields["response"] = body.decode("utf-8", "replace")
        if report_only:
            fields["report_only"] = True
        is_error = failed or decision.status >= 500  # noqa: PLR2004 - the server's own failures
        if decision.error is not None:
            fields["error"] = decision.error
        if is_error and decision.error is not None:
            self._write("error", "authz.error", fields, decision.error)
        else:
            self._write("error" if is_error else "warning", "authz.error" if is_error else "authz.denied", fields)

    def warn_once(self, cause: str, hint: str) -> None:
        """Write `authz.warning` about something that an operator should know, the first time it is seen."""
        if (cause + hint) not in self._told and len(self._told) < 1_000:  # noqa: PLR2004 - bounded
            self._told.add(cause + hint)
            self.warn(cause, hint)

    def warn(self, cause: str, hint: str, **facts: object) -> None:
        """Write `authz.warning` about something that an operator should know, with further fields."""
        fields = {**facts, "cause": cause, "hint": hint, "policy_version": self._policy_version}
        self._write("warning", "authz.warning", fields)

    def error(self, reason: str, hint: str, error: BaseException | None = None, **facts: object) -> None:
        """Write `authz.error` about a failure that belongs to no single decision, with further fields."""
        fields: dict[str, object] = {**facts, "reason": reason, "hint": hint, "policy_version": self._policy_version}
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
            "forwarded_for": _as_one(request.fields.get("x-forwarded-for") or request.fields.get("forwarded") or ()),
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
        return {**outcome.rejected_facts, **fields}

    def _write(
        self, level: Level, event: str, fields: Mapping[str, object], error: BaseException | None = None
    ) -> None:
        told = {name: _harmless(value) for name, value in fields.items() if value is not None and value != ()}
        about = structlog.contextvars.get_contextvars()
        told = {name: _harmless(value) for name, value in about.items() if name not in told} | told
        told = {name: value for name, value in told.items() if name not in _LOGGERS_OWN}
        if error is not None:
            # Not as exc_info: an exception may quote a client, and renderers write tracebacks as they are.
            told["traceback"] = _harmless(_traceback(error), depth=1)
        if is_configured():
            getattr(structlog.get_logger(LOGGER), level)(event, **told)
        elif _stdlib_logger.isEnabledFor(_STDLIB_LEVELS[level]):
            _stdlib_logger.log(_STDLIB_LEVELS[level], "%s", json.dumps({"event": event, "level": level, **told}))


def _structlog_enabled_for_debug() -> bool:
    """Ask the host's structlog whether debug events go anywhere, without making one."""
    wrapper: Any = structlog.get_config()["wrapper_class"]
    if wrapper is structlog.stdlib.BoundLogger:
        return _stdlib_logger.isEnabledFor(logging.DEBUG)
    # A filtering bound logger's class knows its level; any other passes everything on to its processors.
    level = getattr(wrapper, "get_effective_level", None)
    return True if level is None else bool(level(None) <= logging.DEBUG)


def _as_one(lines: tuple[str, ...]) -> str | None:
    """Return the lines of a list as one, spelled alike whoever joined them, a proxy or a server of WSGI."""
    return _COMMA.sub(", ", ",".join(lines)) or None


def harmless_text(text: str) -> str:
    """Return a text that can be shown anywhere: cut where it is long, without tokens, control characters escaped."""
    shown = text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
    return _CONTROL.sub(_escaped, _SECRET.sub("[token]", shown))


def _harmless(value: object, *, depth: int = _DEEPEST_VALUE) -> object:
    """Return a value that can be written: sizes capped, tokens cut out, control characters escaped."""
    if isinstance(value, str):
        return harmless_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _WIDEST_NUMBER else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if depth == 0:
        return "..."
    if isinstance(value, Mapping):
        pairs = islice(value.items(), _MOST_VALUES)
        return {str(_harmless(name, depth=0)): _harmless(one, depth=depth - 1) for name, one in pairs}
    if isinstance(value, list | tuple | set | frozenset):
        return [_harmless(one, depth=depth - 1) for one in islice(value, _MOST_VALUES)]
    try:
        return _harmless(repr(value))
    except Exception:  # noqa: BLE001 - a fact that cannot be shown does not turn a refusal into a crash
        return f"<{type(value).__name__}>"


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _traceback(error: BaseException) -> list[str]:
    return "".join(traceback.format_exception(error)).splitlines()[-_MOST_VALUES:]


_BASE32: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(one + other for one in _BASE32 for other in _BASE32)


def new_decision_id() -> str:
    """Return a ULID: 26 characters that sort by time, 80 bits of them random."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
