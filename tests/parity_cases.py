"""One table of requests for every kind of app: outcomes, other origins, odd paths, and trouble with headers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from authz403 import (
    BearerTokens,
    Cors,
    Gate,
    Network,
    Principal,
    Rbac,
    Reason,
    Requirement,
    anyone,
    authenticated,
    csrf_protected,
    networks,
    optional,
    roles,
    scopes,
)
from authz403.facts import Rejected
from authz403.request import AccessRequest
from tests.apps_made import AUDIENCE, ISSUER, NOW, ORIGIN, TOKENS, gate_with, signed
from tests.outcomes_made import CASES as REFUSALS
from tests.outcomes_made import Headers, authorization, caller

MakesGate = Callable[..., Gate]
_NOWHERE: Final[Mapping[str, str]] = MappingProxyType({})


class Case(NamedTuple):
    """A request, the policy of the orders that it asks for, and the gate that it meets.

    `gate` makes the gate, of more arguments. `elsewhere` names the kinds of apps where the answer is another one, each
    with the heading under which the docs say why.
    """

    wanted: Requirement | None = anyone
    headers: Headers = ()
    method: str = "GET"
    path: str = "/orders/bob"
    query: str = ""
    peer: str | None = "127.0.0.1"
    gate: MakesGate = gate_with
    elsewhere: Mapping[str, str] = _NOWHERE


CORS: Final = Cors(origins=[ORIGIN, "https://other.example"], credentials=True, expose=["X-Total"], max_age=60)
INSIDE: Final = networks("10.0.0.0/8")
EVIL: Final = "https://evil.example"
with_cors: Final[MakesGate] = functools.partial(gate_with, cors=CORS)
debugging: Final[MakesGate] = functools.partial(gate_with, cors=Cors(origins=["https://*.app.example"], debug=True))
in_private: Final[MakesGate] = functools.partial(gate_with, cors=Cors(origins=[ORIGIN], private_network=True))


def behind(**options: object) -> MakesGate:
    """Return what makes a gate with these options of `Network`."""
    return functools.partial(gate_with, network=Network(**options))  # type: ignore[arg-type]  # options of it


def unreachable(**more: object) -> Gate:
    """Return a gate whose issuer cannot be reached."""
    tokens = BearerTokens(issuer=ISSUER, audience=AUDIENCE, jwks_url="http://127.0.0.1:1/jwks")
    return Gate(tokens=tokens, clock=lambda: NOW, **more)  # type: ignore[arg-type]  # options of it


def no_roles(principal: Principal) -> list[str]:
    """Fail as somebody's role store might."""
    raise ConnectionError("database down")


class Sessions:
    """An identity source that refuses every request for one reason."""

    fields = frozenset({"cookie"})

    def __init__(self, reason: Reason) -> None:
        self.reason = reason

    def identify(self, request: AccessRequest, now: float) -> Rejected:
        return Rejected(self.reason)


def refusing(reason: Reason) -> MakesGate:
    """Return what makes a gate whose only source of identities refuses everyone."""
    return lambda **more: Gate(tokens=Sessions(reason), clock=lambda: NOW, **more)


def of_rs256() -> str:
    """Return a token under an algorithm whose keys have to be fetched."""
    return "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0." + signed().split(".", 1)[1]


def preflight(origin: str = ORIGIN, method: str = "GET", headers: str | None = None) -> Headers:
    """Return the header fields of a preflight."""
    fields = (("Origin", origin), ("Access-Control-Request-Method", method))
    return fields if headers is None else (*fields, ("Access-Control-Request-Headers", headers))


def more_refusals() -> Iterator[tuple[str, Case]]:
    """Yield the outcomes that rest on the gate rather than on the policy."""
    yield "no policy", Case(None, caller())
    yield "a token only in the query", Case(authenticated, query="access_token=" + signed())
    yield "keys unavailable", Case(authenticated, authorization("Bearer " + of_rs256()), gate=unreachable)
    failing = functools.partial(gate_with, rbac=Rbac(roles_for=no_roles))
    yield "roles unavailable", Case(roles("admin"), caller(roles=["admin"]), gate=failing)
    yield "revoked", Case(authenticated, caller(), gate=refusing(Reason.TOKEN_REVOKED))
    yield "CSRF", Case(authenticated, (("Cookie", "session=1"),), gate=refusing(Reason.CSRF_FAILED))
    yield "a foreign network", Case(authenticated, gate=behind(allow=["10.0.0.0/8"]))
    yield "a denied network", Case(authenticated, caller(), gate=behind(deny=["127.0.0.0/8"]))
    yield "only reported", Case(scopes("a"), caller(), gate=functools.partial(gate_with, dangerously_report_only=True))
    for disclose in ("full", "code"):
        yield f"disclosed: {disclose}", Case(scopes("a"), gate=functools.partial(gate_with, disclose=disclose))
    yield "a type of one's own", Case(scopes("a"), gate=functools.partial(gate_with, type_base="https://x.example/"))
    yield "denied HEAD", Case(scopes("a"), method="HEAD")
    yield "denied POST", Case(scopes("a"), method="POST")
    yield "not the owner, by a check", Case(path="/owned", headers=caller())
    yield "a code of the app's own", Case(path="/own-code", headers=caller())


