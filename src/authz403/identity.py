"""Who: the credentials of a request, through the sources that a gate knows, to one principal or one reason why not.

Verified tokens are remembered, decisions never. A remembered token is believed for as long as its key is and no longer
than its `exp`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from threading import Lock
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

from authz403.bounded import remember
from authz403.credentials import LONGEST_CREDENTIAL, MISSING, Unusable, bare_token, bearer_token, subprotocol_token
from authz403.errors import Mistakes
from authz403.facts import Rejected
from authz403.jose import TokenRefused, read_token
from authz403.need import How, Need, is_async
from authz403.principal import Principal
from authz403.rbac import Rbac
from authz403.reasons import Reason
from authz403.request import WEBSOCKET, AccessRequest
from authz403.role_lookup import RoleLookup
from authz403.tokens import AUTHORIZATION, FIELD_NAME, SUBPROTOCOL, BearerTokens, Verified

__all__ = ["AccessRequest", "IdentitySource", "Rejected"]  # what a source of one's own is made with

Identity = Principal | Rejected

MOST_TOKENS: Final = 10_000
"""How many verified tokens a gate remembers, unless it is told otherwise."""

_PATIENCE: Final = 5.0  # seconds that an async source may take, and after which it makes sense to ask again


@runtime_checkable
class IdentitySource(Protocol):
    """Where identities come from besides bearer tokens: a session, an API key, a proxy's header.

    `fields` are the lower-case names of the header fields that it reads. `identify` returns the principal, a `Rejected`
    for a credential that is bad, or `None` where the request has no credential of this kind. `now` is in seconds. It
    may be async; a plain one must not block. Where an async one raises or takes longer than 5 s, the answer is 503
    `policy_unavailable`; where a plain one raises, 500 `policy_error`.

    Two attributes may be there besides, for an OpenAPI document. `reasons`: what its `Rejected` say; without it,
    `invalid_token`. `openapi_scheme`: its security scheme object; without it, an `apiKey` in the header that it reads.
    """

    @property
    def fields(self) -> Collection[str]:
        """The header fields that `identify` reads."""
        ...

    def identify(
        self, request: AccessRequest, now: float
    ) -> Identity | Need[Identity | None] | Awaitable[Identity | None] | None:
        """Return who is asking, as far as this source can tell."""
        ...


class Identifier:
    """Finds out who asks, for one gate."""

    def __init__(
        self,
        sources: Sequence[BearerTokens | IdentitySource],
        rbac: Rbac | None = None,
        *,
        most_tokens: int = MOST_TOKENS,
    ) -> None:
        self.bearers = tuple(source for source in sources if isinstance(source, BearerTokens))
        others = [source for source in sources if not isinstance(source, BearerTokens)]
        self._ask_others = tuple(_asking(source) for source in others)
        self._others_say = frozenset(reason for source in others for reason in _reasons_of(source))
        self._may_be_unreachable = any(is_async(source.identify) for source in others)
        # Which sources a token in which header may be of: in the order in which the headers are looked at.
        self._by_field = {
            field: tuple(source for source in self.bearers if field in source.read_from)
            for field in dict.fromkeys(field for source in self.bearers for field in source.read_from)
        }
        first = next(iter(self._by_field), None)
        self._first_field = AUTHORIZATION if first == AUTHORIZATION else ""
        self._rbac = rbac
        self._lookup = RoleLookup(rbac, rbac.roles_for) if rbac is not None and rbac.roles_for is not None else None
        self._most_tokens = most_tokens
        self._tokens: OrderedDict[bytes, Verified] = OrderedDict()
        self.asks_each_time = self._lookup is not None or any(source.is_revoked is not None for source in self.bearers)
        self._lock = Lock()
        self.fields: frozenset[str] = frozenset(self._by_field).union(*(source.fields for source in others))
        # What is said of a request without the one header that may name somebody.
        self.nobody = Rejected(MISSING.reason, MISSING.hint) if self.fields == {AUTHORIZATION} and not others else None
        self.realm = self.bearers[0].realm if self.bearers else None

    def reasons(self) -> frozenset[Reason]:
        """Return all that may be wrong with credentials here."""
        found = {Reason.MISSING_TOKEN, *self._others_say}
        if self.bearers:
            found |= {Reason.INVALID_TOKEN, Reason.TOKEN_EXPIRED, Reason.TOKEN_NOT_YET_VALID, Reason.WRONG_ISSUER}
            found |= {Reason.WRONG_AUDIENCE, Reason.WRONG_TOKEN_TYPE, Reason.INVALID_REQUEST}
        if any(source.is_revoked is not None for source in self.bearers):
            found.add(Reason.TOKEN_REVOKED)
        if any(source.fetches_keys for source in self.bearers):
            found.add(Reason.KEYS_UNAVAILABLE)
        if self._lookup is not None or self._may_be_unreachable:
            found.add(Reason.POLICY_UNAVAILABLE)
        return frozenset(found)

    def __bool__(self) -> bool:
        return bool(self.bearers or self._ask_others)

    def identify(self, request: AccessRequest, now: float) -> Identity | Need[Identity]:
        """Return who is asking, or why the caller cannot be identified. A token seen before costs one look-up."""
        lines = request.fields.get(self._first_field)
        if lines is not None and len(lines) == 1:
            found = self.recalled(lines[0].encode("utf-8", "surrogatepass"), now)
            if found is not None:
                return self._admitted(found, now) if self.asks_each_time else found.principal
        return self._identify(request, now)

    def recalled(self, line: bytes, now: float) -> Verified | None:
        """Return what was found of the token in a line of Authorization, if it was verified before and is still good.

        A token is looked up before it is read: in its usual spelling, the line is its entry.
        """
        if self._first_field and line[:7] == b"Bearer " and len(line) <= LONGEST_CREDENTIAL:
            found = self._tokens.get(sha256(line).digest())
            if found is not None and now < found.until and (found.key is None or self._still_holds(found, now)):
                return found
        return None

    def _identify(self, request: AccessRequest, now: float) -> Identity | Need[Identity]:
        """Read credentials that nobody has shown yet, from one source after the other."""
        unusable = MISSING
        for field in self._by_field:
            if field == SUBPROTOCOL and request.method != WEBSOCKET:
                continue
            named = self._by_token(field, request.fields.get(field, ()), now)
            if not isinstance(named, Unusable):
                return named
            if named is not MISSING:
                unusable = named
        if not self._ask_others:
            return Rejected(unusable.reason, unusable.hint)
        other = self._from_others(request, now, 0)
        if isinstance(other, Need):
            return other.then(lambda found: self._settle(found, unusable, now))
        return self._settle(other, unusable, now)

    def _by_token(self, field: str, lines: tuple[str, ...], now: float) -> Identity | Need[Identity] | Unusable:
        """Return the caller whom the token in a header names, or why that header holds none."""
        token = _token_in(field, lines)
        if isinstance(token, Unusable):
            return Rejected(token.reason, token.hint) if token.reason is Reason.INVALID_REQUEST else token
        entry = _entry(field, token)
        remembered = self._recalled(entry, now)
        if remembered is not None:
            return remembered
        verified = self._verify(field, token, now)
        if isinstance(verified, Need):
            return verified.then(lambda found: self._remember(field, entry, found, now))
        return self._remember(field, entry, verified, now)

    def _recalled(self, entry: bytes, now: float) -> Identity | Need[Identity] | None:
        """Return the caller of a token that was verified before, if it is still good."""
        found = self._tokens.get(entry)
        if found is not None and now < found.until and self._still_holds(found, now):
            return self._admitted(found, now)
        return None

    def _still_holds(self, found: Verified, now: float) -> bool:
        return found.key is None or found.source.keys.still_holds(found.key, now)

    def _admitted(self, found: Verified, now: float) -> Identity | Need[Identity]:
        """Return the caller of a good token, unless it was revoked since."""
        principal, is_revoked = found.principal, found.source.is_revoked
        # Whatever is not plainly "no" refuses.
        if is_revoked is not None and is_revoked(principal) is not False:
            return Rejected(Reason.TOKEN_REVOKED, "is_revoked says so", _log_facts(principal))
        return principal if self._lookup is None else self._lookup.applied(principal, now)

    def _settle(self, found: Identity | None, unusable: Unusable, now: float) -> Identity | Need[Identity]:
        if isinstance(found, Principal):
            if found.token_field is not None:
                found = replace(found, token_field=None)  # kept from another request, whose token this one has not
            return self._granted(found) if self._lookup is None else self._lookup.applied(found, now)
        return Rejected(unusable.reason, unusable.hint) if found is None else found

    def _granted(self, principal: Principal) -> Principal:
        """Apply hierarchy and grants, unless the roles are still to be looked up."""
        return principal if self._rbac is None or self._lookup is not None else self._rbac.applied(principal)

    def _from_others(self, request: AccessRequest, now: float, first: int) -> Identity | Need[Identity | None] | None:
        for index in range(first, len(self._ask_others)):
            found = self._ask_others[index](request, now)
            if isinstance(found, Need):
                return found.then(self._or_others(request, now, index + 1))
            if found is not None:
                return found
        return None

    def _or_others(
        self, request: AccessRequest, now: float, following: int
    ) -> Callable[[Identity | None], Identity | Need[Identity | None] | None]:
        return lambda found: self._from_others(request, now, following) if found is None else found

    def _verify(self, field: str, token: str, now: float) -> Verified | Rejected | Need[Verified | Rejected]:
        try:
            signed = read_token(token)
        except TokenRefused as error:
            return Rejected(Reason.INVALID_TOKEN, str(error))
        sources = self._by_field[field]
        for source in sources:
            # The issuer that a token names chooses whose keys must prove it.
            if len(sources) == 1 or source.issued(signed.claims):
                return source.verify(token, signed, now)
        issuer, audience = signed.claims.get("iss"), signed.claims.get("aud")
        ours = ", or ".join(f"iss {source.issuer!r} with aud {list(source.audience)!r}" for source in sources)
        hint = f"the token says iss {issuer!r} with aud {audience!r}, and this service accepts {ours}"
        return Rejected(Reason.INVALID_TOKEN, hint)

    def _remember(self, field: str, entry: bytes, found: Verified | Rejected, now: float) -> Identity | Need[Identity]:
        if isinstance(found, Rejected):
            return found
        object.__setattr__(found.principal, "token_field", field)  # it was made a moment ago, and nobody has seen it
        found = replace(found, principal=self._granted(found.principal))
        if self._most_tokens:
            with self._lock:
                remember(self._tokens, entry, found, most=self._most_tokens)
        return self._admitted(found, now)


def _reasons_of(source: IdentitySource) -> Collection[Reason]:
    found: Collection[Reason] = getattr(source, "reasons", (Reason.INVALID_TOKEN,))
    return found


Ask = Callable[[AccessRequest, float], Identity | Need[Identity | None] | None]


def _asking(source: IdentitySource) -> Ask:
    """Return what asks a source of the app's own, which may have to be awaited."""
    if not is_async(source.identify):
        return source.identify  # type: ignore[return-value]  # nothing to await, as it is not async

    def taken(answer: object) -> Identity | None:
        if isinstance(answer, Exception):
            hint = f"{type(source).__name__} raised {answer!r}"
            return Rejected(Reason.POLICY_UNAVAILABLE, hint, retry_after=_PATIENCE)
        if answer is None or isinstance(answer, Principal | Rejected):
            return answer
        raise TypeError(f"{type(source).__name__}.identify gave {type(answer).__name__}, not a Principal or a Rejected")

    return lambda request, now: Need(How.COROUTINE, lambda: source.identify(request, now), taken, within=_PATIENCE)


