"""The ways to say whose tokens are good: one function a way."""

from pathlib import Path

from authz403 import BearerTokens, Gate, Principal


def keycloak() -> BearerTokens:
    return BearerTokens(
        issuer="https://sso.example/realms/shop",
        audience="orders-api",
        claims="keycloak",
    )


def keycloak_client_roles() -> BearerTokens:
    return BearerTokens(
        issuer="https://sso.example/realms/shop",
        audience="orders-api",
        claims={"preset": "keycloak", "roles": ["resource_access", "orders-api", "roles"]},
    )


def auth0() -> BearerTokens:
    return BearerTokens(
        issuer="https://shop.eu.auth0.com/",
        audience="https://orders.example",
        claims={"preset": "auth0", "roles": "https://orders.example/roles"},
    )


def entra_id(tenant: str, application: str) -> BearerTokens:
    return BearerTokens(
        issuer=f"https://login.microsoftonline.com/{tenant}/v2.0",
        audience=application,
        claims="entra",
    )


def okta() -> BearerTokens:
    return BearerTokens(
        issuer="https://shop.okta.com/oauth2/default",
        audience="api://default",
        claims="okta",
    )


def cognito(region: str, pool: str, app_clients: list[str]) -> BearerTokens:
    return BearerTokens(
        issuer=f"https://cognito-idp.{region}.amazonaws.com/{pool}",
        audience=app_clients,
        claims="cognito",
    )


def rfc9068() -> BearerTokens:
    return BearerTokens(issuer="https://id.example", audience="orders-api", claims="rfc9068")


def by_discovery() -> BearerTokens:
    return BearerTokens(issuer="https://id.example", audience="orders-api")


def by_jwks_url() -> BearerTokens:
    return BearerTokens(
        issuer="https://id.example",
        audience="orders-api",
        jwks_url="https://id.example/oauth2/keys",
    )


def by_jwks_file(path: Path) -> BearerTokens:
    return BearerTokens(issuer="https://id.example", audience="orders-api", jwks=path)


def by_public_key(pem: str) -> BearerTokens:
    return BearerTokens(issuer="https://id.example", audience="orders-api", key=pem)


def by_secret(secret: str) -> BearerTokens:
    return BearerTokens(issuer="https://id.example", audience="orders-api", key=secret, algorithms=["HS256"])


def several_issuers() -> Gate:
    return Gate(
        tokens=[
            BearerTokens(issuer="https://id.example", audience="orders-api"),
            BearerTokens(
                issuer="https://sso.partner.example/realms/shop",
                audience=["orders-api", "partner-orders"],
                claims="keycloak",
                algorithms=["ES256"],
            ),
        ]
    )


revoked: set[tuple[str, str | None]] = set()  # of issuer and jti; a task of yours keeps it fresh


def is_revoked(principal: Principal) -> bool:
    return (principal.issuer, principal.token_id) in revoked


def with_revocation() -> BearerTokens:
    return BearerTokens(issuer="https://id.example", audience="orders-api", is_revoked=is_revoked)
