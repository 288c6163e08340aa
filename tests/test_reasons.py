"""The reasons are a published contract: codes, statuses, remedies and challenges never change by accident."""

import re

import pytest

from authz403.reasons import Reason

# code: (status, remedy, error of the Bearer challenge)
CONTRACT: dict[str, tuple[int, str, str | None]] = {
    "missing_token": (401, "sign_in", None),
    "invalid_request": (400, "fix_request", "invalid_request"),
    "invalid_token": (401, "sign_in_again", "invalid_token"),
    "token_expired": (401, "refresh_token", "invalid_token"),
    "token_not_yet_valid": (401, "retry_later", "invalid_token"),
    "wrong_issuer": (401, "sign_in_again", "invalid_token"),
    "wrong_audience": (401, "sign_in_again", "invalid_token"),
    "wrong_token_type": (401, "sign_in_again", "invalid_token"),
    "token_revoked": (401, "sign_in_again", "invalid_token"),
    "step_up_required": (401, "sign_in_again", "insufficient_user_authentication"),
    "insufficient_scope": (403, "request_scope", "insufficient_scope"),
    "role_required": (403, "request_role", None),
    "permission_required": (403, "request_role", None),
    "claim_required": (403, "contact_owner", None),
    "ip_not_allowed": (403, "change_network", None),
    "not_owner": (403, "contact_owner", None),
    "csrf_failed": (403, "fix_request", None),
    "origin_not_allowed": (403, "fix_request", None),
    "preflight_refused": (403, "fix_request", None),
    "access_denied": (403, "contact_owner", None),
    "no_policy": (403, "contact_owner", None),
    "invalid_path": (400, "fix_request", None),
    "keys_unavailable": (503, "retry_later", None),
    "policy_unavailable": (503, "retry_later", None),
    "policy_error": (500, "contact_owner", None),
    "route_mismatch": (500, "contact_owner", None),
    "misconfigured": (500, "contact_owner", None),
}

every_reason = pytest.mark.parametrize("reason", list(Reason), ids=str)


def test_the_published_reasons_are_exactly_these() -> None:
    """No code is renamed, reused, dropped or added without this table saying so."""
    assert {str(reason): (reason.status, reason.remedy, reason.error) for reason in Reason} == CONTRACT


@every_reason
def test_a_reason_is_its_code(reason: Reason) -> None:
    """A reason compares, prints and reads back as its code, so that it can stand in a body, a header or a log."""
    assert reason == reason.value == str(reason) == f"{reason}"
    assert Reason(reason.value) is reason
    assert re.fullmatch(r"[a-z][a-z0-9_]{2,}", reason)
    assert reason.name == reason.value.upper()


@every_reason
def test_a_reason_explains_itself(reason: Reason) -> None:
    """Every reason has a title, one or more sentences for the caller and a meaning for the docs."""
    assert re.fullmatch(r"[A-Z][^.\n]*", reason.summary)
    assert re.fullmatch(r"[A-Z][^\n]*[.>]", reason.detail)
    assert reason.__doc__ is not None
    assert re.fullmatch(r"[A-Z][^\n]*\.", reason.__doc__)


@every_reason
def test_what_a_caller_reads_fits_a_challenge(reason: Reason) -> None:
    """RFC 6750 section 3: error and error_description stay in x20-21, x23-5B and x5D-7E, so no quote breaks out."""
    assert re.fullmatch(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+", reason.detail)
    assert reason.error is None or re.fullmatch(r"[a-z_]+", reason.error)


@every_reason
def test_retryable_means_that_waiting_is_the_remedy(reason: Reason) -> None:
    """A caller may repeat the same request exactly where the remedy is to retry later."""
    assert reason.retryable is (reason.remedy == "retry_later")


@every_reason
def test_only_401_403_and_400_carry_a_challenge(reason: Reason) -> None:
    """A server's own failure never asks for another token, and a 401 without an error is the one for no credentials."""
    if reason.error is not None:
        assert reason.status in {400, 401, 403}
    if reason.status == 401 and reason.error is None:
        assert reason is Reason.MISSING_TOKEN


def test_an_unknown_code_is_no_reason() -> None:
    """A code that was never published is refused."""
    with pytest.raises(ValueError, match="not_a_reason"):
        Reason("not_a_reason")
