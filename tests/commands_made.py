"""The command line for tests: run as a user runs it, in a directory of its own with apps in it.

>>> shop.write(shop_app=SOURCE)  # modules in the current directory
>>> done = shop.run("lock", "shop_app:app", "--check")
>>> done.status, done.output, done.errors
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final, NamedTuple

from click.testing import CliRunner

from authz403.cli.commands import authz403


class Done(NamedTuple):
    """What a command said, and with which status it exited."""

    status: int
    output: str
    errors: str


# Until click 8.2, what went to stderr stood in the output unless one said so.
_SEPARATE: Final[dict[str, Any]] = (
    {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
)


def run(*arguments: str, color: bool = False, stdin: str | None = None) -> Done:
    """Run `authz403 ...` in this process."""
    found = CliRunner(**_SEPARATE).invoke(authz403, arguments, input=stdin, color=color, catch_exceptions=False)
    return Done(found.exit_code, found.stdout, found.stderr)


class Commands:
    """A current directory, whose modules are imported afresh after they were written."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, **modules: str) -> None:
        """Write modules, `__` standing for a package."""
        for name, source in modules.items():
            file = self.directory.joinpath(*name.split("__")).with_suffix(".py")
            file.parent.mkdir(exist_ok=True)
            file.write_text(textwrap.dedent(source), encoding="utf-8")
        self.forget()

    def replace(self, module: str, old: str, new: str) -> None:
        """Change a module as somebody's pull request does."""
        file = self.directory.joinpath(*module.split("__")).with_suffix(".py")
        source = file.read_text(encoding="utf-8")
        assert source.count(old) == 1, source
        self.write(**{module: source.replace(old, new)})

    def forget(self) -> None:
        """Forget what was imported from here."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self.directory)):
                del sys.modules[name]

    def run(self, *arguments: str, color: bool = False, stdin: str | None = None) -> Done:
        """Run `authz403 ...` in this process."""
        return run(*arguments, color=color, stdin=stdin)

    def run_apart(self, *arguments: str, **environment: str) -> Done:
        """Run `authz403 ...` in a process of its own, as Django needs it."""
        done = subprocess.run(
            [sys.executable, "-B", "-m", "authz403", *arguments],
            cwd=self.directory,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Done(done.returncode, done.stdout, done.stderr)


# ---- one shop, four times

_POLICY: Final = """
from authz403 import BearerTokens, Gate, Rule, anyone

gate = Gate(
    tokens=BearerTokens(issuer="https://id.example", audience="orders-api", key="0" * 32, algorithms=["HS256"]),
    rules=[Rule("GET", "/health", anyone)],
)
"""

SHOPS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "FastAPI": (
        "shop:app",
        {
            "shop": _POLICY
            + """
from fastapi import FastAPI
from authz403 import requires, scopes
from authz403.asgi import AuthzMiddleware

app = FastAPI(openapi_url=None)
app.add_middleware(AuthzMiddleware, gate=gate)

@app.get("/health")
async def health(): ...

@app.get("/orders/{number}")
@requires(scopes("orders:read"))
async def read_order(number: int): ...

@app.post("/orders")
@requires(scopes("orders:write"))
async def create_order(): ...
"""
        },
    ),
    "Starlette": (
        "shop:app",
        {
            "shop": _POLICY
            + """
from starlette.applications import Starlette
from starlette.routing import Route
from authz403 import requires, scopes
from authz403.asgi import AuthzMiddleware

async def health(request): ...

@requires(scopes("orders:read"))
async def read_order(request): ...

@requires(scopes("orders:write"))
async def create_order(request): ...

app = Starlette(routes=[
    Route("/health", health),
    Route("/orders/{number}", read_order),
    Route("/orders", create_order, methods=["POST"]),
])
app.add_middleware(AuthzMiddleware, gate=gate)
"""
        },
    ),
    "Flask": (
        "shop:create_app()",
        {
            "shop": _POLICY
            + """
import authz403.flask
from flask import Flask
from authz403 import requires, scopes

def create_app():
    app = Flask(__name__, static_folder=None)

    @app.get("/health")
    def health(): ...

    @app.get("/orders/<number>")
    @requires(scopes("orders:read"))
    def read_order(number): ...

    @app.post("/orders")
    @requires(scopes("orders:write"))
    def create_order(): ...

    authz403.flask.init_app(app, gate=gate)
    return app
"""
        },
    ),
    "Django": (
        "shop.wsgi:application",
        {
            "shop__policy": _POLICY,
            "shop__settings": """
SECRET_KEY = "only-for-tests"
ROOT_URLCONF = "shop.urls"
MIDDLEWARE = ["authz403.django.AuthzMiddleware"]
AUTHZ403_GATE = "shop.policy.gate"
""",
            "shop__wsgi": """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
""",
            "shop__urls": """
from django.urls import path
from django.views.decorators.http import require_GET, require_POST
from authz403 import requires, scopes

@require_GET
def health(request): ...

@requires(scopes("orders:read"))
def read_order(request, number): ...

@requires(scopes("orders:write"))
def create_order(request): ...

urlpatterns = [
    path("health", health),
    path("orders/<number>", read_order),
    path("orders", create_order),
]
""",
        },
    ),
}
"""By framework: the name of a guarded app, and the modules that it is written in."""


def run_shop(shop: Commands, framework: str, command: str, *arguments: str) -> Done:
    """Run a command on the shop that is written in this directory."""
    name, _ = SHOPS[framework]
    run = shop.run_apart if framework == "Django" else shop.run
    return run(command, name, *arguments)
