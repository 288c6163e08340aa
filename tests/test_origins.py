"""Origins and patterns: what browsers write, whole labels, and no pattern over names that anybody may have."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.origins import LONGEST_ORIGIN, Parts, Patterns, parts_of, public_suffixes_at_or_below
from tests.cors_made import rows_of

# ---- what an origin is


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("https://app.example", Parts("https", below=False, host="app.example", port=None)),
        ("http://localhost:3000", Parts("http", below=False, host="localhost", port="3000")),
        ("http://[2001:db8::1]:80", "default port"),
        ("https://[2001:db8::1]:8443", Parts("https", below=False, host="[2001:db8::1]", port="8443")),
        ("https://*.app.example", Parts("https", below=True, host="app.example", port=None)),
        ("https://*.app.example:8443", Parts("https", below=True, host="app.example", port="8443")),
        ("https://app.example:*", Parts("https", below=False, host="app.example", port="*")),
        ("https://*.app.example:*", Parts("https", below=True, host="app.example", port="*")),
        ("capacitor://localhost", Parts("capacitor", below=False, host="localhost", port=None)),
        ("http://3d-printer", Parts("http", below=False, host="3d-printer", port=None)),
        ("https://xn--bcher-kva.example", Parts("https", below=False, host="xn--bcher-kva.example", port=None)),
    ],
    ids=str,
)
def test_an_origin_is_taken_apart(text: str, parts: Parts | str) -> None:
    """Scheme, host and port, and what a star stands for."""
    found = parts_of(text)

    assert parts in found if isinstance(parts, str) and isinstance(found, str) else found == parts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://**.app.example", "whole labels left of a host"),
        ("https://*app.example", "whole labels left of a host"),
        ("https://app.*.example", "whole labels left of a host"),
        ("https://app.*", "whole labels left of a host"),
        ("https://*", "whole labels left of a host"),
        ("https://*.", "whole labels left of a host"),
        ("https://*:8443", "whole labels left of a host"),
        ("https://*.*.app.example", "whole labels left of a host"),
        ("*://app.example", "whole labels left of a host"),
        ("https*://app.example", "whole labels left of a host"),
        ("https://app.example:8*", "whole labels left of a host"),
        ("https://*.app.example/", "write https://*.app.example"),
        ("https://*.App.Example", "write https://*.app.example"),
        ("https://*.app.example:443", "write https://*.app.example"),
        ("https://*.127.0.0.1", "no names below an address"),
        ("https://*.[::1]", "no names below an address"),
        ("file://app.example", "browsers send no such scheme"),
        ("a" * 65 + "://app.example", "browsers send no such scheme"),
        ("https://127.1", "ends in a number"),
        ("https://app.255", "ends in a number"),
        ("https://app.0x7f", "ends in a number"),
        ("https://127.0.0.1.1", "ends in a number"),
        ("https://127.0.0.01", "ends in a number"),
        ("https://[::1::]", "ends in a number"),
        ("https://[0:0::1]", "browsers write it ::1"),
        ("https://[::ffff:10.0.0.1]", "write the IPv4 address, 10.0.0.1"),
        ("https://[::ffff:a00:1]", "write the IPv4 address, 10.0.0.1"),
        ("https://xn--f.example", "what follows xn-- is no name"),
        ("https://xn--.example", "not an origin"),
        ("https://app..example", "not an origin"),
        ("https://.app.example", "not an origin"),
        ("https://app.example.", "not an origin"),
        ("https://app-.example", "not an origin"),
        (f"https://{'a' * 64}.example", "not an origin"),
        (f"https://{'a.' * 126}ab", "no host is longer than 253"),
        (f"https://*.{'a.' * 125}ab", "no host is longer than 253"),
        ("https://" + "a" * LONGEST_ORIGIN, "no origin is longer"),
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_what_is_no_origin_is_told(text: str, why: str) -> None:
    """What browsers do not write, or what would match more than it seems to, is no origin."""
    found = parts_of(text)

    assert isinstance(found, str)
    assert why in found


def test_the_longest_origin_is_an_origin() -> None:
    """The bound on length cuts off nothing that a browser may send."""
    host = ".".join(["a" * 63] * 3 + ["b" * 61])
    longest = f"{'s' * 64}://{host}:65535"

    assert len(longest) == LONGEST_ORIGIN
    assert isinstance(parts_of(longest), Parts)


@given(st.text(alphabet="htps:/*.[]0189axn-_%@ \n") | st.text())
def test_parts_are_those_of_the_text(text: str) -> None:
    """Whatever it holds, a text is no origin or is made of the parts found in it."""
    parts = parts_of(text)

    if isinstance(parts, Parts):
        port = "" if parts.port is None else f":{parts.port}"
        assert f"{parts.scheme}://{'*.' * parts.below}{parts.host}{port}" == text


# ---- patterns

BELOW = Patterns(["https://*.app.example", "https://*.b.example:8443", "https://c.example:*", "http://*.d.example:*"])


@pytest.mark.parametrize(
    "origin",
    [
        *("https://x.app.example", "https://y.x.app.example", "https://a.b.c.d.e.f.app.example"),
        *("https://app.example.app.example", "https://com.app.example", "https://xn--bcher-kva.app.example"),
        *("https://x_y.app.example", "https://x.b.example:8443"),
        *("https://c.example", "https://c.example:1", "https://c.example:65535", "http://x.d.example:80000"[:-1]),
        *("http://x.d.example", "http://y.x.d.example:3000"),
    ],
)
def test_a_pattern_matches_whole_labels_below_its_host(origin: str) -> None:
    """One label or more, at the port that was named, or any."""
    assert origin in BELOW


@pytest.mark.parametrize(
    "origin",
    [
        *("https://app.example", "https://badapp.example", "https://x.badapp.example", "https://x-app.example"),
        *(
            "https://x.app.example.evil.example",
            "https://x.app.example@evil.example",
            "https://evil.example/.app.example",
        ),
        *(
            "https://evil.example?.app.example",
            "https://evil.example#.app.example",
            "https://evil.example:.app.example",
        ),
        *("http://x.app.example", "https://x.app.example:8443", "https://x.app.example:443", "wss://x.app.example"),
        *("https://X.app.example", "https://x.APP.example", "HTTPS://x.app.example", "https://x.app.example."),
        *("https://.app.example", "https://..app.example", "https://x..app.example", "https://-.app.example"),
        *("https://*.app.example", "https://*.x.app.example", "https://x.app.example:*", "https://x.app.example/"),
        *("https://x.app.example\n", "https://x.app.example\r\nEvil: 1", "https://x\x00.app.example"),
        *(
            "https://x y.app.example",
            "https://x%2e.app.example",
            "https://\u24d0.app.example",
            "https://xn--f.app.example",
        ),
        *("https://x.b.example", "https://x.b.example:844", "https://x.b.example:08443", "https://b.example:8443"),
        *("https://c.example:443", "https://c.example:0", "https://c.example:01", "https://c.example:65536"),
        *(
            "https://c.example:",
            "https://c.example:x",
            "https://x.c.example",
            "http://x.d.example:80",
            "http://d.example",
        ),
        *("", "*", "null", "https://", "https://*", "x.app.example", f"https://{'a.' * 200}app.example"),
    ],
    ids=ascii,
)
def test_a_pattern_matches_nothing_else(origin: str) -> None:
    """Neither the host itself, nor what only ends alike, nor what no browser writes."""
    assert origin not in BELOW


LABELS = st.lists(st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True), min_size=1, max_size=5)


@given(LABELS, st.sampled_from(["app.example", "badapp.example", "example", "app.example.evil.example"]))
def test_a_pattern_agrees_with_its_meaning(labels: list[str], base: str) -> None:
    """An origin matches where its host ends in a dot and the pattern's host, and nowhere else."""
    origin = f"https://{'.'.join(labels)}.{base}"
    is_origin = isinstance(parts_of(origin), Parts)

    assert (origin in BELOW) is (is_origin and origin.endswith(".app.example"))


