"""Writes of the back office (docs/cutover-writes.md): note, meeting point, package, assignment, status."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
import psycopg
from fastapi import APIRouter, Depends, Header, Path, Request, Response
from psycopg import errors
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from bridge import flags
from bridge.runlog import uuid7
from core_api import audit
from core_api.app import (
    Answer,
    Core,
    answer,
    as_admin,
    as_writer,
    content_of,
    documented,
    key_of,
    not_found,
    refusals,
    unavailable,
)
from core_api.auth import Admin
from core_api.errors import Refused
from core_api.ingest.events import whole
from core_api.ops import intents

router = APIRouter(prefix="/v1/ops/bookings/{booking_id}", tags=["back office: writes"])
MODULES = {
    "note": "note",
    "meeting_point": "meeting_point",
    "package_ref_type": "booking",
    "package_ref_key": "booking",
    "assigned_driver_id": "assignment",
    "assigned_partner_id": "assignment",
}
LONGEST_KEY = 128  # characters
_MOST = 2**31 - 1
_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

_IDS = """
select coalesce(array_agg(r.external_ref::integer) filter (where r.external_ref is not null), '{}')
from public.booking_core as c
left join public.channel_external_refs as r
    on r.entity_type = 'BOOKING' and r.entity_key = c.booking_key and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
where c.booking_key = %s
group by c.booking_key
"""
_BY_NUMBER = """
select r.entity_key from public.channel_external_refs as r
where r.entity_type = 'BOOKING' and r.external_ref_kind = 'BSTADMIN_BOOKING_ID' and r.external_ref = %s
"""
_ACCEPT = "select a.outcome, a.accepted_id, a.view from phase2.accept_write(%s, rulebook.bali_date(now())) as a"
_ANSWERED = """
update phase2.write_intents as i set answer = coalesce(i.answer, %s), touched_at = clock_timestamp()
where i.intent_id = %s
returning i.answer
"""

_TOLD = "update phase2.write_intents as i set told_at = clock_timestamp() where i.intent_id = %s"

Id = Annotated[str, Path(description="key of the booking, or its number in bstadmin")]
AsAdmin = Annotated[Admin, Depends(as_admin)]
AsWriter = Annotated[Admin, Depends(as_writer)]
Key = Annotated[
    str,
    Header(
        alias="x-idempotency-key", min_length=1, max_length=LONGEST_KEY, description="of one write, however often sent"
    ),
]
_Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"}, pattern=_UUID)]
_Version = Annotated[whole(0, _MOST), Field(description="as the booking was read")]
_Person = whole(1, _MOST)


class _Asked(audit.Why):
    model_config = ConfigDict(extra="forbid")


class Patch(_Asked):
    """What is to change; what is not named stays. `null` empties a note or a meeting point."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [{"required": [name]} for name in ("note", "meetingPoint", "packageRefKey")],
            "dependentRequired": {"packageRefType": ["packageRefKey"], "packageRefKey": ["packageRefType"]},
        },
    )

    stateVersion: _Version
    note: str | None = Field(None, max_length=20_000)
    meetingPoint: str | None = Field(None, max_length=2_000)
    packageRefType: Literal["CATALOG_VARIANT", "CATALOG_PRODUCT"] | SkipJsonSchema[None] = None
    packageRefKey: _Uuid | SkipJsonSchema[None] = None

    @model_validator(mode="after")
    def _something(self) -> Patch:
        package = self.model_fields_set & {"packageRefType", "packageRefKey"}
        if not package and not self.model_fields_set & {"note", "meetingPoint"}:
            raise ValueError("nothing is to change")
        if package and (self.packageRefType is None or self.packageRefKey is None):
            raise ValueError("packageRefType and packageRefKey go together")
        return self


