-- Mapping 5.5: SETTLED when it has items and all are paid, else PENDING; of rows that the source still has.
-- depends_on: {{ ref('ops_finance_bridge') }}
with items as (
    select
        booking_finance_id,
        bool_and(paid) as all_paid
    from {{ source('bstadmin', 'booking_finance_items') }}
    where booking_finance_id in (select asked.booking_finance_id from {{ ref('int_finance_outcomes') }} as asked)
    group by booking_finance_id
)

select
    bridged.booking_finance_id,
    bridged.settlement_status
from {{ source('bridge', 'ops_finance_bridge') }} as bridged
inner join {{ ref('int_finance_outcomes') }} as landed
    on bridged.finance_bridge_key = landed.finance_bridge_key and landed.outcome = 'BRIDGED'
left join items on bridged.booking_finance_id = items.booking_finance_id
where bridged.settlement_status <> case when items.all_paid then 'SETTLED' else 'PENDING' end
