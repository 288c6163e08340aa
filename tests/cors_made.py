"""Preflights as browsers send them, answers as text, and the public tables of others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authz403.cors import Headers

APP = "https://app.example"

VARIES = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network"

Fields = Mapping[str, tuple[str, ...]]


def preflight_fields(*requested: str, origin: str = APP, method: str = "GET", private: str | None = None) -> Fields:
    """Return the header fields of a preflight; each of `requested` is a line of Access-Control-Request-Headers."""
    asked = {"access-control-request-headers": requested} if requested else {}
    if private is not None:
        asked["access-control-request-private-network"] = (private,)
    return {"origin": (origin,), "access-control-request-method": (method,), **asked}


def text_of(headers: Headers) -> dict[str, str]:
    """Return headers as text, and see that none is repeated."""
    found = {name.decode("ascii"): value.decode("ascii") for name, value in headers}
    assert len(found) == len(headers), "a header is repeated"
    return found


def rows_of(path: Path, function: str | None, kind: str | None = None) -> list[Any]:
    """Return the rows of one Go test table."""
    tables = json.loads(path.read_text(encoding="utf-8"))
    (table,) = [table for table in tables if table.get("func") == function and kind in {None, table["type"]}]
    assert len(table["cases"]) == table["n"]
    rows: list[Any] = table["cases"]
    return rows
