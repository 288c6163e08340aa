"""Paths: what is refused, what a pattern matches, and that the index finds exactly that."""

import itertools
import posixpath
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.paths import (
    PathIndex,
    PathPattern,
    has_dot_segments,
    is_malformed,
    parse_pattern,
    split,
    without_dot_segments,
)

any_path = st.lists(st.sampled_from(["a", "b", "", ".", "..", "...", ".a", "%2e"]), max_size=6).map(
    lambda segments: "/" + "/".join(segments)
)


def pattern(text: str) -> PathPattern:
    """Parse a pattern that is right."""
    parsed = parse_pattern(text)
    assert isinstance(parsed, PathPattern), parsed
    return parsed


def matches(text: str, path: str) -> bool:
    """Match as the documentation words it, by one regular expression a pattern."""
    below = text.endswith("/**")
    stem = text.removesuffix("/**")
    source = "".join("/[^/]+" if segment == "*" else "/" + re.escape(segment) for segment in stem.split("/")[1:])
    return re.fullmatch(source + ("(?:/.*)?" if below else ""), path, re.DOTALL) is not None


def all_patterns(deepest: int, *, alphabet: str = "a*") -> Iterator[str]:
    """Yield every pattern of so many segments, the empty last one included."""
    for depth in range(deepest + 1):
        for segments in itertools.product(alphabet, repeat=depth):
            stem = "".join(f"/{segment}" for segment in segments)
            yield stem + "/"
            yield stem + "/**"
            if stem:
                yield stem


# One letter that no pattern names stands for all others.
ALL_PATHS = [
    "".join(f"/{segment}" for segment in segments)
    for depth in range(5)
    for segments in itertools.product(["a", "z", ""], repeat=depth)
]


@pytest.mark.parametrize(
    "path",
    ["/", "", "/orders", "/orders/", "/a//b", "/a/../b", "/ä/ü", "/a b", "/a%00b", "/a;b=c", "/a:b@c", "/日本"],
)
def test_an_ordinary_path_is_not_malformed(path: str) -> None:
    """Letters of any script, spaces, literal percents and parameters pass; dot segments are judged elsewhere."""
    assert not is_malformed(path)


@pytest.mark.parametrize(
    "path",
    [
        *("orders", "http://host/orders", "*", " /orders", "/a\n", "/a\x00b", "/a\r\nb", "/a\tb", "/a\x1fb", "/a\x7fb"),
        *("/a\x85b", "/a\\b", "/a\ufffdb", "/a\udce4b"),
    ],
    ids=ascii,
)
def test_a_path_that_readers_disagree_on_is_malformed(path: str) -> None:
    """No leading slash, control bytes, NUL, backslash and undecodable bytes are refused."""
    assert is_malformed(path)


@pytest.mark.parametrize("path", ["//", "/a//b", "/.", "/..", "/./a", "/a/.", "/a/..", "/a/../b", "//a", "/a//"])
def test_dot_segments_and_double_slashes_are_seen(path: str) -> None:
    """What another reader may shorten is seen wherever it stands (CVE-2021-41773's class)."""
    assert has_dot_segments(path)


@pytest.mark.parametrize("path", ["", "/", "/a", "/a/", "/...", "/.well-known/x", "/a.", "/a..b", "/..a", "/.a/b."])
def test_dots_within_a_segment_are_ordinary(path: str) -> None:
    """Only a whole segment of one or two dots is a dot segment."""
    assert not has_dot_segments(path)


@pytest.mark.parametrize(
    ("path", "shortened"),
    [
        ("", "/"),
        ("/", "/"),
        ("/a/b/c/./../../g", "/a/g"),  # RFC 3986 section 5.2.4
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("//admin", "/admin"),
        ("/a//b/", "/a/b/"),
        ("/.../a", "/.../a"),
    ],
)
def test_a_path_is_shortened_as_other_readers_do(path: str, shortened: str) -> None:
    """Dot segments go as in RFC 3986 section 5.2.4, and slashes are merged."""
    assert without_dot_segments(path) == shortened


@given(any_path)
def test_shortening_agrees_with_another_implementation(path: str) -> None:
    """The shortened path is that of posixpath, needs no shortening, and a plain path stays as it is."""
    shortened = without_dot_segments(path)

    assert shortened.rstrip("/") == posixpath.normpath("/" + path.lstrip("/")).rstrip("/")
    assert without_dot_segments(shortened) == shortened
    assert not has_dot_segments(shortened)
    if not has_dot_segments(path):
        assert shortened == path


