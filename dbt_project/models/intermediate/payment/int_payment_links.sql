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
        source_pk::bigint as payment_id,
        booking_key
    from {{ ref('int_payment_resolutions') }}
    where source_system = 'balisnap' and source_table = 'Payment' and source_pk ~ '^[0-9]{1,18}$'
)

select
    payments.*,
    coalesce(resolutions.booking_key, candidates.booking_key) as booking_key,
    candidates.channel_code,
    case
        when resolutions.booking_key is not null then 'RESOLUTION'
        when candidates.booking_key is not null then 'BOOKING'
    end as linked_by
from payments
left join candidates on payments.booking_id = candidates.booking_id
left join resolutions on payments.payment_id = resolutions.payment_id
