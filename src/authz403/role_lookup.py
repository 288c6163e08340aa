"""Roles that the token does not know: asked for, remembered for a while, and never guessed when they cannot be had."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from threading import Lock
from typing import Final

from authz403.bounded import remember
from authz403.facts import Rejected
from authz403.need import How, Need
from authz403.principal import Principal
from authz403.rbac import Rbac, RolesFor
from authz403.reasons import Reason

_MOST_CALLERS: Final = 10_000  # whose roles are remembered
_RETRY_AFTER: Final = 5.0  # seconds


class RoleLookup:
    """Asks `Rbac(roles_for=)`, and remembers the answers, for one gate."""

    def __init__(self, rbac: Rbac, ask: RolesFor) -> None:
        self._rbac = rbac
        self._ask = ask
        self._known: OrderedDict[tuple[str, str, bool], tuple[float, frozenset[str]]] = OrderedDict()
        self._lock = Lock()

    def applied(self, principal: Principal, now: float) -> Principal | Rejected | Need[Principal | Rejected]:
        """Return the principal with the roles that were looked up in the place of those of its token."""
        known = self._known.get(_caller(principal))
        if known is not None and known[0] - self._rbac.roles_ttl <= now < known[0]:  # clocks are set back, too
            return self._rbac.applied(principal, known[1])
        return Need(
            How.COROUTINE if self._rbac.asks_asynchronously else How.BLOCKING,
            lambda: self._ask(principal),
            lambda answer: self._taken(principal, answer, now),
            within=self._rbac.roles_timeout,
        )

    def _taken(self, principal: Principal, answer: object, now: float) -> Principal | Rejected:
        if isinstance(answer, TimeoutError):
            wrong = f"raised TimeoutError, or took longer than {self._rbac.roles_timeout:g} s"
        elif isinstance(answer, Exception):
            wrong = f"raised {answer!r}"
        elif isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Collection):
            wrong = f"answered {type(answer).__name__}, not a list of roles"
        elif not all(isinstance(role, str) for role in answer):
            wrong = "answered with something else than strings"
        else:
            roles = frozenset(answer)
            until = now + self._rbac.roles_ttl
            with self._lock:
                known = self._known.get(_caller(principal))
                if known is None or known[0] <= until:  # else this look-up took so long that a later one was quicker
                    remember(self._known, _caller(principal), (until, roles), most=_MOST_CALLERS)
            return self._rbac.applied(principal, roles)
        return Rejected(Reason.POLICY_UNAVAILABLE, f"roles_for {wrong}", retry_after=_RETRY_AFTER)


def _caller(principal: Principal) -> tuple[str, str, bool]:
    # RFC 9068 section 5: a client that is named like a user is not that user.
    return (*principal.key, bool(principal.claims.get("sub")))
