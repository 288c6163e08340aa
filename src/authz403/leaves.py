"""The requirements themselves: what each asks of a request, and what it says where that is missing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal

from authz403.address_file import AddressFile
from authz403.addresses import Address, Addresses, AddressSet
from authz403.errors import Mistakes
from authz403.facts import Facts, Rejected
from authz403.forms import Form, Told, names, networks_in_order, shown, told_function, told_value
from authz403.need import is_async
from authz403.network import Network
from authz403.policy import WAITS_FOR_IDENTITY, IsMet, Kind, Requirement, Unmet
from authz403.principal import Principal, is_numeric_date
from authz403.reasons import Reason

# RFC 6750 section 3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class NeedsIdentity(Requirement):
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


class Authenticated(NeedsIdentity):
    """`authenticated`: a signed-in caller, whoever it is."""

    kind = Kind.AUTHENTICATION

    def __init__(self) -> None:
        self.asks_names = type(self) is Authenticated  # what somebody makes of it may look at more

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        identity = facts.identity
        return None if isinstance(identity, Principal) else self._nobody(identity)

    def at_once(self) -> tuple[IsMet, ...] | None:
        """See `Requirement`."""
        return () if type(self) is Authenticated else None  # that there is a caller

    def stepped_up(self, *, acr_values: Iterable[str] = (), max_age: int | None = None) -> Requirement:
        """Need a sign-in of one of these classes (`acr`) and at most `max_age` seconds old (RFC 9470)."""
        return SteppedUp(acr_values, max_age)

    def form(self) -> Form:
        """See `Requirement`."""
        return Form("authenticated")

    def __repr__(self) -> str:
        return "authenticated"


class SteppedUp(NeedsIdentity):
    """`authenticated.stepped_up(...)`: a strong or a recent sign-in."""

    kind = Kind.AUTHENTICATION
    refusals = (Reason.STEP_UP_REQUIRED,)

    def __init__(self, acr_values: Iterable[str], max_age: int | None) -> None:
        mistakes = Mistakes("authenticated.stepped_up")
        self._acr_values = mistakes.strings("acr_values", acr_values)
        self.max_age = max_age
        for index, value in enumerate(self._acr_values):
            if SCOPE.fullmatch(value) is None:
                mistakes.add(f"acr_values[{index}]", value, "one word of visible ASCII, no quotes, is needed")
        if max_age is not None and (isinstance(max_age, bool) or not isinstance(max_age, int) or max_age < 0):
            mistakes.add("max_age", max_age, "seconds, 0 or more, are needed")
        if not self._acr_values and max_age is None and not mistakes:
            mistakes.add("acr_values", [], "name acr_values or max_age; otherwise write authenticated")
        mistakes.raise_if_any()

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity)
        signed_in_at = identity.claims.get("auth_time")
        strong = not self._acr_values or identity.claims.get("acr") in self._acr_values
        recent = self.max_age is None or (is_numeric_date(signed_in_at) and signed_in_at >= facts.now - self.max_age)
        if strong and recent:
            return None
        return Unmet(
            Kind.AUTHENTICATION, Reason.STEP_UP_REQUIRED, acr_values=self._acr_values, max_age=self.max_age
        )  # fmt: skip

    def form(self) -> Form:
        """See `Requirement`."""
        return Form(
            "authenticated.stepped_up",
            options=(("acr_values", tuple(sorted(set(self._acr_values)))), ("max_age", self.max_age)),
        )

    def __repr__(self) -> str:
        return f"authenticated.stepped_up(acr_values={list(self._acr_values)!r}, max_age={self.max_age!r})"


class Optional(NeedsIdentity):
    """`optional`: nobody, or somebody with a good token."""

    kind = Kind.AUTHENTICATION

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        identity = facts.identity
        if isinstance(identity, Principal) or (identity is not None and identity.reason is Reason.MISSING_TOKEN):
            return None
        return self._nobody(identity)

    def bad_credentials(self, credentials: frozenset[Reason]) -> frozenset[Reason]:
        """See `Requirement`."""
        return credentials - {Reason.MISSING_TOKEN}

    def ensures_identity(self, *, met: bool = True) -> bool:
        """See `Requirement`."""
        del met
        return False

    def form(self) -> Form:
        """See `Requirement`."""
        return Form("optional")

    def __repr__(self) -> str:
        return "optional"


class Scopes(NeedsIdentity):
    """`scopes(...)` and `any_scope(...)`."""

    kind = Kind.SCOPE
    refusals = (Reason.INSUFFICIENT_SCOPE,)

    def __init__(self, names: tuple[str, ...], *, one_is_enough: bool) -> None:
        self.names = names
        self.one_is_enough = one_is_enough
        self._set = frozenset(names)
        self.asks_names = type(self) is Scopes
        # What is told of `any_scope`: it is an alternative of single scopes, and the first written stands for them.
        self.told_scopes = names[:1] if one_is_enough else names

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=len(self.told_scopes), scopes=self.told_scopes)
        if self.one_is_enough:
            if not self._set.isdisjoint(identity.scopes):
                return None
            missing = self.told_scopes
        else:
            if self._set <= identity.scopes:
                return None
            missing = tuple(name for name in self.names if name not in identity.scopes)
        return Unmet(
            Kind.SCOPE,
            Reason.INSUFFICIENT_SCOPE,
            missing=len(missing),
            required_scopes=self.told_scopes,
            missing_scopes=missing,
            detail=_needs("scope", self.names, one_is_enough=True) if len(self.told_scopes) < len(self.names) else None,
        )

    def at_once(self) -> tuple[IsMet, ...] | None:
        """See `Requirement`."""
        wanted = self._set
        if type(self) is not Scopes:
            return None
        if self.one_is_enough:
            return (lambda principal, _: not wanted.isdisjoint(principal.scopes),)
        return (lambda principal, _: wanted <= principal.scopes,)

    def form(self) -> Form:
        """See `Requirement`."""
        return names("any_scope" if self.one_is_enough else "scopes", self.names)

    def __repr__(self) -> str:
        return f"{'any_scope' if self.one_is_enough else 'scopes'}({_words(self.names)})"


class Held(NeedsIdentity):
    """Names that the caller holds: roles, or permissions."""

    def __init__(self, what: Literal["role", "permission"], names: tuple[str, ...], *, one_is_enough: bool) -> None:
        self.kind, self._reason = _HELD[what]
        self.refusals = (self._reason,)
        self._what = what
        self._names = names
        self.one_is_enough = one_is_enough
        self._set = frozenset(names)
        self.asks_names = type(self) is Held

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=1 if self.one_is_enough else len(self._names))
        held = identity.roles if self._what == "role" else identity.permissions
        if not (self._set.isdisjoint(held) if self.one_is_enough else not self._set <= held):
            return None
        missing = tuple(name for name in self._names if name not in held)
        unmet = Unmet(
            self.kind,
            self._reason,
            missing=1 if self.one_is_enough else len(missing),
            detail=_needs(self._what, self._names, one_is_enough=self.one_is_enough),
        )
        if self._what == "role":
            return unmet._replace(required_roles=self._names, missing_roles=missing)
        return unmet._replace(required_permissions=self._names, missing_permissions=missing)

    def at_once(self) -> tuple[IsMet, ...] | None:
        """See `Requirement`."""
        wanted, is_role = self._set, self._what == "role"
        if type(self) is not Held:
            return None
        if is_role and self.one_is_enough:
            return (lambda principal, _: not wanted.isdisjoint(principal.roles),)
        if is_role:
            return (lambda principal, _: wanted <= principal.roles,)
        if self.one_is_enough:
            return (lambda principal, _: not wanted.isdisjoint(principal.permissions),)
        return (lambda principal, _: wanted <= principal.permissions,)

    def form(self) -> Form:
        """See `Requirement`."""
        return names(f"any_{self._what}" if self.one_is_enough else f"{self._what}s", self._names)

    def __repr__(self) -> str:
        return f"{f'any_{self._what}' if self.one_is_enough else f'{self._what}s'}({_words(self._names)})"


_HELD: Final = {
    "role": (Kind.ROLE, Reason.ROLE_REQUIRED),
    "permission": (Kind.PERMISSION, Reason.PERMISSION_REQUIRED),
}


class Networks(Requirement):
    """`networks(...)`: a client address inside one of them."""

    kind = Kind.NETWORK
    refusals = unknowns = (Reason.IP_NOT_ALLOWED,)

    def __init__(self, networks: Addresses) -> None:
        self.addresses = self._networks = networks
        self.cidrs = networks.cidrs
        self.is_fixed = type(self) is Networks and _never_change(networks)

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        address = facts.address
        if address is None:
            return Unmet(Kind.NETWORK, Reason.IP_NOT_ALLOWED, unknown=True, hint="the client's address is not known")
        return None if address in self._networks else Unmet(Kind.NETWORK, Reason.IP_NOT_ALLOWED)

    def at_once(self) -> tuple[IsMet, ...] | None:
        """See `Requirement`."""
        return (self._holds,) if type(self) is Networks else None

    def _holds(self, principal: Principal | None, address: Address | None) -> bool:
        del principal
        return address is not None and address in self._networks

    def form(self) -> Form:
        """See `Requirement`."""
        return Form("networks", _told(self._networks))

    def __repr__(self) -> str:
        return f"networks({self._networks.written()})"


class ServiceNetworks(Requirement):
    """`Network(allow=, deny=)`: what every request of a gate is held against. Deny wins."""

    kind = Kind.NETWORK
    refusals = (Reason.IP_NOT_ALLOWED,)

    def __init__(self, network: Network) -> None:
        self._network = network
        self._allowed = network.allowed or None
        self._denied = network.denied or None
        self.is_fixed = _never_change(network.allowed) and _never_change(network.denied)

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`. An unknown address fails `allow` alone, and `deny` only where the client may hide it."""
        address = facts.address
        if address is None:
            if self._allowed is None and not self._network.may_be_hidden(facts.request):
                return None
            return Unmet(Kind.NETWORK, Reason.IP_NOT_ALLOWED, unknown=True, hint="the client's address is not known")
        if not self._lets_in(None, address):
            return Unmet(Kind.NETWORK, Reason.IP_NOT_ALLOWED)
        return None

    def at_once(self) -> tuple[IsMet, ...]:
        """See `Requirement`."""
        return (self._lets_in,)

    def _lets_in(self, principal: Principal | None, address: Address | None) -> bool:
        del principal
        if address is None or (self._denied is not None and address in self._denied):
            return False
        return self._allowed is None or address in self._allowed

    def form(self) -> Form:
        """See `Requirement`."""
        told = (("allow", self._allowed), ("deny", self._denied))
        return Form("service", options=tuple((name, _told(found)) for name, found in told if found))

    def __repr__(self) -> str:
        return "the networks of the service"


