"""Requirements: what a policy asks for, and how they combine.

A requirement is met, unmet or unknown; only met allows. `&`, `|` and `~` keep unknown unknown, so nothing that could
not be found out ever opens anything.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, NamedTuple, TypeGuard

from authz403.errors import ConfigurationError, Mistakes
from authz403.network import Address, AddressSet
from authz403.principal import Principal
from authz403.reasons import Reason
from authz403.request import AccessRequest


class Rejected(NamedTuple):
    """Why credentials name nobody. `facts` and `hint` are for the log alone; `retry_after` is in seconds."""

    reason: Reason
    hint: str | None = None
    facts: Mapping[str, object] = MappingProxyType({})
    retry_after: float | None = None


class Facts(NamedTuple):
    """What requirements are held against; your own requirement gets it as its one argument.

    `principal` is the signed-in caller (a requirement that is called with `anonymous=True` may see `None`), `client_ip`
    the client's address or `None`, `path_params` the converted path parameters of the route, `now` the time in seconds
    since the epoch.
    """

    request: AccessRequest
    identity: Principal | Rejected | None = None
    address: Address | None = None
    path_params: Mapping[str, object] = MappingProxyType({})
    answers: Mapping[int, object] = MappingProxyType({})
    now: float = 0.0

    @property
    def principal(self) -> Principal:
        """The signed-in caller; a requirement is asked only where there is one, unless it said `anonymous=True`."""
        if isinstance(self.identity, Principal):
            return self.identity
        raise LookupError("nobody is signed in")

    @property
    def method(self) -> str:
        """The method as received; `WEBSOCKET` for a handshake."""
        return self.request.method

    @property
    def path(self) -> str:
        """The path as the app's router sees it."""
        return self.request.path

    @property
    def client_ip(self) -> str | None:
        """The client's address, or `None` where nobody trustworthy says it."""
        return None if self.address is None else str(self.address)


class Kind(IntEnum):
    """What a requirement is about, in the order in which failures are reported."""

    VERDICT = 0
    NETWORK = 1
    AUTHENTICATION = 2
    SCOPE = 3
    ROLE = 4
    PERMISSION = 5
    CLAIM = 6
    OWNERSHIP = 7
    OWN = 8


_LATEST_TIME: Final = 2.0**53  # seconds; beyond it, floating point no longer tells one second from the next
_INCURABLE: Final = 1_000  # things missing, for what no caller can cure


class Unmet(NamedTuple):
    """Why a requirement is not met.

    `waiting` says that it cannot be told yet: for the caller's identity (`True`) or for the answer of a requirement of
    the user's own. `sign_in` and `missing` count what the caller lacks, to find the alternative easiest to cure.
    """

    kind: Kind
    reason: Reason | str
    unknown: bool = False
    waiting: bool | Custom = False
    sign_in: int = 0
    missing: int = 1
    required_scopes: tuple[str, ...] = ()
    missing_scopes: tuple[str, ...] = ()
    required_roles: tuple[str, ...] = ()
    missing_roles: tuple[str, ...] = ()
    required_permissions: tuple[str, ...] = ()
    missing_permissions: tuple[str, ...] = ()
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None
    detail: str | None = None
    remedy: str | None = None
    hint: str | None = None
    error: Exception | None = None
    rejected: Rejected | None = None


WAITS_FOR_IDENTITY: Final = Unmet(Kind.AUTHENTICATION, Reason.MISSING_TOKEN, unknown=True, waiting=True)


