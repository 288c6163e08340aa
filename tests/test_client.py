import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz403 import Denial
from authz403.client import parse_denial


def challenged(status: int, *lines: str, body: bytes = b"") -> Denial | None:
    """Return what a client reads from an answer with these WWW-Authenticate lines."""
    return parse_denial(status, [("WWW-Authenticate", line) for line in lines], body)


def document(**members: object) -> bytes:
    """Return a problem document."""
    return json.dumps({"status": 403, "reason": "not_owner", **members}).encode()


# ---- this library's own


def test_a_problem_document_is_read_whole() -> None:
    """Every member of the body and every header that adds one."""
    body = document(
        type="urn:authz403:insufficient_scope",
        title="Insufficient scope",
        detail="This operation needs the scope b.",
        reason="insufficient_scope",
        required_scopes=["a", "b"],
        missing_scopes=["b"],
        required_roles=["r"],
        required_permissions=["p"],
        acr_values=["gold"],
        max_age=5,
        client_ip="10.1.2.3",
        retryable=True,
        remedy="request_scope",
        decision_id="01JD",
    )
    assert parse_denial(403, {"Retry-After": "8"}, body) == Denial(
        status=403,
        reason="insufficient_scope",
        title="Insufficient scope",
        detail="This operation needs the scope b.",
        remedy="request_scope",
        retryable=True,
        type="urn:authz403:insufficient_scope",
        required_scopes=("a", "b"),
        missing_scopes=("b",),
        required_roles=("r",),
        required_permissions=("p",),
        acr_values=("gold",),
        max_age=5,
        client_ip="10.1.2.3",
        retry_after=8,
        decision_id="01JD",
    )


def test_a_refusal_without_a_body_is_read_from_its_headers() -> None:
    """The answer to a HEAD has headers alone; title, remedy and whether to retry follow from the reason."""
    headers = {"authz-reason": "token_not_yet_valid", "AUTHZ-DECISION": "01JD", "Content-Type": "x"}
    denial = parse_denial(401, headers)
    assert denial is not None
    assert (denial.reason, denial.decision_id, denial.remedy, denial.retryable, denial.title) == (
        "token_not_yet_valid",
        "01JD",
        "retry_later",
        True,
        "Token not yet valid",
    )


def test_a_short_document_keeps_what_it_says() -> None:
    """Under `disclose="code"` the rest follows from the reason; a code that is not known stays as it came."""
    denial = parse_denial(403, {}, document(reason="plan_expired", title="Plan expired"))
    assert denial is not None
    assert (denial.reason, denial.title, denial.remedy, denial.retryable) == ("plan_expired", "Plan expired", "", False)
    denial = parse_denial(503, {}, document(reason="keys_unavailable"))
    assert denial is not None
    assert (denial.remedy, denial.retryable, denial.type) == ("retry_later", True, "about:blank")


@pytest.mark.parametrize(
    "body", [document(), document().decode(), bytearray(document())], ids=["bytes", "str", "bytearray"]
)
@pytest.mark.parametrize(
    "headers",
    [{"Authz-Decision": "01JD"}, [("authz-decision", "01JD")], iter([("Authz-Decision", "01JD")])],
    ids=["mapping", "list", "iterator"],
)
def test_bodies_and_headers_come_in_every_librarys_form(body: Any, headers: Any) -> None:  # noqa: ANN401 - any form
    """Text or bytes, a mapping or pairs, names in any case."""
    headers = list(headers) if not isinstance(headers, dict) else headers
    denial = parse_denial(403, headers, body)
    assert denial is not None
    assert (denial.reason, denial.decision_id) == ("not_owner", "01JD" if headers else None)


# ---- other servers' bare challenges


@pytest.mark.parametrize(
    ("status", "challenge", "reason", "remedy"),
    [
        (401, "Bearer", "missing_token", "sign_in"),
        (401, 'Bearer realm="example"', "missing_token", "sign_in"),
        (401, 'Bearer realm="example", error="invalid_token"', "invalid_token", "sign_in_again"),
        (401, "bearer error=invalid_token", "invalid_token", "sign_in_again"),
        (401, 'BEARER  ERROR = "invalid_token"', "invalid_token", "sign_in_again"),
        (400, 'Bearer error="invalid_request"', "invalid_request", "fix_request"),
        (403, 'Bearer error="insufficient_scope", scope="a b"', "insufficient_scope", "request_scope"),
        (401, 'Bearer error="insufficient_user_authentication", acr_values="g"', "step_up_required", "sign_in_again"),
        (401, 'Bearer error="use_dpop_nonce"', "invalid_token", "sign_in_again"),
    ],
)
def test_a_bare_challenge_is_a_denial(status: int, challenge: str, reason: str, remedy: str) -> None:
    """RFC 6750 section 3.1 and RFC 9470 section 3: the error tells the reason, and the reason the remedy."""
    denial = challenged(status, challenge)
    assert denial is not None
    assert (denial.status, denial.reason, denial.remedy) == (status, reason, remedy)


