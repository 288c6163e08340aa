"""An app and the gate before it, found from the outside: for the command line and for tests."""

from __future__ import annotations

import sys
from typing import Any, Literal, NamedTuple, cast

from authz403 import asgi, wsgi
from authz403.errors import Mistakes
from authz403.gate import Gate
from authz403.route_objects import layers


class Guarded(NamedTuple):
    """An app with the gate before it.

    `app` is what `Gate.coverage` reads, or `None` where the gate knows its rules alone. `entry` is what serves requests
    with the gate before it, by the interface that `kind` names.
    """

    gate: Gate
    app: object
    entry: Any
    kind: Literal["asgi", "wsgi"]


def guarded(app: object) -> Guarded:
    """Find the gate of an app: of Starlette, FastAPI, Flask or Django, or of what is wrapped in `AuthzMiddleware`.

    Nothing runs, no lifespan starts, and the app is not changed. Raises `ConfigurationError` where no gate is found.
    """
    found = guarded_or_none(app)
    if found is not None:
        return found
    mistakes = Mistakes("the app")
    mistakes.add(
        "app", type(app).__name__, "no gate stands before it: add AuthzMiddleware, or give the app that it wraps"
    )
    mistakes.raise_if_any()
    raise AssertionError


def guarded_or_none(app: object) -> Guarded | None:
    """Find the gate of an app as `guarded` does; `None` where none stands before it."""
    for layer in layers(app):
        found = _middleware(layer, app) or _flask(layer, app) or _django(layer)
        if found is not None:
            return found
    return _added(app)


def _middleware(layer: object, entry: object) -> Guarded | None:
    """Return what an app is guarded by that somebody wrapped."""
    if isinstance(layer, asgi.AuthzMiddleware):
        return Guarded(layer.gate, layer.routed, entry, "asgi")
    if isinstance(layer, wsgi.AuthzMiddleware):
        return Guarded(layer.gate, _flask_app(layer.app), entry, "wsgi")
    return None


def _added(app: object) -> Guarded | None:
    """Return what a Starlette or FastAPI app is guarded by that was told to add it."""
    for layer in layers(app):
        for added in getattr(layer, "user_middleware", ()):
            if isinstance(added.cls, type) and issubclass(added.cls, asgi.AuthzMiddleware):
                # It wraps the router when the app starts; until then, it is what was asked for.
                made = added.cls(cast("Any", layer), *added.args, **added.kwargs)
                return Guarded(made.gate, made.routed, app, "asgi")
    return None


def _flask(layer: object, entry: object) -> Guarded | None:
    middleware = getattr(layer, "extensions", {}).get("authz403") if _is_of("flask", layer) else None
    if isinstance(middleware, wsgi.AuthzMiddleware):
        return Guarded(middleware.gate, layer, entry, "wsgi")
    return None


def _flask_app(app: object) -> object:
    """Return the Flask app whose `wsgi_app` a middleware wraps, or nothing where only rules hold."""
    own = getattr(app, "__self__", None)
    return own if _is_of("flask", own) else None


def _django(layer: object) -> Guarded | None:
    if not _is_of("django", layer):
        return None
    from authz403.django import configured, is_installed  # noqa: PLC0415 - the app has loaded Django

    if not is_installed():
        return None
    gate, _ = configured()
    kind: Literal["asgi", "wsgi"] = "asgi" if "asgi" in type(layer).__module__ else "wsgi"
    return Guarded(gate, layer, layer, kind)


def _is_of(framework: str, app: object) -> bool:
    """Tell whether an app is one of a framework, which is loaded then."""
    return framework in sys.modules and any(
        kind.__module__.partition(".")[0] == framework for kind in type(app).__mro__
    )
