"""What hurts behind a proxy, found by looking at requests as they go by, and told once a cause.

A finding is told with what it rests on, as only the operator can judge it. Nothing is ever decided by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Final

from authz403.addresses import Address, AddressSet, parse_address, parse_node
from authz403.cidr import span_of
from authz403.decision import Outcome
from authz403.facts import Facts
from authz403.hints import PROXY_FIELDS, STRIPPED
from authz403.leaves import Networks
from authz403.network import UNIX, UNIX_PEERS, Network
from authz403.policy import Requirement
from authz403.reasons import Reason
from authz403.request import AccessRequest

FIRST: Final = 1_000
"""So many requests of a process are all looked at, and after that one in every `PAUSE`."""
PAUSE: Final = 0.1  # seconds
MANY: Final = 50  # refusals that make a pattern
RUN: Final = 100  # requests in a row of one address
CALLERS: Final = 20  # who are too many for one address
WINDOW: Final = 200  # requests that a share is taken of
_FURTHER: Final = 5  # addresses behind one, that show it for a proxy
_MOST_WATCHED: Final = 50  # networks(...)
_MOST_COMPARED: Final = 1_000  # of one list of networks

PRIVATE: Final = AddressSet(
    [
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10"),
        *("::1", "fc00::/7", "fe80::/10"),
    ]
)
"""Where proxies connect from and the internet's clients do not: RFC 1918, 6598, 3927, 4193 and 4291."""

_AUTHORIZATION: Final = "authorization"
_WALKED: Final = ("x-forwarded-for", "forwarded")
_REWRITTEN: Final = (
    "the server has already put a forwarded address in the place of the peer, so that trusted_proxies are not seen; "
    "let it leave the peer alone (uvicorn: --no-proxy-headers)"
)
_REWRITTEN_PEER: Final = (
    "the server has put a forwarded address in the place of the peer, so that networks rest on how the server reads "
    "that header; let it leave the peer alone (uvicorn: --no-proxy-headers), and name the proxy in trusted_proxies"
)


Span = tuple[int, int, int]
"""A network: its IP version, its first address and the one behind its last."""