def test_a_challenge_says_what_is_needed() -> None:
    """Scopes, sign-in classes, age and the server's sentence, with quoted characters as they were meant."""
    denial = challenged(
        401,
        'Bearer realm="a \\"b\\", c", error="insufficient_user_authentication", scope="a  b", '
        'error_description="Sign in \\\\ again, please", acr_values="gold silver", max_age="300"',
    )
    assert denial is not None
    assert (denial.required_scopes, denial.missing_scopes) == (("a", "b"), ())
    assert (denial.acr_values, denial.max_age) == (("gold", "silver"), 300)
    assert denial.detail == "Sign in \\ again, please"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(['Basic realm="x", Bearer realm="y", error="invalid_token"'], id="after another"),
        pytest.param(['Bearer realm="y", error="invalid_token", Basic realm="x"'], id="before another"),
        pytest.param(['Bearer realm="y", error="invalid_token", DPoP algs="ES256", error="x"'], id="before DPoP"),
        pytest.param(['DPoP algs="ES256", error="use_dpop_nonce", Bearer error="invalid_token"'], id="after DPoP"),
        pytest.param(
            ['Basic realm="x, Bearer error=\\"insufficient_scope\\"", Bearer error="invalid_token"'], id="fake"
        ),
        pytest.param(["Negotiate", 'Bearer error="invalid_token"'], id="two lines"),
        pytest.param(["Negotiate YWJj==, Bearer error=invalid_token"], id="after a token68"),
        pytest.param(["Negotiate, Bearer error=invalid_token"], id="after a scheme alone"),
        pytest.param([', Bearer realm="y" , error="invalid_token" ,'], id="empty elements around"),
        pytest.param(['Bearer realm="y",, error="invalid_token"'], id="an empty element within"),
        pytest.param(['Bearer error="invalid_token", Bearer error="insufficient_scope"'], id="two of Bearer"),
        pytest.param(['Bearer error="invalid_token", error="insufficient_scope"'], id="a repeated parameter"),
        pytest.param(['Bearer\trealm="y",\terror="invalid_token"'], id="tabs"),
    ],
)
def test_the_first_bearer_challenge_is_found_among_others(lines: list[str]) -> None:
    """RFC 9110 section 11.6.1: several challenges may share a line; section 5.6.1: empty elements are ignored."""
    denial = challenged(401, *lines)
    assert denial is not None
    assert denial.reason == "invalid_token"


@pytest.mark.parametrize(
    "line", ["Bearer, Basic realm=x", "Bearer , Basic realm=x", "Basic realm=x, Bearer", "Basic,Bearer", ",Bearer,"]
)
def test_a_bearer_challenge_without_parameters_is_found_among_others(line: str) -> None:
    """RFC 9110 section 11.3: a challenge may be its scheme alone."""
    denial = challenged(401, line)
    assert denial is not None
    assert denial.reason == "missing_token"


def test_the_body_of_this_library_says_more_than_its_challenge() -> None:
    """Where both are there, the reason is the document's."""
    denial = challenged(401, 'Bearer realm="x", error="invalid_token"', body=document(reason="token_expired"))
    assert denial is not None
    assert (denial.reason, denial.remedy) == ("token_expired", "refresh_token")


# ---- what is no denial


@pytest.mark.parametrize("status", [200, 204, 302, 304, 402, 405, 418, 422, 429, 502, 0, -1])
def test_other_statuses_are_no_denial(status: int) -> None:
    """Only the statuses that a refusal can have are read as one."""
    assert parse_denial(status, {"authz-reason": "not_owner"}, document()) is None


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({}, b'{"detail": "Forbidden"}'),
        ({}, b"<html>Forbidden</html>"),
        ({"WWW-Authenticate": 'Basic realm="x"'}, b""),
        ({"WWW-Authenticate": 'Basic realm="Bearer error=invalid_token"'}, b""),
        ({"WWW-Authenticate": ""}, b""),
        ({"WWW-Authenticate": "BearerX realm=x"}, b""),
        ({"Retry-After": "5"}, b"[]"),
    ],
    ids=repr,
)
def test_an_answer_that_gives_no_reason_is_no_denial(headers: dict[str, str], body: bytes) -> None:
    """A bare 401, 403, 404 or 5xx of anybody stays what it is."""
    for status in (400, 401, 403, 404, 500, 503):
        assert parse_denial(status, headers, body) is None


