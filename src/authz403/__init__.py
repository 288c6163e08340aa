"""Drop-in authorization for ASGI apps: scopes, roles and networks, with refusals that say why."""

from authz403.address_file import AddressFile
from authz403.addresses import AddressSet
from authz403.checks import check
from authz403.cors import Cors
from authz403.csrf import csrf_protected
from authz403.decision import Decision, Denial
from authz403.errors import AccessDenied, ConfigurationError
from authz403.gate import Gate
from authz403.marks import guard, public, requires
from authz403.network import Network
from authz403.policy import Requirement, anyone, deny
from authz403.principal import Principal
from authz403.rbac import Rbac
from authz403.reasons import Reason
from authz403.requirements import (
    any_permission,
    any_role,
    any_scope,
    authenticated,
    claim,
    networks,
    optional,
    param,
    permissions,
    requirement,
    roles,
    scopes,
)
from authz403.rules import Rule
from authz403.tokens import BearerTokens

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "AddressFile",
    "AddressSet",
    "BearerTokens",
    "ConfigurationError",
    "Cors",
    "Decision",
    "Denial",
    "Gate",
    "Network",
    "Principal",
    "Rbac",
    "Reason",
    "Requirement",
    "Rule",
    "any_permission",
    "any_role",
    "any_scope",
    "anyone",
    "authenticated",
    "check",
    "claim",
    "csrf_protected",
    "deny",
    "guard",
    "networks",
    "optional",
    "param",
    "permissions",
    "public",
    "requirement",
    "requires",
    "roles",
    "scopes",
]
