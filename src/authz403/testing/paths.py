"""Paths that lead to a route: the route as it is told, with values in the place of its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from authz403.endpoint import Covered, Served
from authz403.paths import PathPattern, parse_pattern, split

# {name} and {name:converter} of Starlette and FastAPI, <name>, <converter:name> and <converter(...):name> of the others
_PARAMETER: Final = re.compile(
    r"\{(?P<name>\w+)(?::(?P<kind>\w+))?\}|<(?:(?P<converter>\w+)(?:\((?P<given>[^()]*)\))?:)?(?P<called>\w+)>"
)
_EXPRESSION: Final = re.compile(r"[\\^$+*?()\[\]|]")
_BELOW: Final = ("/**", "/** (default)")
# Numbers first, as most types take them that a framework makes of text.
_WORDS: Final = ("1", "2", "3", "a", "b", "c", "d")
_POOL: Final = (
    *_WORDS,
    *(f"{number}.5" for number in range(1, 4)),
    *(f"00000000-0000-4000-8000-{number:012d}" for number in range(1, 4)),
    *("2030-01-01", "2030-01-02", "2030", "2031", "en", "de", "AA", "AB"),
)
_TYPED: Final[Mapping[str, str]] = {
    "int": r"[0-9]+",
    "float": r"[0-9]+\.[0-9]+",
    "uuid": r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "path": r".*",
}
Expressions = Mapping[str, str]


class Target(NamedTuple):
    """Where a request goes: its path, decoded, and the host, if that matters; `params` are those of the path."""

    path: str
    host: str | None
    params: Mapping[str, str]


def targets_of(
    covered: Sequence[tuple[Served, Covered]], params: Mapping[str, object], paths: Mapping[str, str]
) -> Iterator[Target | str]:
    """Yield where requests go that are to meet each of these policies, or in words why nobody knows."""
    rows = [row for _, row in covered]
    known = [dict(_expressions_in(served.key or "")) for served, _ in covered]
    expressions = [_expression_of(row.path, of) for row, of in zip(rows, known, strict=True)]
    for index, row in enumerate(rows):
        key = row.path if row.part is None else f"{row.path} on {row.part}"
        if key in paths:
            yield Target(paths[key], None, {name: str(value) for name, value in params.items()})
            continue
        found = [_target(row, known[index], params, number) for number in range(len(_WORDS))]
        usable = [target for target in found if isinstance(target, Target)]
        if not usable:
            yield next(target for target in found if isinstance(target, str))
            continue
        of_rules = [target for target in usable if not _is_anothers_part(target, row, rows)]
        if not of_rules:
            yield f"other rules take every path of {key} that was tried"
            continue
        others = [one for other, one in zip(rows, expressions, strict=True) if other.path != row.path]
        earlier = [one for other, one in zip(rows[:index], expressions, strict=False) if other.path != row.path]
        free = _free_of(others, of_rules) or _free_of(earlier, of_rules)
        if free is None and row.part is not None:
            yield f"an earlier route takes every path of {key} that was tried"
        else:
            yield free or of_rules[0]  # where it does not get there, the case tells so


def _free_of(expressions: Sequence[re.Pattern[str] | None], targets: Sequence[Target]) -> Target | None:
    """Return the first target that no other route would take."""
    return next(
        (one for one in targets if not any(other and other.fullmatch(one.path) for other in expressions)),
        None,
    )


def _is_anothers_part(target: Target, row: Covered, rows: Sequence[Covered]) -> bool:
    """Tell whether a rule that is told of before would apply to a path."""
    literal = PathPattern(tuple(split(target.path)), below=False)
    for other in rows:
        if other is row:
            return False
        if (other.path, other.method) == (row.path, row.method) and other.part is not None:
            pattern = parse_pattern(other.part)
            if isinstance(pattern, PathPattern) and pattern.covers(literal):
                return True
    return False


def _target(row: Covered, known: Expressions, params: Mapping[str, object], number: int) -> Target | str:
    route, part = row.path, row.part
    host, whole = _split(route)
    if host is not None and (_PARAMETER.search(host) or "." not in host):
        return f"nobody knows which host {route} has"
    is_below = whole.endswith(_BELOW)
    path = whole.removesuffix(" (default)").removesuffix("/**")
    if _EXPRESSION.search(_PARAMETER.sub("", path)):
        return f"{route} is a regular expression"
    if part is not None:
        joined = _joined(path, part, known, is_below=is_below)
        if joined is None:
            return f"no path is known that both {route} and the rule for {part} take"
        path = joined
    values: dict[str, str] = {}

    def value(found: re.Match[str]) -> str:
        name = _name_of(found)
        values[name] = str(params[name]) if name in params else _sample(found, known, number)
        return values[name]

    filled = _PARAMETER.sub(value, path)
    if is_below and part is None:
        filled = f"{filled}/{_WORDS[number]}"
    for name, written in _written_out(whole, path):
        values.setdefault(name, written)
    return Target(filled or "/", host, values)


def _split(route: str) -> tuple[str | None, str]:
    """Return the host that a route starts with, and the path."""
    host, colon, path = route.partition(":/")
    return (host, f"/{path}") if colon and not route.startswith("/") else (None, route)


def _name_of(found: re.Match[str]) -> str:
    return found["name"] or found["called"]


def _kind_of(found: re.Match[str]) -> str:
    return found["kind"] or found["converter"] or ""


def _expression(found: re.Match[str], known: Expressions) -> str | None:
    """Return what a parameter takes, if that is known."""
    return known.get(_name_of(found)) or _TYPED.get(_kind_of(found))


def _sample(found: re.Match[str], known: Expressions, number: int) -> str:
    if _kind_of(found) == "any" and found["given"]:
        values = [choice.strip(" '\"") for choice in found["given"].split(",")]
    else:
        expression = _expression(found, known)
        values = [value for value in _POOL if expression is None or re.fullmatch(expression, value)]
    return values[number % len(values)] if values else _WORDS[number]


def _joined(path: str, part: str, known: Expressions, *, is_below: bool) -> str | None:
    """Return a route's path with the segments that a rule writes out in the place of its parameters."""
    is_open = part.endswith("/**")
    segments, wanted = path.split("/"), part.removesuffix("/**").split("/")
    takes_more = is_below or _takes(segments[-1], "a/b", known)
    joined = []
    for number in range(max(len(segments), len(wanted))):
        own = segments[number] if number < len(segments) else None
        rule = wanted[number] if number < len(wanted) else None
        if (own is None and not takes_more) or (rule is None and not is_open):
            return None
        if rule in {None, "*"}:
            joined.append(_WORDS[0] if own is None else own)
        elif own is not None and not _takes(own, str(rule), known):
            return None
        else:
            joined.append(str(rule))
    return "/".join(joined)


