import json
from typing import Any, Final, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403 import Decision, Denial, Reason
from authz403.client import parse_denial
from authz403.decision import Response
from authz403.problem import Problems, Render
from authz403.request import AccessRequest

ID: Final = "01JD5W6Z9K0000000000000000"
REQUEST: Final = AccessRequest("GET", "/orders/5", "10.1.2.3")
VISIBLE: Final = st.characters(codec="ascii", categories=["L", "N", "P", "S"])

# reason: status, remedy, error of the challenge ("" for a challenge without, None for none), retryable
OUTCOMES: Final[dict[str, tuple[int, str, str | None, bool]]] = {
    "missing_token": (401, "sign_in", "", False),
    "invalid_request": (400, "fix_request", "invalid_request", False),
    "invalid_token": (401, "sign_in_again", "invalid_token", False),
    "token_expired": (401, "refresh_token", "invalid_token", False),
    "token_not_yet_valid": (401, "retry_later", "invalid_token", True),
    "wrong_issuer": (401, "sign_in_again", "invalid_token", False),
    "wrong_audience": (401, "sign_in_again", "invalid_token", False),
    "wrong_token_type": (401, "sign_in_again", "invalid_token", False),
    "token_revoked": (401, "sign_in_again", "invalid_token", False),
    "step_up_required": (401, "sign_in_again", "insufficient_user_authentication", False),
    "insufficient_scope": (403, "request_scope", "insufficient_scope", False),
    "role_required": (403, "request_role", None, False),
    "permission_required": (403, "request_role", None, False),
    "claim_required": (403, "contact_owner", None, False),
    "ip_not_allowed": (403, "change_network", None, False),
    "not_owner": (403, "contact_owner", None, False),
    "csrf_failed": (403, "fix_request", None, False),
    "origin_not_allowed": (403, "fix_request", None, False),
    "preflight_refused": (403, "fix_request", None, False),
    "access_denied": (403, "contact_owner", None, False),
    "no_policy": (403, "contact_owner", None, False),
    "invalid_path": (400, "fix_request", None, False),
    "keys_unavailable": (503, "retry_later", None, True),
    "policy_unavailable": (503, "retry_later", None, True),
    "policy_error": (500, "contact_owner", None, False),
    "route_mismatch": (500, "contact_owner", None, False),
    "misconfigured": (500, "contact_owner", None, False),
}


def problems(
    realm: str = "orders-api",
    disclose: Literal["full", "code"] = "full",
    type_base: str = "urn:authz403:",
) -> Problems:
    """Return what turns decisions into answers."""
    return Problems(realm=realm, disclose=disclose, type_base=type_base)


def refused(reason: str, **fields: Any) -> Decision:  # noqa: ANN401 - any field of a decision
    """Return a refusal for a reason, or a code of one's own."""
    known = Reason.__members__.get(reason.upper())
    status = known.status if known is not None else 403
    return Decision(False, "words", known or reason, status)._replace(**fields)  # noqa: FBT003 - a row


def answered(decision: Decision, made: Problems | None = None, client_ip: str | None = "10.1.2.3") -> Response:
    """Return the answer to a refusal."""
    return (made or problems()).response(decision, ID, client_ip, ((b"vary", b"Origin"),))


def rendered(render: Render, decision: Decision, made: Problems | None = None) -> Response:
    """Return the answer to a refusal with a body of the user's own."""
    return (made or problems()).rendered(render, decision, ID, "10.1.2.3", REQUEST, ((b"vary", b"Origin"),))


def header(response: Response, name: str) -> str | None:
    """Return the one value of a header, or `None`."""
    found = [value.decode("latin-1") for key, value in response.headers if key == name.encode()]
    assert len(found) <= 1
    return found[0] if found else None


def body(response: Response) -> dict[str, Any]:
    """Return the document of an answer."""
    document = json.loads(response.body)
    assert isinstance(document, dict)
    return document


