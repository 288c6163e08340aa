import gc
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from authz403 import (
    AccessDenied,
    Denial,
    Gate,
    Network,
    Principal,
    Reason,
    Requirement,
    Rule,
    anyone,
    authenticated,
    claim,
    requirement,
    roles,
    scopes,
)
from authz403.audit import Audit, new_decision_id
from authz403.decision import Outcome
from authz403.facts import Facts, Rejected
from authz403.request import AccessRequest
from tests.gates_made import ALICE, NOBODY, NOW, Callers, Identity, OneRoute, fulfilled, someone
from tests.tokens_made import bearer, token, tokens

Event = MutableMapping[str, Any]

# What starts a line for one reader or another, and what turns a line around (Unicode's Bidi_Control).
LINE_BREAKS: Final = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
BIDI: Final = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.fixture
def events() -> Generator[list[Event]]:
    """Return the events of a host that has configured structlog."""
    with capture_logs() as found:
        yield found
    structlog.reset_defaults()


@pytest.fixture
def lines() -> Generator[Callable[[], list[Event]]]:
    """Return what reads the log of a host that has not configured structlog, line by line, as strict JSON."""
    structlog.reset_defaults()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("authz403")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)

    def read() -> list[Event]:
        return [strict(line) for line in stream.getvalue().splitlines()]

    yield read
    logger.removeHandler(handler)
    logger.setLevel(before)


def strict(line: str) -> Event:
    """Read one line of JSON, without Python's own NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return cast("Event", json.loads(line, parse_constant=refuse))


@pytest.fixture
def contextvars() -> Generator[None]:
    """Leave no variables of the app behind."""
    structlog.contextvars.clear_contextvars()
    yield
    structlog.contextvars.clear_contextvars()


def recorded(
    wanted: Requirement,
    identity: Identity = ALICE,
    *,
    request: AccessRequest | None = None,
    network: Network | None = None,
    denied: AccessDenied | None = None,
    report_only: bool = False,
) -> Outcome:
    """Decide a request, write its event, and return the outcome."""
    gate = Gate(
        tokens=Callers(identity),
        rules=[Rule("*", "/**", wanted)],
        network=network,
        clock=lambda: NOW,
        dangerously_report_only=report_only,
    )
    outcome = fulfilled(gate.decide(request or AccessRequest("GET", "/orders/5", "10.1.2.3"), OneRoute()))
    if denied is not None:
        outcome = gate.denied_by_app(outcome, denied)
    gate.record(outcome)
    return outcome


# ---- one event with everything


def test_a_refusal_is_one_event_with_all_that_explains_it(events: list[Event]) -> None:
    """Who, from where, what was asked, what is missing, which policy, and what the caller was told."""
    fields = {"x-forwarded-for": ("203.0.113.9, 172.16.0.9",)}
    caller = someone(
        scopes=["b", "a"], roles=["y", "x"], claims={"aud": "orders-api"}, token_id="t-1", expires_at=NOW + 60
    )
    outcome = recorded(
        scopes("a", "c"),
        caller,
        request=AccessRequest("POST", "/orders/5", "172.16.0.1", fields),
        network=Network(trusted_proxies=["172.16.0.0/12"]),
    )
    (event,) = events
    response = outcome.response
    assert response is not None
    assert event.pop("duration_us") >= 0
    assert re.fullmatch("[0-9a-f]{12}", event.pop("policy_version"))
    assert event.pop("hint", None) is None
    assert event == {
        "event": "authz.denied",
        "log_level": "warning",
        "decision_id": outcome.decision_id,
        "reason": "insufficient_scope",
        "status": 403,
        "method": "POST",
        "path": "/orders/5",
        "route": "/orders/{order}",
        "client_ip": "203.0.113.9",
        "peer": "172.16.0.1",
        "forwarded_for": "203.0.113.9, 172.16.0.9",
        "sub": "alice",
        "client_id": "shop",
        "iss": "https://id.example",
        "aud": "orders-api",
        "scopes": ["a", "b"],
        "roles": ["x", "y"],
        "token_id": "t-1",
        "token_expires": NOW + 60,
        "required_scopes": ["a", "c"],
        "missing_scopes": ["c"],
        "policy": "Rule(* /**): scopes('a', 'c')",
        "response": response.body.decode(),
    }
    assert json.loads(response.body)["decision_id"] == outcome.decision_id


def test_roles_and_permissions_that_are_missing_are_told(events: list[Event]) -> None:
    """The log names what the anonymous caller is not told."""
    recorded(roles("seller", "admin"))
    recorded(requirement("own_code", lambda _: False))
    assert (events[0]["required_roles"], events[0]["missing_roles"]) == (["seller", "admin"], ["admin"])
    assert events[1]["reason"] == "own_code"


def test_an_allowed_request_is_a_debug_event_without_a_body(events: list[Event]) -> None:
    """What passed is told quietly, with the same fields."""
    recorded(scopes("a"))
    (event,) = events
    assert (event["event"], event["log_level"], event["status"], event["sub"]) == (
        "authz.allowed",
        "debug",
        200,
        "alice",
    )
    assert "response" not in event
    assert "reason" not in event
    assert len(event["decision_id"]) == 26


def test_the_services_own_failures_are_errors(events: list[Event]) -> None:
    """A crash is `authz.error` with its exception; an outage is one without; neither says more to the caller."""

    def crash(facts: Facts) -> bool:
        raise RuntimeError("database is gone")

    outcome = recorded(requirement("own_code", crash))
    recorded(scopes("a"), Rejected(Reason.KEYS_UNAVAILABLE, "the issuer does not answer"))
    crashed, outage = events
    assert (crashed["event"], crashed["log_level"], crashed["reason"]) == ("authz.error", "error", "policy_error")
    assert crashed["error"] == "RuntimeError('database is gone')"
    assert crashed["traceback"][-1] == "RuntimeError: database is gone"
    assert outcome.response is not None
    assert b"database" not in outcome.response.body
    assert (outage["event"], outage["reason"], outage["hint"]) == (
        "authz.error",
        "keys_unavailable",
        "the issuer does not answer",
    )
    assert "traceback" not in outage


def test_facts_of_a_check_are_told_to_the_log_alone(events: list[Event]) -> None:
    """The handler's own facts are in the event, under one name, and not in the answer."""
    outcome = recorded(anyone, denied=AccessDenied(Reason.NOT_OWNER, order=7, owner="bob"))
    (event,) = events
    assert (event["reason"], event["facts"]) == ("not_owner", {"order": 7, "owner": "bob"})
    assert outcome.response is not None
    assert b"bob" not in outcome.response.body


