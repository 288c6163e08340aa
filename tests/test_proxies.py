"""The gate behind real proxies before real servers: it sees the client whatever that writes, and says what is amiss."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.attacked_app import FULLY, credentials_of
from tests.proxied_app import OUTSIDE, PROXY, events_of
from tests.proxies_made import CONFIGURATIONS, Answer, InFront, asked, found
from tests.servers_made import Served

SERVERS: Final = {
    "uvicorn": ("uvicorn-httptools", "tests.proxied_app:app"),
    "gunicorn": ("gunicorn-sync", "tests.proxied_app:wsgi_app"),
}
TO_PORTS: Final = {
    "nginx/appending.conf": "appending",
    "nginx/replacing.conf": "appending",
    "nginx/forwarded.conf": "forwarded",
    "nginx/single.conf": "single",
    "haproxy/appending.cfg": "appending",
    "haproxy/replacing.cfg": "appending",
    "haproxy/forwarded.cfg": "forwarded",
    "haproxy/single.cfg": "single",
}
"""The configurations of the docs, each with the app whose gate belongs to it."""
TO_SOCKETS: Final = ("nginx/unix_socket.conf", "haproxy/unix_socket.cfg")
APPENDING: Final = ("nginx/appending.conf", "haproxy/appending.cfg")
BEHIND_CDN: Final = "nginx/behind_cdn.conf"

INSIDE: Final = "127.7.0.1"
SPOOFS: Final = {
    "one entry": ["X-Forwarded-For: {}"],
    "a chain": ["X-Forwarded-For: {}, 127.0.0.1"],
    "two lines": ["X-Forwarded-For: {}", "X-Forwarded-For: {}"],
    "garbage before": ["X-Forwarded-For: garbage, {}"],
    "garbage behind": ["X-Forwarded-For: {},", "X-Forwarded-For: "],
    "Forwarded": ["Forwarded: for={}", "Forwarded: for={};by=127.0.0.1"],
    "open quotes": ['Forwarded: for={}, for="'],
    "X-Real-IP": ["X-Real-IP: {}"],
    "X-Real-IP twice": ["X-Real-IP: {}", "X-Real-IP: {}"],
    "underscores": ["X_Forwarded_For: {}", "X_Real_IP: {}"],
    "others": ["CF-Connecting-IP: {}", "True-Client-IP: {}", "X-Client-IP: {}", "Via: 1.1 127.7.0.9"],
}
"""Header lines by which a client says that it is at another address."""


class Fleet:
    """A served app, and the proxies before it, each started when it is first asked for."""

    def __init__(self, served: Served, folder: Path, running: ExitStack) -> None:
        self.address = served.address
        self.folder = folder
        self._running = running
        self._proxies: dict[object, InFront] = {}

    def behind(
        self,
        configuration: str,
        changed: tuple[tuple[str, str], ...] = (),
        *,
        host: str = "127.0.0.1",
        onward: int | None = None,
    ) -> int:
        """Return the port of a proxy before the app, or before another proxy at the port `onward`."""
        key = (configuration, changed, host, onward)
        if key not in self._proxies:
            to = self.address if onward is None else ("127.0.0.1", onward)
            proxy = InFront(configuration, to, self.folder, changed=dict(changed), host=host)
            self._proxies[key] = self._running.enter_context(proxy)
        return self._proxies[key].port


def fleet_of(server: str, app: str, folder: Path, *, at_unix_socket: bool = False) -> Iterator[Fleet]:
    """Yield a served app, and take it away with its proxies; skip where there are none."""
    for program in ("nginx", "haproxy"):
        if found(program) is None:
            pytest.skip(f"needs {program}: apt-get install {program}")
    with ExitStack() as running:
        served = running.enter_context(Served(server, app, folder, at_unix_socket=at_unix_socket))
        served.connected().close()
        yield Fleet(served, folder, running)


@pytest.fixture(scope="module", params=SERVERS)
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Return the apps at a port."""
    yield from fleet_of(*SERVERS[request.param], tmp_path_factory.mktemp("port"))