def _token_in(field: str, lines: tuple[str, ...]) -> str | Unusable:
    if field == AUTHORIZATION:
        return bearer_token(lines)
    return subprotocol_token(lines) if field == SUBPROTOCOL else bare_token(field, lines)


def _entry(field: str, token: str) -> bytes:
    """Return what a token in a header is remembered by: never the token itself."""
    text = f"Bearer {token}" if field == AUTHORIZATION else f"{field}: {token}"
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _log_facts(principal: Principal) -> Mapping[str, object]:
    """Return what the log says of a caller who is known and may not be let in."""
    return MappingProxyType(
        {
            "sub": principal.sub,
            "client_id": principal.client_id,
            "iss": principal.issuer,
            "token_id": principal.token_id,
            "token_expires": principal.expires_at,
        }
    )


def as_sources(mistakes: Mistakes, tokens: object) -> tuple[BearerTokens | IdentitySource, ...]:
    """Return the sources of `Gate(tokens=)`: none, one or a list; two of one issuer in one header are a mistake."""
    if tokens is None:
        return ()
    listed = tuple(tokens) if isinstance(tokens, list | tuple) else (tokens,)
    issuers: set[tuple[str, str]] = set()
    for index, source in enumerate(listed):
        if isinstance(source, BearerTokens):
            read = {(source.issuer, field) for field in source.read_from}
            if read & issuers:
                mistakes.add(f"tokens[{index}]", source.issuer, "another source has this issuer; join them in one")
            issuers |= read
        elif isinstance(source, type) or not isinstance(source, IdentitySource) or not callable(source.identify):
            mistakes.add(
                f"tokens[{index}]", source, "BearerTokens(...) or an object with fields and identify is needed"
            )
        else:
            _check_told(mistakes, f"tokens[{index}]", source)
    return listed


def _check_told(mistakes: Mistakes, field: str, source: IdentitySource) -> None:
    """Note what is wrong with that which a source of the app's own says of itself."""
    fields, reasons, scheme = source.fields, _reasons_of(source), getattr(source, "openapi_scheme", None)
    if (
        isinstance(fields, str)
        or not isinstance(fields, Collection)
        or not all(isinstance(name, str) and FIELD_NAME.fullmatch(name) is not None for name in fields)
    ):
        mistakes.add(f"{field}.fields", fields, "a set of lower-case header names is needed")
    if not isinstance(reasons, Collection) or not all(isinstance(reason, Reason) for reason in reasons):
        mistakes.add(f"{field}.reasons", reasons, "a set of Reason is needed")
    if scheme is not None and not (isinstance(scheme, Mapping) and isinstance(scheme.get("type"), str)):
        mistakes.add(f"{field}.openapi_scheme", scheme, "a security scheme object of OpenAPI, with a type, is needed")
