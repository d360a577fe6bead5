select
    'balisnap.TourProduct' as source,
    landed.product_id::text as source_key,
    products.product_key as bridge_key,
    case
        when products.product_key is not null then 'bridged'
        when
            queued.source_pk is not null
            and {{ function('norm_text') }}(landed.product_name) is null
            and {{ function('norm_slug') }}(landed.slug) is null then 'queued'
        else 'unaccounted'
    end as category,
    case when products.product_key is null and queued.source_pk is not null then 'neither name nor slug' end as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from {{ source('balisnap', 'TourProduct') }} as landed
left join ({{ recon_refs('PRODUCT', 'BALISNAP_PRODUCT_ID') }}) as refs
    on landed.product_id::text = refs.external_ref and refs.channel_code = 'DIRECT'
left join {{ source('bridge', 'catalog_product') }} as products on refs.entity_key = products.product_key
left join ({{ recon_queued('balisnap', 'TourProduct') }}) as queued on landed.product_id::text = queued.source_pk