def allowed() -> Iterator[tuple[str, Case]]:
    """Yield requests that are let in."""
    yield "a public endpoint", Case()
    yield "a caller with all rights", Case(scopes("a") & roles("r"), caller(scope="a b", roles=["r"], jti="t-1"))
    yield "optional, with a good token", Case(optional, caller())
    yield "optional, without", Case(optional)
    yield "POST", Case(authenticated, caller(), method="POST")
    yield "HEAD", Case(authenticated, caller(), method="HEAD")
    yield "by network", Case(networks("127.0.0.0/8"))
    yield "lower-case scheme", Case(authenticated, authorization("bearer " + signed()))
    yield "white space around", Case(authenticated, authorization("  Bearer  " + signed() + "\t"))


def paths() -> Iterator[tuple[str, Case]]:
    """Yield paths that two readers may read differently, and some that only look so."""
    told = {
        "newline": "/orders/bob\n",
        "NUL": "/orders/b\x00b",
        "DEL": "/orders/b\x7fb",
        "C1": "/orders/\x85",
        "backslash": "/orders\\bob",
        "U+FFFD": "/orders/\ufffd",
        "no leading slash": "orders/bob",
        "dot segments": "/orders/../orders/bob",
        "a dot": "/orders/./bob",
        "dots at the end": "/orders/bob/..",
        "a line separator": "/orders/\u2028",
    }
    for name, path in told.items():
        yield f"path: {name}", Case(authenticated, caller(), path=path)
    for name, path in {
        "umlaut": "/orders/bär",
        "beyond the BMP": "/orders/\U0001f600",
        "percent": "/orders/a%2Fb",
    }.items():
        yield f"path: {name}", Case(authenticated, caller(), path=path)


