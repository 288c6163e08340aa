"""What the benchmarks share: rows that are measured by turns in one run, on CPU time, and told as tables or as JSON.

Every benchmark takes a number (of rounds, mostly) and `--json`, which prints one JSON object in the place of tables.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import isawaitable
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

Cell = str | int | float | None
Table = Sequence[Mapping[str, Cell]]


class Row(NamedTuple):
    """What is measured: `work`, plain or async, called so many times a round, `units` of what is counted each time."""

    name: str
    work: Callable[[], object]
    base: str = ""
    """The row that it is compared with."""
    calls: int = 1
    units: int = 1
    warm: int | None = None
    """How often it is called before anything is measured: as often as in a round, unless said."""
    within: Callable[[], AbstractContextManager[object]] = nullcontext
    """What holds while it is measured, entered and left off the clock."""


class Measured:
    """What rows took in each round, in microseconds a unit. Pairs of one round are compared, and medians told."""

    def __init__(self, rows: Iterable[Row], taken: Mapping[str, list[float]]) -> None:
        self._rows = tuple(rows)
        self._taken = taken

    def us(self, name: str) -> float:
        """Return what a row took."""
        return statistics.median(self._taken[name])

    def spread(self, name: str) -> float:
        """Return the distance of the quartiles."""
        low, _, high = statistics.quantiles(self._taken[name], n=4)
        return high - low

    def added(self, name: str, base: str) -> float:
        """Return how much more a row took than another."""
        return statistics.median(one - two for one, two in self._pairs(name, base))

    def ratio(self, name: str, base: str) -> float:
        """Return how many times as much a row took as another."""
        return statistics.median(one / two for one, two in self._pairs(name, base))

    def table(self) -> Table:
        """Return all rows, and how they compare with their bases."""
        return [self._record(row) for row in self._rows]

    def _record(self, row: Row) -> dict[str, Cell]:
        told: dict[str, Cell] = {"row": row.name, "us": self.us(row.name), "spread": self.spread(row.name)}
        if row.base:
            told |= {"added": self.added(row.name, row.base), "ratio": self.ratio(row.name, row.base), "over": row.base}
        return told

    def _pairs(self, name: str, base: str) -> Iterable[tuple[float, float]]:
        return zip(self._taken[name], self._taken[base], strict=True)


def measured(rows: Iterable[Row], rounds: float) -> Measured:
    """Measure all rows, by turns. One that is async runs on an event loop, a plain one outside of any."""
    rows = tuple(rows)
    taken: dict[str, list[float]] = {row.name: [] for row in rows}
    is_async = {}
    with asyncio.Runner() as runner:
        for row in rows:
            with row.within():
                is_async[row.name] = runner.run(_called(row, row.calls if row.warm is None else row.warm))
        gc.collect()
        gc.freeze()  # the collector would look at the apps of all rows in each of them
        for _ in range(max(int(rounds), 2)):  # fewer have no spread
            for row in rows:
                with row.within():
                    spent = runner.run(_spent_async(row)) if is_async[row.name] else _spent(row)
                taken[row.name].append(spent / row.calls / row.units / 1_000)
        gc.unfreeze()
    return Measured(rows, taken)


def asked_a_round(calls: int) -> int:
    """Return how often a row of so many calls is called in a round, with those before the clock starts.

    The processor still has the code of the row before in its caches then, which all rows but the A/A would pay for.
    """
    return calls + calls // 10


async def _called(row: Row, times: int) -> bool:
    """Call a row before it is measured, and tell whether it is async."""
    is_async = False
    for _ in range(times):
        done = row.work()
        is_async = isawaitable(done)
        if isawaitable(done):
            await done
    return is_async


async def _spent_async(row: Row) -> int:
    work: Callable[[], Any] = row.work
    for _ in range(asked_a_round(row.calls) - row.calls):
        await work()
    started = time.process_time_ns()
    for _ in repeat(None, row.calls):
        await work()
    return time.process_time_ns() - started


def _spent(row: Row) -> int:
    work = row.work
    for _ in range(asked_a_round(row.calls) - row.calls):
        work()
    started = time.process_time_ns()
    for _ in repeat(None, row.calls):
        work()
    return time.process_time_ns() - started


def traced(make: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes that Python holds for what is made, and those that it held at most meanwhile."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make()
        gc.collect()
        found = tracemalloc.get_traced_memory()
        del made
    finally:
        tracemalloc.stop()
    return found


class Bar(NamedTuple):
    """A figure that this project holds itself to, and what it was in this run; nothing fails where it is higher."""

    what: str
    measured: float
    unit: str
    at_most: float
    aim: float


class Report:
    """What a benchmark has to tell; `number` is what the command line gave, or the default."""

    def __init__(self, doc: str | None, number: float, what: str = "rounds", *flags: str) -> None:
        parser = argparse.ArgumentParser(description=doc and doc.partition("\n")[0])
        parser.add_argument("number", nargs="?", type=float, default=number, help=f"{what} ({number:g} unless given)")
        for flag in ("json", *flags):
            parser.add_argument(f"--{flag}", action="store_true")
        self._given = vars(parser.parse_args())
        self.number: float = self._given["number"]
        version = sys.version.split()[0]
        self._told: dict[str, object] = {"benchmark": Path(sys.argv[0]).stem, "python": version, what: self.number}
        self._say(f"CPython {version}, {self.number:,.10g} {what}")

    def flag(self, name: str) -> bool:
        """Tell whether a flag was given."""
        return bool(self._given[name])

    def table(self, name: str, title: str, records: Table) -> None:
        """Tell a table, which goes by `name` in JSON."""
        self._told[name] = [
            {head: round(cell, 4) if isinstance(cell, float) else cell for head, cell in record.items()}
            for record in records
        ]
        heads = list(dict.fromkeys(head for record in records for head in record))
        lines = [["", *heads[1:]], *([_shown(record.get(head)) for head in heads] for record in records)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        self._say(f"\n{title}\n")
        for first, *others in lines:
            cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
            self._say("  ".join([f"{first:{widths[0]}}", *cells]))

    def bars(self, *bars: Bar) -> None:
        """Tell what this project holds itself to."""
        self.table("bars", "What it should be", [bar._asdict() for bar in bars])

    def skipped(self, why: str) -> None:
        """Tell that something could not be measured here."""
        self._told["skipped"] = why
        self._say(why)

    def end(self) -> None:
        """Print what is told as JSON, where that was asked for."""
        if self._given["json"]:
            print(json.dumps(self._told, indent=1))

    def _say(self, line: str) -> None:
        if not self._given["json"]:
            print(line, flush=True)


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:,.2f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else cell