def test_what_a_rejected_credential_says_is_told(events: list[Event]) -> None:
    """A source's facts and hint about a token that was refused explain the refusal."""
    recorded(scopes("a"), Rejected(Reason.TOKEN_EXPIRED, "it expired 5 s ago", {"sub": "alice", "token_id": "t-9"}))
    (event,) = events
    assert (event["sub"], event["token_id"], event["hint"]) == ("alice", "t-9", "it expired 5 s ago")


def test_a_sources_facts_do_not_take_the_place_of_the_requests(events: list[Event]) -> None:
    """Whatever a source of identities tells, path, status and the name of the event are what they are."""
    facts = {"path": "/fake", "event": "authz.allowed", "status": 200, "policy": "fake", "mine": 1}
    recorded(scopes("a"), Rejected(Reason.INVALID_TOKEN, None, facts))
    (event,) = events
    assert (event["event"], event["path"], event["status"]) == ("authz.denied", "/orders/5", 401)
    assert event["policy"] == "Rule(* /**): scopes('a')"
    assert event["mine"] == 1


@pytest.mark.parametrize("name", ["route", "client_ip", "peer", "forwarded_for", "hint", "missing_roles"])
def test_a_source_names_nothing_that_the_request_does_not_have(name: str, events: list[Event]) -> None:
    """Where a request has no peer, a source of identities gives it none."""
    gate = Gate(
        tokens=Callers(Rejected(Reason.INVALID_TOKEN, None, {name: "fake"})), rules=[Rule("*", "/**", scopes("a"))]
    )
    gate.record(fulfilled(gate.decide(AccessRequest("GET", "/orders/5"), OneRoute(found=False))))
    (event,) = events
    assert name not in event


def test_a_concealed_refusal_tells_its_true_reason(events: list[Event]) -> None:
    """The caller sees a 404; the operator sees why."""
    recorded(scopes("c").concealed())
    (event,) = events
    assert (event["event"], event["reason"], event["concealed"]) == ("authz.denied", "insufficient_scope", True)


def test_a_refusal_that_was_only_reported_says_so(events: list[Event]) -> None:
    """What would have been refused is told, and that it was not."""
    outcome = recorded(scopes("c"), report_only=True)
    (event,) = events
    assert (event["event"], event["report_only"]) == ("authz.denied", True)
    assert "response" not in event
    assert outcome.response is None


def test_the_apps_own_contextvars_are_in_the_event(
    events: list[Event], contextvars: None, lines: Callable[[], list[Event]]
) -> None:
    """The host's request id stands beside the decision, in structlog and in the plain log; facts win over it."""
    structlog.contextvars.bind_contextvars(request_id="r-1", path="/other")
    structlog.reset_defaults()
    recorded(scopes("c"))
    with capture_logs() as found:
        recorded(scopes("c"))
    for event in (*found, *lines()):
        assert (event["request_id"], event["path"]) == ("r-1", "/orders/5")
    assert events == []


