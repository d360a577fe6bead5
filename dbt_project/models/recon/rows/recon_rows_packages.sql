-- Grain: one landed package. One that became a product of its own is bridged; one that maps to a shop's product, or to
-- what a person said, is merged into it. One without any name, or that several products fit, may wait in the queue.
with landed as (
    select
        package_id::text as source_pk,
        {{ function('row_key') }}('product', 'bstadmin', 'tour_packages', package_id::text) as own_key,
        {{ function('norm_text') }}(package_name) is null and {{ function('norm_slug') }}(slug) is null as is_nameless
    from {{ source('bstadmin', 'tour_packages') }}
),

shop_products as (
    select distinct r.entity_key from ({{ recon_refs('PRODUCT', 'BALISNAP_PRODUCT_ID') }}) as r
),

judged as (
    select
        landed.source_pk,
        products.product_key,
        case
            when products.product_key = landed.own_key then 'bridged'
            when
                products.product_key is not null
                and (shop_products.entity_key is not null or decided.source_pk is not null)
                then 'merged'
            when products.product_key is null and invalid.source_pk is not null and landed.is_nameless then 'queued'
            when products.product_key is null and several.source_pk is not null then 'queued'
            else 'unaccounted'
        end as category
    from landed
    left join ({{ recon_refs('PRODUCT', 'BSTADMIN_PACKAGE_ID') }}) as refs
        on landed.source_pk = refs.external_ref and refs.channel_code = 'MANUAL'
    left join {{ source('bridge', 'catalog_product') }} as products on refs.entity_key = products.product_key
    left join shop_products on products.product_key = shop_products.entity_key
    left join ({{ recon_decided('bstadmin', 'tour_packages') }}) as decided on landed.source_pk = decided.source_pk
    left join ({{ recon_queued('bstadmin', 'tour_packages', 'PRODUCT_MAPPING', ['INVALID_SOURCE']) }}) as invalid
        on landed.source_pk = invalid.source_pk
    left join ({{ recon_queued('bstadmin', 'tour_packages', 'PRODUCT_MAPPING', ['MULTI_MATCH']) }}) as several
        on landed.source_pk = several.source_pk
)

select
    'bstadmin.tour_packages' as source,
    source_pk as source_key,
    product_key as bridge_key,
    category,
    case category when 'merged' then 'mapped to a product of the shop' when 'queued' then 'in the unmapped queue' end
        as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from judged
