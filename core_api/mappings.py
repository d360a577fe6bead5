"""Channel mappings (`channel_external_refs`) and the unmapped queue: what a person adds, corrects and decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import psycopg
from fastapi import APIRouter, Depends, Request, Response
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, Field

from core_api import audit
from core_api.app import (
    Answer,
    Core,
    Cursor,
    Limit,
    Page,
    answer,
    as_admin,
    as_writer,
    content_of,
    documented,
    most,
    not_found,
    page,
    refusals,
)
from core_api.audit import Why
from core_api.auth import Admin
from core_api.database import Pool
from core_api.errors import Refused

router = APIRouter(prefix="/v1/channel-mappings", tags=["mappings"])

# mapping 3.9
TRANSITIONS = {
    "OPEN": ("IN_REVIEW", "RESOLVED", "CLOSED"),
    "IN_REVIEW": ("OPEN", "RESOLVED", "CLOSED"),
    "RESOLVED": ("CLOSED",),
    "CLOSED": (),
}
Status = Literal["OPEN", "IN_REVIEW", "RESOLVED", "CLOSED"]
EntityType = Literal["PRODUCT", "VARIANT", "BOOKING"]

_MAPPING = """
select
    r.external_ref_key as "externalRefKey", r.entity_type as "entityType", r.entity_key as "entityKey",
    r.channel_code as "channelCode", r.external_ref_kind as "externalRefKind", r.external_ref as "externalRef",
    r.source_system as "sourceSystem", r.source_table as "sourceTable", r.source_pk as "sourcePk",
    r.created_at as "createdAt", r.updated_at as "updatedAt"
from public.channel_external_refs as r
"""
_MAPPINGS = (
    _MAPPING
    + """
where
    (%(entity_type)s::text is null or r.entity_type = %(entity_type)s)
    and (%(entity_key)s::uuid is null or r.entity_key = %(entity_key)s)
    and (%(channel)s::text is null or r.channel_code = %(channel)s)
    and (%(kind)s::text is null or r.external_ref_kind = %(kind)s)
    and (%(ref)s::text is null or r.external_ref = %(ref)s)
    and (%(after)s::uuid is null or r.external_ref_key > %(after)s)
order by r.external_ref_key
limit %(limit)s
"""
)
_ROW = """
select
    q.queue_key as "queueKey", q.queue_type as "queueType", q.channel_code as "channelCode",
    q.source_system as "sourceSystem", q.source_table as "sourceTable", q.source_pk as "sourcePk",
    q.reason_code as "reasonCode", q.reason_detail as "reasonDetail", q.status, q.payload,
    q.resolved_by as "resolvedBy", q.resolved_at as "resolvedAt", q.created_at as "createdAt",
    q.updated_at as "updatedAt"
from public.unmapped_queue as q
"""
_ROWS = (
    _ROW  # noqa: S608
    + """
where
    (%(status)s::text is null or q.status = %(status)s)
    and (%(queue_type)s::text is null or q.queue_type = %(queue_type)s)
    and (%(channel)s::text is null or q.channel_code = %(channel)s)
    and (%(reason)s::text is null or q.reason_code = %(reason)s)
    and (%(detail)s::text is null or md5(coalesce(q.reason_detail, '')) = %(detail)s)
    and (
        %(before)s::uuid is null
        or (q.created_at, q.queue_key) < (
            select x.created_at, x.queue_key from public.unmapped_queue as x where x.queue_key = %(before)s
        )
    )
order by q.created_at desc, q.queue_key desc
limit %(limit)s
"""
)
# what a run removes names balisnap or bstadmin as its source: a person's mapping stays
_ADD = """
insert into public.channel_external_refs (
    external_ref_key, entity_type, entity_key, channel_code, external_ref_kind, external_ref, source_system,
    source_table, source_pk
)
select
    k.key, %(entity_type)s, %(entity_key)s, %(channel)s, %(kind)s, n.ref, 'core_api', 'channel_mappings', k.key::text
from (
    select case %(kind)s::text when 'BOOKING_REF' then rulebook.norm_ref(%(ref)s) else rulebook.norm_text(%(ref)s) end
) as n (ref)
cross join lateral (
    select rulebook.external_ref_key(%(entity_type)s::text, %(channel)s::text, %(kind)s::text, n.ref)
) as k (key)
where n.ref is not null
on conflict do nothing
returning external_ref_key
"""
_SAME = (
    _MAPPING
    + """
where
    r.entity_type = %(entity_type)s and r.channel_code = %(channel)s and r.external_ref_kind = %(kind)s
    and r.external_ref in (rulebook.norm_ref(%(ref)s), rulebook.norm_text(%(ref)s))
