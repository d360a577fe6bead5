-- What has to be measured again: bookings and keys in ranges that are not as they were (pg_temp.measured_differing).
insert into phase2.touched_bookings (source_system, booking_id, round)
select
    d.part as source_system,
    d.range_no as booking_id,
    0 as round
from pg_temp.measured_differing as d
where d.part in ('balisnap', 'bstadmin')
on conflict do nothing;

insert into phase2.touched_bookings (source_system, booking_id, round)
select distinct
    'balisnap' as source_system,
    i.booking_id,
    0 as round
from landing_balisnap."BookingItem" as i
inner join pg_temp.measured_differing as d on d.part = 'departure' and i.departure_id = d.range_no
on conflict do nothing;

-- keys of any row, also of one that hangs on nothing, and of what was kept of them
insert into phase2.touched_keys (booking_key, round)
select distinct
    k.booking_key,
    0 as round
from (
    select t.booking_key from public.booking_core as t
    union all
    select t.booking_key from public.booking_contact as t
    union all
    select t.booking_key from public.booking_party as t
    union all
    select t.booking_key from public.booking_item_snapshot as t
    union all
    select t.booking_key from public.payment_event as t
    union all
    select t.booking_key from public.ops_booking_state as t
    union all
    select t.booking_key from public.ops_assignment as t
    union all
    select t.booking_key from public.ops_finance_bridge as t
    union all
    select t.entity_key as booking_key from public.channel_external_refs as t
    where t.entity_type = 'BOOKING'
    union all
    select t.key_by_identity as booking_key from dbt_recon.kept_recon_source_identities as t
    union all
    select t.key_by_source_id as booking_key from dbt_recon.kept_recon_source_identities as t
    union all
    select t.booking_key from dbt_recon.kept_recon_audit_sample as t
    union all
    select o.booking_key from pg_temp.kept_findings as o
) as k
where
    exists (
        select 1 from pg_temp.measured_differing as d
        where d.part = 'key'
    )
    and (uuid_hash_extended(k.booking_key, 0) & 1048575) in (
        select d.range_no from pg_temp.measured_differing as d
        where d.part = 'key'
    )
on conflict do nothing
