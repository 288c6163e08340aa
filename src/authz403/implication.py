"""Whether one requirement is at least as strict as another, proven over all facts that a request may bring.

What both ask is told in variables: who calls, from where, which scopes it has. A proof looks for values of them by
which the one is met and the other is not. It never guesses: what it cannot follow may be anything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from authz403.cidr import span_of
from authz403.forms import AND, CONCEALED, NOT, OR, Form, Told, cidr_sets

_MOST_STEPS: Final = 10_000

Variable = tuple[Hashable, ...]


class _Is(NamedTuple):
    """That a variable has one of some values."""

    variable: Variable
    among: frozenset[Hashable]


class _Combined(NamedTuple):
    """That all parts hold, or that one does."""

    all: bool
    parts: tuple[Formula, ...]


Formula = bool | _Is | _Combined

_CALLER: Final[Variable] = ("caller",)
_SIGNED_IN, _NO_TOKEN, _BAD_TOKEN = "signed in", "no token", "bad token"
_SIGNED: Final = _Is(_CALLER, frozenset({_SIGNED_IN}))
_YES: Final = frozenset({True})
_NO: Final = frozenset({False})
_TWO: Final = (True, False)
_THREE: Final = (True, False, None)

_ADDRESS: Final[Variable] = ("address",)
_UNKNOWN, _TRAILERS = "unknown", "unknown, with trailers"
"""An address that is not known; where the request may have trailers, the service's networks see that otherwise."""

_PAGE: Final[Variable] = ("page",)
_OWN_PAGE, _OTHER_PAGE, _UNCLEAR_PAGE = "own or none", "other", "unclear"
"""Which page made the request: an own one or no page, one of an origin that is named, another, or nobody can tell."""
_BY_SCRIPT: Final[Variable] = ("token sent by a script",)

_HOLDERS: Final = {
    "scopes": ("scope", True),
    "any_scope": ("scope", False),
    "roles": ("role", True),
    "any_role": ("role", False),
    "permissions": ("permission", True),
    "any_permission": ("permission", False),
}


def implies(premise: Form, conclusion: Form) -> bool:
    """Tell whether it is proven that every request that `premise` lets in is let in by `conclusion` too."""
    if premise == conclusion and not _opaque_in(premise):
        return True
    facts = _Variables((premise, conclusion))
    waiting = [(facts.met(premise), facts.met(conclusion))]
    for _ in range(_MOST_STEPS):
        if not waiting:
            return True
        met, also_met = waiting.pop()
        if met is False or also_met is True:
            continue
        variable = _first(met) or _first(also_met)
        if variable is None:
            return False
        waiting += [(_given(met, variable, one), _given(also_met, variable, one)) for one in facts.values[variable]]
    return not waiting


def conjuncts(form: Form) -> tuple[Form, ...]:
    """Return the least things that all must hold, so that one that is gone can be told alone."""
    if form.name == CONCEALED:
        return conjuncts(form.parts[0])
    if form.name == AND:
        return tuple(dict.fromkeys(one for part in form.parts for one in conjuncts(part)))
    if form.name in {"scopes", "roles", "permissions"}:
        return tuple(Form(form.name, (name,)) for name in form.values)
    return () if form.name == "anyone" else (form,)


def negated(form: Form, *, inside: bool = False) -> Iterator[Form]:
    """Yield the single requirements that stand under an odd number of `~`."""
    inside = inside is not (form.name == NOT)
    for part in form.parts:
        yield from negated(part, inside=inside)
    if not form.parts and inside:
        yield form


def leaves(form: Form) -> Iterator[Form]:
    """Yield the single requirements that a form is made of."""
    if not form.parts:
        yield form
    for part in form.parts:
        yield from leaves(part)


