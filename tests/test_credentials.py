"""The Authorization header: one well-formed Bearer token comes out exactly, anything else is told and never raises."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403.credentials import LONGEST_CREDENTIAL, Unusable, bare_token, bearer_token
from authz403.reasons import Reason

SEVERAL = "more than one Authorization header, or one with a comma"

# RFC 9110 section 11.2
TOKEN68 = st.from_regex(r"[A-Za-z0-9\-._~+/]+=*", fullmatch=True)
SCHEME = st.lists(st.booleans(), min_size=6, max_size=6).map(
    lambda upper: "".join(letter.upper() if up else letter for letter, up in zip("bearer", upper, strict=True))
)


@given(scheme=SCHEME, spaces=st.integers(1, 5), token=TOKEN68, before=st.text(" \t"), after=st.text(" \t"))
def test_a_well_formed_header_gives_exactly_its_token(
    scheme: str, spaces: int, token: str, before: str, after: str
) -> None:
    """RFC 9110 section 11.4: the scheme in any case, one or more spaces, a token68; outer white space is off."""
    assert bearer_token((before + scheme + " " * spaces + token + after,)) == token


@given(st.lists(st.text() | st.text("bearBEAR :,=\"'\t\r\n\0.a-") | TOKEN68.map("Bearer {}".format), max_size=3))
def test_a_token_is_found_or_told_and_nothing_raises(lines: list[str]) -> None:
    """Whatever is sent, either a token comes out that stood there alone, or a reason."""
    found = bearer_token(tuple(lines))

    if isinstance(found, Unusable):
        assert found.reason in {Reason.MISSING_TOKEN, Reason.INVALID_REQUEST}
    else:
        (line,) = lines
        scheme, *rest = line.split()
        assert (scheme.lower(), rest) == ("bearer", [found])


@pytest.mark.parametrize(
    ("lines", "reason", "hint"),
    [
        ((), "missing_token", ""),
        (("",), "missing_token", "the Authorization header is empty"),
        ((" \t",), "missing_token", "the Authorization header is empty"),
        (("Basic dXNlcjpwYXNz",), "missing_token", "another scheme than Bearer: basic"),
        (("DPoP a.b.c",), "missing_token", "another scheme than Bearer: dpop"),
        (("BearerX abc",), "missing_token", "another scheme than Bearer"),
        (('Digest realm="a, b\\"c" , qop=auth,nc = 1',), "missing_token", "another scheme than Bearer: digest"),
        (("AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host;range, Signature=f",), "missing_token", "another"),
        (("Negotiate a, Bearer b",), "invalid_request", SEVERAL),
        (("Negotiate a,",), "invalid_request", SEVERAL),
        (("Basic b,Basic YWRhOng=",), "invalid_request", SEVERAL),
        (('Digest realm="a", Bearer b',), "invalid_request", SEVERAL),
        (('Digest realm="a", Bearer b, qop=auth',), "invalid_request", SEVERAL),
        (('Digest realm="a, qop=auth',), "invalid_request", SEVERAL),
        ((", Bearer b",), "invalid_request", SEVERAL),
        ((",",), "invalid_request", SEVERAL),
        (("Bearer",), "invalid_request", "says 'Bearer' and has no token"),
        (("bearer  ",), "invalid_request", "says 'Bearer' and has no token"),
        (("Bearer a b",), "invalid_request", "not one token"),
        (("Bearer a,b",), "invalid_request", SEVERAL),
        (("Bearer a, Bearer b",), "invalid_request", SEVERAL),
        (("Bearer a, Basic b",), "invalid_request", SEVERAL),
        (('Bearer realm="a", error="b"',), "invalid_request", SEVERAL),
        (("Bearer\ta",), "invalid_request", "not one token"),
        (("Bearer =a",), "invalid_request", "not one token"),
        (("Bearer a=b",), "invalid_request", "not one token"),
        (("Bearer ä",), "invalid_request", "not one token"),
        (("Bearer a\0",), "invalid_request", "not one token"),
        (("Bearer: a",), "invalid_request", "a colon after 'Bearer'"),
        (('Bearer "a"',), "invalid_request", "wrapped in quotes"),
        (("Bearer 'a",), "invalid_request", "wrapped in quotes"),
        (('"Bearer a"',), "missing_token", "header is wrapped in quotes"),
        (("Bearer Bearer a",), "invalid_request", "the word 'Bearer' stands there twice"),
        (("bearer bearer a",), "invalid_request", "the word 'Bearer' stands there twice"),
        (("Bearer  BEARER  a",), "invalid_request", "the word 'Bearer' stands there twice"),
        (("Bearer Bearer a b",), "invalid_request", "the word 'Bearer' stands there twice"),
        (("Bearer a\n",), "invalid_request", "a line break"),
        (("Bearer a\r\n b",), "invalid_request", "a line break"),
        (("Bearer a", "Bearer a"), "invalid_request", SEVERAL),
        (("Bearer a", "Basic b"), "invalid_request", SEVERAL),
        (("", "Bearer b"), "invalid_request", SEVERAL),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_told(lines: tuple[str, ...], reason: str, hint: str) -> None:
    """RFC 6750 section 3.1: no credentials of ours is `missing_token`, malformed ones are `invalid_request`."""
    found = bearer_token(lines)

    assert isinstance(found, Unusable)
    assert found.reason == reason
    assert hint in (found.hint or "")


@pytest.mark.parametrize("comma", [",", ", "], ids=repr)
@pytest.mark.parametrize(
    "lines",
    [
        ("Bearer a", "Bearer a"),
        ("Bearer a", "Basic YWRhOng="),
        ("Basic YWRhOng=", "Bearer a"),
        ("", "Bearer a"),
        ("Bearer a", ""),
        ('Digest realm="a, b"', "Bearer a"),
        ("", ""),
    ],
    ids=str,
)
def test_lines_that_a_server_joined_are_as_many(lines: tuple[str, ...], comma: str) -> None:
    """Servers of WSGI, and some proxies, join the lines of one header; the refusal is the same to the letter."""
    assert bearer_token((comma.join(lines),)) == bearer_token(lines)


def test_a_header_of_another_scheme_is_read_in_no_time() -> None:
    """No header makes the pattern try again and again (CWE-1333)."""
    for part in ('a="\\",', "a= ,", 'a="', "a\t=\t,"):
        started = time.process_time()
        bearer_token((("Digest " + part * LONGEST_CREDENTIAL)[:LONGEST_CREDENTIAL],))
        assert time.process_time() - started < 0.1


def test_a_header_of_the_longest_length_is_read() -> None:
    """16 KiB of header pass."""
    token = "a" * (LONGEST_CREDENTIAL - len("Bearer "))

    assert bearer_token(("Bearer " + token,)) == token


@pytest.mark.parametrize("length", [LONGEST_CREDENTIAL + 1, 1 << 20], ids=["one more", "1 MiB"])
def test_a_longer_header_is_refused_unread(length: int) -> None:
    """The size is limited before anything is looked at, for headers of every scheme."""
    for start in ("Bearer ", "Basic "):
        found = bearer_token((start.ljust(length, "a"),))

        assert isinstance(found, Unusable)
        assert found.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("line", ["hunter2", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln", "Token:hunter2", 'hunter2"'])
def test_a_secret_without_a_scheme_never_reaches_the_hint(line: str) -> None:
    """Hints go to the log, and a token sent without `Bearer` is a secret like any other (CWE-532)."""
    found = bearer_token((line,))

    assert isinstance(found, Unusable)
    assert found.reason is Reason.MISSING_TOKEN
    assert "hunter2" not in (found.hint or "")
    assert "eyjhbg" not in (found.hint or "").lower()


@pytest.mark.parametrize(
    "line", ["Bearer hunter2 hunter2", "Bearer: hunter2", "Bearer 'hunter2'", "Basic hunter2", "Bearer Bearer hunter2"]
)
def test_a_malformed_secret_never_reaches_the_hint(line: str) -> None:
    """What follows the scheme is not repeated, however malformed."""
    found = bearer_token((line,))

    assert isinstance(found, Unusable)
    assert "hunter2" not in (found.hint or "")


HEADER = "x-forwarded-access-token"


@given(token=TOKEN68, before=st.text(" \t"), after=st.text(" \t"))
def test_a_token_alone_in_its_header_is_taken_exactly(token: str, before: str, after: str) -> None:
    """A proxy writes the token as the whole value; outer white space is off (RFC 9110 section 5.5)."""
    assert bare_token(HEADER, (before + token + after,)) == token


@given(st.lists(st.text() | st.text("bearBEAR :,=\"'\t\r\n\0.a-") | TOKEN68, max_size=3))
def test_a_bare_token_is_found_or_told_and_nothing_raises(lines: list[str]) -> None:
    """Whatever is sent, either the one line is a token, or there is a reason."""
    found = bare_token(HEADER, tuple(lines))

    if isinstance(found, Unusable):
        assert found.reason is (Reason.INVALID_REQUEST if "".join(lines).strip(" \t") else found.reason)
        assert found.reason in {Reason.MISSING_TOKEN, Reason.INVALID_REQUEST}
    else:
        assert [line.strip(" \t") for line in lines] == [found]


@pytest.mark.parametrize(
    ("lines", "reason", "hint"),
    [
        ((), "missing_token", ""),
        (("Bearer a",), "invalid_request", f"the {HEADER} header does not hold one token and nothing else"),
        (('"a"',), "invalid_request", "one token and nothing else"),
        (("'a'",), "invalid_request", "one token and nothing else"),
        (("a b",), "invalid_request", "one token and nothing else"),
        (("a,b",), "invalid_request", f"more than one {HEADER} header, or one with a comma"),
        (("a, a",), "invalid_request", f"more than one {HEADER} header, or one with a comma"),
        (("a\n",), "invalid_request", "one token and nothing else"),
        (("a\r\nb",), "invalid_request", "one token and nothing else"),
        (("=a",), "invalid_request", "one token and nothing else"),
        (("a=b",), "invalid_request", "one token and nothing else"),
        (("\u00e4",), "invalid_request", "one token and nothing else"),
        (("a\0",), "invalid_request", "one token and nothing else"),
        (("a", "a"), "invalid_request", f"more than one {HEADER} header"),
        (("a", ""), "invalid_request", f"more than one {HEADER} header"),
        (("a" * (LONGEST_CREDENTIAL + 1),), "invalid_request", f"the {HEADER} header is over 16384 bytes long"),
        (("a" * (1 << 20),), "invalid_request", "over 16384 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_header_that_does_not_hold_one_token_is_told(lines: tuple[str, ...], reason: str, hint: str) -> None:
    """The header's name is in the hint, so that an operator knows where to look."""
    found = bare_token(HEADER, lines)

    assert isinstance(found, Unusable)
    assert found.reason == reason
    assert hint in (found.hint or "")


