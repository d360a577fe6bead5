"""The event log as the API uses it: accepting an event, and reading one."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from core_api.database import Pool

# sql/ingest/accept.sql
ACCEPT = """
select a.outcome, a.answer
from phase2.accept_events(
    %b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::text[],
    %b::boolean[]
) as a
"""
_TOGETHER = 50  # events of one commit, at most
_USE_NONCE = "select phase2.use_nonce(%s, %s, %s)"
_NOT_QUEUED = """
update phase2.ingest_keys set answer = answer || '{"queued": false}' where idempotency_key = %s
"""
_FORGOTTEN_AT_ONCE = 10_000  # rows of one transaction
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
    """What is written of a request: the arguments of phase2.accept_events, in their order."""

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


class Acceptor:
    """Writes events to the log, one of each process. What comes while a commit is under way shares the next one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._new: list[tuple[Event, asyncio.Future[Accepted]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def accept(self, event: Event) -> Accepted:
        """Committed when this returns.

        Raises psycopg.DataError when Postgres cannot hold the payload, any other psycopg.Error when nothing was
        decided.
        """
        done: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._new.append((event, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        while self._new:
            batch, self._new = self._new[:_TOGETHER], self._new[_TOGETHER:]
            try:
                found = await _ask(self._pool, [event for event, _ in batch])
                for (_, done), accepted in zip(batch, found, strict=True):
                    if not done.done():  # who asked may be gone
                        done.set_result(accepted)
            except Exception as error:
                if not _decided_by_one(error, len(batch)):
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
                    continue
                # one of them is at fault, or the connection was lost: each on its own
                await asyncio.gather(*(_settle(self._pool, event, done) for event, done in batch))


def _decided_by_one(error: Exception, events: int) -> bool:
    """Whether trying each event on its own may help."""
    if isinstance(error, PoolTimeout | TooManyRequests | PoolClosed) or not isinstance(error, psycopg.Error):
        return False
    return events > 1 or error.sqlstate in _LOST


async def _settle(pool: Pool, event: Event, done: asyncio.Future[Accepted]) -> None:
    try:
        found = await _accept(pool, event)
    except Exception as error:
        if not done.done():
            done.set_exception(error)
        return
    if not done.done():
        done.set_result(found)


async def _accept(pool: Pool, event: Event) -> Accepted:
    """One event on its own. Tried again when its connection was lost: accepting twice is accepting once."""
    for tries_left in (2, 1, 0):
        try:
            [found] = await _ask(pool, [event])
            break
        except psycopg.OperationalError as error:
            lost = error.sqlstate in _LOST and not isinstance(error, PoolTimeout | TooManyRequests | PoolClosed)
            if not tries_left or not lost:
                raise
            await pool.check()  # after a restart of the server no connection of the pool is alive
    if found.outcome == "KNOWN" and found.answer and found.answer["eventId"] == str(event.event_key):
        return Accepted("ACCEPTED", found.answer)  # a commit had reached the server, only its answer was lost
    return found


# None: the connection broke; class 57: the server ends sessions, or is starting
_LOST = (None, "57P01", "57P02", "57P03", "08006", "08003")


async def _ask(pool: Pool, events: list[Event]) -> list[Accepted]:
    columns = [list(column) for column in zip(*events, strict=True)]
    async with pool.connection() as conn:
        return [Accepted(*row) for row in await (await conn.execute(ACCEPT, columns)).fetchall()]


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
    """Nonces after their 10 minutes, so that their table stays small; all else is the daily retention's."""
    gone = _FORGOTTEN_AT_ONCE
    while gone == _FORGOTTEN_AT_ONCE:
        async with pool.connection() as conn:
            row = await (await conn.execute("select phase2.forget_nonces(%s)", (_FORGOTTEN_AT_ONCE,))).fetchone()
        gone = row[0] if row else 0


async def event(pool: Pool, event_key: UUID, *, personal: bool) -> dict[str, Any] | None:
    """The event as the contract shapes it; without `personal` only what holds no personal data."""
    async with pool.connection() as conn:
        row = await (await conn.cursor(row_factory=dict_row).execute(_EVENT, (event_key,))).fetchone()
    if row is None:
        return None
    if not personal:
        return {name: value for name, value in row.items() if name not in PERSONAL}
    return row | {"payload": orjson.Fragment(row["payload"])}  # as it stands: its numbers may be beyond a float
