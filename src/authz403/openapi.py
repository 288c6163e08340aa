"""Policies in an OpenAPI document: who may call an operation, and what a refusal says. Nothing is written twice.

A document is given and another one returned: what is concealed must never stand in one that somebody may read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain, count, islice, product
from typing import Any, Final, NamedTuple

from authz403.decision import Denial
from authz403.endpoint import Covered
from authz403.errors import Mistakes
from authz403.gate import Gate
from authz403.identity import IdentitySource
from authz403.leaves import Scopes
from authz403.policy import Requirement
from authz403.problem import Disclose, members
from authz403.reasons import Reason
from authz403.request import KNOWN_METHODS
from authz403.route_objects import flat_routes, label_of, original_of, router_of
from authz403.tokens import AUTHORIZATION, SUBPROTOCOL, BearerTokens

# Any: an OpenAPI document is JSON of many shapes.
Document = dict[str, Any]

_SCHEMA: Final = "AuthzDenial"
_BEARER: Final = "AuthzBearer"
_PROBLEM_JSON: Final = "application/problem+json"
_METHODS: Final = frozenset(method.lower() for method in KNOWN_METHODS)

# Of the statuses of a refusal, those that depend on the operation. The others, 500 and the 400 of a malformed path, may
# come from anywhere.
_STATUSES: Final = (400, 401, 403, 503)
_CONCEALED: Final = (401, 403)  # those that look like a missing route where a policy conceals
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_UNAVAILABLE: Final = 503

_MOST_WAYS: Final = 16  # to be let in, that the security of an operation tells; beyond, being signed in is all it tells
_BAD_TOKEN: Final = frozenset({Reason.INVALID_TOKEN})

Way = tuple[str, ...] | None
"""One way to be let in: the scopes that a caller needs, or `None` for one that takes no credentials."""


class Described(NamedTuple):
    """A document with policies in it, and the components that it got for them."""

    document: Document
    components: Mapping[str, Document]

    def is_part_of(self, document: Document) -> bool:
        """Tell whether a document was made of this one, so that the policies are in it already."""
        there = document.get("components", {})
        return bool(self.components) and all(
            there.get(kind, {}).get(name) == part
            for kind, named in self.components.items()
            for name, part in named.items()
        )


def described(document: Document, gate: Gate, rows: Iterable[Covered], codes: Iterable[str] = ()) -> Described:
    """Return an OpenAPI 3 document with the policies of `rows` in its operations.

    An operation that all its policies conceal is left out, with what nothing else mentions. What an operation says of a
    status or of its security stays, and is added to. `codes` are those that handlers refuse with. Raises
    `ConfigurationError` where a name that is needed is taken.
    """
    made = deepcopy(document)
    policies = _policies(made, rows)
    concealed = [key for key, found in policies.items() if all(one.conceals for one in found)]
    _leave_out(made, concealed)
    told = {key: found for key, found in policies.items() if key not in concealed}
    refusals = {key: _refusals(found, gate.sign_in_reasons) for key, found in told.items()}
    schemes = _schemes(gate)
    for (path, method), requirements in told.items():
        operation = made["paths"][path][method]
        _tell_security(made, operation, _ways(requirements), schemes)
        # RFC 9110 section 9.3.2: the answer to a HEAD has no content.
        has_body = gate.render is None and method != "head"
        _tell_refusals(operation, refusals[path, method], has_body=has_body)
    ours: dict[str, Document] = {"securitySchemes": schemes} if schemes else {}
    if gate.render is None:
        own = {code for found in refusals.values() for reasons in found.values() for code in reasons}
        ours["schemas"] = {_SCHEMA: denial_schema(gate.disclose, own.union(codes))}
    _add_components(made, ours)
    return Described(made, deepcopy(ours))


def place_of(inner: object, outer: object) -> str:
    """Return what `gate.coverage(outer)` writes before the paths of an app that is mounted in another.

    Raises `ConfigurationError` unless it is mounted at exactly one place.
    """
    mistakes = Mistakes("describe_policies")
    places = list(_places(router_of(inner)[0], outer, "", ()))
    if router_of(outer)[0] is None:
        mistakes.add("within", type(outer).__name__, "its routes cannot be found; give the Starlette or FastAPI app")
    elif not places:
        mistakes.add("within", type(outer).__name__, "the app is not mounted there; mount it before it is described")
    elif len(places) > 1:
        mistakes.add("within", places, "the app is mounted at several places, and one document cannot describe them")
    mistakes.raise_if_any()
    return places[0]


def _places(wanted: object, app: object, label: str, above: tuple[object, ...]) -> Iterator[str]:
    router = router_of(app)[0]
    if router is None or any(router is one for one in above):
        return
    for route, _ in flat_routes(router):
        original = original_of(route)
        if hasattr(original, "endpoint"):
            continue  # neither a Mount nor a Host
        here = f"{label}{original.host}:" if hasattr(original, "host") else label + label_of(route)
        below = getattr(route, "app", None)
        if below is not None and router_of(below)[0] is wanted:
            yield here
        else:
            yield from _places(wanted, below, here, (*above, router))


# ---- which policies an operation stands under


Key = tuple[str, str]
"""An operation: its path and its method in lower case."""


def _policies(document: Document, rows: Iterable[Covered]) -> dict[Key, list[Requirement]]:
    """Return by operation of the document what must hold: several where rules tell its paths apart."""
    found: dict[Key, list[Requirement]] = defaultdict(list)
    for row in rows:
        found[row.path, row.method.lower()].append(row.requirement)
    policies = {}
    for path, item in document.get("paths", {}).items():
        for method in (name for name in item if name in _METHODS):
            # RFC 9110 section 9.3.2: HEAD is judged as GET, so that a route that serves both has one row.
            judged = "get" if method == "head" and (path, method) not in found else method
            if (path, judged) in found:
                policies[path, method] = found[path, judged]
    return policies


def _refusals(requirements: Iterable[Requirement], credentials: frozenset[Reason]) -> dict[int, list[str]]:
    """Return by status the reasons that an operation may be refused with, as the caller sees them."""
    found: dict[int, set[str]] = defaultdict(set)
    for one in requirements:
        for reason in one.reasons(credentials):
            status = reason.status if isinstance(reason, Reason) else _FORBIDDEN
            if status in _STATUSES and not (one.conceals and status in _CONCEALED):
                found[status].add(str(reason))
    return {status: sorted(found[status]) for status in _STATUSES if found[status]}


def _ways(requirements: Iterable[Requirement]) -> list[Way]:
    """Return the ways to be let in by any of these; those that are concealed are nobody's to know."""
    found: dict[Way, None] = {}
    visible = [one for one in requirements if not one.conceals]
    for one in visible:
        found.update(dict.fromkeys(_ways_into(one)))
    if len(found) > _MOST_WAYS:
        found = dict.fromkeys(way for one in visible for way in _ways_in_short(one))
    return list(found)


