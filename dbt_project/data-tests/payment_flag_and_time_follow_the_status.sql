-- Mapping 4.11: is_paid_flag is customer_payment_status = PAID, and paid_at stands only with the flag.
-- Bookings that events or the core API wrote are theirs (mapping 4.13).
-- depends_on: {{ ref('payment_booking_status') }}
-- depends_on: {{ ref('payment_ops_state') }}
select
    core.booking_key,
    core.customer_payment_status,
    state.is_paid_flag,
    state.paid_at
from {{ source('bridge', 'booking_core') }} as core
inner join {{ source('bridge', 'ops_booking_state') }} as state on core.booking_key = state.booking_key
left join {{ source('phase2', 'booking_freshness') }} as fresh on core.booking_key = fresh.booking_key
where
    fresh.booking_key is null
    and {{ touched_key('core.booking_key') }}
    and (
        state.is_paid_flag <> (core.customer_payment_status = 'PAID')
        or (state.paid_at is not null and not state.is_paid_flag)
    )
