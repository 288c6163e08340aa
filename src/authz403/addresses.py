"""Addresses, read strictly, and sets of networks that are looked up at one cost, however many networks they hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain
from typing import Final, NamedTuple

from authz403.cidr import MAPPED, parse_network
from authz403.errors import Mistakes

Address = IPv4Address | IPv6Address

MOST_TOLD: Final = 50
"""So many wrong networks of one list are told one by one."""

MOST_KEPT: Final = 1_000
"""So many networks are kept as they were written; of a longer list, the digest is."""

_FEW: Final = 16_384  # networks that one list holds as well as many lists do
_LONGEST_ADDRESS = 64  # characters; an IPv6 address with a zone is shorter


def parse_address(text: str) -> Address | None:
    """Read an IP address; a zone is dropped, an IPv4-mapped address is the IPv4 one, anything else is `None`."""
    if len(text) > _LONGEST_ADDRESS:
        return None
    return _parse_address(text)


@lru_cache(maxsize=16_384)
def _parse_address(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0] if ":" in text else text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_node(text: str) -> Address | None:
    """Read an address as proxies write it in a header: plain, `[v6]`, `[v6]:port` or `v4:port`."""
    text = text.strip(" \t")
    if text.startswith("["):
        inside, bracket, port = text[1:].partition("]")
        if not bracket or (port and not (port.startswith(":") and port[1:].isdecimal())):
            return None
        return parse_address(inside) if ":" in inside else None
    if text.count(":") == 1:
        text, _, port = text.partition(":")
        if not port.isdecimal():
            return None
    return parse_address(text)


class Addresses(ABC):
    """What holds addresses: a set of networks, a file of them that may change, or several of these."""

    __slots__ = ()

    cidrs: tuple[str, ...]
    """The networks as they were written, where these never change and are not too many."""
    may_be_empty: bool
    """Whether no network may be all there is, now or after a change."""

    @abstractmethod
    def __contains__(self, address: Address | str) -> bool:
        """Tell whether an address is in one of the networks."""

    def __bool__(self) -> bool:
        """Tell whether an address may be in it, now or after a change."""
        return True

    def parts(self) -> tuple[Addresses, ...]:
        """Return what this consists of."""
        return (self,)

    def written(self) -> str:
        """Return how one would write this among the arguments of `networks(...)`."""
        return repr(self)


class _Family(NamedTuple):
    """The networks of one IP version, none of them within another.

    A network is one number, its key: the first address, and the prefix length in the lowest byte. Keys sort by address.
    Those that share their first bits, all above `shift`, lie together at that place of `narrow`, and those with a
    shorter prefix in `wide`; where there are few networks, all do, and `narrow` is empty.
    """

    shift: int
    ends: tuple[int, ...]
    """By prefix length: the bits that lead from a key to the end of its network."""
    wide: Sequence[int]
    narrow: tuple[Sequence[int], ...]
    size: int

    def taking_over(self, old: _Family) -> tuple[_Family, int]:
        """Return this, with an `old` family's memory where they are the same, and how many networks both have."""
        if bool(self.narrow) is not bool(old.narrow):
            few, many = (old, self) if self.narrow else (self, old)
            return self, sum(map(set(few.wide).__contains__, chain(many.wide, *many.narrow)))
        common = len(set(self.wide).intersection(old.wide))
        narrow = list(self.narrow)
        for place, (keys, before) in enumerate(zip(self.narrow, old.narrow, strict=True)):
            if keys == before:
                narrow[place] = before
                common += len(keys)
            else:
                common += len(set(keys).intersection(before))
        return self._replace(narrow=tuple(narrow)), common


class _Growing:
    """The networks of one IP version as they come."""

    def __init__(self, bits: int, split: int, pack: Callable[[list[int]], Sequence[int]]) -> None:
        self._pack = pack
        self._split = split
        self._shift = bits - split
        self._wide: list[int] = []
        self._narrow: dict[int, list[int]] = {}
        self._ends = tuple(((1 << bits - length) - 1) << 8 | 0xFF for length in range(bits + 1))

    def add(self, number: int, length: int) -> None:
        if length < self._split:
            self._wide.append(number << 8 | length)
            return
        prefix = number >> self._shift
        keys = self._narrow.get(prefix)
        if keys is None:
            self._narrow[prefix] = [number << 8 | length]
        else:
            keys.append(number << 8 | length)

    def done(self) -> _Family:
        wide, shift = _outermost(self._wide, self._ends), self._shift + 8
        narrow: dict[int, Sequence[int]] = {}
        while self._narrow:  # which frees the one while the other grows
            prefix, keys = self._narrow.popitem()
            if not _holds(wide, self._ends, prefix << shift | 0xFF):
                narrow[prefix] = self._pack(_outermost(keys, self._ends))
        size = len(wide) + sum(map(len, narrow.values()))
        if size <= _FEW:
            return _Family(shift, self._ends, self._pack(sorted(chain(wide, *narrow.values()))), (), size)
        places: list[Sequence[int]] = [()] * (1 << self._split)
        for prefix, packed in narrow.items():
            places[prefix] = packed
        return _Family(shift, self._ends, self._pack(wide), tuple(places), size)