# ---- junk


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe",
        b"null",
        b"5",
        b'"not_owner"',
        b'{"reason": 5}',
        b'{"reason": ""}',
        b'{"reason": ["not_owner"]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        b'{"reason": "not_owner", "pad": "' + b"x" * 300_000 + b'"}',
        b'{"reason": "not_owner"',
    ],
    ids=lambda body: repr(body)[:30],
)
def test_a_body_that_is_no_document_is_not_believed(body: bytes) -> None:
    """Wrong encodings, wrong types, too deep, too large, cut off: nothing raises and nothing is made up."""
    assert parse_denial(403, {}, body) is None
    denial = parse_denial(403, {"authz-reason": "role_required"}, body)
    assert denial is not None
    assert denial.reason == "role_required"


def test_members_of_the_wrong_type_stay_empty() -> None:
    """Each part that is not in its shape is left out on its own."""
    names = ["type", "title", "detail", "required_scopes", "missing_scopes", "required_roles", "required_permissions"]
    names += ["acr_values", "max_age", "client_ip", "remedy", "decision_id"]
    for wrong in (None, True, 1.5, "5x", {"a": 1}, [1, None]):
        denial = parse_denial(403, {}, document(reason="own_code", **dict.fromkeys(names, wrong)))
        assert denial is not None
        assert denial.required_scopes == denial.missing_scopes == denial.required_roles == denial.acr_values == ()
        assert denial.max_age is None
    denial = parse_denial(403, {}, document(reason="own_code", retryable="yes", required_scopes=["a", 5, "b"]))
    assert denial is not None
    assert (denial.retryable, denial.required_scopes) == (False, ("a", "b"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("8", 8),
        ("0", 0),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("\u0665", None),
        ("9" * 5_000, None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_retry_after_is_seconds_or_nothing(value: str, seconds: int | None) -> None:
    """RFC 9110 section 10.2.3: a date is left to the caller, and junk is nothing."""
    denial = parse_denial(503, {"Retry-After": value, "Authz-Reason": "keys_unavailable"})
    assert denial is not None
    assert denial.retry_after == seconds


challenges = st.lists(
    st.sampled_from(
        ["Bearer", "Basic", " ", ",", "=", '"', "\\", "error", "scope", "a", "\t", ";", "invalid_token", "\u00e9", "=="]
    ),
    max_size=24,
).map("".join)


@given(
    st.one_of(st.sampled_from([400, 401, 403, 404, 500, 503]), st.integers()),
    st.lists(
        st.tuples(
            st.sampled_from(["WWW-Authenticate", "Retry-After", "Authz-Reason", "Authz-Decision", "x"]),
            challenges | st.text(),
        )
    ),
    st.binary() | st.text() | st.builds(json.dumps, st.dictionaries(st.text(), st.integers() | st.text())),
)
def test_junk_never_raises(status: int, headers: list[tuple[str, str]], body: bytes | str) -> None:
    """Whatever a server sent, the client gets a denial with a reason, or `None`."""
    denial = parse_denial(status, headers, body)
    assert denial is None or (denial.status == status and denial.reason)


@pytest.mark.parametrize(
    "line",
    [
        "Bearer " + " " * 200_000,
        "Bearer " + "a" * 200_000,
        "Bearer " + 'a="' * 70_000,
        "Bearer " + 'a="\\' * 50_000,
        "Bearer " + "a =" * 70_000,
        "," * 200_000,
        " ," * 100_000,
        "Bearer " + 'a="b",' * 30_000,
        "Basic " * 30_000,
    ],
    ids=lambda line: repr(line)[:20],
)
def test_a_long_challenge_is_read_in_bounded_time(line: str) -> None:
    """CWE-1333: hundreds of kilobytes of a hostile header take well under the time that a test may take."""
    denial = challenged(401, line)
    assert denial is None or denial.reason == "missing_token"


def test_a_reason_in_another_servers_json_is_none_of_ours() -> None:
    """A Kubernetes API server says `"reason": "Forbidden"`; its Bearer challenge counts instead."""
    body, json_type = b'{"kind": "Status", "reason": "Forbidden"}', {"Content-Type": "application/json"}
    assert parse_denial(403, json_type, body) is None
    challenge = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="a"'}
    denial = parse_denial(403, json_type | challenge, body)
    assert denial is not None
    assert (denial.reason, denial.required_scopes) == ("insufficient_scope", ("a",))