def test_every_reason_has_its_outcome() -> None:
    """The table is complete, and a published code is never renamed."""
    assert set(OUTCOMES) == {reason.value for reason in Reason}


@pytest.mark.parametrize("reason", OUTCOMES)
def test_the_outcome_of_every_reason(reason: str) -> None:
    """Status, remedy, challenge and whether a retry may help are those of the table; the body and headers agree."""
    status, remedy, error, retryable = OUTCOMES[reason]
    response = answered(refused(reason))
    document = body(response)
    assert response.status == document["status"] == status
    assert document["reason"] == header(response, "authz-reason") == reason
    assert (document["remedy"], document["retryable"]) == (remedy, retryable)
    assert document["type"] == f"urn:authz403:{reason}"
    assert document["title"]
    assert document["detail"].endswith(".")
    assert document["decision_id"] == header(response, "authz-decision") == ID
    expected = {None: None, "": 'Bearer realm="orders-api"'}.get(error, f'Bearer realm="orders-api", error="{error}"')
    assert header(response, "www-authenticate") == expected


@pytest.mark.parametrize("reason", OUTCOMES)
def test_a_401_always_has_a_challenge_and_other_403s_never(reason: str) -> None:
    """RFC 9110 section 15.5.2: a 401 MUST carry a challenge; a 403 that no other token would cure has none."""
    response = answered(refused(reason))
    challenge = header(response, "www-authenticate")
    if response.status == 401:
        assert challenge is not None
    elif response.status == 403:
        assert (challenge is not None) is (reason == "insufficient_scope")


@pytest.mark.parametrize("reason", [*OUTCOMES, "plan_expired"])
def test_every_answer_is_a_problem_document_that_nobody_stores(reason: str) -> None:
    """RFC 9457 media type, `no-store`, the exact length, and the headers that every answer carries, last."""
    response = answered(refused(reason))
    assert header(response, "content-type") == "application/problem+json"
    assert header(response, "cache-control") == "no-store"
    assert header(response, "content-length") == str(len(response.body))
    assert header(response, "vary") == "Origin"
    assert response.body.isascii()
    assert all(key == key.lower() for key, _ in response.headers)


def test_the_document_of_a_missing_scope() -> None:
    """The whole answer, as the documentation shows it."""
    names = ("orders:write",)
    response = answered(refused("insufficient_scope", required_scopes=names, missing_scopes=names))
    assert body(response) == {
        "type": "urn:authz403:insufficient_scope",
        "title": "Insufficient scope",
        "status": 403,
        "detail": "This operation needs the scope orders:write.",
        "reason": "insufficient_scope",
        "required_scopes": ["orders:write"],
        "missing_scopes": ["orders:write"],
        "retryable": False,
        "remedy": "request_scope",
        "decision_id": ID,
    }
    assert header(response, "www-authenticate") == (
        'Bearer realm="orders-api", error="insufficient_scope", scope="orders:write"'
    )


def test_a_code_of_the_users_own_is_told_like_the_others() -> None:
    """Its title is made of the code; remedy and detail are general unless they are given."""
    document = body(answered(refused("plan_expired")))
    assert (document["reason"], document["title"], document["status"]) == ("plan_expired", "Plan expired", 403)
    assert (document["remedy"], document["retryable"]) == ("contact_owner", False)
    assert document["detail"] == "This operation is not allowed."
    document = body(answered(refused("plan_expired", remedy="renew_plan", detail="Renew.")))
    assert (document["remedy"], document["detail"]) == ("renew_plan", "Renew.")


