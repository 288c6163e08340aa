"""The gate around a WSGI app from inside: checks, gates within gates, threads, and what does not fit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest
from django.core.handlers.wsgi import WSGIHandler
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from authz403 import (
    AccessDenied,
    ConfigurationError,
    Cors,
    Gate,
    Reason,
    Requirement,
    Rule,
    anyone,
    authenticated,
    check,
    deny,
    scopes,
)
from authz403.checks import current
from authz403.wsgi import AuthzMiddleware
from tests.apps_made import ORIGIN, bearer, gate_with, listening
from tests.wsgi_made import Environ, ask, environ_of, guarded, page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

DENIED: Final = False  # what a check of the app found
PLAIN: Final = [("Content-Type", "text/plain")]
OPEN: Final = Rule("*", "/**", anyone)


def refused(events: list[dict[str, object]]) -> list[tuple[object, object]]:
    """Return the names and reasons of events."""
    return [(event["event"], event.get("reason")) for event in events]


# ---- checks


def in_function(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Refuse before anything is answered."""
    check(DENIED, Reason.NOT_OWNER, order="SECRET-7")
    return []


def once_started(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Refuse with an answer already prepared."""
    start_response("200 OK", list(PLAIN))
    check(DENIED, Reason.NOT_OWNER, order="SECRET-7")
    return []


def in_generator(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Refuse before the first piece."""
    start_response("200 OK", list(PLAIN))
    check(DENIED, Reason.NOT_OWNER, order="SECRET-7")
    yield b"not reached"


class Begins:
    """A body that refuses when iteration begins."""

    def __init__(self, environ: Environ, start_response: StartResponse) -> None:
        self.start_response = start_response

    def __iter__(self) -> Iterator[bytes]:
        self.start_response("200 OK", list(PLAIN))
        check(DENIED, Reason.NOT_OWNER, order="SECRET-7")
        return iter([b"not reached"])


def raises(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Refuse without a check."""
    raise AccessDenied("plan_expired")


BEFORE: Final[dict[str, WSGIApplication]] = {
    "function": in_function,
    "started": once_started,
    "generator": in_generator,
    "iter": Begins,
    "raise": raises,
}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_check_before_the_answer_is_the_answer(name: str, method: str) -> None:
    """The refusal takes the place of what the app had prepared; facts are for the log alone."""
    environ = environ_of(method=method)
    with listening() as events:
        answer = ask(guarded(BEFORE[name], gate_with(rules=[OPEN]), is_validated=False), environ)
    reason = "plan_expired" if name == "raise" else "not_owner"
    assert (answer.status, answer.header("authz-reason"), answer.error, answer.closed) == (403, reason, None, True)
    assert b"SECRET" not in answer.body
    assert refused(events) == [("authz.denied", reason)]
    assert events[0].get("facts") == (None if name == "raise" else {"order": "SECRET-7"})
    assert "authz403.tickets" not in environ


def once_written(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Refuse when something was written."""
    start_response("200 OK", list(PLAIN))(b"a")
    check(DENIED, Reason.NOT_OWNER)
    return []


def after_a_piece(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Refuse when the first piece is out."""
    start_response("200 OK", list(PLAIN))
    yield b"a"
    check(DENIED, Reason.NOT_OWNER)


@pytest.mark.parametrize("app", [once_written, after_a_piece], ids=["written", "pieces"])
def test_a_check_that_comes_too_late_is_an_error(app: WSGIApplication) -> None:
    """Nobody can take back what went out: the server gets the exception, and the log says why."""
    with listening() as events:
        answer = ask(
            guarded(app, gate_with(rules=[OPEN], cors=Cors(origins=[ORIGIN])), is_validated=False), environ_of()
        )
    assert (answer.status, answer.body, type(answer.error)) == (200, b"a", AccessDenied)
    assert refused(events) == [("authz.allowed", None), ("authz.error", "not_owner")]
    assert "started" in str(events[1]["hint"])


def test_a_gate_that_only_reports_lets_checks_pass() -> None:
    """The app goes on, in a function and in pieces; the one event says what would have been refused."""

    def goes_on(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", list(PLAIN))
        check(DENIED, Reason.NOT_OWNER)
        yield b"went on"

    gate = gate_with(rules=[OPEN], dangerously_report_only=True)
    with listening() as events:
        assert ask(guarded(goes_on, gate), environ_of()).text == "went on"
    assert refused(events) == [("authz.denied", "not_owner")]
    assert events[0]["report_only"] is True


def test_a_gate_that_only_reports_refuses_nobody() -> None:
    """A denial of its rules is an event and nothing else; what the app raises itself cannot go on."""
    gate = gate_with(
        rules=[Rule("*", "/closed", deny), Rule("*", "/hidden", deny.concealed()), OPEN], dangerously_report_only=True
    )
    with listening() as events:
        assert ask(guarded(page(), gate), environ_of("/closed")).text == "hello"
        assert ask(guarded(page(), gate), environ_of("/hidden")).text == "hello"
        assert ask(guarded(raises, gate, is_validated=False), environ_of()).status == 403
    assert [event["reason"] for event in events] == ["access_denied", "access_denied", "plan_expired"]
    assert [event.get("report_only") for event in events] == [True, True, None]


def test_without_a_gate_a_check_says_so() -> None:
    """Also when a gate served a request in this thread before."""
    ask(guarded(in_generator, gate_with(rules=[OPEN]), is_validated=False), environ_of())
    with pytest.raises(ConfigurationError, match="no gate decided this request"):
        in_function({}, lambda *_: lambda _: None)


# ---- what is hidden


def test_what_is_concealed_is_missing() -> None:
    """With rules alone there is no router that could say it, so that the gate has a page of its own."""
    seen: list[str] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        seen.append(environ["PATH_INFO"])
        return list(page("no such page", "404 Not Found")(environ, start_response))

    gate = gate_with(rules=[Rule("*", "/hidden/**", scopes("read").concealed()), OPEN])
    with listening() as events:
        answer = ask(guarded(app, gate), environ_of("/hidden/x", headers=bearer()))
    assert (answer.status_line, answer.text, seen) == ("404 Not Found", "Not Found", [])
    assert (answer.header("cache-control"), answer.header("authz-reason")) == ("no-store", None)
    assert [(event["reason"], event["concealed"]) for event in events] == [("insufficient_scope", True)]
    missing = ask(guarded(app, gate), environ_of("/missing"))
    assert (missing.text, missing.header("cache-control")) == ("no such page", "no-store")


@pytest.mark.parametrize("name", BEFORE)
def test_a_check_on_a_concealed_path_is_missing_too(name: str) -> None:
    """Whoever may not, learns nothing of why."""
    gate = gate_with(rules=[Rule("*", "/**", authenticated.concealed())])
    answer = ask(guarded(BEFORE[name], gate, is_validated=False), environ_of(headers=bearer()))
    assert (answer.status, answer.text, answer.header("cache-control")) == (404, "Not Found", "no-store")


# ---- gates within gates


def nested(app: WSGIApplication, *inner: Requirement, outer: Gate | None = None, **options: Any) -> AuthzMiddleware:  # noqa: ANN401 - those of a Gate
    """Return an app within a gate of the requirements, each in a gate of its own, within one for everybody."""
    for one in reversed(inner):
        app = guarded(app, gate_with(rules=[Rule("*", "/**", one)]), is_validated=False)
    return guarded(app, outer or gate_with(rules=[OPEN], **options), is_validated=False)


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [({}, 401, "missing_token"), (bearer(scope="a"), 403, "insufficient_scope"), (bearer(scope="a b"), 200, None)],
    ids=["nobody", "one of both", "both"],
)
def test_gates_within_gates_all_decide(headers: dict[str, str], status: int, reason: str | None) -> None:
    """Each may refuse; the request has one event, with the reason that the caller is told."""
    outer = gate_with(rules=[Rule("*", "/**", scopes("a"))])
    with listening() as events:
        answer = ask(nested(page(), scopes("b"), outer=outer), environ_of(headers=headers))
    assert (answer.status, answer.header("authz-reason")) == (status, reason)
    assert refused(events) == [("authz.allowed" if reason is None else "authz.denied", reason)]


def test_cors_is_the_outer_gates_matter() -> None:
    """One set of headers, on refusals of the inner gate and on answers of the app."""
    app = guarded(
        page(), gate_with(rules=[Rule("*", "/**", scopes("b"))], cors=Cors(origins=["https://inner.example"]))
    )
    outside = guarded(app, gate_with(rules=[OPEN], cors=Cors(origins=[ORIGIN])))
    for headers, status in (({}, 401), (bearer(scope="b"), 200)):
        answer = ask(outside, environ_of(headers={**headers, "Origin": ORIGIN}))
        assert (answer.status, answer.header("access-control-allow-origin")) == (status, ORIGIN)


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("further_in", [(), (anyone,)], ids=["second", "second of three"])
def test_a_check_within_a_concealed_gate_is_missing_whoever_is_outside(name: str, further_in: tuple[Any, ...]) -> None:
    """The outer gate answers, and must not tell what the inner one hides."""
    app = nested(BEFORE[name], authenticated.concealed(), *further_in)
    with listening() as events:
        answer = ask(app, environ_of(headers=bearer()))
    assert (answer.status, answer.text, answer.header("cache-control")) == (404, "Not Found", "no-store")
    assert len(events) == 1


def test_what_an_inner_gate_conceals_is_kept_out_of_caches() -> None:
    """As it would be without the outer one."""
    answer = ask(nested(page(), authenticated.concealed()), environ_of())
    assert (answer.status, answer.header("cache-control")) == (404, "no-store")


def test_an_app_that_asks_itself_is_judged_each_time() -> None:
    """With the same environ, the second request is one within the first: it has no event of its own."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/":
            return page("inside")(environ, start_response)
        environ["PATH_INFO"] = environ["QUERY_STRING"]
        return whole(environ, start_response)

    whole = AuthzMiddleware(app, gate=gate_with(rules=[Rule("*", "/closed", deny), OPEN]))
    with listening() as events:
        opened = ask(whole, environ_of(more={"QUERY_STRING": "/open"}))
        closed = ask(whole, environ_of(more={"QUERY_STRING": "/closed"}))
    assert (opened.text, closed.reason) == ("inside", "access_denied")
    assert refused(events) == [("authz.allowed", None), ("authz.denied", "access_denied")]


def test_the_caller_of_an_inner_gate_is_the_apps() -> None:
    """Where the outer gate asks for nobody and the inner one does, the app sees whom that found."""

    def whoami(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", list(PLAIN))
        return [environ["authz403.principal"].identity.encode()]

    assert ask(nested(whoami, authenticated), environ_of(headers=bearer("eve"))).text == "eve"
    asked_outside = gate_with(rules=[Rule("*", "/**", authenticated)])
    assert ask(nested(whoami, anyone, outer=asked_outside), environ_of(headers=bearer("eve"))).text == "eve"


# ---- configuration


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        (None, "a Gate, or a function that returns one"),
        (5, "a Gate, or a function that returns one"),
        (Gate, "a Gate, or a function that returns one"),
        (Gate(rules=[Rule("*", "/x", authenticated)]), "no source of identities"),
    ],
    ids=["none", "number", "class", "no tokens"],
)
def test_what_does_not_fit_is_told_when_the_middleware_is_made(gate: Any, told: str) -> None:  # noqa: ANN401 - any mistake
    """Before the server takes a single request."""
    with pytest.raises(ConfigurationError, match=told):
        AuthzMiddleware(page(), gate=gate)


def no_gate() -> Gate:
    """Fail to make a gate."""
    raise OSError("no policy file")


FAILING: Final[dict[str, tuple[Callable[[], Any], str]]] = {
    "raises": (no_gate, "no policy file"),
    "gives none": (lambda: None, "a Gate, or a function that returns one"),
    "does not fit": (lambda: Gate(rules=[Rule("*", "/x", authenticated)]), "no source of identities"),
}


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_function_that_makes_no_gate_closes_the_app(name: str, method: str) -> None:
    """Every request is refused, and each event says why; the caller is told nothing of it."""
    make, told = FAILING[name]
    app = guarded(page(), make)
    with listening() as events:
        answers = [ask(app, environ_of(path, method)) for path in ("/", "/x")]
    assert [(answer.status, answer.header("authz-reason")) for answer in answers] == [(500, "misconfigured")] * 2
    assert told.encode() not in answers[0].body
    assert all(told in str(event["hint"]) for event in events)
    assert refused(events) == [("authz.error", "misconfigured")] * 2
    with pytest.raises(ConfigurationError, match=told):
        app.meet()


def test_a_function_that_makes_a_gate_is_called_once() -> None:
    """At the first request, or before, by `meet`."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(gate_with(rules=[OPEN]))
        return made[-1]

    app = guarded(page(), make)
    assert made == []
    assert [ask(app, environ_of()).status for _ in range(3)] == [200] * 3
    assert made == [app.meet()]


@pytest.mark.parametrize("works", [True, False], ids=["works", "fails"])
def test_threads_that_come_at_once_make_one_gate(*, works: bool) -> None:
    """All of them wait for it, and all get the same answer."""
    made: list[int] = []
    barrier = threading.Barrier(16)

    def make() -> Gate:
        made.append(threading.get_ident())
        assert not barrier.n_waiting, "one of them did not come"
        if not works:
            raise OSError("no policy file")
        return gate_with(rules=[OPEN])

    app = guarded(page(), make)

    def come(_: int) -> int:
        barrier.wait(10)
        return ask(app, environ_of()).status

    with ThreadPoolExecutor(16) as threads:
        assert set(threads.map(come, range(16))) == {200 if works else 500}
    assert len(made) == 1


FLASK: Final = Flask("shop")


@pytest.mark.parametrize(
    ("app", "told"),
    [
        (FLASK, "authz403.flask.init_app"),
        (FLASK.wsgi_app, "authz403.flask.init_app"),
        (type("Shop", (Flask,), {})("shop"), "authz403.flask.init_app"),
        (WSGIHandler.__new__(WSGIHandler), "authz403.django.AuthzMiddleware"),
    ],
    ids=["Flask", "wsgi_app", "subclass", "Django"],
)
def test_an_app_whose_marks_would_not_hold_is_refused(app: WSGIApplication, told: str) -> None:
    """Its framework has a way in of its own, by which the routes are known."""
    with pytest.raises(ConfigurationError, match=told):
        AuthzMiddleware(app, gate=gate_with(rules=[OPEN]))


# ---- nothing stays behind


def test_no_outcome_stays_in_the_thread() -> None:
    """After answers of every kind, finished or not, `check` knows of no request."""
    apps = (*BEFORE.values(), once_written, after_a_piece, page(), no_answer)
    for app in apps:
        for at_most in (0, 1, None):
            ask(
                guarded(app, gate_with(rules=[OPEN]), is_validated=False),
                environ_of(),
                is_validated=False,
                at_most=at_most,
            )
            assert current.get() is None
            ask(nested(app, anyone), environ_of(), is_validated=False, at_most=at_most)
            assert current.get() is None


def no_answer(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Crash in pieces."""
    yield from ()
    raise LookupError("a bug in the app")


def test_two_answers_that_go_out_by_turns_keep_their_own_outcome() -> None:
    """A server may ask one body and then the other, in one thread."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", list(PLAIN))
        for _ in range(3):
            outcome = current.get()
            assert outcome is not None
            yield outcome.request.path.encode()

    whole = guarded(app, gate_with(rules=[OPEN]), is_validated=False)
    bodies = [iter(whole(environ_of(path), lambda *_: lambda _: None)) for path in ("/a", "/b")]
    assert [next(body) for _ in range(3) for body in bodies] == [b"/a", b"/b"] * 3
    assert current.get() is None


def test_threads_keep_callers_apart() -> None:
    """Each thread's answers name the caller of its own requests, also between pieces."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", list(PLAIN))
        for _ in range(3):
            yield environ["authz403.principal"].identity.encode() + b" "

    whole = guarded(app, gate_with(rules=[Rule("*", "/**", authenticated)]), is_validated=False)

    def come(number: int) -> bool:
        name = f"caller-{number % 8}"
        environ = environ_of(headers=bearer(name))
        return ask(whole, environ, is_validated=False).text == f"{name} " * 3

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(come, range(400)))


# ---- any environ


ANY_GATE: Final = gate_with(rules=[Rule("*", "/open", anyone), Rule("GET", "/closed", scopes("read"))])
PATHS: Final = st.one_of(
    st.text(max_size=12),
    st.text("/.%\\;ados\n\0\x80\xc3\xa9", max_size=16).map(lambda text: "/" + text),
    st.sampled_from(["/closed", "//closed", "/closed/", "/closed\n", "/./closed", "/open/../closed", "closed", ""]),
)
VALUES: Final = st.one_of(
    st.text(max_size=20),
    st.text([chr(code) for code in range(256)], max_size=20),
    st.sampled_from(["Bearer", "Bearer x", "Bearer a, Bearer b", ORIGIN, "10.0.0.1", "chunked", "a" * 20_000]),
)
JUNK: Final = st.dictionaries(
    st.sampled_from(
        [
            *("HTTP_AUTHORIZATION", "HTTP_ORIGIN", "HTTP_ACCESS_CONTROL_REQUEST_METHOD", "HTTP_X_FORWARDED_FOR"),
            *("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "HTTP_FORWARDED", "HTTP_VIA", "HTTP_TRANSFER_ENCODING"),
            *("REMOTE_ADDR", "REMOTE_PORT", "REMOTE_USER", "SCRIPT_NAME", "CONTENT_TYPE", "CONTENT_LENGTH"),
        ]
    ),
    VALUES,
)
LEFT_OUT: Final = st.sets(
    st.sampled_from(["PATH_INFO", "SCRIPT_NAME", "QUERY_STRING", "REMOTE_ADDR", "wsgi.file_wrapper", "CONTENT_LENGTH"])
)
METHODS: Final = st.one_of(
    st.sampled_from(["GET", "OPTIONS", "HEAD", "WEBSOCKET", "get"]), st.text(min_size=1, max_size=5)
)


@pytest.mark.usefixtures("quiet")
@given(path=PATHS, method=METHODS, junk=JUNK, left_out=LEFT_OUT)
def test_no_environ_raises_or_runs_what_is_denied(
    path: str, method: str, junk: dict[str, str], left_out: set[str]
) -> None:
    """Whatever a server hands over: there is an answer, and nothing runs that no rule opened."""
    ran: list[object] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        ran.append(environ.get("PATH_INFO"))
        start_response("200 OK", list(PLAIN))
        return [b"ran"]

    environ = environ_of(method=method, more={**junk, "PATH_INFO": path, **dict.fromkeys(left_out)})
    answer = ask(AuthzMiddleware(app, gate=ANY_GATE), environ, is_validated=False)
    assert answer.error is None
    assert answer.status in {200, 204, 400, 401, 403}
    assert ran in ([], ["/open"])
    assert (answer.status == 200) is (ran == ["/open"])
