"""The middleware that a walk through a Starlette or FastAPI app saw, and what of it must not stand inside of a gate."""

from __future__ import annotations

from collections.abc import Container, Iterable

from starlette.middleware.cors import CORSMiddleware

from authz403.errors import Mistakes
from authz403.route_objects import apps_beside, router_of


def misplaced(around: Iterable[object], layers: Iterable[object], routers: Container[int]) -> Mistakes:
    """Return a CORSMiddleware inside of the gate, and apps that middleware holds besides the one that it wraps.

    `around` is what was seen around routers, `layers` what was seen around endpoints, `routers` the ids of those that
    were walked.
    """
    mistakes = Mistakes("the app")
    around = tuple(around)
    _check_cors(mistakes, (*around, *layers))
    _check_beside(mistakes, around, routers)
    return mistakes


def _check_cors(mistakes: Mistakes, layers: Iterable[object]) -> None:
    """Note a CORSMiddleware inside the gate."""
    for layer in layers:
        for found in (layer, *(getattr(found, "cls", None) for found in getattr(layer, "user_middleware", ()))):
            kind = found if isinstance(found, type) else type(found)
            if issubclass(kind, CORSMiddleware):
                why = (
                    "it stands inside the gate, so that refusals and preflights never reach it; remove it and give the "
                    "gate cors=Cors(...), or add it after AuthzMiddleware, so that it stands outside"
                )
                mistakes.add("CORSMiddleware", kind.__name__, why)
                return


def _check_beside(mistakes: Mistakes, around: Iterable[object], routers: Container[int]) -> None:
    """Note an app that some middleware holds besides the one that it wraps: nobody can tell when it runs."""
    for layer in around:
        for app in apps_beside(layer):
            router = router_of(app)[0]
            if router is not None and id(router) not in routers:
                why = (
                    f"{type(layer).__name__} holds it besides the app that it wraps, so that its policies would not "
                    "hold; mount it in the app, or put the middleware outside of the gate"
                )
                mistakes.add("app", type(app).__name__, why)