@pytest.mark.parametrize(
    ("decision", "detail"),
    [
        (
            refused("insufficient_scope", required_scopes=("a", "b", "c"), missing_scopes=("b", "c")),
            "This operation needs the scopes b, c.",
        ),
        (refused("role_required", required_roles=("a",)), "This operation needs the role a."),
        (refused("role_required", required_roles=("a", "b")), "This operation needs the roles a, b."),
        (refused("permission_required", required_permissions=("a",)), "This operation needs the permission a."),
        (refused("role_required", required_roles=("a", "b"), detail="One of them."), "One of them."),
        (
            refused("missing_token", required_scopes=("a",), missing_scopes=("a",)),
            "This operation needs an access token in the Authorization header.",
        ),
    ],
    ids=lambda value: str(getattr(value, "reason", ""))[:20] or None,
)
def test_the_sentence_names_what_is_missing(decision: Decision, detail: str) -> None:
    """One sentence for people, about the reason that is reported."""
    assert body(answered(decision))["detail"] == detail


def test_a_step_up_says_what_sign_in_is_needed() -> None:
    """RFC 9470 section 3: `acr_values` and `max_age` stand in the challenge, and in the document."""
    response = answered(refused("step_up_required", acr_values=("gold", "silver"), max_age=300))
    assert header(response, "www-authenticate") == (
        'Bearer realm="orders-api", error="insufficient_user_authentication", acr_values="gold silver", max_age="300"'
    )
    assert (body(response)["acr_values"], body(response)["max_age"]) == (["gold", "silver"], 300)


def test_a_sign_in_of_this_moment_is_said() -> None:
    """A `max_age` of 0 is a demand, not an absence."""
    response = answered(refused("step_up_required", max_age=0))
    assert 'max_age="0"' in str(header(response, "www-authenticate"))
    assert body(response)["max_age"] == 0


def test_an_outage_says_when_to_come_back() -> None:
    """A 503 carries Retry-After where the time is known, and no other answer does."""
    assert header(answered(refused("keys_unavailable", retry_after=8)), "retry-after") == "8"
    assert header(answered(refused("keys_unavailable")), "retry-after") is None
    assert header(answered(refused("not_owner")), "retry-after") is None


def test_the_address_is_told_where_the_network_is_refused_and_nowhere_else() -> None:
    """Users ask for the address that the server saw; the list of networks stays secret."""
    assert body(answered(refused("ip_not_allowed")))["client_ip"] == "10.1.2.3"
    assert "client_ip" not in body(answered(refused("ip_not_allowed"), client_ip=None))
    for reason in OUTCOMES:
        if reason != "ip_not_allowed":
            assert b"10.1.2.3" not in answered(refused(reason)).body


def test_what_the_caller_is_not_entitled_to_know_stays_out() -> None:
    """Policy, hint, facts, exception and what is missing of roles never reach an answer's bytes."""
    secret = refused(
        "role_required",
        policy="Rule(* /internal): roles('x')",
        hint="SECRET-hint",
        facts={"order": "SECRET-fact"},
        error=ValueError("SECRET-error"),
        missing_roles=("SECRET-role",),
        missing_permissions=("SECRET-permission",),
    )
    for made in (problems(), problems(disclose="code")):
        told = repr(answered(secret, made))
        assert "SECRET" not in told
        assert "internal" not in told


ALL_THERE_IS: Final = {
    "required_scopes": ("a", "b"),
    "missing_scopes": ("b",),
    "required_roles": ("boss",),
    "required_permissions": ("fly",),
    "detail": "Needs the role boss.",
    "remedy": "call_boss",
}


@pytest.mark.parametrize("reason", [*OUTCOMES, "plan_expired"])
def test_disclose_code_leaves_reason_and_ids_alone(reason: str) -> None:
    """What follows from the code, and the decision's id for support, is all that is told; no names in the challenge."""
    response = answered(refused(reason, **ALL_THERE_IS), problems(disclose="code"))
    document = body(response)
    assert set(document) == {"type", "title", "status", "reason", "decision_id"}
    told = repr(response)
    for secret in ("boss", "fly", "10.1.2.3", "scope=", "call_boss"):
        assert secret not in told
    assert (document["reason"], document["decision_id"]) == (reason, ID)


def test_the_base_of_types_is_configurable() -> None:
    """A service may document its problems under a URI of its own."""
    made = problems(type_base="https://errors.example/")
    assert body(answered(refused("not_owner"), made))["type"] == "https://errors.example/not_owner"