class Assign(_Asked):
    """Who drives, or which partner does; in the place of whoever was assigned."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "integer"}}} for name in ("driverId", "partnerId")
            ]
        },
    )

    stateVersion: _Version
    driverId: _Person | None = None
    partnerId: _Person | None = None

    @model_validator(mode="after")
    def _somebody(self) -> Assign:
        if self.driverId is None and self.partnerId is None:
            raise ValueError("driverId or partnerId is needed")
        return self


class Unassign(_Asked):
    """Nobody is assigned any more."""

    stateVersion: _Version


class BookingState(BaseModel):
    """What a booking holds for who writes to it. `stateVersion` goes up by one with each write."""

    bookingKey: UUID
    stateVersion: int
    note: str | None
    meetingPoint: str | None
    packageRefType: str
    packageRefKey: UUID | None
    legacyPackageId: int | None
    opsFulfillmentStatus: str
    assignedDriverId: int | None
    assignedPartnerId: int | None
    assignedAt: datetime | None
    frozen: bool


class Written(BaseModel):
    """What became of a write on either side.

    `core`: DONE, BEHIND (legacy has it, the core will; `fallback`: it should have had it), PENDING.
    `legacy`: DONE, NONE (the booking is not in bstadmin), PENDING (it will), CONFLICT (somebody else wrote there).
    """

    intentId: UUID
    core: str
    legacy: str
    fallback: bool
    state: BookingState


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Answer[Written]},
    202: {"model": Answer[Written], "description": "Accepted; neither side has it yet"},
    **refusals(400, 401, 403, 404, 408, 409, 413, 422, 503),
}


@router.get(
    "/state", response_model=None, responses={200: {"model": Answer[BookingState]}, **refusals(401, 403, 404, 503)}
)
async def state(request: Request, admin: AsAdmin, booking_id: Id) -> Response:
    """What a booking holds for who wants to write to it, and its version."""
    core: Core = request.app.state.core
    async with core.pool.connection() as conn:
        row = await (await conn.execute("select phase2.write_view(%s)", (await _key(core, booking_id),))).fetchone()
    if row is None or row[0] is None:
        raise not_found()
    return answer(request, _state(row[0]))


@router.patch("", response_model=None, responses=_ANSWERS, openapi_extra=documented(Patch))
async def patch(request: Request, admin: AsWriter, booking_id: Id, key: Key) -> Response:
    """Note, meeting point, package."""
    asked = await content_of(request, Patch)
    names = {
        "note": "note",
        "meetingPoint": "meeting_point",
        "packageRefType": "package_ref_type",
        "packageRefKey": "package_ref_key",
    }
    given = asked.model_fields_set
    changes = {names[name]: getattr(asked, name) for name in names if name in given}
    return await _write(request, admin, booking_id, key, "patch", changes, asked, asked.stateVersion)


@router.post("/assign", response_model=None, responses=_ANSWERS, openapi_extra=documented(Assign))
async def assign(request: Request, admin: AsWriter, booking_id: Id, key: Key) -> Response:
    """Assign a driver, a partner, or both. The status is recomputed."""
    asked = await content_of(request, Assign)
    changes = {"assigned_driver_id": asked.driverId, "assigned_partner_id": asked.partnerId}
    return await _write(request, admin, booking_id, key, "assign", changes, asked, asked.stateVersion)


@router.post("/unassign", response_model=None, responses=_ANSWERS, openapi_extra=documented(Unassign))
async def unassign(request: Request, admin: AsWriter, booking_id: Id, key: Key) -> Response:
    """Take the assignment back. The status is recomputed."""
    asked = await content_of(request, Unassign)
    changes = {"assigned_driver_id": None, "assigned_partner_id": None}
    return await _write(request, admin, booking_id, key, "unassign", changes, asked, asked.stateVersion)


@router.post("/status/sync", response_model=None, responses=_ANSWERS, openapi_extra=documented(_Asked, required=False))
async def sync(request: Request, admin: AsWriter, booking_id: Id, key: Key) -> Response:
    """Recompute the fulfilment status by the rulebook. No version is asked for: nothing of the caller's is written."""
    asked = await content_of(request, _Asked, required=False)
    return await _write(request, admin, booking_id, key, "sync", {}, asked, None)


