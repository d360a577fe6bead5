-- depends_on: {{ ref('booking_core') }}
with finances as (
    select * from {{ ref('int_booking_finance') }}
),

candidates as (
    select
        booking_id,
        booking_key,
        channel_code,
        source_rank
    from {{ ref('int_booking_candidates') }}
    where source_system = 'bstadmin' and source_table = 'bookings'
),

resolutions as (
    select
        booking_key,
        source_pk::bigint as booking_finance_id
    from {{ ref('int_payment_resolutions') }}
    where source_system = 'bstadmin' and source_table = 'booking_finances' and source_pk ~ '^[0-9]{1,18}$'
),

linked as (
    select
        finances.*,
        candidates.channel_code,
        candidates.source_rank,
        core.booking_key,
        resolutions.booking_key is not null as is_resolved
    from finances
    left join candidates on finances.booking_id = candidates.booking_id
    left join resolutions on finances.booking_finance_id = resolutions.booking_finance_id
    left join {{ source('bridge', 'booking_core') }} as core
        on coalesce(resolutions.booking_key, candidates.booking_key) = core.booking_key
),

-- One finance a booking: a person's choice first, then the best-ranked candidate's.
ranked as (
    select
        *,
        first_value(booking_finance_id) over (
            partition by booking_key
            order by is_resolved desc, source_rank asc, booking_finance_id asc
        ) as chosen_finance_id
    from linked
)

select
    booking_finance_id,
    finance_bridge_key,
    booking_key,
    booking_id,
    chosen_finance_id,
    pattern_id,
    validated_at,
    is_locked,
    finance_items,
    unpaid_items,
    settlement_status,
    coalesce(channel_code, 'MANUAL') as channel_code,
    case
        when booking_key is null then 'NO_MATCH'
        when booking_finance_id = chosen_finance_id then 'BRIDGED'
        else 'MULTI_MATCH'
    end as outcome
from ranked
