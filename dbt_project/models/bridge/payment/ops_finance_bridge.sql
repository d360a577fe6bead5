{#-
  Of a booking that the sources have, a finance that is not its own goes: the source has moved it, or its booking. What a
  booking that no source has any more shows stays with it.
-#}
{{ config(
    key='finance_bridge_key',
    touch=['last_reconciled_at'],
    remove_where="exists (
        select 1 from {{ ref('int_booking_identities') }} as i
        where i.booking_key = t.booking_key
    )
    or exists (
        select 1 from {{ ref('int_finance_outcomes') }} as o
        where o.outcome = 'BRIDGED' and o.booking_key = t.booking_key
    )",
    pre_hook=[
        "delete from {{ source('bridge', 'ops_finance_bridge') }} as held
         using {{ ref('int_finance_outcomes') }} as wanted
         where
             wanted.outcome = 'BRIDGED'
             and held.finance_bridge_key = wanted.finance_bridge_key
             and held.booking_key <> wanted.booking_key"
    ]
) }}
-- depends_on: {{ ref('int_booking_identities') }}

select
    finance_bridge_key,
    booking_key,
    booking_finance_id::bigint as booking_finance_id,
    pattern_id::bigint as pattern_id,
    validated_at,
    is_locked,
    settlement_status,
    now() as last_reconciled_at
from {{ ref('int_finance_outcomes') }}
where outcome = 'BRIDGED'
