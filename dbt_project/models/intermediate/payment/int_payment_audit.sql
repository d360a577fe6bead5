-- Compared with what the bridge holds, so after it is written.
-- depends_on: {{ ref('payment_event') }}
with bridged as (
    select
        events.payment_key,
        events.booking_key,
        events.amount,
        upper(events.currency_code collate "C") as currency_code,
        events.gateway_capture_id,
        events.payment_status_v2,
        events.raw_payload,
        core.channel_code,
        core.external_booking_ref
    from {{ source('bridge', 'payment_event') }} as events
    inner join {{ source('bridge', 'booking_core') }} as core on events.booking_key = core.booking_key
),

exported as (
    select
        line_no,
        {{ function('norm_text') }}(capture_id) as capture_id,
        amount,
        {{ function('norm_code') }}(currency) as currency_code,
        status,
        captured_at
    from {{ source('phase2', 'audit_sample') }}
),

-- A payment may share its capture id with its refund: the export names the capture.
named as (
    select distinct on (exported.line_no)
        'FILE' as sample,
        'FILE:' || exported.line_no as audit_key,
        exported.capture_id,
        exported.amount as sample_amount,
        exported.currency_code as sample_currency_code,
        bridged.payment_key,
        bridged.booking_key,
        bridged.channel_code,
        bridged.external_booking_ref,
        bridged.amount,
        bridged.currency_code,
        bridged.gateway_capture_id
    from exported
    left join bridged on exported.capture_id = bridged.gateway_capture_id
    order by
        exported.line_no,
        coalesce(bridged.payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED'), false) desc,
        bridged.payment_key
),

-- Without a file: PayPal's order (purchase_units … captures) or a bare capture, as the shop stored it.
held as (
    select
        bridged.*,
        case
            when bridged.raw_payload ? 'purchase_units'
                then jsonb_path_query_array(
                    bridged.raw_payload, 'lax $.purchase_units[*].payments.captures[*] ? (exists(@.amount))'
                )
            when bridged.raw_payload ? 'id' and bridged.raw_payload #> '{amount,value}' is not null
                then jsonb_build_array(bridged.raw_payload)
        end as captures
    from bridged
    where
        bridged.channel_code = 'DIRECT'
        and bridged.payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED')
        and bridged.raw_payload is not null
        and not exists (select 1 from exported)
),

-- An order may hold several captures: the payment's own, else the first.
inside as (
    select distinct on (held.payment_key)
        'PAYLOAD' as sample,
        'PAYLOAD:' || held.payment_key as audit_key,
        {{ function('norm_text') }}(capture.value ->> 'id') as capture_id,
        case
            when capture.value #>> '{amount,value}' ~ '^-?[0-9]{1,20}([.][0-9]{1,10})?$'
                then (capture.value #>> '{amount,value}')::numeric
        end as sample_amount,
        {{ function('norm_code') }}(capture.value #>> '{amount,currency_code}') as sample_currency_code,
        held.payment_key,
        held.booking_key,
        held.channel_code,
        held.external_booking_ref,
        held.amount,
        held.currency_code,
        held.gateway_capture_id
    from held
    cross join lateral jsonb_array_elements(held.captures) with ordinality as capture (value, place)
    order by
        held.payment_key,
        (capture.value ->> 'id') is not distinct from held.gateway_capture_id desc,
        capture.place
),

sampled as (
    select * from named
    union all
    select * from inside
),

-- The booking by identity: the one that the payment's own source booking has.
links as (
    select payment_key, booking_key from {{ ref('int_payment_links') }}
),

compared as (
    select
        sampled.*,
        coalesce(
            sampled.channel_code = 'DIRECT' and (links.booking_key is null or links.booking_key = sampled.booking_key),
            false
        ) as booking_agrees,
        coalesce(abs(sampled.sample_amount - sampled.amount) <= 0.01, false) as amount_agrees,
        coalesce(sampled.sample_currency_code = sampled.currency_code, false) as currency_agrees,
        coalesce(sampled.capture_id = sampled.gateway_capture_id, false) as capture_agrees
    from sampled
    left join links on sampled.payment_key = links.payment_key
)

select
    audit_key,
    sample,
    capture_id,
    payment_key,
    booking_key,
    channel_code,
    external_booking_ref,
    sample_amount,
    amount,
    sample_currency_code,
    currency_code,
    gateway_capture_id,
    booking_agrees,
    amount_agrees,
    currency_agrees,
    capture_agrees,
    booking_agrees and amount_agrees and currency_agrees and capture_agrees as agrees
from compared
