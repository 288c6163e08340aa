"""The pytest plugin in projects of their own, and the examples of the docs, each run by pytest in its own process."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest

EXAMPLES: Final = Path(__file__).parent.parent / "docs" / "examples" / "policy_tests"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def project(tmp_path: Path) -> Run:
    """Return what runs pytest in an empty folder, without any configuration of ours."""

    def run(*options: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=."]
        environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"}
        return subprocess.run(
            [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
        )

    return run


def counted(done: "subprocess.CompletedProcess[str]") -> dict[str, int]:
    """Return how many tests came to what."""
    found = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    assert found, done.stdout + done.stderr
    return found


# ---- the plugin


def test_the_fixture_is_there_by_itself(project: Run, tmp_path: Path) -> None:
    """In a project that says nothing of it; it can be left out."""
    (tmp_path / "test_it.py").write_text("def test_it(authz):\n    assert authz.token().count('.') == 2\n")
    assert counted(project()) == {"passed": 1}
    without = project("-p", "no:authz403")
    assert counted(without) == {"error": 1}
    assert "fixture 'authz' not found" in without.stdout
    (plugin,) = entry_points(group="pytest11", name="authz403")
    assert plugin.value == "authz403_pytest"


def test_the_plugin_costs_nothing_where_nobody_asks_for_it(project: Run, tmp_path: Path) -> None:
    """Neither the library is imported nor any framework, which need not be installed."""
    names = ("authz403", "starlette", "fastapi", "flask", "django", "jwt", "cryptography", "structlog", "httpx2")
    program = f"import sys\ndef test_it():\n    assert not {set(names)} & set(sys.modules)\n"
    (tmp_path / "test_it.py").write_text(program)
    assert counted(project("-p", "no:hypothesispytest", "-p", "no:anyio")) == {"passed": 1}


def test_the_kit_needs_no_framework_but_that_of_the_app() -> None:
    """Importing it loads no other."""
    program = "import sys, authz403.testing; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout.split()
    assert "authz403" in loaded
    assert {"fastapi", "flask", "werkzeug", "django", "httpx2", "httpx", "click", "pytest"}.isdisjoint(loaded)


def test_keys_are_made_when_they_are_needed() -> None:
    """And not by importing the kit."""
    program = "from authz403.testing import signing; print(signing._key.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "0"


def test_the_service_does_not_reach_the_kit() -> None:
    """No module of the library imports it."""
    names = ("asgi", "wsgi", "fastapi", "flask", "django", "cli", "client")
    program = f"import sys, {', '.join(f'authz403.{name}' for name in names)}"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print('authz403.testing' in sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == "False"


def test_what_cannot_be_tried_is_skipped_aloud(project: Run, tmp_path: Path) -> None:
    """With the reason, in pytest and in unittest."""
    (tmp_path / "service.py").write_text(OWN)
    (tmp_path / "test_it.py").write_text(OWN_TESTS)
    done = project("-rs")
    assert counted(done) == {"passed": 5, "skipped": 1}
    assert "requirement('plan_expired') is code of the app's own" in done.stdout
    (tmp_path / "test_it.py").unlink()
    (tmp_path / "test_unit.py").write_text(OWN_UNITTEST)
    done = project()
    assert counted(done) == {"passed": 2}


OWN: Final = """
from fastapi import FastAPI
from authz403 import BearerTokens, Gate, requirement, requires
from authz403.asgi import AuthzMiddleware

app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
tokens = BearerTokens(issuer="https://id.example", audience="a")
app.add_middleware(AuthzMiddleware, gate=Gate(tokens=tokens))

@app.get("/reports")
@requires(requirement("plan_expired", lambda facts: facts.principal.claims.get("plan") == "pro"))
def reports() -> str:
    return "report"
"""
OWN_TESTS: Final = """
import pytest
from authz403 import Reason
from authz403.testing import assert_denied, boundary_cases
from service import app

@pytest.mark.parametrize("case", boundary_cases(app), ids=str)
def test_boundary(authz, case):
    authz.check(case)

def test_plan(authz):
    assert authz.client(app, claims={"plan": "pro"}).get("/reports").json() == "report"
"""
OWN_UNITTEST: Final = """
import unittest
from authz403.testing import Authz, boundary_cases
from service import app

class Tests(unittest.TestCase):
    def setUp(self):
        self.authz = self.enterContext(Authz())

    def test_boundaries(self):
        for case in boundary_cases(app):
            with self.subTest(str(case)):
                if case.must_pass:
                    self.assertRaises(unittest.SkipTest, case.run, self.authz)
                else:
                    case.run(self.authz)

    def test_plan(self):
        client = self.authz.client(app, claims={"plan": "pro"})
        self.assertEqual(client.get("/reports").status_code, 200)
"""


# ---- the examples


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_ten_lines_cover_every_boundary_of_fifty_routes(project: Run, tmp_path: Path, framework: str) -> None:
    """As the docs show; and each case that must fail fails where the app lets everybody in."""
    name = f"test_{framework}_service.py"
    shutil.copytree(EXAMPLES, tmp_path / "policy_tests")
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 10
    done = project(f"policy_tests/{name}", "-rs", "-vv")
    ids = re.findall(r"\[(\w+ /\S+)(?: on \S+)?: (.+)\] PASSED", done.stdout)
    assert len({route for route, _ in ids}) == 50
    assert counted(done) == {"passed": len(ids)}, done.stdout

    service = tmp_path / "policy_tests" / f"{framework}_service.py"
    told = service.read_text(encoding="utf-8")
    opened = told.replace("gate = Gate(\n", "gate = Gate(\n    dangerously_report_only=True,\n")
    assert opened != told
    service.write_text(opened, encoding="utf-8")
    done = project(f"policy_tests/{name}", "--tb=line", "-k", "orders")
    passing = sum("orders" in route and "with" in label and not is_wrong(label) for route, label in ids)
    total = sum("orders" in route for route, _ in ids)
    assert counted(done) == {"passed": passing, "failed": total - passing}
    assert "it was let in: the gate only reports (dangerously_report_only)" in done.stdout


def is_wrong(label: str) -> bool:
    """Tell whether a label is one of a case that must fail."""
    return label.startswith("without") or any(
        word in label for word in ("another", "expired", "foreign", "old sign-in", "with the role")
    )


def test_the_example_of_single_tests_passes(project: Run, tmp_path: Path) -> None:
    """Clients, tokens, callers and decisions."""
    shutil.copytree(EXAMPLES, tmp_path / "policy_tests")
    assert counted(project("policy_tests/test_orders.py")) == {"passed": 5}
