{{ config(table='unmapped_queue', key='queue_key', range_by='queue_key') }}

with payments as (
    select * from {{ ref('int_payment_outcomes') }}
    where outcome <> 'BRIDGED' or problems is not null
),

finances as (
    select * from {{ ref('int_finance_outcomes') }}
    where outcome <> 'BRIDGED'
),

causes as (
    select
        'PAYMENT_LINK' as queue_type,
        channel_code,
        'balisnap' as source_system,
        'Payment' as source_table,
        payment_id::text as source_pk,
        'NO_MATCH' as reason_code,
        'its booking is not in the bridge' as reason_detail,
        jsonb_build_object(
            'booking_id', booking_id, 'payment_date', payment_date, 'amount', amount, 'currency_code', currency_code,
            'status_raw', status_raw, 'gateway_capture_id', gateway_capture_id, 'payment_ref', payment_ref,
            'problems', problems
        ) as payload
    from payments
    where outcome = 'NO_MATCH'

    union all

    select
        'BOOKING_REVIEW' as queue_type,
        channel_code,
        'balisnap' as source_system,
        'Payment' as source_table,
        payment_id::text as source_pk,
        'INVALID_SOURCE' as reason_code,
        case outcome
            when 'BRIDGED' then 'bridged with values made to fit'
            else 'not bridged: an id does not fit or its time is missing'
        end as reason_detail,
        jsonb_build_object(
            'booking_id', booking_id, 'bridged', outcome = 'BRIDGED', 'problems', problems
        ) as payload
    from payments
    where outcome <> 'NO_MATCH' and problems is not null

    union all

    select
        'PAYMENT_LINK' as queue_type,
        channel_code,
        'bstadmin' as source_system,
        'booking_finances' as source_table,
        booking_finance_id::text as source_pk,
        outcome as reason_code,
        case outcome
            when 'NO_MATCH' then 'its booking is not in the bridge'
            else 'its booking has the finance of another row already'
        end as reason_detail,
        jsonb_build_object(
            'booking_id', booking_id, 'booking_key', booking_key, 'settlement_status', settlement_status,
            'bridged_finance_id', case when outcome = 'MULTI_MATCH' then chosen_finance_id end
        ) as payload
    from finances
),

wanted as (
    select
        *,
        {{ function('queue_key') }}(queue_type, source_system, source_table, source_pk, reason_code) as queue_key
    from causes
),

-- The rows that this model owns and may close; other bookings' reviews are batch D's.
existing as (
    select * from {{ source('bridge', 'unmapped_queue') }}
    where
        (
            (queue_type = 'PAYMENT_LINK' and source_system in ('balisnap', 'bstadmin'))
            or (queue_type = 'BOOKING_REVIEW' and source_system = 'balisnap' and source_table = 'Payment')
        )
        and {{ touched_subject() }}
)

{{ queue_lifecycle('wanted', 'existing') }}
