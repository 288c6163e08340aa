"""The docs say what the code does: their examples run, their links lead somewhere, their tables are the code's own."""

import asyncio
import hashlib
import importlib.util
import inspect
import json
import logging
import re
import shutil
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.message import Message
from functools import partial
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import fastapi
import httpx2
import jwt
import pytest
import structlog
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp

import authz403
import authz403.fastapi
import authz403.testing
from authz403 import BearerTokens, Gate, Principal, Reason
from authz403.addresses import parse_address
from authz403.asgi import AuthzMiddleware
from authz403.facts import Rejected
from authz403.identity import IdentitySource
from authz403.network import Network
from authz403.request import AccessRequest
from tests import wsgi_made
from tests.tokens_made import jwks, public_jwk, public_pem

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
PAGES: Final = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
EXAMPLES: Final = tuple(sorted((DOCS / "examples").rglob("*.py")))
# tests/test_proxies.py runs these.
CONFIGURATIONS: Final = tuple(path for path in sorted((DOCS / "examples").rglob("*.c*")) if "__" not in str(path))
LANGUAGES: Final = {".py": "python", ".conf": "nginx", ".cfg": "haproxy"}
SHORT: Final = 3  # lines of Python that may stand in a page without a file
SECRET: Final = "only-for-trying-out-0123456789abcdef"
ISSUER: Final = "https://id.example"

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def module(path: Path) -> ModuleType:
    """Import a file that belongs to no package, afresh each time, as examples keep state."""
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def example(name: str) -> Any:  # noqa: ANN401 - whatever the example defines
    """Import docs/examples/<name>.py."""
    return module(DOCS / "examples" / f"{name}.py")


# ---- the pages


class Block(NamedTuple):
    """A fenced block of a page: the line it starts at, its language, its text, and the file that it says it is of."""

    line: int
    language: str
    text: str
    file: str | None


_FENCE: Final = re.compile(r"^( *)(`{3,}|~{3,}) *([A-Za-z]*)[^\n]*\n(.*?)^ *\2 *$", re.MULTILINE | re.DOTALL)
_MARK: Final = re.compile(r"<!-- example: (\S+) -->\n\Z")


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        mark = _MARK.search(text[: found.start()])
        yield Block(text.count("\n", 0, found.start()) + 1, found[3], found[4], mark[1] if mark else None)


@every_page
def test_every_longer_block_of_code_is_part_of_a_file_that_runs(page: Path) -> None:
    """A marked block stands in its file, whole lines in a row, and an unmarked one is no longer than three lines."""
    base = ROOT if page.parent == ROOT else DOCS
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.file is None:
            is_python = block.language in {"python", "py"}
            assert not is_python or block.text.count("\n") <= SHORT, f"{where} belongs into a file"
            assert block.language not in {"nginx", "haproxy"}, f"{where} belongs into a file"
            continue
        file = base / block.file
        assert block.language == LANGUAGES.get(file.suffix), where
        assert file in {*EXAMPLES, *CONFIGURATIONS}, f"{where} is of {block.file}, which is no example"
        assert f"\n{block.text}" in f"\n{file.read_text(encoding='utf-8')}", f"{where} does not stand in {block.file}"


def test_every_example_is_shown_on_some_page() -> None:
    """An example that no page shows is of no use."""
    shown = {Path(block.file).parts for page in PAGES for block in blocks(page) if block.file}
    # Of a project, some files are shown.
    told = {parts[parts.index("examples") + 1] for parts in shown}
    assert told == {path.relative_to(DOCS / "examples").parts[0] for path in (*EXAMPLES, *CONFIGURATIONS)}
    names = {Path(block.file).name for page in PAGES for block in blocks(page) if block.file}
    assert {path.name for path in CONFIGURATIONS} <= names


