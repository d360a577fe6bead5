-- Grain: one landed finance item. The bridge has no row for it: its finance carries it, as the settlement status that
-- it and its siblings add up to (mapping 5.5). So it is where its finance is, as long as that status tells the truth.
{{ config(twin='kept', indexes=[{'columns': ['booking_id']}]) }}

with landed as (
    select
        finance_item_id,
        booking_finance_id,
        bool_and(paid) over (partition by booking_finance_id) as all_paid
    from {{ source('bstadmin', 'booking_finance_items') }}
)

select
    'bstadmin.booking_finance_items' as source,
    finances.booking_id,
    landed.finance_item_id::text as source_key,
    finances.bridge_key,
    case
        when
            finances.category = 'bridged'
            and coalesce(finances.settlement_status = 'SETTLED', false) <> landed.all_paid
            then 'unaccounted'
        else coalesce(finances.category, 'unaccounted')
    end as category,
    case finances.category when 'bridged' then 'carried by its finance' else finances.reason end as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from landed
left join {{ ref('recon_rows_finances') }} as finances on landed.booking_finance_id::text = finances.source_key
