-- What has to be measured again, beside what landed changes lead to: bookings of the bridge that were written
-- (pg_temp.written), and whatever rows of the queue that were written are about.
insert into phase2.touched_keys (booking_key, round)
select
    w.key as booking_key,
    0 as round
from pg_temp.written as w
where w.part = 'booking'
union
select
    w.key as booking_key,
    0 as round
from pg_temp.written as w
where w.part = 'fresh'
union
select
    c.booking_key,
    0 as round
from pg_temp.written as w
inner join public.unmapped_queue as q on w.key = q.queue_key and q.source_system = 'canonical'
inner join public.booking_core as c on q.source_pk = left(c.channel_code || ':' || c.external_booking_ref, 128)
where w.part = 'queue'
on conflict do nothing;

drop table if exists pg_temp.queue_written;

create temporary table queue_written as
select
    q.source_system,
    q.source_table,
    q.source_pk::bigint as pk
from pg_temp.written as w
inner join public.unmapped_queue as q on w.key = q.queue_key and q.source_pk ~ '^[0-9]{1,18}$'
where w.part = 'queue';

-- what is about a row that is not landed says nothing of a landed one
insert into phase2.touched_bookings (source_system, booking_id, round)
select
    q.source_system,
    q.pk as booking_id,
    0 as round
from pg_temp.queue_written as q
where q.source_table in ('Booking', 'bookings')
union
select
    'balisnap' as source_system,
    i.booking_id,
    0 as round
from pg_temp.queue_written as q
inner join landing_balisnap."BookingItem" as i on q.pk = i.booking_item_id
where q.source_table = 'BookingItem'
union
select
    'balisnap' as source_system,
    p.booking_id,
    0 as round
from pg_temp.queue_written as q
inner join landing_balisnap."Payment" as p on q.pk = p.payment_id
where q.source_table = 'Payment'
union
select
    'bstadmin' as source_system,
    f.booking_id,
    0 as round
from pg_temp.queue_written as q
inner join landing_bstadmin.booking_finances as f on q.pk = f.booking_finance_id
where q.source_table = 'booking_finances'
on conflict do nothing;

drop table pg_temp.queue_written
