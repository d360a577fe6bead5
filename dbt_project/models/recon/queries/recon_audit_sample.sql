-- Gate E-03. Grain: one capture of the audit sample (mapping 5.6) and whether the bridge's payment agrees with it.
-- The sample is the capture export; without one, the captures that the landed payloads of direct payments hold.
{{ config(twin='kept', indexes=[{'columns': ['booking_key']}]) }}

with landed as (
    select
        payments.payment_id,
        payments.gateway_capture_id,
        payments.raw_payload,
        {{ function('row_key') }}('payment', 'balisnap', 'Payment', payments.payment_id::text) as payment_key,
        payments.booking_id
    from {{ source('balisnap', 'Payment') }} as payments
),

-- PayPal's order holds its captures; a payload may also be the bare capture
captures as (
    select
        landed.payment_key,
        held.capture
    from landed
    cross join
        lateral jsonb_path_query(
            landed.raw_payload, 'lax $.purchase_units[*].payments.captures[*] ? (exists(@.amount))'
        ) as held (capture)

    union all

    select
        payment_key,
        raw_payload as capture
    from landed
    where
        jsonb_typeof(raw_payload -> 'amount') = 'object'
        and raw_payload ->> 'id' = gateway_capture_id
),

sample as (
    select
        'export:' || line_no as sample_key,
        null::uuid as payment_key,
        null::uuid as booking_key,
        {{ function('norm_text') }}(capture_id) as capture_id,
        amount,
        currency
    from {{ source('phase2', 'audit_sample') }}

    union all

    select
        'payload:' || captures.payment_key as sample_key,
        captures.payment_key,
        bridged.booking_key,
        {{ function('norm_text') }}(captures.capture ->> 'id') as capture_id,
        case
            when captures.capture #>> '{amount,value}' ~ '^-?[0-9]+(\.[0-9]+)?$'
                then (captures.capture #>> '{amount,value}')::numeric
        end as amount,
        captures.capture #>> '{amount,currency_code}' as currency
    from captures
    inner join {{ source('bridge', 'payment_event') }} as bridged on captures.payment_key = bridged.payment_key
    inner join {{ source('bridge', 'booking_core') }} as cores on bridged.booking_key = cores.booking_key
    where
        cores.channel_code = 'DIRECT'
        and not exists (select 1 from {{ source('phase2', 'audit_sample') }})
),

identities as (
    select
        landed.payment_key,
        sources.key_by_identity as booking_key,
        decided.entity_keys
    from landed
    left join {{ ref('recon_source_identities') }} as sources
        on landed.booking_id = sources.booking_id and sources.source_system = 'balisnap'
    left join ({{ recon_decided('balisnap', 'Payment') }}) as decided on landed.payment_id::text = decided.source_pk
),

-- A payment is on its booking when the source says so, or the person who linked it. One that its source has deleted
-- since is held against the bridge alone: nobody else knows whose it was.

events as (
    select
        payments.payment_key,
        payments.booking_key,
        payments.amount,
        payments.currency_code,
        payments.gateway_capture_id,
        case
            when identities.payment_key is null then cores.booking_key is not null
            else
                coalesce(identities.booking_key = payments.booking_key, false)
                or coalesce(payments.booking_key::text = any(identities.entity_keys), false)
        end as on_its_booking
    from {{ source('bridge', 'payment_event') }} as payments
    left join {{ source('bridge', 'booking_core') }} as cores on payments.booking_key = cores.booking_key
    left join identities on payments.payment_key = identities.payment_key
),

-- a line of the export names a payment by its capture id, a payload belongs to its payment
named as (
    select
        sample.*,
        events.payment_key as named_key
    from sample
    left join events on sample.capture_id = events.gateway_capture_id
    where sample.payment_key is null

    union all

    select
        sample.*,
        sample.payment_key as named_key
    from sample
    where sample.payment_key is not null
),

compared as (
    select
        sample.sample_key,
        sample.booking_key,
        sample.capture_id,
        sample.amount,
        sample.currency,
        events.payment_key,
        events.amount as found_amount,
        events.currency_code as found_currency_code,
        events.gateway_capture_id as found_capture_id,
        events.on_its_booking,
        coalesce(sample.capture_id = events.gateway_capture_id, false)
        and coalesce(abs(events.amount - sample.amount) <= 0.01, false)
        and coalesce(events.currency_code = {{ function('norm_code') }}(sample.currency), false)
        and coalesce(events.on_its_booking, false) as agrees
    from named as sample
    left join events on sample.named_key = events.payment_key
)

-- a capture may have several events (its refund carries its id too): one that agrees is enough
select distinct on (sample_key, capture_id)
    sample_key,
    booking_key,
    capture_id,
    payment_key,
    agrees,
    case
        when agrees then 'AGREES'
        when payment_key is null then 'NO_PAYMENT'
        when not coalesce(capture_id = found_capture_id, false) then 'CAPTURE_DIFFERS'
        when not on_its_booking then 'BOOKING_DIFFERS'
        when currency is null or found_currency_code <> upper(currency collate "C") then 'CURRENCY_DIFFERS'
        else 'AMOUNT_DIFFERS'
    end as status,
    jsonb_build_object(
        'capture_id', capture_id,
        'sample', jsonb_build_object('amount', amount, 'currency', currency),
        'bridge', jsonb_build_object(
            'amount', found_amount, 'currency', found_currency_code, 'capture_id', found_capture_id
        )
    ) as detail
from compared
order by sample_key asc, capture_id asc, agrees desc, payment_key asc
