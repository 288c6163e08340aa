import pytest
from policy_tests.fastapi_service import app

from authz403.testing import Authz, BoundaryCase, boundary_cases


@pytest.mark.parametrize("case", boundary_cases(app), ids=str)
def test_every_boundary_holds(authz: Authz, case: BoundaryCase) -> None:
    authz.check(case)
