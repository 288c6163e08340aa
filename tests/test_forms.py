"""Requirements as values: the text of each says all that it asks, and can be read back."""

from __future__ import annotations

import enum
import math
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given

from authz403 import (
    AddressFile,
    Network,
    Reason,
    Requirement,
    any_permission,
    any_role,
    any_scope,
    anyone,
    authenticated,
    claim,
    csrf_protected,
    deny,
    networks,
    optional,
    param,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.addresses import AddressSet
from authz403.facts import Facts
from authz403.forms import Form, Told, combined, read
from authz403.leaves import NeedsIdentity, ServiceNetworks
from authz403.policy import _Opposite, no_policy
from tests.gates_made import requirements

TRUE: Final[object] = True  # as a claim


class Color(enum.StrEnum):
    RED = "red"


class Own(Requirement):
    pass


def is_high(level: object) -> bool:
    """Stand for a predicate of somebody's own."""
    return level == 5


def at_least(least: int) -> object:
    """Make a predicate, each time another."""
    return lambda level: isinstance(level, int) and level >= least


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (anyone, "anyone"),
        (deny, "deny"),
        (no_policy, "no_policy"),
        (authenticated, "authenticated"),
        (optional, "optional"),
        (
            authenticated.stepped_up(acr_values=["gold", "a"], max_age=300),
            "authenticated.stepped_up(acr_values=['a', 'gold'], max_age=300)",
        ),
        (scopes("b", "a", "b"), "scopes('a', 'b')"),
        (any_scope("b", "a"), "any_scope('a', 'b')"),
        (roles("b", "a"), "roles('a', 'b')"),
        (any_role("b", "a"), "any_role('a', 'b')"),
        (permissions("b", "a"), "permissions('a', 'b')"),
        (any_permission("b", "a"), "any_permission('a', 'b')"),
        (
            networks("fd00::/8", "10.0.0.0/8", "9.0.0.0/8", "10.0.0.0/8"),
            "networks('9.0.0.0/8', '10.0.0.0/8', 'fd00::/8')",
        ),
        (
            ServiceNetworks(Network(allow=["10.0.0.0/8"], deny=["10.6.6.6", "10.6.0.0/16"])),
            "service(allow=['10.0.0.0/8'], deny=['10.6.0.0/16', '10.6.6.6'])",
        ),
        (ServiceNetworks(Network(deny=["10.6.6.6"])), "service(deny=['10.6.6.6'])"),
        (csrf_protected(), "csrf_protected()"),
        (
            csrf_protected("https://b.example", "https://a.example"),
            "csrf_protected('https://a.example', 'https://b.example')",
        ),
        (claim("level", 2, "b", 1.5, TRUE, None), "claim('level', 'b', 1.5, 2, None, True)"),
        (claim("level", is_high), f"claim('level', function('{__name__}.is_high'))"),
        (claim("level", str.isdigit), "claim('level', function('builtins.str.isdigit'))"),
        (claim("level", lambda _: True), "claim('level', function())"),
        (claim("level", at_least(3)), "claim('level', function())"),
        (claim("level", {3: True}.get), "claim('level', function())"),
        (claim("level", Decimal(1)), "claim('level', value('decimal.Decimal'))"),
        (claim("level", Color.RED), f"claim('level', value('{__name__}.Color'))"),
        (claim("level", math.nan), "claim('level', value('builtins.float'))"),
        (param("tenant_id", claim="tenant"), "param('tenant_id', claim='tenant')"),
        (requirement("plan_expired", lambda _: True), "requirement('plan_expired')"),
        (requirement("plan_expired", lambda _: True, anonymous=True), "requirement('plan_expired', anonymous=True)"),
        (requirement("not_owner", lambda _: True), f"requirement('{Reason.NOT_OWNER}')"),
        (Own(), f"own('{__name__}.Own')"),
        (scopes("a") & roles("b") & networks("10.0.0.0/8"), "networks('10.0.0.0/8') & scopes('a') & roles('b')"),
        (roles("b") | scopes("a") | roles("b"), "scopes('a') | roles('b')"),
        ((roles("b") | scopes("a")) & authenticated, "authenticated & (scopes('a') | roles('b'))"),
        ((roles("b") & scopes("a")) | authenticated, "authenticated | scopes('a') & roles('b')"),
        (~scopes("a") & ~(scopes("b") | ~roles("c")), "~(scopes('b') | ~roles('c')) & ~scopes('a')"),
        (scopes("a").concealed(), "scopes('a').concealed()"),
        ((scopes("a") & roles("b")).concealed(), "(scopes('a') & roles('b')).concealed()"),
        ((~scopes("a")).concealed(), "(~scopes('a')).concealed()"),
        (~scopes("a").concealed(), "~scopes('a').concealed()"),
        (roles("a\u202eb", "Lagerf\xfchrer", "\u0430dmin"), r"roles('Lagerf\xfchrer', 'a\u202eb', '\u0430dmin')"),
    ],
)  # fmt: skip
def test_a_requirement_is_told_in_one_way(asked: Requirement, text: str) -> None:
    """In one order whatever the order of writing, with nothing hidden in it, and read back alike."""
    form = asked.form()
    assert str(form) == text
    assert text.isascii()
    assert read(text) == form
    assert read(text).parts == form.parts
    assert (read(text).values, read(text).options) == (form.values, form.options)


