"""The ways to say whose tokens are good: one function a way."""

from pathlib import Path

from authz403 import BearerTokens, Gate


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


def keycloak() -> BearerTokens:
    return BearerTokens(
        issuer="https://sso.example/realms/shop",
        audience="orders-api",
        claims={"roles": ["realm_access", "roles"]},
    )


def cognito_groups() -> BearerTokens:
    return BearerTokens(
        issuer="https://id.example/eu-central-1_a1b2c3",
        audience="orders-api",
        claims={"roles": "cognito:groups"},
    )


def namespaced_roles() -> BearerTokens:
    return BearerTokens(
        issuer="https://shop.id.example/",
        audience="https://orders.example",
        realm="orders",
        claims={"roles": "https://orders.example/roles"},
    )


def several_issuers() -> Gate:
    return Gate(
        tokens=[
            BearerTokens(issuer="https://id.example", audience="orders-api"),
            BearerTokens(
                issuer="https://sso.partner.example/realms/shop",
                audience=["orders-api", "partner-orders"],
                claims={"roles": ["realm_access", "roles"]},
                algorithms=["ES256"],
            ),
        ]
    )