@pytest.mark.parametrize("name", ["event", "level", "log_level", "exc_info", "self", "stack_info"])
@pytest.mark.parametrize("configured", [True, False], ids=["structlog", "stdlib"])
def test_contextvars_of_any_name_neither_break_nor_rename_an_event(
    contextvars: None,
    lines: Callable[[], list[Event]],
    name: str,
    configured: bool,  # noqa: FBT001 - a column
) -> None:
    """An app that binds a variable named like one of the logger's own still gets its event, and under its own name."""
    structlog.contextvars.bind_contextvars(**{name: "mine"})

    def crash(facts: Facts) -> bool:
        raise RuntimeError("x")

    for wanted, event_name in ((scopes("c"), "authz.denied"), (requirement("own_code", crash), "authz.error")):
        if configured:
            with capture_logs() as found:
                recorded(wanted)
            (event,) = found
        else:
            structlog.reset_defaults()
            recorded(wanted)
            event = lines()[-1]
        assert event["event"] == event_name
    structlog.reset_defaults()


# ---- what events share is made once


def test_events_that_share_much_differ_where_their_requests_do(events: list[Event]) -> None:
    """What is kept of a caller and a decision never carries one request's facts into another's event."""
    bob = someone("bob", scopes=["a", "b"], claims={"aud": "other"})
    callers = Callers(ALICE)
    gate = Gate(
        tokens=callers,
        rules=[Rule("DELETE", "/**", roles("admin")), Rule("*", "/**", scopes("c"))],
        network=Network(trusted_proxies=["172.16.0.0/12"]),
        clock=lambda: NOW,
    )
    asked: list[tuple[Identity, AccessRequest]] = [
        (ALICE, AccessRequest("GET", "/orders/5", "172.16.0.1", {"x-forwarded-for": ("203.0.113.9",)})),
        (bob, AccessRequest("POST", "/orders/6", "10.1.2.3")),
        (ALICE, AccessRequest("PUT", "/orders/7")),
        (ALICE, AccessRequest("GET", "/orders/8", "10.1.2.4")),
        (ALICE, AccessRequest("DELETE", "/orders/9", "10.1.2.4")),
    ]
    outcomes = []
    for caller, request in asked:
        callers.identity = caller
        outcomes.append(fulfilled(gate.decide(request, OneRoute(found=request.path != "/orders/8"))))
        gate.record(outcomes[-1])
    names = ("sub", "aud", "method", "path", "route", "peer", "client_ip", "forwarded_for")
    assert [tuple(event.get(name) for name in names) for event in events] == [
        *[("alice", None, "GET", "/orders/5", "/orders/{order}", "172.16.0.1", "203.0.113.9", "203.0.113.9")],
        *[("bob", "other", "POST", "/orders/6", "/orders/{order}", "10.1.2.3", "10.1.2.3", None)],
        *[("alice", None, "PUT", "/orders/7", "/orders/{order}", None, None, None)],
        *[("alice", None, "GET", "/orders/8", None, "10.1.2.4", "10.1.2.4", None)],
        *[("alice", None, "DELETE", "/orders/9", "/orders/{order}", "10.1.2.4", "10.1.2.4", None)],
    ]
    assert [(event["reason"], event.get("missing_scopes"), event.get("missing_roles")) for event in events] == [
        *[("insufficient_scope", ["c"], None)] * 4,
        ("role_required", None, ["admin"]),
    ]
    for event, outcome in zip(events, outcomes, strict=True):
        assert outcome.response is not None
        assert event["response"] == outcome.response.body.decode()
        assert event["decision_id"] == outcome.decision_id == json.loads(event["response"])["decision_id"]
        assert None not in event.values()


def test_one_event_changes_no_other(events: list[Event]) -> None:
    """A processor may change an event; the next one is as it should be."""
    audiences: list[object] = ["a", ("a", "b"), ("a", ("b",)), {"a": "b"}]
    for audience in audiences:
        gate = Gate(tokens=Callers(someone(claims={"aud": audience})), rules=[Rule("*", "/**", scopes("c"))])
        for _ in range(2):
            gate.record(fulfilled(gate.decide(AccessRequest("GET", "/orders/5"))))
            event = events[-1]
            assert (event["sub"], event["missing_scopes"]) == ("alice", ["c"])
            assert json.dumps(event["aud"]) == json.dumps(audience)
            event["sub"] = "mallory"
            event["missing_scopes"].append("x")
            _spoil(event["aud"])


def _spoil(value: object) -> None:
    if isinstance(value, list):
        for one in value:
            _spoil(one)
        value.append("x")
    elif isinstance(value, dict):
        value["a"] = "x"


