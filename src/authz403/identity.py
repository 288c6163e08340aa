"""Who: the credentials of a request, through the sources that a gate knows, to one principal or one reason why not.

Verified tokens are remembered, decisions never. A remembered token is believed for as long as its key is and no longer
than its `exp`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from threading import Lock
from typing import Final, NamedTuple, Protocol, runtime_checkable

from authz403.credentials import LONGEST_AUTHORIZATION, MISSING, Unusable, bearer_token
from authz403.errors import Mistakes
from authz403.jose import TokenRefused, VerificationKey, read_token
from authz403.need import How, Need
from authz403.policy import Rejected
from authz403.principal import Principal
from authz403.rbac import Rbac
from authz403.reasons import Reason
from authz403.request import AccessRequest
from authz403.tokens import BearerTokens, Verified

Identity = Principal | Rejected

MOST_TOKENS: Final = 10_000
"""How many verified tokens a gate remembers."""

_MOST_CALLERS: Final = 10_000  # of whom `roles_for` was asked
_RETRY_ROLES: Final = 5.0  # seconds
AUTHORIZATION: Final = "authorization"


@runtime_checkable
class IdentitySource(Protocol):
    """Where identities come from besides bearer tokens: a session, an API key, a proxy's header.

    `fields` are the lower-case names of the header fields that it reads. `identify` returns the principal, a `Rejected`
    for a credential that is bad, or `None` where the request has no credential of this kind. `now` is in seconds.
    """

    @property
    def fields(self) -> Collection[str]:
        """The header fields that `identify` reads."""
        ...

    def identify(self, request: AccessRequest, now: float) -> Identity | Need[Identity | None] | None:
        """Return who is asking, as far as this source can tell."""
        ...


class _Remembered(NamedTuple):
    principal: Principal
    expires_at: float
    source: BearerTokens
    key: VerificationKey


class Identifier:
    """Finds out who asks, for one gate."""

    def __init__(self, sources: Sequence[BearerTokens | IdentitySource], rbac: Rbac | None) -> None:
        self.bearers = tuple(source for source in sources if isinstance(source, BearerTokens))
        self._others = tuple(source for source in sources if not isinstance(source, BearerTokens))
        self._rbac = rbac
        self._roles_for = None if rbac is None else rbac.roles_for
        self._tokens: dict[bytes, _Remembered] = {}
        self._roles: dict[tuple[str, str, bool], tuple[float, frozenset[str]]] = {}
        self._lock = Lock()
        fields = {AUTHORIZATION} if self.bearers else set[str]()
        self.fields: frozenset[str] = frozenset(fields.union(*(source.fields for source in self._others)))
        self.realm = self.bearers[0].realm if self.bearers else None

    def __bool__(self) -> bool:
        return bool(self.bearers or self._others)

    def identify(self, request: AccessRequest, now: float) -> Identity | Need[Identity]:
        """Return who is asking, or why the caller cannot be identified. A token seen before costs one look-up."""
        lines = request.fields.get(AUTHORIZATION, ())
        line = lines[0] if len(lines) == 1 and self.bearers else ""
        if line.startswith("Bearer ") and len(line) <= LONGEST_AUTHORIZATION:
            # Only in its usual spelling is a token looked up before it is read: one token, one entry.
            remembered = self._tokens.get(_digest(line))
            if remembered is not None:
                principal, expires_at, source, key = remembered
                if now - source.leeway < expires_at and source.keys.still_holds(key, now):
                    return principal if self._roles_for is None else self._with_roles(principal, now)
        token = bearer_token(lines) if self.bearers else MISSING
        if isinstance(token, str):
            digest = _digest(f"Bearer {token}")
            verified = self._verify(token, now)
            if isinstance(verified, Need):
                return verified.then(lambda found: self._remember(digest, found, now))
            return self._remember(digest, verified, now)
        if token.reason is Reason.INVALID_REQUEST or not self._others:
            return Rejected(token.reason, token.hint)
        other = self._from_others(request, now, 0)
        if isinstance(other, Need):
            return other.then(lambda found: self._settle(found, token, now))
        return self._settle(other, token, now)

    def _settle(self, found: Identity | None, unusable: Unusable, now: float) -> Identity | Need[Identity]:
        if isinstance(found, Principal):
            return self._with_roles(self._granted(found), now)
        return Rejected(unusable.reason, unusable.hint) if found is None else found

    def _granted(self, principal: Principal) -> Principal:
        """Apply hierarchy and grants, unless the roles are still to be asked for."""
        return principal if self._rbac is None or self._roles_for is not None else self._rbac.applied(principal)

    def _from_others(self, request: AccessRequest, now: float, first: int) -> Identity | Need[Identity | None] | None:
        for index in range(first, len(self._others)):
            found = self._others[index].identify(request, now)
            if isinstance(found, Need):
                return found.then(self._or_others(request, now, index + 1))
            if found is not None:
                return found
        return None

    def _or_others(
        self, request: AccessRequest, now: float, following: int
    ) -> Callable[[Identity | None], Identity | Need[Identity | None] | None]:
        return lambda found: self._from_others(request, now, following) if found is None else found

    def _verify(self, token: str, now: float) -> _Remembered | Rejected | Need[_Remembered | Rejected]:
        try:
            signed = read_token(token)
        except TokenRefused as error:
            return Rejected(Reason.INVALID_TOKEN, str(error))
        for source in self.bearers:
            # The issuer that a token names chooses whose keys must prove it.
            if len(self.bearers) == 1 or source.issued(signed.claims):
                verified = source.verify(token, signed, now)
                keep = _remembering(source)
                return verified.then(keep) if isinstance(verified, Need) else keep(verified)
        known = [source.issuer for source in self.bearers]
        issuer = signed.claims.get("iss")
        return Rejected(Reason.INVALID_TOKEN, f"the token says iss {issuer!r} and this service accepts {known!r}")

    def _remember(self, digest: bytes, found: _Remembered | Rejected, now: float) -> Identity | Need[Identity]:
        if isinstance(found, Rejected):
            return found
        found = found._replace(principal=self._granted(found.principal))
        with self._lock:
            self._tokens.pop(digest, None)
            while len(self._tokens) >= MOST_TOKENS:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[digest] = found
        return self._with_roles(found.principal, now)

    def _with_roles(self, principal: Principal, now: float) -> Identity | Need[Identity]:
        """Ask `roles_for`, where there is one, unless the answer is known."""
        if self._roles_for is None or self._rbac is None:
            return principal
        rbac, ask = self._rbac, self._roles_for
        known = self._roles.get(_caller(principal))
        if known is not None and now < known[0]:
            return rbac.applied(principal, known[1])
        how = How.COROUTINE if rbac.asks_asynchronously else How.BLOCKING
        return Need(how, lambda: ask(principal), lambda answer: self._take_roles(rbac, principal, answer, now))

    def _take_roles(self, rbac: Rbac, principal: Principal, answer: object, now: float) -> Identity:
        if isinstance(answer, Exception):
            wrong = f"raised {answer!r}"
        elif isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Collection):
            wrong = f"answered {type(answer).__name__}, not a list of roles"
        else:
            if all(isinstance(role, str) for role in answer):
                roles = frozenset(answer)
                with self._lock:
                    self._roles.pop(_caller(principal), None)
                    while len(self._roles) >= _MOST_CALLERS:
                        del self._roles[next(iter(self._roles))]
                    self._roles[_caller(principal)] = (now + rbac.roles_ttl, roles)
                return rbac.applied(principal, roles)
            wrong = "answered with something else than strings"
        return Rejected(Reason.POLICY_UNAVAILABLE, f"roles_for {wrong}", retry_after=_RETRY_ROLES)


def _digest(line: str) -> bytes:
    return hashlib.sha256(line.encode("utf-8", "surrogatepass")).digest()


def _caller(principal: Principal) -> tuple[str, str, bool]:
    # RFC 9068 section 5: a client that is named like a user is not that user.
    return (*principal.key, "sub" in principal.claims)


def _remembering(source: BearerTokens) -> Callable[[Verified | Rejected], _Remembered | Rejected]:
    def keep(found: Verified | Rejected) -> _Remembered | Rejected:
        return (
            found
            if isinstance(found, Rejected)
            else _Remembered(found.principal, found.principal.expires_at or 0.0, source, found.key)
        )

    return keep


def as_sources(mistakes: Mistakes, tokens: object) -> tuple[BearerTokens | IdentitySource, ...]:
    """Return the sources of `Gate(tokens=)`: none, one or a list; two for one issuer are a mistake."""
    if tokens is None:
        return ()
    listed = tuple(tokens) if isinstance(tokens, list | tuple) else (tokens,)
    issuers: list[str] = []
    for index, source in enumerate(listed):
        if isinstance(source, BearerTokens):
            if source.issuer in issuers:
                mistakes.add(f"tokens[{index}]", source.issuer, "another source has this issuer; join them in one")
            issuers.append(source.issuer)
        elif isinstance(source, type) or not isinstance(source, IdentitySource):
            mistakes.add(
                f"tokens[{index}]", source, "BearerTokens(...) or an object with fields and identify is needed"
            )
        elif isinstance(source.fields, str) or not all(
            isinstance(name, str) and name == name.lower() and name.isascii() for name in source.fields
        ):
            mistakes.add(f"tokens[{index}].fields", source.fields, "a set of lower-case header names is needed")
    return listed
