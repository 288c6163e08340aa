"""`authz.lock`: a text that people review, that is the same everywhere, and that is read back whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from authz403 import Gate, Network, Rbac, Requirement, Rule, anyone, authenticated, networks, requires, roles, scopes
from authz403.asgi import AuthzMiddleware
from authz403.cli.loading import Failure
from authz403.cli.lockfile import Entry, Key, Lock, Means, lock_of, read_lock, text_of
from authz403.forms import Form
from authz403.guarded import guarded
from tests.gates_made import ALICE, Callers, requirements


def roles_for(principal: object) -> list[str]:
    """Stand for a look-up of the app's own."""
    raise NotImplementedError


async def answer(request: Request) -> Response:
    """Stand for an endpoint."""
    raise NotImplementedError


async def unmarked(request: Request) -> Response:
    """Stand for another one."""
    raise NotImplementedError


def lock(gate: Gate, *routes: Route | Mount) -> Lock:
    """Return the policy of an app with these routes."""
    return lock_of(guarded(AuthzMiddleware(Starlette(routes=routes), gate=gate)))


def test_the_file_has_a_line_for_each_endpoint() -> None:
    """Sorted, and with all that decides besides: the default, networks, roles."""
    gate = Gate(
        tokens=Callers(ALICE),
        network=Network(allow=["10.0.0.0/8"], deny=["10.6.6.6"]),
        rbac=Rbac(
            hierarchy={"admin": ["seller", "buyer"], "none": []}, grants={"seller": ["b", "a"]}, roles_for=roles_for
        ),
        rules=[Rule("GET", "/files/secret/**", roles("admin")), Rule("GET", "/health", anyone)],
        default=authenticated,
        dangerously_report_only=True,
    )
    marked = requires(scopes("b", "a") & networks("10.1.0.0/16"))(answer)
    found = lock(gate, Route("/z", marked), Route("/health", marked), Route("/files/{path:path}", marked))
    assert text_of(found) == (
        "# Who may call what, made by `authz403 lock`. Review a change of it as you review code.\n"
        "version: 1\n"
        "default: authenticated\n"
        "every request: service(allow=['10.0.0.0/8'], deny=['10.6.6.6'])\n"
        "enforced: no, every request passes\n"
        f"roles: looked up by function('{__name__}.roles_for')\n"
        "role 'admin': includes 'buyer', 'seller'\n"
        "role 'seller': grants 'a', 'b'\n"
        "GET /files/{path} (answer): networks('10.1.0.0/16') & scopes('a', 'b')\n"
        "GET /files/{path} on /files/secret/** (answer): networks('10.1.0.0/16') & scopes('a', 'b') & roles('admin')\n"
        "GET /health (answer): networks('10.1.0.0/16') & scopes('a', 'b')\n"
        "GET /z (answer): networks('10.1.0.0/16') & scopes('a', 'b')\n"
    )
    again = read_lock(text_of(found), "authz.lock")
    assert again == found._replace(entries=tuple(entry._replace(written=()) for entry in found.entries))


def test_networks_of_the_service_are_told_once() -> None:
    """They stand in every policy, and one line says so."""
    network = Network(allow=["10.0.0.0/8"])
    rules = [
        Rule("GET", "/a", anyone),
        Rule("GET", "/b", anyone.concealed()),
        Rule("GET", "/c", scopes("c").concealed()),
        Rule("GET", "/d", scopes("d") | scopes("e")),
    ]
    gate = Gate(tokens=Callers(ALICE), network=network, rules=rules)
    found = lock(gate, *(Route(rule.path, unmarked) for rule in rules))
    assert [str(entry.policy) for entry in found.entries] == [
        "anyone", "anyone", "scopes('c').concealed()", "scopes('d') | scopes('e')"
    ]  # fmt: skip
    assert str(found.service) == "service(allow=['10.0.0.0/8'])"


words = st.text(max_size=8) | st.sampled_from(
    ["", "#", "#GET", "a b", "/x (y): z", "x'y", 'x"y', "\\", "\u202e", "\n", "on", "(", "GET"]
)
entries = st.builds(
    lambda method, path, part, endpoint, policy: Entry(Key(path, part, method), endpoint, policy.form()),
    words, words, st.none() | words, words, requirements,
)  # fmt: skip
means = st.builds(Means, st.frozensets(words, max_size=2), st.frozensets(words, max_size=2)).filter(any)
locks = st.builds(
    lambda default, is_enforced, looked_up, found, listed: Lock(
        default.form(), Form("anyone"), is_enforced, looked_up, found, tuple(listed)
    ),
    requirements,
    st.booleans(),
    st.none() | st.just("function('a.b')"),
    st.dictionaries(words, means, max_size=3),
    st.lists(entries, max_size=3),
)


@given(locks)
def test_whatever_is_written_is_read_back(found: Lock) -> None:
    """No name, path or role breaks out of its place, and the file is plain ASCII in which nothing hides."""
    text = text_of(found)
    assert text.isascii()
    assert read_lock(text, "authz.lock") == found


@given(requirements, requirements)
def test_the_order_of_writing_makes_no_difference(one: Requirement, other: Requirement) -> None:
    """Two ways to write the same give one line."""
    assert str((one & other).form()) == str((other & one).form())
    assert str((one | other).form()) == str((other | one).form())


GOOD = "version: 1\ndefault: deny\nGET /x (x): scopes('a')\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "authz.lock is no lock file: it has no line version: 1"),
        ("GET /x (x): anyone\n", "it has no line version: 1"),
        ("version: 2\n", "authz.lock:1: this version reads version 1; write the file anew"),
        (GOOD + "<<<<<<< HEAD\n", "authz.lock:4: this is no line of a lock file"),
        (GOOD + "default: anyone\n", "authz.lock:4: this is no line of a lock file, or stands there twice"),
        (GOOD + "GET /y (y): scopes(a)\n", "authz.lock:4: .* is no requirement"),
        (GOOD + "GET /y: anyone\n", "authz.lock:4: this is no line"),
        (GOOD + "GET /a b (y): anyone\n", "authz.lock:4: this is no line"),
        (GOOD + "role admin: includes 'x'\n", "authz.lock:4: this is no line"),
        ("version: 1\ndefault: everybody\n", "authz.lock: .* is no requirement"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_told_by_its_line(text: str, told: str) -> None:
    """Nobody is told that all is well by half a file."""
    with pytest.raises(Failure, match=told):
        read_lock(text, "authz.lock")


def test_a_file_without_a_default_is_read_as_the_strictest() -> None:
    """A line that somebody took out opens nothing unseen."""
    assert str(read_lock("version: 1\n", "authz.lock").default) == "deny"


def test_no_line_is_taken_for_a_comment() -> None:
    """RFC 9110 section 9.1 lets a method start with #, and its endpoint is told all the same."""
    found = Lock(Form("deny"), Form("anyone"), True, None, {}, (Entry(Key("/x", None, "#GET"), "x", Form("anyone")),))  # noqa: FBT003 - a row of the named tuple
    assert "'#GET' /x (x): anyone\n" in text_of(found)
    assert read_lock(text_of(found), "authz.lock") == found
