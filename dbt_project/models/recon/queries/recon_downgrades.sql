-- Gate E-04. Bookings that were PAID before (the snapshot of batch E, or its last verdict) and are not PAID now. A
-- reversal explains it: a refund, or the same captured payment turned cancelled (mapping 5.3).
with before as (
    select booking_key from {{ source('phase2', 'status_snapshot') }}
    where customer_payment_status = 'PAID'

    union

    select booking_key from {{ source('phase2', 'paid_bookings') }}
),

fallen as (
    select
        cores.booking_key,
        cores.channel_code,
        cores.external_booking_ref,
        cores.customer_payment_status
    from before
    inner join {{ source('bridge', 'booking_core') }} as cores on before.booking_key = cores.booking_key
    where cores.customer_payment_status <> 'PAID'
),

reversals as (
    select distinct fallen.booking_key
    from fallen
    inner join {{ ref('recon_booking_links') }} as links
        on fallen.booking_key = links.booking_key and links.source_system = 'balisnap'
    inner join {{ source('balisnap', 'Payment') }} as payments on links.booking_id = payments.booking_id
    left join {{ source('phase2', 'paid_bookings') }} as paid on fallen.booking_key = paid.booking_key
    where
        {{ function('payment_status') }}(payments.payment_status_v2, payments.payment_status) = 'REFUNDED'
        or (
            {{ function('norm_code') }}(coalesce(payments.payment_status_v2, payments.payment_status))
            in ('CANCELLED', 'CANCELED')
            and (
                {{ function('norm_text') }}(payments.gateway_capture_id) is not null
                or {{ function('row_key') }}('payment', 'balisnap', 'Payment', payments.payment_id::text)
                = any(paid.captures)
            )
        )
)

select
    fallen.booking_key,
    fallen.channel_code,
    fallen.external_booking_ref,
    fallen.customer_payment_status,
    reversals.booking_key is not null as is_reversed
from fallen
left join reversals on fallen.booking_key = reversals.booking_key
