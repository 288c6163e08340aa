"""Which policy each endpoint of an app stands under, and where that was written: the table for people and for CI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from authz403.endpoint import Covered, Endpoint, Served, Walked
from authz403.errors import Mistakes
from authz403.paths import EVERYTHING, PathPattern
from authz403.request import KNOWN_METHODS
from authz403.rules import Rule, Rules


def coverage_of(app: object, rules: Rules) -> tuple[Covered, ...]:
    """Return what an app serves with its policies under `rules`; raises `ConfigurationError` if it cannot be read."""
    return tuple(row for _, row in served_of(app, rules))


def served_of(app: object, rules: Rules) -> tuple[tuple[Served, Covered], ...]:
    """Return what `coverage_of` does, with the paths that lead to each."""
    walk = _walked(app)
    walk.mistakes.raise_if_any()
    return tuple(covered(walk, rules))


def served_by_rules(rules: Rules) -> tuple[tuple[Served, Covered], ...]:
    """Return what the rules alone say, for an app that nobody can look into."""
    return tuple(covered(_RULES_ALONE, rules))


class _RulesAlone:
    """An app that nobody can look into: one endpoint, which takes everything."""

    served: Sequence[Served] = (Served(EVERYTHING, None, Endpoint("/**", "app"), frozenset()),)
    has_hosts = False


_RULES_ALONE: Final = _RulesAlone()


def _walked(app: object) -> Walked:
    """Walk through an app by the way of its framework, which is loaded already if the app is one of its kind."""
    # Frameworks are loaded by those who use them.
    frameworks = {kind.__module__.partition(".")[0] for kind in type(app).__mro__}
    if "flask" in frameworks:
        from authz403.flask_routes import FlaskWalk  # noqa: PLC0415

        return FlaskWalk(app)  # type: ignore[arg-type]  # an app by its class
    if "django" in frameworks:
        from authz403.django_routes import DjangoWalk  # noqa: PLC0415

        return DjangoWalk()
    from authz403.route_objects import router_of  # noqa: PLC0415
    from authz403.walk import Walk  # noqa: PLC0415

    if router_of(app)[0] is None:
        mistakes = Mistakes("the app")
        why = "its routes cannot be found; give the app of Starlette, FastAPI, Flask or Django itself"
        mistakes.add("app", type(app).__name__, why)
        mistakes.raise_if_any()
    return Walk(app, None)  # type: ignore[arg-type]  # whatever has a router is an app


def covered(walk: Walked | _RulesAlone, rules: Rules) -> Iterator[tuple[Served, Covered]]:
    """Yield what was found on a walk through an app, each with its policy for a method."""
    taken: set[tuple[str | PathPattern, str]] = set()
    for served in walk.served:
        for method in _methods(served, rules):
            if served.key is not None and (served.key, method) in taken:
                continue  # an earlier route takes every request for it
            for row, part in _rows(served, method, rules):
                if part is None or (part, method) not in taken:
                    yield served, row
            if served.key is not None:
                taken.add((served.key, method))
                if served.pattern.is_literal and not walk.has_hosts:
                    taken.add((served.pattern, method))


def _methods(served: Served, rules: Rules) -> tuple[str, ...]:
    """Return the methods to tell of: all that a policy may tell apart."""
    if served.methods is not None:
        # RFC 9110 section 9.3.2: HEAD is judged as GET.
        return tuple(sorted(served.methods - {"HEAD"} if "GET" in served.methods else served.methods))
    told = {method for rule in rules.rules if rule.pattern.meets(served.pattern) for method in rule.named or ()}
    told |= served.endpoint.by_method.keys()
    told.discard("HEAD")
    known = [method for method in KNOWN_METHODS if method in told]
    return (*known, *sorted(told.difference(known)), "*")


def _rows(served: Served, method: str, rules: Rules) -> Iterator[tuple[Covered, PathPattern | None]]:
    """Yield a row for each rule that may apply, down to the one that applies to all that is left, and its part."""
    told: list[PathPattern] = []
    path_is_named = False
    for number, rule in enumerate(rules.rules):
        fits_all = rule.pattern.covers(served.pattern)
        if not fits_all and not rule.pattern.meets(served.pattern):
            continue
        applies = rule.named is None or method in rule.named
        path_is_named = path_is_named or fits_all
        if fits_all and applies:
            yield _row(served, method, rules, number, path_is_named=True), None
            return
        if fits_all or any(pattern.covers(rule.pattern) for pattern in told):
            continue
        if applies:
            told.append(rule.pattern)
            yield _row(served, method, rules, number, path_is_named=True, part=rule), rule.pattern
        elif not served.endpoint.marks_for(method) and not _applies_later(rule, number, method, rules):
            # This rule names the path, and no rule the method there: the default does not hold.
            told.append(rule.pattern)
            yield _row(served, method, rules, None, path_is_named=True, part=rule), rule.pattern
    yield _row(served, method, rules, None, path_is_named=path_is_named), None


def _applies_later(rule: Rule, number: int, method: str, rules: Rules) -> bool:
    """Tell whether a later rule applies to a method on all paths of a rule."""
    later = rules.rules[number + 1 :]
    return any((one.named is None or method in one.named) and one.pattern.covers(rule.pattern) for one in later)


def _row(
    served: Served, method: str, rules: Rules, number: int | None, *, path_is_named: bool, part: Rule | None = None
) -> Covered:
    endpoint = served.endpoint
    marks = endpoint.marks_for(method)
    written = [] if number is None else [rules.rules[number].where]
    written += [mark.where for mark in marks]
    policy = rules.policy(endpoint, number, method, path_named=path_is_named)
    return Covered(
        method,
        endpoint.route,
        None if part is None else part.path,
        endpoint.name,
        policy.words,
        tuple(written),
        not written,
        policy.requirement,
    )