def _ways_into(requirement: Requirement) -> Iterable[Way]:
    if requirement.reasons(_BAD_TOKEN).isdisjoint(_BAD_TOKEN):
        # Credentials are not looked at: it is open to all, or closed to all.
        return [None] if requirement.alternatives(1) else []
    alternatives = requirement.alternatives(_MOST_WAYS + 1)
    found: dict[Way, None] = {}
    for parts in alternatives:
        asked = [part for part in parts if isinstance(part, Scopes)]
        choices = [[(name,) for name in part.names] if part.one_is_enough else [part.names] for part in asked]
        if any(part.needs_identity for part in parts):
            for chosen in islice(product(*choices), _MOST_WAYS + 1):
                found[tuple(sorted({name for names in chosen for name in names}))] = None
        if not any(part.ensures_identity() for part in parts):
            found[None] = None
    return found if len(alternatives) <= _MOST_WAYS and len(found) <= _MOST_WAYS else _ways_in_short(requirement)


def _ways_in_short(requirement: Requirement) -> Iterable[Way]:
    return [()] if requirement.ensures_identity() else [(), None]


# ---- what is written of it


def _tell_security(
    document: Document, operation: Document, ways: Sequence[Way], schemes: Mapping[str, Document]
) -> None:
    own: list[dict[str, list[str]]] | None = operation.get("security")
    roles_may_be_told = not str(document.get("openapi", "")).startswith("3.0")
    if own is not None:
        # The app looks for credentials itself, so that another entry would promise a way in that is none.
        known = document.get("components", {}).get("securitySchemes", {})
        takers = {name for name, scheme in known.items() if _takes_scopes(scheme, roles_may_be_told=roles_may_be_told)}
        operation["security"] = _distinct(
            _with_scopes(entry, way or (), takers) for entry in own for way in ways or [()]
        )
    elif schemes and any(way is not None for way in ways):
        # OpenAPI 3.0.4, Security Requirement Object: for types other than oauth2 and openIdConnect, the array MUST be
        # empty. Since 3.1.0 it MAY contain a list of role names which are required for the execution.
        operation["security"] = _distinct(
            {} if way is None else {name: [*way] if roles_may_be_told else []} for way in ways for name in schemes
        )


