"""What gates decided, as values; and a response held to a refusal, with all that helps where it is another.

Logging is neither configured nor needed. While nobody looks, gates are as they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final, Protocol

from authz403.client import parse_denial
from authz403.decision import Decision, Denial, Outcome
from authz403.errors import AccessDenied
from authz403.gate import Gate
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.testing.seam import served

_MOST_REMEMBERED: Final = 200  # decisions, to tell the hint of a refusal that somebody looks at later
_MOST_SHOWN: Final = 2_000  # characters of a body


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What became of one request: its facts, who asked, and the `decision`.

    `let_in` says that the gate let the request in, whatever a check in the handler said after that; `allowed` is false
    then, too, if the check failed. `enforced` is false where the gate only reports.
    """

    method: str
    path: str
    route: str | None
    client_ip: str | None
    principal: Principal | None
    decision: Decision
    decision_id: str | None
    let_in: bool
    enforced: bool

    @property
    def allowed(self) -> bool:
        """Whether the request was allowed."""
        return self.decision.allowed

    @property
    def reason(self) -> Reason | str | None:
        """Why it was refused, the true reason of a concealed refusal included; `None` where it was allowed."""
        return self.decision.reason

    @property
    def status(self) -> int:
        """The status of the refusal; 200 where it was allowed, whatever the app answered."""
        return self.decision.status

    @property
    def hint(self) -> str | None:
        """What the log event would tell the operator besides."""
        return self.decision.hint

    def __str__(self) -> str:
        told = "allowed" if self.allowed else f"refused with {self.reason} ({self.status})"
        hint = f"; hint: {self.hint}" if self.hint else ""
        return f"{self.method} {self.path}: {told} by {self.decision.policy or 'no policy'}{hint}"


class _Recorder:
    """Sees what gates write down, for as long as somebody looks."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._lists: list[tuple[Gate | None, list[Decided]]] = []
        self._by_check: dict[int, Outcome] = {}
        self._own: tuple[Any, Any, Any] | None = None
        self.recent: deque[Decided] = deque(maxlen=_MOST_REMEMBERED)

    @contextmanager
    def into(self, found: list[Decided], gate: Gate | None) -> Iterator[None]:
        """Put all that is decided into a list, by one gate or by any."""
        entry = (gate, found)
        with self._lock:
            self._lists.append(entry)
            if self._own is None:
                self._look()
        try:
            yield
        finally:
            with self._lock:
                self._lists[:] = [one for one in self._lists if one is not entry]
                if not self._lists:
                    self._look_away()

    def _look(self) -> None:
        record, by_app, too_late = self._own = (Gate.record, Gate.denied_by_app, Gate.denied_too_late)

        def recording(gate: Gate, outcome: Outcome) -> None:
            record(gate, outcome)
            self._note(gate, outcome)

        def denied_by_app(gate: Gate, outcome: Outcome, denied: AccessDenied, **options: bool) -> Outcome:
            self._by_check[id(outcome)] = outcome
            found: Outcome = by_app(gate, outcome, denied, **options)
            return found

        def denied_too_late(gate: Gate, outcome: Outcome, denied: AccessDenied) -> None:
            too_late(gate, outcome, denied)
            self._by_check[id(outcome)] = outcome
            self._note(gate, outcome)

        _put((recording, denied_by_app, denied_too_late))

    def _look_away(self) -> None:
        assert self._own is not None  # noqa: S101 - looked before
        _put(self._own)
        self._own = None
        self._by_check.clear()

    def _note(self, gate: Gate, outcome: Outcome) -> None:
        decision = outcome.decision
        decided = Decided(
            method=outcome.request.method,
            path=outcome.request.path,
            route=outcome.route,
            client_ip=None if outcome.address is None else str(outcome.address),
            principal=outcome.principal,
            decision=decision,
            decision_id=outcome.decision_id,
            let_in=decision.allowed or self._by_check.pop(id(outcome), None) is not None,
            enforced=not gate.report_only,
        )
        self.recent.append(decided)
        for wanted, found in tuple(self._lists):
            if wanted is None or wanted is gate:
                found.append(decided)


def _put(methods: tuple[Any, Any, Any]) -> None:
    for name, method in zip(("record", "denied_by_app", "denied_too_late"), methods, strict=True):
        setattr(Gate, name, method)


_recorder: Final = _Recorder()


@contextmanager
def capture_decisions(app: object = None) -> Iterator[list[Decided]]:
    """Collect what is decided, allowed requests included, in the list that this gives: `with ... as decisions:`.

    One `Decided` a request, in order, when its answer starts, of all gates in this process or of that of one `app`. A
    check that fails after the answer has started adds another. Of gates within gates, the one is told of that refused.
    """
    found: list[Decided] = []
    with _recorder.into(found, None if app is None else served(app).gate):
        yield found


class Answer(Protocol):
    """A response of httpx, requests, Starlette, werkzeug or Django."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        ...


