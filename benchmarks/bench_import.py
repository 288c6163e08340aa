"""What importing `authz403` costs beyond its dependencies, each time in a fresh interpreter.

Run: `make bench`, or `PYTHONPATH=. .venv/bin/python benchmarks/bench_import.py [rounds] [--json] [--heaviest]`. All
modules of others that an import loads are loaded first, off the clock; what is left are this package's own, and those
of the standard library that nothing else had asked for. Modules take turns, medians over rounds; the A/A row is the
first one again. `--heaviest` tells the slowest of a run by `-X importtime`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Final

from benchmarks.measure import Bar, Cell, Report

MODULES: Final = ("authz403", "authz403.asgi", "authz403.wsgi")
AGAIN: Final = "authz403, A/A"
HEAVIEST: Final = 20
# As installed: compiled, which the first run sees to.
ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_LIST: Final = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
own = {"__main__", "authz403", *sys.builtin_module_names, *sys.stdlib_module_names}
print(json.dumps([name for name in sys.modules if name.partition(".")[0] not in own]))
"""
_TIME: Final = """
import contextlib, importlib, json, sys, time
begun = time.perf_counter()
for name in json.loads(sys.argv[2]):
    with contextlib.suppress(ImportError):  # some are made up by others
        importlib.import_module(name)
print("here", file=sys.stderr)
before, wall, cpu = len(sys.modules), time.perf_counter(), time.process_time()
importlib.import_module(sys.argv[1])
cpu, ended = time.process_time() - cpu, time.perf_counter()
print(json.dumps({"modules": len(sys.modules) - before, "wall": ended - wall, "cpu": cpu, "others": wall - begun}))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)  # noqa: S603 - from this file


def heaviest(module: str, first: str) -> list[dict[str, Cell]]:
    """Return the modules that took the longest by themselves."""
    told = run("-X", "importtime", "-c", _TIME, module, first).stderr.partition("here\n")[2]
    lines = [line.removeprefix("import time:").split("|") for line in told.splitlines() if "|" in line]
    found = [(int(own), int(whole), name.strip()) for own, whole, name in lines]
    return [
        {"module": name, "own us": own, "with its own": whole} for own, whole, name in sorted(found)[::-1][:HEAVIEST]
    ]


def main() -> None:
    """Measure all modules, by turns, and tell them."""
    report = Report(__doc__, 20, "rounds", "heaviest")
    firsts = {module: run("-c", _LIST, module).stdout for module in MODULES}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in (*MODULES, AGAIN)}
    for _ in range(max(int(report.number), 2)):
        for name, found in taken.items():
            module = name.partition(",")[0]
            found.append(json.loads(run("-c", _TIME, module, firsts[module]).stdout))
    lines: list[dict[str, Cell]] = []
    for name, found in taken.items():
        low, wall, high = statistics.quantiles([1e3 * one["wall"] for one in found], n=4)
        cpu, others = (statistics.median(1e3 * one[kind] for one in found) for kind in ("cpu", "others"))
        told = {"wall ms": wall, "spread": high - low, "cpu ms": cpu, "dependencies ms": others}
        lines.append({"imported": name, "modules": int(found[0]["modules"]), **told})
    report.table("imports", "Beyond the dependencies of each, medians", lines)
    if report.flag("heaviest"):
        report.table("heaviest", "The slowest of authz403", heaviest("authz403", firsts["authz403"]))
    cpu = statistics.median(1e3 * one["cpu"] for one in taken["authz403"])
    report.bars(Bar("import of authz403 beyond its dependencies, CPU time", cpu, "ms", 30, 15))
    report.end()


if __name__ == "__main__":
    main()