class Requirement:
    """One thing, or a combination of things, that must hold for a request to pass. Made by `scopes(...)` and its kin.

    `a & b` needs both, `a | b` one of them, `~a` that `a` is known not to hold; `.concealed()` makes refusals look like
    the app's own 404.
    """

    kind: Kind = Kind.VERDICT
    needs_identity = False
    """Whether a token may have to be looked at."""
    tokenless = True
    """Whether some part can be judged without a token."""
    conceals = False

    def check(self, facts: Facts) -> Unmet | None:
        """Return `None` where the requirement is met, else why it is not."""
        raise NotImplementedError

    def ensures_identity(self, *, met: bool = True) -> bool:
        """Tell whether the caller is known wherever this is met (or, with `met=False`, is known to be unmet)."""
        del met
        return self.needs_identity

    def leaves(self) -> Iterable[Requirement]:
        """Return the requirements that this one is made of."""
        return (self,)

    def opposite(self) -> Requirement:
        """Return what is met where this one is known to be unmet, with `~` at single requirements alone."""
        return _Opposite(self)

    def concealed(self) -> Requirement:
        """Return the same requirement, whose refusals (but 400 and 5xx) are the app's own 404."""
        return _Concealed(self)

    def __and__(self, other: Requirement) -> Requirement:
        return all_of((self, other)) if isinstance(other, Requirement) else NotImplemented

    def __or__(self, other: Requirement) -> Requirement:
        return _Or((self, other)) if isinstance(other, Requirement) else NotImplemented

    def __invert__(self) -> Requirement:
        return _Not(self)

    def __bool__(self) -> bool:
        # `scopes("a") and roles("b")` would silently be roles("b") alone.
        raise TypeError("combine requirements with &, | and ~, not with and, or and not")


class _Verdict(Requirement):
    """`anyone`, `deny`, and what holds where nobody wrote a policy."""

    def __init__(self, words: str, unmet: Unmet | None) -> None:
        self._words = words
        self._unmet = unmet

    def check(self, facts: Facts) -> Unmet | None:
        del facts
        return self._unmet

    def __repr__(self) -> str:
        return self._words


class _NeedsIdentity(Requirement):
    """A requirement that only a signed-in caller can meet."""

    needs_identity = True
    tokenless = False

    def _nobody(self, identity: Rejected | None, *, missing: int = 0, scopes: tuple[str, ...] = ()) -> Unmet:
        if identity is None:
            return WAITS_FOR_IDENTITY
        return Unmet(
            Kind.AUTHENTICATION,
            identity.reason,
            unknown=True,
            sign_in=1,
            missing=missing,
            required_scopes=scopes,
            missing_scopes=scopes,
            hint=identity.hint,
            rejected=identity,
        )


class _Authenticated(_NeedsIdentity):
    kind = Kind.AUTHENTICATION

    def check(self, facts: Facts) -> Unmet | None:
        identity = facts.identity
        return None if isinstance(identity, Principal) else self._nobody(identity)

    def stepped_up(self, *, acr_values: Iterable[str] = (), max_age: int | None = None) -> Requirement:
        """Need a sign-in of one of these classes (`acr`) and at most `max_age` seconds old (RFC 9470)."""
        return _SteppedUp(acr_values, max_age)

    def __repr__(self) -> str:
        return "authenticated"


