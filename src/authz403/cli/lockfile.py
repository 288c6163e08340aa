"""`authz.lock`: every endpoint with its policy, a line each, as text that people review and that is read back.

Nothing of the machine is in it: no directories, no line numbers, no order that differs between two runs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from authz403.cli.loading import Failure
from authz403.cli.routes import covered_by
from authz403.endpoint import Covered, Served
from authz403.forms import AND, CONCEALED, Form, combined, read, shown, told_function
from authz403.gate import Gate
from authz403.guarded import Guarded
from authz403.leaves import ServiceNetworks
from authz403.paths import PathPattern, parse_pattern

VERSION: Final = 1
_HEAD: Final = """\
# Who may call what, made by `authz403 lock`. Review a change of it as you review code.
version: {version}
"""
_EVERY_REQUEST: Final = "every request"
_NOT_ENFORCED: Final = "enforced: no, every request passes"
_LOOKED_UP: Final = "roles: looked up by "


class Key(NamedTuple):
    """Which requests an entry is about: the path of the route, and the part of it that a rule tells apart."""

    path: str
    part: str | None
    method: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}" if self.part is None else f"{self.method} {self.path} on {self.part}"


class Entry(NamedTuple):
    """An endpoint with its policy, and where that is written, which the file does not say."""

    key: Key
    endpoint: str
    policy: Form
    written: tuple[str, ...] = ()


class Turn(NamedTuple):
    """That one entry is asked before another that takes some of its requests, and has another policy."""

    first: tuple[Key, str]
    then: tuple[Key, str]


class Means(NamedTuple):
    """What a role stands for: the roles that it includes, and the permissions that it grants."""

    includes: frozenset[str] = frozenset()
    grants: frozenset[str] = frozenset()


class Lock(NamedTuple):
    """The whole policy of an app.

    `service` is what every request must meet besides, `looked_up` says by what roles are found that the token does not
    know.
    """

    default: Form
    service: Form
    is_enforced: bool
    looked_up: str | None
    roles: dict[str, Means]
    entries: tuple[Entry, ...]
    turns: frozenset[Turn] = frozenset()


def lock_of(found: Guarded) -> Lock:
    """Return the policy of an app as it is; raises `Failure` where the app cannot be read."""
    gate = found.gate
    roles_for = None if gate.rbac is None else gate.rbac.roles_for
    rows = covered_by(found)
    return Lock(
        gate.default.form(),
        _service(gate),
        not gate.report_only,
        None if roles_for is None else shown(told_function(roles_for)),
        _roles(gate),
        tuple(sorted((_entry(row) for _, row in rows), key=_order)),
        frozenset(_turns(rows)),
    )


def _turns(rows: Sequence[tuple[Served, Covered]]) -> Iterator[Turn]:
    """Yield what is asked first where two entries take the same requests: of routes, and of rules on one route."""
    told = [(served, row, _entry(row)) for served, row in rows]
    for index, (served, row, one) in enumerate(told):
        for later, other_row, other in told[index + 1 :]:
            methods = {row.method, other_row.method}
            if one.policy == other.policy or (len(methods) > 1 and "*" not in methods):
                continue
            if served is later and (row.part is None or other_row.part is None):
                continue  # what a rule leaves over always comes last
            if _paths(served, row).meets(_paths(later, other_row)):
                yield Turn((one.key, one.endpoint), (other.key, other.endpoint))


def _paths(served: Served, row: Covered) -> PathPattern:
    found = None if row.part is None else parse_pattern(row.part)
    return found if isinstance(found, PathPattern) else served.pattern


def _entry(row: Covered) -> Entry:
    key = Key(row.path, row.part, row.method)
    return Entry(key, row.endpoint, _without_service(row.requirement.form()), row.written)


def _service(gate: Gate) -> Form:
    network = gate.network
    return ServiceNetworks(network).form() if network.allowed or network.denied else Form("anyone")


def _without_service(form: Form) -> Form:
    """Return a policy without what every request must meet, which is told once."""
    if form.name == CONCEALED:
        inner = _without_service(form.parts[0])
        return inner if inner.name == "anyone" and inner != form.parts[0] else Form(CONCEALED, parts=(inner,))
    if form.name == AND:
        parts = [part for part in form.parts if part.name != "service"]
        return combined(AND, parts)
    return Form("anyone") if form.name == "service" else form


def _roles(gate: Gate) -> dict[str, Means]:
    rbac = gate.rbac
    if rbac is None:
        return {}
    means = {
        role: Means(frozenset(rbac.hierarchy.get(role, ())), frozenset(rbac.grants.get(role, ())))
        for role in {*rbac.hierarchy, *rbac.grants}
    }
    return {role: means[role] for role in sorted(means) if any(means[role])}


def _order(entry: Entry) -> tuple[str, str, str, str, str]:
    return entry.key.path, entry.key.part or "", entry.key.method, entry.endpoint, str(entry.policy)


# ---- text


def text_of(lock: Lock) -> str:
    """Return the file: one line an endpoint."""
    lines = [f"default: {lock.default}", f"{_EVERY_REQUEST}: {lock.service}"]
    if not lock.is_enforced:
        lines.append(_NOT_ENFORCED)
    if lock.looked_up is not None:
        lines.append(f"{_LOOKED_UP}{lock.looked_up}")
    for role, means in lock.roles.items():
        lines += [f"role {role!a}: includes {_listed(means.includes)}"] if means.includes else []
        lines += [f"role {role!a}: grants {_listed(means.grants)}"] if means.grants else []
    lines += [_told(entry) for entry in lock.entries]
    lines += sorted(f"first {_named(*turn.first)} then {_named(*turn.then)}" for turn in lock.turns)
    return _HEAD.format(version=VERSION) + "".join(f"{line}\n" for line in lines)


def _listed(found: Iterable[str]) -> str:
    return ", ".join(ascii(name) for name in sorted(found))


def _told(entry: Entry) -> str:
    return f"{_named(entry.key, entry.endpoint)}: {entry.policy}"


def _named(key: Key, endpoint: str) -> str:
    part = "" if key.part is None else f" on {_word(key.part)}"
    return f"{_word(key.method)} {_word(key.path)}{part} ({_word(endpoint)})"


# ASCII that one sees, but for what starts a comment, quotes, parentheses and backslashes.
_PLAIN: Final = re.compile(r"""[!$-&*-\[\]-~]+""")


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) is not None else ascii(text)


_QUOTED: Final = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_WORD: Final = rf"(?:{_PLAIN.pattern}|{_QUOTED})"
_ENTRY: Final = re.compile(
    rf"(?P<method>{_WORD}) (?P<path>{_WORD})(?: on (?P<part>{_WORD}))? \((?P<endpoint>{_WORD})\): (?P<policy>.+)"
)
_NAMED: Final = rf"({_WORD}) ({_WORD})(?: on ({_WORD}))? \(({_WORD})\)"
_TURN: Final = re.compile(rf"first {_NAMED} then {_NAMED}")
_ROLE: Final = re.compile(rf"role (?P<role>{_QUOTED}): (?P<verb>includes|grants) (?P<names>{_QUOTED}(?:, {_QUOTED})*)")


def read_lock(text: str, name: str) -> Lock:
    """Read a file of this name; raises `Failure`, which says which line cannot be read."""
    settings: dict[str, str] = {}
    roles: dict[str, Means] = {}
    entries: list[Entry] = []
    turns: set[Turn] = set()
    for number, line in _lines(text):
        try:
            if (matched := _ENTRY.fullmatch(line)) is not None:
                part = None if matched["part"] is None else _unquoted(matched["part"])
                key = Key(_unquoted(matched["path"]), part, _unquoted(matched["method"]))
                entries.append(Entry(key, _unquoted(matched["endpoint"]), read(matched["policy"])))
            elif (matched := _TURN.fullmatch(line)) is not None:
                told = [None if word is None else _unquoted(word) for word in matched.groups()]
                turns.add(Turn(_name(told[:4]), _name(told[4:])))
            elif (matched := _ROLE.fullmatch(line)) is not None:
                role = _unquoted(matched["role"])
                listed = frozenset(_unquoted(one) for one in re.findall(_QUOTED, matched["names"]))
                roles[role] = roles.get(role, Means())._replace(**{matched["verb"]: listed})
            else:
                _read_setting(line, settings)
        except (ValueError, SyntaxError) as error:
            raise Failure(f"{name}:{number}: {error}") from error
    if "version" not in settings:
        raise Failure(f"{name} is no lock file: it has no line version: {VERSION}")
    try:
        return Lock(
            read(settings.get("default", "deny")),
            read(settings.get(_EVERY_REQUEST, "anyone")),
            "enforced" not in settings,
            settings["roles"].removeprefix("looked up by ") if "roles" in settings else None,
            roles,
            tuple(entries),
            frozenset(turns),
        )
    except ValueError as error:
        raise Failure(f"{name}: {error}") from error


def _name(words: Sequence[str | None]) -> tuple[Key, str]:
    method, path, part, endpoint = words
    return Key(path or "", part, method or ""), endpoint or ""


def _read_setting(line: str, settings: dict[str, str]) -> None:
    field, _, value = line.partition(": ")
    if field not in _FIELDS or field in settings:
        raise ValueError("this is no line of a lock file, or stands there twice")
    if field == "version" and value != str(VERSION):
        raise ValueError(f"this version reads version {VERSION}; write the file anew")
    settings[field] = value


_FIELDS: Final = frozenset({"version", "default", _EVERY_REQUEST, "enforced", "roles"})


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            yield number, line.rstrip()


def _unquoted(word: str) -> str:
    if word[0] not in "'\"":
        return word
    value: str = ast.literal_eval(word)
    return value
