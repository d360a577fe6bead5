"""The event log as the API uses it: accepting an event, and reading one."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from core_api.database import Pool

# sql/ingest/accept.sql
_ACCEPT = "select a.outcome, a.answer from phase2.accept_event(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) as a"
_USE_NONCE = "select phase2.use_nonce(%s, %s, %s)"
_NOT_QUEUED = """
update phase2.ingest_keys set answer = answer || '{"queued": false}' where idempotency_key = %s
"""
_FORGET = """
with nonces as (
    delete from phase2.ingest_nonces as n where n.seen_at < now() - interval '10 minutes'
)

delete from phase2.ingest_keys as k
where
    k.answered_at < now() - interval '35 days'
    and not exists (select 1 from public.ingest_event_log as e where e.event_key = k.event_key)
"""
_EVENT = """
select
    e.event_key as "eventId", e.idempotency_key as "idempotencyKey", e.process_status as "processStatus",
    e.attempt_count as "attemptCount", e.next_retry_at as "nextRetryAt", coalesce(d.replay_count, 0) as "replayCount",
    e.source_enum as "source", e.channel_code as "channelCode", e.external_booking_ref as "externalBookingRef",
    e.event_type as "eventType", e.event_time as "eventTime", e.event_time_normalized as "eventTimeNormalized",
    e.nonce, e.payload_hash as "payloadHash", e.raw_payload::text as "payload", e.error_message as "errorMessage",
    e.created_at as "createdAt", greatest(e.created_at, e.processed_at, d.updated_at) as "updatedAt"
from public.ingest_event_log as e
left join lateral (
    select x.replay_count, x.updated_at from public.ingest_dead_letter as x
    where x.event_key = e.event_key
    order by x.updated_at desc
    limit 1
) as d on true
where e.event_key = %s
"""
PERSONAL = ("idempotencyKey", "nonce", "payload", "errorMessage")  # shown with credentials only


class Event(NamedTuple):
    """What is written of a request: the arguments of phase2.accept_event, in their order."""

    event_key: UUID
    idempotency_key: str
    nonce: str
    payload_hash: str
    source: str
    ref: str
    event_type: str
    event_time: datetime
    payload: str
    queued: bool


class Accepted(NamedTuple):
    """`outcome` as accept.sql names it; `answer` is the first answer's data, None when the request is refused."""

    outcome: str
    answer: dict[str, Any] | None


async def accept(pool: Pool, event: Event) -> Accepted:
    """Committed when this returns. A connection that was lost is tried once more: accepting twice is accepting once.

    Raises psycopg.DataError when Postgres cannot hold the payload, any other psycopg.Error when nothing was decided.
    """
    try:
        return await _accept(pool, event)
    except psycopg.OperationalError as error:
        if error.sqlstate not in _LOST or isinstance(error, PoolTimeout | TooManyRequests | PoolClosed):
            raise
    await pool.check()  # after a restart of the server no connection of the pool is alive
    found = await _accept(pool, event)
    if found.outcome == "KNOWN" and found.answer and found.answer["eventId"] == str(event.event_key):
        return Accepted("ACCEPTED", found.answer)  # the commit had reached the server, only its answer was lost
    return found


# None: the connection broke; class 57: the server ends sessions, or is starting
_LOST = (None, "57P01", "57P02", "57P03", "08006", "08003")


async def _accept(pool: Pool, event: Event) -> Accepted:
    async with pool.connection() as conn:
        row = await (await conn.execute(_ACCEPT, event)).fetchone()
    assert row is not None
    return Accepted(*row)


async def use_nonce(pool: Pool, nonce: str, idempotency_key: str, payload_hash: str) -> bool:
    """False when it was used within 10 minutes by another request. For requests whose body is refused."""
    async with pool.connection() as conn:
        row = await (await conn.execute(_USE_NONCE, (nonce, idempotency_key, payload_hash))).fetchone()
    return bool(row and row[0])


async def was_not_queued(pool: Pool, idempotency_key: str) -> None:
    """The first answer said `queued: false`; later ones will say the same."""
    async with pool.connection() as conn:
        await conn.execute(_NOT_QUEUED, (idempotency_key,))


async def forget(pool: Pool) -> None:
    """Nonces after 10 minutes; answers after 35 days, once the retention has taken their event."""
    async with pool.connection() as conn:
        await conn.execute(_FORGET)


async def event(pool: Pool, event_key: UUID, *, personal: bool) -> dict[str, Any] | None:
    """The event as the contract shapes it; without `personal` only what holds no personal data."""
    async with pool.connection() as conn:
        row = await (await conn.cursor(row_factory=dict_row).execute(_EVENT, (event_key,))).fetchone()
    if row is None:
        return None
    if not personal:
        return {name: value for name, value in row.items() if name not in PERSONAL}
    return row | {"payload": orjson.Fragment(row["payload"])}  # as it stands: its numbers may be beyond a float
