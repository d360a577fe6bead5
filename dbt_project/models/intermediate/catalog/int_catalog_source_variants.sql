-- Where each balisnap variant goes: under its product, or where a person put it when that product is missing.
with variants as (

    select * from {{ ref('stg_balisnap__tour_variants') }}

),

products as (

    select * from {{ ref('int_catalog_source_products') }}

),

resolutions as (

    select * from {{ ref('int_catalog_resolutions') }}
    where source_system = 'balisnap' and source_table = 'TourVariant'

),

products_in_bridge as (

    select product_key from {{ source('bridge', 'catalog_product') }}

),

variants_in_bridge as (

    select * from {{ source('bridge', 'catalog_variant') }}

),

known_products as (

    select product_key from products
    where is_made
    union distinct
    select product_key from products_in_bridge

),

keyed as (

    select
        variant_id,
        variant_id::text as source_pk,
        product_id,
        legacy_package_id,
        is_default,
        is_active,
        raw_variant_code,
        {{ function('row_key') }}('variant', 'balisnap', 'TourVariant', variant_id::text) as own_key
    from variants

),

placed as (

    select
        keyed.*,
        products.product_key as natural_product_key,
        known_products.product_key as chosen_product_key,
        variants_in_bridge.variant_key as chosen_variant_key,
        variants_in_bridge.product_key as product_key_of_chosen_variant
    from keyed
    left join products on keyed.product_id = products.product_id
    left join resolutions on keyed.source_pk = resolutions.source_pk
    left join known_products
        on resolutions.entity_type = 'PRODUCT' and resolutions.entity_key = known_products.product_key
    -- a variant resolved to itself stays where it is
    left join variants_in_bridge
        on
            resolutions.entity_type = 'VARIANT'
            and resolutions.entity_key = variants_in_bridge.variant_key
            and keyed.own_key <> variants_in_bridge.variant_key

),

final as (

    select
        variant_id,
        source_pk,
        product_id,
        legacy_package_id,
        is_default,
        is_active,
        raw_variant_code,
        (
            chosen_variant_key is null
            and coalesce(chosen_product_key, natural_product_key) is not null
        ) as is_made,
        case
            when chosen_variant_key is not null then chosen_variant_key
            when coalesce(chosen_product_key, natural_product_key) is not null then own_key
        end as variant_key,
        coalesce(product_key_of_chosen_variant, chosen_product_key, natural_product_key) as product_key
    from placed

)

select * from final
