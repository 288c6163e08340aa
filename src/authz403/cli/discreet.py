"""A command whose errors quote no token, wherever on the line one was written."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from authz403.audit import harmless_text


class Discreet(click.Command):
    """Shows no text of the command line that looks like a token."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:  # noqa: ANN401 - click's own arguments
        """Read the command line."""
        try:
            return super().make_context(*args, **more)
        except click.ClickException as error:
            _hide(error)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        """Run the command."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            _hide(error)


def _hide(error: click.ClickException) -> NoReturn:
    error.message = "\n".join(harmless_text(line) for line in error.message.splitlines())  # type: ignore[misc]  # click reads it
    raise error
