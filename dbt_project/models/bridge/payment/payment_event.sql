{{ config(
    key='payment_key',
    pre_hook=[
        "update {{ source('bridge', 'payment_event') }} as held
         set payment_ref = null, updated_at = now()
         from {{ ref('int_payment_outcomes') }} as wanted
         where
             wanted.outcome = 'BRIDGED'
             and held.payment_ref = wanted.payment_ref
             and held.payment_key <> wanted.payment_key"
    ]
) }}

-- The statuses are written first: they need the captures that the bridge held before this run (mapping 5.3).
-- depends_on: {{ ref('payment_booking_status') }}
-- depends_on: {{ ref('payment_ops_state') }}
with outcomes as (
    select * from {{ ref('int_payment_outcomes') }}
    where outcome = 'BRIDGED'
),

payloads as (
    select
        payment_id,
        raw_payload
    from {{ ref('stg_balisnap__payments') }}
)

select
    outcomes.payment_key,
    outcomes.booking_key,
    outcomes.payment_date as payment_time,
    outcomes.amount,
    outcomes.currency_code,
    outcomes.method,
    outcomes.gateway,
    outcomes.gateway_order_id,
    outcomes.gateway_capture_id,
    outcomes.payment_ref,
    outcomes.status_raw,
    outcomes.payment_status_v2,
    payloads.raw_payload
from outcomes
inner join payloads on outcomes.payment_id = payloads.payment_id
