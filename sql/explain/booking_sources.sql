-- The landed rows of one booking, by its ids (phase2.explain_balisnap, phase2.explain_bstadmin), and the key of the
-- bridge's row that each of them makes.
with balisnap as materialized (
    select
        current_setting('phase2.explain_balisnap')::integer[] as ids,
        current_setting('phase2.explain_balisnap') <> '{}' as is_asked -- no table is read for nothing
),

bstadmin as materialized (
    select
        current_setting('phase2.explain_bstadmin')::integer[] as ids,
        current_setting('phase2.explain_bstadmin') <> '{}' as is_asked -- no table is read for nothing
),

items as materialized (
    select t.*
    from landing_balisnap."BookingItem" as t
    where
        (select b.is_asked from balisnap as b)
        and t.booking_id = any((select b.ids from balisnap as b)::integer[])
),

finances as materialized (
    select t.*
    from landing_bstadmin.booking_finances as t
    where
        (select b.is_asked from bstadmin as b)
        and t.booking_id = any((select b.ids from bstadmin as b)::integer[])
),

found as (
    select
        1 as place,
        'balisnap' as source_system,
        'Booking' as source_table,
        t.booking_id as id,
        t.booking_id,
        null::uuid as makes,
        to_jsonb(t) as said
    from landing_balisnap."Booking" as t
    where
        (select b.is_asked from balisnap as b)
        and t.booking_id = any((select b.ids from balisnap as b)::integer[])
    union all
    select
        2 as place,
        'bstadmin' as source_system,
        'bookings' as source_table,
        t.booking_id as id,
        t.booking_id,
        null::uuid as makes,
        to_jsonb(t) as said
    from landing_bstadmin.bookings as t
    where
        (select b.is_asked from bstadmin as b)
        and t.booking_id = any((select b.ids from bstadmin as b)::integer[])
    union all
    select
        3 as place,
        'balisnap' as source_system,
        'BookingItem' as source_table,
        t.booking_item_id as id,
        t.booking_id,
        rulebook.named_key('booking', 'balisnap:BookingItem:' || t.booking_item_id) as makes,
        to_jsonb(t) as said
    from items as t
    union all
    select distinct
        3 as place,
        'balisnap' as source_system,
        'Departure' as source_table,
        t.departure_id as id,
        items.booking_id,
        null::uuid as makes,
        to_jsonb(t) as said
    from landing_balisnap."Departure" as t
    inner join items on t.departure_id = items.departure_id
    union all
    select
        4 as place,
        'balisnap' as source_system,
        'BookingTraveler' as source_table,
        t.traveler_id as id,
        items.booking_id,
        null::uuid as makes,
        to_jsonb(t) as said
    from landing_balisnap."BookingTraveler" as t
    inner join items on t.booking_item_id = items.booking_item_id
    where t.booking_item_id = any(array(select i.booking_item_id from items as i)) -- which parallel workers can ask
    union all
    select
        5 as place,
        'balisnap' as source_system,
        'Payment' as source_table,
        t.payment_id as id,
        t.booking_id,
        rulebook.row_key('payment', 'balisnap', 'Payment', t.payment_id::text) as makes,
        to_jsonb(t) as said
    from landing_balisnap."Payment" as t
    where
        (select b.is_asked from balisnap as b)
        and t.booking_id = any((select b.ids from balisnap as b)::integer[])
    union all
    select
        6 as place,
        'bstadmin' as source_system,
        'booking_finances' as source_table,
        t.booking_finance_id as id,
        t.booking_id,
        rulebook.row_key('finance', 'bstadmin', 'booking_finances', t.booking_finance_id::text) as makes,
        to_jsonb(t) as said
    from finances as t
    union all
    select
        7 as place,
        'bstadmin' as source_system,
        'booking_finance_items' as source_table,
        t.finance_item_id as id,
        finances.booking_id,
        null::uuid as makes,
        to_jsonb(t) as said
    from landing_bstadmin.booking_finance_items as t
    inner join finances on t.booking_finance_id = finances.booking_finance_id
    where t.booking_finance_id = any(array(select f.booking_finance_id from finances as f))
)

select
    source_system,
    source_table,
    id::text as source_pk,
    booking_id::text as booking_pk,
    makes,
    said
from found
order by place, source_table, id
