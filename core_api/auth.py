"""Who calls: an emitter by the service's token, a person by the admin token and a role. Compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import SecretStr

from bridge.core_settings import CoreSettings
from core_api.errors import Refused

ROLES = ("ADMIN", "MANAGER", "STAFF")
WRITERS = ("ADMIN", "MANAGER")
LONGEST_ACTOR = 128  # characters, of unmapped_queue.resolved_by


@dataclass(frozen=True)
class Admin:
    """A person, as the request names it."""

    role: str
    actor: str


def valid(current: SecretStr | None, previous: SecretStr | None) -> tuple[str, ...]:
    """The values that hold now: two while a secret is replaced."""
    return tuple(secret.get_secret_value() for secret in (current, previous) if secret and secret.get_secret_value())


def bearer(headers: Mapping[str, str], accepted: tuple[str, ...]) -> bool:
    """Whether `authorization` bears one of these tokens."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    found = False
    for known in accepted:
        found |= hmac.compare_digest(known.encode(), token.strip().encode())
    return found and scheme.lower() == "bearer"


def emitter(headers: Mapping[str, str], settings: CoreSettings) -> bool:
    """Whether the service token stands in the request."""
    return bearer(headers, valid(settings.ingest_service_token, settings.ingest_service_token_previous))


def admin(headers: Mapping[str, str], settings: CoreSettings, *, write: bool = False) -> Admin:
    """The person behind a request. Raises Refused: 401 without the token, 403 when the role may not do this."""
    if not bearer(headers, valid(settings.core_api_admin_token, settings.core_api_admin_token_previous)):
        raise unauthorized()
    role = headers.get("x-admin-role", "").strip().upper()
    if role not in ROLES:
        raise Refused(403, "FORBIDDEN", f"x-admin-role must be one of {', '.join(ROLES)}")
    if write and role not in WRITERS:
        raise Refused(403, "FORBIDDEN", f"this needs the role {' or '.join(WRITERS)}")
    actor = headers.get("x-actor", "").strip() or "system"
    if len(actor) > LONGEST_ACTOR:
        raise Refused(400, "INVALID_HEADER", f"x-actor is longer than {LONGEST_ACTOR} characters")
    return Admin(role, actor)


def unauthorized() -> Refused:
    """401, without a word on what was wrong with the token."""
    return Refused(401, "UNAUTHORIZED", "a valid bearer token is needed", headers={"www-authenticate": "Bearer"})
