"""Dead letters: what could not be applied waits here for a person, and comes back by an audited replay only.

The life of one: OPEN → READY → REPLAYING → SUCCEEDED or FAILED; its last step is the worker's (`sql/ingest/work.sql`).
Every change takes the booking's lock, so that none comes between a worker and the end of its event, and leaves an
audit row. All functions raise Refused (404, 409, 422, 503) and psycopg.Error, and change nothing then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, Rollback
from psycopg.rows import dict_row
from redis.exceptions import RedisError

from bridge.core_settings import core_settings
from core_api import audit
from core_api.auth import Admin
from core_api.database import Pool
from core_api.errors import Refused
from core_api.ingest.queue import IngestQueue, nothing_counted

STATUSES = ("OPEN", "READY", "REPLAYING", "SUCCEEDED", "FAILED", "RESOLVED", "CLOSED")
# what an admin may do; READY → REPLAYING is the replay, and the worker ends it
TRANSITIONS: Mapping[str, tuple[str, ...]] = {
    "OPEN": ("READY", "RESOLVED", "CLOSED"),
    "REPLAYING": ("READY",),
    "FAILED": ("READY", "RESOLVED", "CLOSED"),
    "SUCCEEDED": ("CLOSED",),
    "RESOLVED": ("CLOSED",),
}
MOST = 200  # of a list, and of a replay
# whose values a preview leaves out: it says that they change, not what they are
_PERSONAL = frozenset({"main_name", "main_email", "phone", "pickup_location", "note", "traveler_rows", "snapshot_json"})
_CLOCKS = frozenset({"created_at", "updated_at"})

_SHAPE = """
select
    d.dead_letter_key as "deadLetterKey", d.event_key as "eventId", d.status, d.reason_code as "reasonCode",
    d.reason_detail as "reasonDetail", d.poison_message as "poisonMessage", d.replay_count as "replayCount",
    d.first_failed_at as "firstFailedAt", d.last_failed_at as "lastFailedAt", d.next_replay_at as "nextReplayAt",
    e.source_enum as "source", e.channel_code as "channelCode", e.external_booking_ref as "externalBookingRef",
    e.event_type as "eventType"
from public.ingest_dead_letter as d
join public.ingest_event_log as e on e.event_key = d.event_key
"""
_ONE = _SHAPE + "where d.dead_letter_key = %s"
_OF = _SHAPE + "where d.event_key = any(%s) order by e.created_at, e.event_key"
_LIST = (
    _SHAPE
    + """
where
    (%(status)s::text is null or d.status = %(status)s)
    and (%(channel)s::text is null or e.channel_code = %(channel)s)
    and (%(reason)s::text is null or d.reason_code = %(reason)s)
    and (%(before)s::uuid is null or d.dead_letter_key < %(before)s)
order by d.dead_letter_key desc
limit %(limit)s
"""
)
_LOCK = """
select pg_advisory_xact_lock(phase2.booking_lock(e.channel_code, e.external_booking_ref))
from public.ingest_event_log as e
where e.event_key = %s
"""
# locked in the order of acceptance: no two changes wait for each other in a circle
_READY = """
select d.event_key
from public.ingest_dead_letter as d
join public.ingest_event_log as e on e.event_key = d.event_key
where
    d.status = 'READY'
    and (%(events)s::uuid[] is null or d.event_key = any(%(events)s))
    and (%(channel)s::text is null or e.channel_code = %(channel)s)
    and (%(reason)s::text is null or d.reason_code = %(reason)s)
order by e.created_at, e.event_key
limit %(limit)s
"""
_BEGIN = """
with begun as (
    update public.ingest_dead_letter as d
    set status = 'REPLAYING', replay_count = d.replay_count + 1, next_replay_at = null, updated_at = now()
    where d.event_key = %(key)s and d.status = 'READY'
    returning d.dead_letter_key, d.event_key
)

