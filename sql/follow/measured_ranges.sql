-- Of every source booking, and of every few keys of the bridge: the row versions of all that gates measure there.
-- `-1`: whose booking it is cannot be told.
drop table if exists pg_temp.measured_now;

create temporary table measured_now as
with queued as (
    select
        q.source_system,
        q.source_table,
        q.source_pk,
        case when q.source_pk ~ '^[0-9]{1,9}$' then q.source_pk::bigint end as pk,
        hash_record_extended(row(q.ctid, q.xmin), 1) as version
    from public.unmapped_queue as q
)

select
    r.part,
    coalesce(r.range_no, -1)::bigint as range_no,
    count(*) as row_count,
    bit_xor(r.version) as version
from (
    select
        'balisnap' as part,
        t.booking_id as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 2) as version
    from landing_balisnap."Booking" as t
    union all
    select
        'balisnap' as part,
        t.booking_id as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 3) as version
    from landing_balisnap."BookingItem" as t
    union all
    select
        'balisnap' as part,
        t.booking_id as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 4) as version
    from landing_balisnap."Payment" as t
    union all
    select
        'balisnap' as part,
        i.booking_id as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 5) as version
    from landing_balisnap."BookingTraveler" as t
    left join landing_balisnap."BookingItem" as i on t.booking_item_id = i.booking_item_id
    union all
    select
        'departure' as part,
        t.departure_id as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 6) as version
    from landing_balisnap."Departure" as t
    union all
    select
        'bstadmin' as part,
        t.booking_id as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 7) as version
    from landing_bstadmin.bookings as t
    union all
    select
        'bstadmin' as part,
        t.booking_id as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 8) as version
    from landing_bstadmin.booking_finances as t
    union all
    select
        'bstadmin' as part,
        f.booking_id as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 9) as version
    from landing_bstadmin.booking_finance_items as t
    left join landing_bstadmin.booking_finances as f on t.booking_finance_id = f.booking_finance_id
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 10) as version
    from public.booking_core as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 11) as version
    from public.booking_contact as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 12) as version
    from public.booking_party as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 13) as version
    from public.booking_item_snapshot as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 14) as version
    from public.payment_event as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 15) as version
    from public.ops_booking_state as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 16) as version
    from public.ops_assignment as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 17) as version
    from public.ops_finance_bridge as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.booking_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 18) as version
    from phase2.booking_freshness as t
    union all
    select
        'key' as part,
        uuid_hash_extended(t.entity_key, 0) & 1048575 as range_no,
        hash_record_extended(row(t.ctid, t.xmin), 19) as version
    from public.channel_external_refs as t
    where t.entity_type = 'BOOKING'
    union all
    select
        q.source_system as part,
        q.pk as range_no,
        q.version
    from queued as q
    where q.source_table in ('Booking', 'bookings')
    union all
    -- what is about a row that is not landed says nothing of a landed one
    select
        'balisnap' as part,
        i.booking_id as range_no,
        q.version
    from queued as q
    inner join landing_balisnap."BookingItem" as i on q.pk = i.booking_item_id
    where q.source_table = 'BookingItem'
    union all
    select
        'balisnap' as part,
        p.booking_id as range_no,
        q.version
    from queued as q
    inner join landing_balisnap."Payment" as p on q.pk = p.payment_id
    where q.source_table = 'Payment'
    union all
    select
        'bstadmin' as part,
        f.booking_id as range_no,
        q.version
    from queued as q
    inner join landing_bstadmin.booking_finances as f on q.pk = f.booking_finance_id
    where q.source_table = 'booking_finances'
    union all
    select
        'key' as part,
        uuid_hash_extended(c.booking_key, 0) & 1048575 as range_no,
        q.version
    from queued as q
    inner join public.booking_core as c on q.source_pk = left(c.channel_code || ':' || c.external_booking_ref, 128)
    where q.source_system = 'canonical'
) as r
group by r.part, coalesce(r.range_no, -1);

analyze pg_temp.measured_now
