-- Grain: one landed booking finance; a booking shows one, another's waits in the queue (mapping 5.5).
select
    'bstadmin.booking_finances' as source,
    landed.booking_finance_id::text as source_key,
    bridged.finance_bridge_key as bridge_key,
    case
        when bridged.finance_bridge_key is not null then 'bridged'
        when queued.source_pk is not null then 'queued'
        else 'unaccounted'
    end as category,
    case
        when bridged.finance_bridge_key is null and queued.source_pk is not null then 'in the unmapped queue'
    end as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from {{ source('bstadmin', 'booking_finances') }} as landed
left join {{ source('bridge', 'ops_finance_bridge') }} as bridged
    on
        {{ function('row_key') }}('finance', 'bstadmin', 'booking_finances', landed.booking_finance_id::text)
        = bridged.finance_bridge_key
left join ({{ recon_queued('bstadmin', 'booking_finances') }}) as queued
    on landed.booking_finance_id::text = queued.source_pk
