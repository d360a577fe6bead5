"""Who has signed in: a signed cookie, passwords, and how often a wrong one may be tried.

The cookie's key is made of CORE_API_ADMIN_TOKEN: a new token ends every session. Sessions are signed in anew at sign-in
(another id), end after CONSOLE_SESSION_HOURS, when their account is changed in whatever way, and with the sign-out.
That, and wrong passwords, the ops database knows (sql/ops/console.sql): what one process of the API has seen holds in
all of them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from bridge.core_settings import CoreSettings
from bridge.errors import CouldNotRun
from bridge.policy import policy
from core_api.console.access import ROLES
from core_api.database import Pool

NOBODY_SECONDS = 3600  # of the cookie that a sign-in form stands on
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "maxmem": 2**26}
_LONGEST_COOKIE = 2000


@dataclass(frozen=True)
class Session:
    """Somebody's visit; without a name nobody has signed in yet. `until` is in seconds since 1970, `account` a digest
    of what was kept of the person at sign-in.
    """

    id: str
    name: str
    role: str
    until: float
    account: str


def opened(settings: CoreSettings, name: str = "", role: str = "") -> Session:
    """A new session, with an id that nobody has seen."""
    seconds = settings.console_session_hours * 3600 if name else NOBODY_SECONDS
    return Session(secrets.token_urlsafe(18), name, role, time.time() + seconds, _account(settings, name))


def cookie_name() -> str:
    """`__Host-`: sent over TLS only, to this host only. Local use has no TLS."""
    return "console" if policy().environment == "local" else "__Host-console"


def sealed(session: Session, settings: CoreSettings) -> str:
    """The cookie's value."""
    body = base64.urlsafe_b64encode(json.dumps(asdict(session)).encode()).decode()
    return f"{body}.{_mark(settings, 'session', body)}"


def read(cookie: str | None, settings: CoreSettings) -> Session | None:
    """The session of a cookie; None when it is none of ours, over, or its account is not what it was at sign-in."""
    body, _, mark = (cookie or "").partition(".")
    if (
        not body
        or len(body) > _LONGEST_COOKIE
        or not hmac.compare_digest(mark.encode(), _mark(settings, "session", body).encode())
    ):
        return None
    try:
        found = Session(**json.loads(base64.urlsafe_b64decode(body)))
    except (ValueError, TypeError, binascii.Error):
        return None
    if found.until < time.time() or (found.name and not _still(found, settings)):
        return None
    return found


def token(session: Session, settings: CoreSettings) -> str:
    """What each form of this session carries."""
    return _mark(settings, "form", session.id)


def is_token(given: str, session: Session, settings: CoreSettings) -> bool:
    return hmac.compare_digest(given.encode(), token(session, settings).encode())


async def is_over(pool: Pool, session: Session) -> bool:
    """Whether somebody has signed out of it, in whatever process."""
    async with pool.connection() as conn:
        found = await conn.execute("select 1 from phase2.console_ended as e where e.session = %s", (session.id,))
        return await found.fetchone() is not None


async def end(pool: Pool, session: Session) -> None:
    """This session counts no more, anywhere; what is over by itself is forgotten."""
    async with pool.connection() as conn, conn.transaction():
        await conn.execute("delete from phase2.console_ended as e where e.until < now()")
        await conn.execute(
            "insert into phase2.console_ended (session, until) values (%s, to_timestamp(%s)) on conflict do nothing",
            (session.id, session.until),
        )


