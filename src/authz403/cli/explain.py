"""Why a request is or would be refused: `authz403 explain`. The token that it is asked about is shown nowhere."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import unquote

import click

from authz403 import BearerTokens, ConfigurationError, Reason, asgi_io, wsgi_io
from authz403.asking import environ_of, routed, scope_of
from authz403.audit import LOGGER, harmless_text
from authz403.cli.believed import believing
from authz403.cli.loading import Failure
from authz403.diagnosis import diagnosed
from authz403.endpoint import Walked
from authz403.explanation import Check, Explanation
from authz403.guarded import Guarded
from authz403.request import KNOWN_METHODS, TOKEN, WEBSOCKET, AccessRequest
from authz403.startup import check_app
from authz403.tokens import AUTHORIZATION, SUBPROTOCOL
from authz403.witness import Silent


class Given(NamedTuple):
    """What the command line says of a request."""

    method: str
    path: str
    token: str | None = None
    address: str | None = None
    origin: str | None = None
    headers: tuple[str, ...] = ()
    at: float | None = None
    is_unverified: bool = False


def token_given(token: str | None, file: Path | None, variable: str | None) -> str | None:
    """Return the token that one of the options names, or nothing; raises `Failure` where that cannot be read."""
    if sum(one is not None for one in (token, file, variable)) > 1:
        raise click.UsageError("give the token once: by --token, --token-file or --token-env")
    if token == "-":  # noqa: S105 - the usual sign for stdin
        token = sys.stdin.read()
    elif file is not None:
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise Failure(f"--token-file cannot be read: {type(error).__name__}") from error
    elif variable is not None:
        token = os.environ.get(variable)
        if token is None:
            raise Failure("--token-env names no variable of the environment")
    if token is None:
        return None
    token = token.strip()
    if token[:7].lower() == "bearer ":  # the header's value, copied whole
        token = token[7:].strip()
    if not token:
        raise Failure("the token is empty")
    return token


def explained(found: Guarded, given: Given) -> Explanation:
    """Ask the gate of an app about a request; raises `Failure` where gate and app do not fit."""
    with quietly():
        return _explained(found, given)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what the app's own code prints out of the output, and the library's log out of sight."""
    logger, handler = logging.getLogger(LOGGER), logging.NullHandler()
    logger.addHandler(handler)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logger.removeHandler(handler)


def _explained(found: Guarded, given: Given) -> Explanation:
    gate, query = found.gate, given.path.partition("?")[2].partition("#")[0]
    try:
        asked = routed(found.app)
    except ConfigurationError as error:
        raise Failure(str(error)) from error
    _check(found, asked.walk)
    if given.is_unverified:
        if not any(isinstance(source, BearerTokens) for source in gate.sources):
            raise Failure("--unverified is about the signatures of tokens, and this gate takes no BearerTokens")
        gate = believing(gate)
        if given.token is not None:
            given = given._replace(token=_signed_by_anybody(given.token))
    if given.at is not None:
        gate, at = copy(gate), given.at
        gate.clock = lambda: at
    told = gate.explain(_request(found, given, asked.root_path), found.app)
    told = replace(told, is_verified=not given.is_unverified)
    if given.address is None and told.client.address is None:
        told = replace(told, client=replace(told.client, how="no --address was given"))
    if told.known_reason is Reason.MISSING_TOKEN and told.hint is None and _has_token(query):
        told = replace(told, hint="a token in the query is not read")
    return _with_tips(in_short(told), given)


def _signed_by_anybody(token: str) -> str:
    """Return a token with a signature of the right form, for one that was cut off on the way here."""
    head, dot, rest = token.partition(".")
    return f"{head}.{rest.partition('.')[0]}.AA" if dot and rest.count(".") < _MORE_THAN_A_JWT else token


_MORE_THAN_A_JWT: Final = 2  # dots behind the first: an encrypted token


def in_short(told: Explanation) -> Explanation:
    """Return an explanation whose files below the current directory are told by their names from there."""
    here = f"{Path.cwd()}{os.sep}"
    return diagnosed(replace(told, written=tuple(where.removeprefix(here) for where in told.written)))