@pytest.mark.parametrize("later", ["x\n{}", "Bearer sk-live-0123456789", '"}x', "x" * 2_000])
def test_a_body_is_looked_at_that_begins_like_the_one_before(later: str, events: list[Event]) -> None:
    """What the user's own `render` makes may differ each time, up to the last character."""
    texts = iter(["start ", "start ", f"start {later}", f"start {later}", "start "])

    def render(denial: Denial, _: AccessRequest) -> tuple[str, bytes]:
        return "text/plain", f'{next(texts)}{denial.decision_id}"}}'.encode()

    gate = Gate(tokens=Callers(ALICE), rules=[Rule("*", "/**", scopes("c"))], render=render)
    for _ in range(5):
        gate.record(fulfilled(gate.decide(AccessRequest("GET", "/orders/5"))))
    told = [event["response"].removesuffix(f'{event["decision_id"]}"}}') for event in events]
    assert (told[0], told[1], told[4]) == ("start ", "start ", "start ")
    for text in told[2:4]:
        assert text.startswith("start ")
        assert text != "start "
        assert "\n" not in text
        assert "sk-live" not in text
        assert len(text) <= 1_024 + len("...")


def test_callers_are_not_kept_without_end(lines: Callable[[], list[Event]]) -> None:
    """However many callers are refused, a bounded number of them stays in memory."""
    callers = Callers(None)
    gate = Gate(tokens=callers, rules=[Rule("*", "/**", scopes("c"))])
    for number in range(3_000):
        callers.identity = someone(f"caller {number}")
        gate.record(fulfilled(gate.decide(AccessRequest("GET", "/orders/5"))))
    assert lines()[-1]["sub"] == "caller 2999"
    kept = sum(type(one) is Principal and one.sub.startswith("caller ") for one in gc.get_objects())
    assert kept <= 1_100


# ---- where it goes


def test_without_structlog_an_event_is_one_line_of_json(lines: Callable[[], list[Event]]) -> None:
    """The logger `authz403` of the standard library gets the same fields."""
    recorded(scopes("c"))
    recorded(scopes("a"))
    denied, allowed = lines()
    assert (denied["event"], denied["level"], denied["missing_scopes"]) == ("authz.denied", "warning", ["c"])
    assert (allowed["event"], allowed["level"]) == ("authz.allowed", "debug")


def test_a_crash_is_one_line_too(lines: Callable[[], list[Event]]) -> None:
    """CWE-117: an exception's message may hold what a client wrote; a raw traceback would let it forge lines."""
    forged = 'x"\n{"event": "authz.allowed", "sub": "admin"}\n'

    def crash(facts: Facts) -> bool:
        raise ValueError(facts.principal.claims["plan"])

    recorded(requirement("own_code", crash), someone(claims={"plan": forged}))
    (event,) = lines()
    assert (event["event"], event["reason"]) == ("authz.error", "policy_error")
    assert "ValueError" in event["error"]


def test_the_place_of_a_crash_is_told(lines: Callable[[], list[Event]]) -> None:
    """Without structlog too, the operator finds the line of code that raised."""

    def crash_here(facts: Facts) -> bool:
        raise ValueError("x")

    recorded(requirement("own_code", crash_here))
    assert "crash_here" in json.dumps(lines())


def test_levels_of_the_standard_logger_are_kept(lines: Callable[[], list[Event]]) -> None:
    """Nothing is written below the level that the host has set."""
    logging.getLogger("authz403").setLevel(logging.ERROR)
    recorded(scopes("c"))
    Audit("v1").warn_once("jwks", "one bad key")
    assert lines() == []
    logging.getLogger("authz403").setLevel(logging.WARNING)
    recorded(scopes("a"))
    recorded(scopes("c"))
    assert [event["event"] for event in lines()] == ["authz.denied"]


def test_the_sink_is_chosen_for_every_event(lines: Callable[[], list[Event]]) -> None:
    """A host that configures structlog after the gate was made gets its events there."""
    audit = Audit("v1")
    audit.error("misconfigured", "first")
    with capture_logs() as found:
        audit.error("misconfigured", "second")
    structlog.reset_defaults()
    audit.error("misconfigured", "third")
    assert [event["hint"] for event in lines()] == ["first", "third"]
    assert [event["hint"] for event in found] == ["second"]


def test_every_configuration_of_structlog_counts_from_the_next_event_on() -> None:
    """Loggers, processors and classes are those of the moment, with and without structlog's own cache of loggers."""
    audit = Audit("v1")
    streams = [io.StringIO() for _ in range(4)]
    rendered: list[Any] = [structlog.processors.JSONRenderer(), structlog.processors.LogfmtRenderer()]
    filtered = structlog.make_filtering_bound_logger(logging.CRITICAL)
    try:
        for number, stream in enumerate(streams):
            structlog.configure(
                processors=[rendered[number % 2]],
                logger_factory=structlog.PrintLoggerFactory(stream),
                cache_logger_on_first_use=number > 0,
                wrapper_class=filtered if number == 3 else structlog.make_filtering_bound_logger(0),
            )
            audit.warn("jwks", "one")
            audit.warn("jwks", "two")
    finally:
        structlog.reset_defaults()
    written = [stream.getvalue().splitlines() for stream in streams]
    assert [len(found) for found in written] == [2, 2, 2, 0]
    assert [found[1][0] for found in written[:3]] == ["{", "c", "{"]


