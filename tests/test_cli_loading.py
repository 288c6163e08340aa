"""The app that a command is about, as its user names it."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from authz403.cli.loading import load, load_guarded
from tests.commands_made import Commands

SHOP = """
from contextlib import asynccontextmanager
from types import SimpleNamespace
from starlette.applications import Starlette
from starlette.routing import Route
from authz403 import Gate
from authz403.asgi import AuthzMiddleware

@asynccontextmanager
async def lifespan(app):
    raise SystemExit("the lifespan has started")
    yield

async def home(request):
    raise NotImplementedError

app = Starlette(routes=[Route("/", home)], lifespan=lifespan)
app.add_middleware(AuthzMiddleware, gate=Gate())
bare = Starlette()
holder = SimpleNamespace(inner=SimpleNamespace(app=app, make=lambda: app))
number = 5

def make_app():
    print("making the app")
    return app

async def make_later():
    return app

def make_for(tenant):
    return app

def break_down():
    raise ValueError("two\\nlines")
"""


@pytest.mark.parametrize(
    ("name", "factory"),
    [
        ("loaded_shop", False),
        ("loaded_shop:app", False),
        ("loaded_shop:holder.inner.app", False),
        ("loaded_shop:make_app()", False),
        ("loaded_shop:make_app", True),
        ("loaded_shop:holder.inner.make()", False),
    ],
)
def test_an_app_is_found_by_its_name(
    shop: Commands, capsys: pytest.CaptureFixture[str], name: str, *, factory: bool
) -> None:
    """Modules of the current directory, dotted attributes and factories; what is printed leaves the output alone."""
    shop.write(loaded_shop=SHOP)
    found = load_guarded(name, factory=factory)
    assert found.app is sys.modules["loaded_shop"].app
    assert load(name, factory=factory) is found.entry
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("loaded_shop:", "does not name an app: write module:attribute"),
        ("loaded_shop.py:app", "there is no module loaded_shop.py here"),
        ("loaded/shop:app", "does not name an app: write module:attribute"),
        ("loaded_shop:app[0]", "does not name an app: write module:attribute"),
        ("loaded_nothing:app", "there is no module loaded_nothing here"),
        ("loaded_empty", "has neither app nor application"),
        ("loaded_shop:missing", "loaded_shop has no missing"),
        ("loaded_shop:holder.app.missing", "loaded_shop has no holder.app.missing"),
        ("loaded_shop:make_app", r"is a function that makes an app: write loaded_shop:make_app\(\) or say --factory"),
        ("loaded_shop:make_later()", "is an async function"),
        ("loaded_shop:make_for()", "needs arguments"),
        ("loaded_shop:number()", "is no function"),
        (
            "loaded_shop:break_down()",
            r"calling it raised ValueError: two lines \(loaded_shop.py:\d+\)",
        ),
        ("loaded_shop:bare", "no gate stands before it"),
        ("loaded_lacking:app", "loaded_lacking: importing it raised ModuleNotFoundError: No module named"),
        ("loaded_leaving:app", r"loaded_leaving: importing it raised SystemExit: bye \(loaded_leaving.py:1\)"),
        ("loaded_wrong:app", "Network cannot work as configured"),
        (None, "which app"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_one_line(shop: Commands, name: str | None, told: str) -> None:
    """The status is 2, as for any wrong use; where the app itself failed, the line says where."""
    shop.write(
        loaded_shop=SHOP,
        loaded_empty="",
        loaded_lacking="import loaded_gone",
        loaded_leaving="raise SystemExit('bye')",
        loaded_wrong="from authz403 import Network\nNetwork(trusted_proxies=['10.0.0.1/8', 'x'])",
    )
    with pytest.raises(click.ClickException, match=told) as failed:
        load_guarded(name)
    assert failed.value.exit_code == 2
    lines = failed.value.message.splitlines()
    assert all(line.startswith("  - ") for line in lines[1:])


@pytest.mark.parametrize("named", [True, False], ids=["by its application", "by its settings"])
def test_a_django_project_is_found(shop: Commands, *, named: bool) -> None:
    """A project is named by what serves it, or by its settings as for any of Django's own commands."""
    shop.write(
        project__settings="""
            SECRET_KEY = "only-for-tests"
            ROOT_URLCONF = "project.urls"
            MIDDLEWARE = ["authz403.django.AuthzMiddleware"]
            AUTHZ403_GATE = "project.urls.gate"
        """,
        project__urls="""
            from django.urls import path
            from authz403 import Gate
            gate = Gate()
            urlpatterns = [path("orders", lambda request: None)]
        """,
        project__wsgi="""
            import os
            from django.core.wsgi import get_wsgi_application
            os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
            application = get_wsgi_application()
        """,
    )
    where = "project.wsgi:application" if named else None
    program = f"""
from authz403.cli.loading import load_guarded
found = load_guarded({where!r})
print(found.kind, *(row.path for row in found.gate.coverage(found.app)))
"""
    environment = {} if named else {"DJANGO_SETTINGS_MODULE": "project.settings"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=shop.directory, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["wsgi", "/orders"], done.stderr
