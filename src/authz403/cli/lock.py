"""`authz403 lock`: writes the whole policy of an app to a file, and tells what a change of it means."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from authz403.cli.changes import Change, Kind, changes
from authz403.cli.loading import Failure
from authz403.cli.lockfile import Lock, lock_of, read_lock, text_of
from authz403.cli.reach import DEPENDS, MISSES, REACHES, identity_in, reach, wanted_in, wrong_with
from authz403.cli.routes import covered_by, relative
from authz403.facts import Rejected
from authz403.guarded import Guarded

_COLOURS: Final = {
    Kind.LOOSENED: "red",
    Kind.CHANGED: "yellow",
    Kind.NEW: "yellow",
    Kind.TIGHTENED: "green",
    REACHES: "green",
    DEPENDS: "yellow",
    MISSES: "red",
}


def write(found: Guarded, file: Path) -> None:
    """Write the file, and tell what has changed since it was written before."""
    lock = lock_of(found)
    text = text_of(lock)
    if file.exists():
        _tell(changes(_read(file), lock))
    try:
        _replace(file, text)
    except OSError as error:
        raise Failure(f"{file}: {error}") from error
    click.echo(f"wrote {file}: {len(lock.entries)} endpoints")


def check(found: Guarded, file: Path, again: str) -> bool:
    """Tell every difference between an app and the file, and whether there is none. `again` is what writes it anew."""
    if not file.exists():
        raise Failure(f"{file} does not exist: write it by {again}")
    lock = lock_of(found)
    differences = changes(_read(file), lock)
    if not differences:
        click.echo(f"{file} is up to date: {len(lock.entries)} endpoints")
        return True
    _tell(differences)
    counted = Counter(change.kind for change in differences)
    told = ", ".join(f"{counted[kind]} {kind}" for kind in Kind if counted[kind])
    click.echo(f"\n{file} says otherwise: {told}. If that is meant, run {again} and commit the file.")
    return False


def prove(found: Guarded, claims: Path, wanted: Sequence[str]) -> bool:
    """Tell which endpoints a token with these claims reaches, and whether all that are wanted are among them."""
    requests = wanted_in(wanted)
    served = covered_by(found)
    identity = identity_in(claims, found.gate)
    if isinstance(identity, Rejected):
        click.echo(f"a token with these claims is refused: {identity.reason}, {identity.hint}\n")
    reached = reach(served, identity, found.gate)
    width = max(len(one) for one in (REACHES, DEPENDS, MISSES))
    for one in reached:
        result = click.style(one.result.ljust(width), fg=_COLOURS[one.result])
        click.echo(f"{result}  {one.key}{f': {one.why}' if one.why else ''}")
    counted = Counter(one.result for one in reached)
    click.echo(
        f"\n{len(reached)} endpoints: {', '.join(f'{one} {counted[one]}' for one in (REACHES, DEPENDS, MISSES))}"
    )
    wrong = wrong_with(requests, served, reached)
    for line in wrong:
        click.secho(f"must be reached and is not: {line}", fg="red")
    return not wrong


def _read(file: Path) -> Lock:
    try:
        return read_lock(file.read_text(encoding="utf-8"), str(file))
    except (OSError, ValueError) as error:
        raise Failure(f"{file}: {error}") from error


def _replace(file: Path, text: str) -> None:
    """Write a file so that it is never half written."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8", newline="\n", delete=False) as made:
        made.write(text)
    whole = Path(made.name)
    whole.chmod(file.stat().st_mode & 0o777 if file.exists() else 0o644)
    whole.replace(file)


def _tell(differences: Sequence[Change]) -> None:
    for change in differences:
        about, _, rest = str(change).partition(f": {change.kind}")
        kind = click.style(str(change.kind), fg=_COLOURS.get(change.kind), bold=change.kind is Kind.LOOSENED)
        written = f" ({', '.join(dict.fromkeys(map(relative, change.written)))})" if change.written else ""
        click.echo(f"{about}: {kind}{rest}{written}")
