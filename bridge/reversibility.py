"""The reversibility meter: what a rollback to bstadmin alone would owe it now, until when that can be paid, and the
point of no return.

Nothing is asked of bstadmin: what it has is known from the writes that went there and from the last landing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg

from bridge import flags

EVENT_DAYS = 35  # an event stays in the log for so long (091)

# Of each kind what would have to be applied again. Writes are kept as long as the database is, events are not.
_OWED = """
with only_here as (
    -- first seen by ingestion, and no source has brought it since
    select t.booking_key
    from phase2.booking_event_times as t
    where
        t.made_here
        and not exists (
            select 1 from public.channel_external_refs as r
            where
                r.entity_type = 'BOOKING' and r.entity_key = t.booking_key
                and r.external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID')
        )
),
writes as (
    select i.booking_key, i.legacy_status, i.target
    from phase2.write_intents as i
    where
        i.core_status = 'DONE'
        and (
            i.legacy_status in ('PENDING', 'CONFLICT')
            or (i.legacy_status = 'NONE' and i.action <> 'playbook')
        )
),
partners as (
    select a.booking_key from public.ops_assignment as a where a.is_active and a.partner_id is not null
),
later as (
    -- an event is newer than what the last backfill brought
    select f.booking_key
    from phase2.booking_freshness as f
    join phase2.booking_source_times as s on s.booking_key = f.booking_key
    where f.last_event_time > s.source_updated_at
),
owed as (
    select 'writes that bstadmin has not got yet' as kind, w.booking_key, count(*) as rows, false as by_events
    from writes as w where w.legacy_status = 'PENDING' group by w.booking_key
    union all
    select 'writes in conflict', w.booking_key, count(*), false
    from writes as w where w.legacy_status = 'CONFLICT' group by w.booking_key
    union all
    select 'writes to bookings that bstadmin does not have', w.booking_key, count(*), false
    from writes as w where w.legacy_status = 'NONE' group by w.booking_key
    union all
    select 'partners, for whom bstadmin has no place', p.booking_key, count(*), false from partners as p group by 2
    union all
    select 'bookings that only the core has', o.booking_key, 1, true from only_here as o
    union all
    select 'bookings that an event has changed since the last backfill', l.booking_key, 1, true from later as l
)
select
    o.kind, c.currency_code, sum(o.rows)::bigint, count(*),
    sum(c.total_price) filter (where o.by_events),
    coalesce(sum(e.events), 0)::bigint, min(e.oldest) + %(days)s * interval '1 day',
    count(*) filter (where o.by_events and e.events = 0)
from owed as o
join public.booking_core as c on c.booking_key = o.booking_key
left join lateral (
    select count(*) as events, min(x.created_at) as oldest
    from public.ingest_event_log as x
    left join phase2.booking_source_times as s on s.booking_key = c.booking_key
    where
        o.by_events and x.channel_code = c.channel_code and x.external_booking_ref = c.external_booking_ref
        and x.event_time_normalized > coalesce(s.source_updated_at, '-infinity')
) as e on true
group by o.kind, c.currency_code
order by o.kind, c.currency_code
"""


@dataclass(frozen=True)
class Owed:
    """One kind of thing that bstadmin lacks. `until`: its oldest event leaves the log then; None: it is kept.
    `lost`: bookings whose events have left it."""

    kind: str
    rows: int
    bookings: int
    money: dict[str, str]
    events: int
    until: datetime | None
    lost: int


@dataclass(frozen=True)
class Meter:
    """What a rollback would owe, and the way back of each step."""

    owed: tuple[Owed, ...]
    until: datetime | None
    point_of_no_return: str
    steps: tuple[tuple[str, str, str], ...]  # step, how it stands, its way back

    @property
    def passed(self) -> bool:
        """Whether something can no longer be applied again from what is kept."""
        return any(one.lost for one in self.owed)


def measure(conn: psycopg.Connection) -> Meter:
    """Read the meter. Before batch A there is nothing to owe."""
    if conn.execute("select to_regclass('public.ingest_event_log') is null").fetchone() == (True,):
        found: list[tuple[object, ...]] = []
    else:
        found = conn.execute(_OWED, {"days": EVENT_DAYS}).fetchall()
    kinds: dict[str, list[tuple[object, ...]]] = {}
    for row in found:
        kinds.setdefault(str(row[0]), []).append(row)
    owed = tuple(_one(kind, rows) for kind, rows in kinds.items())
    ends = [one.until for one in owed if one.until]
    return Meter(owed, min(ends, default=None), _point(owed, min(ends, default=None)), _steps(conn))


def _one(kind: str, rows: list[tuple[object, ...]]) -> Owed:
    ends = [row[6] for row in rows if isinstance(row[6], datetime)]
    return Owed(
        kind,
        sum(int(str(row[2])) for row in rows),
        sum(int(str(row[3])) for row in rows),
        {str(row[1]): str(row[4]) for row in rows if row[4]},
        sum(int(str(row[5])) for row in rows),
        min(ends, default=None),
        sum(int(str(row[7])) for row in rows),
    )


def _point(owed: tuple[Owed, ...], until: datetime | None) -> str:
    """In a line for people."""
    lost = sum(one.lost for one in owed)
    if lost:
        return f"passed: the events of {lost} bookings have left the log ({EVENT_DAYS} days); only a backup has them"
    if until:
        return f"not reached; the oldest event that would be applied again leaves the log at {until:%Y-%m-%d %H:%M} UTC"
    return (
        "not reached, and no date brings it: it is the day on which bstadmin is no longer written (after the exit from"
        f" phase 2), and {EVENT_DAYS} days after its own intake of bookings is switched off"
    )


def _steps(conn: psycopg.Connection) -> tuple[tuple[str, str, str], ...]:
    rows = flags.read(conn)

    def stands(flag: flags.Flag) -> str:
        row = flags.in_force(flag, rows)
        return flags.words(row) or "off"

    return (
        ("F ingestion", stands("INGEST_WEBHOOK_ENABLED"), f"flags off; events stay for {EVENT_DAYS} days"),
        ("G reads", stands("OPS_READ_NEW_MODEL_ENABLED"), "flag off; nothing to apply again"),
        ("H writes", stands("OPS_WRITE_CORE_ENABLED"), "flag off; the worker takes what is open to bstadmin"),
        ("H web events", stands("WEB_EMIT_BOOKING_EVENT_ENABLED"), f"flag off; replay within {EVENT_DAYS} days"),
        ("H mail events", stands("EMAIL_PIPELINE_CORE_ENABLED"), f"flag off; replay within {EVENT_DAYS} days"),
        ("bstadmin no longer written", "not in phase 2", "none: the point of no return"),
    )