def _never_change(addresses: Addresses) -> bool:
    return all(type(part) is AddressSet for part in addresses.parts())  # what is made of it may change


def _told(addresses: Addresses) -> tuple[str | Told, ...]:
    """Return networks as a form tells them: one by one, files by their path, and large sets by their digest."""
    told: list[str | Told] = []
    for part in addresses.parts():
        if isinstance(part, AddressFile):
            told.append(Told("file", part.shown_path()))
        elif isinstance(part, AddressSet) and part.is_kept():
            told += part.cidrs
        else:
            told.append(Told("set", part.written()))
    return networks_in_order(told)


class Claim(NeedsIdentity):
    """`claim(...)`: what the token says."""

    kind = Kind.CLAIM
    refusals = (Reason.CLAIM_REQUIRED,)

    def __init__(self, name: str, values: tuple[object, ...], predicate: Callable[[object], bool] | None) -> None:
        self._name = name
        self._values = values
        self._predicate = predicate

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=1)
        unmet = Unmet(Kind.CLAIM, Reason.CLAIM_REQUIRED)
        if self._name not in identity.claims:
            return unmet._replace(hint=f"there is no claim {self._name}")
        value = identity.claims[self._name]
        if self._predicate is not None:
            return _answered(self, self._predicate, value, unmet)
        held = value if isinstance(value, tuple) else (value,)
        if any(_same(one, wanted) for one in held for wanted in self._values):
            return None
        return unmet._replace(hint=f"the claim {self._name} is there, with another value")

    def form(self) -> Form:
        """See `Requirement`."""
        if self._predicate is not None:
            return Form("claim", (self._name, told_function(self._predicate)))
        values = {shown(value): value for value in map(told_value, self._values)}
        return Form("claim", (self._name, *(values[text] for text in sorted(values))))

    def __repr__(self) -> str:
        wanted = [repr(value) for value in self._values] or [getattr(self._predicate, "__qualname__", "predicate")]
        return f"claim({self._name!r}, {', '.join(wanted)})"