class _SteppedUp(_NeedsIdentity):
    kind = Kind.AUTHENTICATION

    def __init__(self, acr_values: Iterable[str], max_age: int | None) -> None:
        mistakes = Mistakes("authenticated.stepped_up")
        self._acr_values = mistakes.strings("acr_values", acr_values)
        self._max_age = max_age
        for index, value in enumerate(self._acr_values):
            if _SCOPE.fullmatch(value) is None:
                mistakes.add(f"acr_values[{index}]", value, "one word of visible ASCII, no quotes, is needed")
        if max_age is not None and (isinstance(max_age, bool) or not isinstance(max_age, int) or max_age < 0):
            mistakes.add("max_age", max_age, "seconds, 0 or more, are needed")
        if not self._acr_values and max_age is None and not mistakes:
            mistakes.add("acr_values", [], "name acr_values or max_age; otherwise write authenticated")
        mistakes.raise_if_any()

    def check(self, facts: Facts) -> Unmet | None:
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity)
        signed_in_at = identity.claims.get("auth_time")
        strong = not self._acr_values or identity.claims.get("acr") in self._acr_values
        recent = self._max_age is None or (is_time(signed_in_at) and signed_in_at >= facts.now - self._max_age)
        if strong and recent:
            return None
        return Unmet(
            Kind.AUTHENTICATION, Reason.STEP_UP_REQUIRED, acr_values=self._acr_values, max_age=self._max_age
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"authenticated.stepped_up(acr_values={list(self._acr_values)!r}, max_age={self._max_age!r})"


class _Optional(_NeedsIdentity):
    kind = Kind.AUTHENTICATION

    def check(self, facts: Facts) -> Unmet | None:
        identity = facts.identity
        if isinstance(identity, Principal) or (identity is not None and identity.reason is Reason.MISSING_TOKEN):
            return None
        return self._nobody(identity)

    def ensures_identity(self, *, met: bool = True) -> bool:
        del met
        return False

    def __repr__(self) -> str:
        return "optional"


class _Scopes(_NeedsIdentity):
    kind = Kind.SCOPE

    def __init__(self, names: tuple[str, ...], *, one_is_enough: bool) -> None:
        self.names = names
        self.one_is_enough = one_is_enough
        self._set = frozenset(names)
        # What is told of `any_scope`: it is an alternative of single scopes, and the first written stands for them.
        self.told = names[:1] if one_is_enough else names

    def check(self, facts: Facts) -> Unmet | None:
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=len(self.told), scopes=self.told)
        if self.one_is_enough:
            if not self._set.isdisjoint(identity.scopes):
                return None
            missing = self.told
        else:
            if self._set <= identity.scopes:
                return None
            missing = tuple(name for name in self.names if name not in identity.scopes)
        detail = _needs("one of the scopes" if self.one_is_enough else "the scope", self.names)
        return Unmet(
            Kind.SCOPE,
            Reason.INSUFFICIENT_SCOPE,
            missing=len(missing),
            required_scopes=self.told,
            missing_scopes=missing,
            detail=detail if self.one_is_enough and len(self.names) > 1 else None,
            hint=None if identity.scopes else "the token has no scope at all: did its issuer drop what was asked for?",
        )

    def __repr__(self) -> str:
        return f"{'any_scope' if self.one_is_enough else 'scopes'}({_words(self.names)})"


class _Roles(_NeedsIdentity):
    kind = Kind.ROLE

    def __init__(self, names: tuple[str, ...], *, one_is_enough: bool) -> None:
        self.names = names
        self.one_is_enough = one_is_enough
        self._set = frozenset(names)

    def check(self, facts: Facts) -> Unmet | None:
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=1 if self.one_is_enough else len(self.names))
        held = identity.roles
        if self._set.isdisjoint(held) if self.one_is_enough else not self._set <= held:
            missing = tuple(name for name in self.names if name not in held)
            return Unmet(
                Kind.ROLE,
                Reason.ROLE_REQUIRED,
                missing=1 if self.one_is_enough else len(missing),
                required_roles=self.names,
                missing_roles=missing,
                detail=_needs("one of the roles" if self.one_is_enough else "the role", self.names),
                hint=None if held else "the caller is signed in and has no role at all",
            )
        return None

    def __repr__(self) -> str:
        return f"{'any_role' if self.one_is_enough else 'roles'}({_words(self.names)})"


class _Permissions(_NeedsIdentity):
    kind = Kind.PERMISSION

    def __init__(self, names: tuple[str, ...], *, one_is_enough: bool) -> None:
        self.names = names
        self.one_is_enough = one_is_enough
        self._set = frozenset(names)

    def check(self, facts: Facts) -> Unmet | None:
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=1 if self.one_is_enough else len(self.names))
        held = identity.permissions
        if self._set.isdisjoint(held) if self.one_is_enough else not self._set <= held:
            missing = tuple(name for name in self.names if name not in held)
            return Unmet(
                Kind.PERMISSION,
                Reason.PERMISSION_REQUIRED,
                missing=1 if self.one_is_enough else len(missing),
                required_permissions=self.names,
                missing_permissions=missing,
                detail=_needs("one of the permissions" if self.one_is_enough else "the permission", self.names),
            )
        return None

    def __repr__(self) -> str:
        return f"{'any_permission' if self.one_is_enough else 'permissions'}({_words(self.names)})"


