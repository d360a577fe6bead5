-- Rollback of batch E: empties payment events and finance links, after a dump of their queue rows, and puts each
-- booking's statuses, flags and times back as phase2.status_snapshot holds them from before the batch's first run,
-- `updated_at` included. Pause the settlement sync first. Idempotent: the snapshot is used up.
-- Today every payment event is the batch's. Once ingestion writes its own (part 4), those must stay.

begin;
set local lock_timeout = '5s';
set local search_path = '';

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
    or (q.queue_type = 'BOOKING_REVIEW' and q.source_system = 'balisnap' and q.source_table = 'Payment');

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
    returning 1
)

insert into pg_temp.rolled_back (table_name, rows)
select
    'unmapped_queue' as table_name,
    count(*) as rows
from removed;

-- Only rows whose statuses differ are written: what batch D changed since in other columns keeps its time.
with restored as (
    update public.booking_core as c
    set
        customer_payment_status = s.customer_payment_status,
        ops_fulfillment_status = s.ops_fulfillment_status,
        updated_at = s.core_updated_at
    from phase2.status_snapshot as s
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
    from phase2.status_snapshot as s
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
delete from phase2.paid_bookings;
delete from phase2.source_leftovers
where source_table in ('Payment', 'booking_finances', 'booking_finance_items');

select
    table_name,
    rows
from pg_temp.rolled_back
order by table_name collate "C";

commit;