def _ipv4() -> _Growing:
    # Numbers of 64 bits side by side take a fifth of the memory, and fewer trips to it.
    return _Growing(32, 12, lambda keys: array("Q", keys))


def _ipv6() -> _Growing:
    return _Growing(128, 20, tuple)


def _holds(keys: Sequence[int], ends: tuple[int, ...], number: int) -> bool:
    """Tell whether one of these networks holds an address: its number, with the lowest byte set."""
    # The only one that can is the last that begins before the address.
    place = bisect_right(keys, number)
    return place > 0 and number <= (key := keys[place - 1]) | ends[key & 0xFF]


def _outermost(keys: list[int], ends: tuple[int, ...]) -> list[int]:
    """Return the keys in order, without those of networks within another."""
    keys.sort()
    outermost: list[int] = []
    end = -1
    for key in keys:
        if key > end:
            outermost.append(key)
            end = key | ends[key & 0xFF]
    return outermost


class AddressSet(Addresses):
    """A set of networks: `address in AddressSet(["10.0.0.0/8", "fd00::/8"])`.

    Takes CIDR strings, up to a million, an address alone meaning itself. Raises `ConfigurationError` with all that are
    wrong (of more than fifty, the first ones and how many): host bits, hostmasks, leading zeros, zones. Looks up by
    bisection, at nearly the same cost for ten networks, a million, and any number of prefix lengths. Sets of the same
    addresses, written in the same networks, are equal.
    """

    __slots__ = ("_ipv4", "_ipv6", "cidrs", "entries")

    cidrs: tuple[str, ...]
    """The networks as they were written; empty where they are more than a thousand, which are not kept."""
    entries: int
    """How many networks were given, those within others included."""

    def __init__(self, cidrs: Iterable[str], *, part: str = "AddressSet") -> None:
        mistakes = Mistakes(part)
        self._fill(mistakes, _strings(mistakes, "cidrs", cidrs), lambda index: f"cidrs[{index}]")
        mistakes.raise_if_any()

    @classmethod
    def noting(
        cls, mistakes: Mistakes, field: str, cidrs: object, *, taken: Callable[[object], bool] | None = None
    ) -> AddressSet:
        """Return the set of those networks that are right; the others, but for what is `taken`, are mistakes."""
        made = cls.__new__(cls)
        made._fill(mistakes, _strings(mistakes, field, cidrs, taken), lambda index: f"{field}[{index}]")  # noqa: SLF001 - its own
        return made

    @classmethod
    def of_lines(cls, mistakes: Mistakes, lines: Iterable[tuple[int, str]]) -> AddressSet:
        """Return the set of those numbered lines that are right; the others are mistakes. No line is kept."""
        made = cls.__new__(cls)
        made._fill(mistakes, lines, lambda number: f"line {number}", keeps=False)  # noqa: SLF001 - its own
        return made

    def _fill(
        self,
        mistakes: Mistakes,
        cidrs: Iterable[tuple[int, str]],
        name: Callable[[int], str],
        *,
        keeps: bool = True,
    ) -> None:
        ipv4, ipv6 = _ipv4(), _ipv6()
        kept: list[str] = []
        most = MOST_KEPT if keeps else 0
        entries = wrong = 0
        for place, cidr in cidrs:
            try:
                version, length, number = parse_network(cidr)
            except ValueError as error:
                wrong += 1
                if wrong <= MOST_TOLD:
                    mistakes.add(name(place), cidr, str(error))
                continue
            entries += 1
            if entries <= most:
                kept.append(cidr)
            (ipv4 if version == 4 else ipv6).add(number, length)  # noqa: PLR2004 - an IP version
        if wrong > MOST_TOLD:
            mistakes.add_secret("and", f"{wrong - MOST_TOLD:,} more that are wrong")
        self._ipv4, self._ipv6 = ipv4.done(), ipv6.done()
        self.cidrs = tuple(kept) if entries <= most else ()
        self.entries = entries

    def __contains__(self, address: Address | str) -> bool:
        if isinstance(address, IPv4Address):
            number = int(address)
            shift, ends, wide, narrow, _ = self._ipv4
        elif isinstance(address, IPv6Address):
            number = int(address)
            if number >> 32 == MAPPED:
                return IPv4Address(number & 0xFFFFFFFF) in self
            shift, ends, wide, narrow, _ = self._ipv6
        else:
            parsed = parse_address(address)
            return parsed is not None and parsed in self
        # `_holds` twice, without the calls.
        number = number << 8 | 0xFF
        place = bisect_right(wide, number)
        if place and number <= (key := wide[place - 1]) | ends[key & 0xFF]:
            return True
        if not narrow:
            return False
        keys = narrow[number >> shift]
        place = bisect_right(keys, number)
        return place > 0 and number <= (key := keys[place - 1]) | ends[key & 0xFF]

    def __bool__(self) -> bool:
        return self.entries > 0

    @property
    def may_be_empty(self) -> bool:  # type: ignore[override]  # which nobody sets
        """See `Addresses`."""
        return not self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AddressSet):
            return NotImplemented
        return (self._ipv4, self._ipv6) == (other._ipv4, other._ipv6)

    def __hash__(self) -> int:
        return hash((self._ipv4.size, self._ipv6.size))

    def __repr__(self) -> str:
        return f"AddressSet({list(self.cidrs)!r})" if self.is_kept() else f"AddressSet({self.written()})"

    def is_kept(self) -> bool:
        """Tell whether `cidrs` are all of them."""
        return len(self.cidrs) == self.entries

    def written(self) -> str:
        """See `Addresses`."""
        if self.is_kept():
            return ", ".join(map(repr, self.cidrs))
        digest = sha256()
        for family in (self._ipv4, self._ipv6):
            for keys in filter(None, (family.wide, *family.narrow)):
                digest.update(repr(keys).encode("ascii"))
        return f"<{self.entries:,} networks, {digest.hexdigest()[:12]}>"

    def changes_since(self, old: AddressSet) -> tuple[int, int]:
        """Return how many networks were added and removed, those within others left out.

        Takes over the memory of what is the same, so that little is freed with the old set, and pages that forked
        processes share stay shared.
        """
        self._ipv4, ipv4 = self._ipv4.taking_over(old._ipv4)
        self._ipv6, ipv6 = self._ipv6.taking_over(old._ipv6)
        return self._size() - ipv4 - ipv6, old._size() - ipv4 - ipv6

    def _size(self) -> int:
        return self._ipv4.size + self._ipv6.size