@pytest.mark.parametrize(("cached", "expected"), [(True, 1), (False, 2)])
def test_the_hosts_loggers_are_made_as_often_as_it_asks_for(cached: bool, expected: int) -> None:  # noqa: FBT001 - a column
    """A host that does not let loggers be cached may change where they write at any time."""
    made: list[tuple[object, ...]] = []

    def factory(*names: object) -> structlog.PrintLogger:
        made.append(names)
        return structlog.PrintLogger(io.StringIO())

    structlog.configure(logger_factory=factory, cache_logger_on_first_use=cached)
    try:
        audit = Audit("v1")
        audit.warn("jwks", "one")
        audit.warn("jwks", "two")
    finally:
        structlog.reset_defaults()
    assert made == [("authz403",)] * expected


def test_the_hosts_class_of_contexts_is_used() -> None:
    """What a processor is given is what the host has configured."""
    given: list[object] = []

    class Context(dict[str, object]):
        def copy(self) -> "Context":
            return Context(self)

    def look(_logger: object, _name: str, event: Event) -> str:
        given.append(event)
        return "x"

    structlog.configure(
        processors=[look], context_class=Context, logger_factory=structlog.PrintLoggerFactory(io.StringIO())
    )
    try:
        Audit("v1").warn("jwks", "one")
    finally:
        structlog.reset_defaults()
    (event,) = given
    assert isinstance(event, Context)
    assert (event["event"], event["cause"]) == ("authz.warning", "jwks")


def test_structlog_is_never_configured_by_the_library(lines: Callable[[], list[Event]]) -> None:
    """Configuring belongs to the host."""
    recorded(scopes("c"))
    assert lines()
    assert not structlog.is_configured()


@pytest.mark.parametrize(
    ("configure", "wanted"),
    [
        pytest.param({"wrapper_class": structlog.make_filtering_bound_logger(logging.DEBUG)}, True, id="filter, debug"),
        pytest.param({"wrapper_class": structlog.make_filtering_bound_logger(logging.INFO)}, False, id="filter, info"),
        pytest.param(
            {
                "wrapper_class": structlog.stdlib.BoundLogger,
                "logger_factory": structlog.stdlib.LoggerFactory(),
            },
            False,
            id="stdlib.BoundLogger",
        ),
        pytest.param({"wrapper_class": structlog.BoundLogger}, True, id="generic BoundLogger"),
        pytest.param({}, True, id="structlog's defaults"),
    ],
)
def test_allowed_requests_are_worth_an_event_where_the_host_wants_debug(
    configure: dict[str, Any],
    wanted: bool,  # noqa: FBT001 - a column
) -> None:
    """No work is done for what would be dropped, and nothing is dropped that the host asked for."""
    structlog.configure(**configure)
    try:
        audit = Audit("v1")
        for _ in range(2):
            assert audit.wants_debug() is wanted
            assert audit.wants_warning()
    finally:
        structlog.reset_defaults()


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_the_standard_loggers_level_decides_with_structlog_on_top_of_it(
    level: int, lines: Callable[[], list[Event]]
) -> None:
    """The stdlib wrapper of structlog filters by the standard logger, and so does plain logging."""
    logging.getLogger("authz403").setLevel(level)
    audit = Audit("v1")
    assert audit.wants_debug() is (level == logging.DEBUG)
    structlog.configure(wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory())
    try:
        assert audit.wants_debug() is (level == logging.DEBUG)
    finally:
        structlog.reset_defaults()
    assert lines() == []


def test_a_request_that_nobody_wants_to_hear_of_gets_no_id(lines: Callable[[], list[Event]]) -> None:
    """An allowed request costs nothing where debug is off, and the answer to a refused one has its id in any case."""
    logging.getLogger("authz403").setLevel(logging.CRITICAL)
    assert recorded(scopes("a")).decision_id is None
    assert recorded(scopes("c")).decision_id is not None
    assert lines() == []


# ---- warnings and errors of no single request


def test_a_warning_is_written_once_for_each_cause(events: list[Event]) -> None:
    """A finding that would repeat with every request is told once, another one besides it."""
    audit = Audit("v1")
    for _ in range(3):
        audit.warn_once("jwks", "one bad key")
        audit.warn_once("jwks", "another bad key")
    assert [(event["event"], event["cause"], event["hint"]) for event in events] == [
        ("authz.warning", "jwks", "one bad key"),
        ("authz.warning", "jwks", "another bad key"),
    ]
    assert all(event["policy_version"] == "v1" for event in events)


def test_warnings_are_bounded(events: list[Event]) -> None:
    """A cause that is never the same does not fill log and memory."""
    audit = Audit("v1")
    for number in range(1_100):
        audit.warn_once("jwks", str(number))
    assert len(events) == 1_000


