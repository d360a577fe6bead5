"""Signing in and out."""

from __future__ import annotations

import asyncio
import logging
import re

from fastapi import Response

from core_api.auth import LONGEST_ACTOR
from core_api.console import session as sessions
from core_api.console.access import ROLES
from core_api.console.frame import Visit, act, page
from core_api.console.session import Session
from core_api.errors import Refused

_log = logging.getLogger("core_api.console")


@page("/console/sign-in", None)
async def sign_in(visit: Visit) -> Response:
    """The form, with a session of nobody's behind it; whoever has signed in signs out first."""
    return visit.to("/console") if visit.session.name else _form(visit)


@act("/console/sign-in", None)
async def signed_in(visit: Visit) -> Response:
    """A session of its own for who knows the password. 401 for a wrong one, 429 after several."""
    settings, pool = visit.core.settings, visit.core.pool
    host = visit.request.client.host if visit.request.client else ""
    name, role = " ".join(visit.form.get("name", "").split()), visit.form.get("role", "")
    if not name or len(name) > LONGEST_ACTOR or not name.isprintable():
        raise Refused(422, "VALIDATION_ERROR", "a name is missing, or it is none")
    tried = await sessions.attempt(pool, settings, host, name)
    if tried.wait:
        raise Refused(
            429,
            "TOO_MANY_TRIES",
            f"too many wrong passwords: wait {tried.wait // 60 + 1} min, then try again",
            headers={"retry-after": str(tried.wait)},
        )
    password = visit.form.get("password", "")[:200]
    if not await asyncio.to_thread(sessions.knows, settings, name, password, role):
        _log.warning("console: a wrong sign-in")
        return _form(visit, wrong=True)
    await sessions.was_right(pool, tried)
    target = visit.form.get("next", "")
    response = visit.to(target if re.fullmatch(r"/console(/[\w.-]+)*", target) else "/console")
    _give(visit, response, sessions.opened(settings, name, role))
    return response


@act("/console/sign-out", "look")
async def sign_out(visit: Visit) -> Response:
    """The session is over, in every process."""
    await sessions.end(visit.core.pool, visit.session)
    response = visit.to("/console/sign-in", "out")
    response.delete_cookie(sessions.cookie_name(), path="/", secure=_is_secure(), httponly=True, samesite="strict")
    return response


def _form(visit: Visit, *, wrong: bool = False) -> Response:
    fresh = Visit(visit.request, visit.core, sessions.opened(visit.core.settings))
    response = fresh.page(
        "sign_in.html.j2",
        status=401 if wrong else 200,
        wrong=wrong,
        roles=ROLES,
        name=visit.form.get("name", "")[:LONGEST_ACTOR],
        next=visit.form.get("next") or visit.request.query_params.get("next", ""),
        open_house=sessions.is_open_house(visit.core.settings),
        nobody=not sessions.is_open_house(visit.core.settings) and not sessions.users(visit.core.settings),
    )
    _give(visit, response, fresh.session)
    return response


def _give(visit: Visit, response: Response, session: Session) -> None:
    settings = visit.core.settings
    response.set_cookie(
        sessions.cookie_name(),
        sessions.sealed(session, settings),
        max_age=int(settings.console_session_hours * 3600) if session.name else sessions.NOBODY_SECONDS,
        path="/",
        secure=_is_secure(),
        httponly=True,
        samesite="strict",
    )


def _is_secure() -> bool:
    return sessions.cookie_name().startswith("__Host-")