@pytest.fixture(scope="module", params=SERVERS)
def unix_fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Return the apps at a unix socket."""
    yield from fleet_of(*SERVERS[request.param], tmp_path_factory.mktemp("socket"), at_unix_socket=True)


@pytest.fixture(scope="module")
def rewriting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Return the apps on a server that was left to read X-Forwarded-For itself."""
    yield from fleet_of("uvicorn-rewriting", "tests.proxied_app:app", tmp_path_factory.mktemp("rewriting"))


def spoofed(kind: str, address: str) -> list[str]:
    """Return the header lines of a client that pretends to be somewhere else."""
    return [line.format(address) for line in SPOOFS[kind]]


def seen(answer: Answer) -> tuple[int, str | None, str | None]:
    """Return what an answer says of the address."""
    return answer.status, answer.reason, answer.client_ip


def refused(address: str | None) -> tuple[int, str, str | None]:
    """Return the same of a refusal for an address."""
    return 403, "ip_not_allowed", address


def test_every_configuration_of_the_docs_is_run_here() -> None:
    """None is shown that nobody tried."""
    files = [path for path in CONFIGURATIONS.rglob("*") if path.suffix in {".conf", ".cfg"}]
    shown = {str(path.relative_to(CONFIGURATIONS)) for path in files}
    assert shown == {*TO_PORTS, *TO_SOCKETS, BEHIND_CDN}


# ---- through one proxy


@pytest.mark.parametrize("configuration", TO_PORTS)
def test_the_client_is_who_connects_to_the_proxy(fleet: Fleet, configuration: str) -> None:
    """Each client has its own address, and its network opens what is open to it."""
    port, app = fleet.behind(configuration), TO_PORTS[configuration]
    for client in (INSIDE, "127.7.255.254", OUTSIDE, "127.200.3.4"):
        assert seen(asked(port, "/closed", client=client, app=app)) == refused(client)
    assert asked(port, "/inside", client=INSIDE, app=app).body == b"ran"
    assert asked(port, "/outside", client=OUTSIDE, app=app).body == b"ran"


@pytest.mark.parametrize("kind", SPOOFS)
@pytest.mark.parametrize("configuration", TO_PORTS)
def test_what_a_client_writes_changes_nothing(fleet: Fleet, configuration: str, kind: str) -> None:
    """It opens no network to those outside, and leads nobody out of one that is denied."""
    port, app = fleet.behind(configuration), TO_PORTS[configuration]
    assert seen(asked(port, "/inside", *spoofed(kind, INSIDE), client=OUTSIDE, app=app)) == refused(OUTSIDE)
    assert asked(port, "/outside", *spoofed(kind, OUTSIDE), client=INSIDE, app=app).reason == "access_denied"
    assert asked(port, "/inside", *spoofed(kind, OUTSIDE), client=INSIDE, app=app).body == b"ran"


@pytest.mark.parametrize("trailer", ["X-Forwarded-For: {}", "Forwarded: for={}", "X-Real-IP: {}"])
@pytest.mark.parametrize("configuration", TO_PORTS)
def test_what_a_client_writes_behind_the_body_changes_nothing(fleet: Fleet, configuration: str, trailer: str) -> None:
    """Trailers that a proxy passes on and a server takes for headers (RFC 9110 section 6.5.1) open nothing."""
    port, app = fleet.behind(configuration), TO_PORTS[configuration]
    for path, client, pretended in (("/inside", OUTSIDE, INSIDE), ("/outside", INSIDE, OUTSIDE)):
        chunked = f"1\r\na\r\n0\r\n{trailer.format(pretended)}\r\n\r\n".encode()
        answer = asked(port, path, client=client, app=app, chunked=chunked)
        assert answer.status in {400, 403}
        assert answer.client_ip in {client, None}


