-- A payment that is not bridged proves nothing (mapping 1), so only bridgeable ones are asked.
with payments as (
    select * from {{ ref('int_payments') }}
    where is_bridgeable
)

select
    booking_id,
    count(*) as payments,
    coalesce(bool_or(is_capture), false) as has_paid,
    coalesce(bool_or(is_capture and gateway_capture_id is not null), false) as paid_with_capture,
    coalesce(bool_or(is_capture and payment_ref is not null), false) as paid_with_ref,
    coalesce(bool_or(is_refund), false) as has_refund
from payments
group by booking_id
