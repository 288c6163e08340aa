"""What policies are written with: `scopes(...)`, `roles(...)`, `networks(...)` and the rest, checked when made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Final

from authz403.addresses import Addresses, addresses_of
from authz403.errors import Mistakes
from authz403.leaves import SCOPE, Authenticated, Claim, Custom, Held, Networks, Optional, Param, Scopes, Test
from authz403.need import is_async
from authz403.policy import Requirement
from authz403.reasons import Reason

_OWN_CODE: Final = re.compile(r"[a-z][a-z0-9_]{2,}")


def _names(part: str, names: tuple[object, ...], shape: re.Pattern[str] | None = None) -> tuple[str, ...]:
    mistakes = Mistakes(part)
    strings = mistakes.strings("names", names)
    if not names:
        mistakes.add("names", [], "an empty requirement would let everybody in; write anyone if that is meant")
    for index, name in enumerate(strings):
        if not name or name != name.strip():
            mistakes.add(f"names[{index}]", name, "empty, or with white space around it")
        elif shape is not None and shape.fullmatch(name) is None:
            mistakes.add(f"names[{index}]", name, "a scope is visible ASCII without spaces, quotes and backslashes")
    mistakes.raise_if_any()
    return tuple(dict.fromkeys(strings))


def scopes(*names: str) -> Requirement:
    """Need all of these OAuth scopes, each matched exactly (RFC 6749 section 3.3)."""
    return Scopes(_names("scopes", names, SCOPE), one_is_enough=False)


def any_scope(*names: str) -> Requirement:
    """Need one of these OAuth scopes."""
    return Scopes(_names("any_scope", names, SCOPE), one_is_enough=True)


def roles(*names: str) -> Requirement:
    """Need all of these roles, from the token or from `Rbac`."""
    return Held("role", _names("roles", names), one_is_enough=False)


def any_role(*names: str) -> Requirement:
    """Need one of these roles."""
    return Held("role", _names("any_role", names), one_is_enough=True)


def permissions(*names: str) -> Requirement:
    """Need all of these permissions, from the token's `permissions` or granted to a role by `Rbac`."""
    return Held("permission", _names("permissions", names), one_is_enough=False)


def any_permission(*names: str) -> Requirement:
    """Need one of these permissions."""
    return Held("permission", _names("any_permission", names), one_is_enough=True)


def networks(*cidrs: str | Addresses) -> Requirement:
    """Need a client address inside one of these networks, such as `"10.0.0.0/8"`; an unknown address is inside none.

    An `AddressSet` or an `AddressFile` may stand among the CIDR strings, or alone.
    """
    mistakes = Mistakes("networks")
    if not cidrs:
        mistakes.add("names", [], "an empty requirement would let nobody in; write deny if that is meant")
    found = addresses_of(mistakes, "cidrs", cidrs)
    if found.may_be_empty and not mistakes:
        mistakes.add("cidrs", found, "the list is empty or may become so, which would let nobody in")
    mistakes.raise_if_any()
    return Networks(found)


def claim(name: str, *values: object) -> Requirement:
    """Need the token's claim to be one of `values` (a list claim: to hold one), or to satisfy a predicate.

    Values are compared with their type: `claim("level", 1)` is not met by `true` or `"1"`.
    """
    mistakes = Mistakes("claim")
    if not isinstance(name, str) or not name:
        mistakes.add("name", name, "the name of a claim is needed")
    predicates = [value for value in values if callable(value)]
    for index, value in enumerate(values):
        if (isinstance(value, type) and value is not bool) or is_async(value):
            mistakes.add(
                f"values[{index}]", value, "a value, or a plain function that answers True or False, is needed"
            )
        elif isinstance(value, list | tuple | set | frozenset | dict):
            mistakes.add(f"values[{index}]", value, "give the values one by one: claim(name, one, another)")
    if not values:
        mistakes.add("values", [], "say which value is needed, or give a predicate")
    elif predicates and len(values) > 1:
        mistakes.add("values", list(values), "values, or one predicate, but not both")
    mistakes.raise_if_any()
    return Claim(name, () if predicates else values, predicates[0] if predicates else None)


def param(name: str, *, claim: str) -> Requirement:
    """Need the route's path parameter `name`, as converted, to equal the caller's claim; else `not_owner`."""
    mistakes = Mistakes("param")
    for field, value in (("name", name), ("claim", claim)):
        if not isinstance(value, str) or not value:
            mistakes.add(field, value, "a name is needed")
    mistakes.raise_if_any()
    return Param(name, claim)


def requirement(code: str, test: Test, *, remedy: str | None = None, anonymous: bool = False) -> Requirement:
    """Make a requirement of your own: `test(facts)`, sync or async, answers `True` or `False`.

    `code` is a `Reason` with status 403 or a code of your own (`[a-z][a-z0-9_]{2,}`); `remedy` is what the caller can
    do. The test is asked about signed-in callers only, unless `anonymous=True`. Anything but `True` denies; an
    exception or another value is a 500 `policy_error`.
    """
    mistakes = Mistakes("requirement")
    found = _own_code(mistakes, "code", code)
    if isinstance(found, Reason) and found.status != 403:  # noqa: PLR2004 - a refusal of a known caller
        mistakes.add("code", code, f"this code belongs to answers with status {found.status}")
    mistakes.flag("anonymous", anonymous)
    if not callable(test) or not _takes_one(test):
        mistakes.add("test", test, "a function of one argument, the facts, is needed")
    if remedy is not None and (not isinstance(remedy, str) or _OWN_CODE.fullmatch(remedy) is None):
        mistakes.add("remedy", remedy, "a code such as contact_owner is needed")
    mistakes.raise_if_any()
    cure = remedy or (found.remedy if isinstance(found, Reason) else "contact_owner")
    return Custom(found, test, cure, anonymous=anonymous)


def _takes_one(test: Callable[..., object]) -> bool:
    try:
        inspect.signature(test).bind(None)
    except TypeError:
        return False
    except ValueError:
        return True  # some builtins do not tell
    return True


def own_code_or_reason(part: str, code: object) -> Reason | str:
    """Return a published reason, or a code of the user's own where it has the right shape."""
    mistakes = Mistakes(part)
    found = _own_code(mistakes, "reason", code)
    mistakes.raise_if_any()
    return found


def _own_code(mistakes: Mistakes, field: str, code: object) -> Reason | str:
    if not isinstance(code, str) or _OWN_CODE.fullmatch(code) is None:
        mistakes.add(field, code, "lower-case letters, digits and _, three or more, starting with a letter, are needed")
        return ""
    return Reason.__members__.get(code.upper(), code)


authenticated: Final = Authenticated()
"""Needs a signed-in caller, whoever it is. `authenticated.stepped_up(...)` needs a strong or recent sign-in."""

optional: Final[Requirement] = Optional()
"""Lets a request without a token pass, and refuses one with a bad token."""