def _with_tips(told: Explanation, given: Given) -> Explanation:
    """Add what this command can do to find out more."""
    tip = None
    if told.known_reason in _UNPROVEN and not given.is_unverified:
        tip = "`--unverified` says what would be decided if the signature were good."
    elif told.known_reason is Reason.IP_NOT_ALLOWED and given.address is None:
        tip = "`--address` says where the request comes from."
    if tip is None:
        return told
    return replace(told, advice=replace(told.advice, operator=f"{told.advice.operator} {tip}"))


_UNPROVEN: Final = frozenset({Reason.KEYS_UNAVAILABLE, Reason.INVALID_TOKEN})


def _has_token(query: str) -> bool:
    return any(pair.partition("=")[0] in {"access_token", "token"} for pair in query.split("&"))


def _check(found: Guarded, walk: Walked | None) -> None:
    """Raise where the service would answer every request with 500 `misconfigured`."""
    gate = copy(found.gate)
    gate.audit = Silent("")
    try:
        check_app(gate, walk)
    except ConfigurationError as error:
        raise Failure(f"the service answers every request with 500 misconfigured, as {error}") from error


def _request(found: Guarded, given: Given, root_path: str) -> AccessRequest:
    """Return the request as the enforcement point would read it."""
    upper = given.method.upper()
    method = upper if upper in KNOWN_METHODS else given.method
    sent: dict[str, tuple[str, ...]] = {}
    for name, value in _header_lines(found, given, method):
        sent[name] = (*sent.get(name, ()), value)
    asked = AccessRequest(method, _path(given.path), given.address, sent)
    if found.kind == "wsgi":
        return wsgi_io.access_request(environ_of(asked), wsgi_io.wanted_keys(sent))
    scope = {**scope_of(asked), "root_path": root_path}
    return asgi_io.access_request(scope, {name.encode("ascii"): name for name in sent})


def _path(given: str) -> str:
    """Return the path that a server makes of what a client asks for."""
    if "://" in given:
        given = f"/{given.partition('://')[2].partition('/')[2]}"
    if not given.startswith("/"):
        raise Failure("PATH starts with a slash, such as /orders/5")
    return unquote(given.partition("?")[0].partition("#")[0], errors="replace")


def _header_lines(found: Guarded, given: Given, method: str) -> Iterator[tuple[str, str]]:
    if given.origin is not None:
        yield "origin", given.origin
    for line in given.headers:
        name, colon, value = line.partition(":")
        if not colon or TOKEN.fullmatch(name) is None:
            raise Failure("--header takes a name, a colon and a value, such as 'Origin: https://app.example'")
        yield name.lower(), value.strip(" \t")
    if given.token is not None:
        read = [name for source in found.gate.sources if isinstance(source, BearerTokens) for name in source.read_from]
        fitting = [name for name in read if name != SUBPROTOCOL or method == WEBSOCKET]
        field = AUTHORIZATION if AUTHORIZATION in fitting or not fitting else fitting[0]
        before = {AUTHORIZATION: "Bearer ", SUBPROTOCOL: "bearer, "}
        yield field, before.get(field, "") + given.token


def moment_given(text: str) -> float:
    """Read a time: seconds since the epoch, or ISO 8601, in UTC unless it says otherwise."""
    try:
        seconds = float(text)
    except ValueError:
        pass
    else:
        if math.isfinite(seconds):  # no token expires at a time that is no number
            return seconds
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Failure("--at takes seconds since the epoch, or a time such as 2027-01-15T08:00:00Z") from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


# ---- shown


def as_json(told: Explanation) -> str:
    """Return an explanation as an object of JSON."""
    return json.dumps(told.to_dict(), indent=2)


def as_text(told: Explanation) -> str:
    """Return an explanation as people read it."""
    return "\n".join(_lines(_harmless(told)))


def _harmless(told: T) -> T:
    """Return a value whose texts can be shown on a terminal."""
    if isinstance(told, str):
        return harmless_text(told)  # type: ignore[return-value]  # a str, as it was
    if isinstance(told, tuple):
        return tuple(map(_harmless, told))  # type: ignore[return-value]  # a tuple, as it was
    if is_dataclass(told) and not isinstance(told, type):
        return replace(told, **{field.name: _harmless(getattr(told, field.name)) for field in fields(told)})
    return told


T = TypeVar("T")


def hidden(text: str, token: str | None) -> str:
    """Return a text without the token that was given, in case that somebody's own code has quoted it."""
    for secret in () if token is None else (token, token.rpartition(".")[2]):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "[token]")
    return text


_SHORTEST_SECRET: Final = 8  # characters: what is shorter may be part of any word

