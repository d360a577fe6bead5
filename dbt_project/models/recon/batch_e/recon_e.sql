-- What the verdict of batch E reads: measures, exceptions, parity and findings, in one reading of the database.
-- It reads the bridge as it is; in a build of the whole project it comes after the models that write it:
-- depends_on: {{ ref('ops_finance_bridge') }}
-- depends_on: {{ ref('payment_booking_status') }}
-- depends_on: {{ ref('payment_event') }}
-- depends_on: {{ ref('payment_ops_state') }}
-- depends_on: {{ ref('payment_queue') }}
{{ config(twin='composite') }}

with{{ recon_global_ctes(['C', 'D', 'E']) }},

done_unpaid as materialized (
    select * from {{ ref('recon_done_unpaid') }}
),

audited as materialized (
    select * from {{ ref('recon_audit_sample') }}
),

fallen as materialized (
    select * from {{ ref('recon_downgrades') }}
),

payments as (
    select
        t.rows as payments,
        (
            select count(*) from findings as f
            where f.query = 'recon_orphans' and f.entity = 'payment'
        ) as without_booking
    from targets as t
    where t.entity = 'payments'
),

misplaced as (
    select count(*) as payments
    from findings
    where query = 'recon_payment_linkage' and status = 'WRONG_BOOKING'
),

done as (
    select count(*) as bookings from {{ source('bridge', 'booking_core') }}
    where ops_fulfillment_status = 'DONE'
),

unpaid as (
    select
        count(*) filter (where not is_refunded_after) as counted,
        count(*) filter (where is_refunded_after) as apart
    from done_unpaid
),

sample as (
    select
        count(*) as captures,
        count(*) filter (where agrees) as agreeing
    from audited
),

downgrades as (
    select
        count(*) filter (where not is_reversed) as counted,
        count(*) filter (where is_reversed) as reversed
    from fallen
),

before as (
    select
        (
            select count(*) from {{ source('phase2', 'status_snapshot') }}
            where customer_payment_status = 'PAID'
        )
        + (
            select count(*) from {{ source('phase2', 'paid_bookings') }} as p
            where
                not exists (
                    select 1 from {{ source('phase2', 'status_snapshot') }} as s
                    where s.booking_key = p.booking_key and s.customer_payment_status = 'PAID'
                )
        ) as bookings
),

counted as (
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

    select
        'E-03' as gate_id,
        agreeing as numerator,
        captures as denominator,
        null as detail
    from sample

    union all

    select
        'E-04' as gate_id,
        downgrades.counted as numerator,
        before.bookings as denominator,
        jsonb_build_object('reversed', downgrades.reversed) as detail
    from downgrades
    cross join before
),

measured as (
    select
        r.gate_id,
        r.numerator,
        r.denominator,
        case
            when r.gate_id in ('E-02', 'E-03') then r.numerator::numeric / nullif(r.denominator, 0) else r.numerator
        end as value,
        r.detail
    from counted as r
),

exceptions as (
    select
        'E-01'::text as gate_id,
        'payment'::text as entity,
        o.key::text as key,
        o.status,
        true as is_counted,
        o.detail
    from findings as o
    where o.query = 'recon_orphans' and o.entity = 'payment'

    union all

    select
        'E-01' as gate_id,
        l.entity,
        l.key::text as key,
        l.status,
        true as is_counted,
        l.detail
    from findings as l
    where l.query = 'recon_payment_linkage' and l.status = 'WRONG_BOOKING'

    union all

    select
        'E-02' as gate_id,
        'booking' as entity,
        d.booking_key::text as key,
        case when d.is_refunded_after then 'REFUNDED_AFTER_TRIP' else 'DONE_NOT_PAID' end as status,
        not d.is_refunded_after as is_counted,
        jsonb_build_object(
            'channel_code', d.channel_code,
            'external_booking_ref', d.external_booking_ref,
            'customer_payment_status', d.customer_payment_status
        ) as detail
    from done_unpaid as d

    union all

    select
        'E-03' as gate_id,
        'capture' as entity,
        concat_ws(':', s.sample_key, s.capture_id) as key,
        s.status,
        true as is_counted,
        s.detail
    from audited as s
    where not s.agrees

    union all

    select
        'E-04' as gate_id,
        'booking' as entity,
        d.booking_key::text as key,
        case when d.is_reversed then 'REVERSED' else 'DOWNGRADED' end as status,
        not d.is_reversed as is_counted,
        jsonb_build_object(
            'channel_code', d.channel_code,
            'external_booking_ref', d.external_booking_ref,
            'customer_payment_status', d.customer_payment_status
        ) as detail
    from fallen as d
)

{{ recon_measure_rows('measured') }}

union all

{{ recon_exception_rows('exceptions') }}

union all

{{ recon_global_rows() }}