update public.ingest_event_log as e
set process_status = 'RECEIVED', attempt_count = 0, next_retry_at = null, error_message = null
from begun as b
where e.event_key = b.event_key
returning b.dead_letter_key
"""
# an event that is not at work stays with its dead letter
_END = """
update public.ingest_event_log as e
set process_status = 'FAILED', next_retry_at = null, error_message = coalesce(%(error)s, e.error_message)
where e.event_key = %(key)s
"""
_WORK = "select w.outcome, w.reason from phase2.work_events(array[%s::uuid], %s::double precision[]) as w"
_BOOKING = """
with booking as (
    select c.booking_key from public.booking_core as c
    join public.ingest_event_log as e
        on e.channel_code = c.channel_code and e.external_booking_ref = c.external_booking_ref
    where e.event_key = %s
)

select 'booking_core', t.booking_key::text, to_jsonb(t) from public.booking_core as t join booking using (booking_key)
union all
select 'booking_contact', t.booking_key::text, to_jsonb(t)
from public.booking_contact as t join booking using (booking_key)
union all
select 'booking_party', t.booking_key::text, to_jsonb(t)
from public.booking_party as t join booking using (booking_key)
union all
select 'booking_item_snapshot', t.booking_item_key::text, to_jsonb(t)
from public.booking_item_snapshot as t join booking using (booking_key)
union all
select 'ops_booking_state', t.booking_key::text, to_jsonb(t)
from public.ops_booking_state as t join booking using (booking_key)
union all
select 'channel_external_refs', t.external_ref_key::text, to_jsonb(t)
from public.channel_external_refs as t join booking on booking.booking_key = t.entity_key
where t.entity_type = 'BOOKING'
"""


@dataclass(frozen=True)
class Change:
    """A field that a replay would change; `before` and `after` are left out of personal ones."""

    table: str
    row: str
    field: str
    before: Any = None
    after: Any = None


@dataclass(frozen=True)
class Preview:
    """What a replay of this event would end as (`outcome`, as work_events names it), and what it would change."""

    eventId: UUID
    outcome: str
    reason: str | None
    changes: list[Change]


async def listed(
    pool: Pool,
    *,
    status: str | None = None,
    channel: str | None = None,
    reason_code: str | None = None,
    limit: int = 50,
    cursor: UUID | None = None,
) -> tuple[list[dict[str, Any]], UUID | None]:
    """The newest first, and the cursor of the next page if there is one; `limit` is taken to 1 to 200."""
    if status is not None and status not in STATUSES:
        raise _unknown(status)
    most = min(max(limit, 1), MOST)
    values = {"status": status, "channel": channel, "reason": reason_code, "before": cursor, "limit": most + 1}
    async with pool.connection() as conn:
        rows = await (await conn.cursor(row_factory=dict_row).execute(_LIST, values)).fetchall()
    return rows[:most], rows[most - 1]["deadLetterKey"] if len(rows) > most else None


async def one(pool: Pool, dead_letter_key: UUID) -> dict[str, Any]:
    """A dead letter in the contract's shape."""
    async with pool.connection() as conn:
        return await _one(conn, dead_letter_key)


