"""Paths: which are refused, how patterns match them, and an index that finds all matching patterns in bounded time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

# Routers, proxies and people read these differently: control characters, backslashes, what could not be decoded.
_AMBIGUOUS = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ufffd\ud800-\udfff]")
_DOT_SEGMENT = re.compile(r"//|/\.{1,2}(?:/|\Z)")


# Finds nothing in nearly every path that is not plain ASCII, which is then judged by this one search.
_UNUSUAL = re.compile(rf"{_AMBIGUOUS.pattern}|//|/\.|\A[^/]")


def is_usual(path: str) -> bool:
    """Tell in little time whether a path is neither malformed nor holds dot segments."""
    if path.isascii() and path.isprintable():  # half the time of a regular expression
        return path[:1] == "/" and "//" not in path and "/." not in path and "\\" not in path
    return bool(path) and _UNUSUAL.search(path) is None


def is_malformed(path: str) -> bool:
    """Tell whether `path` is refused whatever route would take it. Empty is what lies exactly at `root_path`."""
    return (path[:1] not in {"/", ""}) or _AMBIGUOUS.search(path) is not None


def has_dot_segments(path: str) -> bool:
    """Tell whether `path` holds `//`, `/./` or `/../`, which another reader may shorten."""
    return _DOT_SEGMENT.search(path) is not None


def without_dot_segments(path: str) -> str:
    """Return what a reader that shortens paths makes of `path` (RFC 3986 section 5.2.4, and `//` as one slash)."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in {"", "."}:
            kept.append(segment)
    trailing = "/" if kept and segments[-1] in {"", ".", ".."} else ""
    return "/" + "/".join(kept) + trailing


class PathPattern(NamedTuple):
    """A path in segments, `None` standing for any one that is not empty; with `below`, all paths under it match too."""

    segments: tuple[str | None, ...]
    below: bool

    @property
    def is_literal(self) -> bool:
        """Whether exactly one path matches."""
        return not self.below and None not in self.segments

    def as_path(self) -> str:
        """Return the only path that a literal pattern matches."""
        return "".join(f"/{segment}" for segment in self.segments)

    def covers(self, other: PathPattern) -> bool:
        """Tell whether every path that matches `other` matches this pattern."""
        mine, theirs = self.segments, other.segments
        if len(mine) > len(theirs) or (not self.below and (other.below or len(mine) != len(theirs))):
            return False
        return all(
            their == my or (my is None and their != "") for my, their in zip(mine, theirs, strict=False)
        )  # fmt: skip

    def meets(self, other: PathPattern) -> bool:
        """Tell whether some path may match both patterns."""
        mine, theirs = self.segments, other.segments
        if (len(mine) > len(theirs) and not other.below) or (len(theirs) > len(mine) and not self.below):
            return False
        return all(
            my == their or (my is None and their != "") or (their is None and my != "")
            for my, their in zip(mine, theirs, strict=False)
        )


EVERYTHING: Final = PathPattern((), below=True)


def parse_pattern(text: str) -> PathPattern | str:
    """Parse a rule's path (`*` is one segment, a final `/**` the path itself and all below) or say what is wrong."""
    if not text.startswith("/"):
        return "a path starts with a slash"
    if is_malformed(text) or has_dot_segments(text):
        return "control characters, backslashes, dot segments and // never reach a route"
    if "?" in text or "#" in text or re.search("%[0-9A-Fa-f]{2}", text):
        return "a path has no query and no fragment, and is decoded: write a space, not %20"
    if "{" in text or "}" in text:
        return "a rule's path has no {parameters}; write * for one segment"
    below = text.endswith("/**")
    segments = split(text[: -len("/**")] if below else text)
    if any("*" in segment and segment != "*" for segment in segments):
        return "* stands for one whole segment, and ** only at the end, after a slash"
    return PathPattern(tuple(None if segment == "*" else segment for segment in segments), below)