def _mark(settings: CoreSettings, purpose: str, text: str) -> str:
    token = settings.core_api_admin_token
    assert token is not None
    key = hashlib.sha256(b"console:" + token.get_secret_value().encode()).digest()
    return hmac.new(key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


# -- people -----------------------------------------------------------------------------------------------------------


class _User(BaseModel):
    model_config = ConfigDict(extra="forbid")

    password: str
    roles: tuple[str, ...]


class _Users(RootModel[dict[str, _User]]):
    pass


@lru_cache(maxsize=4)
def _users(given: str) -> dict[str, _User]:
    try:
        found = _Users.model_validate_json(given).root
    except ValidationError as error:  # without the value: it holds what passwords are checked by
        raise CouldNotRun(
            f"CONSOLE_USERS cannot be read: {error.errors(include_input=False, include_url=False)[0]['msg']}",
            where="environment",
            todo="Let `phase2 console-user NAME --role ROLE` write it.",
        ) from None
    unknown = sorted({role for user in found.values() for role in user.roles} - set(ROLES))
    if unknown:
        raise CouldNotRun(
            f"CONSOLE_USERS names roles that there are not: {', '.join(unknown)}",
            where="environment",
            todo=f"Roles: {', '.join(ROLES)}.",
        )
    return found


def users(settings: CoreSettings) -> dict[str, _User]:
    """The people of CONSOLE_USERS; CouldNotRun when it cannot be read."""
    return _users(settings.console_users.get_secret_value()) if settings.console_users else {}


def is_open_house(settings: CoreSettings) -> bool:
    """Local use without people: any name signs in, in any role, with the local password."""
    return policy().environment == "local" and not settings.console_users


def local_password(settings: CoreSettings) -> str:
    """The password of local use, made of the local admin token."""
    return _mark(settings, "password", "local")[:16]


def hashed(password: str, salt: bytes | None = None) -> str:
    """What is kept of a password."""
    salt = salt or os.urandom(16)
    return f"{salt.hex()}${hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT).hex()}"  # type: ignore[call-overload]


_DUMMY = "00" * 16 + "$" + "00" * 64


def knows(settings: CoreSettings, name: str, password: str, role: str) -> bool:
    """Whether this is the person's password, and the role one of theirs. Slow on purpose, also for unknown names."""
    if is_open_house(settings):
        return (
            bool(name) and role in ROLES and hmac.compare_digest(local_password(settings).encode(), password.encode())
        )
    user = users(settings).get(name)
    kept = user.password if user else _DUMMY
    salt, _, _ = kept.partition("$")
    right = hmac.compare_digest(hashed(password, bytes.fromhex(salt)).encode(), kept.encode())
    return right and user is not None and role in user.roles


def _account(settings: CoreSettings, name: str) -> str:
    """A keyed digest of a person's password and roles as they are now; whoever is not there has another one."""
    user = None if is_open_house(settings) else users(settings).get(name)
    return _mark(settings, "account", json.dumps([user.password, sorted(user.roles)]) if user else "")


def _still(session: Session, settings: CoreSettings) -> bool:
    same = hmac.compare_digest(session.account.encode(), _account(settings, session.name).encode())
    if is_open_house(settings):
        return same and session.role in ROLES
    user = users(settings).get(session.name)
    return same and user is not None and session.role in user.roles


# -- tries ------------------------------------------------------------------------------------------------------------

TRIES, TRIES_OF_A_HOST, TRIES_WITHIN = 5, 20, timedelta(minutes=15)


@dataclass(frozen=True)
class Try:
    """One try of a password, and whose. `wait`: so many seconds have to pass before; 0: it is counted, look at it."""

    id: UUID
    who: tuple[str, str]
    wait: int


async def attempt(pool: Pool, settings: CoreSettings, host: str, name: str) -> Try:
    """Count a try of this name from there before the password is looked at: many at once get no more than many in turn.

    Neither is kept as it is: a name may be a password in the wrong field.
    """
    made, who = uuid4(), (_mark(settings, "host", host), _mark(settings, "person", f"{host} {name.casefold()}"))
    async with pool.connection() as conn:
        found = await conn.execute(
            "select phase2.console_try(%s, %s, %s, %s, %s, %s)",
            (made, *who, TRIES, TRIES_OF_A_HOST, TRIES_WITHIN),
        )
        row = await found.fetchone()
    assert row is not None
    return Try(made, who, row[0])


async def was_right(pool: Pool, tried: Try) -> None:
    """Take a try back: its password was right."""
    async with pool.connection() as conn:
        await conn.execute(
            "delete from phase2.console_tries as t where t.who = any(%s) and t.try_id = %s", (list(tried.who), tried.id)
        )
