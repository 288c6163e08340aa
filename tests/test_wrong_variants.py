"""The suite catches the mistakes of `wrong_variants.py`: each is made in a copy of the package, and a test fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.wrong_variants import VARIANTS, Variant

ROOT: Final = Path(__file__).parent.parent
# Of a run's environment: its options and plugins, the law that skips fail, and that no bytecode is kept, which would
# make every run read the test files anew and take twice as long.
LEFT_OUT: Final = re.compile(r"PYTEST_.*|AUTHZ403_REQUIRE_ALL|PYTHONDONTWRITEBYTECODE")
ONE_FAILED: Final = re.compile(r"^=+ 1 failed(, [0-9]+ passed)? in [0-9.]+s =+$", re.MULTILINE)


def copy_in(folder: Path) -> Path:
    """Return a copy of the package in this folder."""
    return shutil.copytree(ROOT / "src" / "authz403", folder / "authz403", ignore=shutil.ignore_patterns("__pycache__"))


def run_on(package: Path, *tests: str) -> tuple[int, str]:
    """Run tests of the suite on a copy of the package; return the exit code, and what was said."""
    environment = {name: value for name, value in os.environ.items() if LEFT_OUT.fullmatch(name) is None}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package.parent), environment.get("PYTHONPATH")]))
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they take half a second to load
    options = ["-x", "--color=no", "-p", "no:cacheprovider", "-p", "authz403_pytest"]
    options += ["--override-ini", "addopts=--import-mode=importlib"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = done.stdout + done.stderr
    assert f"authz403 from {package}\n" in told, told
    return done.returncode, told


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_suite_catches_a_gate_that(variant: Variant, tmp_path: Path) -> None:
    """With the mistake in it, a test that is named for it fails: not an error, but a broken promise."""
    package = copy_in(tmp_path)
    file = package / variant.file
    right = file.read_text(encoding="utf-8")
    assert right.count(variant.old) == 1, f"the variant is stale: {variant.old!r} is not once in {variant.file}"
    file.write_text(right.replace(variant.old, variant.new), encoding="utf-8")

    code, told = run_on(package, *variant.tests)

    assert code == pytest.ExitCode.TESTS_FAILED, told
    assert ONE_FAILED.search(told), told


def test_without_a_mistake_the_same_tests_pass(tmp_path: Path) -> None:
    """It is the mistakes that are caught, not that a copy is tested."""
    code, told = run_on(copy_in(tmp_path), *dict.fromkeys(test for variant in VARIANTS for test in variant.tests))

    assert code == pytest.ExitCode.OK, told
