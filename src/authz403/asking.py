"""The routes of an app, asked about a request that nobody sent. Frameworks are loaded by those who use them."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from authz403.endpoint import RULES_ALONE, Asked, Routes, Walked
from authz403.errors import Mistakes
from authz403.request import WEBSOCKET, AccessRequest


class Routed(NamedTuple):
    """The routes of an app, the walk that found them, and what makes of a request what they are asked about.

    `root_path` is the path that the app itself says that it is mounted at.
    """

    routes: Routes[Any]
    walk: Walked | None
    native: Callable[[AccessRequest], Any]
    root_path: str = ""


def routed(app: object) -> Routed:
    """Return the routes of an app as the enforcement points ask them, with nothing put into it; of no app, rules alone.

    Raises `ConfigurationError` for an app whose routes cannot be found or asked.
    """
    found = _routed(app)
    if found.walk is not None:
        found.walk.mistakes.raise_if_any()
    return found


def _routed(app: object) -> Routed:
    if app is None:
        return Routed(RULES_ALONE, None, lambda _: None)
    # Frameworks are loaded by those who use them.
    frameworks = {kind.__module__.partition(".")[0] for kind in type(app).__mro__}
    if "flask" in frameworks:
        from authz403.flask_routes import FlaskRoutes  # noqa: PLC0415

        by_map = FlaskRoutes(app)  # type: ignore[arg-type]  # an app by its class
        return Routed(by_map, by_map.walk, lambda request: Asked(environ_of(request), request.path, []))
    if "django" in frameworks:
        from authz403.django_routes import DjangoRoutes, request_of  # noqa: PLC0415

        resolved = DjangoRoutes()
        return Routed(resolved, resolved.walk, lambda request: Asked(request_of(environ_of(request)), request.path, []))
    from authz403.route_objects import router_of  # noqa: PLC0415
    from authz403.walk import AppRoutes  # noqa: PLC0415

    router, root_path = router_of(app)
    if router is None:
        mistakes = Mistakes("the app")
        why = "its routes cannot be found; give the app of Starlette, FastAPI, Flask or Django itself"
        mistakes.add("app", type(app).__name__, why)
        mistakes.raise_if_any()
    by_router = AppRoutes(app, None)  # type: ignore[arg-type]  # whatever has a router is an app
    return Routed(
        by_router, by_router.walk, lambda request: (scope_of(request, root_path), [], request.path), root_path
    )


def scope_of(request: AccessRequest, root_path: str = "") -> dict[str, Any]:
    """Return the ASGI 3 scope of a request to an app that is mounted at `root_path`."""
    path = root_path + request.path
    scope: dict[str, Any] = {
        "type": "websocket" if request.method == WEBSOCKET else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if request.method == WEBSOCKET else "http",
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": b"",
        "root_path": root_path,
        "headers": [
            (name.encode("latin-1"), line.encode("latin-1", "replace"))
            for name, lines in request.fields.items()
            for line in lines
        ],
        "client": None if request.peer is None else (request.peer, 0 if request.peer_rewritten else 50_000),
        "server": ("localhost", 80),
    }
    return {**scope, "subprotocols": []} if request.method == WEBSOCKET else {**scope, "method": request.method}


def environ_of(request: AccessRequest) -> dict[str, Any]:
    """Return the environ of a request (PEP 3333), the lines of each header joined as servers do."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode("utf-8", "replace").decode("latin-1"),
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if request.peer is not None:
        environ["REMOTE_ADDR"] = request.peer
    for name, lines in request.fields.items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = ",".join(lines)
    return environ