@pytest.mark.parametrize("configuration", ["nginx/forwarded.conf", "haproxy/forwarded.cfg"])
def test_an_address_of_ipv6_comes_through_forwarded(fleet: Fleet, configuration: str) -> None:
    """RFC 7239 section 6: in quotes and brackets."""
    port = fleet.behind(configuration, host="::1")
    answer = asked(port, "/closed", client="::1", host="::1", app="forwarded")
    assert seen(answer) == refused("::1")


@pytest.mark.parametrize("configuration", APPENDING)
@pytest.mark.parametrize(
    ("client", "status"),
    [
        (INSIDE, 200),
        (OUTSIDE, 200),
        ("127.7.66.1", 403),
        ("127.9.0.1", 403),
        ("127.7.65.255", 200),
        ("127.7.67.0", 200),
    ],
)
def test_the_lists_of_the_service_hold_for_clients(fleet: Fleet, configuration: str, client: str, status: int) -> None:
    """Allowed networks, one denied within them, and none else; saying that one is elsewhere does not help."""
    port = fleet.behind(configuration)
    for lines in ([], spoofed("one entry", INSIDE), spoofed("two lines", "127.7.66.1")):
        assert asked(port, "/open", *lines, client=client, app="fenced").status == status


# ---- through several, or none


@pytest.mark.parametrize("app", ["counted", "appending"])
@pytest.mark.parametrize(("outer", "inner"), [APPENDING, APPENDING[::-1]], ids=["nginx first", "haproxy first"])
def test_a_chain_of_proxies_is_walked_and_counted(fleet: Fleet, outer: str, inner: str, app: str) -> None:
    """Both write down whom they see: the second entry from the right is the client, and the first not trusted."""
    port = fleet.behind(outer, onward=fleet.behind(inner))
    for lines in ([], spoofed("a chain", INSIDE), spoofed("two lines", INSIDE), spoofed("garbage before", INSIDE)):
        assert seen(asked(port, "/inside", *lines, client=OUTSIDE, app=app)) == refused(OUTSIDE)
    assert asked(port, "/inside", *spoofed("a chain", OUTSIDE), client=INSIDE, app=app).body == b"ran"


@pytest.mark.parametrize("configuration", APPENDING)
def test_a_shorter_way_than_was_counted_leaves_the_client_unknown(fleet: Fleet, configuration: str) -> None:
    """Who came past the first of two proxies has one entry."""
    assert seen(asked(fleet.behind(configuration), "/inside", client=INSIDE, app="counted")) == refused(None)


def test_a_cdn_is_believed_and_nobody_else_is(fleet: Fleet) -> None:
    """The configuration takes the CDN's header from the CDN's networks alone, and says who it was in one of its own."""
    port = fleet.behind(BEHIND_CDN, (("173.245.48.0/20", "127.9.0.0/16"),))
    says = f"CF-Connecting-IP: {INSIDE}"
    assert asked(port, "/inside", says, client="127.9.0.1", app="single").body == b"ran"
    assert seen(asked(port, "/inside", says, client=OUTSIDE, app="single")) == refused(OUTSIDE)
    assert seen(asked(port, "/inside", says, f"X-Real-IP: {INSIDE}", client=OUTSIDE, app="single")) == refused(OUTSIDE)


@pytest.mark.parametrize("app", ["appending", "counted", "forwarded", "single", "peer", "unix"])
@pytest.mark.parametrize("kind", SPOOFS)
def test_who_comes_past_the_proxy_is_the_client(fleet: Fleet, app: str, kind: str) -> None:
    """A peer that is no trusted proxy is the client, whatever it writes."""
    assert isinstance(fleet.address, tuple)
    port = fleet.address[1]
    assert seen(asked(port, "/inside", *spoofed(kind, INSIDE), client=OUTSIDE, app=app)) == refused(OUTSIDE)
    assert asked(port, "/inside", *spoofed(kind, OUTSIDE), client=INSIDE, app=app).body == b"ran"