def test_an_error_of_no_single_request_is_written(events: list[Event]) -> None:
    """A failure outside of decisions has its reason, hint and exception."""
    error = RuntimeError("x")
    Audit("v1").error("policy_error", "render failed", error)
    (event,) = events
    assert (event["event"], event["reason"], event["hint"], event["traceback"]) == (
        "authz.error",
        "policy_error",
        "render failed",
        ["RuntimeError: x"],
    )


# ---- what a client wrote cannot do harm


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return "".join(f"{_flat(name)}{_flat(one)}" for name, one in value.items())
    return "".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _everywhere(text: str) -> tuple[Requirement, Identity, AccessRequest, AccessDenied]:
    """Return a request that holds a text in every field that a client or an issuer may write."""
    caller = someone(
        sub=f"s{text}",
        issuer=text,
        client_id=text,
        scopes=[text],
        roles=[text],
        token_id=text,
        claims={"aud": (text, {text: text}), "plan": text},
    )
    fields = {"x-forwarded-for": (text, text), "authorization": (text,)}
    denied = AccessDenied(
        "own_code", text=text, many=[text], nested={text: {text: (text,)}}, raw=text.encode("utf-8", "replace")
    )
    return authenticated, caller, AccessRequest(text, "/" + text, text, fields), denied


NASTY: Final = [
    *LINE_BREAKS,
    *BIDI,
    "\x00",
    "\x1b[31mred\x1b[0m",
    "\x7f",
    "\ud800",
    '"}\n{"event": "authz.allowed"',
    "a" * 5000,
]


@pytest.mark.parametrize("text", NASTY, ids=lambda text: ascii(text)[:24])
def test_no_field_makes_a_second_line(text: str, lines: Callable[[], list[Event]]) -> None:
    """CWE-117: line breaks of every kind, terminal escapes and bidi controls are escaped, in every field."""
    wanted, identity, request, denied = _everywhere(text)
    recorded(wanted & claim("plan", "x" + text), identity, request=request)
    recorded(wanted, identity, request=replace(request, path="/"), denied=denied)
    with capture_logs() as found:
        recorded(wanted & claim("plan", "x" + text), identity, request=request)
        recorded(wanted, identity, request=replace(request, path="/"), denied=denied)
    structlog.reset_defaults()
    assert len(lines()) == len(found) == 2
    for event in (*lines(), *found):
        shown = _flat(dict(event))
        assert not re.search(f"[\x00-\x1f\x7f-\x9f{LINE_BREAKS}{BIDI}\ud800-\udfff]", shown), ascii(shown)


@pytest.mark.parametrize("field", ["method", "path", "peer", "x-forwarded-for", "forwarded", "route"])
@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\u202eb", "a\x7fb", "x" * 2_000, "bEaReR sk-live-0123456789", token()],
    ids=["line break", "turned around", "delete", "long", "bearer", "token"],
)
def test_one_nasty_field_among_plain_ones_is_made_harmless(field: str, text: str, events: list[Event]) -> None:
    """What is looked at in a row is written one by one."""
    fields = {field: (text,)} if field in {"x-forwarded-for", "forwarded"} else {}
    request = AccessRequest(
        text if field == "method" else "GET",
        f"/{text}" if field == "path" else "/orders/5",
        text if field == "peer" else "10.1.2.3",
        fields,
    )
    gate = Gate(tokens=Callers(ALICE), rules=[Rule("*", "/**", scopes("c"))], network=Network(source="peer"))
    outcome = fulfilled(gate.decide(request, OneRoute()))
    if field == "route":
        outcome.route = f"/{text}"
    gate.record(outcome)
    (event,) = [event for event in events if event["event"] == "authz.denied"]
    written = _flat(dict(event))
    assert not re.search(f"[\x00-\x1f\x7f{BIDI}]", written)
    assert not re.search(f"sk-live|{token()[:12]}", written)
    assert all(len(str(value)) <= 1_024 + len("...") for value in event.values())


def test_the_naughty_strings_make_one_parseable_line_each(corpora: Path, lines: Callable[[], list[Event]]) -> None:
    """The Big List of Naughty Strings in every field: one strict JSON line a request, which says the same."""
    naughty = json.loads((corpora / "log-strings" / "blns.json").read_text("utf-8"))
    assert len(naughty) > 500
    for text in naughty:
        wanted, identity, request, denied = _everywhere(text)
        recorded(wanted, identity, request=replace(request, path="/"), denied=denied)
    found = [event for event in lines() if event["event"] != "authz.warning"]
    assert len(found) == len(naughty)
    harmless = re.compile(r"[\x20-\x7e]*")
    for text, event in zip(naughty, found, strict=True):
        assert event["event"] == "authz.denied"
        if harmless.fullmatch(text):
            assert (event["sub"], event["facts"]["text"], event["aud"][0]) == (f"s{text}", text, text)


