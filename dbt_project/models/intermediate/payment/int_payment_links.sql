with payments as (
    select * from {{ ref('int_payments') }}
),

candidates as (
    select
        booking_id,
        booking_key,
        channel_code
    from {{ ref('int_booking_candidates') }}
    where source_system = 'balisnap' and source_table = 'Booking'
),

resolutions as (
    select
        booking_key,
        source_pk::bigint as payment_id
    from {{ ref('int_payment_resolutions') }}
    where source_system = 'balisnap' and source_table = 'Payment' and source_pk ~ '^[0-9]{1,18}$'
)

select
    payments.payment_id,
    payments.payment_key,
    payments.booking_id,
    payments.payment_date,
    payments.amount,
    payments.currency_code,
    payments.method,
    payments.gateway,
    payments.gateway_order_id,
    payments.gateway_capture_id,
    payments.payment_ref,
    payments.status_raw,
    payments.payment_status_v2,
    payments.is_capture,
    payments.is_refund,
    payments.is_cancelled,
    payments.is_bridgeable,
    payments.problems,
    candidates.channel_code,
    coalesce(resolutions.booking_key, candidates.booking_key) as booking_key,
    case
        when resolutions.booking_key is not null then 'RESOLUTION'
        when candidates.booking_key is not null then 'BOOKING'
    end as linked_by
from payments
left join candidates on payments.booking_id = candidates.booking_id
left join resolutions on payments.payment_id = resolutions.payment_id
