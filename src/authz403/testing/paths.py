"""Paths that lead to a route: the route as it is told, with values in the place of its parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from authz403.endpoint import Covered
from authz403.paths import PathPattern, parse_pattern, split

# {name} and {name:converter} of Starlette and FastAPI, <name>, <converter:name> and <converter(...):name> of the others
_PARAMETER: Final = re.compile(
    r"\{(?P<name>\w+)(?::(?P<kind>\w+))?\}|<(?:(?P<converter>\w+)(?:\((?P<given>[^()]*)\))?:)?(?P<called>\w+)>"
)
_EXPRESSION: Final = re.compile(r"[\\^$+*?()\[\]|]")
_BELOW: Final = ("/**", "/** (default)")
# Numbers first, as most types take them that a framework makes of text.
_WORDS: Final = ("1", "2", "3", "a", "b", "c", "d")
_TYPED: Final[Mapping[str, tuple[str, Callable[[int], str]]]] = {
    "int": (r"[0-9]+", str),
    "float": (r"[0-9]+(?:\.[0-9]+)?", lambda number: f"{number}.5"),
    "uuid": (r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "00000000-0000-4000-8000-{:012d}".format),
}


class Target(NamedTuple):
    """Where a request goes: its path, decoded, and the host, if that matters; `params` are those of the path."""

    path: str
    host: str | None
    params: Mapping[str, str]


def targets_of(
    rows: Sequence[Covered], params: Mapping[str, object], paths: Mapping[str, str]
) -> Iterator[Target | str]:
    """Yield where requests go that are to meet each of these policies, or in words why nobody knows."""
    expressions = [_expression_of(row.path) for row in rows]
    for index, row in enumerate(rows):
        key = row.path if row.part is None else f"{row.path} on {row.part}"
        given = paths.get(key, paths.get(row.path) if row.part is None else None)
        if given is not None:
            yield Target(given, None, {name: str(value) for name, value in params.items()})
            continue
        found = [_target(row.path, row.part, params, number) for number in range(len(_WORDS))]
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
        yield _free_of(others, of_rules) or _free_of(earlier, of_rules) or of_rules[0]


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


def _target(route: str, part: str | None, params: Mapping[str, object], number: int) -> Target | str:
    host, whole = _split(route)
    if host is not None and (_PARAMETER.search(host) or "." not in host):
        return f"nobody knows which host {route} has"
    is_below = whole.endswith(_BELOW)
    path = whole.removesuffix(" (default)").removesuffix("/**")
    if _EXPRESSION.search(_PARAMETER.sub("", path)):
        return f"{route} is a regular expression"
    if part is not None:
        joined = _joined(path, part, is_below=is_below)
        if joined is None:
            return f"no path is known that both {route} and the rule for {part} take"
        path = joined
    values: dict[str, str] = {}

    def value(found: re.Match[str]) -> str:
        name = _name_of(found)
        values[name] = str(params[name]) if name in params else _sample(found, number)
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


def _sample(found: re.Match[str], number: int) -> str:
    kind = _kind_of(found)
    if kind == "any" and found["given"]:
        choices = [choice.strip(" '\"") for choice in found["given"].split(",")]
        return choices[number % len(choices)]
    return _TYPED[kind][1](number + 1) if kind in _TYPED else _WORDS[number]


def _joined(path: str, part: str, *, is_below: bool) -> str | None:
    """Return a route's path with the segments that a rule writes out in the place of its parameters."""
    is_open = part.endswith("/**")
    segments, wanted = path.split("/"), part.removesuffix("/**").split("/")
    takes_more = is_below or _takes_slashes(segments[-1])
    joined = []
    for number in range(max(len(segments), len(wanted))):
        own = segments[number] if number < len(segments) else None
        rule = wanted[number] if number < len(wanted) else None
        if (own is None and not takes_more) or (rule is None and not is_open):
            return None
        if rule in {None, "*"}:
            joined.append(_WORDS[0] if own is None else own)
        elif own is not None and not _takes(own, str(rule)):
            return None
        else:
            joined.append(str(rule))
    return "/".join(joined)


def _takes(segment: str, written: str) -> bool:
    found = _PARAMETER.fullmatch(segment)
    if found is None:
        return segment == written or _PARAMETER.search(segment) is not None
    kind = _kind_of(found)
    return kind not in _TYPED or re.fullmatch(_TYPED[kind][0], written) is not None


def _takes_slashes(segment: str) -> bool:
    return any(_kind_of(found) == "path" for found in _PARAMETER.finditer(segment))


def _written_out(route: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield the parameters of a route that a rule has written out in a path."""
    for segment, written in zip(route.split("/"), path.split("/"), strict=False):
        found = _PARAMETER.fullmatch(segment)
        if found is not None and segment != written:
            yield _name_of(found), written


def _expression_of(route: str) -> re.Pattern[str] | None:
    """Return what the paths of a route look like, if they can be told by its text."""
    host, path = _split(route)
    bare = path.removesuffix(" (default)").removesuffix("/**")
    if host is not None or path.endswith(_BELOW) or _EXPRESSION.search(_PARAMETER.sub("", bare)):
        return None
    parts = []
    end = 0
    for found in _PARAMETER.finditer(bare):
        kind = _kind_of(found)
        parts.append(re.escape(bare[end : found.start()]))
        parts.append(".*" if kind == "path" else _TYPED[kind][0] if kind in _TYPED else "[^/]+")
        end = found.end()
    return re.compile("".join(parts) + re.escape(bare[end:]))