class _Networks(Requirement):
    kind = Kind.NETWORK

    def __init__(self, networks: AddressSet) -> None:
        self._networks = networks

    def check(self, facts: Facts) -> Unmet | None:
        address = facts.address
        if address is None:
            return Unmet(Kind.NETWORK, Reason.IP_NOT_ALLOWED, unknown=True, hint="the client's address is not known")
        return None if address in self._networks else Unmet(Kind.NETWORK, Reason.IP_NOT_ALLOWED)

    def __repr__(self) -> str:
        return f"networks({_words(self._networks.cidrs)})"


class ServiceNetworks(Requirement):
    """`Network(allow=, deny=)`: what every request of a gate is held against. Deny wins."""

    kind = Kind.NETWORK

    def __init__(self, allowed: AddressSet | None, denied: AddressSet) -> None:
        self._allowed = allowed
        self._denied = denied

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`. An unknown address fails `allow` and nothing else."""
        address = facts.address
        if address is None:
            if self._allowed is None:
                return None
            return Unmet(Kind.NETWORK, Reason.IP_NOT_ALLOWED, unknown=True, hint="the client's address is not known")
        if address in self._denied or (self._allowed is not None and address not in self._allowed):
            return Unmet(Kind.NETWORK, Reason.IP_NOT_ALLOWED)
        return None

    def __repr__(self) -> str:
        return "the networks of the service"


class _Claim(_NeedsIdentity):
    kind = Kind.CLAIM

    def __init__(self, name: str, values: tuple[object, ...], predicate: Callable[[object], bool] | None) -> None:
        self._name = name
        self._values = values
        self._predicate = predicate

    def check(self, facts: Facts) -> Unmet | None:
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=1)
        unmet = Unmet(Kind.CLAIM, Reason.CLAIM_REQUIRED)
        if self._name not in identity.claims:
            return unmet
        value = identity.claims[self._name]
        if self._predicate is not None:
            return _answered(self, self._predicate, value, unmet)
        held = value if isinstance(value, tuple) else (value,)
        if any(_same(one, wanted) for one in held for wanted in self._values):
            return None
        return unmet

    def __repr__(self) -> str:
        wanted = [repr(value) for value in self._values] or [getattr(self._predicate, "__qualname__", "predicate")]
        return f"claim({self._name!r}, {', '.join(wanted)})"


class Param(_NeedsIdentity):
    """`param(name, claim=...)`: the path parameter of the route equals the caller's claim."""

    kind = Kind.OWNERSHIP

    def __init__(self, name: str, claim: str) -> None:
        self.name = name
        self._claim = claim

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=1)
        if self.name not in facts.path_params:
            return Unmet(Kind.OWNERSHIP, Reason.NOT_OWNER, unknown=True)
        if self._claim in identity.claims:
            given, owned = facts.path_params[self.name], identity.claims[self._claim]
            # What the converter made of the path is compared, as text where the claim is text: UUID(...), 5.
            if _same(given, owned) or (isinstance(owned, str) and str(given) == owned):
                return None
        return Unmet(Kind.OWNERSHIP, Reason.NOT_OWNER)

    def __repr__(self) -> str:
        return f"param({self.name!r}, claim={self._claim!r})"


Test = Callable[[Facts], bool] | Callable[[Facts], Awaitable[bool]]


class Custom(Requirement):
    """A requirement of the user's own: a function of the `Facts`, with its own code and remedy."""

    kind = Kind.OWN

    def __init__(self, code: str, test: Test, remedy: str, *, anonymous: bool) -> None:
        self._code = code
        self.test = test
        self._remedy = remedy
        self.needs_identity = not anonymous
        self.tokenless = anonymous
        self._is_async = is_async(test)

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        if self.needs_identity and not isinstance(facts.identity, Principal):
            if facts.identity is None:
                return WAITS_FOR_IDENTITY
            return authenticated.check(facts)
        unmet = Unmet(Kind.OWN, self._code, remedy=self._remedy)
        if id(self) in facts.answers:
            answer = facts.answers[id(self)]
            return _judged(self, answer, unmet)
        if self._is_async:
            return unmet._replace(unknown=True, waiting=self)
        return _answered(self, self.test, facts, unmet)

    def __repr__(self) -> str:
        return f"requirement({self._code!r})"


class _All(Requirement):
    """`a & b`: flattened, the parts in the order in which failures are reported."""

    def __init__(self, parts: tuple[Requirement, ...]) -> None:
        self.parts = tuple(sorted(parts, key=lambda part: part.kind))
        self.written = parts
        self.kind = self.parts[0].kind
        self.needs_identity = any(part.needs_identity for part in parts)
        self.tokenless = any(part.tokenless for part in parts)
        self.conceals = any(part.conceals for part in parts)
        self._scopes = _union(*(part.told for part in parts if isinstance(part, _Scopes)))

    def check(self, facts: Facts) -> Unmet | None:
        unmet: Unmet | None = None
        for part in self.parts:
            if unmet is not None and part.kind is Kind.OWN and isinstance(part, Custom):
                continue  # the user's own code is asked last, and not about a request that is refused anyway
            found = part.check(facts)
            if found is not None:
                unmet = found if unmet is None else _both(unmet, found)
        if unmet is not None and unmet.kind in _TELLS_SCOPES and self._scopes:
            return unmet._replace(required_scopes=_union(self._scopes, unmet.required_scopes))
        return unmet

    def ensures_identity(self, *, met: bool = True) -> bool:
        known = (part.ensures_identity(met=met) for part in self.parts)
        return any(known) if met else all(known)

    def leaves(self) -> Iterable[Requirement]:
        return (leaf for part in self.written for leaf in part.leaves())

    def opposite(self) -> Requirement:
        return _Or(part.opposite() for part in self.parts)

    def __repr__(self) -> str:
        return " & ".join(f"({part!r})" if isinstance(part, _Or) else repr(part) for part in self.written)


class _Or(Requirement):
    """`a | b`: what needs no token is tried first; the alternative that is easiest to cure is the one reported."""

    def __init__(self, parts: Iterable[Requirement]) -> None:
        flat: list[Requirement] = []
        for part in parts:
            flat.extend(part.parts if isinstance(part, _Or) else (part,))
        self.parts: tuple[Requirement, ...] = tuple(flat)
        self._tried = tuple(sorted(enumerate(flat), key=lambda numbered: numbered[1].needs_identity))
        self.kind = min(part.kind for part in flat)
        self.needs_identity = any(part.needs_identity for part in flat)
        self.tokenless = any(part.tokenless for part in flat)
        self.conceals = any(part.conceals for part in flat)

    def check(self, facts: Facts) -> Unmet | None:
        found: list[tuple[int, Unmet]] = []
        for order, part in self._tried:
            unmet = part.check(facts)
            if unmet is None:
                return None
            found.append((order, unmet))
        for _, unmet in found:
            if unmet.waiting is not False:
                return unmet
        _, easiest = min(found, key=lambda numbered: (numbered[1].sign_in + numbered[1].missing, numbered[0]))
        error = next((unmet.error for _, unmet in found if unmet.error is not None), None)
        return easiest._replace(unknown=any(unmet.unknown for _, unmet in found), error=error)

    def ensures_identity(self, *, met: bool = True) -> bool:
        known = (part.ensures_identity(met=met) for part in self.parts)
        return all(known) if met else any(known)

    def leaves(self) -> Iterable[Requirement]:
        return (leaf for part in self.parts for leaf in part.leaves())

    def opposite(self) -> Requirement:
        return all_of(part.opposite() for part in self.parts)

    def __repr__(self) -> str:
        return " | ".join(repr(part) for part in self.parts)


class _Not(Requirement):
    def __init__(self, inner: Requirement) -> None:
        self._inner = inner
        self.kind = inner.kind
        self.needs_identity = inner.needs_identity
        self.tokenless = inner.tokenless
        self.conceals = inner.conceals
        # By De Morgan: judged so, neither `&` nor `|` has to tell unmet from unknown, and both may stop early.
        self._judged = inner.opposite()

    def check(self, facts: Facts) -> Unmet | None:
        return self._judged.check(facts)

    def opposite(self) -> Requirement:
        return self._inner

    def ensures_identity(self, *, met: bool = True) -> bool:
        return self._inner.ensures_identity(met=not met)

    def leaves(self) -> Iterable[Requirement]:
        return self._inner.leaves()

    def __repr__(self) -> str:
        return f"~({self._inner!r})" if isinstance(self._inner, _All | _Or) else f"~{self._inner!r}"


class _Opposite(Requirement):
    """`~a` of a single requirement."""

    def __init__(self, inner: Requirement) -> None:
        self._inner = inner
        self.kind = inner.kind
        self.needs_identity = inner.needs_identity
        self.tokenless = inner.tokenless

    def check(self, facts: Facts) -> Unmet | None:
        unmet = self._inner.check(facts)
        if unmet is None:
            return Unmet(self.kind, Reason.ACCESS_DENIED, missing=_INCURABLE)
        # A scope that the caller must not have is none to ask for.
        return unmet._replace(required_scopes=(), missing_scopes=()) if unmet.unknown else None


class _Concealed(Requirement):
    conceals = True

    def __init__(self, inner: Requirement) -> None:
        self.inner = inner
        self.kind = inner.kind
        self.needs_identity = inner.needs_identity
        self.tokenless = inner.tokenless

    def check(self, facts: Facts) -> Unmet | None:
        return self.inner.check(facts)

    def ensures_identity(self, *, met: bool = True) -> bool:
        return self.inner.ensures_identity(met=met)

    def leaves(self) -> Iterable[Requirement]:
        return self.inner.leaves()

    def opposite(self) -> Requirement:
        return self.inner.opposite().concealed()

    def __repr__(self) -> str:
        return f"({self.inner!r}).concealed()"


_TELLS_SCOPES: Final = frozenset({Kind.AUTHENTICATION, Kind.SCOPE})


def _both(one: Unmet, other: Unmet) -> Unmet:
    """Return what is told where two parts of an `&` are not met: the earlier kind, with all that is missing of it."""
    told, untold = (one, other) if one.kind <= other.kind else (other, one)
    together = told._replace(
        unknown=one.unknown and other.unknown,
        sign_in=max(one.sign_in, other.sign_in),
        missing=one.missing + other.missing,
        error=told.error or untold.error,
    )
    if told.kind in _TELLS_SCOPES and untold.kind in _TELLS_SCOPES:
        together = together._replace(
            required_scopes=_union(told.required_scopes, untold.required_scopes),
            missing_scopes=_union(told.missing_scopes, untold.missing_scopes),
            detail=None,
        )
    if told.kind is untold.kind is Kind.ROLE:
        together = together._replace(
            required_roles=_union(told.required_roles, untold.required_roles),
            missing_roles=_union(told.missing_roles, untold.missing_roles),
            detail=None,
        )
    if told.kind is untold.kind is Kind.PERMISSION:
        together = together._replace(
            required_permissions=_union(told.required_permissions, untold.required_permissions),
            missing_permissions=_union(told.missing_permissions, untold.missing_permissions),
            detail=None,
        )
    return together


def _union(*names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def is_time(value: object) -> TypeGuard[float]:
    """Tell whether a claim is a NumericDate (RFC 7519 section 2) that can be meant: seconds since the epoch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST_TIME


def is_async(function: object) -> bool:
    """Tell whether calling this gives an awaitable: an async function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _same(one: object, other: object) -> bool:
    # In Python True == 1 == 1.0; in a policy they are three things.
    return type(one) is type(other) and one == other


def _answered(
    asked: Requirement, test: Callable[[object], object] | Test, argument: object, unmet: Unmet
) -> Unmet | None:
    try:
        answer: object = test(argument)  # type: ignore[arg-type]  # a predicate takes a claim's value, a test the facts
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything, and it denies
        answer = error
    return _judged(asked, answer, unmet)


def _judged(asked: Requirement, answer: object, unmet: Unmet) -> Unmet | None:
    if answer is True:
        return None
    if answer is False:
        return unmet
    if not isinstance(answer, Exception):
        if inspect.iscoroutine(answer):
            answer.close()
        answer = TypeError(f"{asked!r} answered {type(answer).__name__} where True or False is needed")
    return Unmet(unmet.kind, Reason.POLICY_ERROR, unknown=True, error=answer)


def _needs(what: str, names: tuple[str, ...]) -> str:
    plural = "s" if len(names) > 1 and not what.startswith("one of") else ""
    if len(names) == 1 and what.startswith("one of the "):
        what = "the " + what.removeprefix("one of the ").removesuffix("s")
    return f"This operation needs {what}{plural} {', '.join(names)}."


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)


def all_of(requirements: Iterable[Requirement]) -> Requirement:
    """Return one requirement that holds where all of them do; what allows everybody adds nothing."""
    flat: list[Requirement] = []
    conceals = False
    for found in requirements:
        conceals = conceals or found.conceals
        bare = found.inner if isinstance(found, _Concealed) else found
        for part in bare.written if isinstance(bare, _All) else (bare,):
            if part is not anyone and part not in flat:
                flat.append(part)
    both = anyone if not flat else flat[0] if len(flat) == 1 else _All(tuple(flat))
    return both.concealed() if conceals and not both.conceals else both


def in_two(requirement: Requirement) -> tuple[Requirement, Requirement]:
    """Split a requirement into what is told first and needs no token, and the rest."""
    bare = requirement.inner if isinstance(requirement, _Concealed) else requirement
    parts = bare.parts if isinstance(bare, _All) else (bare,)
    first = [part for part in parts if not part.needs_identity and part.kind in {Kind.VERDICT, Kind.NETWORK}]
    return all_of(first), all_of(part for part in parts if part not in first)


# RFC 6750 section 3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_OWN_CODE: Final = re.compile(r"[a-z][a-z0-9_]{2,}")


def _names(part: str, names: tuple[object, ...], shape: re.Pattern[str] | None = None) -> tuple[str, ...]:
    mistakes = Mistakes(part)
    strings = mistakes.strings("names", names)
    if not names:
        mistakes.add("names", [], "an empty requirement would let everybody in; write anyone if that is meant")
    for index, name in enumerate(strings):
        if not name or name != name.strip():
            mistakes.add(f"names[{index}]", name, "empty, or with white space around it")
        elif shape is not None and shape.fullmatch(name) is None:
            mistakes.add(f"names[{index}]", name, "a scope is visible ASCII without spaces, quotes and backslashes")
    mistakes.raise_if_any()
    return tuple(dict.fromkeys(strings))


def scopes(*names: str) -> Requirement:
    """Need all of these OAuth scopes, each matched exactly (RFC 6749 section 3.3)."""
    return _Scopes(_names("scopes", names, _SCOPE), one_is_enough=False)


def any_scope(*names: str) -> Requirement:
    """Need one of these OAuth scopes."""
    return _Scopes(_names("any_scope", names, _SCOPE), one_is_enough=True)


def roles(*names: str) -> Requirement:
    """Need all of these roles, from the token or from `Rbac`."""
    return _Roles(_names("roles", names), one_is_enough=False)


def any_role(*names: str) -> Requirement:
    """Need one of these roles."""
    return _Roles(_names("any_role", names), one_is_enough=True)


def permissions(*names: str) -> Requirement:
    """Need all of these permissions, from the token's `permissions` or granted to a role by `Rbac`."""
    return _Permissions(_names("permissions", names), one_is_enough=False)


def any_permission(*names: str) -> Requirement:
    """Need one of these permissions."""
    return _Permissions(_names("any_permission", names), one_is_enough=True)


def networks(*cidrs: str) -> Requirement:
    """Need a client address inside one of these networks, such as `"10.0.0.0/8"`; an unknown address is inside none."""
    _names("networks", cidrs)
    return _Networks(AddressSet(cidrs))


def claim(name: str, *values: object) -> Requirement:
    """Need the token's claim to be one of `values` (a list claim: to hold one), or to satisfy a predicate.

    Values are compared with their type: `claim("level", 1)` is not met by `true` or `"1"`.
    """
    mistakes = Mistakes("claim")
    if not isinstance(name, str) or not name:
        mistakes.add("name", name, "the name of a claim is needed")
    predicates = [value for value in values if callable(value)]
    if not values:
        mistakes.add("values", [], "say which value is needed, or give a predicate")
    elif predicates and len(values) > 1:
        mistakes.add("values", list(values), "values, or one predicate, but not both")
    mistakes.raise_if_any()
    return _Claim(name, () if predicates else values, predicates[0] if predicates else None)


def param(name: str, *, claim: str) -> Requirement:
    """Need the route's path parameter `name`, as converted, to equal the caller's claim; else `not_owner`."""
    mistakes = Mistakes("param")
    for field, value in (("name", name), ("claim", claim)):
        if not isinstance(value, str) or not value:
            mistakes.add(field, value, "a name is needed")
    mistakes.raise_if_any()
    return Param(name, claim)


def requirement(code: str, test: Test, *, remedy: str | None = None, anonymous: bool = False) -> Requirement:
    """Make a requirement of your own: `test(facts)`, sync or async, answers `True` or `False`.

    `code` is a `Reason` with status 403 or a code of your own (`[a-z][a-z0-9_]{2,}`); `remedy` is what the caller can
    do. The test is asked about signed-in callers only, unless `anonymous=True`. Anything but `True` denies; an
    exception or another value is a 500 `policy_error`.
    """
    mistakes = Mistakes("requirement")
    found = _own_code(mistakes, "code", code)
    if isinstance(found, Reason) and found.status != 403:  # noqa: PLR2004 - a refusal of a known caller
        mistakes.add("code", code, f"this code belongs to answers with status {found.status}")
    if not callable(test):
        mistakes.add("test", test, "a function of the facts is needed")
    if remedy is not None and (not isinstance(remedy, str) or _OWN_CODE.fullmatch(remedy) is None):
        mistakes.add("remedy", remedy, "a code such as contact_owner is needed")
    mistakes.raise_if_any()
    cure = remedy or (found.remedy if isinstance(found, Reason) else "contact_owner")
    return Custom(found, test, cure, anonymous=anonymous)


def own_code_or_reason(part: str, code: object) -> Reason | str:
    """Return a published reason, or a code of the user's own where it has the right shape."""
    mistakes = Mistakes(part)
    found = _own_code(mistakes, "reason", code)
    mistakes.raise_if_any()
    return found


def _own_code(mistakes: Mistakes, field: str, code: object) -> Reason | str:
    if not isinstance(code, str) or _OWN_CODE.fullmatch(code) is None:
        mistakes.add(field, code, "lower-case letters, digits and _, three or more, starting with a letter, are needed")
        return ""
    return Reason.__members__.get(code.upper(), code)


authenticated: Final = _Authenticated()
"""Needs a signed-in caller, whoever it is. `authenticated.stepped_up(...)` needs a strong or recent sign-in."""

optional: Final[Requirement] = _Optional()
"""Lets a request without a token pass, and refuses one with a bad token."""

anyone: Final[Requirement] = _Verdict("anyone", None)
"""Lets everybody pass and looks at no token."""

deny: Final[Requirement] = _Verdict("deny", Unmet(Kind.VERDICT, Reason.ACCESS_DENIED, missing=_INCURABLE))
"""Lets nobody pass."""

no_policy: Final[Requirement] = _Verdict("no policy", Unmet(Kind.VERDICT, Reason.NO_POLICY, missing=_INCURABLE))
"""What holds where nobody wrote a policy and the default is `deny`."""


def as_requirement(part: str, field: str, value: object) -> Requirement:
    """Return `value` where it is a requirement; anything else is a `ConfigurationError`."""
    if isinstance(value, Requirement):
        return value
    mistakes = Mistakes(part)
    mistakes.add(field, value, "a requirement is needed, such as scopes(...) or anyone")
    mistakes.raise_if_any()
    raise ConfigurationError(part, ())
