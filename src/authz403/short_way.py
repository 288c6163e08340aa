"""The short way through a gate: what nearly every request needs, looked up.

It says only what the long way, `Gate.decide`, would say. It keeps what was found out about an endpoint, about whoever
comes from one peer with one header line, and about whoever holds the same names; a request that needs no more is judged
by what is kept. All else goes the long way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final

from starlette.types import Scope

from authz403.asgi_io import facts_of
from authz403.authorizer import authorize
from authz403.cors import ORIGIN, Cors, Headers
from authz403.decision import Decision, Outcome
from authz403.endpoint import Policy
from authz403.facts import Facts, Rejected
from authz403.gate import Gate
from authz403.marks import WRITTEN
from authz403.network import Network
from authz403.paths import is_usual
from authz403.policy import anyone
from authz403.principal import Principal
from authz403.request import AccessRequest
from authz403.routing import Trail, Way, Written
from authz403.tokens import AUTHORIZATION
from authz403.walk import AppRoutes, Walk

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
"""OPTIONS may be a preflight, and what clients invent is for the long way too."""
_MOST_SENDERS: Final = 16_384  # of all policies together
_MOST_CALLERS: Final = 4_096  # the same
_MOST_NAMES: Final = 64  # that a caller holds who is worth to be remembered
_ORIGIN: Final = ORIGIN.encode("ascii")
_AUTHORIZATION: Final = AUTHORIZATION.encode("ascii")

Standing = tuple[Policy, str]
"""What a request must meet, and the label of the route that takes it."""

Lane = tuple[Walk, Written, Standing | None]
"""What holds for one method at a path that is written out, by which walk, and the way there; `None` is the long way."""

Sender = tuple[int, str | None, bytes | None]
"""The id of a policy, and where a request comes from: its peer, and the header line with the client's address."""

Caller = tuple[int | frozenset[str], ...]
"""The id of a policy, and who asks: the scopes, roles and permissions that are held; of nobody, none."""


class AskedRoutes:
    """Routes that were asked about a request already: they say it again, for the long way.

    `standing` is what they lead to, where the short way could go on from there; `started` is when they were asked.
    """

    __slots__ = ("_found", "_routes", "standing", "started", "usual")

    def __init__(self, found: Way, routes: AppRoutes, path: str, *, standing: Standing | None, started: float) -> None:
        self._found = found
        self._routes = routes
        self.usual = frozenset((path,))
        self.standing = standing
        self.started = started

    def find(self, native: tuple[Scope, Trail, str]) -> Way:
        """See `Routes`."""
        del native
        return self._found

    def header_lines(self, native: tuple[Scope, Trail, str], names: frozenset[str]) -> Mapping[str, tuple[str, ...]]:
        """See `Routes`."""
        return self._routes.header_lines(native, names)


