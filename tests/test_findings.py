"""Findings: what hurts behind a proxy is told once a cause, with what it rests on, and an ordinary service is quiet."""

import itertools
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from authz403 import Gate, Network, Principal, Requirement, Rule, anyone, authenticated, networks, requires
from authz403.findings import CALLERS, FIRST, MANY, PAUSE, RUN, WINDOW
from authz403.request import AccessRequest
from authz403.startup import check_app
from tests.apps_made import drive, listening, scope_of, wrapped
from tests.gates_made import fulfilled
from tests.tokens_made import NOW, bearer, token, tokens

PROXY: Final = "172.16.0.9"
CLIENT: Final = "203.0.113.7"
PUBLIC: Final = [f"203.0.113.{number}" for number in range(1, 255)]
BEHIND: Final = Network(trusted_proxies=["172.16.0.0/12"])

Request = tuple[str | None, dict[str, str]]


class Named:
    """An `IdentitySource` for which the header X-Caller says who asks."""

    fields: frozenset[str] = frozenset({"x-caller"})

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        names = request.fields.get("x-caller")
        return None if names is None else Principal(sub=names[0])


def made(wanted: Requirement = anyone, network: Network | None = None, *, tokens: Any = None) -> Gate:  # noqa: ANN401 - sources
    """Return a gate that has met its app."""
    gate = Gate(tokens=tokens or Named(), rules=[Rule("*", "/**", wanted)], network=network, clock=lambda: NOW)
    check_app(gate, None)
    return gate


def told(gate: Gate, requests: Iterable[Request], *, rewritten: bool = False) -> dict[str, str]:
    """Return the warnings about these requests (peer and header fields), hint by cause; each comes once."""
    with capture_logs() as events:
        for peer, fields in requests:
            lines = {name: (value,) for name, value in fields.items()}
            request = AccessRequest("GET", "/a", peer, lines, rewritten)
            gate.record(fulfilled(gate.decide(request)))
    warnings = [event for event in events if event["event"] == "authz.warning"]
    causes = [event["cause"] for event in warnings]
    assert len(causes) == len(set(causes))
    return {event["cause"]: event["hint"] for event in warnings}


def by_proxy(*clients: str, **fields: str) -> Iterator[Request]:
    """Yield a request of each client by way of the proxy."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    for address in clients:
        yield PROXY, {"x-forwarded-for": address, **named}


def callers(number: int, peers: Iterable[str], times: int = 1, **fields: str) -> Iterator[Request]:
    """Yield requests of so many callers in turn, with their peers in turn."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    for count, peer in zip(range(number * times), itertools.cycle(peers), strict=False):
        yield peer, {"x-caller": f"u{count % number}", **named}


# ---- a server that has put another address in the peer's place


@pytest.mark.parametrize(
    ("wanted", "network", "hint"),
    [
        (anyone, BEHIND, "so that trusted_proxies are not seen"),
        (networks("203.0.113.0/24"), None, "networks rest on how the server reads that header"),
        (anyone, Network(allow=["203.0.113.0/24"]), "networks rest on how the server reads that header"),
        (anyone, None, None),
    ],
    ids=["trusted", "networks", "allow", "nobody asks"],
)
def test_a_peer_that_the_server_replaced_is_told(
    wanted: Requirement, network: Network | None, hint: str | None
) -> None:
    """Where anything rests on addresses; and that address is not said to be a proxy's besides."""
    found = told(made(wanted, network), [(CLIENT, {"x-forwarded-for": CLIENT})] * 3, rewritten=True)
    assert list(found) == ([] if hint is None else ["peer_rewritten"])
    if hint is not None:
        assert hint in found["peer_rewritten"]
        assert "--no-proxy-headers" in found["peer_rewritten"]


# ---- a proxy that nobody trusts


@pytest.mark.parametrize("field", ["x-forwarded-for", "forwarded"])
@pytest.mark.parametrize("peer", ["172.16.0.9", "127.0.0.1", "::ffff:10.0.0.1", "fd00::9", "unix", None], ids=str)
@pytest.mark.parametrize("network", [None, Network(trusted_proxies=["192.0.2.0/24"])], ids=["peer", "others trusted"])
def test_a_proxy_inside_that_is_not_trusted_is_told_at_once(
    field: str, peer: str | None, network: Network | None
) -> None:
    """The internet's clients have no such address, so the first request with a forwarding header tells."""
    found = told(made(network=network), [(peer, {field: CLIENT})] * 3)
    assert list(found) == ["proxy_not_trusted"]
    assert f"{field} came from {peer or 'unix'}, which is not in trusted_proxies" in found["proxy_not_trusted"]


