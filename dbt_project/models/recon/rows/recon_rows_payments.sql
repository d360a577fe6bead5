-- Grain: one landed payment. Only one without a booking in the bridge, without a time or with an id that does not fit
-- may wait in the queue; the event that it had before then stays as it was. Its money is held against the event's, sign
-- and all; so are its status, time and ids.
{{ config(twin='kept', indexes=[{'columns': ['booking_id']}, {'columns': ['bridge_key']}]) }}

with judged as (
    select
        landed.payment_id,
        landed.booking_id,
        events.payment_key,
        case
            when
                invalid.source_pk is not null
                and (
                    landed.payment_date is null
                    or landed.payment_date < timestamp '1900-01-01'
                    or landed.payment_date >= timestamp '2200-01-01'
                    or length({{ function('norm_text') }}(landed.payment_ref)) > 128
                    or length({{ function('norm_text') }}(landed.gateway_order_id)) > 128
                    or length({{ function('norm_text') }}(landed.gateway_capture_id)) > 128
                ) then 'queued'
            when
                unmatched.source_pk is not null and links.booking_key is null
                and (events.booking_key::text = any(decided.entity_keys)) is not true then 'queued'
            when events.payment_key is not null then 'bridged'
            else 'unaccounted'
        end as category,
        currencies.currency_code,
        {{ function('norm_money') }}(landed.amount) as amount,
        events.currency_code as found_currency_code,
        events.amount as found_amount,
        events.payment_status_v2 = {{ function('payment_status') }}(landed.payment_status_v2, landed.payment_status)
        and events.payment_time = {{ function('utc_instant') }}(landed.payment_date)
        and coalesce(events.gateway_order_id, '') = coalesce({{ function('norm_text') }}(landed.gateway_order_id), '')
        and coalesce(events.gateway_capture_id, '')
        = coalesce({{ function('norm_text') }}(landed.gateway_capture_id), '') as has_its_facts
    from {{ source('balisnap', 'Payment') }} as landed
    left join ({{ recon_currencies(source('balisnap', 'Payment'), 'currency_code') }}) as currencies
        on landed.currency_code = currencies.code
    left join {{ source('bridge', 'payment_event') }} as events
        on
            {{ function('row_key') }}('payment', 'balisnap', 'Payment', landed.payment_id::text)
            = events.payment_key
    left join {{ ref('recon_booking_links') }} as links
        on landed.booking_id = links.booking_id and links.source_system = 'balisnap'
    left join ({{ recon_decided('balisnap', 'Payment') }}) as decided on landed.payment_id::text = decided.source_pk
    left join ({{ recon_queued('balisnap', 'Payment', 'PAYMENT_LINK', ['NO_MATCH']) }}) as unmatched
        on landed.payment_id::text = unmatched.source_pk
    left join ({{ recon_queued('balisnap', 'Payment', 'BOOKING_REVIEW', ['INVALID_SOURCE']) }}) as invalid
        on landed.payment_id::text = invalid.source_pk
)

select
    'balisnap.Payment' as source,
    booking_id,
    payment_id::text as source_key,
    payment_key as bridge_key,
    coalesce(has_its_facts, false) as has_its_facts,
    category,
    case category when 'queued' then 'in the unmapped queue' end as reason,
    currency_code,
    amount,
    case
        when category <> 'bridged' then category
        when found_currency_code = currency_code and found_amount = amount then 'bridged'
        else 'unaccounted'
    end as money_category,
    case category when 'queued' then 'in the unmapped queue' end as money_reason
from judged
