-- Required query: payments on the wrong booking, flags and statuses that the payments contradict.
{{ config(twin='kept') }}

with events as (
    select
        events.payment_key,
        events.booking_key,
        events.payment_status_v2,
        landed.payment_id,
        links.booking_key as source_booking_key
    from {{ source('bridge', 'payment_event') }} as events
    left join {{ source('balisnap', 'Payment') }} as landed
        on
            events.payment_key
            = {{ function('row_key') }}('payment', 'balisnap', 'Payment', landed.payment_id::text)
    left join {{ ref('recon_booking_links') }} as links
        on landed.booking_id = links.booking_id and links.source_system = 'balisnap'
),

paying as (
    select
        booking_key,
        bool_or(payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED')) as has_capture,
        bool_or(payment_status_v2 = 'REFUNDED') as has_refund
    from events
    group by booking_key
),

reviewed as (
    select distinct source_pk
    from {{ source('bridge', 'unmapped_queue') }}
    where
        source_system = 'canonical' and source_table = 'booking_identity'
        and status in ('OPEN', 'IN_REVIEW', 'RESOLVED')
)

select
    'E' as batch,
    'payment' as entity,
    events.payment_key as key,
    'WRONG_BOOKING' as status,
    jsonb_build_object(
        'payment_id', events.payment_id,
        'booking_key', events.booking_key,
        'source_booking_key', events.source_booking_key
    ) as detail
from events
inner join {{ source('bridge', 'booking_core') }} as cores on events.booking_key = cores.booking_key
left join ({{ recon_decided('balisnap', 'Payment') }}) as decided on events.payment_id::text = decided.source_pk
where
    events.payment_id is not null
    and events.source_booking_key is distinct from events.booking_key
    -- a person may have said whose payment it is (mapping 3.9)
    and (events.booking_key::text = any(decided.entity_keys)) is not true

union all

select
    'D' as batch,
    'booking' as entity,
    cores.booking_key as key,
    'PAID_FLAG_DIFFERS' as status,
    jsonb_build_object(
        'customer_payment_status', cores.customer_payment_status, 'is_paid_flag', states.is_paid_flag
    ) as detail
from {{ source('bridge', 'booking_core') }} as cores
inner join {{ source('bridge', 'ops_booking_state') }} as states on cores.booking_key = states.booking_key
where states.is_paid_flag <> (cores.customer_payment_status = 'PAID')

union all

select
    'E' as batch,
    'booking' as entity,
    cores.booking_key as key,
    case
        when paying.has_capture then 'CAPTURED_NOT_PAID'
        when cores.customer_payment_status = 'PAID' then 'PAID_WITHOUT_CAPTURE'
        else 'REFUNDED_WITHOUT_REFUND'
    end as status,
    jsonb_build_object('customer_payment_status', cores.customer_payment_status) as detail
from paying
inner join {{ source('bridge', 'booking_core') }} as cores on paying.booking_key = cores.booking_key
left join reviewed on left(cores.channel_code || ':' || cores.external_booking_ref, 128) = reviewed.source_pk
left join {{ ref('recon_fresher_bookings') }} as fresher on cores.booking_key = fresher.booking_key
where
    cores.channel_code = 'DIRECT'
    and fresher.booking_key is null
    and (
        (paying.has_capture and cores.customer_payment_status not in ('PAID', 'REFUNDED'))
        -- a booking that was PAID before is kept so, and under review (mapping 5.3)
        or (not paying.has_capture and cores.customer_payment_status = 'PAID' and reviewed.source_pk is null)
        or (not paying.has_refund and cores.customer_payment_status = 'REFUNDED')
    )