def test_strangers_who_write_a_forwarding_header_are_not_told_of() -> None:
    """Anybody can; nor is a trusted proxy told of, nor a peer without such a header."""
    strangers = [
        (peer, {"x-forwarded-for": "10.0.0.1"} if number % 3 == 0 else {}) for number, peer in enumerate(PUBLIC)
    ]
    assert told(made(), [*strangers * 3, (PROXY, {}), ("testclient", {"x-forwarded-for": CLIENT})]) == {}
    assert told(made(network=BEHIND), by_proxy(*PUBLIC)) == {}


def test_a_public_edge_that_is_not_trusted_is_told_of_by_its_share() -> None:
    """Where most requests bring the header, they come by a CDN, whatever health checks come besides."""
    edge: list[Request] = [(PUBLIC[number % 9], {"x-forwarded-for": CLIENT}) for number in range(WINDOW)]
    checked = [request if number % 3 else ("192.0.2.1", {}) for number, request in enumerate(edge)]
    assert told(made(), edge[1:]) == {}
    (hint,) = told(made(), checked).values()
    assert f"forwarding headers came with 133 of {WINDOW} requests, from 203.0.113." in hint


# ---- a proxy that strips Authorization


def test_a_proxy_that_strips_authorization_is_told_once_it_is_a_pattern() -> None:
    """Many requests needed one, and none had one."""
    gate = made(authenticated, BEHIND, tokens=tokens())
    assert told(gate, by_proxy(*PUBLIC[: MANY - 1])) == {}
    found = told(gate, by_proxy(*PUBLIC[:3]))
    assert list(found) == ["authorization_stripped"]
    assert (
        "no Authorization header came through the proxy in front: does it strip it?" in found["authorization_stripped"]
    )


@pytest.mark.parametrize("network", [None, BEHIND], ids=["untrusted", "trusted"])
def test_where_one_came_through_none_is_stripped(network: Network | None) -> None:
    """Then nothing is told, and the refusals of those who send none say nothing of a proxy, either."""
    gate = made(authenticated, network, tokens=tokens())

    def hint() -> str | None:
        request = AccessRequest("GET", "/a", PROXY, {"x-forwarded-for": (CLIENT,)})
        return fulfilled(gate.decide(request)).decision.hint

    assert hint() == "no Authorization header came through the proxy in front: does it strip it?"
    told(gate, by_proxy(CLIENT, authorization=bearer(token())))
    assert hint() is None
    assert "authorization_stripped" not in told(gate, by_proxy(*PUBLIC[: MANY + 9]))


@pytest.mark.parametrize("kind", ["no proxy", "public", "not read", "directly"])
def test_missing_tokens_are_no_pattern_by_themselves(kind: str) -> None:
    """Without a proxy, where none is needed, and where none is read; what came past the proxy proves nothing."""
    many: list[Request] = list(by_proxy(*PUBLIC[:MANY]))
    if kind == "no proxy":
        assert told(made(authenticated, tokens=tokens()), [(peer, {}) for peer in PUBLIC]) == {}
    elif kind == "public":
        assert told(made(anyone, BEHIND, tokens=tokens()), many) == {}
    elif kind == "not read":
        assert told(made(authenticated, BEHIND), many) == {}
    else:
        direct: list[Request] = [("192.0.2.9", {"authorization": bearer(token())})]
        assert list(told(made(authenticated, BEHIND, tokens=tokens()), direct + many)) == ["authorization_stripped"]


# ---- one address for all


