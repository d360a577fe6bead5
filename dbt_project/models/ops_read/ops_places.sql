-- Where each booking of ops_bookings stands in a list: what a page is found by, from indexes alone, before its rows are
-- put together.
select
    cores.booking_key,
    cores.channel_code::text as channel,
    cores.external_booking_ref::text as reference,
    cores.tour_date,
    cores.booking_created_at as created_at,
    cores.ops_fulfillment_status::text as status
from {{ source('bridge', 'booking_core') }} as cores
where
    cores.channel_code <> 'DIRECT'
    -- one look per booking of DIRECT; `exists` would gather the refs of all bookings first
    or coalesce(
        (
            select true from {{ source('bridge', 'channel_external_refs') }} as numbers
            where
                numbers.entity_key = cores.booking_key
                and numbers.entity_type = 'BOOKING'
                and numbers.external_ref_kind = 'BSTADMIN_BOOKING_ID'
                and numbers.external_ref ~ '^[0-9]{1,10}$'
            order by numbers.entity_key -- nothing to be sorted
            limit 1
        ),
        false
    )