@given(requirements)
def test_whatever_is_told_is_read_back(wanted: Requirement) -> None:
    """The text of a requirement is all of it."""
    form = wanted.form()
    again = read(str(form))
    assert again == form
    assert str(again) == str(form)


def test_what_is_equal_in_python_is_not_in_a_policy() -> None:
    """`claim("level", 1)` is not met by `true`, so that a text must tell them apart."""
    one, true, real = (claim("level", value).form() for value in (1, True, 1.0))
    assert len({one, true, real}) == 3
    assert str(combined("|", [one, true, real])) == "claim('level', 1) | claim('level', 1.0) | claim('level', True)"


def test_what_has_no_name_is_never_joined_with_another() -> None:
    """Two functions without a name are two, though their text is one."""
    both = claim("level", at_least(3)) & claim("level", at_least(5))
    assert str(both.form()) == "claim('level', function()) & claim('level', function())"
    twice = claim("level", is_high) & claim("level", is_high)
    assert str(twice.form()) == f"claim('level', function('{__name__}.is_high'))"


def test_networks_of_a_file_are_told_by_its_path() -> None:
    """What is in it may change without a review."""
    text = "networks('10.0.0.0/8', file('/etc/shop/allowed'))"
    form = read(text)
    assert form.values == ("10.0.0.0/8", Told("file", "/etc/shop/allowed"))
    assert str(form) == text


def test_a_file_of_networks_is_told_by_its_path_and_a_large_set_by_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form without them would look like one that lets nobody in, whatever they hold."""
    (tmp_path / "offices").write_text("10.0.0.0/8\n", encoding="utf-8")
    file = AddressFile(tmp_path / "offices")
    assert str(networks("192.0.2.1", file).form()) == f"networks('192.0.2.1', file('{tmp_path}/offices'))"
    monkeypatch.chdir(tmp_path)
    assert str(networks(file).form()) == "networks(file('offices'))"
    service = ServiceNetworks(Network(allow=[file], deny=["10.0.0.1"])).form()
    assert str(service) == "service(allow=[file('offices')], deny=['10.0.0.1'])"
    many = [f"10.{high}.{low}.0/24" for high in range(5) for low in range(250)]
    first, second = (str(networks(AddressSet(cidrs)).form()) for cidrs in (many, many[1:]))
    assert first.startswith("networks(set('<1,250 networks, ")
    assert first != second
    assert str(networks(AddressSet(many)).form()) == first == str(read(first))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "scopes",
        "scopes(",
        "scopes('a') and roles('b')",
        "scopes('a') + roles('b')",
        "not_known('a')",
        "anyone()",
        "__import__('os')",
        "scopes(*names)",
        "scopes({'a'})",
        "scopes(open('x'))",
        "claim('a', b'x')",
        "claim('a', (1, 2))",
        "networks('10.0.0.1/8')",
        "networks('10.0.0.0/33')",
        "service(allow=['x'])",
        "scopes('a').revealed()",
        "scopes('a'); scopes('b')",
        "~" * 100_000 + "anyone",
        "(" * 1_000 + "anyone" + ")" * 1_000,
    ],
    ids=lambda text: text[:30],
)
def test_anything_else_is_not_read(text: str) -> None:
    """A lock that somebody broke by hand is told, and nothing in it is ever run."""
    with pytest.raises(ValueError, match="is no requirement that this version can read"):
        read(text)


def test_a_form_knows_what_it_hides() -> None:
    """Concealment is found however deep it stands, and so is what cannot be compared."""
    assert (scopes("a") & ~roles("b").concealed()).form().conceals
    assert not scopes("a").form().conceals
    assert Form("own", ("shop.Own",)).is_opaque
    assert claim("level", Decimal(1)).form().is_opaque
    assert not claim("level", is_high).form().is_opaque


def test_a_custom_requirement_is_told_without_being_asked() -> None:
    """Making a form runs nothing of the app's."""

    def fails(_: Facts) -> bool:
        raise AssertionError

    assert str(requirement("plan_expired", fails).form()) == "requirement('plan_expired')"


def kinds(kind: type[Requirement] = Requirement) -> set[type[Requirement]]:
    """Return all kinds of requirements of the library that stand in policies."""
    found = {one for inner in kind.__subclasses__() for one in (inner, *kinds(inner))}
    return {one for one in found if one.__module__.startswith("authz403.")} - {NeedsIdentity, _Opposite}


def test_every_kind_of_requirement_tells_its_own_form() -> None:
    """One that tells none can never be compared with another."""
    assert {kind.__name__ for kind in kinds() if "form" not in vars(kind)} == set()
    assert len(kinds()) > 12