async def transition(
    pool: Pool,
    dead_letter_key: UUID,
    status: str,
    admin: Admin,
    *,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Move a dead letter to another status, if that is allowed (else 409); the dead letter as it is then."""
    if status not in STATUSES:
        raise _unknown(status)
    async with pool.connection() as conn, conn.transaction():
        before = await _one(conn, dead_letter_key)
        await conn.execute(_LOCK, (before["eventId"],))
        before = await _one(conn, dead_letter_key)
        if status not in TRANSITIONS.get(before["status"], ()):
            raise Refused(409, "INVALID_TRANSITION", f"a dead letter does not go from {before['status']} to {status}")
        if before["status"] == "REPLAYING":
            await conn.execute(_END, {"key": before["eventId"], "error": None})
        await conn.execute(
            "update public.ingest_dead_letter as d set status = %s, updated_at = now() where d.dead_letter_key = %s",
            (status, dead_letter_key),
        )
        await audit.record(
            conn,
            "INGEST_DEAD_LETTER_STATUS_UPDATED",
            admin,
            resource_type="ingest_dead_letter",
            resource_id=dead_letter_key,
            before={"status": before["status"]},
            after={"status": status},
            reason=reason,
            ticket=ticket,
        )
        return await _one(conn, dead_letter_key)


async def fail(
    pool: Pool,
    event_key: UUID,
    admin: Admin,
    *,
    reason_code: str | None = None,
    reason_detail: str | None = None,
    poison_message: bool | None = None,
    reason: str | None = None,
    ticket: str | None = None,
) -> dict[str, Any]:
    """Move an event to the dead letters, also one that is DONE (what it did stays); its dead letter."""
    code = (reason_code or "MANUAL").strip().upper()[:64] or "MANUAL"
    async with pool.connection() as conn, conn.transaction():
        if not (await conn.execute(_LOCK, (event_key,))).rowcount:
            raise _no_event()
        found = await (
            await conn.execute("select e.process_status from public.ingest_event_log as e where e.event_key = %s "
                               "for update", (event_key,))
        ).fetchone()  # fmt: skip
        await conn.execute(_END, {"key": event_key, "error": code})
        row = await (
            await conn.execute(
                "select phase2.bury(%s, %s, %s, %s)", (event_key, code, reason_detail, bool(poison_message))
            )
        ).fetchone()
        assert found is not None
        assert row is not None
        after = await _one(conn, row[0])
        await audit.record(
            conn,
            "INGEST_EVENT_MARKED_FAILED",
            admin,
            resource_type="ingest_event",
            resource_id=event_key,
            before={"processStatus": found[0]},
            after={"processStatus": "FAILED", "deadLetterKey": str(row[0]), "status": after["status"]},
            reason=reason or reason_detail,
            ticket=ticket,
            reason_code=code,
        )
        return after


async def preview(pool: Pool, event_keys: Sequence[UUID]) -> list[Preview]:
    """What replaying these would do, one after the other in this order: done in a transaction that is rolled back."""
    found: list[Preview] = []
    async with pool.connection() as conn, conn.transaction():
        for key in event_keys:
            if not (await conn.execute(_LOCK, (key,))).rowcount:
                raise _no_event()
            await conn.execute("update public.ingest_dead_letter set status = 'READY' where event_key = %s", (key,))
            await conn.execute(_BEGIN, {"key": key})
            before = await _booking(conn, key)
            retries = list(core_settings().ingest_retry_seconds)
            outcome = await (await conn.execute(_WORK, (key, retries))).fetchone()
            assert outcome is not None
            found.append(Preview(key, *outcome, _changes(before, await _booking(conn, key))))
        raise Rollback
    return found


async def ready(
    pool: Pool, *, channel: str | None = None, reason_code: str | None = None, limit: int = MOST
) -> list[UUID]:
    """The events that a replay with these filters would take, in its order: that of their acceptance."""
    async with pool.connection() as conn:
        return await _ready(conn, None, channel, reason_code, limit)


async def of_events(pool: Pool, event_keys: Sequence[UUID]) -> list[dict[str, Any]]:
    """The dead letters of these events, in the order of their acceptance."""
    async with pool.connection() as conn:
        return await (await conn.cursor(row_factory=dict_row).execute(_OF, (list(event_keys),))).fetchall()


async def replay(
    pool: Pool,
    queue: IngestQueue | None,
    admin: Admin,
    *,
    enabled: bool,
    reason: str,
    limit: int = MOST,
    channel: str | None = None,
    reason_code: str | None = None,
    events: Sequence[UUID] | None = None,
    ticket: str | None = None,
) -> tuple[list[UUID], bool]:
    """Replay what is READY, in the order of acceptance, at most `limit`; which events, and whether they are queued.

    `events`: exactly these, as somebody has previewed them; 409 when one of them is not READY any more. 503 when not
    `enabled`. Not queued (Redis is away) is not lost: the sweeper brings them.
    """
    if not enabled:
        refused = _off()
        async with pool.connection() as conn, conn.transaction():
            chosen = {"limit": limit, "channel": channel, "reason_code": reason_code}
            await _rejected(conn, "READY", admin, reason, ticket, refused, **chosen)
        raise refused
    async with pool.connection() as conn, conn.transaction():
        keys = await _ready(conn, events, channel, reason_code, limit)
        begun = [key for key in keys if await _begin(conn, key)]
        if events is not None and set(begun) != set(events):  # what comes after them may end otherwise without them
            raise Refused(409, "DEAD_LETTER_NOT_READY", "what was previewed is not READY any more: preview it again")
        for key in begun:
            await _requested(conn, key, admin, reason, ticket, limit=limit)
    return begun, await _queue(queue, begun)


async def replay_event(
    pool: Pool,
    queue: IngestQueue | None,
    event_key: UUID,
    admin: Admin,
    *,
    enabled: bool,
    reason: str | None = None,
    ticket: str | None = None,
) -> bool:
    """Replay one event; whether it is queued. 404, 409 unless its dead letter is READY, 503 when not `enabled`."""
    refused: Refused | None = None
    async with pool.connection() as conn, conn.transaction():
        if not (await conn.execute(_LOCK, (event_key,))).rowcount:
            raise _no_event()
        if not enabled:
            refused = _off()
        elif not await _begin(conn, event_key):
            refused = Refused(409, "DEAD_LETTER_NOT_READY", "the event has no dead letter that is READY")
        if refused:
            await _rejected(conn, event_key, admin, reason, ticket, refused)
        else:
            await _requested(conn, event_key, admin, reason, ticket)
    if refused:
        raise refused
    return await _queue(queue, [event_key])


# -- measures ---------------------------------------------------------------------------------------------------------

_BY_STATUS = "select d.status, count(*) from public.ingest_dead_letter as d group by d.status"
# One walk through the log, of each number of tries. An event is at work in a transaction only, and is FAILED until its
# retry: `processingRetry` and `queuedRetry`, which the contract names, count what another worker would leave so.
_RETRIES = """
select
    e.attempt_count,
    count(*) as events,
    count(*) filter (where e.process_status = 'FAILED' and e.next_retry_at is not null) as "pendingRetry",
    count(*) filter (where e.process_status = 'FAILED' and e.next_retry_at <= now()) as "dueRetry",
    count(*) filter (where e.process_status = 'PROCESSING') as "processingRetry",
    count(*) filter (where e.process_status = 'RECEIVED') as "queuedRetry",
    count(*) filter (where e.process_status = 'FAILED' and e.attempt_count >= %s) as "exhausted",
    min(e.next_retry_at) as earliest, max(e.next_retry_at) as latest
from public.ingest_event_log as e
group by e.attempt_count
order by e.attempt_count
"""
_RETRY_TOTALS = ("pendingRetry", "dueRetry", "processingRetry", "queuedRetry", "exhausted")
_PROCESSING = """
select
    count(*) as received,
    count(*) filter (where e.process_status = 'DONE') as done,
    count(*) filter (
        where e.process_status = 'FAILED' and not phase2.is_pending(e.process_status, e.next_retry_at)
    ) as failed,
    count(*) filter (where e.process_status = 'PROCESSING') as processing,
    count(*) filter (where phase2.is_pending(e.process_status, e.next_retry_at)) as pending,
    count(*) filter (where e.process_status = 'DONE' and e.processed_at is not null) as samples,
    percentile_cont(array[0.5, 0.95, 1]) within group (
        order by extract(epoch from e.processed_at - e.request_received_at) * 1000
    ) filter (where e.process_status = 'DONE') as latencies
from public.ingest_event_log as e
where e.created_at >= now() - %s * interval '1 minute'
"""


_PENDING = """
select count(*), coalesce(greatest(extract(epoch from now() - min(e.request_received_at)), 0), 0)::double precision
from public.ingest_event_log as e
where phase2.is_pending(e.process_status, e.next_retry_at)
"""


_BY_MINUTE = """
select
    date_trunc('minute', e.created_at) as minute, count(*) as received,
    count(*) filter (where e.process_status = 'DONE') as done,
    count(*) filter (
        where e.process_status = 'FAILED' and not phase2.is_pending(e.process_status, e.next_retry_at)
    ) as failed,
    percentile_cont(0.95) within group (order by extract(epoch from e.processed_at - e.request_received_at))
    filter (where e.process_status = 'DONE') as latency
from public.ingest_event_log as e
where e.created_at >= date_trunc('minute', now()) - %s * interval '1 minute'
group by minute
order by minute
"""


async def by_minute(pool: Pool, minutes: int) -> list[dict[str, Any]]:
    """Of the last minutes, each that had an event: how many came, are applied, failed; seconds in which 95 % were."""
    async with pool.connection() as conn:
        return await (await conn.cursor(row_factory=dict_row).execute(_BY_MINUTE, (minutes,))).fetchall()


async def depths(pool: Pool) -> tuple[dict[str, int], tuple[int, float]]:
    """Dead letters by status; events that are pending, and seconds since the oldest of them was accepted."""
    async with pool.connection() as conn:
        by_status = dict(await (await conn.execute(_BY_STATUS)).fetchall())
        pending = await (await conn.execute(_PENDING)).fetchone()
    assert pending is not None
    return by_status, (pending[0], pending[1])


async def queue_metrics(pool: Pool, queue: IngestQueue | None, *, enabled: bool) -> dict[str, Any]:
    """`GET /v1/ingest/metrics/queue`."""
    delays = core_settings().ingest_retry_seconds
    counts = await queue.counts() if queue else nothing_counted()
    async with pool.connection() as conn:
        by_status = dict(await (await conn.execute(_BY_STATUS)).fetchall())
        tries = await (await conn.cursor(row_factory=dict_row).execute(_RETRIES, (len(delays) + 1,))).fetchall()
    tried = [row for row in tries if row["attempt_count"]]
    return {
        "queue": {"enabled": enabled, **counts},
        "deadLetter": {
            "total": sum(by_status.values()),
            "byStatus": {status: by_status.get(status, 0) for status in STATUSES},
        },
        "retry": {
            "policy": {"maxAttempts": len(delays) + 1, "retryDelaysSeconds": list(delays)},
            "totals": {name: sum(row[name] for row in tried) for name in _RETRY_TOTALS}
            | {"withAttempt": sum(row["events"] for row in tried)},
            "nextRetryAt": {
                "earliest": min(filter(None, (row["earliest"] for row in tried)), default=None),
                "latest": max(filter(None, (row["latest"] for row in tried)), default=None),
            },
            "attemptHistogram": {str(row["attempt_count"]): row["events"] for row in tries},
        },
    }


async def processing_metrics(pool: Pool, window_minutes: int) -> dict[str, Any]:
    """`GET /v1/ingest/metrics/processing`: of the events accepted in the window; it is taken to 1 to 1440 minutes."""
    window = min(max(window_minutes, 1), 1440)
    async with pool.connection() as conn:
        row = await (await conn.cursor(row_factory=dict_row).execute(_PROCESSING, (window,))).fetchone()
    assert row is not None
    samples, latencies = row.pop("samples"), row.pop("latencies") or [None] * 3
    terminal = row["done"] + row["failed"]
    return {
        "windowMinutes": window,
        "totals": row | {"terminal": terminal},
        "successRate": row["done"] / terminal if terminal else None,
        "failureRate": row["failed"] / terminal if terminal else None,
        "latenciesMs": {"sampleCount": samples, **dict(zip(("median", "p95", "max"), latencies, strict=True))},
    }


# -- parts ------------------------------------------------------------------------------------------------------------


async def _one(conn: AsyncConnection[Any], dead_letter_key: UUID) -> dict[str, Any]:
    row = await (await conn.cursor(row_factory=dict_row).execute(_ONE, (dead_letter_key,))).fetchone()
    if row is None:
        raise Refused(404, "NOT_FOUND", "there is no such dead letter")
    return row


async def _ready(
    conn: AsyncConnection[Any], events: Sequence[UUID] | None, channel: str | None, reason_code: str | None, limit: int
) -> list[UUID]:
    values = {
        "events": events and list(events),
        "channel": channel,
        "reason": reason_code,
        "limit": min(max(limit, 1), MOST),
    }
    return [row[0] for row in await (await conn.execute(_READY, values)).fetchall()]


async def _begin(conn: AsyncConnection[Any], event_key: UUID) -> bool:
    """READY → REPLAYING, and the event as if it had just been accepted; False when it is not READY any more."""
    await conn.execute(_LOCK, (event_key,))
    return bool((await conn.execute(_BEGIN, {"key": event_key})).rowcount)


async def _requested(
    conn: AsyncConnection[Any], event_key: UUID, admin: Admin, reason: str | None, ticket: str | None, **more: Any
) -> None:
    await audit.record(
        conn,
        "INGEST_REPLAY_REQUESTED",
        admin,
        resource_type="ingest_event",
        resource_id=event_key,
        before={"status": "READY"},
        after={"status": "REPLAYING"},
        reason=reason,
        ticket=ticket,
        **more,
    )


async def _rejected(
    conn: AsyncConnection[Any],
    events: UUID | str,
    admin: Admin,
    reason: str | None,
    ticket: str | None,
    refused: Refused,
    **more: Any,
) -> None:
    await audit.record(
        conn,
        "INGEST_REPLAY_REJECTED",
        admin,
        resource_type="ingest_event",
        resource_id=events,
        reason=reason,
        ticket=ticket,
        code=refused.code,
        **more,
    )


async def _queue(queue: IngestQueue | None, event_keys: Sequence[UUID]) -> bool:
    if queue is None or not event_keys:
        return False
    try:
        await queue.add_again([(key, 0.0) for key in event_keys])
    except (RedisError, OSError, TimeoutError):
        return False
    return True


async def _booking(conn: AsyncConnection[Any], event_key: UUID) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of the event's booking, by table and key."""
    return {(table, key): row for table, key, row in await (await conn.execute(_BOOKING, (event_key,))).fetchall()}


def _changes(
    before: Mapping[tuple[str, str], Mapping[str, Any]], after: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[Change]:
    changes = []
    for table, row in sorted(before.keys() | after.keys()):
        old, new = before.get((table, row), {}), after.get((table, row), {})
        for field in sorted((old.keys() | new.keys()) - _CLOCKS):
            if old.get(field) != new.get(field):
                values = {} if field in _PERSONAL else {"before": _shown(field, old), "after": _shown(field, new)}
                changes.append(Change(table, row, field, **values))
    return changes


def _shown(field: str, row: Mapping[str, Any]) -> Any:
    """A value of a row of `to_jsonb`; times (all of them are named so) as in every answer: UTC, with `Z`."""
    value = row.get(field)
    return datetime.fromisoformat(value).astimezone(UTC) if field.endswith("_at") and value else value


def document(previews: Sequence[Preview]) -> list[dict[str, Any]]:
    """Previews as JSON."""
    return [asdict(one) for one in previews]


def _unknown(status: str) -> Refused:
    return Refused(422, "VALIDATION_ERROR", f"status: is none of {', '.join(STATUSES)}")


def _off() -> Refused:
    return Refused(503, "INGEST_REPLAY_DISABLED", "replay is switched off", headers={"retry-after": "60"})


def _no_event() -> Refused:
    return Refused(404, "NOT_FOUND", "there is no such event")
