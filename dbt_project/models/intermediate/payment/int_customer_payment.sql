with identities as (
    select
        booking_key,
        channel_code,
        external_booking_ref,
        fill_only
    from {{ ref('int_booking_identities') }}
),

-- What each system's best-ranked candidate says; of the filtered rows there is one a booking.
stated as (
    select
        booking_key,
        bool_or(source_system = 'balisnap') as has_balisnap,
        max(status_v2) filter (where source_system = 'balisnap' and source_rank = 1) as status_v2,
        max(status) filter (where source_system = 'balisnap' and source_rank = 1) as status,
        bool_or(is_paid) filter (where source_system = 'bstadmin' and source_rank = 1) as ops_is_paid,
        max(paid_at) filter (where source_system = 'bstadmin' and source_rank = 1) as ops_paid_at,
        bool_or(source_system = 'bstadmin' and strength = 2) as has_ops_proof
    from {{ ref('int_booking_candidates') }}
    group by booking_key
),

payments as (
    select * from {{ ref('int_payment_links') }}
    where is_bridgeable and booking_key is not null
),

paid as (
    select
        booking_key,
        bool_or(is_capture) as has_capture,
        bool_or(is_refund) as has_refund,
        bool_or(payment_status_v2 = 'PENDING_PAYMENT') as has_pending,
        -- At one instant a capture comes before a refund, so only a strictly later one counts after it.
        max(payment_date) filter (where is_capture) > max(payment_date) filter (where is_refund) as captured_again,
        sum(amount) filter (where is_capture) as captured,
        sum(abs(amount)) filter (where is_refund) as refunded,
        min(payment_date) filter (where is_capture) as first_capture_at
    from payments
    group by booking_key
),

-- The same payment row turned cancelled after the bridge has held it as captured.
reversed_captures as (
    select distinct payments.booking_key
    from payments
    inner join {{ source('bridge', 'payment_event') }} as held on payments.payment_key = held.payment_key
    where payments.is_cancelled and held.payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED')
),

said as (
    select
        identities.booking_key,
        identities.channel_code,
        identities.external_booking_ref,
        coalesce(identities.fill_only, false) as fill_only,
        case
            when identities.channel_code = 'DIRECT' and paid.booking_key is not null
                then case
                    when
                        paid.has_refund
                        and (not paid.has_capture or (not paid.captured_again and paid.refunded >= paid.captured))
                        then 'REFUNDED'
                    when paid.has_capture then 'PAID'
                    when paid.has_pending then 'PENDING_PAYMENT'
                    else 'FAILED'
                end
            when identities.channel_code = 'DIRECT' and stated.has_balisnap
                then case
                    when stated.has_ops_proof then 'PAID'
                    else {{ function('balisnap_status_payment') }}(stated.status_v2, stated.status)
                end
            when stated.ops_is_paid then 'PAID'
            else 'PENDING_PAYMENT'
        end as source_payment_status,
        coalesce(paid.has_refund, false) or reversed_captures.booking_key is not null as has_reversal,
        case when identities.channel_code = 'DIRECT' then paid.first_capture_at end as first_capture_at,
        stated.ops_paid_at
    from identities
    left join stated on identities.booking_key = stated.booking_key
    left join paid on identities.booking_key = paid.booking_key
    left join reversed_captures on identities.booking_key = reversed_captures.booking_key
),

-- Where 4.13 only fills, the flag that stands decides whether there is a time to fill.
kept_flags as (
    select
        state.booking_key,
        state.is_paid_flag
    from {{ source('bridge', 'ops_booking_state') }} as state
    inner join identities on state.booking_key = identities.booking_key
    where identities.fill_only
),

-- Before the run: what the bridge holds. Rows that 4.13 only fills keep their status, as any value they have.
settled as (
    select
        said.*,
        kept_flags.is_paid_flag as kept_flag,
        case
            when said.fill_only and core.booking_key is not null then core.customer_payment_status
            when core.customer_payment_status = 'PAID' and not said.has_reversal then 'PAID'
            else said.source_payment_status
        end as customer_payment_status
    from said
    left join {{ source('bridge', 'booking_core') }} as core on said.booking_key = core.booking_key
    left join kept_flags on said.booking_key = kept_flags.booking_key
)

select
    booking_key,
    channel_code,
    external_booking_ref,
    customer_payment_status,
    source_payment_status,
    not fill_only and customer_payment_status = 'PAID' and source_payment_status <> 'PAID' as kept_paid,
    customer_payment_status = 'PAID' as is_paid_flag,
    case
        when coalesce(kept_flag, customer_payment_status = 'PAID') then coalesce(first_capture_at, ops_paid_at)
    end as paid_at
from settled
