"""The transcripts in the docs are what the commands say, run one after the other on the service of the tutorial."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.commands_made import Commands

DOCS: Final = Path(__file__).parent.parent / "docs"
_BLOCK: Final = re.compile(r"^```(console|diff|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND: Final = re.compile(r"^\$ (.+)\n", re.MULTILINE)


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Yield the blocks of a page that are to be followed."""
    yield from _BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def followed(shop: Commands, line: str) -> tuple[int, str]:
    """Do what a line of a transcript does, and return the status and what is seen."""
    line, _, redirected = line.partition(" > ")
    command, *arguments = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
    if command == "cat":
        return 0, Path(arguments[0]).read_text(encoding="utf-8")
    assert command == "authz403"
    done = shop.run(*arguments)
    return done.status, (done.errors if redirected else done.output + done.errors)


@pytest.mark.parametrize("page", ["how-to/review-policy-changes.md", "reference/command-line.md"])
def test_transcripts_are_real(shop: Commands, page: str) -> None:
    """What a diff shows is done, what is shown as JSON is the file of claims, and each command says what is shown."""
    shop.write(shop=(DOCS / "examples" / "tutorial.py").read_text(encoding="utf-8"))
    ran = 0
    for kind, text in steps(page):
        if kind == "json":
            Path("claims.json").write_text(text, encoding="utf-8")
        elif kind == "diff":
            old, new = (re.search(rf"^\{sign}(.+)$", text, re.MULTILINE) for sign in "-+")
            assert old is not None
            assert new is not None
            shop.replace("shop", old[1], new[1])
        else:
            _, *parts = _COMMAND.split(text)
            for line, shown in zip(parts[::2], parts[1::2], strict=True):
                ran += 1
                _, said = followed(shop, line)
                if shown:
                    assert said == shown, line
    assert ran >= 3


def test_the_pull_request_of_the_page_fails(shop: Commands) -> None:
    """The check that the page shows exits with 1, and with 0 once the file is written anew."""
    shop.write(shop=(DOCS / "examples" / "tutorial.py").read_text(encoding="utf-8"))
    assert shop.run("lock", "shop:app").status == 0
    shop.replace("shop", 'scopes("orders:read", "orders:write")', 'scopes("orders:write")')
    assert shop.run("lock", "shop:app", "--check").status == 1
    assert shop.run("lock", "shop:app").status == 0
    assert shop.run("lock", "shop:app", "--check").status == 0
