"""What looking up an address costs in 1 to 1,000,000 networks, what making such a set costs, and a list that reloads.

Run: `make bench`, or `.venv/bin/python benchmarks/bench_addresses.py [rounds]`. Half of the networks are IPv4, half
IPv6. `usual` has the prefix lengths of real lists; `every` has all lengths from 13 and 21 on, spread evenly, with a
network of each shorter one in a corner that no look-up comes near. Medians over interleaved rounds, CPU time. The
second row of a hundred is the same again (A/A, the noise). Making is measured once a size, memory by tracemalloc. The
last table is the wall clock: what requests wait while a list of a million is read again.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from authz403 import AddressFile, AddressSet
from authz403.addresses import Address

LOOKUPS: Final = 1_000  # a round
SIZES: Final = (1, 100, 100, 10_000, 1_000_000)
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


class Row:
    """The look-ups of one set."""

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
        self.taken: dict[str, list[float]] = {name: [] for name in self.asked}

    def measure(self, *, keep: bool) -> None:
        """Look up each kind of address once over."""
        found = self.found
        for name, asked in self.asked.items():
            if not asked:
                continue
            started = time.process_time_ns()
            for address in asked:
                address in found  # noqa: B015 - what is measured
            if keep:
                self.taken[name].append((time.process_time_ns() - started) / len(asked) / 1_000)

    def __str__(self) -> str:
        cells = [f"{statistics.median(taken):11.2f}" if taken else f"{'-':>11}" for taken in self.taken.values()]
        return f"{self.name:8}{self.size:12,}{''.join(cells)}"


def maker(text: str) -> type[IPv4Address | IPv6Address]:
    """Return the class of a network's addresses."""
    return IPv6Address if ":" in text else IPv4Address


def memory(size: int, lengths: dict[int, tuple[int, ...]]) -> tuple[float, float]:
    """Return the megabytes that a set takes, and at most took while it was made."""
    gc.collect()
    tracemalloc.start()
    found = AddressSet(networks(size, lengths))
    taken, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del found
    return taken / 1e6, peak / 1e6


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


def main(rounds: int) -> None:
    """Measure everything and print it."""
    rows = [Row("usual", size, USUAL) for size in SIZES] + [Row("every", size, EVERY) for size in SIZES[1:]]
    for number in range(rounds + 1):
        for row in rows:
            row.measure(keep=number > 0)
    print(
        f"CPython {sys.version.split()[0]}, {rounds} rounds of {LOOKUPS} look-ups, microseconds of CPU time, medians\n"
    )
    print(f"{'lengths':8}{'networks':>12}" + "".join(f"{name:>11}" for name in rows[0].asked))
    for row in rows:
        print(row)
    print(f"\n{'making':8}{'networks':>12}{'s':>11}{'MB':>11}{'MB at most':>11}")
    largest = [row for row in rows if row.size == SIZES[-1]]
    for row in largest:
        taken, peak = memory(row.size, USUAL if row.name == "usual" else EVERY)
        print(f"{row.name:8}{row.size:12,}{row.made_in:11.2f}{taken:11.0f}{peak:11.0f}")
    del rows, largest, row

    small = Path(tempfile.mkdtemp()) / "list"
    small.write_text("10.0.0.0/8\n")
    plain, listed = AddressSet(["10.0.0.0/8"]), AddressFile(small, every=86_400)
    address = IPv4Address("10.1.1.1")
    taken_by: dict[str, list[float]] = {"AddressSet": [], "AddressFile": []}
    for _ in range(rounds):
        for name, found in (("AddressSet", plain), ("AddressFile", listed)):
            started = time.process_time_ns()
            for _ in range(LOOKUPS):
                address in found  # noqa: B015 - what is measured
            taken_by[name].append((time.process_time_ns() - started) / LOOKUPS / 1_000)
    print("\none network, us: " + ", ".join(f"{name} {statistics.median(t):.2f}" for name, t in taken_by.items()))

    print(f"\n20 look-ups in a file of {SIZES[-1]:,} networks, wall clock, ms, while it was")
    for name, (waits, seconds) in pauses(small, list(networks(SIZES[-1], USUAL))).items():
        quantiles = statistics.quantiles(waits, n=1_000)
        told = [f"{at} {quantiles[place]:.2f}" for at, place in (("median", 499), ("p99", 989), ("p99.9", 998))]
        print(f"  {name} ({seconds:.1f} s): {', '.join(told)}, at most {max(waits):.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
