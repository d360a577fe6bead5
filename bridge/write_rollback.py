"""Rollback of the write path (blueprint 6.9): the flag goes off, what is open is taken to bstadmin."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

import psycopg

from bridge import flags, postgres
from bridge.flags import FRESH_SECONDS, Flag

FLAG: Flag = "OPS_WRITE_CORE_ENABLED"

# Of a frozen booking nothing is taken on: it waits for a person, and is told apart. A write of the minute before shows
# that there was traffic: without any there is nothing by which the time could be told.
_LEFT = """
select
    count(*) filter (where i.is_open and not i.is_frozen),
    count(*) filter (where i.is_open and i.is_frozen),
    count(*) filter (where i.core_status = 'BEHIND' and i.legacy_status = 'DONE'),
    extract(epoch from greatest(
        max(i.accepted_at) filter (where i.mode = 'DUAL') - %(at)s::timestamptz,
        case when count(*) filter (where i.is_recent) > 0 then interval '0' end
    ))
from (
    select
        w.mode, w.core_status, w.legacy_status, w.accepted_at,
        w.accepted_at > %(at)s::timestamptz - interval '1 minute' as is_recent,
        w.legacy_status = 'PENDING' or w.core_status = 'PENDING' as is_open,
        phase2.is_frozen(w.booking_key) as is_frozen
    from phase2.write_intents as w
    where
        w.accepted_at > %(at)s::timestamptz - interval '1 minute'
        or w.legacy_status = 'PENDING' or w.core_status in ('PENDING', 'BEHIND')
) as i
"""

# Events from before that are due, while the queue is on; one that waits for a retry holds those behind it.
_EVENTS = """
select count(*)
from public.ingest_event_log as e
left join public.booking_core as c
    on c.channel_code = e.channel_code and c.external_booking_ref = e.external_booking_ref
where
    e.created_at <= %(at)s
    and phase2.is_pending(e.process_status, e.next_retry_at)
    and exists (select 1 from phase2.flags as f where f.flag = 'INGEST_QUEUE_ENABLED' and f.enabled)
    and not coalesce(phase2.is_frozen(c.booking_key), false)
    and not exists (
        select 1 from public.ingest_event_log as b
        where
            b.source_enum = e.source_enum and b.external_booking_ref = e.external_booking_ref
            and phase2.is_pending(b.process_status, b.next_retry_at) and b.next_retry_at > now()
    )
"""


@dataclass(frozen=True)
class RolledBack:
    """How it went. `left`: writes that bstadmin has not got yet (0, or nobody takes them there: is the worker up?).

    `seconds_to_old_path` is how long after the change the last write still took the new path; None: nobody wrote.
    """

    switched_at: datetime
    seconds_to_old_path: float | None
    left: int
    frozen: int
    behind: int  # the core gets these when the flag is on again
    events: int  # due before the change, and not applied yet


def roll_back(ops_url: str, *, reason: str, wait_seconds: float = 60.0) -> RolledBack:
    """Switch writes through the core off, and wait until every process has seen it and nothing is open any more."""
    with postgres.connect(ops_url, application_name="phase2-rollback", autocommit=True) as conn:
        at = now(conn)
        flags.change(conn, FLAG, False, reason=reason)
        return drained(conn, at, wait_seconds)


def drained(conn: psycopg.Connection, at: datetime, wait_seconds: float = 60.0) -> RolledBack:
    """After the flag went off at `at`: wait for every process, for open writes and for events that are due."""
    time.sleep(FRESH_SECONDS)  # by then each process has looked again
    deadline = time.monotonic() + wait_seconds
    while True:
        left, frozen, behind, seconds = conn.execute(_LEFT, {"at": at}).fetchone() or (0, 0, 0, None)
        (events,) = conn.execute(_EVENTS, {"at": at}).fetchone() or (0,)
        if not (left or events) or time.monotonic() > deadline:
            taken = None if seconds is None else max(0.0, round(float(seconds), 2))
            return RolledBack(at, taken, left, frozen, behind, events)
        time.sleep(0.2)


def now(conn: psycopg.Connection) -> datetime:
    """The ops database's clock, by which writes are accepted."""
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0]
