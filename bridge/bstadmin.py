"""The legacy side of a write (blueprint 6.9): which connection, how a booking is read, and the guarded write.

The row of `audit_logs` that goes in with each write has the write's own id: whoever comes twice finds it and writes
nothing. What must not go in leaves such a row too, so that nobody brings it late.
"""

from __future__ import annotations

from typing import Any

from bridge.core_settings import core_settings
from bridge.policy import policy
from bridge.settings import databases

# The columns that writes of the back office and conflicts speak of. Several bookings of bstadmin may be one of the
# bridge's: the best-ranked stands for it (mapping 4.3).
_BOOKING = """
jsonb_build_object(
    'booking_id', b.booking_id, 'updated_at', b.updated_at, 'note', b.note, 'meeting_point', b.meeting_point,
    'package_id', b.package_id, 'assigned_driver_id', b.assigned_driver_id, 'assigned_at', b.assigned_at,
    'status', b.status, 'tour_date', b.tour_date, 'total_price', b.total_price, 'currency', b.currency,
    'source', b.source
)
"""
_RANKED = """
order by (b.is_paid and b.paid_at is not null) desc, b.is_paid desc, b.updated_at desc, b.booking_id desc
limit 1
"""
# the booking of these ids, and whether there is such a driver (of null: yes)
READ = f"""
select
    (select {_BOOKING} from public.bookings as b where b.booking_id = any(%(ids)s::integer[]) {_RANKED}),
    %(driver)s::integer is null or exists (select 1 from public.drivers as d where d.id = %(driver)s::integer)
"""  # noqa: S608
# of many bookings at once, with their finance: what the reconciliation compares
READ_ALL = f"""
select distinct on (a.booking_key)
    a.booking_key,
    {_BOOKING} || jsonb_build_object(
        'validated_at', f.validated_at, 'is_locked', coalesce(f.is_locked, false), 'pattern_id', f.pattern_id,
        'finance_items', coalesce(i.items, 0), 'unpaid_items', coalesce(i.unpaid, 0)
    )
from unnest(%(keys)s::uuid[], %(ids)s::integer[]) as a (booking_key, booking_id)
join public.bookings as b on b.booking_id = a.booking_id
left join public.booking_finances as f on f.booking_id = b.booking_id
left join lateral (
    select count(*) as items, count(*) filter (where not x.paid) as unpaid
    from public.booking_finance_items as x
    where x.booking_finance_id = f.booking_finance_id
) as i on true
order by
    a.booking_key, (b.is_paid and b.paid_at is not null) desc, b.is_paid desc, b.updated_at desc, b.booking_id desc
"""  # noqa: S608
CHANGED = "select b.booking_id from public.bookings as b where b.updated_at >= %s and b.updated_at < %s"
# the same row, held until the transaction ends
HOLD = f"""
select {_BOOKING}
from public.bookings as b
where b.booking_id = any(%(ids)s::integer[])
{_RANKED}
for update of b
"""  # noqa: S608
# what was done before under this id; asked when the row is held
DONE = "select l.action from public.audit_logs as l where l.id = %s"
WRITE = """
update public.bookings as b
set
    note = case when t.said ? 'note' then t.said ->> 'note' else b.note end,
    meeting_point = coalesce(t.said ->> 'meeting_point', b.meeting_point),
    package_id = case when t.said ? 'package_id' then (t.said ->> 'package_id')::integer else b.package_id end,
    assigned_driver_id = case
        when t.said ? 'assigned_driver_id' then (t.said ->> 'assigned_driver_id')::integer else b.assigned_driver_id
    end,
    assigned_at = case when t.said ? 'assigned_at' then (t.said ->> 'assigned_at')::timestamp else b.assigned_at end,
    status = coalesce((t.said ->> 'status')::public."BookingStatus", b.status),
    tour_date = coalesce((t.said ->> 'tour_date')::timestamp, b.tour_date),
    total_price = coalesce((t.said ->> 'total_price')::numeric, b.total_price),
    currency = coalesce(t.said ->> 'currency', b.currency),
    updated_at = greatest((clock_timestamp() at time zone 'UTC')::timestamp(3), b.updated_at + interval '1 millisecond')
from (select %(target)s::jsonb) as t (said)
where b.booking_id = %(booking_id)s
returning b.updated_at at time zone 'UTC'
"""
MARK = """
insert into public.audit_logs (id, action, entity, entity_id, old_value, new_value, user_agent)
values (%(id)s, %(action)s, 'Booking', %(booking_id)s::text, %(before)s, %(after)s, 'phase2-core-api')
"""
GUARDED = ("note", "meeting_point", "package_id", "assigned_driver_id")
WRITTEN, REFUSED = "UPDATE", "UPDATE_REFUSED"


def write_url() -> str | None:
    """BSTADMIN_WRITE_DB_URL. Unset: bstadmin's own URL where the policy is local, else none (writes answer 503)."""
    given = core_settings().bstadmin_write_db_url
    if given:
        return given.get_secret_value()
    return databases().bstadmin if policy().environment == "local" else None


def agrees(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether the row holds what a write expects: nobody has written there behind our back."""
    return all(found[name] == value for name, value in expected.items())
