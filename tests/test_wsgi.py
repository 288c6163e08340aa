"""The gate before a WSGI app: what goes in, what comes out, and what stands in the log."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from wsgiref.util import FileWrapper

import pytest

from authz403 import Cors, Gate, Network, Reason, Rule, anyone, check, networks, optional, scopes
from authz403.wsgi import AuthzMiddleware
from tests.apps_made import ORIGIN, bearer, gate_with, listening
from tests.wsgi_made import Answer, Environ, ask, environ_of, guarded, page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

Sent = Mapping[str, str] | Sequence[tuple[str, str]]

DENIED: Final = False  # what a check of the app found
PLAIN: Final = [("Content-Type", "text/plain")]
RULES: Final = [
    Rule("GET", "/open", anyone),
    Rule("*", "/maybe", optional),
    Rule("*", "/scoped/**", scopes("read")),
    Rule("*", "/inside", networks("10.0.0.0/8")),
    Rule("*", "/hidden/**", scopes("read").concealed()),
]
CORS: Final = Cors(origins=[ORIGIN], credentials=True)


def gate(**options: Any) -> Gate:  # noqa: ANN401 - those of a Gate
    """Return a gate with the rules of these tests."""
    return gate_with(**{"rules": RULES, **options})


def whoami(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Answer with the caller's name."""
    start_response("200 OK", list(PLAIN))
    return [(environ["authz403.principal"].identity or "nobody").encode()]


def open_to_all(app: WSGIApplication, *, is_validated: bool = True, **options: Any) -> AuthzMiddleware:  # noqa: ANN401 - those of a Gate
    """Return an app behind a gate that lets everybody in."""
    return guarded(app, gate(rules=[Rule("*", "/**", anyone)], **options), is_validated=is_validated)


def events_of(app: WSGIApplication, environ: Environ, **how: Any) -> tuple[Answer, list[object]]:  # noqa: ANN401 - those of ask
    """Return the answer to a request, and the names and reasons of its events."""
    with listening() as events:
        answer = ask(app, environ, **how)
    return answer, [(event["event"], event.get("reason")) for event in events]


ALLOWED: Final[list[object]] = [("authz.allowed", None)]

# ---- what becomes of a request


@pytest.mark.parametrize(
    ("path", "method", "headers", "status", "reason"),
    [
        ("/open", "GET", {}, 200, None),
        ("/open", "HEAD", {}, 200, None),
        ("/open", "POST", {}, 403, "no_policy"),
        ("/other", "GET", {}, 403, "no_policy"),
        ("/scoped", "GET", {}, 401, "missing_token"),
        ("/scoped/deep/er", "DELETE", bearer(), 403, "insufficient_scope"),
        ("/scoped", "GET", bearer(scope="read"), 200, None),
        ("/scoped", "GET", bearer(exp=1), 401, "token_expired"),
        ("/scoped", "GET", {"Authorization": "Bearer a b"}, 400, "invalid_request"),
        ("/scoped", "GET", [*bearer(scope="read").items(), ("Authorization", "Bearer x")], 400, "invalid_request"),
        ("/scoped", "GET", [*bearer(scope="read").items(), *bearer(scope="read").items()], 400, "invalid_request"),
        ("/inside", "GET", {}, 403, "ip_not_allowed"),
        ("/a\n", "GET", bearer(scope="read"), 400, "invalid_path"),
        ("/scoped/../open", "GET", {}, 400, "invalid_path"),
        ("/scoped//x", "GET", bearer(scope="read"), 400, "invalid_path"),
        ("/hidden", "GET", bearer(scope="read"), 200, None),
    ],
)
def test_a_request_meets_the_rules(
    path: str,
    method: str,
    headers: Sent,
    status: int,
    reason: str | None,
) -> None:
    """By path and method, and with the client's address: the answer, its headers and the one event."""
    answer, events = events_of(guarded(whoami, gate()), environ_of(path, method, headers=headers))
    assert (answer.status, answer.header("authz-reason"), answer.error) == (status, reason, None)
    assert events == [("authz.allowed" if reason is None else "authz.denied", reason)]
    if reason is not None:
        assert answer.reason == reason
        assert answer.header("content-type") == "application/problem+json"
        assert answer.header("cache-control") == "no-store"
        assert answer.header("content-length") == str(len(answer.body))
        assert (answer.header("www-authenticate") is not None) is (status == 401 or reason in _CHALLENGED)


_CHALLENGED: Final = {"insufficient_scope", "invalid_request"}


