"""The command line: `authz403`, or `python -m authz403`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exits with a status."""
    try:
        from authz403.cli.commands import authz403  # noqa: PLC0415 - click is an extra, and says so when it is missing
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("authz403: the command line needs click: pip install 'authz403[cli]' (in a checkout: make demo)")
    authz403()
