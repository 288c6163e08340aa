"""`authz403 lock` as a pull request meets it: written, committed, and checked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.commands_made import SHOPS, Commands, run_shop

every_framework = pytest.mark.parametrize("framework", SHOPS)


@every_framework
def test_a_pull_request_that_opens_an_endpoint_fails(shop: Commands, framework: str) -> None:
    """The file is written and up to date; then somebody drops a scope, and the sentence says which, where."""
    modules = SHOPS[framework][1]
    shop.write(**modules)
    written = run_shop(shop, framework, "lock")
    assert (written.status, written.output) == (0, f"wrote authz.lock: {4 if framework == 'Django' else 3} endpoints\n")
    kept = Path("authz.lock").read_text(encoding="utf-8")
    assert run_shop(shop, framework, "lock", "--check").output.startswith("authz.lock is up to date: ")
    assert run_shop(shop, framework, "lock", "--check").status == 0

    module = "shop__urls" if framework == "Django" else "shop"
    shop.replace(module, '@requires(scopes("orders:read"))', "@requires(anyone)")
    shop.replace(module, "import requires, scopes", "import anyone, requires, scopes")
    done = run_shop(shop, framework, "lock", "--check")
    assert done.status == 1
    path = {"Django": r"\* /orders/<number>", "Flask": "GET /orders/<number>"}.get(framework, r"GET /orders/\{number\}")
    file = "shop/urls.py" if framework == "Django" else "shop.py"
    told = rf"{path}: loosened, scopes\('orders:read'\) is no longer needed: anyone may call it \({file}:\d+\)\n"
    assert re.match(told, done.output), done.output
    name = SHOPS[framework][0]
    again = f"authz403 lock {name!r}" if "(" in name else f"authz403 lock {name}"
    assert f"authz.lock says otherwise: 1 loosened. If that is meant, run `{again}` and commit the file." in done.output
    assert Path("authz.lock").read_text(encoding="utf-8") == kept

    accepted = run_shop(shop, framework, "lock")
    assert re.match(told, accepted.output)
    lines = Path("authz.lock").read_text(encoding="utf-8").splitlines()
    (changed,) = [one for one, other in zip(lines, kept.splitlines(), strict=True) if one != other]
    assert changed.endswith("(read_order): anyone")


ORDERED = """
from fastapi import FastAPI

from authz403 import BearerTokens, Gate, Rule, anyone, deny, requires, scopes
from authz403.asgi import AuthzMiddleware

tokens = BearerTokens(issuer="i", audience="a", key="only-for-tests-0123456789abcdef0", algorithms=["HS256"])
rules = [Rule("GET", "/x/*/a", deny), Rule("GET", "/x/b/*", anyone)]
app = FastAPI(openapi_url=None)
app.add_middleware(AuthzMiddleware, gate=Gate(tokens=tokens, rules=rules))


@requires(scopes("orders:read"))
def own() -> str:
    return "mine"


@requires(anyone)
def one() -> str:
    return "one"


@requires(anyone)
def at(p: str, q: str) -> str:
    return p + q


app.get("/orders/me")(own)
app.get("/orders/{id}")(one)
app.get("/x/{p}/{q}")(at)
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'app.get("/orders/me")(own)\napp.get("/orders/{id}")(one)',
            'app.get("/orders/{id}")(one)\napp.get("/orders/me")(own)',
            "GET /orders/me: changed, GET /orders/{id} (one) comes before it now and takes what both fit: anyone",
        ),
        (
            'Rule("GET", "/x/*/a", deny), Rule("GET", "/x/b/*", anyone)',
            'Rule("GET", "/x/b/*", anyone), Rule("GET", "/x/*/a", deny)',
            "GET /x/{p}/{q} on /x/*/a: changed, GET /x/{p}/{q} on /x/b/* (at) comes before it now and takes what both",
        ),
        (
            'app.get("/orders/me")(own)\n',
            "",
            "GET /orders/me: changed, it is gone, and GET /orders/{id} (one) takes what both fit: anyone",
        ),
    ],
    ids=["routes", "rules", "a route that goes"],
)
def test_a_pull_request_that_opens_an_endpoint_by_another_order_fails(
    shop: Commands, old: str, new: str, told: str
) -> None:
    """Of two that take the same request the first one does, so that the order is part of the policy."""
    shop.write(ordered=ORDERED)
    assert shop.run("lock", "ordered:app").status == 0
    assert shop.run("lock", "ordered:app", "--check").status == 0
    shop.replace("ordered", old, new)
    done = shop.run("lock", "ordered:app", "--check")
    assert done.status == 1
    assert told in done.output, done.output


def test_nothing_of_the_machine_is_in_the_file(shop: Commands) -> None:
    """No directory and no line: a comment above an endpoint changes nothing."""
    shop.write(**SHOPS["FastAPI"][1])
    run_shop(shop, "FastAPI", "lock")
    kept = Path("authz.lock").read_text(encoding="utf-8")
    assert str(shop.directory) not in kept
    assert "shop.py" not in kept
    shop.replace("shop", '@app.get("/health")', '# A comment.\n\n@app.get("/health")')
    assert run_shop(shop, "FastAPI", "lock", "--check").status == 0
    run_shop(shop, "FastAPI", "lock")
    assert Path("authz.lock").read_text(encoding="utf-8") == kept


