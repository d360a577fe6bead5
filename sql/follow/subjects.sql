-- What rows of the queue may be about: the touched bookings, their items, payments and finances (those that are gone
-- too), and their names.
insert into phase2.touched_subjects (source_system, source_table, source_pk)
select
    t.source_system,
    case t.source_system when 'balisnap' then 'Booking' else 'bookings' end as source_table,
    t.booking_id::text as source_pk
from phase2.touched_bookings as t
union
select
    'balisnap' as source_system,
    'BookingItem' as source_table,
    i.booking_item_id::text as source_pk
from landing_balisnap."BookingItem" as i
inner join phase2.touched_bookings as t on i.booking_id = t.booking_id and t.source_system = 'balisnap'
union
select
    'balisnap' as source_system,
    'Payment' as source_table,
    p.payment_id::text as source_pk
from landing_balisnap."Payment" as p
inner join phase2.touched_bookings as t on p.booking_id = t.booking_id and t.source_system = 'balisnap'
union
select
    'bstadmin' as source_system,
    'booking_finances' as source_table,
    f.booking_finance_id::text as source_pk
from landing_bstadmin.booking_finances as f
inner join phase2.touched_bookings as t on f.booking_id = t.booking_id and t.source_system = 'bstadmin'
union
select
    c.source,
    c.table_name,
    c.pk::text as source_pk
from phase2.landed_changes as c
where
    c.change_no > current_setting('phase2.since')::bigint
    and c.table_name in ('BookingItem', 'Payment', 'booking_finances')
union
-- of names the queue holds no more than 128 characters, so its rows are known by their keys; made of names that begin
-- like one there, which are few
select
    'canonical' as source_system,
    'booking_identity' as source_table,
    rulebook.queue_key(
        'BOOKING_REVIEW', 'canonical', 'booking_identity', n.channel_code || ':' || n.external_ref, r.reason_code
    )::text as source_pk
from phase2.touched_names as n
cross join (values ('INVALID_SOURCE'), ('MULTI_MATCH'), ('NO_MATCH')) as r (reason_code)
where
    left(n.channel_code || ':' || n.external_ref, 128) in (
        select q.source_pk
        from public.unmapped_queue as q
        where q.source_system = 'canonical' and q.source_table = 'booking_identity'
    )
