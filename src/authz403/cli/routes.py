"""`authz403 routes`: the table of every endpoint, with its policy and the lines where that was written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import click

from authz403 import ConfigurationError, deny
from authz403.cli.loading import Failure
from authz403.coverage import coverage_of, served_by_rules, served_of
from authz403.endpoint import Covered, Served
from authz403.forms import Form
from authz403.guarded import Guarded, guarded_or_none
from authz403.route_objects import flat_routes, label_of, original_of, router_of
from authz403.rules import Rules

Format = Literal["table", "json", "markdown"]

_NO_RULES: Final = Rules((), deny, None)
_NO_GATE: Final = "NO GATE"
_HEADS: Final = ("METHOD", "PATH", "POLICY", "WRITTEN")


class Row(NamedTuple):
    """An endpoint in the table. `written` are places as `file:line`, relative to the current directory."""

    method: str
    path: str
    part: str | None
    endpoint: str
    policy: Form
    written: tuple[str, ...]
    is_default: bool
    has_gate: bool

    @property
    def name(self) -> str:
        """The method and the path, as people call an endpoint."""
        return f"{self.method} {self.where}"

    @property
    def where(self) -> str:
        """The path, and the part of it that a rule tells apart."""
        return self.path if self.part is None else f"{self.path} on {self.part}"

    @property
    def is_open(self) -> bool:
        """Whether anyone may call it."""
        return not self.has_gate or self.policy.name == "anyone"

    @property
    def says(self) -> str:
        """The policy in words, and what is wrong with it."""
        if not self.has_gate:
            return _NO_GATE if self.is_default else f"{_NO_GATE}: {self.policy} is not enforced"
        return f"default: {self.policy}" if self.is_default else str(self.policy)


def covered_by(found: Guarded) -> tuple[tuple[Served, Covered], ...]:
    """Return all that an app serves behind its gate; raises `Failure` where it cannot be read."""
    try:
        return served_by_rules(found.gate.rules) if found.app is None else served_of(found.app, found.gate.rules)
    except ConfigurationError as error:
        raise Failure(str(error)) from error


def rows_of(app: object) -> list[Row]:
    """Return the table of an app: of what stands behind its gate or, where it has none, of all that it serves."""
    try:
        found = guarded_or_none(app)
        if found is not None:
            return [_row(covered, has_gate=True) for _, covered in covered_by(found)]
        inside = dict(_mounted(app))
        outside = [_row(covered, has_gate=False) for covered in coverage_of(app, _NO_RULES)]
        rows = [row for row in outside if not any(row.path == at or row.path.startswith(f"{at}/") for at in inside)]
        for at, mounted in inside.items():
            rows += [_row(covered, has_gate=True, at=at) for _, covered in covered_by(mounted)]
    except ConfigurationError as error:
        raise Failure(str(error)) from error
    return rows


def _mounted(app: object, label: str = "", above: tuple[object, ...] = ()) -> Iterator[tuple[str, Guarded]]:
    """Yield the guarded apps that are mounted in one without a gate, with the path where each stands."""
    router = router_of(app)[0]
    if router is None or any(router is one for one in above):
        return
    for route, _ in flat_routes(router):
        below, original = getattr(route, "app", None), original_of(route)
        if below is not None and not hasattr(original, "endpoint"):
            here = f"{label}{original.host}:" if hasattr(original, "host") else label + label_of(route)
            found = guarded_or_none(below)
            if found is not None:
                yield here, found
            else:
                yield from _mounted(below, here, (*above, router))


def _row(covered: Covered, *, has_gate: bool, at: str = "") -> Row:
    return Row(
        covered.method,
        at + covered.path,
        None if covered.part is None else at + covered.part,
        covered.endpoint,
        covered.requirement.form(),
        tuple(relative(place) for place in covered.written),
        covered.is_default,
        has_gate,
    )


def relative(place: str) -> str:
    """Return a place, `file:line`, relative to the current directory where it lies below that."""
    path = Path(place)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


# ---- the table


def shown(rows: Sequence[Row], form: Format) -> str:
    """Return the table as text, with what is not as it should be in colour."""
    if form == "json":
        return json.dumps({"endpoints": [_as_json(row) for row in rows], "counts": _counts(rows)}, indent=2)
    lines = _markdown(rows) if form == "markdown" else _table(rows)
    return "\n".join([*lines, "", summary(rows)])


def summary(rows: Sequence[Row]) -> str:
    """Count in a sentence."""
    counts = _counts(rows)
    told = [f"{counts['by_default']} without a policy of their own", f"{counts['open']} open to anyone"]
    if counts["without_gate"]:
        told.append(f"{counts['without_gate']} with no gate before them")
    return f"{counts['endpoints']} endpoints: {', '.join(told)}"


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    return {
        "endpoints": len(rows),
        "by_default": sum(row.is_default for row in rows),
        "open": sum(row.is_open for row in rows),
        "without_gate": sum(not row.has_gate for row in rows),
    }


def _as_json(row: Row) -> dict[str, object]:
    return {
        "method": row.method,
        "path": row.path,
        "part": row.part,
        "endpoint": row.endpoint,
        "policy": str(row.policy),
        "written": list(row.written),
        "default": row.is_default,
        "gate": row.has_gate,
        "open": row.is_open,
    }


def _table(rows: Iterable[Row]) -> Iterator[str]:
    cells = [(row.method, row.where, row.says, ", ".join(row.written) or "nowhere") for row in rows]
    widths = [max(map(len, column)) for column in zip(_HEADS, *cells, strict=True)]
    yield click.style("  " + _line(_HEADS, widths), bold=True)
    for row, found in zip(rows, cells, strict=True):
        line = _line(found, widths)
        if row.is_default or not row.has_gate:
            yield click.style(f"! {line}", fg="red" if row.is_open else "yellow")
        else:
            yield f"  {line}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _markdown(rows: Iterable[Row]) -> Iterator[str]:
    yield "| Method | Path | Policy | Written |"
    yield "|---|---|---|---|"
    for row in rows:
        policy = f"`{row.says}`".replace("|", "\\|")
        stands_out = row.is_default or not row.has_gate
        path = row.where.replace("|", "\\|").replace("<", "&lt;")
        yield f"| {row.method} | {path} | {f'**{policy}**' if stands_out else policy} | {', '.join(row.written)} |"