@given(st.text())
def test_a_set_of_patterns_never_raises(origin: str) -> None:
    """Whatever a client writes, it matches or not."""
    assert (origin in BELOW) is False


def test_an_origin_costs_the_same_among_many_patterns() -> None:
    """Only the labels of the origin are looked up, never pattern by pattern."""

    class Counted(dict[str, Any]):
        asked = 0

        def get(self, key: str, default: object = None) -> Any:  # noqa: ANN401 - what a dictionary holds
            Counted.asked += 1
            return super().get(key, default)

        def __iter__(self) -> Iterator[str]:
            raise AssertionError("the patterns were walked over")

    patterns = Patterns(f"https://*.app{number}.example" for number in range(10_000))
    patterns._at, patterns._below = Counted(patterns._at), Counted(patterns._below)

    assert "https://x.y.app77.example:1" not in patterns
    assert Counted.asked == 1 + 3


# ---- who is on the way


@pytest.mark.parametrize(
    ("text", "insecure"),
    [
        ("https://app.example", False),
        ("http://app.example", True),
        ("http://*.app.example", True),
        ("http://localhost:3000", False),
        ("http://x.localhost", False),
        ("http://notlocalhost", True),
        ("http://localhost.example", True),
        ("http://127.8.9.10", False),
        ("http://128.0.0.1", True),
        ("http://[::1]:90", False),
        ("http://[2001:db8::1]", True),
        ("capacitor://localhost", False),
        ("connector://app.example", True),
    ],
)
def test_an_origin_is_insecure_where_its_pages_could_be_changed(text: str, *, insecure: bool) -> None:
    """Neither https, nor on this machine."""
    parts = parts_of(text)

    assert isinstance(parts, Parts)
    assert parts.is_insecure is insecure


# ---- public suffixes


