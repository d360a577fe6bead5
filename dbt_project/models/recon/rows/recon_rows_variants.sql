-- Grain: one landed variant. It is bridged when its own row is there and its ref leads to it; where a person said that
-- it is another variant, it is merged into that one.
with landed as (
    select
        variant_id::text as source_pk,
        product_id::text as product_pk,
        {{ function('row_key') }}('variant', 'balisnap', 'TourVariant', variant_id::text) as own_key
    from {{ source('balisnap', 'TourVariant') }}
),

judged as (
    select
        landed.source_pk,
        variants.variant_key,
        case
            when variants.variant_key = landed.own_key then 'bridged'
            when variants.variant_key::text = any(decided.entity_keys) then 'merged'
            when variants.variant_key is null and products.product_key is null and queued.source_pk is not null
                then 'queued'
            else 'unaccounted'
        end as category
    from landed
    left join ({{ recon_refs('VARIANT', 'BALISNAP_VARIANT_ID') }}) as refs
        on landed.source_pk = refs.external_ref and refs.channel_code = 'DIRECT'
    left join {{ source('bridge', 'catalog_variant') }} as variants on refs.entity_key = variants.variant_key
    left join ({{ recon_refs('PRODUCT', 'BALISNAP_PRODUCT_ID') }}) as product_refs
        on landed.product_pk = product_refs.external_ref and product_refs.channel_code = 'DIRECT'
    left join {{ source('bridge', 'catalog_product') }} as products on product_refs.entity_key = products.product_key
    left join ({{ recon_decided('balisnap', 'TourVariant') }}) as decided on landed.source_pk = decided.source_pk
    left join ({{ recon_queued('balisnap', 'TourVariant', 'VARIANT_MAPPING', ['INVALID_SOURCE']) }}) as queued
        on landed.source_pk = queued.source_pk
)

select
    'balisnap.TourVariant' as source,
    source_pk as source_key,
    variant_key as bridge_key,
    category,
    case category
        when 'merged' then 'another variant, as a person decided'
        when 'queued' then 'its product is not bridged'
    end as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from judged
