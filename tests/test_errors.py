"""Broken configuration is told with every mistake at once; a denial from a handler carries its reason and facts."""

import pytest

from authz403.errors import AccessDenied, ConfigurationError, Mistake, Mistakes
from authz403.reasons import Reason


def test_every_mistake_is_told_at_once() -> None:
    """The error holds all mistakes with field, value and why, and its text has a line for each."""
    mistakes = Mistakes("Gate")
    mistakes.add("default", "nobody", "a requirement is needed")
    mistakes.add_secret("key", "too short for HS256")

    with pytest.raises(ConfigurationError) as caught:
        mistakes.raise_if_any()

    assert caught.value.part == "Gate"
    assert caught.value.mistakes == (
        Mistake("default", "'nobody'", "a requirement is needed"),
        Mistake("key", "", "too short for HS256"),
    )
    assert str(caught.value) == (
        "Gate cannot work as configured:\n"
        "  - default = 'nobody': a requirement is needed\n"
        "  - key: too short for HS256"
    )  # fmt: skip


def test_no_mistake_raises_nothing() -> None:
    """A part without mistakes is made."""
    mistakes = Mistakes("Gate")

    mistakes.raise_if_any()

    assert not mistakes


def test_a_collection_with_a_mistake_is_true() -> None:
    """Whether anything was noted can be asked."""
    mistakes = Mistakes("Gate")
    mistakes.add("default", None, "a requirement is needed")

    assert mistakes


def test_a_long_value_is_cut() -> None:
    """A value of any length is shown in a line that can be read."""
    mistakes = Mistakes("Rule")
    mistakes.add("path", "/" + "a" * 10_000, "too long")

    with pytest.raises(ConfigurationError) as caught:
        mistakes.raise_if_any()

    (mistake,) = caught.value.mistakes
    assert mistake.value == "'/" + "a" * 78 + "..."


def test_control_characters_in_a_value_stay_on_their_line() -> None:
    """A line break in a value is shown escaped, so that no value can look like another mistake."""
    mistakes = Mistakes("Rule")
    mistakes.add("path", "/\n  - default: fine", "control characters")

    with pytest.raises(ConfigurationError) as caught:
        mistakes.raise_if_any()

    assert len(str(caught.value).splitlines()) == 2


def test_mistakes_of_another_part_are_taken_over_in_order() -> None:
    """A part made of parts reports its own mistakes and theirs together."""
    inner, outer = Mistakes("Rule"), Mistakes("Gate")
    outer.add("tokens", None, "first")
    inner.add("path", "x", "second")

    outer.take(inner)

    with pytest.raises(ConfigurationError) as caught:
        outer.raise_if_any()
    assert (caught.value.part, [mistake.why for mistake in caught.value.mistakes]) == ("Gate", ["first", "second"])


@pytest.mark.parametrize(
    ("value", "strings"),
    [
        (["a", "b"], ("a", "b")),
        (("a",), ("a",)),
        ((), ()),
        ((letter for letter in "ab"), ("a", "b")),
        ({"a": 1}, ("a",)),
    ],
    ids=["list", "tuple", "empty", "generator", "keys"],
)
def test_any_iterable_of_strings_is_taken(value: object, strings: tuple[str, ...]) -> None:
    """Strings come out as a tuple, whatever held them."""
    mistakes = Mistakes("Gate")

    assert mistakes.strings("names", value) == strings
    assert not mistakes


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ("orders:read", ["names"]),
        (b"orders:read", ["names"]),
        (7, ["names"]),
        (None, ["names"]),
        (["a", 1, "b", None], ["names[1]", "names[3]"]),
        ([b"a"], ["names[0]"]),
    ],
    ids=["lone string", "lone bytes", "number", "none", "mixed", "bytes inside"],
)
def test_what_is_no_list_of_strings_is_a_mistake(value: object, fields: list[str]) -> None:
    """A lone string is not taken for a list of its letters, and every wrong item is named by its place."""
    mistakes = Mistakes("Gate")
    mistakes.strings("names", value)

    with pytest.raises(ConfigurationError) as caught:
        mistakes.raise_if_any()

    assert [mistake.field for mistake in caught.value.mistakes] == fields


@pytest.mark.parametrize("reason", [Reason.NOT_OWNER, "plan_expired"], ids=["reason", "own code"])
def test_a_denial_carries_its_reason_and_facts(reason: Reason | str) -> None:
    """`AccessDenied` keeps what the event needs and shows the code alone."""
    denied = AccessDenied(reason, order=7, tenant="acme")

    assert denied.reason == reason
    assert denied.facts == {"order": 7, "tenant": "acme"}
    assert str(denied) == str(reason)