"""
)
_ALIKE = """
select
    q.queue_type as "queueType", q.reason_code as "reasonCode", q.channel_code as "channelCode",
    q.reason_detail as "reasonDetail", md5(coalesce(q.reason_detail, '')) as detail,
    count(*) as rows, min(q.created_at) as oldest
from public.unmapped_queue as q
where q.status in ('OPEN', 'IN_REVIEW')
group by q.queue_type, q.reason_code, q.channel_code, q.reason_detail
order by rows desc, oldest
limit 30
"""
_DESCRIBED = {
    "PRODUCT": """
select
    p.product_key as "entityKey", p.name, p.slug, p.is_active as "isActive",
    (
        select string_agg(v.code, ', ' order by v.code) from public.catalog_variant as v
        where v.product_key = p.product_key
    ) as variants,
    (
        select string_agg(r.external_ref_kind || ' ' || r.external_ref, ', ' order by r.external_ref_kind)
        from public.channel_external_refs as r
        where r.entity_type = 'PRODUCT' and r.entity_key = p.product_key
    ) as refs
from public.catalog_product as p
where p.product_key = any(%s)
order by p.name, p.product_key
""",
    "VARIANT": """
select
    v.variant_key as "entityKey", v.name, v.code as slug, v.is_active as "isActive", p.name as variants,
    null::text as refs
from public.catalog_variant as v
join public.catalog_product as p on p.product_key = v.product_key
where v.variant_key = any(%s)
order by v.name, v.variant_key
""",
}
_ENTITIES = {
    "PRODUCT": "select 1 from public.catalog_product where product_key = %s",
    "VARIANT": "select 1 from public.catalog_variant where variant_key = %s",
    "BOOKING": "select 1 from public.booking_core where booking_key = %s",
}
_DECIDE = """
update public.unmapped_queue as q
set
    status = %(status)s::varchar,
    payload = case
        when %(resolution)s::jsonb is null then q.payload
        else coalesce(q.payload, '{}') || jsonb_build_object('resolution', %(resolution)s::jsonb)
    end,
    resolved_by = case when %(status)s::text in ('RESOLVED', 'CLOSED') then coalesce(q.resolved_by, %(actor)s) end,
    resolved_at = case when %(status)s::text in ('RESOLVED', 'CLOSED') then coalesce(q.resolved_at, now()) end,
    updated_at = now()
where q.queue_key = %(key)s
"""


class Mapping(BaseModel):
    """One external ref of a product, variant or booking."""

    externalRefKey: UUID
    entityType: str
    entityKey: UUID
    channelCode: str
    externalRefKind: str
    externalRef: str
    sourceSystem: str
    sourceTable: str
    sourcePk: str
    createdAt: datetime
    updatedAt: datetime


class QueueRow(BaseModel):
    """Something that a run could not map; `payload` holds the raw values, and `resolution` once there is one."""

    queueKey: UUID
    queueType: str
    channelCode: str | None
    sourceSystem: str
    sourceTable: str
    sourcePk: str
    reasonCode: str
    reasonDetail: str | None
    status: Status
    payload: Any
    resolvedBy: str | None
    resolvedAt: datetime | None
    createdAt: datetime
    updatedAt: datetime


class NewMapping(Why):
    """A mapping that a person adds."""

    entityType: EntityType
    entityKey: UUID
    channelCode: str = Field(min_length=1, max_length=32)
    externalRefKind: str = Field(min_length=1, max_length=64)
    externalRef: str = Field(min_length=1, max_length=128)


class Resolution(BaseModel):
    """What a queue row's source stands for; every later run obeys it."""

    entityType: EntityType
    entityKey: UUID


class Decision(Why):
    """Of a queue row: its new status, and its resolution. Of a mapping: the entity that it belongs to."""

    status: Status | None = None
    resolution: Resolution | None = None
    entityKey: UUID | None = None


