"""What a change of the policy means: each in a sentence, and loosened or tightened only where that is proven."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from authz403.cli.lockfile import Entry, Key, Lock, Means, Turn
from authz403.forms import AND, CONCEALED, Form, combined
from authz403.implication import conjuncts, implies, leaves, negated
from authz403.paths import PathPattern, parse_pattern


class Kind(StrEnum):
    """What became of an endpoint, in the order in which reviewers want to read it."""

    LOOSENED = "loosened"
    CHANGED = "changed"
    NEW = "new"
    MOVED = "moved"
    TIGHTENED = "tightened"
    REMOVED = "removed"
    REWORDED = "reworded"


class Change(NamedTuple):
    """One change: of what, of which kind, a sentence about it, and where the policy is written now."""

    about: str
    kind: Kind
    sentence: str
    written: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.about}: {self.kind}, {self.sentence}"


_ORDER: Final = tuple(Kind)


def changes(before: Lock, after: Lock) -> list[Change]:
    """Return all that differs between two policies, what opens something first."""
    found = [*_of_settings(before, after), *_of_roles(before, after), *_of_turns(before, after)]
    found += _of_entries(before.entries, after.entries)
    return sorted(found, key=lambda change: _ORDER.index(change.kind))


# ---- one policy


def compared(before: Form, after: Form) -> tuple[Kind, str] | None:
    """Return what became of a policy, or `None` where it reads as before."""
    if before == after:
        return None
    looser, stricter = implies(before, after), implies(after, before)
    if looser and stricter:
        return _same_requests(before, after)
    if looser:
        return Kind.LOOSENED, _loosened(before, after)
    if stricter:
        return Kind.TIGHTENED, _tightened(before, after)
    return Kind.CHANGED, f"{_needs(after)} now, and {_needed(before)} before: some requests may pass that did not"


def _same_requests(before: Form, after: Form) -> tuple[Kind, str]:
    if before.conceals and not after.conceals:
        return Kind.CHANGED, "the same requests pass, and refusals no longer look like a missing route"
    if after.conceals and not before.conceals:
        return Kind.CHANGED, "the same requests pass, and refusals look like a missing route now"
    return Kind.REWORDED, f"the same requests pass; it reads {after} now"


def _loosened(before: Form, after: Form) -> str:
    if not _lets_somebody_in(before):
        return f"it was closed ({_bare(before)}), and now {_needs(after)}"
    gone, instead = _only(before, after), _only(after, before)
    if instead:
        return f"{_both(instead)} is enough, where {_both(gone)} was needed"
    opened = ": anyone may call it" if _bare(after).name == "anyone" else ""
    return f"{_and(gone)} {_is(gone)} no longer needed{opened}"


def _tightened(before: Form, after: Form) -> str:
    if not _lets_somebody_in(after):
        return f"it is closed now ({_bare(after)}), and {_needed(before)} before"
    gone, come = _only(before, after), _only(after, before)
    if gone:
        return f"{_both(come)} is needed, where {_both(gone)} was enough"
    return f"{_and(come)} {_is(come)} needed now"


def _only(one: Form, other: Form) -> list[Form]:
    """Return the parts of a policy that another does not have."""
    there = conjuncts(other)
    return [part for part in conjuncts(one) if part not in there]


def _both(parts: Sequence[Form]) -> str:
    return str(combined(AND, _gathered(parts)))


def _and(parts: Sequence[Form]) -> str:
    return " and ".join(str(part) for part in _gathered(parts))


def _is(parts: Sequence[Form]) -> str:
    return "is" if len(_gathered(parts)) == 1 else "are"


def _gathered(parts: Sequence[Form]) -> list[Form]:
    """Return parts with all names that are needed of one kind in one."""
    found: dict[str, list[Form]] = defaultdict(list)
    for part in parts:
        is_list = part.name in {"scopes", "roles", "permissions"}
        found[part.name if is_list else str(part)].append(part)
    return [
        some[0] if len(some) == 1 else Form(some[0].name, tuple(value for part in some for value in part.values))
        for some in found.values()
    ]


def _lets_somebody_in(form: Form) -> bool:
    return not implies(form, Form("deny"))


def _bare(form: Form) -> Form:
    return _bare(form.parts[0]) if form.name == CONCEALED else form


def _needs(form: Form) -> str:
    """Say who may call what stands under a policy."""
    bare = _bare(form)
    if bare.name == "anyone":
        return "anyone may call it"
    return f"it needs {bare}" if _lets_somebody_in(bare) else f"nobody may call it ({bare})"


def _needed(form: Form) -> str:
    bare = _bare(form)
    if bare.name == "anyone":
        return "anyone might call it"
    return f"it needed {bare}" if _lets_somebody_in(bare) else f"nobody might call it ({bare})"


# ---- endpoints


def _of_entries(before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Change]:
    left, come = _unequal(before, after)
    yield from _replaced(left, come)
    yield from _parted(left, come, before, after)
    yield from _moved(left, come)
    for entry in come:
        who = "nobody wrote a policy for it, and " if not entry.written and entry.policy.name == "no_policy" else ""
        yield Change(str(entry.key), Kind.NEW, f"{who}{_needs(entry.policy)}", entry.written)
    for entry in left:
        yield Change(str(entry.key), Kind.REMOVED, _needed(entry.policy))


def _unequal(before: Iterable[Entry], after: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return what is left of two lists without what stands in both."""
    counted = Counter((entry.key, entry.endpoint, entry.policy) for entry in before)
    come = []
    for entry in after:
        same = (entry.key, entry.endpoint, entry.policy)
        if counted[same]:
            counted[same] -= 1
        else:
            come.append(entry)
    left = []
    for entry in before:
        same = (entry.key, entry.endpoint, entry.policy)
        if counted[same]:
            counted[same] -= 1
            left.append(entry)
    return left, come


