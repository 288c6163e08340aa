"""What the fixture `authz` is: tokens and clients for apps under test, which trust them for as long as a test runs."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from authz403.claims import ClaimPath
from authz403.errors import ConfigurationError, Mistake, Mistakes
from authz403.gate import Gate
from authz403.guarded import Guarded
from authz403.identity import Identifier
from authz403.keys import KeySource
from authz403.need import is_async
from authz403.principal import Principal
from authz403.rbac import Rbac
from authz403.testing.callers import (
    AUDIENCE,
    ISSUER,
    SUB,
    Caller,
    can_write,
    claims_of,
    names_in,
    principal_for,
    source_of,
)
from authz403.testing.clients import Client, Sent, client_of, origin_fields, sent_from, token_fields
from authz403.testing.decisions import remembering
from authz403.testing.seam import acting, identified_by, now_of, served
from authz403.testing.signing import PREFERRED, TestKeys, public_pem, sign
from authz403.tokens import BearerTokens

if TYPE_CHECKING:
    from authz403.testing.cases import BoundaryCase

_PREFERRED_ALGORITHM: Final = PREFERRED[0]


class Authz:
    """Tokens and clients for tests; as a pytest fixture `authz`, elsewhere by `with Authz() as authz: ...`.

    Until it ends, the gates of the apps that it was given (by `use`, `client`, `token(app=...)` or `check`) take tokens
    signed here, with keys of this process, in the place of those of their issuers: nothing is fetched. Their policies
    hold as ever, and so do `audience`, `algorithms`, `typ`, `is_revoked` and the claims of each `BearerTokens`.
    """

    issuer: Final = ISSUER
    """The issuer of tokens that are for no app in particular."""

    audience: Final = AUDIENCE
    """Their audience."""

    def __init__(self) -> None:
        self._entered = ExitStack()
        self._used: dict[Gate, Guarded] = {}
        self._given: set[str] = set()
        self._latest: Gate | None = None

    def __enter__(self) -> Self:
        self._entered.enter_context(remembering())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()
        for token_id in self._given:
            del _ROLES[token_id]
        self._given.clear()
        self._used.clear()
        self._latest = None

    @property
    def tokens(self) -> BearerTokens:
        """A `BearerTokens` that takes tokens of here, for a gate that a test makes: `Gate(tokens=authz.tokens)`."""
        return BearerTokens(issuer=self.issuer, audience=self.audience, key=public_pem())

    def use(self, app: object) -> None:
        """Let the gate of an app take tokens of here until the test ends; `client` and `check` do so by themselves."""
        self._use(app)

    def token(
        self,
        *,
        app: object = None,
        sub: str = SUB,
        scopes: str | Collection[str] = (),
        roles: str | Collection[str] | None = None,
        permissions: str | Collection[str] = (),
        claims: Mapping[str, object] | None = None,
        expired: bool = False,
        not_yet_valid: bool = False,
        audience: str | None = None,
        issuer: str | None = None,
        key: str | None = None,
        algorithm: str | None = None,
    ) -> str:
        """Return a token for the gate of `app`, or of the app that was used last; else for a gate with `tokens`.

        Scopes, roles, permissions and the rest stand in the claims where that gate's `BearerTokens` reads them; of
        several, `issuer` chooses. `claims` adds claims and replaces others. Where the gate looks roles up, those given
        here count, and no look-up is made. An `audience` or `issuer` that the gate does not know, `key="other"`, an
        `algorithm` that it does not take, `expired` and `not_yet_valid` make a token that is refused.
        """
        caller = Caller(
            sub=sub,
            scopes=names_in("scopes", scopes),
            roles=None if roles is None else names_in("roles", roles),
            permissions=names_in("permissions", permissions),
            claims=claims or {},
            expired=expired,
            not_yet_valid=not_yet_valid,
            audience=audience,
            issuer=issuer,
            other_key=_is_other(key),
            algorithm=algorithm,
        )
        gate = self._latest if app is None else self._use(app).gate
        return self.token_of(caller, gate)

    def token_of(self, caller: Caller, gate: Gate | None) -> str:
        """Return the token of a caller for a gate; raises `ConfigurationError` where the gate takes none."""
        source = self.tokens if gate is None else source_of(gate.sources, caller.issuer)
        if source is None:
            _no_tokens("the token")
        mistakes = Mistakes("the token")
        for what in ("scopes", "roles", "permissions"):
            if getattr(caller, what) and not can_write(what, source, None if gate is None else gate.rbac):
                why = "tokens of this provider do not hold them; say claims= in BearerTokens where they do"
                mistakes.add(what, getattr(caller, what), why)
        mistakes.raise_if_any()
        said = claims_of(caller, source, time.time() if gate is None else now_of(gate))
        token_id = _at(said, source.names.token_id[0])
        if caller.roles is not None and isinstance(token_id, str):
            self._given.add(token_id)
            _ROLES[token_id] = caller.roles
        return sign(said, caller.algorithm or _algorithm_of(source), other_key=caller.other_key)

    def client(
        self,
        app: object,
        *,
        sub: str | None = None,
        scopes: str | Collection[str] | None = None,
        roles: str | Collection[str] | None = None,
        permissions: str | Collection[str] | None = None,
        claims: Mapping[str, object] | None = None,
        token: str | None = None,
        address: str | None = None,
        origin: str | None = None,
    ) -> Any:
        """Return a test client of the app's own kind, whose requests come from this caller and address.

        That is Starlette's `TestClient` for ASGI (lifespan in a `with` alone), Flask's or Django's own, and
        `httpx2.Client` for any other WSGI app. Nobody is signed in unless one of `sub`, `scopes`, `roles`,
        `permissions`, `claims` or `token` is given. By a gate without `BearerTokens` the caller is known without a
        credential, as by `acting_as`. The client's `address` goes into the header that the gate's `Network` reads from
        its trusted proxies, or is the peer; `origin` is the page that makes the requests.
        """
        found = self._use(app)
        names = (scopes, roles, permissions)
        caller: Caller | None = None
        if token is None and (sub is not None or claims is not None or any(one is not None for one in names)):
            caller = Caller(
                sub=sub or SUB,
                scopes=names_in("scopes", scopes),
                roles=None if roles is None else names_in("roles", roles),
                permissions=names_in("permissions", permissions),
                claims=claims or {},
            )
        fields = origin_fields(origin)
        return self.client_for(found, caller, fields, address, token=token).native

    def client_for(
        self,
        found: Guarded,
        caller: Caller | None,
        fields: Mapping[str, str],
        address: str | None,
        *,
        token: str | None = None,
        websocket: bool = False,
        raises: bool = True,
    ) -> Client:
        """Return a client of a caller, with more header fields."""
        gate = found.gate
        source = source_of(gate.sources, None if caller is None else caller.issuer)
        if caller is not None and source is not None:
            token = self.token_of(caller, gate)
        if token is not None:
            if source is None:
                _no_tokens("the client")
            fields = {**fields, **token_fields(source, token, websocket=websocket)}
        sent = sent_from(gate.network, address)
        sent = Sent({**fields, **sent.headers}, sent.peer)
        if caller is None or source is not None:
            return client_of(found, sent, raises=raises)
        principal = principal_for(caller, None, gate.rbac, now_of(gate))
        return client_of(found, sent, partial(acting, gate, principal), raises=raises)

    def check(self, case: BoundaryCase) -> None:
        """Make the request of a case of `boundary_cases`, and hold what becomes of it to what must."""
        __tracebackhide__ = True
        case.run(self)

    def _use(self, app: object) -> Guarded:
        found = served(app)
        gate = found.gate
        if gate not in self._used:
            self._entered.enter_context(identified_by(gate, _identifier(gate)))
            self._used[gate] = found
        self._latest = gate
        return found


def _identifier(gate: Gate) -> Identifier:
    """Return what finds out for a gate who asks: as its own, but by the keys of here."""
    sources = [_with_own_keys(source) if isinstance(source, BearerTokens) else source for source in gate.sources]
    rbac = gate.rbac
    return Identifier(sources, rbac if rbac is None else _knowing(rbac), most_tokens=0)


_ROLES: Final[dict[str, tuple[str, ...]]] = {}
"""The roles that tokens were given, by their ids: where a gate looks roles up, these count."""


def _knowing(rbac: Rbac) -> Rbac:
    """Return the same roles, where those of a token of here need no look-up."""
    look_up: Any = rbac.roles_for
    if look_up is None:
        return rbac

    def roles_for(principal: Principal) -> Collection[str]:
        known = _ROLES.get(principal.token_id or "")
        return look_up(principal) if known is None else known

    async def roles_for_by_loop(principal: Principal) -> Collection[str]:
        known = _ROLES.get(principal.token_id or "")
        return await look_up(principal) if known is None else known

    return replace(rbac, roles_for=roles_for_by_loop if is_async(look_up) else roles_for, roles_ttl=0)


def _with_own_keys(source: BearerTokens) -> BearerTokens:
    # A copy: the source itself, which other gates may have, is not touched, and what takes the place of its keys is
    # never looked at again once the test has ended.
    found = copy.copy(source)
    keys: KeySource = TestKeys()
    object.__setattr__(found, "keys", keys)
    return found


def _algorithm_of(source: BearerTokens) -> str:
    allowed = (_PREFERRED_ALGORITHM,) if source.algorithms is None else tuple(source.algorithms)
    return next(algorithm for algorithm in PREFERRED if algorithm in allowed)


def _no_tokens(part: str) -> NoReturn:
    mistake = Mistake("app", "", "its gate has no BearerTokens; use authz.client(app, sub=...) or acting_as")
    raise ConfigurationError(part, [mistake])


def _is_other(key: str | None) -> bool:
    if key not in (None, "other"):
        why = '"other" signs with another key than the gate knows; leave it out otherwise'
        raise ConfigurationError("the token", [Mistake("key", "", why)])
    return key is not None


def _at(claims: Mapping[str, object], path: ClaimPath) -> object:
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
