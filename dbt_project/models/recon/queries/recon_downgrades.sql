-- Gate E-04. Bookings that were PAID before (the snapshot of batch E, or its last verdict) and are not PAID now. A
-- reversal explains it (mapping 5.3): a refund, on DIRECT when they are REFUNDED now; or a payment turned cancelled,
-- when the bridge held that very payment as captured. Any other cancelled payment is an attempt that came to nothing.
{{ config(twin='composite') }}

with fallen as (
    select
        cores.booking_key,
        cores.channel_code,
        cores.external_booking_ref,
        cores.customer_payment_status
    from {{ source('bridge', 'booking_core') }} as cores
    where
        cores.customer_payment_status <> 'PAID'
        and (
            exists (
                select 1 from {{ source('phase2', 'status_snapshot') }} as s
                where s.booking_key = cores.booking_key and s.customer_payment_status = 'PAID'
            )
            or exists (
                select 1 from {{ source('phase2', 'paid_bookings') }} as p
                where p.booking_key = cores.booking_key
            )
        )
),

-- a payment belongs to the booking that the bridge put it on (a person may have said which)
payments as (
    select
        landed.payment_key,
        coalesce(events.booking_key, links.booking_key) as booking_key,
        landed.payment_status_v2,
        landed.payment_status
    from (
        select
            p.booking_id,
            p.payment_status_v2,
            p.payment_status,
            {{ function('row_key') }}('payment', 'balisnap', 'Payment', p.payment_id::text) as payment_key
        from {{ source('balisnap', 'Payment') }} as p
    ) as landed
    left join {{ source('bridge', 'payment_event') }} as events on landed.payment_key = events.payment_key
    left join {{ ref('recon_booking_links') }} as links
        on landed.booking_id = links.booking_id and links.source_system = 'balisnap'
),

reversals as (
    select distinct fallen.booking_key
    from fallen
    inner join payments on fallen.booking_key = payments.booking_key
    left join {{ source('phase2', 'paid_bookings') }} as paid on fallen.booking_key = paid.booking_key
    where
        (
            (fallen.customer_payment_status = 'REFUNDED' or fallen.channel_code <> 'DIRECT')
            and {{ function('payment_status') }}(payments.payment_status_v2, payments.payment_status) = 'REFUNDED'
        )
        or (
            {{ function('norm_code') }}(coalesce(payments.payment_status_v2, payments.payment_status))
            in ('CANCELLED', 'CANCELED')
            and payments.payment_key = any(paid.captures)
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