_LABEL: Final = 12  # characters


def _lines(told: Explanation) -> Iterator[str]:
    if not told.is_verified:
        loud = "UNVERIFIED: the signature was not looked at. Anybody can write such a token; the service would look."
        yield click.style(loud, fg="yellow", bold=True)
    yield _verdict(told)
    yield told.diagnosis
    yield ""
    yield from _labelled("request", [told.asked, *_origin(told)])
    yield from _labelled("from", [_from(told)] if told.client.address or told.client.how else [])
    yield from _labelled("route", list(_route(told)))
    yield from _labelled("policy", [told.policy] if told.policy else [])
    yield from _labelled("written", told.written or (["nowhere: it is the default"] if told.is_default else []))
    yield from _labelled("caller", list(_caller(told)))
    yield from _labelled("checks", list(_checks(told.checks, "")))
    # "it expired" stands in the line as "token issued for alice expired"
    if told.hint is not None and told.hint.removeprefix("it ") not in told.diagnosis:
        yield from _labelled("hint", [told.hint])
    if told.advice.caller or told.advice.operator:
        yield ""
        yield "What to do"
        yield from _labelled("  caller", [told.advice.caller] if told.advice.caller else [])
        yield from _labelled("  operator", [told.advice.operator] if told.advice.operator else [])


def _verdict(told: Explanation) -> str:
    if told.allowed:
        itself = "" if told.answers_itself is None else " (and answered by the app itself)"
        return click.style("ALLOWED", fg="green", bold=True) + itself
    shown = " (the caller sees 404)" if told.concealed else ""
    let_in = " (and let in, as the gate only reports)" if told.report_only else ""
    return click.style(f"REFUSED {told.status} {told.reason}", fg="red", bold=True) + shown + let_in


def _labelled(label: str, values: Sequence[str]) -> Iterator[str]:
    for number, value in enumerate(values):
        yield f"{label if number == 0 else '':{_LABEL}}{value}"


def _origin(told: Explanation) -> list[str]:
    return [f"origin {told.origin}"] if told.origin is not None else []


def _from(told: Explanation) -> str:
    address = told.client.address or "an address that is not known"
    return f"{address} ({told.client.how})" if told.client.how else address


def _route(told: Explanation) -> Iterator[str]:
    if told.answers_itself is not None:
        yield told.answers_itself
    elif told.route is not None:
        yield f"{told.route} ({told.endpoint})" if told.endpoint else told.route


def _caller(told: Explanation) -> Iterator[str]:
    caller = told.caller
    unasked = "" if caller.is_asked_for else "; the decision does not depend on it"
    if caller.is_known:
        by = f", by a token in {_as_sent(caller.token_field)}" if caller.token_field else ""
        yield f"{'client' if caller.is_client else 'user'} {caller.subject}{by}{unasked}"
    elif caller.reason is not None:
        yield f"nobody is known ({caller.reason}){f': {caller.hint}' if caller.hint else ''}{unasked}"
        if caller.subject is not None:
            yield f"a token of {caller.subject}"
    named = (("issuer", caller.issuer), ("audience", ", ".join(caller.audience)), ("client", caller.client_id))
    yield from _line(f"{name} {value}" for name, value in named if value)
    if caller.is_known:
        held = (("scopes", caller.scopes), ("roles", caller.roles), ("permissions", caller.permissions))
        yield from _line(f"{name}: {', '.join(names) or 'none'}" for name, names in held)
    yield from _line([caller.validity] if caller.validity else [])


def _line(parts: Iterable[str]) -> Iterator[str]:
    told = "; ".join(parts)
    if told:
        yield told


def _as_sent(field: str) -> str:
    return "-".join(word.capitalize() for word in field.split("-"))


_MARKS: Final[Mapping[str, tuple[str, str]]] = {
    "passed": ("+", "green"),
    "failed": ("x", "red"),
    "unknown": ("?", "red"),
    "not reached": ("-", "bright_black"),
}


def _checks(checks: Iterable[Check], indent: str) -> Iterator[str]:
    for check in checks:
        mark, color = _MARKS[check.result]
        result = click.style(f"{mark} {check.result:11}", fg=color)
        joined = f"{check.joined} of: " if check.parts else ""
        yield f"{indent}{result} {joined}{check.words}{f': {check.why}' if check.why else ''}"
        yield from _checks(check.parts, indent + "  ")
