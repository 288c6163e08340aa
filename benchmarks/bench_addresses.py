"""What looking up an address costs in 1 to 1,000,000 networks, what making such a set costs, and a list that reloads.

Run: `make bench`, or `PYTHONPATH=. .venv/bin/python benchmarks/bench_addresses.py [rounds] [--json]`. Half of the
networks are IPv4, half IPv6. `usual` has the prefix lengths of real lists; `every` has all lengths from 13 and 21 on,
spread evenly, with a network of each shorter one in a corner that no look-up comes near. Medians over interleaved
rounds, CPU time; the A/A row is the one above it again, the noise. Making is measured once a size. The last table is
the wall clock: what requests wait while a list of a million is read again.
"""

from __future__ import annotations

import gc
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from authz403 import AddressFile, AddressSet
from authz403.addresses import Address
from benchmarks.measure import Bar, Cell, Measured, Report, Row, measured

LOOKUPS: Final = 1_000  # a round
SIZES: Final = (1, 100, 10_000, 1_000_000)
USUAL: Final = {
    4: (16, 20, 22, 23, 24, 24, 24, 25, 26, 28, 29, 30, 32, 32, 32),
    6: (32, 36, 40, 44, 48, 48, 56, 64, 128),
}
EVERY: Final = {4: tuple(range(13, 33)), 6: tuple(range(21, 129))}
CHOSEN: Final = random.Random(7)  # noqa: S311 - the same networks in every run


def networks(size: int, lengths: dict[int, tuple[int, ...]]) -> Iterator[str]:
    """Yield so many networks, of which no two strings are kept."""
    if lengths is EVERY and size >= 1_000:
        yield from (f"{IPv4Address(1 << (32 - length))}/{length}" for length in range(5, 13))
        yield from (f"{IPv6Address(1 << (128 - length))}/{length}" for length in range(5, 21))
    for number in range(size):
        yield cidr(4 if number % 2 == 0 else 6, lengths)


def cidr(version: int, lengths: dict[int, tuple[int, ...]]) -> str:
    """Return a network somewhere in 64.0.0.0/2 or in 2000::/3, where global addresses are."""
    length = CHOSEN.choice(lengths[version])
    number = somewhere(version)
    bits = 32 if version == 4 else 128
    make = IPv4Address if version == 4 else IPv6Address
    return f"{make(number >> (bits - length) << (bits - length))}/{length}"


def somewhere(version: int) -> int:
    """Return the number of an address there."""
    return 1 << 30 | CHOSEN.getrandbits(30) if version == 4 else 1 << 125 | CHOSEN.getrandbits(125)


class Measurable:
    """A set, and the addresses that it is asked for."""

    def __init__(self, name: str, size: int, lengths: dict[int, tuple[int, ...]]) -> None:
        self.name, self.size = name, size
        cidrs = list(networks(size, lengths))
        gc.collect()
        started = time.process_time()
        self.found = AddressSet(cidrs)
        self.made_in = time.process_time() - started
        hits = [maker(text)(text.partition("/")[0]) for text in CHOSEN.choices(cidrs, k=4 * LOOKUPS)]
        others: list[Address] = [maker(":" * number)(somewhere(4 + 2 * number)) for _ in hits for number in (0, 1)]
        misses = [one for one in others if one not in self.found]
        self.asked = {
            f"IPv{version} {name}": [one for one in asked if one.version == version][:LOOKUPS]
            for version in (4, 6)
            for name, asked in (("hit", hits), ("miss", misses))
        }

    def rows(self) -> Iterator[Row]:
        """Yield a row for each kind of address."""
        for kind, asked in self.asked.items():
            if asked:
                yield Row(f"{self.name} {kind}", partial(look_up, self.found, asked), units=len(asked))

    def told(self, found: Measured) -> dict[str, Cell]:
        """Return what came of those rows, as one line."""
        taken = {kind: found.us(f"{self.name} {kind}") if asked else None for kind, asked in self.asked.items()}
        return {"lengths, networks": self.name, **taken}


