"""Prints a token for trying out: python make_token.py alice orders:read --role admin."""

import argparse
import time

import jwt

SECRET = "only-for-trying-out-0123456789abcdef"


def make_token(sub: str, scopes: list[str], roles: list[str], lives: int = 3600) -> str:
    claims = {"iss": "https://id.example", "aud": "orders-api", "sub": sub, "exp": int(time.time()) + lives}
    return jwt.encode({**claims, "scope": " ".join(scopes), "roles": roles}, SECRET, algorithm="HS256")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("sub")
    parser.add_argument("scopes", nargs="*")
    parser.add_argument("--role", action="append", default=[])
    parser.add_argument("--lives", type=int, default=3600, help="seconds; less than 0 is expired")
    given = parser.parse_args()
    print(make_token(given.sub, given.scopes, given.role, given.lives))
