-- Required query: where the fulfilment status and the settlement of the finance say different things, or the two places
-- that hold the status do. Settlement is read from landing: paid items of the finances of a booking's candidates.
{{ config(twin='kept') }}

with finances as (
    select
        finances.booking_id,
        count(items.finance_item_id) > 0 and coalesce(bool_and(items.paid), false) as is_settled
    from {{ source('bstadmin', 'booking_finances') }} as finances
    left join {{ source('bstadmin', 'booking_finance_items') }} as items
        on finances.booking_finance_id = items.booking_finance_id
    group by finances.booking_finance_id, finances.booking_id
),

-- the engine reads the best-ranked candidate's finance; which one that is, is not asked here
settlements as (
    select
        links.booking_key,
        bool_or(coalesce(finances.is_settled, false)) as one_is_settled,
        bool_and(coalesce(finances.is_settled, false)) as all_are_settled
    from {{ ref('recon_booking_links') }} as links
    left join finances on links.booking_id = finances.booking_id
    where links.source_system = 'bstadmin' and links.booking_key is not null
    group by links.booking_key
),

compared as (
    select
        cores.booking_key,
        cores.ops_fulfillment_status,
        states.ops_fulfillment_status as state_status,
        case
            when states.ops_fulfillment_status <> cores.ops_fulfillment_status then 'CORE_AND_STATE_DIFFER'
            when fresher.booking_key is not null then null
            when cores.ops_fulfillment_status = 'DONE' and not coalesce(settlements.one_is_settled, false)
                then 'DONE_NOT_SETTLED'
            when
                settlements.all_are_settled and cores.ops_fulfillment_status not in ('DONE', 'CANCELLED', 'NO_SHOW')
                then 'SETTLED_NOT_DONE'
        end as status
    from {{ source('bridge', 'booking_core') }} as cores
    left join {{ source('bridge', 'ops_booking_state') }} as states on cores.booking_key = states.booking_key
    left join settlements on cores.booking_key = settlements.booking_key
    left join {{ ref('recon_fresher_bookings') }} as fresher on cores.booking_key = fresher.booking_key
)

select
    'D' as batch,
    'booking' as entity,
    booking_key as key,
    status,
    jsonb_build_object('ops_fulfillment_status', ops_fulfillment_status, 'state', state_status) as detail
from compared
where status is not null

union all

select
    'E' as batch,
    'booking' as entity,
    bridged.booking_key as key,
    'SETTLEMENT_STALE' as status,
    jsonb_build_object('settlement_status', bridged.settlement_status, 'is_settled', finances.is_settled) as detail
from {{ source('bridge', 'ops_finance_bridge') }} as bridged
inner join (
    select
        f.booking_finance_id,
        count(i.finance_item_id) > 0 and coalesce(bool_and(i.paid), false) as is_settled
    from {{ source('bstadmin', 'booking_finances') }} as f
    left join {{ source('bstadmin', 'booking_finance_items') }} as i on f.booking_finance_id = i.booking_finance_id
    group by f.booking_finance_id
) as finances on bridged.booking_finance_id = finances.booking_finance_id
where (bridged.settlement_status = 'SETTLED') is distinct from finances.is_settled
