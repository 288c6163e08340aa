"""The gate behind real WSGI servers: what each of them makes of bytes, and that no handler runs that may not."""

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import pytest

from tests.attacked_app import CALLERS, FULLY, PARTLY, PROTECTED, WHO_MAY, credentials_of, forged_credentials
from tests.attacks_made import Attack, attacks_on, malformed_on
from tests.servers_made import WSGI_COMMANDS, Exchange, Served
from tests.wsgi_app_served import ORIGIN

OTHERS: Final = ("waitress", "granian-wsgi", "cheroot")  # `make test-servers` runs them


def servers(fixture: str, *names: str, others: tuple[str, ...] = OTHERS) -> pytest.MarkDecorator:
    """Run a test with each of these servers, the others where they are there."""
    params = [pytest.param(name, marks=[pytest.mark.servers] * (name in others)) for name in names]
    return pytest.mark.parametrize(fixture, params, indirect=True, scope="module" if fixture == "served" else None)


on_each_server = servers("served", *WSGI_COMMANDS)
# Tricks with bytes are the same for both kinds of gunicorn's workers, which read them by the same code.
on_each_reader = servers("served", *WSGI_COMMANDS, others=(*OTHERS, "gunicorn-gthread"))
at_each_unix_socket = servers("by_unix_socket", *WSGI_COMMANDS, others=(*OTHERS, "gunicorn-gthread"))


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return the apps of tests/wsgi_app_served.py on the server that the test names."""
    with Served(request.param, "app", tmp_path_factory.mktemp("wsgi")) as served:
        yield served


@pytest.fixture
def by_unix_socket(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return the same at a unix socket."""
    with Served(request.param, "app", tmp_path_factory.mktemp("unix"), at_unix_socket=True) as served:
        yield served


def server_of(request: pytest.FixtureRequest) -> str:
    """Return the name of the server that a test runs with."""
    params = request.node.callspec.params
    return str(params.get("served") or params["by_unix_socket"])


def told(
    target: str, app: str = "shop", *lines: str, method: str = "GET", version: str = "1.1", body: bytes = b""
) -> bytes:
    """Return a request as bytes."""
    head = [f"{method} {target} HTTP/{version}", f"X-App: {app}", "Connection: close", *lines]
    if version != "1.0" and not any(line.startswith("Host:") for line in lines):
        head.insert(1, "Host: api.example")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def signed_in(caller: str = FULLY) -> str:
    """Return the header line of a caller."""
    return f"Authorization: {credentials_of(caller)}"


def header(exchange: Exchange, name: str) -> list[str]:
    """Return the values of a header of an answer."""
    head = exchange.answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    return re.findall(rf"^{name}: *(.*?)\r?$", head, re.MULTILINE | re.IGNORECASE)


def text(exchange: Exchange) -> str:
    """Return the body of an answer, out of its chunks."""
    body = exchange.answer.partition(b"\r\n\r\n")[2]
    if header(exchange, "transfer-encoding"):
        body = b"".join(re.findall(rb"[0-9a-fA-F]+\r\n(.*?)\r\n", body, re.DOTALL))
    return body.decode()


# ---- the tricks of others


def run_amiss(served: Served, attacks: Iterator[Attack], caller: str) -> list[tuple[Attack, Exchange]]:
    """Return which of these requests of a caller ran what it may not, or broke the server."""
    found = []
    for attack in attacks:
        exchange = served.exchange(attack.raw(credentials_of(caller)))
        if any(caller not in WHO_MAY[name] for name in exchange.ran) or exchange.status == 500:
            found.append((attack, exchange))
    return found


@on_each_reader
@pytest.mark.parametrize("caller", CALLERS)
def test_no_bytes_run_what_their_sender_may_not(served: Served, caller: str) -> None:
    """Whatever a server makes of requests that no client in its right mind sends."""
    assert run_amiss(served, (attack for path in PROTECTED for attack in malformed_on(path)), caller) == []