def test_a_proxy_that_says_nothing_is_not_the_client(fleet: Fleet) -> None:
    """Without the header, as in a health check of the proxy's own, nobody knows who asks."""
    assert isinstance(fleet.address, tuple)
    port = fleet.address[1]
    for app in ("appending", "counted", "forwarded", "single"):
        assert seen(asked(port, "/inside", client=PROXY, app=app)) == refused(None)
        assert asked(port, "/outside", client=PROXY, app=app).status == 403
        assert asked(port, "/open", client=PROXY, app=app).status == 200


# ---- over unix sockets


@pytest.mark.parametrize("configuration", TO_SOCKETS)
def test_a_unix_socket_is_trusted_where_that_was_said(unix_fleet: Fleet, configuration: str) -> None:
    """The proxy's word counts, the client's does not; where the socket is not trusted, nobody is known."""
    port = unix_fleet.behind(configuration)
    for client in (INSIDE, OUTSIDE, "127.200.3.4"):
        assert seen(asked(port, "/closed", client=client, app="unix")) == refused(client)
    for kind in SPOOFS:
        assert seen(asked(port, "/inside", *spoofed(kind, INSIDE), client=OUTSIDE, app="unix")) == refused(OUTSIDE)
    assert asked(port, "/inside", client=INSIDE, app="unix").body == b"ran"
    for app in ("peer", "appending"):
        assert seen(asked(port, "/inside", client=INSIDE, app=app)) == refused(None)


# ---- what is wrong is told


@pytest.mark.parametrize(
    ("configuration", "changed"),
    [
        (
            "nginx/appending.conf",
            ("proxy_set_header Host $host;", 'proxy_set_header Host $host; proxy_set_header Authorization "";'),
        ),
        (
            "haproxy/appending.cfg",
            ("option forwardfor", "option forwardfor\n    http-request del-header Authorization"),
        ),
    ],
    ids=["nginx", "haproxy"],
)
def test_a_proxy_that_strips_authorization_is_hinted_at(
    fleet: Fleet, configuration: str, changed: tuple[str, str]
) -> None:
    """The caller is told to sign in, and the operator where to look; a proxy that leaves it alone is not in the way."""
    authorization = f"Authorization: {credentials_of(FULLY)}"
    assert asked(fleet.behind(configuration), "/me", authorization).body == b"ran"
    answer = asked(fleet.behind(configuration, (changed,)), "/me", authorization, app="stripped")
    assert (answer.status, answer.reason) == (401, "missing_token")
    event = events_of(fleet.folder)[-1]
    assert event["hint"] == "no Authorization header came through the proxy in front: does it strip it?"


@pytest.mark.parametrize("configuration", APPENDING)
def test_a_proxy_that_is_not_trusted_is_told(fleet: Fleet, configuration: str) -> None:
    """By the first request that comes through it: in the refusal's hint, and once for the service."""
    port = fleet.behind(configuration)
    for _ in range(2):
        assert seen(asked(port, "/inside", client=INSIDE, app="mistaken")) == refused(PROXY)
    events = events_of(fleet.folder)
    told = "x-forwarded-for came from 127.0.0.1, which is not in trusted_proxies"
    assert [event["cause"] for event in events if told in event.get("hint", "")] == ["proxy_not_trusted"]
    assert "X-Forwarded-For came from a peer that is not in trusted_proxies" in events[-1]["hint"]


def test_a_server_that_replaced_the_peer_is_told(rewriting: Fleet) -> None:
    """As uvicorn does for proxies on the same machine, unless it is told not to."""
    port = rewriting.behind("nginx/appending.conf")
    for _ in range(2):
        assert asked(port, "/inside", client=INSIDE).status == 200
    (warning,) = [event for event in events_of(rewriting.folder) if event["event"] == "authz.warning"]
    assert warning["cause"] == "peer_rewritten"
    assert "--no-proxy-headers" in warning["hint"]
