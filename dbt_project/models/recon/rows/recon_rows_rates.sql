-- Grain: one landed rate plan. Only one whose price is none, or whose variant is not bridged, may wait in the queue.
-- Its price is held against the rate's.
with judged as (
    select
        landed.rate_plan_id::text as source_pk,
        rates.variant_rate_key,
        case
            when rates.variant_rate_key is not null then 'bridged'
            when
                invalid.source_pk is not null
                and (landed.price is null or landed.price = 'NaN' or landed.price < 0)
                then 'queued'
            when unmatched.source_pk is not null and coalesce(variants.category <> 'bridged', true) then 'queued'
            else 'unaccounted'
        end as category,
        invalid.source_pk is not null as is_invalid,
        currencies.currency_code,
        {{ function('norm_money') }}(landed.price) as amount,
        rates.currency_code as found_currency_code,
        rates.price as found_amount
    from {{ source('balisnap', 'VariantRatePlan') }} as landed
    left join ({{ recon_currencies(source('balisnap', 'VariantRatePlan'), 'currency_code') }}) as currencies
        on landed.currency_code = currencies.code
    left join {{ source('bridge', 'catalog_variant_rate') }} as rates
        on
            {{ function('row_key') }}('rate', 'balisnap', 'VariantRatePlan', landed.rate_plan_id::text)
            = rates.variant_rate_key
    left join {{ ref('recon_rows_variants') }} as variants on landed.variant_id::text = variants.source_key
    left join (
        {{ recon_queued('balisnap', 'VariantRatePlan', 'CATALOG_EXTENDED_METADATA', ['INVALID_SOURCE']) }}
    ) as invalid
        on landed.rate_plan_id::text = invalid.source_pk
    left join (
        {{ recon_queued('balisnap', 'VariantRatePlan', 'CATALOG_EXTENDED_METADATA', ['NO_MATCH']) }}
    ) as unmatched
        on landed.rate_plan_id::text = unmatched.source_pk
)

select
    'balisnap.VariantRatePlan' as source,
    source_pk as source_key,
    variant_rate_key as bridge_key,
    category,
    case when category = 'queued' then case when is_invalid then 'no price' else 'its variant is not bridged' end end
        as reason,
    currency_code,
    amount,
    case
        when category <> 'bridged' then category
        when found_currency_code = currency_code and found_amount = amount then 'bridged'
        else 'unaccounted'
    end as money_category,
    case when category = 'queued' then case when is_invalid then 'no price' else 'its variant is not bridged' end end
        as money_reason
from judged