async def _key(core: Core, booking_id: str) -> UUID:
    """The booking that a path names. Raises Refused: 404."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", booking_id):
        return key_of(booking_id)
    async with core.pool.connection() as conn:
        row = await (await conn.execute(_BY_NUMBER, (booking_id,))).fetchone()
    if row is None:
        raise not_found()
    key: UUID = row[0]
    return key


async def _write(
    request: Request,
    admin: Admin,
    booking: str,
    key: str,
    action: str,
    changes: dict[str, Any],
    asked: _Asked,
    version: int | None,
) -> Response:
    core: Core = request.app.state.core
    if core.writing is None:
        raise Refused(503, "SERVICE_UNAVAILABLE", "there is no writing connection to bstadmin (BSTADMIN_WRITE_DB_URL)")
    written, status = await perform(
        core.writing.ops,
        core.writing.bstadmin,
        await core.flags.rows(core.pool),
        admin,
        await _key(core, booking),
        key=key,
        action=action,
        changes=changes,
        version=version,
        why=asked,
    )
    return answer(request, written, status)


async def perform(
    pool: Any,
    legacy: Any,
    rows: dict[str, flags.Row],
    admin: Admin,
    booking: UUID,
    *,
    key: str,
    action: str,
    changes: dict[str, Any],
    version: int | None,
    why: audit.Why | None = None,
) -> tuple[dict[str, Any], int]:
    """One write, as the flag says for this actor: the answer and its HTTP status. Raises Refused, psycopg.Error."""
    why = why or audit.Why()
    modules = sorted({MODULES[name] for name in changes}) or ["booking"]
    dual = all(
        flags.is_on(intents.FLAG, rows, actor=admin.actor, email=admin.actor, module=module) for module in modules
    )
    strict = flags.in_force(intents.FLAG, rows).rollout.strict
    if not dual and changes.get("assigned_partner_id") is not None:
        raise Refused(409, "NOT_IN_LEGACY", "bstadmin has no place for a partner, and the core is not written to")
    asked = {
        "intent_id": str(uuid7()),
        "idempotency_key": key,
        "request_hash": _digest([booking, action, changes, version, admin.actor]),
        "booking_key": str(booking),
        "action": action,
        "modules": modules,
        "mode": "DUAL" if dual else "LEGACY",
        "strict": strict,
        "actor": admin.actor,
        "role": admin.role,
        "state_version": version,
        "changes": changes,
    }
    try:
        async with intents.alone(pool, booking) as conn:
            found = await (await conn.execute(_IDS, (booking,))).fetchone()
            if found is None:
                raise not_found()
            asked["legacy"], away = await _legacy_row(
                legacy, found[0], changes.get("assigned_driver_id"), needed=not dual
            )
            intent_id = await _accept(conn, asked, admin, why)
            await intents.reached("intent")
            intent = await intents.one(conn, intent_id)
            if intent["answer"]:
                return intent["answer"]["data"], intent["answer"]["status"]
            core, dual = flags.in_force(intents.FLAG, rows).enabled, intent["mode"] == "DUAL"
            theirs = None if away else legacy
            await intents.finish(conn, theirs, booking, core=core, behind=dual, upto=intent["place"])
            return await _answer(conn, intent_id)
    except errors.LockNotAvailable:
        raise Refused(409, "BUSY", "somebody else writes to this booking", headers={"retry-after": "1"}) from None


async def _legacy_row(
    legacy: Any, ids: list[int], driver: int | None, *, needed: bool
) -> tuple[dict[str, Any] | None, bool]:
    """The row of bstadmin, if it has one; and whether bstadmin is away, where it is not needed."""
    if not ids and driver is None:
        return None, False
    try:
        row, driver_is_there = await intents.read_legacy(legacy, ids, driver)
    except psycopg.Error:
        if needed:
            raise unavailable() from None
        return None, True
    if not driver_is_there:
        raise Refused(409, "NO_SUCH_DRIVER", "there is no such driver in bstadmin")
    return row, False


async def _accept(conn: Any, asked: dict[str, Any], admin: Admin, why: audit.Why) -> UUID:
    """The intent's id: of the new one, committed with its audit row, or of the one that this request has already."""
    async with conn.transaction():
        row = await (await conn.execute(_ACCEPT, (Jsonb(asked),))).fetchone()
        outcome, intent_id, view = row
        if outcome == "ACCEPTED":
            plain = {k: v for k, v in asked["changes"].items() if k not in ("note", "meeting_point")}
            await audit.record(
                conn, f"ops.booking.{asked['action']}", admin, resource_type="booking",
                resource_id=asked["booking_key"], intent_id=asked["intent_id"], mode=asked["mode"],
                fields=sorted(asked["changes"]), state_version=view["state_version"],
                before={name: view.get(name) for name in plain}, after=plain, reason=why.reason, ticket=why.ticket,
            )  # fmt: skip
    match outcome:
        case "ACCEPTED" | "SEEN":
            return intent_id
        case "KEY_REUSED":
            raise Refused(422, "IDEMPOTENCY_KEY_REUSED", "another request was sent with this x-idempotency-key")
        case "MISSING":
            raise not_found()
        case "STALE":
            raise Refused(409, "STALE_VERSION", "the booking has changed since it was read", _state(view))
        case "FROZEN":
            raise Refused(409, "BOOKING_FROZEN", "a conflict of this booking waits for a person", _state(view))
        case "NOT_IN_LEGACY":
            raise Refused(409, "NOT_IN_LEGACY", "the booking is not in bstadmin, and the core is not written to")
        case _:
            raise Refused(409, "NO_SUCH_PACKAGE", "there is no such variant or product")


async def _answer(conn: Any, intent_id: UUID) -> tuple[dict[str, Any], int]:
    intent = await intents.one(conn, intent_id)
    row = await (await conn.execute("select phase2.write_view(%s)", (intent["booking_key"],))).fetchone()
    state = _state(row[0])
    if intent["core_status"] == "REFUSED":
        await conn.execute(_TOLD, (intent_id,))
        if intent["core_error"] == "FROZEN":
            raise Refused(409, "BOOKING_FROZEN", "a conflict of this booking waits for a person", state)
        if intent["legacy_at"]:  # bstadmin was asked
            raise Refused(409, "CHANGED_IN_LEGACY", "somebody has changed this in bstadmin meanwhile", state)
        raise Refused(503, "CORE_WRITE_FAILED", "the core did not take it; nothing was written")
    written = {
        "intentId": str(intent_id),
        "core": intent["core_status"],
        "legacy": intent["legacy_status"],
        "fallback": intent["fallback"],
        "state": state,
    }
    if intent["core_status"] != "DONE" and intent["legacy_status"] == "PENDING":
        return written, 202  # no answer to be kept
    kept = await (await conn.execute(_ANSWERED, (Jsonb({"status": 200, "data": written}), intent_id))).fetchone()
    await intents.reached("ended")
    return kept[0]["data"], kept[0]["status"]


def _state(view: dict[str, Any]) -> dict[str, Any]:
    """phase2.write_view in the API's names."""
    return {_camel(name): view[name] for name in sorted(view)}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()