class _Variables:
    """What some forms ask, in variables that they share."""

    def __init__(self, forms: Sequence[Form]) -> None:
        self.values: dict[Variable, Sequence[Hashable]] = {_CALLER: (_SIGNED_IN, _NO_TOKEN, _BAD_TOKEN)}
        found = [tuple(leaves(form)) for form in forms]
        # Two requirements of one's own with one code may ask two things.
        counted = [Counter(leaf.values for leaf in some if leaf.name == "requirement") for some in found]
        self._ambiguous = {code for some in counted for code, times in some.items() if times > 1}
        asked = {cidr for some in found for leaf in some for cidr in cidr_sets(leaf)}
        self._regions = _regions(asked)
        self.values[_ADDRESS] = (*self._regions, _UNKNOWN, _TRAILERS)
        origins = {name for some in found for leaf in some if leaf.name == "csrf_protected" for name in leaf.values}
        self.values[_PAGE] = (_OWN_PAGE, _OTHER_PAGE, _UNCLEAR_PAGE, *((name,) for name in origins))
        self.values[_BY_SCRIPT] = _TWO
        ages = {age for some in found for leaf in some for name, age in leaf.options if name == "max_age"}
        self._ages = sorted(age for age in ages if isinstance(age, int))
        self.values[("age",)] = range(len(self._ages) + 1)

    def met(self, form: Form) -> Formula:
        """Return when a form is met."""
        if form.name in {AND, OR}:
            return _joined(all_of=form.name == AND, parts=[self.met(part) for part in form.parts])
        if form.name == NOT:
            return self.unmet(form.parts[0])
        if form.name == CONCEALED:
            return self.met(form.parts[0])
        return self._leaf(form, met=True)

    def unmet(self, form: Form) -> Formula:
        """Return when a form is known to be unmet, which is when its `~` is met."""
        if form.name in {AND, OR}:
            return _joined(all_of=form.name == OR, parts=[self.unmet(part) for part in form.parts])
        if form.name == NOT:
            return self.met(form.parts[0])
        if form.name == CONCEALED:
            return self.unmet(form.parts[0])
        return self._leaf(form, met=False)

    def _leaf(self, form: Form, *, met: bool) -> Formula:
        if form.is_opaque or (form.name == "requirement" and form.values in self._ambiguous):
            # Met by whom nobody can tell, and each by others.
            return self._is(("opaque", len(self.values)), _THREE, met)
        reader = _READERS.get(form.name)
        if reader is not None:
            return reader(self, form, met)
        what, is_all = _HOLDERS[form.name]
        held = [self._is((what, name), _TWO, met) for name in form.values]
        return _joined(all_of=True, parts=[_SIGNED, _joined(all_of=is_all is met, parts=held)])

    def verdict(self, form: Form, met: bool) -> Formula:  # noqa: FBT001 - as all of these readers
        """Read what holds for all or for nobody."""
        return (form.name == "anyone") is met

    def authenticated(self, form: Form, met: bool) -> Formula:  # noqa: FBT001
        """Read `authenticated` and `optional`: whether somebody is signed in is not known where nobody is."""
        if not met:
            return False
        return _SIGNED if form.name == "authenticated" else _Is(_CALLER, frozenset({_SIGNED_IN, _NO_TOKEN}))

    def stepped_up(self, form: Form, met: bool) -> Formula:  # noqa: FBT001
        """Read `authenticated.stepped_up(...)`."""
        options = dict(form.options)
        acr_values, age = options.get("acr_values"), options.get("max_age")
        asked: list[Formula] = []
        if isinstance(acr_values, tuple) and acr_values:
            asked.append(_joined(all_of=not met, parts=[self._is(("acr", one), _TWO, met) for one in acr_values]))
        if isinstance(age, int):
            young = frozenset(range(self._ages.index(age) + 1))
            asked.append(_Is(("age",), young if met else frozenset(self.values["age",]) - young))
        return _joined(all_of=True, parts=[_SIGNED, _joined(all_of=met, parts=asked)])

    def claim(self, form: Form, met: bool) -> Formula:  # noqa: FBT001
        """Read `claim(...)`; values are told apart by their types."""
        name, *values = form.values
        held: list[Formula] = []
        for value in values:
            # A predicate that raises leaves it unknown.
            asked: Variable = ("claim", name, type(value).__name__, value)
            held.append(self._is(asked, _THREE if isinstance(value, Told) else _TWO, met))
        return _joined(all_of=True, parts=[_SIGNED, _joined(all_of=not met, parts=held)])

    def signed_in_test(self, form: Form, met: bool) -> Formula:  # noqa: FBT001
        """Read `param(...)` and `requirement(...)`: what may also be unknown."""
        options = dict(form.options)
        is_anonymous = options.pop("anonymous", False)
        asked = self._is((form.name, *form.values, *options.values()), _THREE, met)
        return asked if is_anonymous else _joined(all_of=True, parts=[_SIGNED, asked])

    def networks(self, form: Form, met: bool) -> Formula:  # noqa: FBT001
        """Read `networks(...)`."""
        return self._inside(form.values, inside=met)

    def csrf_protected(self, form: Form, met: bool) -> Formula:  # noqa: FBT001
        """Read `csrf_protected(...)`: a token that no browser sends by itself makes up for any page."""
        trusted: frozenset[Hashable] = frozenset({_OWN_PAGE, *((name,) for name in form.values)})
        if met:
            by_script = _joined(all_of=True, parts=[_SIGNED, _Is(_BY_SCRIPT, _YES)])
            return _joined(all_of=False, parts=[_Is(_PAGE, trusted), by_script])
        known = frozenset(self.values[_PAGE]) - trusted - {_UNCLEAR_PAGE}
        by_browser = _joined(all_of=True, parts=[_SIGNED, _Is(_BY_SCRIPT, _NO)])
        nobody = _Is(_CALLER, frozenset({_NO_TOKEN}))
        return _joined(all_of=True, parts=[_Is(_PAGE, known), _joined(all_of=False, parts=[by_browser, nobody])])

    def service(self, form: Form, met: bool) -> Formula:  # noqa: FBT001
        """Read `Network(allow=, deny=)`: deny wins."""
        options = dict(form.options)
        allowed, denied = options.get("allow"), options.get("deny")
        parts: list[Formula] = []
        if isinstance(allowed, tuple):
            parts.append(self._inside(allowed, inside=met))
        if isinstance(denied, tuple):
            parts.append(self._inside(denied, inside=not met))
        known = _joined(all_of=met, parts=parts)
        if not met or isinstance(allowed, tuple):
            return known
        return _joined(all_of=False, parts=[known, _Is(_ADDRESS, frozenset({_UNKNOWN}))])

    def _inside(self, cidrs: tuple[object, ...], *, inside: bool) -> Formula:
        told = [cidr for cidr in cidrs if isinstance(cidr, str)]
        group = tuple(told)
        here: Formula = _Is(_ADDRESS, frozenset(region for region in self._regions if (group in region) is inside))
        known = _Is(_ADDRESS, frozenset(self._regions))
        files = [self._is(("file", cidr), _TWO, inside) for cidr in cidrs if isinstance(cidr, Told)]
        return _joined(all_of=True, parts=[known, _joined(all_of=not inside, parts=[here, *files])])

    def _is(self, variable: Variable, values: Sequence[Hashable], value: bool) -> _Is:  # noqa: FBT001
        self.values[variable] = values
        return _Is(variable, _YES if value else _NO)


