-- Rollback of batch E: empties payment events and finance links, after a dump of their queue rows, and puts each
-- booking's statuses, flags and times back as phase2.status_snapshot holds them from before the batch's first run,
-- `updated_at` included, and the reviews of bookings as phase2.review_snapshot holds them from batch D's last run.
-- What a person has decided stays, and what events have said since: the fulfilment status that one gave, and what it
-- opened for review. Events bring no payments: every payment event is the batch's. Pause the settlement sync first.
-- Idempotent: the snapshots are used up.

begin;
set local lock_timeout = '5s';
set local search_path = '';

-- The batch wrote reviews of its own landing: these are opened by it, or changed, and no person has moved them.
create temporary table reviews_of_the_batch on commit drop as
select q.queue_key
from public.unmapped_queue as q
left join phase2.review_snapshot as s on q.queue_key = s.queue_key
where
    exists (
        select 1 from phase2.warehouse_state as w
        where w.part = 'review snapshot'
    )  -- taken, though maybe empty
    and q.queue_type = 'BOOKING_REVIEW'
    and not (q.source_system = 'balisnap' and q.source_table = 'Payment')
    and q.source_system <> 'ingest'
    and (q.status = 'OPEN' or (q.status = 'CLOSED' and q.resolved_by = 'phase2 run: cause gone'))
    and not coalesce(q.payload ? 'resolution', false)
    and to_jsonb(q) - '{created_at,updated_at}'::text[] is distinct from s.review;

insert into phase2.unmapped_queue_dump (
    batch, run_id, queue_key, queue_type, channel_code, source_system, source_table, source_pk, reason_code,
    reason_detail, status, payload, resolved_by, resolved_at, created_at, updated_at
)
select
    'E' as batch,
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
    q.queue_type = 'PAYMENT_LINK'
    or (q.queue_type = 'BOOKING_REVIEW' and q.source_system = 'balisnap' and q.source_table = 'Payment')
    or q.queue_key in (select b.queue_key from pg_temp.reviews_of_the_batch as b);

create temporary table rolled_back on commit drop as
select
    'payment_event' as table_name,
    count(*) as rows
from public.payment_event
union all
select
    'ops_finance_bridge' as table_name,
    count(*) as rows
from public.ops_finance_bridge;

truncate public.payment_event, public.ops_finance_bridge;

with removed as (
    delete from public.unmapped_queue as q
    where
        q.queue_type = 'PAYMENT_LINK'
        or (q.queue_type = 'BOOKING_REVIEW' and q.source_system = 'balisnap' and q.source_table = 'Payment')
        or q.queue_key in (select b.queue_key from pg_temp.reviews_of_the_batch as b)
    returning 1
)

insert into pg_temp.rolled_back (table_name, rows)
select
    'unmapped_queue' as table_name,
    count(*) as rows
from removed;

with restored as (
    insert into public.unmapped_queue
    select r.*
    from phase2.review_snapshot as s
    cross join
        lateral jsonb_populate_record(
            null::public.unmapped_queue,
            s.review || jsonb_build_object('created_at', s.created_at, 'updated_at', s.updated_at)
        ) as r
    where s.queue_key in (select b.queue_key from pg_temp.reviews_of_the_batch as b)
    on conflict (queue_key) do nothing
    returning 1
)

insert into pg_temp.rolled_back (table_name, rows)
select
    'unmapped_queue, reviews restored' as table_name,
    count(*) as rows
from restored;

-- What it restores, with an event's word where one came since: of the payment only where no source has the booking.
create temporary table before_the_batch on commit drop as
with said as (
    select
        e.channel_code,
        e.external_booking_ref,
        max(e.processed_at) as at
    from public.ingest_event_log as e
    where e.process_status = 'DONE'
    group by e.channel_code, e.external_booking_ref
)

select
    s.booking_key,
    s.customer_payment_status,
    s.ops_fulfillment_status,
    s.core_updated_at,
    s.has_state,
    s.state_ops_fulfillment_status,
    s.is_paid_flag,
    s.paid_at,
    s.state_version,
    s.state_updated_from_source,
    s.state_updated_at,
    coalesce(t.booking_at is not null and said.at > s.taken_at, false) as event_said_status,
    t.made_here and t.source_at is null as no_source_has_it
from phase2.status_snapshot as s
inner join public.booking_core as c on s.booking_key = c.booking_key
left join phase2.booking_event_times as t on s.booking_key = t.booking_key
left join said on c.channel_code = said.channel_code and c.external_booking_ref = said.external_booking_ref;

update pg_temp.before_the_batch as b
set
    customer_payment_status
    = case when b.no_source_has_it then c.customer_payment_status else b.customer_payment_status end,
    ops_fulfillment_status = c.ops_fulfillment_status,
    state_ops_fulfillment_status = o.ops_fulfillment_status
from public.booking_core as c
left join public.ops_booking_state as o on c.booking_key = o.booking_key
where b.booking_key = c.booking_key and b.event_said_status;

-- Only rows whose statuses differ are written: what batch D changed since in other columns keeps its time.
with restored as (
    update public.booking_core as c
    set
        customer_payment_status = s.customer_payment_status,
        ops_fulfillment_status = s.ops_fulfillment_status,
        updated_at = s.core_updated_at
    from pg_temp.before_the_batch as s
    where
        c.booking_key = s.booking_key
        and (c.customer_payment_status, c.ops_fulfillment_status)
        is distinct from (s.customer_payment_status, s.ops_fulfillment_status)
    returning 1
)

insert into pg_temp.rolled_back (table_name, rows)
select
    'booking_core, statuses restored' as table_name,
    count(*) as rows
from restored;

with restored as (
    update public.ops_booking_state as o
    set
        ops_fulfillment_status = s.state_ops_fulfillment_status,
        is_paid_flag = s.is_paid_flag,
        paid_at = s.paid_at,
        state_version = s.state_version,
        updated_from_source = s.state_updated_from_source,
        updated_at = s.state_updated_at
    from pg_temp.before_the_batch as s
    where
        o.booking_key = s.booking_key
        and s.has_state
        and (o.ops_fulfillment_status, o.is_paid_flag, o.paid_at, o.state_version, o.updated_from_source)
        is distinct from (
            s.state_ops_fulfillment_status, s.is_paid_flag, s.paid_at, s.state_version, s.state_updated_from_source
        )
    returning 1
)

insert into pg_temp.rolled_back (table_name, rows)
select
    'ops_booking_state, statuses restored' as table_name,
    count(*) as rows
from restored;

delete from phase2.status_snapshot;
delete from phase2.review_snapshot;
delete from phase2.warehouse_state
where part = 'review snapshot';
delete from phase2.paid_bookings;
delete from phase2.audit_sample;
delete from phase2.source_leftovers
where source_table in ('Payment', 'booking_finances', 'booking_finance_items');

-- dbt's working tables hold what the batch computed; every run makes them again
drop schema if exists dbt_intermediate cascade;
drop table if exists dbt_recon.recon_e_reading;

select
    table_name,
    rows
from pg_temp.rolled_back
order by table_name collate "C";

commit;