@every_page
def test_json_in_the_docs_is_json(page: Path) -> None:
    """What a page shows as JSON can be read as such."""
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of this repository and, with #, a heading in it."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_index_names_every_page() -> None:
    """No page of the docs is left out of the index."""
    listed = set(re.findall(r"\]\(([^)#]+)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert listed == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"index.md"}


# ---- the reference


def rows(page: str) -> list[list[str]]:
    """Return the cells of every table row of a page of the reference, without heads and rules."""
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def test_the_reasons_page_is_the_one_made_from_the_enum() -> None:
    """tools/reasons_page.py prints exactly what stands in the docs."""
    page: str = module(ROOT / "tools" / "reasons_page.py").page()
    assert (DOCS / "reference" / "reasons.md").read_text(encoding="utf-8") == page
    assert all(f"### `{reason}`" in page for reason in Reason)


def test_the_table_of_outcomes_agrees_with_the_reasons() -> None:
    """Every reason has one row, with its own status, remedy and challenge."""
    found: dict[str, tuple[str, str, str | None]] = {}
    for cells in rows("outcomes.md"):
        if len(cells) == 5 and (code := re.fullmatch(r"`(\w+)`", cells[2])):
            assert code[1] not in found
            error = re.match(r'`error="(\w+)"`', cells[4])
            found[code[1]] = (cells[1], cells[3].strip("`"), error[1] if error else None)
    assert found == {str(reason): (str(reason.status), reason.remedy, reason.error) for reason in Reason}


PUBLIC: Final[Mapping[str, Sequence[str]]] = {
    "authz403": authz403.__all__,
    "authz403.fastapi": authz403.fastapi.__all__,
    "authz403.asgi": ["AuthzMiddleware"],
    "authz403.django": ["CallerAuthentication"],
    "authz403.client": ["parse_denial"],
    "authz403.identity": ["IdentitySource"],
    "authz403.facts": ["Facts", "Rejected"],
    "authz403.request": ["AccessRequest"],
    "authz403.testing": authz403.testing.__all__,
}
PUBLIC_NAMES: Final = [(module, name) for module, names in PUBLIC.items() for name in names]


def section(name: str) -> str:
    """Return what the reference says of a name, under its heading."""
    page = "testing.md" if name in authz403.testing.__all__ else "configuration.md"
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    found = re.search(rf"^### `{name}`\n(.*?)(?=^##)", text + "\n##", re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {name}"
    return found[1]


@pytest.mark.parametrize(("where", "name"), PUBLIC_NAMES, ids=str)
def test_every_public_name_is_in_the_reference(where: str, name: str) -> None:
    """Everything that can be imported for use has its section, with every parameter and every plain default."""
    told = section(name)
    public = getattr(importlib.import_module(where), name)
    if name in {
        "Principal",
        "Denial",
        "Decision",
        "Requirement",
        "Reason",
        "ConfigurationError",
        "Facts",
        "IdentitySource",
        "BoundaryCase",
        "Decided",
    }:
        return  # made by the library, not by its user
    if not inspect.isfunction(public) and not inspect.isclass(public):
        return
    for parameter in inspect.signature(public).parameters.values():
        shown = re.search(rf"^\| `{parameter.name}` \| (.*?) \|", told, re.MULTILINE)
        assert shown or re.search(rf"\W{parameter.name}\b", told), f"{name}: {parameter.name} is missing"
        if shown and type(parameter.default) in {int, float, str, bool, bytes}:
            assert shown[1] == f"`{parameter.default!r}`".replace("'", '"'), f"{name}: {parameter.name}"


def test_versions_are_those_of_the_package() -> None:
    """The versions page gives the floors of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = {cells[0].lower(): cells[1] for cells in rows("versions.md")}
    for floor in (*project["dependencies"], *project["optional-dependencies"]["fastapi"]):
        name, version = re.sub(r"\[\w+\]", "", floor).split(">=")
        assert told[name].startswith(f"{version} and newer"), name
    for classifier in project["classifiers"]:
        if found := re.search(r":: (3\.\d+)$", classifier):
            assert found[1] in told["python"]


# ---- the examples


class Asked(NamedTuple):
    """One call of an example and what the docs promise: the status, and the reason of a refusal."""

    status: int
    reason: str | None
    method: str
    path: str
    headers: Callable[[], Mapping[str, str]] = dict
    peer: str = "127.0.0.1"


def bearer(
    *scopes: str, sub: str = "alice", roles: Sequence[str] = (), age: int = 0, **claims: object
) -> dict[str, str]:
    """Return the Authorization header of a caller of the examples; a token expires at the age of 600 seconds."""
    said = {"iss": ISSUER, "aud": "orders-api", "sub": sub, "exp": int(time.time()) + 600 - age}
    said |= {"scope": " ".join(scopes), "roles": list(roles), **claims}
    return {"Authorization": "Bearer " + jwt.encode(said, SECRET, algorithm="HS256")}


def from_gateway(**claims: object) -> dict[str, str]:
    """Return the header in which the proxy of the example says who is calling."""
    return {"X-Gateway-Token": bearer(**claims)["Authorization"].removeprefix("Bearer ")}  # type: ignore[arg-type]


def cookie(session_id: str, name: str = "Accept", value: str = "*/*") -> dict[str, str]:
    """Return the headers of a browser with a session, and one more."""
    return {"Cookie": f"theme=dark; __Host-session={session_id}", name: value}


CALLS: Final[Mapping[str, Sequence[Asked]]] = {
    "quickstart": [
        Asked(401, "missing_token", "POST", "/orders"),
        Asked(403, "insufficient_scope", "POST", "/orders", partial(bearer, "orders:read")),
        Asked(200, None, "POST", "/orders", partial(bearer, "orders:write")),
    ],
    "allowlists": [
        Asked(200, None, "GET", "/health"),
        Asked(403, "ip_not_allowed", "GET", "/health", peer="192.0.2.1"),
        Asked(200, None, "GET", "/reports", peer="192.0.2.1"),
        Asked(200, None, "GET", "/reports", peer="10.1.1.1"),
        Asked(200, None, "GET", "/reports", peer="2001:db8:7::1"),
        Asked(403, "ip_not_allowed", "GET", "/reports", peer="192.0.2.66"),
        Asked(403, "ip_not_allowed", "GET", "/", peer="192.0.2.66"),
        Asked(403, "ip_not_allowed", "GET", "/reports", peer="203.0.113.8"),
        Asked(200, None, "GET", "/", peer="203.0.113.8"),
    ],
    "tutorial_start": [Asked(403, "no_policy", "GET", "/health")],
    "tutorial": [
        Asked(200, None, "GET", "/health"),
        Asked(200, None, "GET", "/docs"),
        Asked(401, "missing_token", "POST", "/orders"),
        Asked(403, "insufficient_scope", "POST", "/orders", partial(bearer, "orders:read")),
        Asked(201, None, "POST", "/orders", partial(bearer, "orders:read", "orders:write")),
        Asked(401, "token_expired", "POST", "/orders", partial(bearer, "orders:read", age=660)),
        Asked(200, None, "GET", "/orders/1", partial(bearer, "orders:read")),
        Asked(403, "not_owner", "GET", "/orders/2", partial(bearer, "orders:read")),
        Asked(404, None, "GET", "/orders/99", partial(bearer, "orders:read")),
        Asked(403, "role_required", "DELETE", "/admin/orders/2", partial(bearer, "orders:read")),
        Asked(204, None, "DELETE", "/admin/orders/2", partial(bearer, sub="carol", roles=["admin"])),
    ],
    "api_keys": [
        Asked(401, "missing_token", "GET", "/orders"),
        Asked(401, "invalid_token", "GET", "/orders", partial(dict, {"X-Api-Key": "guessed"})),
        Asked(200, None, "GET", "/orders", partial(dict, {"X-Api-Key": "only-for-trying-out"})),
        Asked(
            400,
            "invalid_request",
            "GET",
            "/orders",
            partial(dict, {"Authorization": "Bearer", "X-Api-Key": "only-for-trying-out"}),
        ),
    ],
    "sessions": [
        Asked(401, "missing_token", "POST", "/orders"),
        Asked(200, None, "POST", "/orders", partial(cookie, "only-for-trying-out")),
        Asked(200, None, "POST", "/orders", partial(cookie, "only-for-trying-out", "Origin", "https://shop.example")),
        Asked(401, "invalid_token", "POST", "/orders", partial(cookie, "guessed")),
        Asked(
            403, "csrf_failed", "POST", "/orders", partial(cookie, "only-for-trying-out", "Origin", "https://x.example")
        ),
        Asked(
            403,
            "csrf_failed",
            "POST",
            "/orders",
            partial(cookie, "only-for-trying-out", "Sec-Fetch-Site", "cross-site"),
        ),
        Asked(
            403, "csrf_failed", "POST", "/orders", partial(cookie, "only-for-trying-out", "Sec-Fetch-Site", "same-site")
        ),
        Asked(
            403, "csrf_failed", "POST", "/orders", partial(cookie, "only-for-trying-out", "Origin", "http://x.example")
        ),
        Asked(200, None, "POST", "/orders", partial(cookie, "only-for-trying-out", "Sec-Fetch-Site", "same-origin")),
        Asked(200, None, "POST", "/sessions", partial(dict, {"Sec-Fetch-Site": "same-origin"})),
        Asked(403, "csrf_failed", "POST", "/sessions", partial(dict, {"Sec-Fetch-Site": "cross-site"})),
    ],
    "openapi": [
        Asked(200, None, "GET", "/openapi.json"),
        Asked(401, "missing_token", "POST", "/orders"),
        Asked(200, None, "POST", "/orders", partial(bearer, roles=["seller"])),
    ],
    "proxy_token": [
        Asked(401, "missing_token", "GET", "/whoami"),
        Asked(401, "missing_token", "GET", "/whoami", partial(bearer, iss="https://gateway.example")),
        Asked(401, "invalid_token", "GET", "/whoami", partial(dict, {"X-Gateway-Token": "alice"})),
        Asked(401, "wrong_issuer", "GET", "/whoami", from_gateway),
        Asked(200, None, "GET", "/whoami", partial(from_gateway, iss="https://gateway.example")),
    ],
    "browser": [
        Asked(403, "insufficient_scope", "POST", "/orders", bearer),
        Asked(200, None, "POST", "/orders", partial(bearer, "orders:write")),
    ],
    "roles": [
        Asked(403, "role_required", "GET", "/orders", bearer),
        Asked(200, None, "GET", "/orders", partial(bearer, roles=["auditor"])),
        Asked(200, None, "GET", "/orders", partial(bearer, roles=["admin"])),
        Asked(200, None, "POST", "/orders/1/refund", partial(bearer, roles=["admin"])),
        Asked(403, "permission_required", "POST", "/orders/1/refund", partial(bearer, roles=["clerk"])),
        Asked(200, None, "POST", "/orders/1/refund", partial(bearer, permissions=["orders:refund"])),
    ],
    "own_requirements": [
        Asked(403, "plan_expired", "GET", "/reports", partial(bearer, plan="free")),
        Asked(200, None, "GET", "/reports", partial(bearer, plan="pro")),
        Asked(200, None, "GET", "/invoices", bearer),
        Asked(403, "bill_unpaid", "GET", "/invoices", partial(bearer, sub="carol")),
        Asked(403, "claim_required", "GET", "/beta", bearer),
        Asked(200, None, "GET", "/beta", partial(bearer, plan=["team", "old"])),
        Asked(200, None, "GET", "/tenants/t1/orders", partial(bearer, tenant="t1")),
        Asked(403, "not_owner", "GET", "/tenants/t2/orders", partial(bearer, tenant="t1")),
        Asked(200, None, "GET", "/orders/1", partial(bearer, "orders:read")),
        Asked(403, "not_owner", "GET", "/orders/2", partial(bearer, "orders:read")),
        Asked(403, "ip_not_allowed", "GET", "/stock"),
        Asked(200, None, "GET", "/stock", peer="10.1.1.1"),
        Asked(200, None, "GET", "/stock", partial(dict, {"Authorization": "Bearer no.good.token"}), peer="10.1.1.1"),
        Asked(200, None, "GET", "/stock", partial(bearer, "stock:read")),
        Asked(401, "missing_token", "POST", "/votes"),
        Asked(403, "access_denied", "POST", "/votes", partial(bearer, roles=["guest"])),
        Asked(200, None, "POST", "/votes", bearer),
        Asked(401, "step_up_required", "POST", "/transfers", bearer),
        Asked(200, None, "POST", "/transfers", partial(bearer, acr="urn:shop:mfa", auth_time=2_000_000_000)),
        Asked(404, None, "GET", "/secret-project"),
        Asked(404, None, "POST", "/secret-project", bearer),
        Asked(200, None, "GET", "/secret-project", partial(bearer, roles=["founder"])),
    ],
    "groups": [
        Asked(200, None, "GET", "/health"),
        Asked(403, "insufficient_scope", "GET", "/partners/ann/orders", partial(bearer, "orders:read")),
        Asked(200, None, "GET", "/partners/ann/orders", partial(bearer, "orders:read", "partner")),
        Asked(403, "ip_not_allowed", "DELETE", "/admin/orders/1", partial(bearer, roles=["admin"]), "192.168.1.1"),
        Asked(403, "insufficient_scope", "DELETE", "/admin/orders/1", partial(bearer, roles=["admin"]), "10.1.1.1"),
        Asked(200, None, "DELETE", "/admin/orders/1", partial(bearer, "orders:write", roles=["admin"]), "10.1.1.1"),
        Asked(403, "ip_not_allowed", "GET", "/admin/about", partial(bearer, roles=["admin"])),
        Asked(401, "missing_token", "GET", "/admin/about", peer="192.168.1.1"),
        Asked(200, None, "GET", "/admin/about", partial(bearer, roles=["admin"]), "192.168.1.1"),
        Asked(403, "ip_not_allowed", "GET", "/admin/nothing"),
        Asked(404, None, "GET", "/nothing"),
        Asked(403, "role_required", "GET", "/reports/figures", bearer),
        Asked(200, None, "GET", "/reports/figures", partial(bearer, roles=["auditor"])),
        Asked(403, "insufficient_scope", "GET", "/archive/figures", partial(bearer, roles=["auditor"])),
        Asked(200, None, "GET", "/archive/figures", partial(bearer, "archive:read")),
    ],
    "starlette_app": [
        Asked(200, None, "GET", "/health", partial(dict, {"Authorization": "Bearer no.good.token"})),
        Asked(401, "missing_token", "GET", "/whoami"),
        Asked(200, None, "GET", "/whoami", bearer),
        Asked(200, None, "GET", "/hello"),
        Asked(401, "invalid_token", "GET", "/hello", partial(dict, {"Authorization": "Bearer no.good.token"})),
        Asked(403, "insufficient_scope", "GET", "/orders", partial(bearer, "orders:write")),
        Asked(403, "insufficient_scope", "HEAD", "/orders", partial(bearer, "orders:write")),
        Asked(201, None, "POST", "/orders", partial(bearer, "orders:write")),
        Asked(403, None, "GET", "/old/report"),
        Asked(200, None, "GET", "/old/report", partial(bearer, "orders:read")),
    ],
    # As long as nobody asks it to report alone, it enforces.
    "report_only": [Asked(401, "missing_token", "GET", "/orders"), Asked(403, "no_policy", "GET", "/forgotten")],
    "rules_alone": [
        Asked(200, None, "GET", "/health"),
        Asked(403, "no_policy", "POST", "/health"),
        Asked(401, "missing_token", "GET", "/orders/1"),
        Asked(200, None, "GET", "/orders/1", partial(bearer, "orders")),
    ],
}


def client(app: ASGIApp, peer: str = "127.0.0.1") -> TestClient:
    """Return a client at this address."""
    return TestClient(app, client=(peer, 50000))


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        pytest.param(name, asked, id=f"{name}-{number}-{asked.method}-{asked.path}")
        for name, listed in CALLS.items()
        for number, asked in enumerate(listed)
    ],
)
def test_an_example_answers_as_the_docs_say(name: str, asked: Asked) -> None:
    """Every call of an example comes to the status and the reason that its page promises."""
    answer = client(example(name).app, asked.peer).request(asked.method, asked.path, headers=asked.headers())
    assert (answer.status_code, answer.headers.get("authz-reason")) == (asked.status, asked.reason)
    if asked.reason is not None and asked.method != "HEAD":
        assert answer.json()["reason"] == asked.reason


def test_every_example_with_an_app_is_called() -> None:
    """No example stands in the docs that nobody has tried."""
    alone = (path for path in EXAMPLES if path.parent.name == "examples")  # projects have tests of their own
    assert {path.stem for path in alone if hasattr(module(path), "app")} == {*CALLS, "wsgi_app"}


def test_the_example_of_wsgi_answers_as_its_page_says() -> None:
    """Rules by path, and a check inside."""
    app = example("wsgi_app").app
    read = bearer("orders:read")
    for method, path, headers, expected in (
        ("GET", "/health", {}, (200, "hello, stranger")),
        ("GET", "/orders/1", {}, (401, "missing_token")),
        ("GET", "/orders/1", read, (200, "hello, alice")),
        ("GET", "/orders/2", read, (403, "not_owner")),
        ("POST", "/orders/1", read, (403, "insufficient_scope")),
        ("GET", "/nothing", read, (403, "no_policy")),
    ):
        answer = wsgi_made.ask(app, wsgi_made.environ_of(path, method, headers=headers))
        assert (answer.status, answer.text if answer.status == 200 else answer.reason) == expected


def test_the_token_maker_of_the_tutorial_fits_its_service() -> None:
    """A token of make_token.py opens the tutorial's service."""
    token = example("make_token").make_token("alice", ["orders:read"], [])
    answer = client(example("tutorial").app).get("/orders/1", headers={"Authorization": f"Bearer {token}"})
    assert answer.json() == {"owner": "alice", "item": "lamp"}


def test_the_tutorials_mistyped_rule_stops_the_service() -> None:
    """A rule that no route can match fails the start with a message that names the rule."""
    rule = authz403.Rule("GET", "/heatlh", authz403.anyone)
    app = fastapi.FastAPI()
    app.get("/health")(lambda: None)
    app.add_middleware(AuthzMiddleware, gate=Gate(rules=[rule]))
    with pytest.raises(authz403.ConfigurationError, match=r"Rule\(GET /heatlh\).*no route of this app"), client(app):
        pass


def test_the_providers_can_be_configured_as_shown(tmp_path: Path) -> None:
    """Every way to name keys and claims makes a source of tokens."""
    ways = example("identity_provider")
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(jwks(public_jwk())), encoding="utf-8")
    made: list[BearerTokens] = [
        ways.by_discovery(),
        ways.by_jwks_url(),
        ways.by_jwks_file(file),
        ways.by_public_key(public_pem().decode()),
        ways.by_secret(SECRET),
        ways.keycloak(),
        ways.keycloak_client_roles(),
        ways.auth0(),
        ways.entra_id("5f6c2f6e-2b0e-4bd8-8b57-2a6a1c6f2d11", "0b1d6a35-6c0f-4c0e-8f52-6a8a0f9f8f10"),
        ways.okta(),
        ways.cognito("eu-central-1", "eu-central-1_a1b2c3", ["4f1u"]),
        ways.rfc9068(),
        ways.with_revocation(),
        example("proxy_token").google_iap(12, 34),
        example("proxy_token").cloudflare_access("shop", "orders"),
    ]
    assert all(isinstance(source, BearerTokens) for source in made)
    assert isinstance(ways.several_issuers(), Gate)


def test_a_token_is_revoked_as_shown() -> None:
    """A token is told by issuer and `jti`, and is refused from the moment in which it is revoked."""
    ways = example("identity_provider")
    tokens = BearerTokens(
        issuer=ISSUER, audience="orders-api", key=SECRET, algorithms=["HS256"], is_revoked=ways.is_revoked
    )
    app = fastapi.FastAPI()
    app.add_middleware(AuthzMiddleware, gate=Gate(tokens=tokens, default=authz403.authenticated))
    app.get("/orders")(lambda: None)
    asked = bearer(jti="b0c4")
    assert client(app).get("/orders", headers=asked).status_code == 200
    ways.revoked.add((ISSUER, "b0c4"))
    assert client(app).get("/orders", headers=asked).headers["authz-reason"] == "token_revoked"
    assert client(app).get("/orders", headers=bearer(jti="another")).status_code == 200


def test_a_session_that_is_over_or_doubtful_is_refused() -> None:
    """The example's source looks at the end of a session, and at its cookie being there once."""
    sessions = example("sessions")
    identify = sessions.Sessions(sessions.store).identify
    over = Principal(sub="bob", issuer=sessions.ORIGIN, expires_at=1.0)
    sessions.store.sessions[hashlib.sha256(b"old").hexdigest()] = over

    def found(cookie: str) -> object:
        return asyncio.run(identify(AccessRequest("GET", "/", fields={"cookie": (cookie,)}), 2.0))

    assert isinstance(sessions.Sessions(sessions.store), IdentitySource)
    assert found("theme=dark") is None
    for cookie, reason in (
        ("__Host-session=old", Reason.TOKEN_EXPIRED),
        ("__Host-session=guessed", Reason.INVALID_TOKEN),
        ("__Host-session=a; __Host-session=only-for-trying-out", Reason.INVALID_REQUEST),
    ):
        rejected = found(cookie)
        assert isinstance(rejected, Rejected)
        assert rejected.reason is reason


def test_the_socket_of_the_sessions_opens_to_its_own_pages() -> None:
    """The example's WebSocket takes the session's cookie from a page of the service, and from no other."""
    opened = client(example("sessions").app).websocket_connect
    with opened("/orders/live", headers=cookie("only-for-trying-out", "Origin", "https://shop.example")) as socket:
        assert socket.receive_json() == {"for": "alice"}
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        opened("/orders/live", headers=cookie("only-for-trying-out", "Origin", "https://x.example")),
    ):
        pass
    assert (refused.value.status_code, refused.value.headers["authz-reason"]) == (403, "csrf_failed")


def test_the_api_keys_are_an_identity_source() -> None:
    """The example's source fits the protocol, and refuses a header that came twice."""
    source = example("api_keys").ApiKeys({})
    assert isinstance(source, IdentitySource)
    twice = source.identify(AccessRequest("GET", "/", fields={"x-api-key": ("one", "two")}), 0.0)
    assert isinstance(twice, Rejected)
    assert twice.reason is Reason.INVALID_REQUEST


ADDRESSES: Final = [
    ("appending", "172.16.0.9", {"x-forwarded-for": ("10.9.9.9, 203.0.113.7, 172.16.3.3",)}, "203.0.113.7"),
    ("appending", "203.0.113.5", {"x-forwarded-for": ("10.9.9.9",)}, "203.0.113.5"),
    ("appending", "172.16.0.9", {"x-forwarded-for": ("10.9.9.9", "203.0.113.7")}, "203.0.113.7"),
    ("counted", "172.16.0.9", {"x-forwarded-for": ("10.9.9.9, 203.0.113.7, 198.51.100.3",)}, "203.0.113.7"),
    ("counted", "172.16.0.9", {"x-forwarded-for": ("203.0.113.7",)}, None),
    ("standard", "172.16.0.9", {"forwarded": ('for=10.9.9.9, for="[2001:db8::7]"',)}, "2001:db8::7"),
    ("standard", "172.16.0.9", {"forwarded": ("for=unknown",)}, None),
    ("single", "172.16.0.9", {"x-real-ip": ("203.0.113.7",)}, "203.0.113.7"),
    ("single", "172.16.0.9", {"x-real-ip": ("203.0.113.7", "10.9.9.9")}, None),
    ("aws", "10.20.1.9", {"x-forwarded-for": ("10.20.0.9, 203.0.113.7:4711",)}, "203.0.113.7"),
    ("google", "35.191.0.9", {"x-forwarded-for": ("10.20.0.9,203.0.113.7,34.1.2.3",)}, "203.0.113.7"),
    ("google", "203.0.113.5", {"x-forwarded-for": ("10.9.9.9,34.1.2.3",)}, "203.0.113.5"),
    ("cloudflare", "173.245.48.9", {"cf-connecting-ip": ("203.0.113.7",)}, "203.0.113.7"),
    ("cloudflare", "203.0.113.5", {"cf-connecting-ip": ("10.9.9.9",)}, "203.0.113.5"),
    ("fastly", "172.16.0.9", {"x-forwarded-for": ("10.9.9.9, 203.0.113.7, 151.101.1.1",)}, "203.0.113.7"),
    ("fastly", "172.16.0.9", {"x-forwarded-for": ("203.0.113.7, 151.101.2.2, 151.101.1.1",)}, "203.0.113.7"),
    ("unix_socket", None, {"x-forwarded-for": ("203.0.113.7",)}, "203.0.113.7"),
    ("direct", "203.0.113.7", {"x-forwarded-for": ("10.9.9.9",)}, "203.0.113.7"),
]


@pytest.mark.parametrize(("name", "peer", "fields", "address"), ADDRESSES)
def test_the_address_is_found_as_the_proxy_page_says(
    name: str, peer: str | None, fields: Mapping[str, tuple[str, ...]], address: str | None
) -> None:
    """Each kind of proxy gives the client's address, and what the client wrote itself is not believed."""
    network: Network = getattr(example("proxies"), name)
    expected = None if address is None else parse_address(address)
    assert network.client_address(AccessRequest("GET", "/", peer, fields)) == expected


def test_the_lists_of_the_example_change_without_a_restart(tmp_path: Path) -> None:
    """A partner who is added comes in, a bad file changes nothing, and the health endpoint says both."""
    shutil.copytree(DOCS / "examples" / "lists", tmp_path / "lists")
    shown = (DOCS / "examples" / "lists" / "partners.txt").read_text(encoding="utf-8")
    assert f"```text\n{shown}```" in (DOCS / "how-to" / "allowlists.md").read_text(encoding="utf-8")
    app = module(Path(shutil.copy(DOCS / "examples" / "allowlists.py", tmp_path))).app
    partner, operator = client(app, "198.51.100.7"), client(app, "127.0.0.1")
    assert partner.get("/reports").json()["reason"] == "ip_not_allowed"

    def listed() -> dict[str, Any]:
        found: list[dict[str, Any]] = operator.get("/health").json()["lists"]
        return next(one for one in found if one["path"].endswith("partners.txt"))

    def await_(happened: Callable[[], bool]) -> None:
        until = time.monotonic() + 30
        while not happened() and time.monotonic() < until:
            time.sleep(0.02)
        assert happened()

    partners = tmp_path / "lists" / "partners.txt"
    partners.write_text(f"{shown}198.51.100.7\n")
    await_(lambda: partner.get("/reports").status_code == 200)
    assert (listed()["entries"], listed()["error"]) == (4, None)
    partners.write_text("198.51.100.7/24\n")
    await_(lambda: listed()["error"] is not None)
    assert "line 1 = '198.51.100.7/24': has host bits set" in listed()["error"]
    assert partner.get("/reports").status_code == 200


def test_a_fenced_service_is_closed_to_other_networks() -> None:
    """`allow` and `deny` of the proxy page hold, and deny wins."""
    fenced: Network = example("proxies").fenced
    assert ["10.1.1.1" in fenced.allowed, "192.0.2.1" in fenced.allowed, "10.66.1.1" in fenced.denied] == [
        True,
        False,
        True,
    ]


def test_the_browser_example_speaks_cors() -> None:
    """The preflight passes, a refusal and a crash can be read by the page, and another origin gets nothing."""
    caller = TestClient(example("browser").app, client=("127.0.0.1", 50000), raise_server_exceptions=False)
    page = {"Origin": "https://app.example"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-request-id"}
    assert caller.options("/orders", headers={**page, **asks}).status_code == 204
    for answer in (
        caller.post("/orders", headers={**page, **bearer()}),
        caller.get("/broken", headers={**page, **bearer("orders:write")}),
    ):
        assert answer.headers["access-control-allow-origin"] == page["Origin"]
        assert {"authz-reason", "x-total-count"} <= {
            name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")
        }
    for origin in ("https://pr-7.preview.example", "http://localhost:5173"):
        assert (
            caller.options("/orders", headers={"Origin": origin, **asks}).headers["access-control-allow-origin"]
            == origin
        )
    assert caller.options("/orders", headers={"Origin": "https://badpreview.example", **asks}).status_code == 403
    refused = caller.options("/orders", headers={"Origin": "https://evil.example", **asks})
    assert (refused.status_code, refused.headers["authz-reason"]) == (403, "preflight_refused")
    assert not [name for name in refused.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("way", ["roles_of", "roles_from_database"])
def test_roles_are_looked_up_sync_and_async(way: str) -> None:
    """Roles from a database replace those of the token, whichever way they are asked for."""
    roles = example("roles")
    rbac = authz403.Rbac(
        hierarchy=roles.looked_up.hierarchy, grants=roles.looked_up.grants, roles_for=getattr(roles, way)
    )
    app = fastapi.FastAPI()
    app.add_middleware(AuthzMiddleware, gate=Gate(tokens=roles.tokens, rbac=rbac))
    app.post("/refund")(authz403.requires(authz403.permissions("orders:refund"))(lambda: None))
    assert client(app).post("/refund", headers=bearer()).status_code == 200
    refused = client(app).post("/refund", headers=bearer(sub="bob", roles=["admin"]))
    assert refused.headers["authz-reason"] == "permission_required"


def test_a_gate_answers_for_menus() -> None:
    """`gate.can` tells without a request what a caller may do."""
    seller = Principal(sub="alice", permissions=frozenset({"orders:refund"}))
    gate = Gate()
    wanted = authz403.permissions("orders:refund")
    assert [gate.can(seller, wanted), gate.can(None, wanted)] == [True, False]


def test_starlette_sees_the_caller() -> None:
    """`request.user` and `request.auth` are the gate's, and a WebSocket is decided before it opens."""
    caller = client(example("starlette_app").app)
    whoami = caller.get("/whoami", headers=bearer("b", "a")).json()
    assert whoami == {"sub": "alice", "scopes": ["authenticated", "a", "b"]}
    assert caller.get("/hello").json() == {"hello": "stranger"}
    with caller.websocket_connect("/live", headers=bearer("orders:read")) as socket:
        assert socket.receive_json() == {"hello": "alice"}
    with pytest.raises(WebSocketDenialResponse) as refused, caller.websocket_connect("/live"):
        pass
    assert (refused.value.status_code, refused.value.headers["authz-reason"]) == (401, "missing_token")


def refusal(reason: Reason, **members: object) -> Callable[[], httpx2.Response]:
    """Return a maker of the response of a service that refuses for this reason."""
    body = {"reason": str(reason), "remedy": reason.remedy, "detail": reason.detail, **members}
    return lambda: httpx2.Response(reason.status, json=body, headers={"Authz-Reason": str(reason), "Retry-After": "7"})


@pytest.mark.parametrize(
    ("answers", "tokens", "slept"),
    [
        pytest.param([], [("orders:read",)], [], id="allowed"),
        pytest.param([refusal(Reason.TOKEN_EXPIRED)], [("orders:read",)] * 2, [], id="expired"),
        pytest.param(
            [refusal(Reason.INSUFFICIENT_SCOPE, required_scopes=["orders:read", "orders:all"])],
            [("orders:read",), ("orders:read", "orders:all")],
            [],
            id="scope",
        ),
        pytest.param([refusal(Reason.KEYS_UNAVAILABLE)] * 2, [("orders:read",)], [7, 7], id="unavailable"),
    ],
)
def test_the_client_does_what_the_remedy_says(
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Callable[[], httpx2.Response]],
    tokens: list[tuple[str, ...]],
    slept: list[int],
) -> None:
    """The example's client gets a token, asks for scopes or waits, and then reads its orders."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    waiting: Iterator[Callable[[], httpx2.Response]]
    waiting = iter([*answers, partial(httpx2.Response, 200, json=["lamp"])])
    asked: list[tuple[str, ...]] = []

    def new_token(scopes: tuple[str, ...]) -> str:
        asked.append(scopes)
        return "token"

    transport = httpx2.MockTransport(lambda _: next(waiting)())
    with httpx2.Client(transport=transport, base_url="https://orders.example") as http:
        assert example("client").read_orders(http, new_token) == ["lamp"]
    assert (asked, waited) == (tokens, slept)


@pytest.mark.parametrize("reason", [Reason.ROLE_REQUIRED, Reason.TOKEN_EXPIRED])
def test_the_client_gives_up_where_nothing_helps(reason: Reason) -> None:
    """A role cannot be had by calling again, and a refusal that stays is raised with what it says."""
    transport = httpx2.MockTransport(lambda _: refusal(reason)())
    reader = example("client")
    with (
        httpx2.Client(transport=transport, base_url="https://orders.example") as http,
        pytest.raises(reader.Refused, match=str(reason)),
    ):
        reader.read_orders(http, lambda _: "token")


def test_a_refusal_is_read_with_the_standard_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of urllib is a refusal too, and what is no refusal stays what it was."""

    def answering(status: int, answer: httpx2.Response) -> Callable[[str], object]:
        def urlopen(url: str) -> object:
            headers = Message()
            for name, value in answer.headers.items():
                headers[name] = value
            raise urllib.error.HTTPError(url, status, "refused", headers, BytesIO(answer.content))

        return urlopen

    monkeypatch.setattr(urllib.request, "urlopen", answering(403, refusal(Reason.NOT_OWNER)()))
    reader = example("client")
    with pytest.raises(reader.Refused, match="not_owner"):
        reader.read_with_urllib("https://orders.example/orders/2")
    monkeypatch.setattr(urllib.request, "urlopen", answering(418, httpx2.Response(418)))
    with pytest.raises(urllib.error.HTTPError) as other:
        reader.read_with_urllib("https://orders.example/orders/2")
    other.value.close()


# ---- the log


@pytest.fixture
def stdlib_events(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Return the decisions that the standard library's logger was told of, where structlog is not configured."""
    structlog.reset_defaults()

    def decisions() -> list[dict[str, Any]]:
        events = (json.loads(record.getMessage()) for record in caplog.records if record.name == "authz403")
        return [event for event in events if event["event"] != "authz.warning"]

    with caplog.at_level(logging.DEBUG, logger="authz403"):
        yield decisions


def test_every_field_of_an_event_is_in_the_reference(
    stdlib_events: Callable[[], list[dict[str, Any]]],
) -> None:
    """Whatever the examples log, the page of the log event explains each field of it."""
    told = {name for cells in rows("log-event.md") for name in re.findall(r"`(\w+)`", cells[0])}
    for name, listed in CALLS.items():
        for asked in listed:
            client(example(name).app, asked.peer).request(asked.method, asked.path, headers=asked.headers())
    found = {field for event in stdlib_events() for field in event} - {"event", "level"}
    assert found <= told
    assert len(found) > 20


def test_the_refusal_of_the_tutorial_is_found_by_its_decision_id(
    stdlib_events: Callable[[], list[dict[str, Any]]],
) -> None:
    """The id in the answer leads to one event, which says who, what and why, as the page shows."""
    answer = client(example("tutorial").app).get("/orders/2", headers=bearer("orders:read"))
    (event,) = [event for event in stdlib_events() if event["decision_id"] == answer.json()["decision_id"]]
    assert event["facts"] == {"order": 2}
    (shown,) = [json.loads(block.text) for block in blocks(DOCS / "tutorial.md") if block.language == "json"]
    same = event.keys() - {"decision_id", "duration_us", "token_id", "token_expires", "response", "policy_version"}
    assert {name: event[name] for name in same} == {name: shown.get(name) for name in same}


def test_the_event_of_the_how_to_is_a_real_one(stdlib_events: Callable[[], list[dict[str, Any]]]) -> None:
    """The expired token of the page on causes leaves an event with exactly the fields that are explained there."""
    client(example("tutorial").app).get("/orders/1", headers=bearer("orders:read", age=660))
    (event,) = stdlib_events()
    (shown,) = [
        json.loads(block.text) for block in blocks(DOCS / "how-to" / "find-out-why.md") if block.language == "json"
    ]
    assert event.keys() == shown.keys()
    assert event["reason"] == shown["reason"]
    assert re.fullmatch(r"it expired 6\d s ago", event["hint"])
    text = (DOCS / "how-to" / "find-out-why.md").read_text(encoding="utf-8")
    assert all(f"`{field}`" in text for field in event.keys() - {"event", "level"})


def test_a_gate_that_reports_logs_what_it_would_refuse(
    stdlib_events: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roll-out example lets everything pass, and says for each what would have been refused."""
    monkeypatch.setenv("AUTHZ_REPORT_ONLY", "yes")
    caller = client(example("report_only").app)
    assert [caller.get(path).status_code for path in ("/orders", "/forgotten")] == [200, 200]
    told = [(event["event"], event["reason"], event["report_only"]) for event in stdlib_events()]
    assert told == [("authz.denied", "missing_token", True), ("authz.denied", "no_policy", True)]


def test_events_go_through_the_structlog_of_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    """Configured as shown, structlog writes each refusal as one line of JSON with level and time."""
    try:
        example("logging_setup").with_structlog()
        client(example("quickstart").app).post("/orders")
        client(example("quickstart").app).post("/orders", headers=bearer("orders:write"))
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (event,) = [line for line in lines if line["event"] != "authz.warning"]
    assert (event["event"], event["level"], event["reason"]) == ("authz.denied", "warning", "missing_token")
    assert event["timestamp"]


def test_events_go_to_the_standard_library_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Configured as shown, the logger authz403 writes each refusal as one line of JSON."""
    structlog.reset_defaults()
    logger = logging.getLogger("authz403")
    before = (logger.handlers[:], logger.level)
    try:
        example("logging_setup").with_the_standard_library()
        client(example("quickstart").app).post("/orders")
    finally:
        logger.handlers, level = before
        logger.setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    (event,) = [line for line in lines if line["event"] != "authz.warning"]
    assert event["reason"] == "missing_token"


def test_the_forgotten_endpoints_of_the_example_are_those_of_fastapi() -> None:
    """The how-to's list of endpoints without a policy holds what FastAPI adds by itself, and no endpoint of the app."""
    page = (DOCS / "how-to" / "guard-groups-of-routes.md").read_text(encoding="utf-8")
    assert "\n".join(example("groups").table()) in page
    assert example("groups").forgotten() == [
        "GET /openapi.json",
        "GET /docs",
        "GET /docs/oauth2-redirect",
        "GET /redoc",
    ]
