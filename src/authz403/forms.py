"""A requirement as a value: what it asks, as text that people compare and programs read back.

The text is what one writes in Python, in one order and with nothing of the machine in it. Functions are told by name.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Final, Literal, NamedTuple

AND: Final = "&"
OR: Final = "|"
NOT: Final = "~"
CONCEALED: Final = "concealed"


class Told(NamedTuple):
    """What a text can only name; without a name, it may be any.

    A `function`, a `value` of another type, a `file` of networks by its path, a large `set` of them by its digest.
    """

    what: Literal["function", "value", "file", "set"]
    name: str | None = None


Value = str | int | float | bool | None | Told | tuple[str | Told, ...]


@dataclass(frozen=True, slots=True)
class Form:
    """A requirement: what it is called, what it was given, and the forms that it combines. Its `text` is what it is."""

    # Not compared, as 1, 1.0 and True are equal in Python and three things in a policy.
    name: str = field(compare=False)
    values: tuple[Value, ...] = field(default=(), compare=False)
    options: tuple[tuple[str, Value], ...] = field(default=(), compare=False)
    parts: tuple[Form, ...] = field(default=(), compare=False)
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _text(self))

    def __str__(self) -> str:
        return self.text

    @property
    def is_opaque(self) -> bool:
        """Whether another requirement may look the same: it holds a function without a name, or the like."""
        told = [value for value in (*self.values, *(value for _, value in self.options)) if isinstance(value, Told)]
        return self.name == "own" or any(one.what == "value" or one.name is None for one in told)

    @property
    def conceals(self) -> bool:
        """Whether refusals look like missing routes."""
        return self.name == CONCEALED or any(part.conceals for part in self.parts)


# In the order in which failures are told, which is the order of parts.
_ORDER: Final = (
    *("anyone", "deny", "no_policy", "service", "networks", "csrf_protected"),
    *("authenticated", "authenticated.stepped_up", "optional", "scopes", "any_scope", "roles", "any_role"),
    *("permissions", "any_permission", "claim", "param", "requirement", "own", NOT, OR, AND, CONCEALED),
)
_MAYBE_EMPTY: Final = frozenset({"csrf_protected"})
_PLAIN: Final = frozenset({"anyone", "deny", "no_policy", "authenticated", "optional"})
_LONGEST_SHOWN: Final = 200  # characters
_TOLD: Final = frozenset({"function", "value", "file", "set"})


def combined(name: Literal["&", "|"], parts: Iterable[Form]) -> Form:
    """Return forms combined, each once and in one order, whatever order they were written in."""
    flat: list[Form] = []
    for part in parts:
        flat.extend(part.parts if part.name == name else (part,))
    distinct = [part for number, part in enumerate(flat) if _is_unknown(part) or part not in flat[:number]]
    distinct.sort(key=lambda part: (_ORDER.index(part.name), str(part)))
    return distinct[0] if len(distinct) == 1 else Form(name, parts=tuple(distinct))


def names(name: str, given: Iterable[str]) -> Form:
    """Return the form of a requirement that is given names, whose order says nothing."""
    return Form(name, tuple(sorted(set(given))))


def networks_in_order(cidrs: Iterable[str | Told]) -> tuple[str | Told, ...]:
    """Return networks in the order of their addresses, then files."""
    return tuple(sorted(set(cidrs), key=_network_order))


def _network_order(cidr: str | Told) -> tuple[int, int, int, str]:
    if isinstance(cidr, Told):
        return 9, 0, 0, str(cidr.name)
    network = ip_network(cidr)
    return network.version, int(network.network_address), network.prefixlen, cidr


def cidr_sets(form: Form) -> Iterator[tuple[str, ...]]:
    """Yield the sets of networks that a single requirement asks for, each as it is told."""
    if form.name == "networks":
        yield tuple(cidr for cidr in form.values if isinstance(cidr, str))
    for name, cidrs in form.options:
        if name in {"allow", "deny"} and isinstance(cidrs, tuple):
            yield tuple(cidr for cidr in cidrs if isinstance(cidr, str))


def told_value(value: object) -> Value:
    """Return a value as a text can tell it."""
    if value is None or (isinstance(value, str | int) and type(value) in {str, int, bool}):
        return value
    if isinstance(value, float) and type(value) is float and math.isfinite(value):
        return value
    return Told("value", f"{type(value).__module__}.{type(value).__qualname__}")


def told_function(function: Callable[..., object]) -> Told:
    """Return a function by its name; what is made anew at each call, or bound to something, has none."""
    name = getattr(function, "__qualname__", "<")
    module = getattr(function, "__module__", None) or "builtins"
    is_named = inspect.isfunction(function) or inspect.ismethoddescriptor(function)
    return Told("function", f"{module}.{name}" if is_named and "<" not in name else None)


def read(text: str) -> Form:
    """Read the text of a form; a `ValueError` says what is wrong with it."""
    try:
        return _read(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{text[:_LONGEST_SHOWN]!r} is no requirement that this version can read: {error}") from error


def _read(node: ast.expr) -> Form:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        return combined(AND if isinstance(node.op, ast.BitAnd) else OR, (_read(node.left), _read(node.right)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return Form(NOT, parts=(_read(node.operand),))
    if isinstance(node, ast.Name) and node.id in _PLAIN:
        return Form(node.id)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == CONCEALED and not node.args:
            return Form(CONCEALED, parts=(_read(node.func.value),))
        name = ast.unparse(node.func)
        if name in _ORDER and name not in _PLAIN:
            options = tuple((str(option.arg), _read_value(option.value)) for option in node.keywords)
            found = Form(name, tuple(_read_value(value) for value in node.args), options)
            for cidrs in cidr_sets(found):
                networks_in_order(cidrs)  # raises where one is no network
            return found
    raise ValueError(f"{ast.unparse(node)} is not known")


def _read_value(node: ast.expr) -> Value:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TOLD:
        return Told(node.func.id, *(ast.literal_eval(value) for value in node.args))  # type: ignore[arg-type]  # one of them
    if isinstance(node, ast.List):
        return tuple(_read_value(one) for one in node.elts)  # type: ignore[misc]  # lists are of strings and files
    value: Value = ast.literal_eval(node)
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"{ast.unparse(node)} is not known")
    return value


def _text(form: Form) -> str:
    if form.name in {AND, OR}:
        return f" {form.name} ".join(_within(part, form.name) for part in form.parts)
    if form.name == NOT:
        return f"~{_within(form.parts[0], NOT)}"
    if form.name == CONCEALED:
        return f"{_within(form.parts[0], CONCEALED)}.concealed()"
    given = [shown(value) for value in form.values]
    given += [f"{name}={shown(value)}" for name, value in form.options]
    return f"{form.name}({', '.join(given)})" if given or form.name in _MAYBE_EMPTY else form.name


def _is_unknown(form: Form) -> bool:
    """Tell whether two forms that look the same may be two requirements."""
    return form.is_opaque or any(_is_unknown(part) for part in form.parts)


def _within(part: Form, name: str) -> str:
    is_loose = part.name == OR or (part.name == AND and name != OR) or (part.name == NOT and name == CONCEALED)
    return f"({part})" if is_loose else str(part)


def shown(value: Value) -> str:
    """Return a value as a text shows it."""
    if isinstance(value, Told):
        return f"{value.what}({'' if value.name is None else ascii(value.name)})"
    if isinstance(value, tuple):
        return f"[{', '.join(shown(one) for one in value)}]"
    # Escaped: names that only look alike, and characters that turn text around, must not hide in a review.
    return ascii(value)
