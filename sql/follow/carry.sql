-- The other batch has these bookings to follow too, whatever it finds by itself.
insert into phase2.landed_changes (source, table_name, pk, kind, parent, for_batch)
select
    t.source_system,
    case t.source_system when 'balisnap' then 'Booking' else 'bookings' end as table_name,
    t.booking_id,
    'touched' as kind,
    t.booking_id as parent,
    current_setting('phase2.batch') as for_batch
from phase2.touched_bookings as t;

insert into phase2.landed_changes (source, table_name, pk, kind, booking_key, for_batch)
select
    'bridge' as source,
    'booking_core' as table_name,
    0 as pk,
    'touched' as kind,
    k.booking_key,
    current_setting('phase2.batch') as for_batch
from phase2.touched_keys as k
left join dbt_intermediate.whole_booking_candidates as w on k.booking_key = w.booking_key
where w.booking_key is null
