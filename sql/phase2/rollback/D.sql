-- Rollback of batch D: empties the booking bridge, after a dump of its review rows. Disable the bridge's readers first.
-- Idempotent. Refuses while batch E's rows hang on the bookings; E's two tables are named in the truncate because their
-- foreign keys ask for it, and are empty.
-- Events that were applied to these bookings are pending again, those too that made bookings of their own: when batch F
-- switches ingestion on again, each is applied anew, and what they make of the bookings does not depend on order.
-- Writes of the back office that bstadmin has come back with its rows; those to bookings that it does not have, and a
-- partner who is assigned, for whom it has no place, are open again, for when batch H switches writes on. Conflicts of
-- bookings that are gone are closed.
-- Refuses while ingestion is on: by a flag; or, where there are events or a worker, until a flag says that the queue is
-- off, since the environment may say otherwise. Refuses also when a booking shows, or remembers for another date, what
-- an event said that the retention has removed since: that could not come back. What the emitters could make no event
-- of stays in the queue.

begin;
set local lock_timeout = '5s';
set local search_path = '';

do $$
begin
    if exists (select 1 from public.payment_event) or exists (select 1 from public.ops_finance_bridge) then
        raise exception 'payments or finance links hang on the bookings: roll back batch E first';
    end if;
    if exists (
        select 1 from phase2.batch_state as b
        where b.batch = 'F' and b.status not in ('PENDING', 'ROLLED_BACK')
    ) or exists (
        select 1 from phase2.flags as f
        where f.enabled and f.flag in ('INGEST_QUEUE_ENABLED', 'INGEST_WEBHOOK_ENABLED')
    ) then
        raise exception 'ingestion is on, and writes bookings: roll back batch F, or switch its flags off';
    end if;
    if not exists (
        select 1 from phase2.flags as f
        where f.flag = 'INGEST_QUEUE_ENABLED' and not f.enabled
    ) and (
        exists (select 1 from public.ingest_event_log)
        or exists (
            select 1 from pg_catalog.pg_stat_activity as a
            where a.datname = current_database() and a.application_name = 'phase2-ingest-worker'
        )
    ) then
        raise exception 'the environment of a worker may say that ingestion is on: set INGEST_QUEUE_ENABLED off first';
    end if;
    if exists (
        select 1
        from phase2.booking_event_times as t
        inner join public.booking_core as c on t.booking_key = c.booking_key
        cross join lateral (
            select unnest(array[
                t.first_event_at, t.booking_at, t.name_at, t.email_at, t.phone_at, t.pickup_at, t.meeting_point_at,
                t.note_at
            ]) as at
            union all
            select h.at
            from jsonb_each(t.tour_times) as d
            cross join lateral (select (d.value ->> 'at')::timestamptz as at) as h
            -- an event's, at most 2 us behind its second; the sources' time of day is remembered beside them
            where
                extract(microseconds from h.at)::integer % 1000000 <= 2
                and h.at is distinct from t.source_at + interval '2 microseconds'
        ) as said
        where
            said.at is not null
            and not exists (
                select 1 from public.ingest_event_log as e
                where
                    e.channel_code = c.channel_code
                    and e.external_booking_ref = c.external_booking_ref
                    and e.event_time_normalized = date_trunc('second', said.at)
            )
    ) then
        raise exception 'bookings show what events said that the retention has removed: this would lose it';
    end if;
end
$$;

insert into phase2.unmapped_queue_dump (
    batch, run_id, queue_key, queue_type, channel_code, source_system, source_table, source_pk, reason_code,
    reason_detail, status, payload, resolved_by, resolved_at, created_at, updated_at
)
select
    'D' as batch,
    (select r.run_id from phase2.run_context as r) as run_id,
    q.queue_key,
    q.queue_type,
    q.channel_code,
    q.source_system,
    q.source_table,
    q.source_pk,
    q.reason_code,
    q.reason_detail,
    q.status,
    q.payload,
    q.resolved_by,
    q.resolved_at,
    q.created_at,
    q.updated_at
from public.unmapped_queue as q
where
    q.queue_type = 'BOOKING_REVIEW'
    and (q.source_system <> 'ingest' or q.source_table = 'ingest_event_log');

create temporary table rolled_back on commit drop as
select
    'booking_core' as table_name,
    count(*) as rows
from public.booking_core
union all
select
    'booking_contact' as table_name,
    count(*) as rows
from public.booking_contact
union all
select
    'booking_party' as table_name,
    count(*) as rows
from public.booking_party
union all
select
    'booking_item_snapshot' as table_name,
    count(*) as rows
from public.booking_item_snapshot
union all
select
    'ops_booking_state' as table_name,
    count(*) as rows
from public.ops_booking_state
union all
select
    'ops_assignment' as table_name,
    count(*) as rows
from public.ops_assignment
union all
select
    'channel_external_refs' as table_name,
    count(*) as rows
from public.channel_external_refs
where entity_type = 'BOOKING'
union all
select
    'unmapped_queue' as table_name,
    count(*) as rows
from public.unmapped_queue
where
    queue_type = 'BOOKING_REVIEW'
    and (source_system <> 'ingest' or source_table = 'ingest_event_log');

-- What was applied is pending again; what failed stays with its dead letter.
with pending as (
    update public.ingest_event_log
    set process_status = 'RECEIVED', processed_at = null, attempt_count = 0, error_message = null
    where process_status = 'DONE'
    returning 1
)

insert into pg_temp.rolled_back (table_name, rows)
select
    'ingest_event_log, pending again' as table_name,
    count(*) as rows
from pending;

with open_again as (
    update phase2.write_intents as i
    set core_status = 'BEHIND', core_error = 'rollback of batch D'
    where
        i.core_status = 'DONE'
        and (
            (i.legacy_status = 'NONE' and i.action <> 'playbook')
            or (
                i.target ->> 'assigned_partner_id' is not null
                and not exists (
                    select 1 from phase2.write_intents as l
                    where
                        l.booking_key = i.booking_key and l.place > i.place and l.core_status = 'DONE'
                        and l.target ? 'assigned_partner_id'
                )
            )
        )
    returning 1
)

insert into pg_temp.rolled_back (table_name, rows)
select
    'write_intents, open again' as table_name,
    count(*) as rows
from open_again;

update phase2.conflicts
set status = 'GONE', ended_at = now(), ended_by = current_user, reason = 'rollback of batch D'
where status = 'OPEN';

truncate
public.booking_core,
public.booking_contact,
public.booking_party,
public.booking_item_snapshot,
public.ops_booking_state,
public.ops_assignment,
public.payment_event,
public.ops_finance_bridge;

delete from public.channel_external_refs
where entity_type = 'BOOKING';
delete from public.unmapped_queue
where
    queue_type = 'BOOKING_REVIEW'
    and (source_system <> 'ingest' or source_table = 'ingest_event_log');
delete from phase2.source_leftovers
where source_table in ('Booking', 'BookingItem', 'BookingTraveler', 'Departure', 'bookings');

-- What is noted about bookings that are gone: a backfill from nothing must not take them for fresher than the sources.
delete from phase2.booking_freshness;
delete from phase2.booking_source_times;
delete from phase2.booking_event_times;
delete from phase2.status_snapshot;
delete from phase2.review_snapshot;
delete from phase2.warehouse_state
where part = 'review snapshot';

-- dbt's working tables hold what the batch computed; every run makes them again
drop schema if exists dbt_intermediate cascade;
drop table if exists dbt_recon.recon_d_reading;

select
    table_name,
    rows
from pg_temp.rolled_back
order by table_name collate "C";

commit;
