"""What every test shares: Hypothesis profiles, the folder of public test vectors, and the law: no skip is silent."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.commands_made import Commands

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

ROOT = Path(__file__).parent.parent
REQUIRE_ALL = os.environ.get("AUTHZ403_REQUIRE_ALL") == "1"

# No deadline: a slow machine is not a bug. CI repeats the same examples, so that it only fails for what was changed.
settings.register_profile("default", max_examples=100, deadline=None, derandomize=bool(os.environ.get("CI")))
settings.register_profile("many", settings.get_profile("default"), max_examples=1_000, derandomize=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5_000)
settings.load_profile("default")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """Return the folder of public test vectors that AUTHZ403_CORPORA names, relative to the repository or absolute."""
    value = os.environ.get("AUTHZ403_CORPORA")
    if not value:
        pytest.skip("needs public test vectors: set AUTHZ403_CORPORA to their folder")
    folder = ROOT / value
    if not folder.is_dir():
        pytest.fail(f"AUTHZ403_CORPORA={value} is not a folder", pytrace=False)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _both_ways() -> Iterator[None]:
    """Hold the short way of every request to the long one."""
    from authz403.short_way import ShortWay  # noqa: PLC0415 - not before coverage is measured
    from tests.both_ways import checked  # noqa: PLC0415 - as above

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShortWay, "outcome", checked(ShortWay.outcome))
        yield


@pytest.fixture(scope="module")
def quiet() -> Iterator[None]:
    """Keep thousands of refusals out of the report of a failure."""
    logger = logging.getLogger("authz403")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """Give an empty current directory, from which commands run."""
    from tests.commands_made import Commands  # noqa: PLC0415 - not before coverage is measured

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    commands = Commands(tmp_path)
    yield commands
    commands.forget()


def pytest_report_header() -> str:
    """Say which package is tested."""
    import authz403  # noqa: PLC0415 - not before coverage is measured

    return f"authz403 from {Path(authz403.__file__).parent}"


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _refuse_skip(report: Report) -> Report:
    expected_failure = hasattr(report, "wasxfail")
    if REQUIRE_ALL and report.skipped and not expected_failure:
        reason = _reason(report)
        report.outcome = "failed"
        report.longrepr = f"skipped, and AUTHZ403_REQUIRE_ALL=1 allows no skip: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one where everything is required."""
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped test file into a failed one where everything is required."""
    return _refuse_skip((yield))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every skipped test and what it needs."""
    skipped = terminalreporter.getreports("skipped")
    if skipped:
        terminalreporter.section("skipped here (AUTHZ403_REQUIRE_ALL=1 makes each a failure)")
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {_reason(report)}")
