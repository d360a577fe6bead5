-- One round, beside that of close.sql: what gates held against each other when they measured last, and hold now.
insert into phase2.touched_keys (booking_key, round)
select
    k.key_by_identity as booking_key,
    current_setting('phase2.round')::integer + 1 as round
from dbt_recon.kept_recon_source_identities as k
inner join phase2.touched_bookings as t
    on
        k.source_system = t.source_system
        and k.booking_id = t.booking_id
        and t.round = current_setting('phase2.round')::integer
where k.key_by_identity is not null
union
select
    k.key_by_source_id as booking_key,
    current_setting('phase2.round')::integer + 1 as round
from dbt_recon.kept_recon_source_identities as k
inner join phase2.touched_bookings as t
    on
        k.source_system = t.source_system
        and k.booking_id = t.booking_id
        and t.round = current_setting('phase2.round')::integer
where k.key_by_source_id is not null
on conflict do nothing;

-- names that these had when they were measured, and whoever had them then
insert into phase2.touched_names (channel_code, external_ref, round)
select
    k.channel_code,
    k.external_booking_ref,
    current_setting('phase2.round')::integer + 1 as round
from dbt_recon.kept_recon_source_identities as k
inner join phase2.touched_bookings as t
    on
        k.source_system = t.source_system
        and k.booking_id = t.booking_id
        and t.round = current_setting('phase2.round')::integer
where k.channel_code is not null and k.external_booking_ref is not null
on conflict do nothing;

insert into phase2.touched_bookings (source_system, booking_id, round)
select
    k.source_system,
    k.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from dbt_recon.kept_recon_source_identities as k
inner join phase2.touched_names as n
    on
        k.external_booking_ref = n.external_ref
        and k.channel_code = n.channel_code
        and n.round = current_setting('phase2.round')::integer
on conflict do nothing;

insert into phase2.touched_bookings (source_system, booking_id, round)
select
    k.source_system,
    k.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from dbt_recon.kept_recon_source_identities as k
inner join
    phase2.touched_keys as t
    on k.key_by_identity = t.booking_key and t.round = current_setting('phase2.round')::integer
union
select
    k.source_system,
    k.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from dbt_recon.kept_recon_source_identities as k
inner join
    phase2.touched_keys as t
    on k.key_by_source_id = t.booking_key and t.round = current_setting('phase2.round')::integer
on conflict do nothing;

-- refs as they are: whoever has others than when they were measured was written, and is where it starts
insert into phase2.touched_bookings (source_system, booking_id, round)
select distinct
    case e.external_ref_kind when 'BALISNAP_BOOKING_ID' then 'balisnap' else 'bstadmin' end as source_system,
    e.external_ref::bigint as booking_id,
    current_setting('phase2.round')::integer + 1 as round
from public.channel_external_refs as e
inner join
    phase2.touched_keys as t
    on e.entity_key = t.booking_key and t.round = current_setting('phase2.round')::integer
where
    current_setting('phase2.round')::integer = 0
    and e.entity_type = 'BOOKING'
    and e.external_ref_kind in ('BALISNAP_BOOKING_ID', 'BSTADMIN_BOOKING_ID')
    and e.external_ref ~ '^[0-9]{1,18}$'
on conflict do nothing;

-- where the bridge has items, payments and finances of these bookings
insert into phase2.touched_keys (booking_key, round)
select
    s.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from landing_balisnap."BookingItem" as i
inner join phase2.touched_bookings as t
    on
        i.booking_id = t.booking_id
        and t.source_system = 'balisnap'
        and t.round = current_setting('phase2.round')::integer
inner join public.booking_item_snapshot as s
    on
        s.booking_item_key
        = rulebook.named_key('booking', 'balisnap:BookingItem:' || i.booking_item_id::text)
union
select
    e.booking_key,
    current_setting('phase2.round')::integer + 1 as round
from landing_balisnap."Payment" as p
inner join phase2.touched_bookings as t
    on
        p.booking_id = t.booking_id
        and t.source_system = 'balisnap'
        and t.round = current_setting('phase2.round')::integer
inner join public.payment_event as e
    on e.payment_key = rulebook.row_key('payment', 'balisnap', 'Payment', p.payment_id::text)
on conflict do nothing;

-- whose items, payments and finances the bridge has there
insert into phase2.touched_bookings (source_system, booking_id, round)
select
    'balisnap' as source_system,
    k.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from public.booking_item_snapshot as s
inner join
    phase2.touched_keys as t
    on s.booking_key = t.booking_key and t.round = current_setting('phase2.round')::integer
inner join dbt_recon.kept_recon_rows_items as k on s.booking_item_key = k.bridge_key
union
select
    'balisnap' as source_system,
    k.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from public.payment_event as e
inner join
    phase2.touched_keys as t
    on e.booking_key = t.booking_key and t.round = current_setting('phase2.round')::integer
inner join dbt_recon.kept_recon_rows_payments as k on e.payment_key = k.bridge_key
union
select
    'bstadmin' as source_system,
    k.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from public.ops_finance_bridge as f
inner join
    phase2.touched_keys as t
    on f.booking_key = t.booking_key and t.round = current_setting('phase2.round')::integer
inner join dbt_recon.kept_recon_rows_finances as k on f.finance_bridge_key = k.bridge_key
union
-- by the id that the bridge says, too: whether it is settled is asked by that
select
    'bstadmin' as source_system,
    l.booking_id,
    current_setting('phase2.round')::integer + 1 as round
from public.ops_finance_bridge as f
inner join
    phase2.touched_keys as t
    on f.booking_key = t.booking_key and t.round = current_setting('phase2.round')::integer
inner join landing_bstadmin.booking_finances as l on f.booking_finance_id = l.booking_finance_id
on conflict do nothing
