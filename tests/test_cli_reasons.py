"""`authz403 reasons`: every reason as people and programs read it, from the same place as the page of the docs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from authz403 import Gate, Reason, Rule, authenticated, networks, scopes
from authz403.cli.reasons import body, challenge, cured_by, page, reaction
from authz403.reasons import REMEDIES
from authz403.request import AccessRequest
from tests import commands_made
from tests.commands_made import Done
from tests.gates_made import ALICE, Callers, fulfilled

every_reason = pytest.mark.parametrize("reason", list(Reason), ids=str)


def run(*arguments: str) -> Done:
    """Run `authz403 reasons`."""
    return commands_made.run("reasons", *arguments)


@every_reason
def test_all_about_a_reason_is_told(reason: Reason) -> None:
    """What it means, who can cure it, what a client should do, and a body; the page says the same."""
    status, told, _ = run(reason)
    assert status == 0
    told = " ".join(told.split())
    for part in (
        f"{reason} ({reason.status})",
        reason.__doc__,
        cured_by(reason),
        REMEDIES[reason.remedy],
        reaction(reason),
    ):
        assert " ".join(str(part).split()) in told
        if part != f"{reason} ({reason.status})":
            assert str(part) in page()
    assert json.dumps(body(reason), indent=2) in page()


@every_reason
def test_an_example_is_an_answer_of_the_library(reason: Reason) -> None:
    """It has the members that a refusal with this reason has, and the challenge that goes with it."""
    found = body(reason)
    assert (found["reason"], found["status"], found["remedy"]) == (str(reason), reason.status, reason.remedy)
    assert (challenge(reason) is not None) is (reason.error is not None or reason.status == 401)


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        (Gate(tokens=Callers(ALICE), rules=[Rule("*", "/**", scopes("c"))]), Reason.INSUFFICIENT_SCOPE),
        (Gate(tokens=Callers(None), rules=[Rule("*", "/**", authenticated)]), Reason.MISSING_TOKEN),
        (Gate(rules=[Rule("*", "/**", networks("10.0.0.0/8"))]), Reason.IP_NOT_ALLOWED),
        (Gate(), Reason.NO_POLICY),
    ],
    ids=["scope", "no token", "network", "no policy"],
)
def test_a_gate_answers_alike(gate: Gate, reason: Reason) -> None:
    """The members of an example are those of a real refusal."""
    outcome = fulfilled(gate.decide(AccessRequest("GET", "/", "203.0.113.7")))
    assert outcome.response is not None
    assert json.loads(outcome.response.body).keys() == body(reason).keys()


def test_all_reasons_are_listed() -> None:
    """A line each, by status."""
    status, told, _ = run()
    assert status == 0
    lines = told.splitlines()
    assert {line.split()[1] for line in lines} == {str(reason) for reason in Reason}
    assert [line[:3] for line in lines] == sorted(line[:3] for line in lines)


def test_an_unknown_code_is_told(tmp_path: object) -> None:
    """It may be one of the service's own."""
    status, out, err = run("plan_expired")
    assert (status, out) == (2, "")
    assert err == "Error: 'plan_expired' is no reason of this library: a service may have codes of its own\n"
    assert run("NOT_OWNER")[1].startswith("not_owner (403)")
    assert run("not_owner", "--format", "json-schema")[0] == 2


# ---- the JSON Schema


def violations(schema: dict[str, Any], value: Any, root: dict[str, Any], at: str = "$") -> list[str]:  # noqa: ANN401 - JSON
    """Return where a value breaks a schema, as far as ours goes: a validator of the few keywords that it uses."""
    known = {"$schema", "$id", "$defs", "title", "description"}
    known |= {"$ref", "anyOf", "enum", "type", "pattern", "properties", "required", "items"}
    assert schema.keys() <= known, f"{at}: {schema.keys() - known} would not be looked at"
    found = []
    if "$ref" in schema:
        found += violations(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root, at)
    if "anyOf" in schema and all(violations(one, value, root, at) for one in schema["anyOf"]):
        found.append(f"{at} is none of them")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at} is not listed")
    kinds = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict}
    if "type" in schema and type(value) is not kinds[schema["type"]]:
        found.append(f"{at} is no {schema['type']}")
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        found.append(f"{at} does not match")
    for name in schema.get("required", ()):
        if name not in value:
            found.append(f"{at}.{name} is missing")
    for name, inner in schema.get("properties", {}).items():
        if name in value:
            found += violations(inner, value[name], root, f"{at}.{name}")
    for index, one in enumerate(value if "items" in schema else ()):
        found += violations(schema["items"], one, root, f"{at}[{index}]")
    return found


def schema() -> dict[str, Any]:
    """Return what is printed."""
    status, told, _ = run("--format", "json-schema")
    assert status == 0
    found: dict[str, Any] = json.loads(told)
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    return found


@every_reason
def test_every_body_fits_the_schema(reason: Reason) -> None:
    """Whatever reason a refusal has, and all its members are described."""
    found = schema()
    assert violations(found, body(reason), found) == []
    assert body(reason).keys() <= found["properties"].keys()


def test_the_schema_fits_what_tells_less_or_something_of_its_own() -> None:
    """`disclose="code"`, a code of the service's own; and it can fail."""
    found = schema()
    gate = Gate(disclose="code")
    outcome = fulfilled(gate.decide(AccessRequest("GET", "/")))
    assert outcome.response is not None
    short = json.loads(outcome.response.body)
    assert violations(found, short, found) == []
    own = body(Reason.NOT_OWNER) | {"reason": "plan_expired"}
    assert violations(found, own, found) == []
    assert found["$defs"]["Reason"]["enum"] == [str(reason) for reason in Reason]
    for wrong in ({**own, "reason": "No Code"}, {**own, "status": "403"}, {**own, "missing_scopes": [1]}):
        assert len(violations(found, wrong, found)) == 1
    assert violations(found, {key: value for key, value in own.items() if key != "decision_id"}, found)
