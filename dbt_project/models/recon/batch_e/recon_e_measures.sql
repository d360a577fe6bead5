with payments as (
    select
        count(*) as payments,
        count(*) filter (where cores.booking_key is null) as without_booking
    from {{ source('bridge', 'payment_event') }} as events
    left join {{ source('bridge', 'booking_core') }} as cores on events.booking_key = cores.booking_key
),

misplaced as (
    select count(*) as payments
    from {{ ref('recon_payment_linkage') }}
    where entity = 'payment' and status = 'WRONG_BOOKING'
),

done as (
    select count(*) as bookings from {{ source('bridge', 'booking_core') }} where ops_fulfillment_status = 'DONE'
),

unpaid as (
    select
        count(*) filter (where not is_refunded_after) as counted,
        count(*) filter (where is_refunded_after) as apart
    from {{ ref('recon_done_unpaid') }}
),

sample as (
    select count(*) as captures, count(*) filter (where agrees) as agreeing
    from {{ ref('recon_audit_sample') }}
),

downgrades as (
    select
        count(*) filter (where not is_reversed) as counted,
        count(*) filter (where is_reversed) as reversed
    from {{ ref('recon_downgrades') }}
),

before as (
    select count(*) as bookings
    from (
        select booking_key from {{ source('phase2', 'status_snapshot') }} where customer_payment_status = 'PAID'

        union

        select booking_key from {{ source('phase2', 'paid_bookings') }}
    ) as b
),

measured as (
    select
        'E-01' as gate_id,
        payments.without_booking + misplaced.payments as numerator,
        payments.payments as denominator,
        null::jsonb as detail
    from payments
    cross join misplaced

    union all

    select
        'E-02' as gate_id,
        unpaid.counted as numerator,
        done.bookings as denominator,
        jsonb_build_object('refunded_after_the_trip', unpaid.apart) as detail
    from unpaid
    cross join done

    union all

    select 'E-03' as gate_id, agreeing as numerator, captures as denominator, null as detail from sample

    union all

    select
        'E-04' as gate_id,
        downgrades.counted as numerator,
        before.bookings as denominator,
        jsonb_build_object('reversed', downgrades.reversed) as detail
    from downgrades
    cross join before
)

select
    gate_id::text as gate_id,
    numerator::numeric as numerator,
    denominator::numeric as denominator,
    case
        when gate_id in ('E-02', 'E-03') then numerator::numeric / nullif(denominator, 0) else numerator
    end as value,
    detail
from measured