values: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_facts_of_any_shape_are_one_line(value: object) -> None:
    """Whatever a handler hands over as a fact is written, and read back by a strict reader."""
    structlog.reset_defaults()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("authz403").addHandler(handler)
    try:
        recorded(anyone, denied=AccessDenied("own_code", value=value))
    finally:
        logging.getLogger("authz403").removeHandler(handler)
    (line,) = stream.getvalue().splitlines()
    assert strict(line)["event"] == "authz.denied"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("the session is closed")


class Endless(dict[str, object]):
    def __init__(self) -> None:
        super().__init__(me=self)


@pytest.mark.parametrize(
    "fact",
    [Unprintable(), Endless(), {"deep": Unprintable()}, 10**5000, float("nan"), float("inf"), object(), {1: 2}],
    ids=["repr raises", "endless", "deep", "a huge number", "NaN", "infinity", "an object", "a number as name"],
)
@pytest.mark.parametrize("configured", [True, False], ids=["structlog", "stdlib"])
def test_no_fact_breaks_the_log(fact: object, lines: Callable[[], list[Event]], configured: bool) -> None:  # noqa: FBT001 - a column
    """A handler's fact that cannot be shown does not turn a refusal into a crash, or a line into no JSON."""
    if configured:
        with capture_logs() as found:
            recorded(anyone, denied=AccessDenied("own_code", fact=fact, other="told"))
        structlog.reset_defaults()
        (event,) = found
        assert len(_flat(dict(event))) < 20_000
    else:
        recorded(anyone, denied=AccessDenied("own_code", fact=fact, other="told"))
        (event,) = lines()
    assert (event["event"], event["facts"]["other"]) == ("authz.denied", "told")


def test_lengths_are_capped(lines: Callable[[], list[Event]]) -> None:
    """No client decides how long a line is: not with a long path, long claims, or many of them."""
    long = "x" * 100_000
    caller = someone(sub=long, scopes=[f"scope{number}" for number in range(5_000)], claims={"aud": (long,) * 200})
    facts = {"many": list(range(10_000)), "mapping": dict.fromkeys(map(str, range(10_000)), long)}
    request = AccessRequest("GET" + long, "/" + long, long, {"x-forwarded-for": (long,) * 10})
    recorded(scopes("c") & scopes("d"), caller, request=request)
    recorded(anyone, caller, request=request, denied=AccessDenied("own_code", **facts))
    first, second = lines()
    for name in ("sub", "path", "method", "peer", "forwarded_for"):
        assert len(first[name]) == 1_024 + len("..."), name
    assert len(first["scopes"]) == len(first["aud"]) == len(second["facts"]["many"]) == 50
    assert len(second["facts"]["mapping"]) == 50


# ---- tokens and secrets


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(bearer(token()), id="a good token"),
        pytest.param(bearer(token(jti="t-1")), id="a good token with an id"),
        pytest.param(bearer(token(exp=1)), id="an expired token"),
        pytest.param(bearer(token(iss="https://other.example")), id="another issuer's token"),
        pytest.param(bearer(token(aud="other")), id="another audience's token"),
        pytest.param(bearer(token()[:-4] + "AAAA"), id="a bad signature"),
        pytest.param(bearer("c2VjcmV0LW9wYXF1ZS10b2tlbg"), id="an opaque token"),
        pytest.param(bearer(token() + " x"), id="a malformed header"),
        pytest.param(bearer(f'"{token()}"'), id="a quoted token"),
        pytest.param(f"Bearer: {token()}", id="a colon"),
        pytest.param("Basic c2VjcmV0LW9wYXF1ZS10b2tlbg==", id="another scheme"),
        pytest.param("c2VjcmV0LW9wYXF1ZS10b2tlbg", id="no scheme"),
        pytest.param(token(), id="a token without scheme"),
        pytest.param("sk-live-0123456789", id="a short key without scheme"),
        pytest.param("Token=sk-live-0123456789", id="a key after an equals sign"),
    ],
)
@pytest.mark.parametrize(
    "wanted", [scopes("c"), scopes("c").concealed(), anyone], ids=["scopes", "concealed", "anyone"]
)
def test_credentials_are_in_no_log_and_in_no_answer(
    authorization: str, wanted: Requirement, lines: Callable[[], list[Event]]
) -> None:
    """CWE-532: no part of a token or key of eight characters or more is written, whatever is wrong with it."""
    gate = Gate(tokens=tokens(), rules=[Rule("*", "/**", wanted)], clock=lambda: NOW)
    fields = {"authorization": (authorization,), "x-forwarded-for": ("203.0.113.9",)}
    outcome = fulfilled(gate.decide(AccessRequest("GET", "/", "10.1.2.3", fields)))
    gate.record(outcome)
    told = (json.dumps(lines()) + repr(outcome.response)).lower()
    secret = authorization.lower().removeprefix("bearer ").removeprefix("basic ")
    parts = {secret[start : start + 8] for start in range(len(secret) - 7)}
    assert not {part for part in parts if part in told and part not in "bearer: token=sk"}


