"""The principal is a value that Starlette's own tools accept as a user, and nobody is a user without an identity."""

import dataclasses

import pytest
from starlette.authentication import has_required_scope
from starlette.requests import HTTPConnection

from authz403.principal import ANONYMOUS, Anonymous, Principal


def connection_of(user: Principal | Anonymous) -> HTTPConnection:
    """Return a Starlette connection with this user and its credentials."""
    return HTTPConnection({"type": "http", "headers": [], "user": user, "auth": user.credentials})


def test_a_principal_is_a_starlette_user() -> None:
    """Starlette's user protocol and its `requires` work on a principal."""
    alice = Principal(sub="alice", issuer="https://id.example", scopes=frozenset({"orders:write", "orders:read"}))
    connection = connection_of(alice)

    assert connection.user is alice
    assert alice.is_authenticated is True
    assert alice.display_name == alice.identity == "alice"
    assert connection.auth.scopes == ("authenticated", "orders:read", "orders:write")
    assert has_required_scope(connection, ["authenticated", "orders:write"])
    assert not has_required_scope(connection, ["orders:refund"])


def test_scopes_come_in_a_fixed_order() -> None:
    """What Starlette shows of the scopes does not depend on the hashes of a process."""
    scopes = [f"scope:{letter}" for letter in "abcdefghijklmnop"]

    assert Principal(sub="alice", scopes=frozenset(scopes)).credentials.scopes == ("authenticated", *scopes)


def test_nobody_is_not_authenticated() -> None:
    """The anonymous user has no name, no scope and no `authenticated`."""
    connection = connection_of(ANONYMOUS)

    assert ANONYMOUS.is_authenticated is False
    assert ANONYMOUS.display_name == ANONYMOUS.identity == ""
    assert repr(ANONYMOUS) == "Anonymous()"
    assert not has_required_scope(connection, ["authenticated"])


def test_a_principal_without_a_subject_cannot_be_made() -> None:
    """An empty `sub` would make all such callers one."""
    with pytest.raises(ValueError, match="sub"):
        Principal(sub="")


def test_callers_of_two_issuers_are_two() -> None:
    """The same `sub` at another issuer is another caller."""
    ours, theirs = Principal(sub="7", issuer="https://a.example"), Principal(sub="7", issuer="https://b.example")

    assert ours.key == ("https://a.example", "7")
    assert ours.key != theirs.key
    assert ours != theirs


def test_a_principal_is_a_value() -> None:
    """Two principals of the same facts are equal and hash alike, whatever their claims hold."""
    first, second = (Principal(sub="alice", claims={"groups": ["a"]}) for _ in range(2))

    assert first == second
    assert hash(first) == hash(second)
    assert len({first, second}) == 1


def test_a_principal_cannot_be_changed() -> None:
    """A handler cannot give the caller another name or more scopes, and the default claims are read-only."""
    alice = Principal(sub="alice")

    with pytest.raises(dataclasses.FrozenInstanceError):
        alice.sub = "root"  # type: ignore[misc]  # that this is refused is the test
    with pytest.raises(TypeError):
        alice.claims["admin"] = True  # type: ignore[index]  # as above
    with pytest.raises(AttributeError):
        ANONYMOUS.sub = "root"  # type: ignore[attr-defined]  # as above


def test_a_principal_replaced_with_more_scopes_shows_them_to_starlette() -> None:
    """The credentials follow the scopes of a copy."""
    copy = dataclasses.replace(Principal(sub="alice"), scopes=frozenset({"orders:read"}))

    assert copy.credentials.scopes == ("authenticated", "orders:read")


def test_a_principal_does_not_print_its_credentials_twice() -> None:
    """The repr is that of the facts."""
    assert "Credentials" not in repr(Principal(sub="alice"))