def _takes(segment: str, written: str, known: Expressions) -> bool:
    """Tell whether a segment of a route, which may hold parameters, takes a text."""
    return re.fullmatch(_expression_in(segment, known), written) is not None


def _written_out(route: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield the parameters of a route that a rule has written out in a path."""
    for segment, written in zip(route.split("/"), path.split("/"), strict=False):
        found = _PARAMETER.fullmatch(segment)
        if found is not None and segment != written:
            yield _name_of(found), written


def _expression_of(route: str, known: Expressions) -> re.Pattern[str] | None:
    """Return what the paths of a route look like, if they can be told by its text."""
    host, path = _split(route)
    if host is not None or path.endswith(_BELOW) or _EXPRESSION.search(_PARAMETER.sub("", path)):
        return None
    return re.compile(_expression_in(path, known))


def _expression_in(text: str, known: Expressions) -> str:
    parts = []
    end = 0
    for found in _PARAMETER.finditer(text):
        parts += [re.escape(text[end : found.start()]), f"(?:{_expression(found, known) or '[^/]+'})"]
        end = found.end()
    return "".join(parts) + re.escape(text[end:])


def _expressions_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield the named groups of an expression: Starlette's routes are told without their converters."""
    for found in re.finditer(r"\(\?P<(\w+)>", text):
        depth, end = 1, found.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 2 if text[end] == "\\" else 1
        expression = text[found.end() : end - 1]
        try:
            re.compile(expression)
        except re.error:
            continue  # parentheses within brackets, as no converter of a framework has them
        yield found[1], expression
