"""Policies in an OpenAPI document: who may call an operation, and what a refusal says. Nothing is written twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableMapping
from itertools import product
from typing import Any, Final

from authz403.endpoint import Covered
from authz403.gate import Gate
from authz403.leaves import Scopes
from authz403.policy import Requirement
from authz403.reasons import Reason

SCHEME: Final = "AuthzBearer"
SCHEMA: Final = "AuthzDenial"
_TOLD: Final = (401, 403, 503)  # the statuses of refusals that an operation tells of
_FORBIDDEN: Final = 403
_MOST_ALTERNATIVES: Final = 16  # in the security of an operation; beyond that, being signed in is all that is told
_CHALLENGE: Final = {"WWW-Authenticate": {"description": "RFC 6750 section 3", "schema": {"type": "string"}}}
_RETRY: Final = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}

# Any: an OpenAPI document is JSON of many shapes.
Document = MutableMapping[str, Any]


def describe(document: Document, gate: Gate, rows: Iterable[Covered]) -> None:
    """Write the policies of `rows` into the operations of an OpenAPI 3 document, in place.

    What an operation says already of a status or of its security stays.
    """
    operations: dict[tuple[str, str], list[Requirement]] = defaultdict(list)
    for row in rows:
        operations[row.path, row.method.lower()].append(row.requirement)
    codes: set[str] = set()
    for (path, method), requirements in operations.items():
        operation = document.get("paths", {}).get(path, {}).get(method)
        if operation is not None:
            codes |= _describe_operation(operation, gate, requirements)
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})[SCHEMA] = _schema(codes)
    if gate.has_tokens:
        scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        components.setdefault("securitySchemes", {}).setdefault(SCHEME, scheme)


def _describe_operation(operation: Document, gate: Gate, requirements: list[Requirement]) -> set[str]:
    """Describe one operation, and return the codes of its own that it may be refused with."""
    if any(one.needs_identity for one in requirements):
        alternatives = [alternative for one in requirements for alternative in _security(one)]
        operation.setdefault(
            "security", [dict(found) for found in {_key(found): found for found in alternatives}.values()]
        )
    said: dict[int, set[str]] = defaultdict(set)
    for one in requirements:
        if one.conceals:
            continue  # its refusals look like a missing route, here too
        for reason in one.reasons() | (gate.sign_in_reasons if one.needs_identity else frozenset()):
            said[reason.status if isinstance(reason, Reason) else _FORBIDDEN].add(str(reason))
    responses = operation.setdefault("responses", {})
    for status in _TOLD:
        if said[status]:
            responses.setdefault(str(status), _response(status, sorted(said[status])))
    return {code for codes in said.values() for code in codes if code not in set(Reason)}


def _security(requirement: Requirement) -> list[Mapping[str, list[str]]]:
    """Return the ways to be let in, each with the scopes that it takes; `{}` is a way that takes no token."""
    found: list[Mapping[str, list[str]]] = []
    for way in requirement.alternatives():
        if not any(part.needs_identity for part in way):
            found.append({})
            continue
        choices = [
            [(name,) for name in part.names] if part.one_is_enough else [part.names]
            for part in way
            if isinstance(part, Scopes)
        ]
        found += [{SCHEME: sorted({name for names in chosen for name in names})} for chosen in product(*choices)]
        if not any(part.ensures_identity() for part in way):
            found.append({})
        if len(found) > _MOST_ALTERNATIVES:
            return [{SCHEME: []}]
    return found


def _key(security: Mapping[str, list[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((name, tuple(scopes)) for name, scopes in security.items())


def _response(status: int, reasons: list[str]) -> Document:
    told = ", ".join(f"`{reason}`" for reason in reasons)
    reference = {"$ref": f"#/components/schemas/{SCHEMA}"}
    narrowed = {"properties": {"reason": {"enum": reasons}}}
    response: dict[str, Any] = {
        "description": f"Refused: {told}",
        "content": {"application/problem+json": {"schema": {"allOf": [reference, narrowed]}}},
    }
    if status in _HEADERS:
        response["headers"] = _HEADERS[status]
    return response


_HEADERS: Final[Mapping[int, Mapping[str, object]]] = {401: _CHALLENGE, 503: _RETRY}


def _schema(codes: Iterable[str]) -> Document:
    """Return the JSON schema of a refusal, whose reasons are an enum, so that generated clients have them."""
    text, names = {"type": "string"}, {"type": "array", "items": {"type": "string"}}
    return {
        "title": "Denial",
        "description": "Why a request was refused (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "reason", "retryable", "decision_id"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "reason": {"type": "string", "enum": [*(str(reason) for reason in Reason), *sorted(codes)]},
            "required_scopes": names,
            "missing_scopes": names,
            "required_roles": names,
            "required_permissions": names,
            "acr_values": names,
            "max_age": {"type": "integer", "description": "seconds"},
            "client_ip": text,
            "retryable": {"type": "boolean", "description": "The same request, unchanged, may succeed later."},
            "remedy": text,
            "decision_id": text,
        },
    }