def test_a_refused_head_has_the_headers_alone() -> None:
    """RFC 9110 section 9.3.2: the length is that of the body that a GET would have."""
    app = guarded(whoami, gate())
    answer = ask(app, environ_of("/scoped", "HEAD"))
    assert (answer.status, answer.chunks) == (401, [])
    assert answer.header("content-length") == str(len(ask(app, environ_of("/scoped")).body))


def test_a_refusal_leaves_the_body_of_the_request_unread() -> None:
    """What somebody sends who may not is not even looked at."""
    environ = environ_of("/scoped", "POST", body=b"a long story")
    ask(guarded(whoami, gate()), environ, is_validated=False)
    assert environ["wsgi.input"].read() == b"a long story"


@pytest.mark.parametrize(
    ("path", "headers", "sub"),
    [
        ("/open", {}, "nobody"),
        ("/open", bearer(), "nobody"),
        ("/maybe", {}, "nobody"),
        ("/maybe", bearer(), "ada"),
        ("/scoped", bearer("eve", scope="read"), "eve"),
    ],
    ids=str,
)
def test_the_app_finds_the_caller_in_the_environ(path: str, headers: dict[str, str], sub: str) -> None:
    """Anonymous where the policy asks for nobody, as no token is looked at then."""
    assert ask(guarded(whoami, gate()), environ_of(path, headers=headers)).text == sub


def test_a_caller_that_stood_in_the_environ_before_is_no_caller() -> None:
    """Whatever was there, of another server or another request, is replaced."""
    more = {"authz403.principal": "root", "REMOTE_USER": "root"}
    assert ask(guarded(whoami, gate()), environ_of("/open", more=more)).text == "nobody"


def test_an_environ_that_comes_again_starts_anew() -> None:
    """Middleware may send one environ to several apps; each decision is of its own, with its own event."""
    app = guarded(whoami, gate())
    environ = environ_of("/scoped", headers=bearer(scope="read"))
    assert ask(app, environ).text == "ada"
    assert "authz403.tickets" not in environ
    environ["PATH_INFO"] = "/open"
    answer, events = events_of(app, environ)
    assert (answer.text, events) == ("nobody", ALLOWED)


def test_the_script_name_stands_before_what_is_judged() -> None:
    """An app that is mounted somewhere is guarded by its own paths."""
    app = guarded(whoami, gate())
    assert ask(app, environ_of("/open", more={"SCRIPT_NAME": "/scoped"})).status == 200
    assert ask(app, environ_of("/scoped", more={"SCRIPT_NAME": "/open"})).status == 401


@pytest.mark.parametrize(
    ("peer", "forwarded", "status"),
    [
        ("10.1.2.3", None, 403),
        ("127.0.0.1", "10.0.0.1", 200),
        ("127.0.0.1", "198.51.100.7", 403),
        ("127.0.0.1", "10.0.0.1,198.51.100.7", 403),
        ("127.0.0.1", "198.51.100.7, 10.0.0.1", 200),
        ("198.51.100.7", "10.0.0.1", 403),
        (None, "10.0.0.1", 200),
        ("", "10.0.0.1", 200),
        ("localhost", "10.0.0.1", 200),
        ("10.0.0.9", "198.51.100.7", 403),
    ],
)
def test_the_clients_address_is_found_through_trusted_proxies(
    peer: str | None, forwarded: str | None, status: int
) -> None:
    """Lines that a server joined are walked from the right; a missing peer is that of a unix socket."""
    network = Network(trusted_proxies=["127.0.0.0/8", "10.0.0.9", "10.1.2.3", "unix"])
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    environ = environ_of("/inside", headers=headers, more={"REMOTE_ADDR": peer})
    assert ask(guarded(whoami, gate(network=network)), environ).status == status


def test_the_name_of_a_unix_socket_is_no_address() -> None:
    """A peer that bound its own socket to the path 10.0.0.1 is inside no network, and trusted as what it is."""
    named = {"REMOTE_ADDR": "10.0.0.1", "gunicorn.socket": object()}
    with listening() as events:
        assert ask(guarded(whoami, gate()), environ_of("/inside", more=named)).status == 403
    assert [event["peer"] for event in events] == ["unix"]
    behind = guarded(whoami, gate(network=Network(trusted_proxies=["unix"])))
    assert ask(behind, environ_of("/inside", headers={"X-Forwarded-For": "10.0.0.1"}, more=named)).status == 200


