"""Requirements and how they combine: the algebra of policies.

A requirement is met, unmet or unknown; only met allows. `&`, `|` and `~` keep unknown unknown, so that nothing that
could not be found out ever opens anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final, Literal, NamedTuple

from authz403.addresses import Address
from authz403.errors import ConfigurationError, Mistakes
from authz403.facts import Facts, Rejected
from authz403.forms import AND, CONCEALED, NOT, OR, Form, combined
from authz403.principal import Principal
from authz403.reasons import Reason


class Kind(IntEnum):
    """What a requirement is about, in the order in which failures are reported."""

    VERDICT = 0
    NETWORK = 1
    CROSS_SITE = 2
    AUTHENTICATION = 3
    SCOPE = 4
    ROLE = 5
    PERMISSION = 6
    CLAIM = 7
    OWNERSHIP = 8
    OWN = 9


_INCURABLE: Final = 1_000  # things missing, for what no caller can cure


class Unmet(NamedTuple):
    """Why a requirement is not met.

    `waiting` says that it cannot be told yet: for the caller's identity (`True`) or for the answer of a requirement of
    the user's own. `sign_in` and `missing` count what the caller lacks, to find the alternative easiest to cure.
    """

    kind: Kind
    reason: Reason | str
    unknown: bool = False
    waiting: bool | Requirement = False
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


IsMet = Callable[[Principal | None, Address | None], bool]
"""Tells in one set operation that something is met; where it does not, `Requirement.check` has to be asked."""

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
    told_scopes: tuple[str, ...] = ()
    """The scopes that a caller has to ask for, where this stands in an `&`."""
    is_fixed = False
    """Whether it says the same of an address for ever, and looks at nothing else."""
    asks_names = False
    """Whether it says the same of everybody who holds the same names, and looks at nothing else."""
    is_own = False
    """Whether it runs code of the user's own, which is asked last."""
    fields: frozenset[str] = frozenset()
    """The header fields that this one requirement looks at: in a request that it judges, those not sent are empty."""
    refusals: tuple[Reason | str, ...] = ()
    """What this one requirement refuses with, apart from bad or missing credentials."""
    unknowns: tuple[Reason | str, ...] = ()
    """Those of the refusals that say that it cannot be told; `~` leaves them as they are."""
    joined: Literal["", "all", "any"] = ""
    """How what it is made of combines: all of it must be met, or any."""
    tried: tuple[Requirement, ...] = ()
    """What it is made of, in the order in which it is asked."""

    def check(self, facts: Facts) -> Unmet | None:
        """Return `None` where the requirement is met, else why it is not."""
        raise NotImplementedError

    def at_once(self) -> tuple[IsMet, ...] | None:
        """Return what tells at once that this is met, all of it together; `None` where only `check` can tell."""
        return None

    def ensures_identity(self, *, met: bool = True) -> bool:
        """Tell whether the caller is known wherever this is met (or, with `met=False`, is known to be unmet)."""
        del met
        return self.needs_identity

    def leaves(self) -> Iterable[Requirement]:
        """Return the requirements that this one is made of."""
        return (self,)

    def bad_credentials(self, credentials: frozenset[Reason]) -> frozenset[Reason]:
        """Return those of the reasons why a caller is not known that this one requirement refuses with."""
        return credentials if self.needs_identity else frozenset()

    def reasons(self, credentials: frozenset[Reason]) -> frozenset[Reason | str]:
        """Return all that a refusal may say; `credentials` are the reasons why a caller is not known."""
        return frozenset(self.refusals) | self.bad_credentials(credentials)

    def alternatives(self, most: int) -> tuple[tuple[Requirement, ...], ...]:
        """Return the ways to meet this one, each with all that it needs; no more of them than `most`."""
        del most
        return ((self,),)

    def opposite(self) -> Requirement:
        """Return what is met where this one is known to be unmet, with `~` at single requirements alone."""
        return _Opposite(self)

    def replaced(self, by: Callable[[Requirement], Requirement]) -> Requirement:
        """Return the requirement with another in the place of each single one that it is made of."""
        return by(self)

    def form(self) -> Form:
        """Return the requirement as a value, which can be compared with another and written down."""
        return Form("own", (f"{type(self).__module__}.{type(self).__qualname__}",))

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

    is_fixed = asks_names = True

    def __init__(self, words: str, unmet: Unmet | None) -> None:
        self._words = words
        self._unmet = unmet
        self.refusals = () if unmet is None else (unmet.reason,)

    def check(self, facts: Facts) -> Unmet | None:
        del facts
        return self._unmet

    def at_once(self) -> tuple[IsMet, ...] | None:
        return () if self._unmet is None else None

    def alternatives(self, most: int) -> tuple[tuple[Requirement, ...], ...]:
        del most
        return ((self,),) if self._unmet is None else ()

    def form(self) -> Form:
        return Form(self._words.replace(" ", "_"))

    def __repr__(self) -> str:
        return self._words