@pytest.mark.parametrize("line", ["", " ", "\t"], ids=repr)
def test_an_empty_header_is_no_token(line: str) -> None:
    """A proxy that writes its header for everybody leaves it empty for those who are not signed in."""
    found = bare_token(HEADER, (line,))

    assert isinstance(found, Unusable)
    assert found.reason is Reason.MISSING_TOKEN


def test_a_bare_token_of_the_longest_length_is_read() -> None:
    """16 KiB pass."""
    assert bare_token(HEADER, ("a" * LONGEST_CREDENTIAL,)) == "a" * LONGEST_CREDENTIAL


@pytest.mark.parametrize("line", ["Bearer hunter2", "'hunter2'", "hunter2 hunter2", "hunter2\n"])
def test_a_malformed_bare_secret_never_reaches_the_hint(line: str) -> None:
    """What stands in the header is not repeated (CWE-532)."""
    found = bare_token(HEADER, (line,))

    assert isinstance(found, Unusable)
    assert "hunter2" not in (found.hint or "")


def test_the_examples_of_the_rfcs_are_read_as_they_say(corpora: Path) -> None:
    """Every Authorization example of RFC 6750 and RFC 9110 is taken or refused as the RFCs have it."""
    vectors = json.loads((corpora / "rfc-http-auth" / "vectors.json").read_text(encoding="utf-8"))["authorization"]
    taken = {row["v"]: bearer_token((row["v"],)) for row in vectors}

    assert len(taken) == 20
    for row in vectors:
        token = row["v"].split()[-1] if row["ok"] else None  # "may" is taken too: 1*SP
        assert (None if isinstance(taken[row["v"]], Unusable) else taken[row["v"]]) == token, row