@on_each_reader
@pytest.mark.parametrize("caller", CALLERS)
def test_no_trick_runs_what_its_sender_may_not(served: Served, caller: str, corpora: Path) -> None:
    """The public lists, every eighth of them, others on each path: in process, all of them are tried."""
    for first, path in enumerate(PROTECTED):
        assert run_amiss(served, islice(attacks_on(path, corpora), first % 8, None, 8), caller) == []


@on_each_server
def test_who_may_is_served_as_by_the_bare_app(served: Served) -> None:
    """The gate takes nothing from those who may: with all rights, the same handler runs, with the same status."""
    compared = 0
    for path in PROTECTED:
        for method in ("GET", "HEAD", "POST", "DELETE"):
            for target in (path, f"{path}?a=/..", path.replace("/", "/%61", 1)):
                bare = served.exchange(told(target, "bare", signed_in(), method=method))
                if bare.ran and all(FULLY in WHO_MAY[name] for name in bare.ran):
                    assert served.exchange(told(target, "guarded", signed_in(), method=method))[:2] == bare[:2]
                    compared += 1
    assert compared > 30


# ---- header lines


@on_each_reader
def test_of_several_authorization_headers_none_is_believed(served: Served, request: pytest.FixtureRequest) -> None:
    """Servers join them, and what is joined is no token. Cheroot keeps the last line of all, and nobody can tell."""
    own, forged = signed_in(), f"Authorization: {forged_credentials()}"
    for lines in ((own, forged), (forged, own), (own, own)):
        exchange = served.exchange(told("/whoami", "shop", *lines))
        if server_of(request) == "cheroot":
            assert exchange.status == (200 if lines[-1] == own else 401)
        else:
            assert (exchange.status, exchange.ran) == (400, ())
            assert header(exchange, "authz-reason") == ["invalid_request"]


@on_each_reader
@pytest.mark.parametrize("name", ["Authorization_", "HTTP_AUTHORIZATION", "Http-Authorization", "Proxy-Authorization"])
def test_no_other_header_is_taken_for_authorization(served: Served, name: str) -> None:
    """Whatever its name becomes in an environ; spelled in another case, it is the same header."""
    assert served.exchange(told("/whoami", "shop", f"{name}: {credentials_of(FULLY)}")).status == 401
    assert served.exchange(told("/whoami", "shop", signed_in().replace("Auth", "aUTH", 1))).status == 200


FROM_INSIDE: Final = "X-Forwarded-For: 10.0.0.1"
FROM_OUTSIDE: Final = "X-Forwarded-For: 198.51.100.7"
SPELLED_BY_CLIENT: Final = "X_Forwarded_For: 10.0.0.1"
MERGES_UNDERSCORES: Final = ("granian-wsgi", "cheroot")


@on_each_reader
def test_what_the_proxy_wrote_says_where_the_client_is(served: Served) -> None:
    """The last line is the proxy's, and a peer that is no proxy writes what it likes."""
    for lines, status in (((FROM_INSIDE,), 200), ((FROM_OUTSIDE,), 403), ((), 403), ((FROM_INSIDE, FROM_OUTSIDE), 403)):
        assert served.exchange(told("/inside", "behind proxy", *lines)).status == status
    assert served.exchange(told("/inside", "by peer", FROM_INSIDE)).status == 403