def test_the_file_may_stand_elsewhere(shop: Commands) -> None:
    """`--file` names it, and what is to be run says so too."""
    shop.write(**SHOPS["FastAPI"][1])
    missing = shop.run("lock", "shop:app", "--check", "--file", "policy.lock")
    assert missing.status == 2
    assert missing.errors == (
        "Error: policy.lock does not exist: write it by `authz403 lock shop:app --file policy.lock`\n"
    )
    assert shop.run("lock", "shop:app", "--file", "policy.lock").status == 0
    assert shop.run("lock", "shop:app", "--check", "--file", "policy.lock").status == 0
    assert not Path("authz.lock").exists()
    assert shop.run("lock", "shop:app", "--file", "nowhere/policy.lock").status == 2


def test_a_broken_file_is_told_and_kept(shop: Commands) -> None:
    """Whoever resolves a merge conflict is told the line; nothing is written over it."""
    shop.write(**SHOPS["FastAPI"][1])
    Path("authz.lock").write_text("version: 1\n<<<<<<< HEAD\n", encoding="utf-8")
    for more in (["--check"], []):
        done = shop.run("lock", "shop:app", *more)
        assert done.status == 2
        assert done.errors.startswith("Error: authz.lock:2: ")
    assert "<<<<<<<" in Path("authz.lock").read_text(encoding="utf-8")


def test_an_app_without_a_gate_has_no_lock(shop: Commands) -> None:
    """It would look as if its marks held."""
    shop.write(bare="from starlette.applications import Starlette\napp = Starlette()\n")
    done = shop.run("lock", "bare:app")
    assert done.status == 2
    assert "no gate stands before it" in done.errors
    assert not Path("authz.lock").exists()


def test_loosened_is_red_on_a_terminal(shop: Commands) -> None:
    """And plain in the log of a build."""
    shop.write(**SHOPS["FastAPI"][1])
    shop.run("lock", "shop:app")
    shop.replace("shop", '@requires(scopes("orders:write"))', "@requires(scopes('orders:write') | scopes('admin'))")
    done = shop.run("lock", "shop:app", "--check", color=True)
    assert (
        "POST /orders: \x1b[31m\x1b[1mloosened\x1b[0m, scopes('admin') | scopes('orders:write') is enough"
        in done.output
    )
    assert "\x1b" not in shop.run("lock", "shop:app", "--check").output


# ---- claims


def claims(**found: object) -> str:
    """Write claims to a file, and return its name."""
    Path("claims.json").write_text(json.dumps(found), encoding="utf-8")
    return "claims.json"


@every_framework
def test_what_a_machine_calls_is_proven_to_be_reached(shop: Commands, framework: str) -> None:
    """Its claims reach what their scopes let it; what it must reach and does not fails, with what is missing."""
    shop.write(**SHOPS[framework][1])
    file = claims(iss="https://id.example", aud="orders-api", client_id="machine", scope="orders:read")
    done = run_shop(shop, framework, "lock", "--claims", file)
    assert done.status == 0
    order = "GET /orders/{number}"
    if framework in {"Flask", "Django"}:
        order = "* /orders/<number>" if framework == "Django" else "GET /orders/<number>"
    write = "* /orders" if framework == "Django" else "POST /orders"
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert "reaches GET /health" in lines
    assert f"reaches {order}" in lines
    assert f"does not reach {write}: missing scope orders:write" in lines
    assert not Path("authz.lock").exists()

    Path("calls.txt").write_text("# what it calls\nGET /orders/5\nHEAD /health\n", encoding="utf-8")
    assert run_shop(shop, framework, "lock", "--claims", file, "--must-reach", "calls.txt").status == 0
    failed = run_shop(
        shop, framework, "lock", "--claims", file, "--must-reach", "calls.txt", "--must-reach", "POST /orders"
    )
    assert failed.status == 1
    assert failed.output.endswith("must be reached and is not: POST /orders: missing scope orders:write\n")
    gone = run_shop(shop, framework, "lock", "--claims", file, "--must-reach", "GET /gone")
    assert gone.status == 1
    assert gone.output.endswith("must be reached and is not: GET /gone: no endpoint serves it\n")


def test_check_and_claims_go_together(shop: Commands) -> None:
    """One step of CI; either alone fails it."""
    shop.write(**SHOPS["FastAPI"][1])
    shop.run("lock", "shop:app")
    reading = claims(scope="orders:read")
    both = ["lock", "shop:app", "--check", "--claims", reading, "--must-reach"]
    assert shop.run(*both, "GET /orders/5").status == 0
    assert shop.run(*both, "POST /orders").status == 1
    shop.replace("shop", '@requires(scopes("orders:write"))', "")
    changed = shop.run(*both, "GET /orders/5")
    assert changed.status == 1
    assert "POST /orders: tightened, it is closed now (no_policy)" in changed.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--must-reach", "GET /x"], "--must-reach needs --claims"),
        (["--claims", "missing.json"], "'missing.json' does not exist"),
        (["--claims", "list.json"], "list.json: an object with the claims of a token is needed"),
        (["--claims", "broken.json"], "broken.json: Expecting"),
        (["--claims", "good.json", "--must-reach", "missing.txt"], "'missing.txt' is neither a file nor a request"),
        (["--claims", "good.json", "--must-reach", "GET orders"], "'GET orders' is neither a file nor a request"),
    ],
)  # fmt: skip
def test_wrong_use_is_told_in_a_line(shop: Commands, arguments: list[str], told: str) -> None:
    """With the status 2, which is none of a finding."""
    shop.write(**SHOPS["FastAPI"][1])
    for name, text in (("list", "[]"), ("broken", "{"), ("good", "{}")):
        Path(f"{name}.json").write_text(text, encoding="utf-8")
    done = shop.run("lock", "shop:app", *arguments)
    assert done.status == 2
    assert told in done.errors
    assert "Traceback" not in done.errors