def split(path: str) -> list[str]:
    """Split a path at its slashes; `""` has no segments, `"/"` has one empty one."""
    return path.split("/")[1:]


class _Node(Generic[T]):
    """A place in the tree of all patterns."""

    __slots__ = ("any", "at", "below", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node[T]] = {}
        self.any: _Node[T] | None = None
        self.at: list[tuple[int, T]] = []
        self.below: list[tuple[int, T]] = []


class _State(Generic[T]):
    """All places in the tree that the segments read so far lead to; made when first needed, as few of them ever are.

    A segment leads on by `next` where some pattern writes it out, else by `other`. `found` is what is registered for a
    path that ends here. Requests cannot make more states than the patterns have ways to overlap.
    """

    __slots__ = ("_below", "_nodes", "found", "is_last", "next", "other")

    def __init__(self, nodes: list[_Node[T]], below: list[tuple[int, T]]) -> None:
        self._nodes = nodes
        self._below = [*below, *(entry for node in nodes for entry in node.below)]
        here = [*self._below, *(entry for node in nodes for entry in node.at)]
        self.found: tuple[T, ...] = tuple([value for _, value in sorted(here, key=_order)])
        self.is_last = not nodes
        self.next: dict[str, _State[T]] = {}
        self.other: _State[T] | None = None

    def after(self, segment: str) -> _State[T]:
        """Return the state that a segment leads to, from now on without asking here."""
        written = [node.static[segment] for node in self._nodes if segment in node.static]
        # An empty segment is none that a pattern's * stands for.
        nodes = written + [node.any for node in self._nodes if node.any is not None and segment]
        if written or not segment:
            state = self.next[segment] = _State(nodes, self._below)
        elif self.other is None:
            state = self.other = _State(nodes, self._below)
        else:
            state = self.other
        return state


class PathIndex(Generic[T]):
    """Finds what is registered for a path, in the order of registration; literal paths by one dictionary look-up.

    The time of a look-up is bounded by the number of segments of the longest pattern, not by the number of patterns.
    """

    def __init__(self, entries: Iterable[tuple[PathPattern, T]]) -> None:
        root: _Node[T] = _Node()
        literals: list[str] = []
        heads: set[str] = set()
        for order, (pattern, value) in enumerate(entries):
            node = root
            for segment in pattern.segments:
                if segment is None:
                    node.any = node.any or _Node()
                    node = node.any
                else:
                    node = node.static.setdefault(segment, _Node())
            (node.below if pattern.below else node.at).append((order, value))
            if None not in pattern.segments:
                literals.append(pattern.as_path())
            elif None not in pattern.segments[:-1]:
                heads.add("".join(f"/{segment}" for segment in pattern.segments[:-1]))
        self._written = _written(root)
        self._start = _State([root], [])
        self._literal = {path: self._walk(path).found for path in literals}
        # Most paths with a parameter end with it.
        self._heads = {path: self._walk(path) for path in heads}

    def find(self, path: str) -> tuple[T, ...]:
        """Return all that is registered under patterns that match `path`."""
        found = self._literal.get(path)
        if found is not None:
            return found
        head, slash, last = path.rpartition("/")
        state = self._heads.get(head)
        if state is None or not slash:
            return self._walk(path).found
        if last in self._written:
            return (state.next.get(last) or state.after(last)).found
        return (state.other or state.after(last)).found

    def _walk(self, path: str) -> _State[T]:
        state = self._start
        written = self._written
        for segment in path.split("/")[1:]:
            if segment in written:
                state = state.next.get(segment) or state.after(segment)
            else:
                state = state.other or state.after(segment)
            if state.is_last:
                break
        return state


def _written(node: _Node[T]) -> set[str]:
    """Return every segment that some pattern writes out, the empty one included."""
    found, waiting = {""}, [node]
    while waiting:
        node = waiting.pop()
        found.update(node.static)
        waiting += [*node.static.values(), *([node.any] if node.any is not None else [])]
    return found


def _order(entry: tuple[int, object]) -> int:
    return entry[0]
