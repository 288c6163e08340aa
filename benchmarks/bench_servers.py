"""What the gate costs on real servers: uvicorn and granian, asked by wrk over loopback.

Run: `make bench`, or `PYTHONPATH=. python benchmarks/bench_servers.py [seconds] [--json]` in an environment of
`requirements/bench.txt`, with wrk. Each server has one worker and eight connections that stay open; apps take turns,
`seconds` in all for each. `us` is the CPU time that the server's processes took, by request, the median over turns;
requests a second depend on what else the machine does. `bare, A/A` is the same app again, the noise.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from os import sysconf
from pathlib import Path
from typing import Final

from benchmarks.measure import Cell, Report
from benchmarks.requests_made import TOO_LITTLE, headers, token
from tests.servers_made import Served

SERVERS: Final = ("uvicorn-httptools", "granian")
TURNS: Final = 5
ROWS: Final = {
    "bare": ("bare", 200),
    "bare, A/A": ("bare", 200),
    "allowed": ("guarded", 200),
    "refused, with its event": ("guarded", 403),
}


def spent_by(pid: int) -> float:
    """Return the seconds of CPU time that a process and those that it started have taken."""
    parents, spent = {}, {}
    for told in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            # proc(5): behind the name, which may hold anything, state and parent come first, times at 11 and 12.
            fields = told.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            one = int(told.parent.name)
            parents[one], spent[one] = int(fields[1]), int(fields[11]) + int(fields[12])
    family = {pid}
    while further := {one for one, parent in parents.items() if parent in family} - family:
        family |= further
    return sum(spent[one] for one in family) / sysconf("SC_CLK_TCK")


def load(wrk: str, served: Served, bearer: str, expected: int, seconds: float) -> tuple[float, float]:
    """Ask a server for so long; return microseconds of its CPU time a request, and requests a second."""
    fields = [f"--header={name}: {value}" for name, value in headers(bearer).items() if name != "host"]
    command = [wrk, "--threads=1", "--connections=8", f"--duration={seconds:.0f}s", *fields]
    assert isinstance(served.address, tuple), "at a port"
    host, port = served.address
    before = spent_by(served.pid)
    told = subprocess.run(  # noqa: S603 - wrk, with what stands here
        [*command, f"http://{host}:{port}/orders"], capture_output=True, text=True, check=True
    ).stdout
    spent = spent_by(served.pid) - before
    asked = re.search(r"(\d+) requests in ([\d.]+)s", told)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    assert asked is not None, told
    assert "Socket errors" not in told, told
    assert int(refused[1] if refused else 0) == (int(asked[1]) if expected >= 400 else 0), told
    return spent / int(asked[1]) * 1e6, int(asked[1]) / float(asked[2])


def main() -> None:
    """Measure all apps on all servers, by turns, and tell them."""
    report = Report(__doc__, 10, "seconds")
    wrk = shutil.which("wrk")
    if wrk is None or not Path("/proc/self/stat").exists():
        report.skipped("Skipped: needs Linux and wrk (apt-get install wrk).")
        report.end()
        return
    seconds = max(report.number / TURNS, 1)  # wrk takes whole ones
    bearers = {200: token(by_secret=True), 403: token(TOO_LITTLE, by_secret=True)}
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {(name, row): [] for name in SERVERS for row in ROWS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = {
            (name, app): stack.enter_context(Served(name, f"benchmarks.served_app:{app}", folder))
            for name in SERVERS
            for app in ("bare", "guarded")
        }
        for one in served.values():
            one.connected().close()  # which waits for it
        for turn in range(TURNS + 1):
            for (name, row), found in taken.items():
                app, expected = ROWS[row]
                came = load(wrk, served[name, app], bearers[expected], expected, seconds if turn else 1)
                if turn:
                    found.append(came)
    for name in SERVERS:
        report.table(name, f"{name}, {TURNS} turns of {seconds:g} s", [line(taken, name, row) for row in ROWS])
    report.end()


def line(taken: dict[tuple[str, str], list[tuple[float, float]]], name: str, row: str) -> dict[str, Cell]:
    """Return what came of one app on one server."""
    ours, bare = ([us for us, _ in taken[name, one]] for one in (row, "bare"))
    low, us, high = statistics.quantiles(ours, n=4)
    pairs = list(zip(ours, bare, strict=True))
    return {
        "row": row,
        "us": us,
        "spread": high - low,
        "added": statistics.median(one - two for one, two in pairs),
        "ratio": statistics.median(one / two for one, two in pairs),
        "requests a second": round(statistics.median(each for _, each in taken[name, row])),
    }


if __name__ == "__main__":
    main()