def _takes_scopes(scheme: Mapping[str, Any], *, roles_may_be_told: bool) -> bool:
    kind = scheme.get("type")
    is_bearer = kind == "http" and str(scheme.get("scheme")).lower() == "bearer"
    return kind in {"oauth2", "openIdConnect"} or (is_bearer and roles_may_be_told)


def _with_scopes(
    entry: Mapping[str, list[str]], scopes: Iterable[str], takers: Collection[str]
) -> dict[str, list[str]]:
    return {name: sorted({*held, *scopes}) if name in takers else [*held] for name, held in entry.items()}


def _distinct(entries: Iterable[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    found: list[dict[str, list[str]]] = []
    for entry in entries:
        if entry not in found:
            found.append(entry)
    return found


def _tell_refusals(operation: Document, refusals: Mapping[int, list[str]], *, has_body: bool) -> None:
    responses = operation.setdefault("responses", {})
    for status, reasons in refusals.items():
        told = ", ".join(f"`{reason}`" for reason in reasons)
        response = responses.setdefault(str(status), {"description": f"Refused: {told}"})
        if "$ref" in response or _PROBLEM_JSON in response.get("content", {}):
            continue  # the app describes refusals itself
        if has_body:
            reference = {"$ref": f"#/components/schemas/{_SCHEMA}"}
            narrowed = {"properties": {"reason": {"enum": [*reasons]}}}
            response.setdefault("content", {})[_PROBLEM_JSON] = {"schema": {"allOf": [reference, narrowed]}}
        headers = response.setdefault("headers", {})
        for name, header in _headers(status, reasons).items():
            headers.setdefault(name, header)


def _headers(status: int, reasons: Sequence[str]) -> Document:
    """Return the headers of a refusal, which are there whatever its body is."""
    found: Document = {
        "Authz-Reason": {"description": "the reason", "schema": {"type": "string", "enum": [*reasons]}},
        "Authz-Decision": {"description": "names this decision in the log", "schema": _text()},
    }
    if status == _UNAUTHORIZED or any(reason.error and str(reason) in reasons for reason in Reason):
        found["WWW-Authenticate"] = {"description": "a challenge (RFC 6750 section 3)", "schema": _text()}
    if status == _UNAVAILABLE:
        found["Retry-After"] = {"description": "seconds", "schema": {"type": "integer"}}
    return found


def denial_schema(disclose: Disclose, codes: Iterable[str]) -> Document:
    """Return the JSON schema of a refusal, whose reasons are an enum, so that generated clients have them."""
    known = [str(reason) for reason in Reason]
    properties: Document = {
        "type": _text(),
        "title": _text(),
        "status": {"type": "integer"},
        "detail": _text(),
        "reason": {"type": "string", "enum": [*known, *sorted(set(codes).difference(known))]},
        "required_scopes": _names(),
        "missing_scopes": _names(),
        "required_roles": _names(),
        "required_permissions": _names(),
        "acr_values": _names(),
        "max_age": {"type": "integer", "description": "seconds"},
        "client_ip": _text(),
        "retryable": {"type": "boolean", "description": "The same request, unchanged, may succeed later."},
        "remedy": _text(),
        "decision_id": _text(),
    }
    always = members(Denial(status=_FORBIDDEN, reason=Reason.ACCESS_DENIED), disclose)
    return {
        "title": "Denial",
        "description": "Why a request was refused (RFC 9457).",
        "type": "object",
        "required": [*always],
        "properties": properties if disclose == "full" else {name: properties[name] for name in always},
    }


def _text() -> Document:
    return {"type": "string"}


def _names() -> Document:
    return {"type": "array", "items": _text()}


def _schemes(gate: Gate) -> dict[str, Document]:
    """Return by name the ways to sign in that the gate's sources of identities read."""
    found: dict[str, Document] = {}
    for field in (field for source in gate.sources if isinstance(source, BearerTokens) for field in source.read_from):
        if field == AUTHORIZATION:
            found[_BEARER] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        elif field != SUBPROTOCOL:  # WebSockets alone send that, and no operation of a document is one
            name = "".join(word.capitalize() for word in field.split("-"))
            found[f"Authz{name}"] = {"type": "apiKey", "in": "header", "name": field}
    for source in gate.sources:
        if not isinstance(source, BearerTokens):
            name = f"Authz{type(source).__name__}"
            names = chain([name], (f"{name}{number}" for number in count(2)))
            found[next(free for free in names if free not in found)] = _scheme_of(source)
    return found


def _scheme_of(source: IdentitySource) -> Document:
    """Return what a source says of itself, else the header that it reads; of several, a cookie names a caller."""
    said: Mapping[str, Any] | None = getattr(source, "openapi_scheme", None)
    if said is not None:
        return deepcopy(dict(said))
    fields = sorted(source.fields)
    scheme = {"type": "apiKey", "in": "header", "name": "cookie" if "cookie" in fields else next(iter(fields), "")}
    return scheme if len(fields) == 1 else {**scheme, "description": f"reads {', '.join(fields)}"}


def _add_components(document: Document, ours: Mapping[str, Document]) -> None:
    """Add components. Where the app has one of the same name, neither may stand for the other."""
    mistakes = Mistakes("describe_policies")
    for kind, named in ours.items():
        there = document.setdefault("components", {}).setdefault(kind, {})
        for name in there.keys() & named.keys():
            mistakes.add(f"components.{kind}", name, "the app has one of this name itself; give it another name")
        there.update(named)
    mistakes.raise_if_any()


# ---- what is left out


Mentioned = tuple[str, str]
"""Something that stands in a document once and is mentioned elsewhere: a component by its kind and name, or a tag."""

_TAGS: Final = "tags"
_COMPONENT: Final = re.compile(r"#/components/(\w+)/([^/]+)")


def _leave_out(document: Document, keys: Iterable[Key]) -> None:
    """Take operations out of a document, and all that is mentioned by nothing else."""
    gone = []
    for path, method in keys:
        item = document["paths"][path]
        gone.append(item.pop(method))
        if item.keys().isdisjoint(_METHODS):
            del document["paths"][path]
    components = document.get("components", {})
    by_gone = _reached(components, gone)
    rest = [part for name, part in document.items() if name != "components"]
    rest += [part for kind, named in components.items() for name, part in named.items() if (kind, name) not in by_gone]
    for kind, name in by_gone - _reached(components, rest):
        if kind == _TAGS:
            document[_TAGS] = [tag for tag in document.get(_TAGS, ()) if tag.get("name") != name]
        else:
            components.get(kind, {}).pop(name, None)


def _reached(components: Mapping[str, Any], start: Iterable[object]) -> set[Mentioned]:
    """Return all that is mentioned from a start, by way of components too."""
    found: set[Mentioned] = set()
    waiting = [*start]
    while waiting:
        for kind, name in _mentions(waiting.pop()):
            if (kind, name) not in found:
                found.add((kind, name))
                waiting.append(components.get(kind, {}).get(name))
    return found


def _mentions(part: object) -> Iterator[Mentioned]:
    if isinstance(part, str):
        # `$ref`, and the mapping of a discriminator: "#/components/schemas/Order".
        found = _COMPONENT.match(part)
        if found is not None:
            yield found[1], found[2]
    elif isinstance(part, list):
        for inner in part:
            yield from _mentions(inner)
    elif isinstance(part, Mapping):
        for key, inner in part.items():
            if key == "security" and isinstance(inner, list):
                yield from (("securitySchemes", name) for entry in inner for name in entry)
            elif key == _TAGS and isinstance(inner, list):
                yield from ((_TAGS, tag) for tag in inner if isinstance(tag, str))
            else:
                yield from _mentions(inner)