def cross_origin() -> Iterator[tuple[str, Case]]:
    """Yield what browsers send from pages of other origins."""
    for name, fields in {
        "allowed": preflight(method="PUT", headers="authorization, CONTENT-TYPE"),
        "foreign origin": preflight(EVIL),
        "suffix of ours": preflight(f"{ORIGIN}.evil.example"),
        "null": preflight("null"),
        "upper case": preflight(ORIGIN.upper()),
        "default port": preflight(f"{ORIGIN}:443"),
        "foreign method": preflight(method="PURGE"),
        "lower-case method": preflight(method="get"),
        "foreign header": preflight(headers="x-own"),
        "one foreign header of two": preflight(headers="authorization,x-own"),
        "headers in two lines": (*preflight(headers="authorization"), ("Access-Control-Request-Headers", "x-own")),
        "private network": (*preflight(), ("Access-Control-Request-Private-Network", "true")),
        "allowed headers in two lines": (
            *preflight(headers="authorization"),
            ("Access-Control-Request-Headers", "content-type"),
        ),
    }.items():
        yield f"preflight: {name}", Case(scopes("s"), fields, "OPTIONS", gate=with_cors)
    below = "https://x.app.example"
    private = ("Access-Control-Request-Private-Network", "true")
    for name, fields in {
        "an origin of a pattern": preflight(below),
        "debugging, origin": preflight("https://badapp.example"),
        "debugging, method": preflight(below, "PURGE"),
        "debugging, header": preflight(below, headers="authorization,x-own"),
        "debugging, header not of ASCII": preflight(below, headers="x-\u00e9"),
        "debugging, private network": (*preflight(below), private),
    }.items():
        yield f"preflight: {name}", Case(scopes("s"), fields, "OPTIONS", gate=debugging)
    yield "preflight: allowed private network", Case(scopes("s"), (*preflight(), private), "OPTIONS", gate=in_private)
    yield "origin of a pattern, no scope", Case(scopes("s"), (*caller(), ("Origin", below)), gate=debugging)
    for name, fields in {
        "plain": (),
        "no method asked": (("Origin", ORIGIN),),
        "no origin": (("Access-Control-Request-Method", "GET"),),
        "two origins": (*preflight(), ("Origin", ORIGIN)),
        "two methods": (*preflight(), ("Access-Control-Request-Method", "GET")),
        "empty origin": preflight(""),
        "empty method": preflight(method=""),
    }.items():
        yield f"no preflight: {name}", Case(scopes("s"), fields, "OPTIONS", gate=with_cors)
    yield "preflight without CORS", Case(scopes("s"), preflight(), "OPTIONS")
    yield "GET like a preflight", Case(scopes("s"), preflight(), gate=with_cors)
    for name, origins in {
        "ours": (ORIGIN,),
        "our other one": ("https://other.example",),
        "foreign": (EVIL,),
        "null": ("null",),
        "none": (),
        "two": (ORIGIN, EVIL),
        "twice": (ORIGIN, ORIGIN),
        "a list": (f"{ORIGIN}, {EVIL}",),
        "empty": ("",),
    }.items():
        lines = tuple(("Origin", origin) for origin in origins)
        yield f"origin {name}, allowed", Case(scopes("s"), (*caller(scope="s"), *lines), gate=with_cors)
        yield f"origin {name}, no token", Case(scopes("s"), lines, gate=with_cors)
        yield f"origin {name}, no scope", Case(scopes("s"), (*caller(), *lines), gate=with_cors)
        yield f"origin {name}, bad request", Case(scopes("s"), (*authorization("Bearer"), *lines), gate=with_cors)
        yield f"origin {name}, check", Case(path="/owned", headers=(*caller(), *lines), gate=with_cors)
        yield f"origin {name}, headed", Case(path="/headed", headers=lines, gate=with_cors)
    anyone_may = functools.partial(gate_with, cors=Cors(origins=["*"]))
    yield "any origin", Case(scopes("s"), (("Origin", EVIL),), gate=anyone_may)
    crash = Case(path="/crash", headers=(("Origin", ORIGIN),), gate=with_cors)
    yield "a crash that a script may read", crash


class Cookies:
    """Callers by the mere presence of a cookie."""

    fields = frozenset({"cookie"})

    def identify(self, request: AccessRequest, now: float) -> Principal | None:
        return Principal(sub="ada") if "cookie" in request.fields else None


def cross_site() -> Iterator[tuple[str, Case]]:
    """Yield what browsers send with a session's cookie, from pages of this service and of other sites."""
    with_sessions = functools.partial(gate_with, tokens=[TOKENS, Cookies()])
    wanted = authenticated & csrf_protected(ORIGIN)
    site, host = "Sec-Fetch-Site", ("Host", "testserver")
    for name, fields in {
        "no browser": (),
        "same-origin": ((site, "same-origin"),),
        "none": ((site, "none"),),
        "same-site": ((site, "same-site"),),
        "cross-site": ((site, "cross-site"),),
        "cross-site, trusted": ((site, "cross-site"), ("Origin", ORIGIN)),
        "cross-site, foreign": ((site, "cross-site"), ("Origin", EVIL)),
        "own origin": (("Origin", "http://testserver"),),
        "own origin by another scheme": (("Origin", "https://testserver"),),
        "trusted origin": (("Origin", ORIGIN),),
        "foreign origin": (("Origin", EVIL),),
        "null": (("Origin", "null"),),
        "empty site": ((site, ""),),
        "empty origin": (("Origin", ""),),
        "two sites": ((site, "same-origin"), (site, "cross-site")),
        "two origins": (("Origin", "http://testserver"), ("Origin", EVIL)),
        "a list of sites": ((site, "cross-site, same-origin"),),
        "another scheme": (("Authorization", "Basic YWRhOng="), (site, "cross-site")),
        "a bad token": (("Authorization", "Bearer abc"), (site, "cross-site")),
        "a good token": (*caller(), (site, "cross-site"), ("Origin", EVIL)),
    }.items():
        lines = (host, ("Cookie", "session=1"), *fields)
        yield f"cross-site: {name}", Case(wanted, lines, "POST", gate=with_sessions)
    yield "cross-site: GET", Case(wanted, (host, ("Cookie", "s=1"), (site, "cross-site")), gate=with_sessions)
    yield "cross-site: nobody", Case(wanted, (host, ("Origin", EVIL)), "POST", gate=with_sessions)
    with_cors_too = functools.partial(with_sessions, cors=CORS)
    for name, origin in {"ours": ORIGIN, "our other one": "https://other.example", "foreign": EVIL}.items():
        fields = (host, ("Cookie", "s=1"), ("Origin", origin))
        yield f"cross-site: with CORS, {name}", Case(wanted, fields, "POST", gate=with_cors_too)