_READERS: Final[dict[str, Callable[[_Variables, Form, bool], Formula]]] = {
    "anyone": _Variables.verdict,
    "deny": _Variables.verdict,
    "no_policy": _Variables.verdict,
    "authenticated": _Variables.authenticated,
    "optional": _Variables.authenticated,
    "authenticated.stepped_up": _Variables.stepped_up,
    "claim": _Variables.claim,
    "param": _Variables.signed_in_test,
    "requirement": _Variables.signed_in_test,
    "networks": _Variables.networks,
    "csrf_protected": _Variables.csrf_protected,
    "service": _Variables.service,
}


def _opaque_in(form: Form) -> bool:
    return any(leaf.is_opaque for leaf in leaves(form))


def _regions(sets: Iterable[tuple[str, ...]]) -> tuple[frozenset[tuple[str, ...]], ...]:
    """Return the parts that sets of networks divide all addresses into: for each part, the sets that hold it."""
    changes: dict[tuple[int, int], Counter[tuple[str, ...]]] = defaultdict(Counter)
    for group in sets:
        for cidr in group:
            version, first, beyond = span_of(cidr)
            changes[version, first][group] += 1
            changes[version, beyond][group] -= 1
    found: dict[frozenset[tuple[str, ...]], None] = {}
    for version, most in ((4, 1 << 32), (6, 1 << 128)):
        inside: Counter[tuple[str, ...]] = Counter()
        for _, place in sorted({(version, 0), *(key for key in changes if key[0] == version)}):
            inside.update(changes[version, place])
            if place < most:
                found[frozenset(group for group, times in inside.items() if times)] = None
    return tuple(found)


def _joined(*, all_of: bool, parts: Iterable[Formula]) -> Formula:
    """Return what holds where all parts do, or one does, with what is decided left out."""
    left: list[Formula] = []
    for part in parts:
        if part is (not all_of):
            return part
        if part is not all_of:
            left.append(part)
    if not left:
        return all_of
    return left[0] if len(left) == 1 else _Combined(all_of, tuple(left))


def _given(formula: Formula, variable: Variable, value: Hashable) -> Formula:
    """Return what is left of a formula where a variable has a value."""
    if isinstance(formula, _Is):
        return value in formula.among if formula.variable == variable else formula
    if isinstance(formula, _Combined):
        return _joined(all_of=formula.all, parts=[_given(part, variable, value) for part in formula.parts])
    return formula


def _first(formula: Formula) -> Variable | None:
    while isinstance(formula, _Combined):
        formula = formula.parts[0]
    return formula.variable if isinstance(formula, _Is) else None