def test_a_token_is_named_by_its_id_or_a_fingerprint(lines: Callable[[], list[Event]]) -> None:
    """The `jti` finds the token at its issuer; without one, a fingerprint tells two tokens apart."""
    gate = Gate(tokens=tokens(), rules=[Rule("*", "/**", scopes("c"))], clock=lambda: NOW)
    for text in (token(jti="t-1"), token(), token(sub="bob"), token(exp=1, jti="t-2")):
        gate.record(fulfilled(gate.decide(AccessRequest("GET", "/", None, {"authorization": (bearer(text),)}))))
    first, second, third, fourth = (event["token_id"] for event in lines())
    assert (first, fourth) == ("t-1", "t-2")
    assert re.fullmatch("sha256:[0-9a-f]{16}", second)
    assert second != third


def test_the_query_and_other_headers_are_left_out(lines: Callable[[], list[Event]]) -> None:
    """Only the fields that are named are written."""
    request = AccessRequest("GET", "/", None, {"cookie": ("session=SECRET",), "origin": ("https://SECRET.example",)})
    recorded(scopes("c"), NOBODY, request=request)
    assert "SECRET" not in json.dumps(lines())


# ---- ids

CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def test_a_decision_id_is_a_ulid() -> None:
    """26 characters of Crockford's Base32, the first ten the time in milliseconds, the rest random."""
    before = time.time_ns() // 1_000_000
    found = [new_decision_id() for _ in range(1_000)]
    after = time.time_ns() // 1_000_000
    assert len(set(found)) == 1_000
    assert len({one[10:] for one in found}) == 1_000
    for one in found:
        assert re.fullmatch(f"[0-7][{CROCKFORD}]{{25}}", one)
        number = 0
        for character in one:
            number = number * 32 + CROCKFORD.index(character)
        assert before <= number >> 80 <= after


def test_decision_ids_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An id made in a later millisecond is greater, so that a log sorted by it is in order."""
    now = 1_700_000_000_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    found = []
    for step in (1, 1, 31, 32, 1_000, 10**9):
        now += step * 1_000_000
        found.append(new_decision_id())
    assert found == sorted(found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes do not fork here")
def test_processes_that_were_forked_give_different_ids() -> None:
    """A server that forks its workers after the first id gives none of them the ids of another."""
    program = (
        "import os, sys\n"
        "from authz403.audit import new_decision_id\n"
        "new_decision_id()\n"
        "child = os.fork()\n"
        "if child: os.waitpid(child, 0)\n"
        "sys.stdout.write(''.join(new_decision_id()[10:] + '\\n' for _ in range(200)))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert len(found) == len(set(found)) == 400


def test_threads_give_different_ids() -> None:
    """Whoever asks at the same time gets another one."""
    with ThreadPoolExecutor(8) as pool:
        found = [one for ids in pool.map(lambda _: [new_decision_id() for _ in range(500)], range(8)) for one in ids]
    assert len(set(found)) == 4_000


def test_what_an_exception_quotes_forges_no_line_and_shows_no_token() -> None:
    """CWE-117, CWE-532: renderers write tracebacks as they are, so they get none; tokens in them are cut out."""
    forged = "x\n2026-01-01 [info] authz.allowed sub=root"

    def crash(facts: Facts) -> bool:
        raise ValueError(f"{facts.principal.claims['note']} {bearer(token())} {token()}")

    stream = io.StringIO()
    structlog.configure(
        processors=[structlog.dev.ConsoleRenderer(colors=False)], logger_factory=structlog.PrintLoggerFactory(stream)
    )
    try:
        recorded(requirement("own_code", crash), someone(claims={"note": forged}))
    finally:
        structlog.reset_defaults()
    written = stream.getvalue()
    assert "authz.error" in written
    assert not any(line.startswith("2026-01-01") for line in written.splitlines())
    assert token()[:12] not in written


def test_tokens_are_cut_out_wherever_they_are_quoted_and_at_no_cost() -> None:
    """CWE-532: a hint, a fact or a path may quote a token; CWE-1333: looking for one takes linear time."""
    with capture_logs() as events:
        recorded(
            anyone,
            request=AccessRequest("GET", f"/reset/{token()}", "10.1.2.3"),
            denied=AccessDenied("own_code", sent=f"Bearer {token()}", long="eyJ" * 200_000),
        )
        recorded(authenticated, Rejected(Reason.POLICY_UNAVAILABLE, f"roles_for raised Error({token()!r})"))
    structlog.reset_defaults()
    told = json.dumps(events)
    assert token().split(".")[1][:12] not in told
    assert events[0]["path"] == "/reset/[token]"
    assert events[0]["facts"]["sent"] == "[token]"
    assert events[0]["facts"]["long"].startswith("[token]")
    assert "roles_for raised" in events[1]["hint"]