def look_up(found: AddressSet | AddressFile, asked: Iterable[Address]) -> None:
    """Look up addresses."""
    for address in asked:
        address in found  # noqa: B015 - what is measured


def maker(text: str) -> type[IPv4Address | IPv6Address]:
    """Return the class of a network's addresses."""
    return IPv6Address if ":" in text else IPv4Address


def pauses(path: Path, cidrs: list[str]) -> dict[str, tuple[list[float], float]]:
    """Return what look-ups took, in milliseconds, and for how many seconds: while a list was read again, and not."""
    path.write_text("\n".join(cidrs))
    found = AddressFile(path, every=0.01)
    address = IPv4Address(somewhere(4))
    wait_for_reader(found, address)

    def look_up_while(goes_on: Callable[[], bool]) -> tuple[list[float], float]:
        taken: list[float] = []
        started = time.perf_counter()
        while goes_on():
            asked = time.perf_counter()
            for _ in range(20):
                address in found  # noqa: B015 - what is measured
            taken.append((time.perf_counter() - asked) * 1_000)
        return taken, time.perf_counter() - started

    before = found.health()["version"]
    path.write_text("\n".join(cidrs[len(cidrs) // 50 :]))
    read_again = look_up_while(lambda: found.health()["version"] == before)
    wait_for_reader(found, address)
    until = time.perf_counter() + read_again[1]
    return {"read again": read_again, "left alone": look_up_while(lambda: time.perf_counter() < until)}


def wait_for_reader(found: AddressFile, address: Address) -> None:
    """Let the young file be read for a second time."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until or any(thread.name == "authz403-list" for thread in threading.enumerate()):
        address in found  # noqa: B015 - which looks at the file
        time.sleep(0.02)


def main() -> None:
    """Measure everything and tell it."""
    report = Report(__doc__, 20)
    sets = [Measurable(f"usual {size:,}", size, USUAL) for size in SIZES]
    sets += [Measurable(f"every {size:,}", size, EVERY) for size in SIZES[1:]]
    again = Measurable("usual 100, A/A", 100, USUAL)
    again.found, again.asked = sets[1].found, sets[1].asked
    sets.insert(2, again)
    small = Path(tempfile.mkdtemp()) / "list"
    small.write_text("10.0.0.0/8\n")
    one = [IPv4Address("10.1.1.1")] * LOOKUPS
    ones: dict[str, AddressSet | AddressFile] = {
        "AddressSet": AddressSet(["10.0.0.0/8"]),
        "AddressFile": AddressFile(small, every=86_400),
    }
    alone = [
        Row(f"{name}, one network", partial(look_up, found, one), "AddressSet, one network", units=LOOKUPS)
        for name, found in ones.items()
    ]
    found = measured([*(row for each in sets for row in each.rows()), *alone], report.number)
    title = f"A look-up, {LOOKUPS} a round, microseconds of CPU time, medians"
    report.table("rows", title, [each.told(found) for each in sets])
    report.table("file", "A file", [record for record in found.table() if "one network" in str(record["row"])])
    largest = [each for each in sets if each.size == SIZES[-1]]
    report.table("making", "Making a set, CPU time", [{"networks": each.name, "s": each.made_in} for each in largest])
    slowest = max(found.us(row.name) for each in largest for row in each.rows())
    report.bars(Bar(f"a look-up in {SIZES[-1]:,} networks, the slowest of these", slowest, "us", 2, 1.1))
    del sets, again, largest

    waits = pauses(small, list(networks(SIZES[-1], USUAL)))
    told: list[dict[str, Cell]] = []
    for name, (taken, seconds) in waits.items():
        quantiles = statistics.quantiles(taken, n=1_000)
        at = {"median": quantiles[499], "p99": quantiles[989], "p99.9": quantiles[998], "at most": max(taken)}
        told.append({"while it was": name, "s": seconds, **at})
    title = f"20 look-ups in a file of {SIZES[-1]:,} networks, wall clock, ms, while it was read again, and not"
    report.table("pauses", title, told)
    report.end()


if __name__ == "__main__":
    main()
