-- depends_on: {{ ref('booking_core') }}
with linked as (
    select
        links.*,
        core.booking_key is not null as has_booking,
        links.is_bridgeable and core.booking_key is not null as is_bridged
    from {{ ref('int_payment_links') }} as links
    left join {{ source('bridge', 'booking_core') }} as core on links.booking_key = core.booking_key
),

-- Equal refs after normalisation: the lower source id keeps it.
shared_refs as (
    select
        payment_ref,
        min(payment_id) as keeper_id
    from linked
    where is_bridged and payment_ref is not null
    group by payment_ref
    having count(*) > 1
),

-- A payment that this run does not write stays as it is, its ref too.
held_refs as (
    select held.payment_ref
    from {{ source('bridge', 'payment_event') }} as held
    where
        held.payment_ref is not null
        and not exists (
            select 1
            from linked
            where linked.is_bridged and linked.payment_key = held.payment_key
        )
),

judged as (
    select
        linked.*,
        linked.is_bridged and (
            held_refs.payment_ref is not null or coalesce(linked.payment_id <> shared_refs.keeper_id, false)
        ) as loses_ref
    from linked
    left join shared_refs on linked.payment_ref = shared_refs.payment_ref
    left join held_refs on linked.payment_ref = held_refs.payment_ref
)

select
    payment_id,
    payment_key,
    booking_id,
    linked_by,
    payment_date,
    amount,
    currency_code,
    method,
    gateway,
    gateway_order_id,
    gateway_capture_id,
    status_raw,
    payment_status_v2,
    coalesce(channel_code, 'DIRECT') as channel_code,
    case when has_booking then booking_key end as booking_key,
    case
        when not has_booking then 'NO_MATCH'
        when not is_bridgeable then 'INVALID_SOURCE'
        else 'BRIDGED'
    end as outcome,
    case when not loses_ref then payment_ref end as payment_ref,
    case
        when loses_ref
            then
                coalesce(problems, '[]')
                || {{ payment_problem('payment_ref', 'another payment has it, taken as null', 'payment_ref') }}
        else problems
    end as problems
from judged
