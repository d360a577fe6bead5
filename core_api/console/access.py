"""Who may what in the console: one table, asked by the pages for what they show and by the frame for what is done."""

from __future__ import annotations

from bridge.signoff import ROLES as LEADS
from core_api import auth

ROLES = (*auth.ROLES, *LEADS)

_WORK = ("ADMIN", "MANAGER", "Ops Lead")
_BUILD = ("ADMIN", "Tech Lead", "Backend Lead", "DevOps")

# action -> the roles that may; every page asks for `look`
ACTIONS: dict[str, tuple[str, ...]] = {
    "look": ROLES,
    "unmask": _WORK,
    "dead letters": (*_WORK, "Backend Lead"),
    "queue": _WORK,
    "simulate": (*_WORK, "Tech Lead", "Backend Lead"),
    "resolve": _WORK,
    "flag": _BUILD,
    "rollout": ("ADMIN", "Tech Lead", "Backend Lead", "Ops Lead"),
    "stop": tuple(role for role in ROLES if role != "STAFF"),
    "resume": ("ADMIN", "Tech Lead", "Ops Lead", "Owner"),
    "sign": LEADS,
    "freeze window": ("PM", "Owner"),
    "verify": ("ADMIN", *LEADS),
}


def may(role: str, action: str) -> bool:
    """Whether a role may do this; nobody may do what the table does not have."""
    return role in ACTIONS.get(action, ())
