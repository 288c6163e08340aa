"""The two exceptions: broken configuration, with every mistake at once, and a denial from a handler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from authz403.reasons import Reason

LONGEST_VALUE_SHOWN = 80  # characters


class Mistake(NamedTuple):
    """One thing wrong in a configuration: which `field`, its `value` as shown, and `why` it cannot be."""

    field: str
    value: str
    why: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.why}" if self.value else f"{self.field}: {self.why}"


class ConfigurationError(Exception):
    """A part is configured so that it cannot work or would be unsafe; `mistakes` lists all that is wrong with it.

    Raised where the part is made. What only shows when parts meet is raised, all together, when the middleware meets
    the app.
    """

    def __init__(self, part: str, mistakes: Iterable[Mistake]) -> None:
        self.part = part
        self.mistakes = tuple(mistakes)
        lines = "".join(f"\n  - {mistake}" for mistake in self.mistakes)
        super().__init__(f"{part} cannot work as configured:{lines}")


class AccessDenied(Exception):  # noqa: N818 - the name is the public contract, and a denial is not an error
    """Raised in a handler to refuse the request; the middleware turns it into the same answer as any other denial.

    `reason` is a `Reason` or a code of your own; `facts` go to the log event, never to the client.
    """

    def __init__(self, reason: Reason | str, **facts: object) -> None:
        self.reason = reason
        self.facts = facts
        super().__init__(str(reason))


def denial_in(error: BaseException) -> AccessDenied | None:
    """Return the denial that an exception is: itself, or one of several tasks that were denied and nothing else."""
    while isinstance(error, ExceptionGroup) and error.split(AccessDenied)[1] is None:
        error = error.exceptions[0]
    return error if isinstance(error, AccessDenied) else None


class Mistakes:
    """Collects the mistakes of one part, so that all are reported at once."""

    def __init__(self, part: str) -> None:
        self._part = part
        self._found: list[Mistake] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[Mistake]:
        return iter(self._found)

    def add(self, field: str, value: object, why: str) -> None:
        """Note one mistake. The value is shown; for a secret, call `add_secret`."""
        shown = repr(value)
        if len(shown) > LONGEST_VALUE_SHOWN:
            shown = shown[:LONGEST_VALUE_SHOWN] + "..."
        self._found.append(Mistake(field, shown, why))

    def add_secret(self, field: str, why: str) -> None:
        """Note one mistake without showing the value."""
        self._found.append(Mistake(field, "", why))

    def take(self, other: Mistakes) -> None:
        """Take over all mistakes that another collected."""
        self._found.extend(other._found)

    def flag(self, field: str, value: object) -> None:
        """Note a value that is not a bool: a text that says "false" would switch something on."""
        if not isinstance(value, bool):
            self.add(field, value, "True or False is needed")

    def number(self, field: str, value: object, fits: Callable[[float], bool], why: str) -> None:
        """Note a value that is no number, or none that fits."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
            self.add(field, value, why)

    def strings(self, field: str, value: object) -> tuple[str, ...]:
        """Return `value` as a tuple of strings; a lone string or anything else is a mistake."""
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            self.add(field, value, "a list of strings is needed")
            return ()
        # A set has another order in every process; errors and the policy's version need one.
        items = tuple(sorted(value, key=repr) if isinstance(value, AbstractSet) else value)
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self.add(f"{field}[{index}]", item, "a string is needed")
        return tuple(item for item in items if isinstance(item, str))

    def raise_if_any(self) -> None:
        """Raise one `ConfigurationError` with all that was noted."""
        if self._found:
            raise ConfigurationError(self._part, self._found)