def test_a_peer_that_proxy_fix_put_there_is_told_once() -> None:
    """The gate reads the forwarding header itself, and has to see the proxy."""
    app = guarded(whoami, gate(network=Network(trusted_proxies=["127.0.0.1"])))
    fixed = {"REMOTE_ADDR": "10.0.0.1", "werkzeug.proxy_fix.orig": {}}
    with listening() as events:
        for _ in range(2):
            ask(app, environ_of("/open", headers={"X-Forwarded-For": "10.0.0.1"}, more=fixed))
    assert [event["cause"] for event in events if event["event"] == "authz.warning"] == ["peer_rewritten"]


# ---- bodies


class Pieces:
    """A body of pieces that notes what happens to it."""

    def __init__(self, *pieces: bytes) -> None:
        self.left = list(pieces)
        self.said: list[str] = []

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.said.append("next")
        if not self.left:
            raise StopIteration
        return self.left.pop(0)

    def __len__(self) -> int:
        return len(self.left)

    def close(self) -> None:
        self.said.append("close")


def returning(body: Iterable[bytes], status: str = "200 OK") -> WSGIApplication:
    """Return an app that answers with this body."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(PLAIN))
        return body

    return app


BODIES: Final[dict[str, Callable[[], Iterable[bytes]]]] = {
    "list": lambda: [b"a", b"b"],
    "tuple": lambda: (b"a", b"b"),
    "empty list": list,
    "iterator": lambda: iter([b"a", b"b"]),
    "generator": lambda: (piece for piece in (b"a", b"b")),
    "empty generator": lambda: (piece for piece in list[bytes]()),
    "object": lambda: Pieces(b"a", b"b"),
    "file": lambda: FileWrapper(io.BytesIO(b"ab")),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("is_validated", [True, False], ids=["validated", "bare"])
def test_a_body_of_any_kind_goes_through(kind: str, *, is_validated: bool) -> None:
    """Lists, tuples, generators, and what has no other quality than that it can be iterated over."""
    app = open_to_all(returning(BODIES[kind]()), is_validated=is_validated)
    answer, events = events_of(app, environ_of())
    assert (answer.status, answer.body, answer.error) == (200, b"" if "empty" in kind else b"ab", None)
    assert events == ALLOWED


@pytest.mark.parametrize("body", [[b"a"], (b"a",)], ids=["list", "tuple"])
def test_a_server_gets_a_list_as_it_is(body: Iterable[bytes]) -> None:
    """So that it can tell its length, and send it in one go."""
    app = open_to_all(returning(body), is_validated=False)
    assert app(environ_of(), lambda *_: lambda data: data) is body


def test_a_server_gets_its_own_file_wrapper_as_it_is() -> None:
    """It sends such a file in a way of its own; the event is written all the same."""
    wrapper = FileWrapper(io.BytesIO(b"a file"))
    app = open_to_all(returning(wrapper), is_validated=False)
    with listening() as events:
        sent = app(environ_of(more={"wsgi.file_wrapper": FileWrapper}), lambda *_: lambda data: data)
    assert sent is wrapper
    assert [event["event"] for event in events] == ["authz.allowed"]


def test_what_the_app_returned_is_closed_once_at_the_end() -> None:
    """PEP 3333: a server calls close() however the request ended, and so does the gate."""
    body = Pieces(b"a", b"b")
    answer = ask(open_to_all(returning(body), is_validated=False), environ_of())
    assert (answer.body, body.said) == (b"ab", ["next", "next", "next", "close"])


@pytest.mark.parametrize("at_most", [0, 1])
def test_a_client_that_goes_away_closes_the_body_and_has_its_event(at_most: int) -> None:
    """Nothing more is asked of the app, and the request is in the log."""
    body = Pieces(b"a", b"b")
    answer, events = events_of(open_to_all(returning(body), is_validated=False), environ_of(), at_most=at_most)
    assert (answer.body, body.said) == (b"a"[:at_most], ["next"] * at_most + ["close"])
    assert events == ALLOWED


def test_a_body_that_fails_to_close_has_its_event() -> None:
    """The app's own failure goes on, and the environ is left clean."""

    class Fails(Pieces):
        def close(self) -> None:
            raise OSError("cannot be closed")

    environ = environ_of()
    with listening() as events:
        served = open_to_all(returning(Fails(b"a")), is_validated=False)(environ, lambda *_: lambda data: data)
        with pytest.raises(OSError, match="cannot be closed"):
            served.close()  # type: ignore[attr-defined]  # as it came in pieces
    assert [event["event"] for event in events] == ["authz.allowed"]
    assert "authz403.tickets" not in environ


