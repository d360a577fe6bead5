-- Mapping 1 and 5.1: money never vanishes. A landed payment is a payment_event, or stands in the queue.
-- depends_on: {{ ref('payment_event') }}
-- depends_on: {{ ref('payment_queue') }}
with landed as (
    select
        payment_id::text as source_pk,
        {{ function('row_key') }}('payment', 'balisnap', 'Payment', payment_id::text) as payment_key
    from {{ source('balisnap', 'Payment') }}
    where {{ touched_booking('balisnap') }}
),

queued as (
    select source_pk
    from {{ source('bridge', 'unmapped_queue') }}
    where
        queue_type in ('PAYMENT_LINK', 'BOOKING_REVIEW')
        and source_system = 'balisnap'
        and source_table = 'Payment'
        and (status <> 'CLOSED' or resolved_by <> '{{ queue_closed_by_run() }}')
)

select landed.source_pk
from landed
left join {{ source('bridge', 'payment_event') }} as events on landed.payment_key = events.payment_key
where
    events.payment_key is null
    and not exists (
        select 1
        from queued
        where queued.source_pk = landed.source_pk
    )
