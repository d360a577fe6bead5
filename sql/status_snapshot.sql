-- Batch E, before it writes: keep each booking's statuses as they are, once; its rollback restores exactly these.
-- A booking that came after the batch's first run is kept as it was when it was first seen here. These are found first:
-- the server compares with several processes only in a statement that writes no table of ours.
create temporary table not_kept on commit drop as
select c.booking_key
from public.booking_core as c
where not exists (
    select 1 from phase2.status_snapshot as k
    where k.booking_key = c.booking_key
);

analyze pg_temp.not_kept;

insert into phase2.status_snapshot (
    booking_key, customer_payment_status, ops_fulfillment_status, core_updated_at, has_state,
    state_ops_fulfillment_status, is_paid_flag, paid_at, state_version, state_updated_from_source, state_updated_at,
    run_id
)
select
    c.booking_key,
    c.customer_payment_status,
    c.ops_fulfillment_status,
    c.updated_at as core_updated_at,
    s.booking_key is not null as has_state,
    s.ops_fulfillment_status as state_ops_fulfillment_status,
    s.is_paid_flag,
    s.paid_at,
    s.state_version,
    s.updated_from_source as state_updated_from_source,
    s.updated_at as state_updated_at,
    (select r.run_id from phase2.run_context as r) as run_id
from pg_temp.not_kept as n
inner join public.booking_core as c on n.booking_key = c.booking_key
left join public.ops_booking_state as s on c.booking_key = s.booking_key
