"""A client that reads refusals: what to do next stands in the remedy."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable

import httpx2

from authz403 import Denial
from authz403.client import parse_denial


class Refused(Exception):  # noqa: N818 - a refusal is an answer
    """The service said no, and nothing that this program can do by itself would change that."""

    def __init__(self, denial: Denial) -> None:
        self.denial = denial
        super().__init__(f"{denial.status} {denial.reason}: {denial.detail} (decision {denial.decision_id})")


def read_orders(http: httpx2.Client, new_token: Callable[[tuple[str, ...]], str], tries: int = 3) -> object:
    """Read the orders; `new_token(scopes)` gets a token from the identity provider."""
    token = new_token(("orders:read",))
    while True:
        tries -= 1
        response = http.get("/orders", headers={"Authorization": f"Bearer {token}"})
        denial = parse_denial(response.status_code, response.headers, response.content)
        if denial is None:
            return response.raise_for_status().json()
        if tries == 0:
            raise Refused(denial)
        match denial.remedy:
            case "sign_in" | "sign_in_again" | "refresh_token":
                token = new_token(("orders:read",))
            case "request_scope":
                token = new_token(denial.required_scopes)
            case "retry_later":
                time.sleep(min(denial.retry_after or 1, 30))
            case _:
                raise Refused(denial)


def read_with_urllib(url: str) -> bytes:
    """Read a URL with nothing but the standard library."""
    try:
        with urllib.request.urlopen(url) as response:  # noqa: S310 - the URL is our own
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        denial = parse_denial(error.code, error.headers.items(), error.read())
        if denial is None:
            raise
        raise Refused(denial) from error