def body_of(response: Answer) -> bytes:
    """Return the body of a response; empty where it is a stream that nobody has read."""
    for name in ("content", "data"):  # werkzeug has its own name
        try:
            body = getattr(response, name, None)
        except Exception:  # noqa: BLE001 - each library has its own for what was not read, or is read by now
            body = None
        if isinstance(body, bytes):
            return body
    return b""


def denial_in_response(response: Answer) -> Denial | None:
    """Return the refusal that a response of any HTTP library is."""
    headers: Any = getattr(response, "headers", {})
    return parse_denial(response.status_code, list(headers.items()), body_of(response))


def assert_denied(response: Answer, reason: Reason | str, status: int | None = None) -> Denial:
    """Hold a response to a refusal: `assert_denied(client.post("/orders"), Reason.INSUFFICIENT_SCOPE)`.

    Takes a response of httpx, requests, Starlette, Flask (werkzeug) or Django. `status` is the reason's own unless
    given. Returns the refusal, to look at what is missing. Raises `AssertionError` with what came instead: status, body
    and the hint of the log event, which is known where a test uses `capture_decisions`, `acting_as` or `authz`.
    """
    __tracebackhide__ = True
    denial = denial_in_response(response)
    if status is None and isinstance(reason, Reason):
        status = reason.status
    is_status = status is None or response.status_code == status
    if denial is not None and denial.reason == reason and is_status:
        return denial
    wanted = f"{reason} ({status})" if status is not None else str(reason)
    raise AssertionError(f"expected a refusal with {wanted}, and {_what_came(response, denial)}")


def _what_came(response: Answer, denial: Denial | None) -> str:
    if denial is not None:
        came = f"it was refused with {denial.reason} ({response.status_code})"
    elif response.status_code < 400:  # noqa: PLR2004 - RFC 9110 section 15: what is no error
        came = f"it was answered with {response.status_code}: no gate refused it"
    else:
        came = f"it was answered with {response.status_code}, which names no reason"
    return f"{came}{_told_of(response, denial)}"


def _told_of(response: Answer, denial: Denial | None) -> str:
    """Return lines about a response: what was decided, the hint, and the body."""
    lines = []
    if denial is not None and denial.decision_id is not None:
        known = next((one for one in reversed(_recorder.recent) if one.decision_id == denial.decision_id), None)
        if known is not None:
            lines.append(f"decision: {known}")
    elif denial is None and response.status_code == 404:  # noqa: PLR2004 - what is concealed looks so
        lines.append("a concealed refusal is the app's own 404: look at its reason by capture_decisions()")
    return "".join(f"\n  {line}" for line in lines) + body_told(response)


def body_told(response: Answer) -> str:
    """Return a line with the body of a response, if it has one."""
    body = body_of(response).decode("utf-8", "replace")
    return f"\n  body: {body[:_MOST_SHOWN]}" if body else ""


@contextmanager
def remembering() -> Iterator[None]:
    """Remember the latest decisions, so that hints can be told."""
    with _recorder.into([], None):
        yield