def _replaced(left: list[Entry], come: list[Entry]) -> Iterator[Change]:
    """Tell what has the same method and path as before, the same name first; take it out of the lists."""
    for same_name in (True, False):
        for entry in [*come]:
            for old in left:
                if old.key == entry.key and (old.endpoint == entry.endpoint or not same_name):
                    left.remove(old)
                    come.remove(entry)
                    yield _difference(old, entry)
                    break


def _difference(old: Entry, new: Entry) -> Change:
    found = compared(old.policy, new.policy)
    moved = f"; it was {old.key}" if new.key != old.key else ""
    if found is not None and not (found[0] is Kind.REWORDED and (moved or old.endpoint != new.endpoint)):
        return Change(str(new.key), found[0], f"{found[1]}{moved}", new.written)
    what = f"it was {old.key}" if moved else f"{new.endpoint} serves it, and {old.endpoint} did before"
    return Change(str(new.key), Kind.MOVED, f"{what}; the policy is the same", new.written)


def _parted(left: list[Entry], come: list[Entry], before: Sequence[Entry], after: Sequence[Entry]) -> Iterator[Change]:
    """Tell what a rule tells apart that it did not before, or no longer does: held against what held there."""
    for entry in [*come]:
        there = _holding(entry.key, before)
        if there:
            come.remove(entry)
            yield _against(entry, [(old.policy, entry.policy) for old in there], entry.written)
    for entry in [*left]:
        there = _holding(entry.key, after)
        if there:
            left.remove(entry)
            written = tuple(place for new in there for place in new.written)
            yield _against(entry, [(entry.policy, new.policy) for new in there], written)


def _against(entry: Entry, pairs: Sequence[tuple[Form, Form]], written: tuple[str, ...]) -> Change:
    found = [difference for pair in pairs if (difference := compared(*pair)) is not None]
    kinds = {kind for kind, _ in found}
    if not kinds:
        return Change(
            str(entry.key), Kind.REWORDED, "rules tell other requests apart now; its policy is the same", written
        )
    if len(found) == len(pairs) == 1:
        return Change(str(entry.key), *found[0], written)
    # A part that several policies held for became looser only where it did so for each of them.
    kinds = kinds - {Kind.REWORDED} or kinds
    kind = kinds.pop() if len(kinds) == 1 else Kind.CHANGED
    return Change(str(entry.key), kind, "; ".join(dict.fromkeys(sentence for _, sentence in found)), written)


def _holding(key: Key, entries: Iterable[Entry]) -> list[Entry]:
    """Return what holds for requests that others tell apart: by their method, or by a part of the path."""
    there = [entry for entry in entries if entry.key.path == key.path]
    has_method = any(entry.key.method == key.method for entry in there)
    pattern = _pattern(key.part)
    found = []
    for entry in there:
        if entry.key.method == (key.method if has_method else "*"):
            theirs = _pattern(entry.key.part)
            if pattern is None or theirs is None or theirs.meets(pattern):
                found.append(entry)
    return found


def _pattern(part: str | None) -> PathPattern | None:
    found = None if part is None else parse_pattern(part)
    return found if isinstance(found, PathPattern) else None


