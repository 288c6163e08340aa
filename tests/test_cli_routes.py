"""`authz403 routes`: the table of every endpoint, as people and CI read it."""

from __future__ import annotations

import json
import re

import pytest

from tests.commands_made import SHOPS, Commands, run_shop

FORGETFUL = """
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from authz403 import Gate, Network, Rule, any_role, anyone, authenticated, public, requires, scopes
from authz403.asgi import AuthzMiddleware
from tests.gates_made import Callers

async def plain(request): ...

@public
async def home(request): ...

@requires(scopes("orders:read") & (any_role("seller") | any_role("admin")))
async def orders(request): ...

rules = [Rule("*", "/files/secret/**", authenticated), Rule("GET", "/files/**", anyone)]
gate = Gate(tokens=Callers(None), rules=rules)
files = Route("/files/{path:path}", plain)
app = Starlette(routes=[Route("/", home), Route("/orders", orders), Route("/new", plain), files])
bare = Starlette(routes=[Route("/", home), Route("/new", plain)])
api = Mount("/api", AuthzMiddleware(app, gate=gate))
mixed = Starlette(routes=[api, Route("/open", plain), Route("/orders", orders)])
app.add_middleware(AuthzMiddleware, gate=gate)
"""


@pytest.mark.parametrize("framework", SHOPS)
def test_every_endpoint_is_shown_with_its_policy(shop: Commands, framework: str) -> None:
    """Method, path, policy and the line where that stands, by every framework."""
    shop.write(**SHOPS[framework][1])
    done = run_shop(shop, framework, "routes", "--format", "json")
    assert done.status == 0, done.errors
    rows = {
        (row["method"], row["path"].translate(str.maketrans("<>", "{}"))): row
        for row in json.loads(done.output)["endpoints"]
    }
    any_method = "*" if framework == "Django" else "POST"
    assert rows["GET", "/health"]["policy"] == "anyone"
    assert rows["*" if framework == "Django" else "GET", "/orders/{number}"]["policy"] == "scopes('orders:read')"
    written = rows[any_method, "/orders"]["written"]
    assert rows[any_method, "/orders"]["policy"] == "scopes('orders:write')"
    file, _, line = written[0].rpartition(":")
    assert file == ("shop/urls.py" if framework == "Django" else "shop.py")
    assert "orders:write" in (shop.directory / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
    assert all(row["gate"] for row in rows.values())


def test_what_nobody_wrote_a_policy_for_stands_out(shop: Commands) -> None:
    """It has a mark of its own, is counted and, with --fail-on-default, named."""
    shop.write(forgetful=FORGETFUL)
    done = shop.run("routes", "forgetful:app")
    assert done.status == 0
    lines = done.output.splitlines()
    assert [[cell.strip() for cell in re.split(" {2,}", line[2:])] for line in lines[:-2]] == [
        ["METHOD", "PATH", "POLICY", "WRITTEN"],
        ["GET", "/", "anyone", "forgetful.py:10"],
        ["GET", "/orders", "scopes('orders:read') & (any_role('admin') | any_role('seller'))", "forgetful.py:13"],
        ["GET", "/new", "default: no_policy", "nowhere"],
        ["GET", "/files/{path} on /files/secret/**", "authenticated", "forgetful.py:16"],
        ["GET", "/files/{path}", "anyone", "forgetful.py:16"],
    ]
    assert [line[0] for line in lines[:-2]] == [" ", " ", " ", "!", " ", " "]
    assert len({line.index("forgetful.py") for line in lines if "forgetful.py" in line}) == 1
    assert lines[-2:] == ["", "5 endpoints: 1 without a policy of their own, 2 open to anyone"]
    failed = shop.run("routes", "forgetful:app", "--fail-on-default")
    assert failed.status == 1
    assert failed.output == done.output
    assert failed.errors == "nobody wrote a policy, or no gate stands before: GET /new\n"


def test_colours_are_for_terminals(shop: Commands) -> None:
    """What is closed by default is yellow; a pipe gets plain text."""
    shop.write(forgetful=FORGETFUL)
    assert "\x1b[33m! GET     /new" in shop.run("routes", "forgetful:app", color=True).output
    assert "\x1b" not in shop.run("routes", "forgetful:app").output


def test_an_app_without_a_gate_is_told_loudly(shop: Commands) -> None:
    """Its marks hold nothing, and CI fails."""
    shop.write(forgetful=FORGETFUL)
    done = shop.run("routes", "forgetful:bare", "--fail-on-default")
    assert done.status == 1
    assert "! GET     /     NO GATE: anyone is not enforced" in done.output
    assert "! GET     /new  NO GATE " in done.output
    assert "2 endpoints: 1 without a policy of their own, 2 open to anyone, 2 with no gate before them" in done.output
    assert "GET /, GET /new" in done.errors
    assert "\x1b[31m! GET" in shop.run("routes", "forgetful:bare", color=True).output


def test_a_gate_further_in_guards_what_is_mounted(shop: Commands) -> None:
    """What stands outside of it has no gate, whatever its marks say."""
    shop.write(forgetful=FORGETFUL)
    rows = json.loads(shop.run("routes", "forgetful:mixed", "--format", "json").output)["endpoints"]
    assert [(row["path"], row["policy"], row["gate"], row["open"]) for row in rows] == [
        ("/open", "no_policy", False, True),
        ("/orders", "scopes('orders:read') & (any_role('admin') | any_role('seller'))", False, True),
        ("/api/", "anyone", True, True),
        ("/api/orders", "scopes('orders:read') & (any_role('admin') | any_role('seller'))", True, False),
        ("/api/new", "no_policy", True, False),
        ("/api/files/{path}", "authenticated", True, False),
        ("/api/files/{path}", "anyone", True, True),
    ]
    assert rows[5]["part"] == "/api/files/secret/**"


def test_markdown_is_a_table(shop: Commands) -> None:
    """It can be pasted into a pull request; what is forgotten is bold."""
    shop.write(forgetful=FORGETFUL)
    lines = shop.run("routes", "forgetful:app", "--format", "markdown").output.splitlines()
    assert lines[:2] == ["| Method | Path | Policy | Written |", "|---|---|---|---|"]
    assert r"`scopes('orders:read') & (any_role('admin') \| any_role('seller'))`" in lines[3]
    assert lines[4] == "| GET | /new | **`default: no_policy`** |  |"


def test_rules_alone_have_a_table_too(shop: Commands) -> None:
    """A WSGI app that nobody can look into is told by its rules."""
    shop.write(
        alone="""
        from authz403 import Gate, Rule, anyone, networks
        from authz403.wsgi import AuthzMiddleware
        gate = Gate(rules=[Rule("GET", "/health", anyone), Rule("*", "/admin/**", networks("10.0.0.0/8"))])
        app = AuthzMiddleware(lambda environ, start_response: [], gate=gate)
        """
    )
    rows = json.loads(shop.run("routes", "alone:app", "--format", "json").output)["endpoints"]
    told = {(row["method"], row["part"]): (row["policy"], row["default"]) for row in rows}
    assert told["GET", "/health"] == ("anyone", False)
    assert told["*", "/health"] == ("no_policy", True)
    assert told["GET", "/admin/**"] == told["*", "/admin/**"] == ("networks('10.0.0.0/8')", False)
    assert told["*", None] == ("no_policy", True)


def test_what_cannot_be_read_is_told_without_a_traceback(shop: Commands) -> None:
    """One line, and one for each mistake; the status is 2."""
    shop.write(alone="app = lambda scope, receive, send: None")
    for name in ("alone:app", "nothing:app"):
        done = shop.run("routes", name)
        assert (done.status, done.output) == (2, "")
        assert done.errors.startswith("Error: ")
        assert "Traceback" not in done.errors