class _All(Requirement):
    """`a & b`: flattened, the parts in the order in which failures are reported."""

    def __init__(self, parts: tuple[Requirement, ...]) -> None:
        self.parts = tuple(sorted(parts, key=lambda part: part.kind))
        self.written = parts
        self.kind = self.parts[0].kind
        self.needs_identity = any(part.needs_identity for part in parts)
        self.tokenless = any(part.tokenless for part in parts)
        self.conceals = any(part.conceals for part in parts)
        self.is_fixed = all(part.is_fixed for part in parts)
        self.asks_names = all(part.asks_names for part in parts)
        self._scopes = _union(*(part.told_scopes for part in parts))
        self.joined, self.tried = "all", self.parts

    def check(self, facts: Facts) -> Unmet | None:
        unmet: Unmet | None = None
        for part in self.parts:
            if unmet is not None and part.is_own:
                continue  # not asked about a request that is refused anyway
            found = part.check(facts)
            if found is not None:
                unmet = found if unmet is None else _both(unmet, found)
        if unmet is not None and unmet.kind in _TELLS_SCOPES and self._scopes:
            return unmet._replace(required_scopes=_union(self._scopes, unmet.required_scopes))
        return unmet

    def at_once(self) -> tuple[IsMet, ...] | None:
        found: list[IsMet] = []
        for part in self.parts:
            at_once = part.at_once()
            if at_once is None:
                return None
            found += at_once
        return tuple(found)

    def ensures_identity(self, *, met: bool = True) -> bool:
        known = (part.ensures_identity(met=met) for part in self.parts)
        return any(known) if met else all(known)

    def leaves(self) -> Iterable[Requirement]:
        return (leaf for part in self.written for leaf in part.leaves())

    def reasons(self, credentials: frozenset[Reason]) -> frozenset[Reason | str]:
        for part in self.parts:
            if isinstance(part, _Verdict):
                return part.reasons(credentials)  # it refuses everybody, and is told before all others
        return frozenset().union(*(part.reasons(credentials) for part in self.parts))

    def alternatives(self, most: int) -> tuple[tuple[Requirement, ...], ...]:
        ways = itertools.product(*(part.alternatives(most) for part in self.written))
        return tuple(tuple(leaf for part in way for leaf in part) for way in itertools.islice(ways, most))

    def opposite(self) -> Requirement:
        return _Or(part.opposite() for part in self.parts)

    def replaced(self, by: Callable[[Requirement], Requirement]) -> Requirement:
        return all_of(part.replaced(by) for part in self.written)

    def form(self) -> Form:
        return combined(AND, (part.form() for part in self.written))

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
        self.joined, self.tried = "any", tuple(part for _, part in self._tried)
        self.kind = min(part.kind for part in flat)
        self.needs_identity = any(part.needs_identity for part in flat)
        self.tokenless = any(part.tokenless for part in flat)
        self.conceals = any(part.conceals for part in flat)
        self.asks_names = all(part.asks_names for part in flat)

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

    def reasons(self, credentials: frozenset[Reason]) -> frozenset[Reason | str]:
        found = [part.reasons(credentials) for part in self.parts]
        # What never refuses, such as anyone, lets all the others refuse nobody.
        return frozenset().union(*found) if all(found) else frozenset()

    def alternatives(self, most: int) -> tuple[tuple[Requirement, ...], ...]:
        return tuple(itertools.islice((way for part in self.parts for way in part.alternatives(most)), most))

    def opposite(self) -> Requirement:
        return all_of(part.opposite() for part in self.parts)

    def replaced(self, by: Callable[[Requirement], Requirement]) -> Requirement:
        return _Or(part.replaced(by) for part in self.parts)

    def form(self) -> Form:
        return combined(OR, (part.form() for part in self.parts))

    def __repr__(self) -> str:
        return " | ".join(repr(part) for part in self.parts)