def test_a_generator_may_start_its_answer_late() -> None:
    """Nothing of an app that is a generator runs before it is iterated over, start_response neither."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("201 Created", [*PLAIN, ("Access-Control-Allow-Origin", "*")])
        yield b"a"
        yield b"b"

    answer = ask(
        open_to_all(app, is_validated=False, cors=CORS), environ_of(headers={"Origin": ORIGIN}), is_validated=False
    )
    assert (answer.status, answer.body, answer.closed) == (201, b"ab", True)
    assert answer.header("access-control-allow-origin") == ORIGIN


def test_an_app_may_write() -> None:
    """What is written comes before what is returned (PEP 3333), and the first of both starts the answer."""
    seen: list[int] = []

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        write = start_response("200 OK", list(PLAIN))
        seen.append(len(events))
        write(b"a")
        seen.append(len(events))
        write(b"b")
        return [b"c"]

    with listening() as events:
        answer = ask(open_to_all(app, cors=CORS), environ_of(headers={"Origin": ORIGIN}))
    assert (answer.body, answer.header("access-control-allow-origin")) == (b"abc", ORIGIN)
    assert (seen, len(events)) == ([0, 1], 1)


def test_the_event_is_written_when_the_answer_starts() -> None:
    """Not before the first piece, and not again at the end."""
    with listening() as events:
        app = open_to_all(returning(Pieces(b"a", b"b")), is_validated=False)
        body = iter(app(environ_of(), lambda *_: lambda _: None))
        counted = [len(events)]
        for _ in body:
            counted.append(len(events))  # noqa: PERF401 - it is counted while the body goes out
        body.close()  # type: ignore[attr-defined]  # as it came in pieces
    assert [*counted, len(events)] == [0, 1, 1, 1]


def failing(start_response: StartResponse) -> None:
    """Take an answer back as PEP 3333 has it."""
    try:
        int("five")
    except ValueError:
        start_response("500 Oops", list(PLAIN), sys.exc_info())


def test_an_app_may_take_its_answer_back_before_it_starts() -> None:
    """`exc_info` replaces status and headers, with the gate's CORS headers on those too."""

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", list(PLAIN))
        failing(start_response)
        return [b"sorry"]

    answer = ask(open_to_all(app, cors=CORS), environ_of(headers={"Origin": ORIGIN}))
    assert (answer.status_line, answer.text, answer.starts) == ("500 Oops", "sorry", 2)
    assert answer.header("access-control-allow-origin") == ORIGIN


def test_an_answer_that_started_cannot_be_taken_back() -> None:
    """The server raises what `exc_info` holds (PEP 3333), and the gate lets it pass."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b"a"
        failing(start_response)

    behind = open_to_all(app, cors=CORS, is_validated=False)
    answer, events = events_of(behind, environ_of(headers={"Origin": ORIGIN}), is_validated=False)
    assert (answer.status, answer.body, type(answer.error)) == (200, b"a", ValueError)
    assert events == ALLOWED


# ---- CORS


def preflight(origin: str = ORIGIN) -> dict[str, str]:
    """Return the header fields of a preflight."""
    return {"Origin": origin, "Access-Control-Request-Method": "PUT"}


@pytest.mark.parametrize("path", ["/scoped", "/other", "/a\n", "//x", ""])
def test_a_preflight_is_answered_before_anything_may_refuse_it(path: str) -> None:
    """It carries no credentials and asks about none; the app never sees it."""
    app = guarded(returning([b"not reached"]), gate(cors=CORS, network=Network(allow=["10.0.0.0/8"])))
    answer, events = events_of(app, environ_of(path, "OPTIONS", headers=preflight()))
    assert (answer.status_line, answer.body) == ("204 No Content", b"")
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert answer.header("access-control-allow-methods") == "GET, HEAD, POST, PUT, PATCH, DELETE"
    assert events == ALLOWED


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        (preflight("https://evil.example"), "OPTIONS", 403),
        ([*preflight().items(), ("Origin", ORIGIN)], "OPTIONS", 401),
        ([*preflight().items(), ("Access-Control-Request-Method", "GET")], "OPTIONS", 401),
        ({"Origin": ORIGIN}, "OPTIONS", 401),
        (preflight(), "GET", 401),
    ],
    ids=["foreign", "two origins", "two methods", "no method asked", "a GET"],
)
def test_what_only_looks_like_a_preflight_runs_nothing(headers: Sent, method: str, status: int) -> None:
    """Lines that the server joined are counted, too."""
    answer = ask(guarded(returning([b"not reached"]), gate(cors=CORS)), environ_of("/scoped", method, headers=headers))
    assert answer.status == status
    assert b"not reached" not in answer.body


def test_without_cors_a_preflight_is_an_options_like_any_other() -> None:
    """The gate answers no preflight that nobody configured."""
    answer = ask(guarded(whoami, gate()), environ_of("/scoped", "OPTIONS", headers=preflight()))
    assert (answer.status, answer.header("vary")) == (401, None)


def crashes(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Crash."""
    raise LookupError("a bug in the app")


