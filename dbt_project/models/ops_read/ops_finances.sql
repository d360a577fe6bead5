-- The bookings of ops_bookings with what the finance summary adds up, and nothing that it would have to look for.
select
    cores.booking_key,
    cores.tour_date,
    cores.currency_code::text as currency,
    cores.number_of_adult + cores.number_of_child as heads,
    cores.total_price,
    cores.ops_fulfillment_status::text as status,
    states.is_paid_flag as is_paid,
    finances.booking_finance_id as finance_id,
    finances.validated_at,
    finances.is_locked,
    finances.settlement_status::text as settlement
from {{ source('bridge', 'booking_core') }} as cores
left join {{ source('bridge', 'ops_booking_state') }} as states on cores.booking_key = states.booking_key
left join {{ source('bridge', 'ops_finance_bridge') }} as finances on cores.booking_key = finances.booking_key
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
