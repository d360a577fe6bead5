-- Gate E-02: DONE for operations, not PAID by the customer. Refunded on the day of the trip or later is listed apart; a
-- refund without a payment row has no day, and is taken as one of these.
{{ config(twin='kept') }}

with refunds as (
    select booking_key, max({{ function('bali_date') }}(payment_time)) as last_refund
    from {{ source('bridge', 'payment_event') }}
    where payment_status_v2 = 'REFUNDED'
    group by booking_key
)

select
    cores.booking_key,
    cores.channel_code,
    cores.external_booking_ref,
    cores.customer_payment_status,
    cores.customer_payment_status = 'REFUNDED'
    and coalesce(refunds.last_refund >= cores.tour_date, true) as is_refunded_after
from {{ source('bridge', 'booking_core') }} as cores
left join refunds on cores.booking_key = refunds.booking_key
where cores.ops_fulfillment_status = 'DONE' and cores.customer_payment_status <> 'PAID'
