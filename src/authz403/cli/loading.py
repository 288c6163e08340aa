"""The app that a command is about, loaded by its name and never started."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from authz403 import ConfigurationError
from authz403.guarded import Guarded, guarded

Command = TypeVar("Command", bound=Callable[..., Any])

_DJANGO: Final = "DJANGO_SETTINGS_MODULE"
_USUAL: Final = ("app", "application")
_FORM: Final = "write module:attribute, such as shop.main:app"


class Failure(click.ClickException):
    """Wrong usage or a broken configuration, told without a traceback; exits with 2."""

    exit_code = 2


def takes_app(command: Command) -> Command:
    """Give a command the argument APP and the option `--factory`, for `load` and `load_guarded`."""
    factory = click.option("--factory", is_flag=True, help="APP names a function that makes the app.")
    return click.argument("app", required=False)(factory(command))


def load_guarded(name: str | None, *, factory: bool = False) -> Guarded:
    """Load an app and find the gate before it; raises `Failure` with every mistake where that fails."""
    app = load(name, factory=factory)
    with _told(name or os.environ.get(_DJANGO, ""), "finding its gate"):
        return guarded(app)


def load(name: str | None, *, factory: bool = False) -> object:
    """Return the app that `name` tells: `module:attribute`, `module:make_app()`, or `module` alone for its `app`.

    With `factory`, the attribute is called. Without a name, the Django project of `DJANGO_SETTINGS_MODULE` is made. The
    current directory is importable; what the app prints goes to stderr; no lifespan starts. Raises `Failure`, which
    says in one line what is wrong.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if name is None:
        return _django_project()
    module, colon, attribute = name.partition(":")
    called = attribute.removesuffix("()")
    if not all(part.isidentifier() for part in (*module.split("."), *(called.split(".") if colon else ()))):
        raise Failure(f"{name!r} does not name an app: {_FORM}")
    found = _imported(module)
    found = _usual(found, module) if not attribute else _attribute(found, module, called)
    if factory or called != attribute:
        return _made(found, name)
    if inspect.isfunction(found) and not _needs_arguments(found):
        raise Failure(f"{name} is a function that makes an app: write {name}() or say --factory")
    return found


def _django_project() -> object:
    if not os.environ.get(_DJANGO):
        raise Failure(f"which app? {_FORM}; or set {_DJANGO}")
    with _told(os.environ[_DJANGO], "making the project"):
        from django.core.wsgi import get_wsgi_application  # noqa: PLC0415 - only where a Django project is meant

        return get_wsgi_application()


def _imported(module: str) -> object:
    with _told(module, "importing it"):
        return importlib.import_module(module)


def _usual(module: object, name: str) -> object:
    for usual in _USUAL:
        if hasattr(module, usual):
            return getattr(module, usual)
    raise Failure(f"{name} has neither app nor application: {_FORM}")


def _attribute(module: object, name: str, attribute: str) -> object:
    try:
        return functools.reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        raise Failure(f"{name} has no {attribute}: {error}") from error


def _made(factory: object, name: str) -> object:
    if not callable(factory):
        raise Failure(f"{name} is no function, so it cannot make an app")
    if inspect.iscoroutinefunction(factory):
        raise Failure(f"{name} is an async function: make the app in a plain one")
    if _needs_arguments(factory):
        raise Failure(f"{name} needs arguments: give a function that makes the app without any")
    with _told(name, "calling it"):
        return factory()


def _needs_arguments(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:
        return False  # some builtins do not tell
    return False


@contextlib.contextmanager
def _told(name: str, doing: str) -> Iterator[None]:
    """Run code of the app's: what it prints goes to stderr, and what it raises is told in a line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except ConfigurationError as error:
        raise Failure(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise Failure(f"there is no module {error.name} here, in {Path.cwd()}, or installed") from error
        raise Failure(f"{name}: {doing} raised {_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise Failure(f"{name}: {doing} raised {_line(error)}") from error


def _line(error: BaseException) -> str:
    """Return an exception in one line, with the line of the user's own code that it came out of."""
    text = " ".join(str(error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(Path.cwd())]
    at = (own or frames)[-1:]
    place = "".join(f" ({_shown(frame.filename)}:{frame.lineno})" for frame in at)
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"


def _shown(filename: str) -> str:
    path = Path(filename)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
