select
    'balisnap.TourVariant' as source,
    landed.variant_id::text as source_key,
    variants.variant_key as bridge_key,
    case
        when variants.variant_key is not null then 'bridged'
        when queued.source_pk is not null and products.product_key is null then 'queued'
        else 'unaccounted'
    end as category,
    case when variants.variant_key is null and queued.source_pk is not null then 'its product is not bridged' end
        as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from {{ source('balisnap', 'TourVariant') }} as landed
left join ({{ recon_refs('VARIANT', 'BALISNAP_VARIANT_ID') }}) as refs
    on landed.variant_id::text = refs.external_ref and refs.channel_code = 'DIRECT'
left join {{ source('bridge', 'catalog_variant') }} as variants on refs.entity_key = variants.variant_key
left join ({{ recon_refs('PRODUCT', 'BALISNAP_PRODUCT_ID') }}) as product_refs
    on landed.product_id::text = product_refs.external_ref and product_refs.channel_code = 'DIRECT'
left join {{ source('bridge', 'catalog_product') }} as products on product_refs.entity_key = products.product_key
left join ({{ recon_queued('balisnap', 'TourVariant') }}) as queued on landed.variant_id::text = queued.source_pk
