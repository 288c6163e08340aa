"""The commands. Each says in its help what it does and with which status it exits."""

from __future__ import annotations

import sys

import click

from authz403 import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="authz403")
def authz403() -> None:
    """Guard ASGI apps, and say why a request is refused."""


@authz403.command()
@click.option("--serve", is_flag=True, help="Stay up, and print curl lines with working tokens.")
def demo(*, serve: bool) -> None:
    """Run a guarded orders service on this machine and show what it answers, call by call.

    Starts a token issuer and a FastAPI service on 127.0.0.1, calls the service over HTTP and prints what was asked,
    what came back and what to do about it. Exits with 0 if every answer was the expected one, else with 1.

    \b
    Examples:
      authz403 demo
      authz403 demo --serve
    """  # noqa: D301 - \b is click's mark for a paragraph that is not to be wrapped
    try:
        from authz403.cli.demo import run, serve_until_interrupted  # noqa: PLC0415 - it needs FastAPI, uvicorn and websockets
    except ModuleNotFoundError as error:
        sys.exit(f"authz403: the demo needs {error.name}: pip install 'authz403[demo]' (in a checkout: make demo)")
    if serve:
        serve_until_interrupted()
    else:
        sys.exit(0 if run() else 1)
