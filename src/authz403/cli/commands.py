"""The commands. Each says in its help what it does and with which status it exits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz403 import __version__
from authz403.cli.discreet import Discreet
from authz403.cli.loading import load, load_guarded, takes_app

if TYPE_CHECKING:
    from authz403.cli.routes import Format


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="authz403")
def authz403() -> None:
    """Guard ASGI and WSGI apps, and say why a request is refused.

    APP is module:attribute, such as shop.main:app; a function that makes it, as shop.main:make_app() or by --factory;
    or left out for the Django project of DJANGO_SETTINGS_MODULE. Modules of the current directory are found. No command
    starts the app's lifespan, and what the app prints goes to stderr. Exits with 2 for wrong usage or configuration.
    """


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


@authz403.command()
@takes_app
@click.option("--format", "form", type=click.Choice(["table", "json", "markdown"]), default="table", show_default=True)
@click.option("--fail-on-default", is_flag=True, help="Exit with 1 where nobody wrote a policy, or no gate stands.")
def routes(*, app: str | None, factory: bool, form: Format, fail_on_default: bool) -> None:
    """Show every endpoint of APP with its policy, and where that is written.

    What nobody wrote a policy for, and what no gate stands before, is marked with an exclamation mark. Exits with 0;
    with --fail-on-default with 1 where there is such an endpoint, which it names.

    \b
    Examples:
      authz403 routes shop.main:app
      authz403 routes 'shop:create_app()' --fail-on-default
      authz403 routes shop.main:app --format markdown > routes.md
      DJANGO_SETTINGS_MODULE=shop.settings authz403 routes
    """  # noqa: D301 - as above
    from authz403.cli.routes import rows_of, shown  # noqa: PLC0415 - each command loads what it needs

    rows = rows_of(load(app, factory=factory))
    click.echo(shown(rows, form))
    forgotten = [row.name for row in rows if row.is_default or not row.has_gate]
    if fail_on_default and forgotten:
        click.echo(f"nobody wrote a policy, or no gate stands before: {', '.join(forgotten)}", err=True)
        sys.exit(1)


@authz403.command()
@takes_app
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), default="authz.lock", show_default=True)
@click.option("--check", "checks", is_flag=True, help="Compare APP with the file, and write nothing.")
@click.option(
    "--claims",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Say which endpoints a token with the claims of this JSON file reaches, and write nothing.",
)
@click.option(
    "--must-reach",
    multiple=True,
    metavar="REQUEST|FILE",
    help="With --claims: a request such as 'GET /orders/5', or a file of them, that must be reached.",
)
def lock(
    *, app: str | None, factory: bool, file: Path, checks: bool, claims: Path | None, must_reach: tuple[str, ...]
) -> None:
    """Write the policy of APP to a file for review, or tell how APP differs from it.

    The file has a line for each endpoint. With --check, each difference is told: loosened and tightened where that is
    proven, changed where it is not, moved, new, removed. Commit the file, and check it in CI.

    Exits with 0; with 1 where APP and the file differ, or where --must-reach names what is not reached.

    \b
    Examples:
      authz403 lock shop.main:app
      authz403 lock shop.main:app --check
      authz403 lock shop.main:app --claims claims.json
      authz403 lock shop.main:app --claims claims.json --must-reach 'POST /orders' --must-reach calls.txt
    """  # noqa: D301 - as above
    from authz403.cli.lock import check, prove, write  # noqa: PLC0415 - as above

    if must_reach and claims is None:
        raise click.UsageError("--must-reach needs --claims")
    found = load_guarded(app, factory=factory)
    is_fine = True
    if checks:
        named = "" if app is None else f" {app if app.isascii() and '(' not in app else repr(app)}"
        more = f"{' --factory' if factory else ''}{'' if str(file) == 'authz.lock' else f' --file {file}'}"
        is_fine = check(found, file, f"`authz403 lock{named}{more}`")
    if claims is not None:
        is_fine = prove(found, claims, must_reach) and is_fine
    if not checks and claims is None:
        write(found, file)
    sys.exit(0 if is_fine else 1)


@authz403.command(cls=Discreet)
@click.argument("asked", nargs=-1, metavar="[APP] METHOD PATH")
@click.option("--factory", is_flag=True, help="APP names a function that makes the app.")
@click.option("--token", metavar="TOKEN|-", help="The token; - reads it from stdin, which no list of processes shows.")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="A file with the token.")
@click.option("--token-env", metavar="NAME", help="The variable of the environment that holds the token.")
@click.option("--address", metavar="ADDRESS", help="Where the connection comes from.")
@click.option("--origin", metavar="ORIGIN", help="The Origin header.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="One more header; may be repeated.")
@click.option("--at", metavar="TIME", help="Decide as at that time: seconds since the epoch, or ISO 8601.")
@click.option("--unverified", is_flag=True, help="Believe the token's claims without looking at its signature.")
@click.option("--event", is_flag=True, help="Explain the event in a line of the log on stdin; leave METHOD PATH out.")
@click.option("--json", "as_object", is_flag=True, help="Print an object of JSON.")
def explain(
    *,
    asked: tuple[str, ...],
    factory: bool,
    token: str | None,
    token_file: Path | None,
    token_env: str | None,
    address: str | None,
    origin: str | None,
    headers: tuple[str, ...],
    at: str | None,
    unverified: bool,
    event: bool,
    as_object: bool,
) -> None:
    """Say why APP refuses a request, or lets it in: route, policy, caller, every check, and what to do.

    The decision is the gate's own. Nothing of the app runs, and the token is shown nowhere. METHOD is WEBSOCKET for a
    handshake. Keys are fetched where they would be; --unverified needs none, and says loudly that it proves nothing.

    Exits with 0 if the request is allowed, with 1 if it is refused.

    \b
    Examples:
      authz403 explain shop.main:app POST /orders --token-env TOKEN
      pbpaste | authz403 explain shop.main:app POST /orders --token - --unverified
      authz403 explain shop.main:app GET /admin --address 203.0.113.7 --json
      authz403 explain shop.main:app OPTIONS /orders --origin https://app.example \\
          --header 'Access-Control-Request-Method: POST'
      grep 01JDX3Q8Z6M4T7V2K9C5R1B0NA service.log | authz403 explain --event
    """  # noqa: D301 - as above
    from authz403.cli.explain import Given, as_json, as_text, explained, hidden, moment_given, token_given  # noqa: PLC0415 - as above
    from authz403.cli.log_lines import event_given, explained_event  # noqa: PLC0415 - as above

    if event:
        if len(asked) > 1:
            raise click.UsageError("--event takes the request from the log: leave METHOD and PATH out")
        sent = None
        told = explained_event(event_given(), load_guarded(asked[0], factory=factory) if asked else None)
    else:
        if len(asked) not in {2, 3}:
            raise click.UsageError("say METHOD and PATH, and before them APP (see --help)")
        *name, method, path = asked
        sent = token_given(token, token_file, token_env)
        given = Given(
            method,
            path,
            token=sent,
            address=address,
            origin=origin,
            headers=headers,
            at=None if at is None else moment_given(at),
            is_unverified=unverified,
        )
        told = explained(load_guarded(name[0] if name else None, factory=factory), given)
    click.echo(hidden(as_json(told) if as_object else as_text(told), sent))
    sys.exit(0 if told.allowed else 1)


@authz403.command()
@click.argument("code", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json-schema"]), default="text", show_default=True)
def reasons(*, code: str | None, form: str) -> None:
    """Say what CODE means, who can cure it, and what a client should do; without CODE, list all reasons.

    With --format json-schema, print a JSON Schema of the body of a refusal, for clients in other languages. Exits with
    0, or with 2 for a code that is none.

    \b
    Examples:
      authz403 reasons
      authz403 reasons insufficient_scope
      authz403 reasons --format json-schema > denial.schema.json
    """  # noqa: D301 - as above
    from authz403.cli.reasons import json_schema, table, told  # noqa: PLC0415 - as above

    if form == "json-schema" and code is not None:
        raise click.UsageError("the JSON Schema is of all reasons: leave CODE out")
    click.echo(json_schema() if form == "json-schema" else table() if code is None else told(code))
