"""What the event of a refusal costs, by what writes it, beside one of the same fields from a logger alone.

Run: `make bench`, or `PYTHONPATH=. python benchmarks/bench_events.py [rounds] [--json]` in an environment of
`requirements/bench.txt`. A whole refused request is measured, with its event and without, in one interleaved run, on
CPU time, medians over rounds; `event` is the difference. `alone` is one call of a logger that the host has at hand,
with the fields that were written. All goes to /dev/null.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog

from authz403.audit import LOGGER
from benchmarks.logs_made import RENDERERS, configured, stdlib_alone
from benchmarks.measure import Cell, Measured, Report, Row, measured
from benchmarks.requests_made import TOO_LITTLE, WARM, App, guarded, scope, serve, token

REQUESTS: Final = 100  # a round
SILENT: Final = "refused, no event"
STDLIB: Final = "standard library, JSON"
ALONE: Final = ", alone"


def fields_of(app: App, request: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that the event of a request has."""
    with structlog.testing.capture_logs() as events:
        asyncio.run(serve(app, request, 403))
    structlog.reset_defaults()
    (event,) = (event for event in events if event["event"] == "authz.denied")
    return {name: value for name, value in event.items() if name not in {"event", "log_level"}}


def rows() -> list[Row]:
    """Return what is measured."""
    app, request = guarded(), scope("/orders", token(TOO_LITTLE))
    fields = fields_of(app, request)

    def refuse() -> object:
        return serve(app, request, 403)

    def by_structlog() -> Callable[[], None]:
        logger = structlog.get_logger()
        return lambda: logger.warning("authz.denied", **fields)

    def by_stdlib() -> None:
        told = {"event": "authz.denied", "level": "warning", **fields}
        logging.getLogger(LOGGER).warning("%s", json.dumps(told))

    made = [
        Row(SILENT, refuse, calls=REQUESTS, warm=WARM, within=partial(stdlib_alone, logging.CRITICAL)),
        Row("A/A", refuse, SILENT, REQUESTS, within=partial(stdlib_alone, logging.CRITICAL)),
        Row(STDLIB, refuse, SILENT, REQUESTS, within=stdlib_alone),
        Row(STDLIB + ALONE, by_stdlib, calls=REQUESTS, within=stdlib_alone),
    ]
    for name in RENDERERS:
        within = partial(configured, name)
        made.append(Row(name, refuse, SILENT, REQUESTS, within=within))
        made.append(Row(name + ALONE, by_structlog(), calls=REQUESTS, within=within))
    return made


def line(name: str, found: Measured) -> dict[str, Cell]:
    """Return what came of one way to write events."""
    event, alone = found.added(name, SILENT), found.us(name + ALONE)
    return {"written by": name, "event": event, "alone": alone, "more": event - alone, "times": event / alone}


def main() -> None:
    """Measure all rows, interleaved, and tell them."""
    report = Report(__doc__, 40)
    found = measured(rows(), report.number)
    report.table("rows", f"A refused request, {REQUESTS} a round, microseconds of CPU time, medians", found.table())
    lines = [line(name, found) for name in (STDLIB, *RENDERERS)]
    report.table("events", "Its event, and one of the same fields written by a logger alone", lines)
    report.end()


if __name__ == "__main__":
    main()
