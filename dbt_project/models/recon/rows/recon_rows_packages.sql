-- A package that became a product of its own is bridged, one that maps to a shop's product is merged into it.
select
    'bstadmin.tour_packages' as source,
    landed.package_id::text as source_key,
    products.product_key as bridge_key,
    case
        when
            products.product_key
            = {{ function('row_key') }}('product', 'bstadmin', 'tour_packages', landed.package_id::text)
            then 'bridged'
        when products.product_key is not null then 'merged'
        when queued.source_pk is not null then 'queued'
        else 'unaccounted'
    end as category,
    case
        when
            products.product_key
            <> {{ function('row_key') }}('product', 'bstadmin', 'tour_packages', landed.package_id::text)
            then 'mapped to a product of the shop'
        when products.product_key is null and queued.source_pk is not null then 'in the unmapped queue'
    end as reason,
    null::text as currency_code,
    null::numeric as amount,
    null::text as money_category,
    null::text as money_reason
from {{ source('bstadmin', 'tour_packages') }} as landed
left join ({{ recon_refs('PRODUCT', 'BSTADMIN_PACKAGE_ID') }}) as refs
    on landed.package_id::text = refs.external_ref and refs.channel_code = 'MANUAL'
left join {{ source('bridge', 'catalog_product') }} as products on refs.entity_key = products.product_key
left join ({{ recon_queued('bstadmin', 'tour_packages') }}) as queued on landed.package_id::text = queued.source_pk