@router.get("", response_model=None, responses={200: {"model": Answer[Page[Mapping]]}, **refusals(401, 403, 422, 503)})
async def mappings(
    request: Request,
    admin: Annotated[Admin, Depends(as_admin)],
    entityType: str | None = None,
    entityKey: UUID | None = None,
    channelCode: str | None = None,
    externalRefKind: str | None = None,
    externalRef: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """External refs, in the order of their keys."""
    values = {
        "entity_type": entityType,
        "entity_key": entityKey,
        "channel": channelCode,
        "kind": externalRefKind,
        "ref": externalRef,
        "after": cursor,
        "limit": most(limit) + 1,
    }
    rows = await _rows(request.app.state.core.pool, _MAPPINGS, values)
    return answer(request, page(rows, most(limit), "externalRefKey"))


@router.get(
    "/unmapped", response_model=None, responses={200: {"model": Answer[Page[QueueRow]]}, **refusals(401, 403, 422, 503)}
)
async def unmapped(
    request: Request,
    admin: Annotated[Admin, Depends(as_admin)],
    status: Status | None = None,
    queueType: str | None = None,
    channelCode: str | None = None,
    reasonCode: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The unmapped queue, the newest rows first."""
    found = await queue(
        request.app.state.core.pool,
        status=status,
        queue_type=queueType,
        channel=channelCode,
        reason_code=reasonCode,
        limit=limit,
        cursor=cursor,
    )
    return answer(request, found)


@router.post(
    "",
    status_code=201,
    response_model=None,
    responses={
        200: {"model": Answer[Mapping], "description": "It was there already"},
        201: {"model": Answer[Mapping]},
        **refusals(400, 401, 403, 404, 408, 409, 413, 422, 503),
    },
    openapi_extra=documented(NewMapping),
)
async def add(request: Request, admin: Annotated[Admin, Depends(as_writer)]) -> Response:
    """A mapping by hand; 409 when the ref is another entity's."""
    core: Core = request.app.state.core
    new = await content_of(request, NewMapping)
    values = {
        "entity_type": new.entityType,
        "entity_key": new.entityKey,
        "channel": new.channelCode,
        "kind": new.externalRefKind,
        "ref": new.externalRef,
    }
    async with core.pool.connection() as conn, conn.transaction():
        await _entity(conn, new.entityType, new.entityKey)
        try:
            added = await (await conn.execute(_ADD, values)).fetchone()
        except psycopg.errors.ForeignKeyViolation:
            raise Refused(404, "NOT_FOUND", "channelCode: there is no such channel") from None
        if added is None:
            there = await (await conn.cursor(row_factory=dict_row).execute(_SAME, values)).fetchone()
            if there is None:
                raise Refused(422, "VALIDATION_ERROR", "externalRef: is blank")
            if there["entityKey"] != new.entityKey:
                raise Refused(409, "MAPPING_TAKEN", "this ref belongs to another entity")
            return answer(request, there)
        made = await _one(conn, _MAPPING + "where r.external_ref_key = %s", added[0])
        assert made is not None
        await audit.record(
            conn,
            "CHANNEL_MAPPING_CREATED",
            admin,
            resource_type="channel_external_refs",
            resource_id=added[0],
            after=_told(made),
            reason=new.reason,
            ticket=new.ticket,
        )
    return answer(request, made, 201)


@router.patch(
    "/{id:uuid}",  # else PATCH /unmapped would be looked up
    response_model=None,
    responses={
        200: {"model": Answer[QueueRow | Mapping]},
        **refusals(400, 401, 403, 404, 408, 409, 413, 422, 503),
    },
    openapi_extra=documented(Decision),
)
async def decide(
    request: Request,
    admin: Annotated[Admin, Depends(as_writer)],
    id: UUID,
) -> Response:
    """Resolve, review or close a queue row; or give a mapping to another entity. `id` is the key of either."""
    core: Core = request.app.state.core
    decision = await content_of(request, Decision)
    async with core.pool.connection() as conn, conn.transaction():
        if (moved := await _decide(conn, admin, id, decision)) is not None:
            return answer(request, moved)
        mapping = await _one(conn, _MAPPING + "where r.external_ref_key = %s for update", id)
        if mapping is None:
            raise not_found()
        return answer(request, await _give(conn, admin, mapping, decision))


async def queue(
    pool: Pool,
    *,
    status: str | None = None,
    queue_type: str | None = None,
    channel: str | None = None,
    reason_code: str | None = None,
    detail: str | None = None,
    limit: int = 50,
    cursor: UUID | None = None,
) -> dict[str, Any]:
    """A page of the queue (`items`, `nextCursor`), the newest rows first; `detail` is that of `alike`."""
    values = {
        "status": status,
        "queue_type": queue_type,
        "channel": channel,
        "reason": reason_code,
        "detail": detail,
        "before": cursor,
        "limit": most(limit) + 1,
    }
    return page(await _rows(pool, _ROWS, values), most(limit), "queueKey")


async def queue_row(pool: Pool, key: UUID) -> dict[str, Any]:
    """A row of the queue. Raises Refused (404)."""
    async with pool.connection() as conn:
        row = await _one(conn, _ROW + "where q.queue_key = %s", key)
    if row is None:
        raise not_found()
    return row


async def alike(pool: Pool) -> list[dict[str, Any]]:
    """Open rows counted by what they have in common, the most first: what may be decided together."""
    return await _rows(pool, _ALIKE)


async def entities(pool: Pool, entity_type: str, keys: Sequence[UUID]) -> list[dict[str, Any]]:
    """What tells products or variants apart for a person, in the order of their names."""
    return await _rows(pool, _DESCRIBED[entity_type], (list(keys),))


async def decide_all(pool: Pool, admin: Admin, keys: Sequence[UUID], decision: Decision) -> None:
    """The same decision for each of these rows, or for none of them. Raises Refused (404, 409, 422)."""
    async with pool.connection() as conn, conn.transaction():
        for key in sorted(set(keys)):  # in one order: two people at once do not wait for each other in a circle
            if await _decide(conn, admin, key, decision) is None:
                raise not_found()


async def _decide(conn: AsyncConnection[Any], admin: Admin, key: UUID, decision: Decision) -> dict[str, Any] | None:
    """The row after its decision; None when the key is none of a queue row."""
    row = await _one(conn, _ROW + "where q.queue_key = %s for update", key)
    return None if row is None else await _move(conn, admin, row, decision)


async def _move(
    conn: AsyncConnection[Any], admin: Admin, row: dict[str, Any], decision: Decision
) -> dict[str, Any] | None:
    """A queue row to its next status, with its resolution."""
    if decision.status is None:
        raise Refused(422, "VALIDATION_ERROR", "status: a queue row needs one")
    if decision.status not in TRANSITIONS[row["status"]]:
        raise Refused(409, "INVALID_TRANSITION", f"a queue row does not go from {row['status']} to {decision.status}")
    resolution = None
    if decision.resolution:
        if decision.status != "RESOLVED":
            raise Refused(422, "VALIDATION_ERROR", "resolution: only with the status RESOLVED")
        await _entity(conn, decision.resolution.entityType, decision.resolution.entityKey)
        resolution = {
            "entity_type": decision.resolution.entityType,
            "entity_key": str(decision.resolution.entityKey),
        }
    key = row["queueKey"]
    await conn.execute(
        _DECIDE,
        {
            "key": key,
            "status": decision.status,
            "actor": admin.actor,
            "resolution": Jsonb(resolution) if resolution else None,
        },
    )
    moved = await _one(conn, _ROW + "where q.queue_key = %s", key)
    await audit.record(
        conn,
        "UNMAPPED_QUEUE_STATUS_UPDATED",
        admin,
        resource_type="unmapped_queue",
        resource_id=key,
        before={"status": row["status"]},
        after={"status": decision.status, "resolution": resolution},
        reason=decision.reason,
        ticket=decision.ticket,
    )
    return moved


async def _give(
    conn: AsyncConnection[Any], admin: Admin, mapping: dict[str, Any], decision: Decision
) -> dict[str, Any] | None:
    """A mapping to another entity of its type."""
    if decision.entityKey is None or decision.status or decision.resolution:
        raise Refused(422, "VALIDATION_ERROR", "entityKey: what a mapping takes, and nothing else")
    await _entity(conn, mapping["entityType"], decision.entityKey)
    key = mapping["externalRefKey"]
    await conn.execute(
        "update public.channel_external_refs as r set entity_key = %s, source_system = 'core_api',"
        " source_table = 'channel_mappings', source_pk = r.external_ref_key::text, updated_at = now()"
        " where r.external_ref_key = %s",
        (decision.entityKey, key),
    )
    given = await _one(conn, _MAPPING + "where r.external_ref_key = %s", key)
    await audit.record(
        conn,
        "CHANNEL_MAPPING_UPDATED",
        admin,
        resource_type="channel_external_refs",
        resource_id=key,
        before=_told(mapping),
        after=_told(given or {}),
        reason=decision.reason,
        ticket=decision.ticket,
    )
    return given


def _told(mapping: dict[str, Any]) -> dict[str, Any]:
    """What the audit trail holds of a mapping."""
    names = ("entityType", "entityKey", "channelCode", "externalRefKind", "externalRef")
    return {name: mapping.get(name) for name in names}


async def _entity(conn: AsyncConnection[Any], entity_type: str, key: UUID) -> None:
    """Raises Refused (404) when there is no such product, variant or booking."""
    if await (await conn.execute(_ENTITIES[entity_type], (key,))).fetchone() is None:
        raise Refused(404, "NOT_FOUND", f"entityKey: there is no {entity_type.lower()} with this key")


async def _rows(pool: Pool, query: str, values: Any = None) -> list[dict[str, Any]]:
    async with pool.connection() as conn:
        return await (await conn.cursor(row_factory=dict_row).execute(query, values)).fetchall()


async def _one(conn: AsyncConnection[Any], query: str, key: UUID) -> dict[str, Any] | None:
    return await (await conn.cursor(row_factory=dict_row).execute(query, (key,))).fetchone()
