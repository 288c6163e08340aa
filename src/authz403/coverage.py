"""Which policy each endpoint of an app stands under, and where that was written: the table for people and for CI."""

from __future__ import annotations

from collections.abc import Iterator

from authz403.endpoint import Covered
from authz403.errors import Mistakes
from authz403.request import KNOWN_METHODS
from authz403.route_objects import router_of
from authz403.routing import Served, Walk
from authz403.rules import Rule, Rules


def coverage_of(app: object, rules: Rules) -> tuple[Covered, ...]:
    """Return what an app serves with its policies under `rules`; raises `ConfigurationError` if it cannot be read."""
    mistakes = Mistakes("the app")
    if router_of(app)[0] is None:
        mistakes.add("app", type(app).__name__, "its routes cannot be found; give the Starlette or FastAPI app itself")
        mistakes.raise_if_any()
    walk = Walk(app, lambda _router: None)  # type: ignore[arg-type]  # whatever has a router is an app
    walk.mistakes.raise_if_any()
    return covered(walk, rules)


def covered(walk: Walk, rules: Rules) -> tuple[Covered, ...]:
    """Return what was found on a walk through an app, with its policies."""
    rows = (row for served in walk.served for method in _methods(served, rules) for row in _rows(served, method, rules))
    # A route that is there twice says nothing more the second time.
    return tuple({row[:-1]: row for row in rows}.values())


def _methods(served: Served, rules: Rules) -> tuple[str, ...]:
    """Return the methods to tell of: all that a policy may tell apart."""
    if served.methods is not None:
        # RFC 9110 section 9.3.2: HEAD is judged as GET.
        return tuple(sorted(served.methods - {"HEAD"} if "GET" in served.methods else served.methods))
    told = {method for rule in rules.rules if rule.pattern.meets(served.pattern) for method in rule.named or ()}
    told |= served.endpoint.by_method.keys()
    return (*(method for method in KNOWN_METHODS if method in told and method != "HEAD"), "*")


def _rows(served: Served, method: str, rules: Rules) -> Iterator[Covered]:
    named = False
    for number, rule in enumerate(rules.rules):
        fits_all = rule.pattern.covers(served.pattern)
        if not fits_all and not rule.pattern.meets(served.pattern):
            continue
        named = named or fits_all
        if rule.named is not None and method not in rule.named:
            continue
        yield _row(served, method, rules, number, path_named=True, part=None if fits_all else rule)
        if fits_all:
            return
    yield _row(served, method, rules, None, path_named=named, part=None)


def _row(
    served: Served, method: str, rules: Rules, number: int | None, *, path_named: bool, part: Rule | None
) -> Covered:
    endpoint = served.endpoint
    marks = endpoint.marks_for(method)
    written = [] if number is None else [rules.rules[number].where]
    written += [mark.where for mark in marks]
    policy = rules.policy(endpoint, number, method, path_named=path_named)
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
