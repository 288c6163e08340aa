"""The public lists of tricks against path rules, in process: which handler ran decides, never the status."""

import asyncio
from pathlib import Path

import pytest

from tests.apps_made import BODYLESS, Answer, connect
from tests.attacked_app import CALLERS, FULLY, PROTECTED, WHO_MAY, credentials_of, make_app
from tests.attacks_made import Attack, attacks_on, malformed_on
from tests.paths_judged import has_dots, is_ambiguous

pytestmark = pytest.mark.usefixtures("quiet")

on_each_path = pytest.mark.parametrize("path", PROTECTED)


async def told(attacks: list[Attack], caller: str, *, is_guarded: bool) -> list[tuple[Attack, list[str], Answer]]:
    """Return for each attack by a caller which handlers ran, and the answer."""
    ran: list[str] = []
    app = make_app(ran.append, is_guarded=is_guarded)
    found = []
    for attack in attacks:
        scope = attack.scope(credentials_of(caller))
        if scope is not None:
            ran.clear()
            answer = await connect(app, scope, BODYLESS)
            found.append((attack, list(ran), answer))
    return found


@on_each_path
@pytest.mark.parametrize("caller", CALLERS)
def test_no_trick_runs_what_its_caller_may_not(path: str, caller: str, corpora: Path) -> None:
    """Whatever path, method and headers say: what ran is what this caller may run."""
    attacks = [*attacks_on(path, corpora), *malformed_on(path)]
    answers = asyncio.run(told(attacks, caller, is_guarded=True))
    assert len(answers) > 500, "the lists are empty"
    for attack, ran, answer in answers:
        assert [name for name in ran if caller not in WHO_MAY[name]] == [], attack
        assert answer.error is None, attack


@on_each_path
def test_odd_requests_of_who_may_get_the_answer_of_the_bare_app(path: str, corpora: Path) -> None:
    """Odd is not malformed: whoever meets everything has the handler, status, headers and body of the bare app."""
    attacks = [attack for attack in attacks_on(path, corpora) if attack.is_usual]
    compared = 0
    bare = asyncio.run(told(attacks, FULLY, is_guarded=False))
    for (attack, before, answer), (_, ran, behind) in zip(
        bare, asyncio.run(told(attacks, FULLY, is_guarded=True)), strict=True
    ):
        scope = attack.scope(None)
        assert scope is not None
        if is_ambiguous(scope["path"]) or (has_dots(scope["path"]) and "file" not in before):
            assert (ran, behind.status) == ([], 400), attack
        elif attack.method != attack.method.upper():
            assert ran in ([], before), attack
        elif all(FULLY in WHO_MAY[name] for name in before):
            assert ran == before, attack
            assert (behind.status, behind.body) == (answer.status, answer.body), attack
            assert sorted(behind.headers) == sorted(answer.headers), attack
            compared += 1
    assert compared > 50