@on_each_reader
@pytest.mark.parametrize(
    "lines",
    [
        (SPELLED_BY_CLIENT, FROM_OUTSIDE),
        (FROM_OUTSIDE, SPELLED_BY_CLIENT),
        (FROM_INSIDE, SPELLED_BY_CLIENT, FROM_OUTSIDE),
        (SPELLED_BY_CLIENT,),
    ],
    ids=["before", "behind", "in the middle", "alone"],
)
def test_a_name_with_underscores_is_no_forwarding_header(
    served: Served, lines: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """The docs say which servers drop it; for those that do not, the proxy has to, and the log says so."""
    exchange = served.exchange(told("/inside", "behind proxy", *lines))
    if server_of(request) not in MERGES_UNDERSCORES:
        assert (exchange.status, exchange.ran) == (403, ())
    elif lines[-1] == SPELLED_BY_CLIENT:
        assert exchange.status == 200, "it has learned to drop them: change the docs and the warning"
    # RFC 7239's header has no hyphen, so that there is no other spelling of it.
    forwarded = [line.replace("X-Forwarded-For: ", "Forwarded: for=") for line in lines if line != SPELLED_BY_CLIENT]
    assert served.exchange(told("/inside", "behind forwarded", "Forwarded_: for=10.0.0.1", *forwarded)).status == 403


@on_each_reader
@pytest.mark.parametrize("target", ["/inside", "/reading"])
def test_a_trailer_is_no_header(served: Served, target: str) -> None:
    """Not before the body was read, nor behind it."""
    chunked = (FROM_OUTSIDE, "Transfer-Encoding: chunked")
    body = f"1\r\na\r\n0\r\n{FROM_INSIDE}\r\n{signed_in()}\r\n\r\n".encode()
    app = "behind proxy" if target == "/inside" else "shop"
    exchange = served.exchange(told(target, app, *chunked, method="GET" if target == "/inside" else "POST", body=body))
    assert (exchange.status, exchange.ran) == (403 if target == "/inside" else 401, ())


# ---- paths


@on_each_reader
@pytest.mark.parametrize(
    ("lines", "statuses"),
    [
        (("SCRIPT_NAME: /public",), {403, 500}),
        (("PATH_INFO: /public",), {403}),
        (("Script-Name: /public", "Path-Info: /public"), {403}),
        (("SCRIPT_NAME: /ad",), {400, 403}),
        (("X-Original-URL: /public", "X-Rewrite-URL: /public", "X-Script-Name: /public"), {403}),
    ],
    ids=["script name", "path info", "with hyphens", "a part of the path", "of other servers"],
)
def test_no_header_moves_the_path(served: Served, lines: tuple[str, ...], statuses: set[int]) -> None:
    """Gunicorn takes SCRIPT_NAME from this machine: what is left of the path is what gate and app both see."""
    exchange = served.exchange(told("/admin", "guarded", signed_in(PARTLY), *lines))
    assert exchange.status in statuses
    assert exchange.ran == ()


@servers("served", "gunicorn-sync")
def test_the_gate_judges_the_path_below_a_script_name(served: Served) -> None:
    """As the app does."""
    judged = {"/shop/admin": (403, ()), "/shop/public": (200, ("public",)), "/shop": (200, ("index",))}
    for target, expected in judged.items():
        exchange = served.exchange(told(target, "guarded", signed_in(PARTLY), "SCRIPT_NAME: /shop"))
        assert exchange[:2] == expected
    assert json.loads(text(served.exchange(told("/a/scoped/b", "shop", signed_in(), "SCRIPT_NAME: /a")))) == {
        "sub": FULLY,
        "script_name": "/a",
        "path_info": "/scoped/b",
    }


@on_each_reader
@pytest.mark.parametrize(
    "target",
    [
        *("//admin", "/%61dmin", "/admin%0a", "/admin%00", "/admin%ff", "/public/../admin", "/public%2f..%2fadmin"),
        *("http://api.example/admin", "http://api.example//admin", "http:/admin", "/admin;x", "/public#/../admin"),
    ],
)
def test_no_spelling_of_a_path_gets_around_its_rule(served: Served, target: str) -> None:
    """Encoded, absolute, with what paths may not hold: refused by the server, the gate or the rule for its path."""
    exchange = served.exchange(told(target, "guarded", signed_in(PARTLY)))
    if target == "/public#/../admin" and exchange.status == 200:
        assert exchange.ran == ("public",)  # the server took the fragment off, for gate and app alike
    else:
        assert exchange.status in {400, 403, 404}
        assert exchange.ran == ()


@on_each_reader
def test_a_request_of_http_1_0_needs_no_host(served: Served) -> None:
    """It is judged as any other."""
    assert served.exchange(told("/admin", "guarded", version="1.0")).status == 401
    assert served.exchange(told("/admin", "guarded", signed_in(), version="1.0"))[:2] == (200, ("admin",))


# ---- unix sockets


@at_each_unix_socket
def test_the_peer_of_a_unix_socket_is_a_trusted_proxy_where_that_was_said(
    by_unix_socket: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no address of its own, not even one that it bound its own end to."""
    for lines, status in (((FROM_INSIDE,), 200), ((FROM_OUTSIDE,), 403), ((), 403)):
        assert by_unix_socket.exchange(told("/inside", "behind proxy", *lines)).status == status
    monkeypatch.chdir(tmp_path)
    assert by_unix_socket.exchange(told("/inside", "by peer"), bound_to="10.0.0.1").status == 403
    assert by_unix_socket.exchange(told("/inside", "behind proxy", FROM_INSIDE), bound_to="10.0.0.2").status == 200
    assert by_unix_socket.exchange(told("/inside", "behind proxy", FROM_OUTSIDE), bound_to="10.0.0.3").status == 403


# ---- answers


@on_each_server
@pytest.mark.parametrize(
    ("target", "lines", "status", "body"),
    [
        ("/whoami", (signed_in(),), 200, None),
        ("/whoami", (), 401, None),
        ("/scoped", (signed_in("somebody else"),), 403, None),
        ("/streaming", (signed_in(),), 200, f"{FULLY} " * 3),
        ("/writing", (), 200, "written and returned"),
        ("/file", (), 200, "a file"),
        ("/crashing", (), 500, "Internal Server Error"),
        ("/crashing-late", (), 200, "a"),
        ("/owned", (), 403, None),
        ("/owned?mine", (), 200, "yours"),
        ("/owned-late", (), 403, None),
        ("/owned-late?mine", (), 200, "yours"),
        ("/a%0ab", (), 400, None),
    ],
)
def test_every_answer_may_be_read_by_allowed_origins(
    served: Served, target: str, lines: tuple[str, ...], status: int, body: str | None, request: pytest.FixtureRequest
) -> None:
    """In pieces, written, as a file, refused and crashed: whole, with the CORS headers once."""
    if server_of(request) == "granian-wsgi" and target.startswith(("/writing", "/owned-late", "/crashing-late")):
        pytest.xfail("granian has no write(), fixes the status before the first piece, and drops what then crashes")
    exchange = served.exchange(told(target, "shop", f"Origin: {ORIGIN}", *lines))
    assert exchange.status == status
    assert header(exchange, "access-control-allow-origin") == [ORIGIN]
    assert body is None or text(exchange) == body
    foreign = served.exchange(told(target, "shop", "Origin: https://evil.example", *lines))
    assert header(foreign, "access-control-allow-origin") == []


@on_each_server
def test_a_preflight_is_answered_by_the_gate(served: Served) -> None:
    """Whatever the server makes of an answer without content."""
    lines = (f"Origin: {ORIGIN}", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization")
    exchange = served.exchange(told("/whoami", "shop", *lines, method="OPTIONS"))
    assert (exchange.status, exchange.ran) == (204, ())
    assert header(exchange, "access-control-allow-origin") == [ORIGIN]


@servers("served", "gunicorn-gthread", *OTHERS)
@pytest.mark.parametrize("size", [0, 10, 200_000])
def test_a_connection_goes_on_after_a_refusal(served: Served, size: int) -> None:
    """The body of a refused request, which nobody read, is not taken for the next one; or the connection ends."""
    smuggled = told("/owned?mine", "shop")
    body = (smuggled * (size // len(smuggled) + 1))[:size]
    head = f"POST /whoami HTTP/1.1\r\nHost: a\r\nX-App: shop\r\nContent-Length: {size}\r\n\r\n".encode()
    with served.connected() as connection:
        connection.settimeout(2)
        answers = b""
        try:
            connection.sendall(head + body + told("/whoami", "shop", signed_in()))
            while received := connection.recv(65_536):
                answers += received
        except (TimeoutError, ConnectionError):
            pass  # a server may hang up on what it did not read
    statuses = [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", answers)]
    assert statuses in ([401, 200], [401]) if size else [[401, 200]]
    assert b"yours" not in answers