def _moved(left: list[Entry], come: list[Entry]) -> Iterator[Change]:
    """Tell what the same function serves at another path, where there is no other that it may have been."""
    names_left = Counter((entry.endpoint, entry.key.method) for entry in left)
    names_come = Counter((entry.endpoint, entry.key.method) for entry in come)
    for entry in [*come]:
        name = (entry.endpoint, entry.key.method)
        if names_left[name] == names_come[name] == 1:
            old = next(one for one in left if (one.endpoint, one.key.method) == name)
            left.remove(old)
            come.remove(entry)
            yield _difference(old, entry)


# ---- which of two is asked


def _of_turns(before: Lock, after: Lock) -> Iterator[Change]:
    """Tell whose requests another takes now. Which they are nobody proves: such a change is never called tightened."""
    were = {(entry.key, entry.endpoint) for entry in before.entries}
    are = {(entry.key, entry.endpoint): entry for entry in after.entries}
    for turn in sorted(after.turns - before.turns, key=str):
        come_first = turn.first not in were or Turn(turn.then, turn.first) in before.turns
        if turn.then in were and come_first:
            taker = are[turn.first]
            told = f"{_asked(turn.first)} comes before it now and takes what both fit: {_needs(taker.policy)}"
            yield Change(str(turn.then[0]), Kind.CHANGED, told, taker.written)
    for turn in sorted(before.turns, key=str):
        if turn.first not in are and turn.then in are and not any(key == turn.first[0] for key, _ in are):
            taker = are[turn.then]
            told = f"it is gone, and {_asked(turn.then)} takes what both fit: {_needs(taker.policy)}"
            yield Change(str(turn.first[0]), Kind.CHANGED, told, taker.written)


def _asked(name: tuple[Key, str]) -> str:
    return f"{name[0]} ({name[1]})"


# ---- what holds for all


def _of_settings(before: Lock, after: Lock) -> Iterator[Change]:
    for about, one, other in (
        ("what has no policy", before.default, after.default),
        ("every request", before.service, after.service),
    ):
        found = compared(one, other)
        if found is not None:
            yield Change(about, *found)
    if before.is_enforced and not after.is_enforced:
        yield Change("every request", Kind.LOOSENED, "refusals are only reported: every request passes")
    if after.is_enforced and not before.is_enforced:
        yield Change("every request", Kind.TIGHTENED, "refusals are enforced, and were only reported before")
    if before.looked_up != after.looked_up:
        told = [f"by {one}" if one is not None else "in the token" for one in (after.looked_up, before.looked_up)]
        yield Change("roles", Kind.CHANGED, f"they are found {told[0]}, and {told[1]} before")


def _of_roles(before: Lock, after: Lock) -> Iterator[Change]:
    policies = [form for lock in (before, after) for form in (lock.default, *(entry.policy for entry in lock.entries))]
    # Where a policy is met by those who lack something, giving it to them closes what was open; and what a requirement
    # of the app's own does with roles is not known.
    is_monotone = not any(
        any(leaf.name in _HELD for leaf in negated(form)) or any(leaf.name in _OWN for leaf in leaves(form))
        for form in policies
    )
    for role in sorted(before.roles.keys() | after.roles.keys()):
        old, new = before.roles.get(role, Means()), after.roles.get(role, Means())
        if old == new:
            continue
        gained = _gained(old, new, "includes {}", "grants {}")
        lost = _gained(new, old, "no longer includes {}", "no longer grants {}")
        more = _closure(role, before.roles) <= _closure(role, after.roles)
        less = _closure(role, after.roles) <= _closure(role, before.roles)
        kind = Kind.CHANGED
        if is_monotone and more != less:
            kind = Kind.LOOSENED if more else Kind.TIGHTENED
        yield Change(f"role {role!a}", kind, f"it {' and '.join([*gained, *lost])}")


_HELD: Final = frozenset({"roles", "any_role", "permissions", "any_permission"})

_OWN: Final = frozenset({"requirement", "own"})


def _gained(old: Means, new: Means, *words: str) -> list[str]:
    found = ((new.includes - old.includes, "role"), (new.grants - old.grants, "permission"))
    return [
        word.format(f"the {what}{'s' if len(names) > 1 else ''} {', '.join(ascii(name) for name in sorted(names))}")
        for (names, what), word in zip(found, words, strict=True)
        if names
    ]


def _closure(role: str, roles: Mapping[str, Means]) -> frozenset[tuple[str, str]]:
    """Return all that a role stands for: roles and permissions."""
    found: set[tuple[str, str]] = set()
    waiting = [role]
    while waiting:
        means = roles.get(waiting.pop(), Means())
        found |= {("permission", name) for name in means.grants}
        waiting += [name for name in means.includes if ("role", name) not in found]
        found |= {("role", name) for name in means.includes}
    return frozenset(found)
