"""The signature of a request: HMAC-SHA256 over six lines (ingest_contract, HTTP)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

ALGORITHM = "HMAC-SHA256"


def sign(secret: str, method: str, path: str, timestamp: str, nonce: str, key: str, body_hash: str) -> str:
    """Lower-case hex; `body_hash` is `digest` of the body's bytes, the other five as they stand in the request."""
    lines = "\n".join((method, path, timestamp, nonce, key, body_hash))
    return hmac.digest(secret.encode(), lines.encode(), "sha256").hex()


def digest(body: bytes) -> str:
    """Lower-case hex SHA-256 of the body as received."""
    return hashlib.sha256(body).hexdigest()


def matches(given: str, secrets: Iterable[str], *signed: str) -> bool:
    """Whether one of the valid secrets made this signature; in constant time. `signed`: what `sign` takes after it."""
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(sign(secret, *signed).encode(), given.encode())
    return found