class ShortWay:
    """Judges requests to one app by one gate, where that takes nothing but looking up.

    What is known of a policy is kept by its id, with the policy itself, so that no other gets that id.
    """

    __slots__ = ("_admitted", "_answers", "_gate", "_judged", "_lanes", "_routes", "_source", "_walk", "_wanted")

    def __init__(self, gate: Gate, routes: AppRoutes, wanted: Mapping[bytes, str]) -> None:
        self._gate = gate
        self._routes = routes
        self._walk = routes.walk
        self._wanted = wanted
        self._answers = {} if gate.cors is None else gate.cors.by_line
        self._source = b"" if gate.network.is_peer else str(gate.network.source).encode("ascii")
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._admitted: dict[Sender, Policy] = {}
        self._judged: dict[Caller, tuple[Policy, Decision]] = {}

    @staticmethod
    def suits(gate: Gate) -> bool:
        """Tell whether a gate says tomorrow what it says today: nothing in it asks each time, or is somebody's own."""
        ours = (type(gate) is Gate, type(gate.network) is Network, type(gate.cors) in (Cors, type(None)))
        return all(ours) and not gate.identifier.asks_each_time

    def outcome(self, scope: Scope, trail: Trail) -> Outcome | AskedRoutes | None:  # noqa: C901, PLR0912, PLR0915 - in one frame
        """Return what becomes of an HTTP request, and note in `trail` what it runs.

        Where that takes more, return what the routes said, with the trail, or `None` where they have to be asked.
        """
        started = perf_counter()
        method, path, lines = scope["method"], scope["path"], scope["headers"]
        if method not in _METHODS or scope.get("root_path"):
            return None
        try:
            gate, routes = self._gate, self._routes
            asked: AskedRoutes | None = None
            standing: Standing | None = None
            lane = self._lanes.get((path, method))
            if lane is not None:
                walk, written, standing = lane
                if standing is None:
                    return None
                table = walk.top
                # Whether the routes are as they were: what `AppRoutes.find` and `Table.find` ask, without the calls. A
                # router's default is none of a route's business.
                if (
                    walk is not routes.walk
                    or walk.watch.has_changed
                    or routes.is_doubted
                    or walk.written != WRITTEN.count
                    or table.router.routes is not table.routes
                    or (written.holder is not None and written.holder.app is not written.app)
                    or (table.included and table.included_changed())
                ):
                    standing = None
                for holder, name, held in routes.hops:
                    if getattr(holder, name, None) is not held:
                        standing = None
                if standing is not None:
                    trail += written.trail
            if standing is None:
                asked = self._asked(scope, path, method, trail, started)
                if asked is None or asked.standing is None:
                    return asked
                standing = asked.standing
            policy, label = standing
            count = len(lines)
            sent: dict[bytes, bytes] = dict(lines)
            client = scope.get("client")
            if isinstance(client, list):
                client = tuple(client)  # a list is the server's own, and may be another when it is read
            if len(sent) != count or not (client is None or isinstance(client, tuple)):
                return asked  # a header came in several lines, or something is not as ASGI has it
            headers: Headers = ()
            if gate.cors is not None:
                origin = sent.get(_ORIGIN)
                known = None if origin is None else self._answers.get(origin)
                headers = gate.cors.answer_headers(_lines(origin)) if known is None else known
            outcome = Outcome(
                partial(_read, method, path, client, sent.items(), self._wanted),
                started,
                headers,
                gate.report_only,
                gate.network,
            )
            outcome.route = label
            outcome.demanded = policy.demanded
            if policy.requirement is anyone:
                outcome.decision = policy.allowed
                return outcome
            if policy.before:
                # Whoever came from this peer with this header came from the same address.
                sender = (id(policy), client[0] if client else None, sent.get(self._source))
                if sender not in self._admitted and not self._admits(sender, policy, outcome):
                    return asked
            line = sent.get(_AUTHORIZATION)
            identity: Principal | Rejected
            caller: Caller
            if line is None:
                nobody = gate.identifier.nobody
                if nobody is None:
                    return asked  # there may be another credential
                identity, caller = nobody, (id(policy),)
            else:
                verified = gate.identifier.recalled(line, gate.clock())
                if verified is None:
                    return asked
                outcome.principal = identity = verified.principal
                caller = (id(policy), identity.scopes, identity.roles, identity.permissions)
            judged = self._judged.get(caller)
            decision = judged[1] if judged is not None else self._decided(caller, policy, identity, outcome)
            if decision is None or not decision.allowed:
                return asked if decision is None else gate.finished(outcome, decision)
            outcome.decision = decision
        except Exception:  # noqa: BLE001 - the long way starts anew, and tells of what crashes there too
            return None
        return outcome

    def _asked(self, scope: Scope, path: str, method: str, trail: Trail, started: float) -> AskedRoutes | None:
        """Ask the routes what a request leads to, and remember what is written out."""
        routes, walk = self._routes, self._routes.walk
        if walk is not self._walk:
            self._walk = walk
            for known in (self._lanes, self._admitted, self._judged):
                known.clear()  # of routes that may be gone
        if walk.root_path or not (path in routes.usual or is_usual(path)):
            return None  # the router sees another path, or it has to be looked at
        way = routes.find((scope, trail, path))
        if routes.walk is not walk:
            return None  # somebody walked anew: what was found may be of either walk
        endpoint = way[0].endpoint
        policy = self._gate.rules.policy_for(way[0], path, method)
        standing = (policy, endpoint.route) if policy.is_looked_up and endpoint is not None else None
        written = walk.top.written.get((path, method))
        if written is not None:
            self._lanes[path, method] = walk, written, standing
        return AskedRoutes(way, routes, path, standing=standing, started=started)

    def _decided(
        self, caller: Caller, policy: Policy, identity: Principal | Rejected, outcome: Outcome
    ) -> Decision | None:
        """Decide by a policy that looks at nothing but names, and remember it by these."""
        decision = authorize(policy, Facts(outcome.request, identity, outcome.address))
        if not isinstance(decision, Decision):
            return None
        if sum(len(names) for names in caller if isinstance(names, frozenset)) <= _MOST_NAMES:
            if len(self._judged) >= _MOST_CALLERS:
                self._judged.clear()
            self._judged[caller] = policy, decision
        return decision

    def _admits(self, sender: Sender, policy: Policy, outcome: Outcome) -> bool:
        """Tell whether networks let in who comes from there, and remember that they do."""
        address = outcome.address
        if not all(is_met(None, address) for is_met in policy.before):
            return False
        _, peer, line = sender
        if self._gate.network.is_usual_way(peer, len(line or b"")):
            if len(self._admitted) >= _MOST_SENDERS:
                self._admitted.clear()
            self._admitted[sender] = policy
        return True


def _read(
    method: str,
    path: str,
    client: Sequence[Any] | None,
    headers: Iterable[tuple[bytes, bytes]],
    wanted: Mapping[bytes, str],
) -> AccessRequest:
    """Return the facts of a request that was judged without them; what no server of ASGI sends is left out."""
    try:
        return facts_of(method, path, client, headers, wanted)
    except Exception:  # noqa: BLE001 - it is for the log, and the answer must not fail for that
        return AccessRequest(method, path)


def _lines(value: bytes | None) -> tuple[str, ...] | None:
    return None if value is None else (value.decode("latin-1"),)