class Union(Addresses):
    """Several sets and files of networks as one."""

    __slots__ = ("_parts", "cidrs", "may_be_empty")

    def __init__(self, parts: tuple[Addresses, ...]) -> None:
        self._parts = parts
        self.cidrs = ()
        self.may_be_empty = all(part.may_be_empty for part in parts)

    def __contains__(self, address: Address | str) -> bool:
        return any(address in part for part in self._parts)

    def parts(self) -> tuple[Addresses, ...]:
        """See `Addresses`."""
        return self._parts

    def written(self) -> str:
        """See `Addresses`."""
        return ", ".join(part.written() for part in self._parts)

    def __repr__(self) -> str:
        return f"[{self.written()}]"


def addresses_of(mistakes: Mistakes, field: str, given: object) -> Addresses:
    """Return what was given as networks: CIDR strings, sets and files of them, alone or in a list."""
    if isinstance(given, Addresses):
        return given
    made: list[Addresses] = []

    def taken(item: object) -> bool:
        if isinstance(item, str) or not isinstance(item, Addresses):
            return False
        made.append(item)
        return True

    loose = AddressSet.noting(mistakes, field, given, taken=taken)
    parts = (loose, *made) if loose else tuple(made)
    return Union(parts) if len(parts) > 1 else parts[0] if parts else loose


def _strings(
    mistakes: Mistakes, field: str, given: object, taken: Callable[[object], bool] | None = None
) -> Iterator[tuple[int, str]]:
    """Yield the strings of a list that are not `taken`, with their places; anything else is a mistake."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        mistakes.add(field, given, "a list of strings is needed")
        return
    # A set has another order in every process; errors and the policy's version need one.
    for index, item in enumerate(sorted(given, key=str) if isinstance(given, AbstractSet) else given):
        if taken is not None and taken(item):
            continue
        if isinstance(item, str):
            yield index, item
        else:
            mistakes.add(f"{field}[{index}]", item, "a string is needed")
