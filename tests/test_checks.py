from collections.abc import Generator
from typing import Any, Final

import pytest
import structlog
from structlog.testing import capture_logs

from authz403 import AccessDenied, ConfigurationError, Gate, Reason, Rule, anyone, check, requirement
from authz403.checks import current, decided_outcome
from authz403.decision import Outcome
from authz403.request import AccessRequest
from tests.gates_made import fulfilled

HOLDS: Final = True
FAILS: Final = False


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Generator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture
def outcome() -> Generator[Outcome]:
    """Return the outcome of a request that a gate let in and whose handler is running."""
    yield from _within(report_only=False)


@pytest.fixture
def reported() -> Generator[Outcome]:
    """Return the same for a gate that only reports."""
    yield from _within(report_only=True)


def gate_of(*, report_only: bool) -> Gate:
    """Return a gate that lets everybody in."""
    return Gate(rules=[Rule("*", "/**", anyone)], dangerously_report_only=report_only)


def _within(*, report_only: bool) -> Generator[Outcome]:
    found = fulfilled(gate_of(report_only=report_only).decide(AccessRequest("GET", "/orders/7")))
    token = current.set(found)
    yield found
    current.reset(token)


def test_a_true_condition_passes(outcome: Outcome) -> None:
    """Nothing happens where the condition holds."""
    check(HOLDS, Reason.NOT_OWNER, order=7)
    assert outcome.decision.allowed


def test_a_false_condition_raises_the_denial(outcome: Outcome) -> None:
    """The reason and the facts travel to the middleware."""
    with pytest.raises(AccessDenied) as caught:
        check(FAILS, Reason.NOT_OWNER, order=7)
    assert (caught.value.reason, caught.value.facts, str(caught.value)) == (Reason.NOT_OWNER, {"order": 7}, "not_owner")


def test_a_check_may_have_a_code_of_its_own(outcome: Outcome) -> None:
    """A code of the app is taken as it is, and a published one written as text is the published one."""
    with pytest.raises(AccessDenied) as caught:
        check(FAILS, "plan_expired")
    assert caught.value.reason == "plan_expired"
    with pytest.raises(AccessDenied) as caught:
        check(FAILS, "not_owner")
    assert caught.value.reason is Reason.NOT_OWNER


@pytest.mark.parametrize("condition", [1, 0, "yes", "", None, [], [1], ..., anyone], ids=repr)
def test_only_a_bool_is_a_condition(outcome: Outcome, condition: Any) -> None:  # noqa: ANN401 - any mistake
    """A truthy mistake, such as a query set or a requirement, neither passes nor refuses: it raises."""
    with pytest.raises(TypeError, match="check takes True or False"):
        check(condition, Reason.NOT_OWNER)


async def _owns() -> bool:
    return False


def test_a_forgotten_await_is_no_condition(outcome: Outcome) -> None:
    """A coroutine is truthy, and would let everybody pass."""
    coroutine = _owns()
    with pytest.raises(TypeError, match="not coroutine"):
        check(coroutine, Reason.NOT_OWNER)  # type: ignore[arg-type]  # the mistake
    coroutine.close()


@pytest.mark.parametrize("code", ["Not Owner", "", "no", "x\r\nset-cookie: a=b", "7up", None, 5], ids=repr)
@pytest.mark.parametrize("condition", [True, False])
def test_a_code_of_the_wrong_shape_is_a_mistake(outcome: Outcome, code: Any, condition: bool) -> None:  # noqa: ANN401, FBT001 - any mistake, a column
    """It is told on the first run, and not only when somebody is refused; it never reaches a header."""
    with pytest.raises(ConfigurationError) as caught:
        check(condition, code)
    assert [mistake.field for mistake in caught.value.mistakes] == ["reason"]


def test_without_a_gate_a_check_is_a_mistake() -> None:
    """Where nobody would turn the denial into an answer, the app learns it at once, whatever the condition is."""
    for condition in (True, False):
        with pytest.raises(ConfigurationError, match="no gate decided this request"):
            check(condition, Reason.NOT_OWNER)
    with pytest.raises(ConfigurationError) as caught:
        decided_outcome("CurrentPrincipal")
    assert caught.value.part == "CurrentPrincipal"


def test_within_a_gate_the_outcome_is_at_hand(outcome: Outcome) -> None:
    """What was decided about the running request can be read in its handler."""
    assert decided_outcome("check") is outcome


def test_the_facts_of_a_check_are_in_the_event_and_not_in_the_answer(outcome: Outcome) -> None:
    """The log gets the order's number, the caller the reason."""
    gate = gate_of(report_only=False)
    with pytest.raises(AccessDenied) as caught:
        check(FAILS, "own_code", order="SECRET-7")
    with capture_logs() as events:
        gate.record(gate.denied_by_app(outcome, caught.value))
    (event,) = events
    assert (event["event"], event["reason"], event["facts"]) == ("authz.denied", "own_code", {"order": "SECRET-7"})
    assert outcome.response is not None
    assert outcome.response.status == 403
    assert b"SECRET" not in outcome.response.body


def test_a_gate_that_only_reports_lets_a_failed_check_pass_and_tells_it(reported: Outcome) -> None:
    """The handler goes on; the event says what would have been refused."""
    check(FAILS, Reason.NOT_OWNER, order=7)
    with capture_logs() as events:
        gate_of(report_only=True).record(reported)
    (event,) = events
    assert (event["event"], event["reason"], event["report_only"], event["facts"]) == (
        "authz.denied",
        "not_owner",
        True,
        {"order": 7},
    )
    assert reported.response is None


def test_a_check_is_a_matter_of_its_request_alone(outcome: Outcome) -> None:
    """A requirement of one's own and a check may share a code; neither changes the other."""
    gate = Gate(rules=[Rule("*", "/**", requirement("own_code", lambda _: False, anonymous=True))])
    other = fulfilled(gate.decide(AccessRequest("GET", "/")))
    check(HOLDS, "own_code")
    assert other.decision.reason == "own_code"
    assert outcome.decision.allowed
