"""Django projects for tests: settings for the whole process, and one handler a project, made and asked in its own.

>>> app = DjangoApp([path("orders/<owner>", view)], gate)  # a WSGI app
>>> asgi = DjangoApp([path("orders/<owner>", view)], gate).asgi
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

if not settings.configured:
    settings.configure(
        SECRET_KEY="only-for-tests-0123456789abcdef",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="tests.django_made",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        USE_TZ=True,
        LOGGING_CONFIG=None,
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": []}],
    )
    django.setup()

OURS = "authz403.django.AuthzMiddleware"
urlpatterns: list[Any] = []


class Project:
    """A URLconf with its error pages, as a module of a project is one."""

    def __init__(self, urlpatterns: Sequence[Any], **pages: object) -> None:
        self.urlpatterns = list(urlpatterns)
        vars(self).update(pages)


class DjangoApp:
    """A project behind its gate: a WSGI app, and an ASGI app."""

    def __init__(
        self, urls: Sequence[Any] | Project, gate: object, *, middleware: Iterable[str] = (OURS,), **more: object
    ) -> None:
        urlconf = urls if isinstance(urls, Project) else Project(urls)
        self.settings = {"ROOT_URLCONF": urlconf, "AUTHZ403_GATE": gate, "MIDDLEWARE": list(middleware), **more}
        with override_settings(**self.settings):
            self._handler = WSGIHandler()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - as PEP 3333 has it
        """Serve one request by WSGI."""
        with override_settings(**self.settings):
            return self._handler(environ, start_response)

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request by ASGI."""

        async def receive_on() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                await asyncio.Event().wait()  # Django stops where a client has gone
            return message

        with override_settings(**self.settings):
            await ASGIHandler()(scope, receive_on, send)  # type: ignore[arg-type]  # ASGI as Starlette types it