def crashes_later(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Crash when the body is asked for, with an answer already prepared."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    raise LookupError("a bug in the app")
    yield b""


def refuses(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Refuse, with an answer already prepared."""
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    check(DENIED, Reason.NOT_OWNER, order=7)
    return [b"not reached"]


def refuses_later(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Refuse when the body is asked for."""
    yield from refuses(environ, start_response)


def pieces(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Answer in pieces."""
    start_response("200 OK", list(PLAIN))
    yield b"a"


ANSWERS: Final[dict[str, tuple[WSGIApplication, str, dict[str, str], int]]] = {
    "list": (returning([b"a"]), "/open", {}, 200),
    "pieces": (pieces, "/open", {}, 200),
    "404 of the app": (returning([b"a"], "404 Not Found"), "/open", {}, 404),
    "headers of the app's own": (page(headers=[("Access-Control-Allow-Origin", "*")]), "/open", {}, 200),
    "401": (page(), "/scoped", {}, 401),
    "403": (page(), "/scoped", bearer(), 403),
    "400": (page(), "/scoped", {"Authorization": "Bearer a b"}, 400),
    "bad path": (page(), "/a\n", {}, 400),
    "concealed": (page(), "/hidden", {}, 404),
    "crash": (crashes, "/open", {}, 500),
    "late crash": (crashes_later, "/open", {}, 500),
    "check": (refuses, "/open", {}, 403),
    "late check": (refuses_later, "/open", {}, 403),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_answer_may_be_read_by_allowed_origins_alone(name: str, method: str) -> None:
    """Pieces, denials, crashes and checks: CORS headers once, for this origin, and `Vary: Origin`."""
    app, path, headers, status = ANSWERS[name]
    served = guarded(app, gate(cors=CORS), is_validated=False)
    answer = ask(served, environ_of(path, method, headers={**headers, "Origin": ORIGIN}))
    assert answer.status == status
    assert answer.header("access-control-allow-origin") == ORIGIN
    assert answer.header("vary") == "Origin"
    if status == 500:
        assert answer.chunks, "servers send no headers where nothing at all comes after them"
        return
    foreign = ask(served, environ_of(path, method, headers={**headers, "Origin": "https://evil.example"}))
    assert (foreign.status, foreign.header("vary")) == (status, "Origin")
    assert foreign.header("access-control-allow-origin") is None


@pytest.mark.parametrize("app", [crashes, crashes_later], ids=["function", "pieces"])
def test_a_crash_before_the_answer_has_a_page_that_scripts_may_read(app: WSGIApplication) -> None:
    """It says nothing of the crash, and the exception goes on to the server, which logs it."""
    environ = environ_of(headers={"Origin": ORIGIN})
    answer, events = events_of(open_to_all(app, is_validated=False, cors=CORS), environ)
    assert (answer.status, answer.text, str(answer.error)) == (500, "Internal Server Error", "a bug in the app")
    assert (answer.header("content-length"), answer.closed) == (str(len(answer.body)), True)
    assert events == ALLOWED
    assert "authz403.tickets" not in environ


@pytest.mark.parametrize("app", [crashes, crashes_later], ids=["function", "pieces"])
@pytest.mark.parametrize("has_origin", [True, False], ids=["no cors=", "no Origin"])
def test_any_other_crash_is_the_servers_own_matter(app: WSGIApplication, *, has_origin: bool) -> None:
    """Nothing is written in its place, and the request has its event."""
    environ = environ_of(headers={"Origin": ORIGIN} if has_origin else {})
    behind = open_to_all(app, is_validated=False, cors=None if has_origin else CORS)
    answer, events = events_of(behind, environ, is_validated=False)
    assert (answer.body, str(answer.error)) == (b"", "a bug in the app")
    assert answer.starts == (0 if app is crashes else 1)
    assert events == ALLOWED
    assert "authz403.tickets" not in environ


def test_a_crash_after_the_answer_started_writes_no_second_one() -> None:
    """The answer stays as far as it went, and the exception goes on."""

    def app(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", list(PLAIN))
        yield b"a"
        raise LookupError("a bug in the app")

    answer, events = events_of(open_to_all(app, cors=CORS), environ_of(headers={"Origin": ORIGIN}))
    assert (answer.status, answer.body, str(answer.error)) == (200, b"a", "a bug in the app")
    assert (answer.closed, answer.starts, events) == (True, 1, ALLOWED)
