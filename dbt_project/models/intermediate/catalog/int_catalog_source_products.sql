-- Where each balisnap product goes: its own canonical product, or the one a person chose for an invalid row.
with products as (

    select * from {{ ref('stg_balisnap__tour_products') }}

),

resolutions as (

    select * from {{ ref('int_catalog_resolutions') }}
    where source_system = 'balisnap' and source_table = 'TourProduct' and entity_type = 'PRODUCT'

),

in_bridge as (

    select product_key from {{ source('bridge', 'catalog_product') }}

),

keyed as (

    select
        *,
        product_id::text as source_pk,
        {{ function('row_key') }}('product', 'balisnap', 'TourProduct', product_id::text) as own_key,
        (product_name is not null or slug is not null) as is_made
    from products

),

final as (

    select
        keyed.product_id,
        keyed.source_pk,
        keyed.is_made,
        case when keyed.is_made then keyed.own_key else in_bridge.product_key end as product_key,
        keyed.legacy_package_id,
        keyed.product_name,
        keyed.slug,
        keyed.match_name,
        keyed.raw_product_name,
        keyed.raw_slug
    from keyed
    left join resolutions on keyed.source_pk = resolutions.source_pk
    left join in_bridge on resolutions.entity_key = in_bridge.product_key

)

select * from final
