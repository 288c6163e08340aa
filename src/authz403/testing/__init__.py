"""For tests of apps behind a gate: tokens and clients, callers, and every boundary of a policy.

With pytest, the fixture `authz` is there by itself. Nothing of this is for a service.
"""

from authz403.testing.acting import acting_as
from authz403.testing.cases import BoundaryCase, boundary_cases
from authz403.testing.decisions import Decided, assert_denied, capture_decisions
from authz403.testing.kit import Authz

__all__ = ["Authz", "BoundaryCase", "Decided", "acting_as", "assert_denied", "boundary_cases", "capture_decisions"]
