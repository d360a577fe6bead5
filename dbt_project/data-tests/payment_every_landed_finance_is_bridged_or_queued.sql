-- Mapping 5.5: every landed finance is its booking's, or stands in the queue as another's or nobody's.
-- depends_on: {{ ref('ops_finance_bridge') }}
-- depends_on: {{ ref('payment_queue') }}
with queued as (
    select source_pk
    from {{ source('bridge', 'unmapped_queue') }}
    where
        queue_type = 'PAYMENT_LINK'
        and source_system = 'bstadmin'
        and source_table = 'booking_finances'
        and (status <> 'CLOSED' or resolved_by <> '{{ queue_closed_by_run() }}')
)

select landed.booking_finance_id
from {{ source('bstadmin', 'booking_finances') }} as landed
left join {{ source('bridge', 'ops_finance_bridge') }} as bridged
    on landed.booking_finance_id = bridged.booking_finance_id
where
    bridged.finance_bridge_key is null
    and {{ touched_booking('bstadmin', 'landed.booking_id') }}
    and not exists (
        select 1
        from queued
        where queued.source_pk = landed.booking_finance_id::text
    )
