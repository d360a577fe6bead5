-- Grain: one landed product. It is bridged when its own row is there and its ref leads to it; where a person said that
-- it is another product, it is merged into that one.
with landed as (
    select
        product_id::text as source_pk,
        {{ function('row_key') }}('product', 'balisnap', 'TourProduct', product_id::text) as own_key,
        {{ function('norm_text') }}(product_name) is null and {{ function('norm_slug') }}(slug) is null as is_nameless
    from {{ source('balisnap', 'TourProduct') }}
),

judged as (
    select
        landed.source_pk,
        products.product_key,
        case
            when products.product_key = landed.own_key then 'bridged'
            when products.product_key::text = any(decided.entity_keys) then 'merged'
            when products.product_key is null and queued.source_pk is not null and landed.is_nameless then 'queued'
            else 'unaccounted'
        end as category
    from landed
    left join ({{ recon_refs('PRODUCT', 'BALISNAP_PRODUCT_ID') }}) as refs
        on landed.source_pk = refs.external_ref and refs.channel_code = 'DIRECT'
    left join {{ source('bridge', 'catalog_product') }} as products on refs.entity_key = products.product_key
    left join ({{ recon_decided('balisnap', 'TourProduct') }}) as decided on landed.source_pk = decided.source_pk
    left join ({{ recon_queued('balisnap', 'TourProduct', 'PRODUCT_MAPPING', ['INVALID_SOURCE']) }}) as queued
        on landed.source_pk = queued.source_pk
)

select
    'balisnap.TourProduct' as source,
    source_pk as source_key,
    product_key as bridge_key,
    category,
    case category
        when 'merged' then 'another product, as a person decided'
        when 'queued' then 'neither name nor slug'
    end as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from judged