@pytest.mark.parametrize(
    ("text", "segments", "below"),
    [
        ("/", ("",), False),
        ("/**", (), True),
        ("/orders", ("orders",), False),
        ("/orders/", ("orders", ""), False),
        ("/orders/*", ("orders", None), False),
        ("/*/lines/*", (None, "lines", None), False),
        ("/admin/**", ("admin",), True),
        ("/*/**", (None,), True),
        ("/.well-known/**", (".well-known",), True),
    ],
)
def test_a_pattern_is_parsed(text: str, segments: tuple[str | None, ...], below: bool) -> None:  # noqa: FBT001 - a table
    """`*` is one segment, a final `/**` the path itself and all below."""
    assert parse_pattern(text) == PathPattern(segments, below)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "starts with a slash"),
        ("orders", "starts with a slash"),
        ("**", "starts with a slash"),
        ("/orders\n", "never reach a route"),
        ("/a\\b", "never reach a route"),
        ("/a/../b", "never reach a route"),
        ("//a", "never reach a route"),
        ("//**", "never reach a route"),
        ("/orders/{id}", "write * for one segment"),
        ("/orders/}", "write * for one segment"),
        ("/**/lines", "only at the end"),
        ("/orders**", "only at the end"),
        ("/a/**/**", "only at the end"),
        ("/**/", "only at the end"),
        ("/or*", "one whole segment"),
        ("/***", "one whole segment"),
    ],
    ids=ascii,
)
def test_a_wrong_pattern_is_told(text: str, why: str) -> None:
    """What could never match, or means something else than it seems, is refused in words."""
    told = parse_pattern(text)

    assert isinstance(told, str)
    assert why in told


@pytest.mark.parametrize(
    ("path", "segments"), [("", []), ("/", [""]), ("/a", ["a"]), ("/a/", ["a", ""]), ("/a//b", ["a", "", "b"])]
)
def test_a_path_is_split_at_its_slashes(path: str, segments: list[str]) -> None:
    """A trailing slash is a last empty segment."""
    assert split(path) == segments


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/admin", "/admin/"),
        ("/admin", "/Admin"),
        ("/admin", "/admin\n"),
        ("/admin", "/admin/x"),
        ("/admin", "/adm"),
        ("/admin/**", "/administrator"),
        ("/admin/**", "/x/admin"),
        ("/orders/*", "/orders/"),
        ("/orders/*", "/orders"),
        ("/orders/*", "/orders/1/lines"),
        ("/*", "/"),
    ],
    ids=ascii,
)
def test_a_pattern_matches_the_whole_path_only(text: str, path: str) -> None:
    """Neither a prefix nor another case nor a trailing newline matches (CVE-2022-22978's class)."""
    assert PathIndex([(pattern(text), text)]).find(path) == ()


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/a", "/admin/a/b", "/admin//b", "/admin/\n"], ids=ascii)
def test_all_below_is_the_path_itself_and_everything_under_it(path: str) -> None:
    """A final `/**` leaves no path under it out."""
    assert PathIndex([(pattern("/admin/**"), 1)]).find(path) == (1,)


@pytest.mark.parametrize("patterns", [*itertools.permutations(["/a/b", "/a/*", "/*/b", "/a/**", "/**"])], ids=" ".join)
def test_the_order_of_registration_is_the_order_found(patterns: tuple[str, ...]) -> None:
    """Neither a literal path nor a narrower pattern goes first: the order given does."""
    index = PathIndex((pattern(text), text) for text in patterns)

    assert index.find("/a/b") == patterns
    assert index.find("/a/z") == tuple(text for text in patterns if matches(text, "/a/z"))


@given(
    patterns=st.lists(st.sampled_from([*all_patterns(2), *all_patterns(3, alphabet="ab*")]), max_size=12),
    path=st.lists(st.sampled_from(["a", "a", "b", "", "*", "a\n"]), max_size=4).map(
        lambda segments: "".join(f"/{segment}" for segment in segments)
    ),
)
def test_the_index_finds_what_a_naive_matcher_finds_in_order(patterns: list[str], path: str) -> None:
    """The index finds every matching pattern, once for each time it was given, in the order given, and no other."""
    index = PathIndex((pattern(text), (number, text)) for number, text in enumerate(patterns))

    assert index.find(path) == tuple(entry for entry in enumerate(patterns) if matches(entry[1], path))


def test_covering_agrees_with_brute_force() -> None:
    """One pattern covers another exactly where every path that matches the other matches it."""
    found = {text: {path for path in ALL_PATHS if matches(text, path)} for text in all_patterns(2)}

    for first, second in itertools.product(found, repeat=2):
        assert pattern(first).covers(pattern(second)) is (found[first] >= found[second]), (first, second)


def test_meeting_agrees_with_brute_force() -> None:
    """Two patterns meet exactly where some path matches both."""
    found = {text: {path for path in ALL_PATHS if matches(text, path)} for text in all_patterns(2)}

    for first, second in itertools.product(found, repeat=2):
        assert pattern(first).meets(pattern(second)) is bool(found[first] & found[second]), (first, second)


def test_a_path_far_deeper_than_any_pattern_is_answered() -> None:
    """A path of ten thousand segments is judged by its first ones, without recursion."""
    index = PathIndex((pattern(f"/*/{number}/*/**"), number) for number in range(1_000))

    assert index.find("/x/7" + "/y" * 10_000) == (7,)
    assert index.find("/x" * 10_000) == ()
