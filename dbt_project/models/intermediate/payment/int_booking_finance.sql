with finances as (
    select * from {{ ref('stg_bstadmin__booking_finances') }}
    where {{ touched_booking('bstadmin') }}
),

items as (
    select
        booking_finance_id,
        count(*) as finance_items,
        count(*) filter (where not paid) as unpaid_items
    from {{ ref('stg_bstadmin__booking_finance_items') }}
    {% if var('follows', false) %}where booking_finance_id in (select finances.booking_finance_id from finances){% endif %}
    group by booking_finance_id
)

select
    finances.booking_id,
    finances.booking_finance_id,
    {{ function('row_key') }}('finance', 'bstadmin', 'booking_finances', finances.booking_finance_id::text)
        as finance_bridge_key,
    finances.pattern_id,
    finances.validated_at,
    finances.is_locked,
    coalesce(items.finance_items, 0) as finance_items,
    coalesce(items.unpaid_items, 0) as unpaid_items,
    {{ function('settlement_status') }}(
        coalesce(items.finance_items, 0), coalesce(items.unpaid_items, 0)
    ) as settlement_status
from finances
left join items on finances.booking_finance_id = items.booking_finance_id