# ---- the challenge's quoting


def _parsed_challenge(challenge: str) -> dict[str, str]:
    """Read a Bearer challenge character by character, as RFC 9110 section 5.6.4 says."""
    scheme, _, rest = challenge.partition(" ")
    assert scheme == "Bearer"
    found: dict[str, str] = {}
    while rest:
        name, _, rest = rest.partition("=")
        assert rest.startswith('"')
        value, position = "", 1
        while rest[position] != '"':
            position += rest[position] == "\\"
            value += rest[position]
            position += 1
        assert name not in found
        found[name] = value
        rest = rest[position + 1 :]
        assert not rest or rest.startswith(", ")
        rest = rest.removeprefix(", ")
    return found


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_the_realm_cannot_break_out_of_its_quotes(realm: str) -> None:
    """RFC 9110 section 5.6.4: quotes and backslashes are quoted-pairs, so that a realm never becomes a parameter."""
    response = answered(refused("insufficient_scope", required_scopes=("a",)), problems(realm))
    challenge = header(response, "www-authenticate")
    assert challenge is not None
    assert _parsed_challenge(challenge) == {"realm": realm, "error": "insufficient_scope", "scope": "a"}


# ---- the user's own body


def test_render_makes_the_body_and_nothing_else() -> None:
    """Status, challenge, reason, id and CORS headers stay the library's; the length is that of the new body."""
    seen: list[tuple[Denial, AccessRequest]] = []

    def render(denial: Denial, request: AccessRequest) -> tuple[str, bytes]:
        seen.append((denial, request))
        return "text/plain; charset=utf-8", f"no: {denial.reason} {denial.decision_id}".encode()

    response = rendered(render, refused("token_expired"))
    assert response.body == f"no: token_expired {ID}".encode()
    assert response.status == 401
    assert header(response, "content-type") == "text/plain; charset=utf-8"
    assert header(response, "content-length") == str(len(response.body))
    assert header(response, "cache-control") == "no-store"
    assert header(response, "authz-reason") == "token_expired"
    assert header(response, "authz-decision") == ID
    assert header(response, "www-authenticate") == 'Bearer realm="orders-api", error="invalid_token"'
    assert header(response, "vary") == "Origin"
    ((denial, request),) = seen
    assert request is REQUEST
    assert (denial.status, denial.remedy, denial.client_ip) == (401, "refresh_token", None)


def test_render_gets_the_address_where_the_body_would_have_it() -> None:
    """What `render` is given is what the caller may know: under `disclose="code"`, reason and ids."""
    seen: list[Denial] = []

    def render(denial: Denial, request: AccessRequest) -> tuple[str, bytes]:
        seen.append(denial)
        return "text/plain", b""

    decision = refused("ip_not_allowed", **ALL_THERE_IS)
    rendered(render, decision)
    assert (seen[0].client_ip, seen[0].required_roles) == ("10.1.2.3", ("boss",))
    rendered(render, decision, problems(disclose="code"))
    assert "boss" not in repr(seen[1])
    assert "10.1.2.3" not in repr(seen[1])


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"body",
        ("text/plain", "body"),
        (b"text/plain", b"body"),
        ("text/plain", b"body", 200),
        ("text/plain\r\nset-cookie: a=b", b"body"),
        ("text/pl\u00e4in\u2028", b"body"),
        ("text/\u4e2d", b"body"),
        ("text/plain", None),
        5,
    ],
    ids=repr,
)
def test_a_wrong_answer_of_render_is_an_error_and_never_a_header(answer: Any) -> None:  # noqa: ANN401 - any mistake
    """Only a printable content type and bytes are taken."""
    with pytest.raises((TypeError, ValueError)):
        rendered(lambda *_: answer, refused("not_owner"))


# ---- answers are made once


