-- Grain: one landed booking finance; a booking shows one, another's waits in the queue (mapping 5.5). It is bridged on
-- its booking, or on the one that a person named. What stays on a booking that no source has any more (its own is now
-- another's, or refused) is for a person to decide, as the queue says.
{{ config(twin='kept', indexes=[{'columns': ['booking_id']}, {'columns': ['bridge_key']}]) }}

with judged as (
    select
        landed.booking_finance_id::text as source_pk,
        landed.booking_id,
        bridged.finance_bridge_key,
        bridged.settlement_status,
        case
            when bridged.booking_key = links.booking_key or bridged.booking_key::text = any(decided.entity_keys)
                then 'bridged'
            when sourced.booking_key is not null then 'unaccounted'
            when links.booking_key is null and unmatched.source_pk is not null then 'queued'
            when several.source_pk is not null and (others.booking_key is not null or decided.source_pk is not null)
                then 'queued'
            else 'unaccounted'
        end as category,
        several.source_pk is not null as is_one_of_several
    from {{ source('bstadmin', 'booking_finances') }} as landed
    left join {{ source('bridge', 'ops_finance_bridge') }} as bridged
        on
            {{ function('row_key') }}('finance', 'bstadmin', 'booking_finances', landed.booking_finance_id::text)
            = bridged.finance_bridge_key
    left join {{ ref('recon_booking_links') }} as links
        on landed.booking_id = links.booking_id and links.source_system = 'bstadmin'
    left join (
        select distinct all_links.booking_key from {{ ref('recon_booking_links') }} as all_links
    ) as sourced on bridged.booking_key = sourced.booking_key
    left join {{ source('bridge', 'ops_finance_bridge') }} as others on links.booking_key = others.booking_key
    left join ({{ recon_decided('bstadmin', 'booking_finances') }}) as decided
        on landed.booking_finance_id::text = decided.source_pk
    left join ({{ recon_queued('bstadmin', 'booking_finances', 'PAYMENT_LINK', ['NO_MATCH']) }}) as unmatched
        on landed.booking_finance_id::text = unmatched.source_pk
    left join ({{ recon_queued('bstadmin', 'booking_finances', 'PAYMENT_LINK', ['MULTI_MATCH']) }}) as several
        on landed.booking_finance_id::text = several.source_pk
)

select
    'bstadmin.booking_finances' as source,
    booking_id,
    source_pk as source_key,
    finance_bridge_key as bridge_key,
    settlement_status,
    category,
    case
        when category = 'queued'
            then case when is_one_of_several then 'its booking shows another' else 'its booking is not bridged' end
    end as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from judged
