"""The pytest plugin of authz403: the fixture `authz`.

A package of its own, as pytest imports plugins at every start, and importing authz403 would slow down the tests of
those who do not use it, and hide the package from coverage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from authz403.testing import Authz


@pytest.fixture
def authz() -> Iterator[Authz]:
    """Give tokens and clients for apps behind a gate, which trust them until the test ends; see `authz403.testing`."""
    from authz403.testing import Authz  # noqa: PLC0415 - only for tests that ask for it

    with Authz() as kit:
        yield kit
