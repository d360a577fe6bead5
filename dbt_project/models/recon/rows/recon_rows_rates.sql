select
    'balisnap.VariantRatePlan' as source,
    landed.rate_plan_id::text as source_key,
    rates.variant_rate_key as bridge_key,
    case
        when rates.variant_rate_key is not null then 'bridged'
        when queued.source_pk is not null then 'queued'
        else 'unaccounted'
    end as category,
    case when rates.variant_rate_key is null and queued.source_pk is not null then 'in the unmapped queue' end
        as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from {{ source('balisnap', 'VariantRatePlan') }} as landed
left join {{ source('bridge', 'catalog_variant_rate') }} as rates
    on
        {{ function('row_key') }}('rate', 'balisnap', 'VariantRatePlan', landed.rate_plan_id::text)
        = rates.variant_rate_key
left join ({{ recon_queued('balisnap', 'VariantRatePlan') }}) as queued on landed.rate_plan_id::text = queued.source_pk