def test_answers_that_were_given_before_differ_in_their_id_alone() -> None:
    """A template never carries one request's data into another's answer."""
    made = problems()
    decision = refused("insufficient_scope", required_scopes=("a",), missing_scopes=("a",))
    first = answered(decision, made)
    second = made.response(decision, "02" + ID[2:], "192.0.2.1", ())
    assert body(second) == {**body(first), "decision_id": "02" + ID[2:]}
    other = answered(decision._replace(required_scopes=("b",), missing_scopes=("b",)), made)
    assert body(other)["required_scopes"] == ["b"]
    one_address = made.response(refused("ip_not_allowed"), ID, "192.0.2.1", ())
    another = made.response(refused("ip_not_allowed"), ID, "192.0.2.2", ())
    assert (body(one_address)["client_ip"], body(another)["client_ip"]) == ("192.0.2.1", "192.0.2.2")


def test_the_length_is_that_of_the_body_whatever_the_id() -> None:
    """A Content-Length that is wrong would let one answer run into the next."""
    made = problems()
    for decision_id in (ID, ID[:5], ID * 2):
        response = made.response(refused("role_required"), decision_id, None, ())
        assert header(response, "content-length") == str(len(response.body))
        assert body(response)["decision_id"] == decision_id


@pytest.mark.parametrize(
    "change",
    [
        {"status": 404},
        {"remedy": "call_boss"},
        {"detail": "Another."},
        {"required_scopes": ("b",)},
        {"missing_scopes": ("b",)},
        {"required_roles": ("b",)},
        {"required_permissions": ("b",)},
        {"acr_values": ("b",)},
        {"max_age": 5},
        {"retry_after": 5},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("reason", ["insufficient_scope", "step_up_required", "plan_expired"])
def test_answers_that_differ_in_anything_told_are_made_apart(reason: str, change: dict[str, Any]) -> None:
    """A decision that differs in one thing gets its own answer, also from a server that has given the other."""
    one, other = refused(reason), refused(reason, **change)
    made = problems()
    assert answered(one, made) == answered(one)
    assert answered(other, made) == answered(other) != answered(one)


def test_very_many_different_answers_are_all_right() -> None:
    """The store of answers is bounded, and emptying it changes none."""
    made = problems()
    for number in range(1100):
        address = f"10.0.{number // 256}.{number % 256}"
        response = made.response(refused("ip_not_allowed"), ID, address, ())
        assert body(response)["client_ip"] == address


# ---- what is written can be read

names: Final = st.lists(st.text(VISIBLE, min_size=1, max_size=9), max_size=3, unique=True).map(tuple)
scope_names: Final = names.map(
    lambda found: tuple(dict.fromkeys(filter(None, (one.replace('"', "").replace("\\", "") for one in found))))
)


@given(
    st.sampled_from([*OUTCOMES, "plan_expired"]),
    scope_names,
    scope_names,
    names,
    names,
    st.none() | st.integers(0, 10**9),
    st.none() | st.integers(1, 10**8),
    st.none() | st.just("renew_plan"),
    st.none() | st.text(min_size=1),
)
def test_clients_read_back_what_was_written(  # noqa: PLR0917 - every field of a refusal
    reason: str,
    wanted: tuple[str, ...],
    acr_values: tuple[str, ...],
    roles: tuple[str, ...],
    permissions: tuple[str, ...],
    max_age: int | None,
    retry_after: int | None,
    remedy: str | None,
    detail: str | None,
) -> None:
    """`parse_denial` of the answer is the denial that was answered."""
    decision = refused(
        reason,
        required_scopes=wanted,
        missing_scopes=wanted[1:],
        acr_values=acr_values,
        required_roles=roles,
        required_permissions=permissions,
        max_age=max_age,
        retry_after=retry_after,
        remedy=remedy,
        detail=detail,
    )
    made = problems()
    response = answered(decision, made)
    headers = [(key.decode(), value.decode("latin-1")) for key, value in response.headers]
    address = "10.1.2.3" if reason == "ip_not_allowed" else None
    assert parse_denial(response.status, headers, response.body) == made.denial(decision, ID, address)