class Findings:
    """What was seen of the requests of one gate. Its memory is bounded, and threads may share it.

    A request is worth a look where it `started` after `due`, in seconds of `time.perf_counter`.
    """

    def __init__(self, network: Network, tell: Callable[[str, str], None], *, reads_authorization: bool) -> None:
        """`tell` writes a cause and a hint, each pair once."""
        self.due = 0.0
        self.authorization_came = False
        """Whether an Authorization header has come by way of a proxy."""
        self._network = network
        self._tell = tell
        self._reads_authorization = reads_authorization
        self._lock = Lock()
        self._looks = 0
        self._needs_addresses = bool(network.fields or network.allowed or network.denied)
        # Only a walk over proxies passes all of them by.
        walks = network.source in _WALKED and network.hops is None
        self._proxies = tuple(span_of(cidr) for cidr in network.trusted_proxies if cidr != UNIX) if walks else ()
        self._told: set[str] = set()
        self._watched: dict[int, Networks] = {}  # which keeps their ids theirs
        self._unmatched: tuple[Networks, ...] = ()
        # Of all addresses: the only one, whether there is another, and whether any is private.
        self._only: Address | None = None
        self._vary = self._private = False
        self._refused = self._nameless = 0
        # The run of callers at one address, and who stands further left in their headers.
        self._one: Address | None = None
        self._run = 0
        self._callers: set[tuple[str | None, str]] = set()
        self._further: set[Address] = set()
        # The window that a share is taken of.
        self._in_window = self._with_header = 0
        self._stranger: str | None = None

    def watch(self, requirements: Iterable[Requirement]) -> None:
        """Learn which networks the policies ask for, and tell at once in which of them no client can be."""
        never: list[str] = []
        for leaf in (leaf for requirement in requirements for leaf in requirement.leaves()):
            if isinstance(leaf, Networks) and id(leaf) not in self._watched and len(self._watched) < _MOST_WATCHED:
                self._watched[id(leaf)] = leaf
                self._needs_addresses = True
                if _are_within(leaf.cidrs, self._proxies):
                    never.append(repr(leaf))
                else:
                    self._unmatched += (leaf,)
        for name, networks in (("allow", self._network.allowed), ("deny", self._network.denied)):
            if _are_within(networks.cidrs, self._proxies):
                never.append(f"Network({name}=) with {networks!r}")
        if never:
            why = "all of it is in trusted_proxies, and a trusted proxy is never taken for the client"
            self._tell("networks_never_match", f"{', '.join(never)} can never match: {why}")

    def look(self, outcome: Outcome) -> None:
        """Look at one request that was decided; where another thread looks at one, it is let go."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._looks += 1
            if self._looks >= FIRST:
                self.due = outcome.started + PAUSE
            request = outcome.request
            trusted = self._network.trusts_peer(request.peer)
            if request.peer_rewritten:
                self._peer_was_rewritten()
            else:
                self._at_proxies(request, trusted=trusted)
            self._at_authorization(outcome, trusted=trusted)
            self._at_addresses(outcome, trusted=trusted)
            if outcome.principal is not None and outcome.address is not None and self._needs_addresses:
                self._at_callers(request, outcome.address, outcome.principal.key)
        finally:
            self._lock.release()

    def _peer_was_rewritten(self) -> None:
        if self._network.fields:
            self._tell("peer_rewritten", _REWRITTEN)
        elif self._needs_addresses:
            self._tell("peer_rewritten", _REWRITTEN_PEER)

    def _at_proxies(self, request: AccessRequest, *, trusted: bool) -> None:
        """Find a proxy that nobody trusts: at once where its address is private, else by how many come through one."""
        header = next((name for name in _WALKED if request.fields.get(name)), None)
        if header is not None and not trusted:
            self._with_header += 1
            self._stranger = request.peer
            if _is_inside(request.peer):
                self._tell_of_proxy(f"{header} came from {request.peer or UNIX}")
        self._in_window += 1
        if self._in_window == WINDOW:
            if self._with_header >= WINDOW // 2:
                self._tell_of_proxy(
                    f"forwarding headers came with {self._with_header} of {WINDOW} requests, from {self._stranger} and "
                    "others"
                )
            self._in_window = self._with_header = 0

    def _tell_of_proxy(self, seen: str) -> None:
        self._tell_once(
            "proxy_not_trusted",
            f"{seen}, which is not in trusted_proxies, and was not read: if that is a proxy of yours, networks and the "
            "log see its address instead of the client's until Network(trusted_proxies=) names it",
        )

    def _at_authorization(self, outcome: Outcome, *, trusted: bool) -> None:
        fields = outcome.request.fields
        if self.authorization_came or not self._reads_authorization:
            return
        if not trusted and not any(fields.get(name) for name in PROXY_FIELDS):
            return
        if _AUTHORIZATION in fields:
            self.authorization_came = True
        elif outcome.decision.reason is Reason.MISSING_TOKEN:
            self._nameless += 1
            if self._nameless == MANY:
                self._tell_once(
                    "authorization_stripped",
                    f"{STRIPPED} (so far {MANY} requests that needed one came through it, and no request had one)",
                )

    def _at_addresses(self, outcome: Outcome, *, trusted: bool) -> None:
        """Find networks that no client is ever in, whoever comes."""
        address = outcome.address
        if address is None:
            if not trusted:
                return
        elif address != self._only:
            if self._unmatched:
                facts = Facts(outcome.request, address=address)
                self._unmatched = tuple(leaf for leaf in self._unmatched if leaf.check(facts) is not None)
            self._vary = self._only is not None
            self._only = address
            self._private = self._private or address in PRIVATE
        if outcome.decision.reason is Reason.IP_NOT_ALLOWED:
            self._refused += 1
            if self._refused >= MANY and self._unmatched:
                self._tell_of_unmatched()

    def _tell_of_unmatched(self) -> None:
        leaves = self._unmatched
        if self._only is None:
            why = f"the trusted proxy has sent no usable {self._network.source} so far"
        elif not self._vary:
            if self._only not in PRIVATE:
                return  # a stranger who comes again and again
            why = f"all came from {self._only}; if that is a proxy of yours, name it in Network(trusted_proxies=)"
        else:
            leaves = () if self._private else tuple(leaf for leaf in leaves if _are_within(leaf.cidrs, _PRIVATE))
            why = "all came from public addresses, as those do who come through a public edge"
        if leaves:
            names = ", ".join(map(repr, leaves))
            self._tell_once("networks_never_match", f"{names} has matched no request so far: {why}")

    def _at_callers(self, request: AccessRequest, address: Address, caller: tuple[str | None, str]) -> None:
        """Find one address behind which there are many callers."""
        if address != self._one:
            self._one, self._run = address, 0
            self._callers.clear()
            self._further.clear()
        self._run += 1
        if len(self._callers) < CALLERS:
            self._callers.add(caller)
        if len(self._further) < _FURTHER:
            lines = request.fields.get(self._network.source or "", ())
            leftmost = parse_node(lines[0].partition(",")[0].strip().removeprefix("for=").strip('"')) if lines else None
            if leftmost is not None:
                self._further.add(leftmost)
        if self._run < RUN or len(self._callers) < CALLERS:
            return
        # A whole office may stand behind one public address; a proxy there shows by whom it speaks for.
        if address in PRIVATE or len(self._further) >= _FURTHER:
            self._tell_once(
                "one_address",
                f"{RUN} requests in a row, of {CALLERS} callers or more, came from {address}: if that is a proxy of "
                "yours, trusted_proxies or hops must reach beyond it, and it must send the client's address; if it is "
                "a service that calls for its users, all is well",
            )

    def _tell_once(self, cause: str, hint: str) -> None:
        if cause not in self._told:
            self._told.add(cause)
            self._tell(cause, hint)


def _is_inside(peer: str | None) -> bool:
    """Tell whether a peer is one that the internet's clients cannot be: a private address, or a unix socket."""
    address = None if peer is None else parse_address(peer)
    return peer in UNIX_PEERS if address is None else address in PRIVATE


def _are_within(cidrs: Sequence[str], others: Sequence[Span]) -> bool:
    """Tell whether every one of these networks is inside one of the others."""
    if not cidrs or not others or len(cidrs) > _MOST_COMPARED:
        return False
    return all(any(_is_within(span_of(cidr), other) for other in others) for cidr in cidrs)


def _is_within(one: Span, other: Span) -> bool:
    version, first, beyond = one
    return version == other[0] and first >= other[1] and beyond <= other[2]


_PRIVATE: Final = tuple(map(span_of, PRIVATE.cidrs))
