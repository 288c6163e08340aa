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
from functools import lru_cache
from itertools import islice
from time import perf_counter
from typing import Any, Final, Literal

import structlog
from structlog import is_configured

from authz403.decision import Decision, Outcome
from authz403.principal import Principal

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
_LISTS: Final = (list, tuple, set, frozenset)
_COMMA: Final = re.compile(r"[ \t]*+,[ \t]*+")
_STDLIB_LEVELS: Final[Mapping[Level, int]] = {
    "debug": logging.DEBUG,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_stdlib_logger = logging.getLogger(LOGGER)
_is_enabled_for = _stdlib_logger.isEnabledFor


# What differs from one event of a caller and a decision to the next, and the same for all.
_OF_THE_REQUEST: Final = ("decision_id", "method", "path", "route", "client_ip", "peer", "forwarded_for")
# What a source of identities tells of a credential takes none of these names.
_ONLY_OURS: Final = _LOGGERS_OWN | {
    *_OF_THE_REQUEST,
    *("reason", "status", "required_scopes", "missing_scopes", "required_roles", "missing_roles"),
    *("required_permissions", "missing_permissions", "policy", "policy_version", "hint", "duration_us"),
}
_SAID: Final = slice(Decision._fields.index("policy"), Decision._fields.index("facts"))
_MOST_KNOWN: Final = 1_024
_END: Final = '"}'  # of a problem document, after the decision's id


class _Known:
    """What the events of one caller and one decision share, harmless as it is to be written.

    `lists` are those of the `fields` that each event gets a copy of, as a processor may change it; what is deeper is
    made anew each time. `answer` is how the body begins that was sent with them, up to the decision's id.
    """

    __slots__ = ("answer", "fields", "is_deep", "lists", "principal")

    def __init__(self, fields: dict[str, object], principal: Principal | None) -> None:
        self.fields = fields
        self.lists = [(name, value) for name, value in fields.items() if isinstance(value, list)]
        self.is_deep = any(isinstance(one, dict | list) for _, value in self.lists for one in value)
        self.is_deep |= any(isinstance(value, dict) for value in fields.values())
        self.answer = ""
        self.principal = principal  # kept, so that nobody else gets its id


class Audit:
    """Writes the events of one gate."""

    def __init__(self, policy_version: str) -> None:
        self._policy_version = policy_version
        self._told: set[str] = set()
        self._known: dict[tuple[object, ...], _Known] = {}
        self._made: tuple[object, object] = (None, None)

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
        fields = self._fields(outcome, body)
        if decision.allowed:
            self._write("debug", "authz.allowed", fields)
            return
        if report_only:
            fields["report_only"] = True
        is_error = failed or decision.status >= 500  # noqa: PLR2004 - the server's own failures
        if decision.error is not None:
            fields["error"] = _harmless(decision.error)
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
        self._write("warning", "authz.warning", _harmless_fields(fields))

    def error(self, reason: str, hint: str, error: BaseException | None = None, **facts: object) -> None:
        """Write `authz.error` about a failure that belongs to no single decision, with further fields."""
        fields: dict[str, object] = {**facts, "reason": reason, "hint": hint, "policy_version": self._policy_version}
        self._write("error", "authz.error", _harmless_fields(fields), error)

    def _fields(self, outcome: Outcome, body: bytes | None) -> dict[str, object]:
        """Return all that is told of a request, harmless."""
        decision, request, route, address = outcome.decision, outcome.request, outcome.route, outcome.address
        known = self._known_of(decision, outcome.principal)
        # The same names in the same places, so that a copy and what differs is all that most events take.
        told = known.fields.copy()
        for name, names in known.lists:
            told[name] = names.copy()
        told["decision_id"] = outcome.decision_id
        method, path, peer = request.method, request.path, request.peer
        forwarded = _as_one(request.fields.get("x-forwarded-for") or request.fields.get("forwarded") or ())
        told["method"], told["path"], told["route"] = method, path, route
        told["client_ip"] = None if address is None else _text_of(address)
        told["peer"], told["forwarded_for"] = peer, forwarded
        # Where all of them in a row are plain, each one is.
        if not _is_plain(f"{method}{path}{route}{peer}{forwarded}"):
            told |= {name: _harmless(told[name]) for name in _OF_THE_REQUEST}
        told["duration_us"] = round((perf_counter() - outcome.started) * 1e6)
        if body is not None:
            told["response"] = _answer(known, body, outcome.decision_id)
        if decision.facts:
            told["facts"] = _harmless(decision.facts)
        if address is None or route is None or peer is None or forwarded is None:
            told = {name: value for name, value in told.items() if value is not None}
        if outcome.rejected_facts:
            facts = {name: value for name, value in outcome.rejected_facts.items() if name not in _ONLY_OURS}
            told = _harmless_fields(facts) | told
        return told

    def _known_of(self, decision: Decision, principal: Principal | None) -> _Known:
        """Return what all events of a caller and a decision share, from the last one if it is at hand."""
        if principal is None and decision.hint is not None:
            # About a credential that was refused: somebody else wrote it, and may write another each time.
            return _Known(self._shared(decision, principal), principal)
        key = decision[_SAID], id(principal)
        known = self._known.get(key)
        if known is None:
            known = _Known(self._shared(decision, principal), principal)
            if known.is_deep:
                return known
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = known
        return known

    def _shared(self, decision: Decision, principal: Principal | None) -> dict[str, object]:
        fields: dict[str, object] = {
            "decision_id": "",
            "reason": None if decision.reason is None else str(decision.reason),
            "status": decision.status,
        }
        fields |= dict.fromkeys(_OF_THE_REQUEST, "")
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
            "duration_us": 0,
        }
        if decision.concealed:
            fields["concealed"] = True
        return _harmless_fields(fields)

    def _write(self, level: Level, event: str, told: dict[str, object], error: BaseException | None = None) -> None:
        """Write an event whose fields are harmless."""
        about = structlog.contextvars.get_contextvars()
        if about:
            more = {name: value for name, value in about.items() if name not in told and name not in _LOGGERS_OWN}
            told = _harmless_fields(more) | told
        if error is not None:
            # Not as exc_info: an exception may quote a client, and renderers write tracebacks as they are.
            told["traceback"] = _harmless(_traceback(error), depth=1)
        if is_configured():
            self._write_by_structlog(level, event, told)
        elif _stdlib_logger.isEnabledFor(_STDLIB_LEVELS[level]):
            _stdlib_logger.log(_STDLIB_LEVELS[level], "%s", json.dumps({"event": event, "level": level, **told}))

    def _write_by_structlog(self, level: Level, event: str, told: dict[str, object]) -> None:
        """Do what `get_logger(LOGGER)` does in the end: with fields as context, nothing copies them thrice."""
        config = structlog.get_config()
        factory, context = config["logger_factory"], config["context_class"]
        made_by, logger = self._made
        if made_by is not factory or not config["cache_logger_on_first_use"]:
            logger = factory(LOGGER)
            self._made = (factory, logger)
        about = told if context is dict else context(told)
        bound = config["wrapper_class"](logger, processors=config["processors"], context=about)
        getattr(bound, level)(event)