def header_trouble() -> Iterator[tuple[str, Case]]:
    """Yield headers that come twice, empty, malformed, too long, or under another name."""
    bearer, basic, other = "Bearer " + signed(), "Basic YWRhOng=", 'Digest realm="a, b", qop=auth'
    for name, lines in {
        "the same twice": (bearer, bearer),
        "good, then another": (bearer, basic),
        "another, then good": (basic, bearer),
        "empty, then good": ("", bearer),
        "good, then empty": (bearer, ""),
        "two of another scheme": (basic, basic),
        "a list, then good": (other, bearer),
        "three": (bearer, basic, bearer),
        "both empty": ("", ""),
        "a list of another scheme": (other,),
        "joined": (f"{bearer}, {basic}",),
        "of Latin-1": ("Bearer \u00e4",),
        "no scheme": (signed(),),
        "quoted": (f'"{bearer}"',),
        "a tab": (f"Bearer\t{signed()}",),
        "longest": ("Bearer " + "a" * (16 * 1024 - 7),),
        "too long": ("Bearer " + "a" * (16 * 1024 - 6),),
        "too long of another scheme": ("Basic " + "a" * (16 * 1024),),
    }.items():
        yield f"Authorization: {name}", Case(authenticated, authorization(*lines))
    far = "x-forwarded-for"
    proxied = behind(trusted_proxies=["127.0.0.0/8", "10.9.9.9"])
    for name, lines in {
        "one": ("10.0.0.1",),
        "foreign": ("198.51.100.7",),
        "two lines": ("198.51.100.7", "10.0.0.1"),
        "two lines, foreign last": ("10.0.0.1", "198.51.100.7"),
        "a list": ("198.51.100.7, 10.0.0.1",),
        "through a proxy": ("10.0.0.1, 10.9.9.9",),
        "empty": ("",),
        "empty, then one": ("", "10.0.0.1"),
        "one, then empty": ("10.0.0.1", ""),
        "junk": ("10.0.0.1, junk",),
        "with a port": ("10.0.0.1:80",),
        "IPv6": ("::ffff:10.0.0.1",),
        "none": (),
    }.items():
        yield (
            f"X-Forwarded-For: {name}",
            Case(INSIDE, tuple((far, line) for line in lines), gate=proxied),
        )
    own = behind(trusted_proxies=["127.0.0.0/8"], source="X-Real-IP")
    for name, lines in {"one": ("10.0.0.1",), "two": ("10.0.0.1", "10.0.0.1"), "none": (), "empty": ("",)}.items():
        yield f"X-Real-IP: {name}", Case(INSIDE, tuple(("X-Real-IP", line) for line in lines), gate=own)
    forwarded = behind(trusted_proxies=["127.0.0.0/8"], source="Forwarded")
    for name, lines in {
        "one": ("for=10.0.0.1",),
        "two lines": ("for=198.51.100.7", "for=10.0.0.1;proto=https"),
        "two lines, foreign last": ("for=10.0.0.1", "for=198.51.100.7"),
        "quoted": ('for="[::ffff:10.0.0.1]:80"',),
        "hidden": ("for=_hidden",),
        "broken": ('for="10.0.0.1',),
    }.items():
        lines_of = tuple(("Forwarded", line) for line in lines)
        yield f"Forwarded: {name}", Case(INSIDE, lines_of, gate=forwarded)
    for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP", "X-Original-URL", "X-HTTP-Method-Override"):
        yield f"unasked: {name}", Case(INSIDE, ((name, "10.0.0.1"),))
    for peer in (None, "", "localhost", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.1:80"):
        yield f"peer {peer!r}", Case(INSIDE, peer=peer)
    yield "Proxy-Authorization", Case(authenticated, (("Proxy-Authorization", bearer),))
    yield "upper-case name", Case(authenticated, (("AUTHORIZATION", bearer),))


CASES: Final[Mapping[str, Case]] = {
    **{name: Case(case.requirement, case.headers) for name, case in REFUSALS.items()},
    **dict(more_refusals()),
    **dict(allowed()),
    **dict(paths()),
    **dict(cross_origin()),
    **dict(cross_site()),
    **dict(header_trouble()),
}