@pytest.mark.parametrize("network", [BEHIND, None], ids=["trusted", "peer"])
def test_many_callers_at_one_address_inside_are_told(network: Network | None) -> None:
    """A proxy that is not looked through, or a service that calls for its users: the operator knows which."""
    wanted = authenticated & networks("10.0.0.0/8")
    many = list(callers(CALLERS, ["10.0.0.1"], RUN // CALLERS))
    gate = made(wanted, network)
    assert told(gate, many[:-1]) == {}
    found = told(gate, many)
    assert list(found) == ["one_address"]
    assert f"{RUN} requests in a row, of {CALLERS} callers or more, came from 10.0.0.1" in found["one_address"]


@pytest.mark.parametrize(
    ("number", "peers"),
    [(1, ["10.0.0.1"]), (CALLERS - 1, ["10.0.0.1"]), (CALLERS, ["10.0.0.1", "10.0.0.2"]), (CALLERS, ["192.0.2.1"])],
    ids=["one caller", "few callers", "two addresses", "an office"],
)
def test_few_callers_and_many_addresses_are_as_it_should_be(number: int, peers: list[str]) -> None:
    """A private service with one caller, a team, and a company behind one public address are no sign of a proxy."""
    wanted = authenticated & (networks("10.0.0.0/8") | networks("192.0.2.0/24"))
    assert told(made(wanted), callers(number, peers, 3 * RUN // number)) == {}


def test_one_address_matters_to_nobody_where_no_policy_asks_for_it() -> None:
    """Nothing rests on the address then."""
    assert told(made(authenticated), callers(CALLERS, ["10.0.0.1"], RUN)) == {}


def test_an_edge_that_speaks_for_different_clients_is_told() -> None:
    """Behind one public address stand others in the header: it is a proxy that trusted_proxies leaves out."""
    edge = [
        (PROXY, {"x-caller": f"u{number % CALLERS}", "x-forwarded-for": f"{PUBLIC[number % 9]}, 192.0.2.80"})
        for number in range(RUN)
    ]
    office = [
        (peer, {**fields, "x-forwarded-for": f"192.0.2.80:{4700 + number}, 172.16.0.3"})
        for number, (peer, fields) in enumerate(edge)
    ]
    assert list(told(made(authenticated, BEHIND), edge)) == ["one_address"]
    assert told(made(authenticated, BEHIND), office) == {}


# ---- networks that nobody can be in


@pytest.mark.parametrize(
    ("cidrs", "network"),
    [
        (["172.16.0.0/12"], BEHIND),
        (["172.16.5.0/24", "::ffff:172.16.6.0/120"], BEHIND),
        (["172.16.0.0/12"], Network(source="forwarded", trusted_proxies=["172.16.0.0/12"])),
        (["fd00:1::/32"], Network(trusted_proxies=["unix", "10.0.0.0/8", "fd00::/8"])),
    ],
    ids=str,
)
def test_networks_of_trusted_proxies_alone_are_told_at_the_start(cidrs: list[str], network: Network) -> None:
    """The walk passes trusted proxies by, so that the client is never one of them."""
    with capture_logs() as events:
        made(authenticated & ~networks(*cidrs), network)
    assert [event["cause"] for event in events] == ["networks_never_match"]
    assert "all of it is in trusted_proxies, and a trusted proxy is never taken for the client" in events[0]["hint"]
    assert repr(networks(*cidrs)) in events[0]["hint"]


@pytest.mark.parametrize("name", ["allow", "deny"])
def test_a_list_of_the_service_within_the_proxies_is_told(name: str) -> None:
    """A service that is open to nobody, and one that is closed to nobody, mean something else."""
    lists: dict[str, Any] = {name: ["172.16.7.0/24"]}
    with capture_logs() as events:
        made(network=Network(trusted_proxies=["172.16.0.0/12"], **lists))
    assert [event["cause"] for event in events] == ["networks_never_match"]
    assert f"Network({name}=)" in events[0]["hint"]


@pytest.mark.parametrize(
    ("cidrs", "network"),
    [
        (["10.0.0.0/8"], BEHIND),
        (["172.16.0.0/12", "192.0.2.0/24"], BEHIND),
        (["172.0.0.0/8"], BEHIND),
        (["172.16.0.0/12"], None),
        (["172.16.0.0/12"], Network(trusted_proxies=["172.16.0.0/12"], hops=1)),
        (["172.16.0.0/12"], Network(source="x-real-ip", trusted_proxies=["172.16.0.0/12"])),
        (["172.16.0.0/12"], Network(trusted_proxies=["unix"])),
        (["fd00::/8"], BEHIND),
    ],
    ids=str,
)
def test_networks_with_any_room_for_clients_are_not_told(cidrs: list[str], network: Network | None) -> None:
    """Partly outside, not walked over, counted, or said by one header: there a client may be."""
    with capture_logs() as events:
        made(networks(*cidrs), network)
    assert events == []


def test_marks_are_looked_at_as_rules_are() -> None:
    """The networks of an endpoint count when the gate meets its app, and a second look says nothing new."""

    @requires(networks("172.16.0.0/12"))
    async def endpoint(request: HttpRequest) -> Response:
        return PlainTextResponse("a")

    app = wrapped(Starlette(routes=[Route("/a", endpoint)]), Gate(network=BEHIND))
    with listening() as events:
        for _ in range(2):
            drive(app, scope_of("/a"))
    assert [event["cause"] for event in events if event["event"] == "authz.warning"] == ["networks_never_match"]


def test_networks_that_no_request_matches_behind_one_address_are_told() -> None:
    """Every client seems to be the proxy: its address is in no list."""
    gate = made(networks("203.0.113.0/24"))
    assert told(gate, [(PROXY, {})] * (MANY - 1)) == {}
    found = told(gate, [(PROXY, {})] * 2)
    assert list(found) == ["networks_never_match"]
    assert (
        "networks('203.0.113.0/24') has matched no request so far: all came from 172.16.0.9"
        in (found["networks_never_match"])
    )


def test_networks_that_were_matched_are_not_told_of() -> None:
    """Of several, only those that nobody came from are named."""
    rules = [Rule("*", "/a", networks("203.0.113.0/24")), Rule("*", "/b", networks("172.16.0.0/16"))]
    gate = Gate(rules=rules)
    check_app(gate, None)
    (hint,) = told(gate, [(PROXY, {})] * MANY).values()
    assert hint.startswith("networks('203.0.113.0/24') has matched no request so far")


def test_a_proxy_that_never_says_an_address_is_told() -> None:
    """A trusted proxy without the header that is read leaves every client unknown."""
    found = told(made(networks("203.0.113.0/24"), BEHIND), [(PROXY, {})] * MANY)
    assert "the trusted proxy has sent no usable x-forwarded-for so far" in found["networks_never_match"]


def test_private_networks_behind_a_public_edge_are_told() -> None:
    """Those inside come from outside, too, where all come by the public edge."""
    found = told(made(networks("10.0.0.0/8", "fd00::/8"), BEHIND), by_proxy(*PUBLIC[:MANY]))
    assert list(found) == ["networks_never_match"]
    assert "all came from public addresses" in found["networks_never_match"]


@pytest.mark.parametrize(
    "clients",
    [
        ["10.0.0.1", *PUBLIC[:100]],
        [*PUBLIC[:20], "192.168.0.1", *PUBLIC[20:100]],
        PUBLIC[: MANY - 1],
    ],
    ids=["somebody was inside", "somebody came from another private network", "few"],
)
def test_networks_that_strangers_knock_at_are_as_they_should_be(clients: list[str]) -> None:
    """Refusals alone are no sign: an office that is asleep while the world scans is an ordinary night."""
    assert told(made(networks("10.0.0.0/8"), BEHIND), by_proxy(*clients)) == {}


@pytest.mark.parametrize("clients", [PUBLIC[:100], [CLIENT] * 100], ids=["many", "one"])
def test_public_networks_that_strangers_knock_at_are_as_they_should_be(clients: list[str]) -> None:
    """Nothing is known of an office at a public address until it calls."""
    assert told(made(networks("198.51.100.0/24"), BEHIND), by_proxy(*clients)) == {}


# ---- the cost


def moments(gate: Gate, seconds: Iterable[float]) -> list[bool]:
    """Tell of requests that start at these times whether each was looked at."""
    looked = []
    for second in seconds:
        outcome = fulfilled(gate.decide(AccessRequest("GET", "/a", CLIENT)))
        outcome.started = second
        before = gate.findings._looks
        gate.record(outcome)
        looked.append(gate.findings._looks > before)
    return looked


def test_after_the_first_requests_few_are_looked_at() -> None:
    """All of the first, then no more than one in each pause, however many come."""
    gate = made()
    assert all(moments(gate, [1.0] * FIRST))
    later = [1.0, 1.0 + PAUSE / 2, 1.0 + PAUSE * 1.5, 1.0 + PAUSE * 2, 1.0 + PAUSE * 3]
    assert moments(gate, later) == [False, False, True, False, True]


def test_findings_take_no_more_memory_the_more_requests_come() -> None:
    """Callers, addresses and headers of any number and size leave nothing behind (CWE-770)."""
    gate = made(authenticated & networks("192.0.2.0/24"), BEHIND)

    def many(first: int) -> Iterator[Request]:
        for number in range(first, first + 900):
            left = f"{'x' * 2000}{number}, 10.0.0.{number % 3}" if number % 2 else f"198.51.{number % 99}.7, 10.0.0.1"
            yield PROXY, {"x-caller": f"u{number}", "x-forwarded-for": left}

    told(gate, many(0))
    gate.findings._looks = 0
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        told(gate, many(900))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000


def test_threads_tell_a_cause_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are looked at side by side do not get into each other's way."""
    causes: list[str] = []
    gate = made(authenticated & networks("10.0.0.0/8"))

    def tell(cause: str, hint: str) -> None:
        causes.append(cause)
        time.sleep(0)  # lets the others in

    monkeypatch.setattr(gate.findings, "_tell", tell)
    outcomes = [
        fulfilled(gate.decide(AccessRequest("GET", "/a", "10.0.0.1", {"x-caller": (f"u{n % 40}",)})))
        for n in range(900)
    ]
    with capture_logs(), ThreadPoolExecutor(8) as pool:
        list(pool.map(gate.findings.look, outcomes))
    assert causes in (["one_address"], [])
    gate.findings._looks = 0
    for outcome in outcomes:
        gate.findings.look(outcome)
    assert causes == ["one_address"]


def test_nothing_is_decided_by_a_finding() -> None:
    """Before and after everything was told, the same request has the same answer."""
    gate = made(networks("203.0.113.0/24"))
    request = AccessRequest("GET", "/a", PROXY, {"x-forwarded-for": (CLIENT,)})
    before = fulfilled(gate.decide(request)).decision
    assert told(gate, by_proxy(*PUBLIC)).keys() == {"proxy_not_trusted", "networks_never_match"}
    assert fulfilled(gate.decide(request)).decision == before