def _structlog_enabled_for_debug() -> bool:
    """Ask the host's structlog whether debug events go anywhere, without making one."""
    wrapper: Any = structlog.get_config()["wrapper_class"]
    if wrapper is structlog.stdlib.BoundLogger:
        return _stdlib_logger.isEnabledFor(logging.DEBUG)
    # A filtering bound logger's class knows its level; any other passes everything on to its processors.
    level = getattr(wrapper, "get_effective_level", None)
    return True if level is None else bool(level(None) <= logging.DEBUG)


def _answer(known: _Known, body: bytes, decision_id: str | None) -> str:
    """Return the body of an answer as it is written; the last one was looked at, and this differs in the id alone."""
    start, end = known.answer, f"{decision_id}{_END}"
    if start and body == (start + end).encode("ascii"):
        return start + end
    text = body.decode("utf-8", "replace")
    if text.endswith(end) and _is_plain(text):
        known.answer = text.removesuffix(end)
    return harmless_text(text)


def _as_one(lines: tuple[str, ...]) -> str | None:
    """Return the lines of a list as one, spelled alike whoever joined them, a proxy or a server of WSGI."""
    if len(lines) == 1 and "," not in lines[0]:
        return lines[0] or None
    return _COMMA.sub(", ", ",".join(lines)) or None