@pytest.mark.parametrize(
    ("host", "suffix"),
    [
        ("com", "com"),
        ("localhost", "localhost"),
        ("co.uk", "co.uk"),
        ("github.io", "github.io"),
        ("xn--55qx5d.cn", "xn--55qx5d.cn"),
        ("unknown-suffix", "unknown-suffix"),
        ("kawasaki.jp", "kawasaki.jp"),
        ("x.kawasaki.jp", "x.kawasaki.jp"),
        ("ck", "ck"),
        ("amazonaws.com", "amazonaws.com"),
        ("windows.net", "windows.net"),
    ],
)
def test_names_below_a_public_suffix_are_anybodys(host: str, suffix: str) -> None:
    """A host at or above a suffix of the list, private ones and wildcard rules included, is found out."""
    found = public_suffixes_at_or_below([host])

    assert found is not None
    assert found.keys() == {host}
    assert found[host].endswith(suffix)


@pytest.mark.parametrize(
    "host",
    ["example.com", "example.co.uk", "someone.github.io", "city.kawasaki.jp", "www.ck", "xn--bcher-kva.example"],
)
def test_names_below_a_registered_name_are_its_owners(host: str) -> None:
    """Exceptions of the list included."""
    assert public_suffixes_at_or_below([host]) == {}


def test_without_the_list_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is optional; whoever asks has to refuse then."""
    monkeypatch.setitem(sys.modules, "publicsuffixlist", None)

    assert public_suffixes_at_or_below(["example.com"]) is None


# ---- public vectors


def test_the_origins_that_others_refuse_are_refused(corpora: Path) -> None:
    """Every origin and pattern of jub0bs/cors is taken or refused as there, but for one."""
    rows = rows_of(corpora / "cors" / "jub0bs-internal_origins_pattern_test.json", None)
    texts = {row["desc"]: row for row in rows if isinstance(row["input"], str)}
    assert len(texts) == len(rows) - 2  # two lengths that are Go expressions

    differs = {
        desc: "refused here" if isinstance(parts_of(row["input"]), str) else "taken here"
        for desc, row in texts.items()
        if isinstance(parts_of(row["input"]), str) is not row.get("failure", False)
    }
    assert differs == {"trailing full stop in host": "refused here"}  # a name that hardly anybody serves under


def test_the_origins_that_others_hold_insecure_are_insecure(corpora: Path) -> None:
    """Every origin and pattern of jub0bs/cors, but for names that end in a dot."""
    rows = rows_of(corpora / "cors" / "jub0bs-internal_origins_pattern_test.json", "TestIsDeemedInsecure")
    tried = 0
    for row in rows:
        parts = parts_of(row["pattern"])
        if isinstance(parts, Parts):
            tried += 1
            assert parts.is_insecure is row["want"], row
        else:
            assert row["pattern"].endswith("."), row
    assert tried == 25


def test_the_suffixes_of_others_are_public(corpora: Path) -> None:
    """The public suffixes that jub0bs/cors tries."""
    rows = rows_of(corpora / "cors" / "jub0bs-internal_origins_pattern_test.json", "TestHostIsEffectiveTLD")

    for row in rows:
        host = row["pattern"].removeprefix("https://*.")
        assert bool(public_suffixes_at_or_below([host])) is row["want"], row


def test_the_patterns_of_the_tree_vectors_match_as_there(corpora: Path) -> None:
    """Sets of origins and patterns let exactly those pass that jub0bs/cors lets pass."""
    tried = 0
    for row in rows_of(corpora / "cors" / "jub0bs-internal_origins_radix_test.json", "TestTree"):
        listed = row.get("patterns", [])
        exact, patterns = set(listed), Patterns(listed)
        for verdict in ("accepts", "rejects"):
            for origin in row.get(verdict, []):
                tried += 1
                assert (origin in exact or origin in patterns) is (verdict == "accepts"), (row["desc"], origin)
    assert tried > 300


# Taken apart there and matched with nothing; no browser writes them, so they are no origins here.
TAKEN_APART_THERE = {
    *("invalid scheme", "brackets containing non-IPv6 chars", "empty brackets", "IPv6 with extraneous colon"),
    *("domain with a leading full stop", "domain with illegal char after host", "single-digit host", "invalid TLD"),
    *("domain followed by character other than colon", "longer invalid TLD", "ipv4 with overflowing octet"),
    *("ipv4 with trailing full stop", "ipv4 with trailing full stop and port", "ipv6 with port"),
    "malformed ipv4 with one too many octets",
}


def test_what_others_cannot_take_apart_is_no_origin(corpora: Path) -> None:
    """The origins of requests that jub0bs/cors takes apart, but for those named above."""
    rows = rows_of(corpora / "cors" / "jub0bs-internal_origins_origins_test.json", None)
    texts = [row for row in rows if isinstance(row["input"], str)]
    assert len(texts) == len(rows) - 3  # lengths that are Go expressions

    assert [row["desc"] for row in texts if row.get("failure") and isinstance(parts_of(row["input"]), Parts)] == []
    differs = {row["desc"] for row in texts if not row.get("failure") and isinstance(parts_of(row["input"]), str)}
    assert differs == TAKEN_APART_THERE
