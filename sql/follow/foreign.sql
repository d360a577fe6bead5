-- What others wrote to the bridge since the last run (pg_temp.written: bridge/written.py).
insert into phase2.touched_keys (booking_key, round)
select
    c.booking_key,
    0 as round
from public.booking_core as c
inner join pg_temp.written as w on c.booking_key = w.key and w.part in ('booking', 'fresh')
on conflict do nothing;

insert into phase2.touched_names (channel_code, external_ref, round)
select distinct
    e.channel_code,
    e.external_booking_ref,
    0 as round
from public.ingest_event_log as e
inner join pg_temp.written as w on e.event_key = w.key and w.part = 'events'
where
    e.channel_code is not null and e.external_booking_ref is not null
on conflict do nothing;

drop table if exists pg_temp.queue_differing;

create temporary table queue_differing as
select
    q.source_system,
    q.source_table,
    q.source_pk,
    case when q.source_pk ~ '^[0-9]{1,18}$' then q.source_pk::bigint end as pk,
    case
        when
            q.payload #>> '{resolution,entity_key}'
            ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
            then (q.payload #>> '{resolution,entity_key}')::uuid
    end as booking_key
from public.unmapped_queue as q
inner join pg_temp.written as w on q.queue_key = w.key and w.part = 'queue'
where q.queue_type in ('BOOKING_REVIEW', 'PAYMENT_LINK');

insert into phase2.touched_keys (booking_key, round)
select
    c.booking_key,
    0 as round
from public.booking_core as c
where
    c.booking_key in (select d.booking_key from pg_temp.queue_differing as d)
    or (
        exists (
            select 1 from pg_temp.queue_differing as d
            where d.source_system = 'canonical'
        )
        and left(c.channel_code || ':' || c.external_booking_ref, 128) in (
            select d.source_pk from pg_temp.queue_differing as d
            where d.source_system = 'canonical'
        )
    )
on conflict do nothing;

insert into phase2.touched_names (channel_code, external_ref, round)
select distinct
    split_part(d.source_pk, ':', 1) as channel_code,
    substr(d.source_pk, strpos(d.source_pk, ':') + 1) as external_ref,
    0 as round
from pg_temp.queue_differing as d
where d.source_system = 'canonical'
on conflict do nothing;

insert into phase2.touched_bookings (source_system, booking_id, round)
select
    d.source_system,
    d.pk,
    0 as round
from pg_temp.queue_differing as d
where (d.source_system, d.source_table) in (('balisnap', 'Booking'), ('bstadmin', 'bookings')) and d.pk is not null
union
select
    'balisnap' as source_system,
    i.booking_id,
    0 as round
from landing_balisnap."BookingItem" as i
inner join pg_temp.queue_differing as d on i.booking_item_id = d.pk and d.source_table = 'BookingItem'
union
select
    'balisnap' as source_system,
    p.booking_id,
    0 as round
from landing_balisnap."Payment" as p
inner join pg_temp.queue_differing as d on p.payment_id = d.pk and d.source_table = 'Payment'
union
select
    'bstadmin' as source_system,
    f.booking_id,
    0 as round
from landing_bstadmin.booking_finances as f
inner join pg_temp.queue_differing as d on f.booking_finance_id = d.pk and d.source_table = 'booking_finances'
on conflict do nothing;

drop table pg_temp.queue_differing
