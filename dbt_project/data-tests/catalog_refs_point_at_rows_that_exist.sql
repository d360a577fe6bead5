-- depends_on: {{ ref('catalog_external_refs') }}
-- channel_external_refs has no foreign key to what it names: a ref to nothing is an orphan (gate C-01).
select
    refs.entity_type,
    refs.external_ref_kind,
    refs.external_ref,
    refs.entity_key
from {{ source('bridge', 'channel_external_refs') }} as refs
left join {{ source('bridge', 'catalog_product') }} as products
    on refs.entity_type = 'PRODUCT' and refs.entity_key = products.product_key
left join {{ source('bridge', 'catalog_variant') }} as variants
    on refs.entity_type = 'VARIANT' and refs.entity_key = variants.variant_key
where
    refs.entity_type in ('PRODUCT', 'VARIANT')
    and products.product_key is null
    and variants.variant_key is null