# An address is the same object as long as it is remembered, and its text takes longer than to find it.
_text_of: Final = lru_cache(maxsize=4_096)(str)


def harmless_text(text: str) -> str:
    """Return a text that can be shown anywhere: cut where it is long, without tokens, control characters escaped."""
    shown = text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
    if _may_hold_secret(shown):
        shown = _SECRET.sub("[token]", shown)
    return shown if shown.isascii() and shown.isprintable() else _CONTROL.sub(_escaped, shown)


def _is_plain(text: str) -> bool:
    """Tell of most texts that are harmless as they are, without a look at each character by an expression."""
    return len(text) <= _LONGEST_VALUE and text.isascii() and text.isprintable() and not _may_hold_secret(text)


def _may_hold_secret(text: str) -> bool:
    """Tell what `_SECRET` cannot find anything in, in a small part of the time."""
    return "eyJ" in text or "bearer" in text.lower()


def _harmless_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that say something, harmless, under names that no logger gives a meaning."""
    return {
        name: _harmless(value)
        for name, value in fields.items()
        if value is not None and value != () and name not in _LOGGERS_OWN
    }


def _harmless(value: object, *, depth: int = _DEEPEST_VALUE) -> object:
    """Return a value that can be written: sizes capped, tokens cut out, control characters escaped."""
    if isinstance(value, str):
        return harmless_text(value if type(value) is str else str.__str__(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _WIDEST_NUMBER else f"a number of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if depth == 0:
        return "..."
    if isinstance(value, _LISTS):
        return [_harmless(one, depth=depth - 1) for one in islice(value, _MOST_VALUES)]
    if isinstance(value, Mapping):
        pairs = islice(value.items(), _MOST_VALUES)
        return {str(_harmless(name, depth=0)): _harmless(one, depth=depth - 1) for name, one in pairs}
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
_RANDOM_PART: Final = 16  # characters of five bits
_TO_BASE32: Final = bytes(ord(_BASE32[byte % 32]) for byte in range(256))
_MADE_AT_ONCE: Final = 128
_random_parts: Final[list[str]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random_parts.clear)  # else parent and child would give the same ids


def new_decision_id() -> str:
    """Return a ULID: 26 characters that sort by time, 80 bits of them random."""
    milliseconds = time.time_ns() // 1_000_000
    try:
        random_part = _random_parts.pop()
    except IndexError:
        random_part = _more_random_parts()
    return f"{_about_when(milliseconds >> 10)}{_PAIRS[milliseconds & 1023]}{random_part}"


@lru_cache(maxsize=1)
def _about_when(seconds: int) -> str:
    return "".join([_PAIRS[seconds >> shift & 1023] for shift in (30, 20, 10, 0)])


def _more_random_parts() -> str:
    # One call of the system for many: it takes longer than all the rest of an id.
    text = os.urandom(_RANDOM_PART * _MADE_AT_ONCE).translate(_TO_BASE32).decode("ascii")
    parts = [text[start : start + _RANDOM_PART] for start in range(0, len(text), _RANDOM_PART)]
    mine = parts.pop()
    _random_parts.extend(parts)
    return mine