class _Not(Requirement):
    def __init__(self, inner: Requirement) -> None:
        self._inner = inner
        self.kind = inner.kind
        self.needs_identity = inner.needs_identity
        self.tokenless = inner.tokenless
        self.conceals = inner.conceals
        self.asks_names = inner.asks_names
        # By De Morgan: judged so, neither `&` nor `|` has to tell unmet from unknown, and both may stop early.
        self._judged = inner.opposite()
        self.joined, self.tried = self._judged.joined, self._judged.tried

    def check(self, facts: Facts) -> Unmet | None:
        return self._judged.check(facts)

    def reasons(self, credentials: frozenset[Reason]) -> frozenset[Reason | str]:
        return self._judged.reasons(credentials)

    def alternatives(self, most: int) -> tuple[tuple[Requirement, ...], ...]:
        return self._judged.alternatives(most)

    def opposite(self) -> Requirement:
        return self._inner

    def ensures_identity(self, *, met: bool = True) -> bool:
        return self._inner.ensures_identity(met=not met)

    def leaves(self) -> Iterable[Requirement]:
        return self._inner.leaves()

    def replaced(self, by: Callable[[Requirement], Requirement]) -> Requirement:
        return _Not(self._inner.replaced(by))

    def form(self) -> Form:
        return Form(NOT, parts=(self._inner.form(),))

    def __repr__(self) -> str:
        return f"~({self._inner!r})" if isinstance(self._inner, _All | _Or) else f"~{self._inner!r}"


class _Opposite(Requirement):
    """`~a` of a single requirement."""

    def __init__(self, inner: Requirement) -> None:
        self._inner = inner
        self.refusals = (Reason.ACCESS_DENIED, *inner.unknowns)
        self.kind = inner.kind
        self.needs_identity = inner.needs_identity
        self.tokenless = inner.tokenless

    def check(self, facts: Facts) -> Unmet | None:
        unmet = self._inner.check(facts)
        if unmet is None:
            return Unmet(self.kind, Reason.ACCESS_DENIED, missing=_INCURABLE)
        # A scope that the caller must not have is none to ask for.
        return unmet._replace(required_scopes=(), missing_scopes=()) if unmet.unknown else None

    def bad_credentials(self, credentials: frozenset[Reason]) -> frozenset[Reason]:
        return self._inner.bad_credentials(credentials)

    def __repr__(self) -> str:
        return f"~{self._inner!r}"


class _Concealed(Requirement):
    conceals = True

    def __init__(self, inner: Requirement) -> None:
        self.inner = inner
        self.joined, self.tried = inner.joined, inner.tried
        self.kind = inner.kind
        self.needs_identity = inner.needs_identity
        self.tokenless = inner.tokenless

    def check(self, facts: Facts) -> Unmet | None:
        return self.inner.check(facts)

    def at_once(self) -> tuple[IsMet, ...] | None:
        return self.inner.at_once()

    def ensures_identity(self, *, met: bool = True) -> bool:
        return self.inner.ensures_identity(met=met)

    def leaves(self) -> Iterable[Requirement]:
        return self.inner.leaves()

    def reasons(self, credentials: frozenset[Reason]) -> frozenset[Reason | str]:
        return self.inner.reasons(credentials)

    def alternatives(self, most: int) -> tuple[tuple[Requirement, ...], ...]:
        return self.inner.alternatives(most)

    def opposite(self) -> Requirement:
        return self.inner.opposite().concealed()

    def concealed(self) -> Requirement:
        return self  # it is

    def replaced(self, by: Callable[[Requirement], Requirement]) -> Requirement:
        return self.inner.replaced(by).concealed()

    def form(self) -> Form:
        return Form(CONCEALED, parts=(self.inner.form(),))

    def __repr__(self) -> str:
        return f"({self.inner!r}).concealed()"


_TOLD_FIRST: Final = frozenset({Kind.VERDICT, Kind.NETWORK, Kind.CROSS_SITE})
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


def fields_of(requirement: Requirement) -> frozenset[str]:
    """Return the header fields that a requirement looks at, with all that it is made of."""
    return frozenset().union(*(leaf.fields for leaf in requirement.leaves()))


def _union(*names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


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
    first = [part for part in parts if not part.needs_identity and part.kind in _TOLD_FIRST]
    return all_of(first), all_of(part for part in parts if part not in first)


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
