-- Bookings that changes of landed rows lead to (pg_temp.changes_since).
insert into phase2.touched_bookings (source_system, booking_id, round)
select
    c.source,
    c.parent,
    0 as round
from pg_temp.changes_since as c
where c.table_name in ('Booking', 'BookingItem', 'Payment', 'bookings', 'booking_finances')
union
select
    'balisnap' as source_system,
    i.booking_id,
    0 as round
from landing_balisnap."BookingItem" as i
inner join pg_temp.changes_since as c on c.table_name = 'BookingTraveler' and i.booking_item_id = c.parent
union
select
    'balisnap' as source_system,
    i.booking_id,
    0 as round
from landing_balisnap."BookingItem" as i
inner join pg_temp.changes_since as c on c.table_name = 'Departure' and i.departure_id = c.parent
union
select
    'bstadmin' as source_system,
    f.booking_id,
    0 as round
from landing_bstadmin.booking_finances as f
inner join pg_temp.changes_since as c on c.table_name = 'booking_finance_items' and f.booking_finance_id = c.parent
on conflict do nothing;

insert into phase2.touched_keys (booking_key, round)
select distinct
    c.booking_key,
    0 as round
from pg_temp.changes_since as c
where c.booking_key is not null
on conflict do nothing;

drop table pg_temp.changes_since