class Param(NeedsIdentity):
    """`param(name, claim=...)`: the path parameter of the route equals the caller's claim."""

    kind = Kind.OWNERSHIP
    refusals = unknowns = (Reason.NOT_OWNER,)

    def __init__(self, name: str, claim: str) -> None:
        self.name = name
        self.claim = claim

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        identity = facts.identity
        if not isinstance(identity, Principal):
            return self._nobody(identity, missing=1)
        if self.name not in facts.path_params:
            return Unmet(Kind.OWNERSHIP, Reason.NOT_OWNER, unknown=True)
        if self.claim in identity.claims:
            given, owned = facts.path_params[self.name], identity.claims[self.claim]
            # What the converter made of the path is compared, as text where the claim is text: UUID(...), 5.
            if _same(given, owned) or (isinstance(owned, str) and str(given) == owned):
                return None
        return Unmet(Kind.OWNERSHIP, Reason.NOT_OWNER)

    def form(self) -> Form:
        """See `Requirement`."""
        return Form("param", (self.name,), (("claim", self.claim),))

    def __repr__(self) -> str:
        return f"param({self.name!r}, claim={self.claim!r})"


Test = Callable[[Facts], bool] | Callable[[Facts], Awaitable[bool]]


class Custom(Requirement):
    """A requirement of the user's own: a function of the `Facts`, with its own code and remedy."""

    kind = Kind.OWN
    is_own = True

    def __init__(self, code: str, test: Test, remedy: str, *, anonymous: bool) -> None:
        self._code = code
        self.refusals = (code,)
        self.test = test
        self._remedy = remedy
        self.needs_identity = not anonymous
        self.tokenless = anonymous
        self.is_async = is_async(test)

    def check(self, facts: Facts) -> Unmet | None:
        """See `Requirement`."""
        if self.needs_identity and not isinstance(facts.identity, Principal):
            if facts.identity is None:
                return WAITS_FOR_IDENTITY
            return Authenticated().check(facts)
        unmet = Unmet(Kind.OWN, self._code, remedy=self._remedy)
        if id(self) in facts.answers:
            answer = facts.answers[id(self)]
            return _judged(self, answer, unmet)
        if self.is_async:
            return unmet._replace(unknown=True, waiting=self)
        return _answered(self, self.test, facts, unmet)

    def form(self) -> Form:
        """See `Requirement`."""
        return Form("requirement", (str(self._code),), () if self.needs_identity else (("anonymous", True),))

    def __repr__(self) -> str:
        return f"requirement({self._code!r})"


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


def _needs(what: str, names: tuple[str, ...], *, one_is_enough: bool) -> str:
    """Say in a sentence for the caller what is needed."""
    if len(names) == 1:
        return f"This operation needs the {what} {names[0]}."
    return f"This operation needs {'one of ' if one_is_enough else ''}the {what}s {', '.join(names)}."


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)
