-- The sources' ids of products and variants (mapping 3.8).
with source_products as (

    select * from {{ ref('int_catalog_source_products') }}
    where product_key is not null

),

source_variants as (

    select * from {{ ref('int_catalog_source_variants') }}
    where variant_key is not null

),

package_targets as (

    select * from {{ ref('int_catalog_packages') }}

),

tours as (

    select * from {{ ref('stg_bstadmin__tours') }}

),

in_bridge as (

    select * from {{ source('bridge', 'channel_external_refs') }}

),

product_ids as (

    select
        'PRODUCT' as entity_type,
        product_key as entity_key,
        'DIRECT' as channel_code,
        'BALISNAP_PRODUCT_ID' as external_ref_kind,
        source_pk as external_ref,
        'balisnap' as source_system,
        'TourProduct' as source_table,
        source_pk
    from source_products

),

variant_ids as (

    select
        'VARIANT' as entity_type,
        variant_key as entity_key,
        'DIRECT' as channel_code,
        'BALISNAP_VARIANT_ID' as external_ref_kind,
        source_pk as external_ref,
        'balisnap' as source_system,
        'TourVariant' as source_table,
        source_pk
    from source_variants

),

-- two rows with one legacy id: the lower source id keeps it
legacy_ids_of_products as (

    select distinct on (legacy_package_id)
        'PRODUCT' as entity_type,
        product_key as entity_key,
        'DIRECT' as channel_code,
        'LEGACY_PACKAGE_ID' as external_ref_kind,
        legacy_package_id::text as external_ref,
        'balisnap' as source_system,
        'TourProduct' as source_table,
        source_pk
    from source_products
    where legacy_package_id is not null
    order by legacy_package_id asc, is_made desc, product_id asc

),

legacy_ids_of_variants as (

    select distinct on (legacy_package_id)
        'VARIANT' as entity_type,
        variant_key as entity_key,
        'DIRECT' as channel_code,
        'LEGACY_PACKAGE_ID' as external_ref_kind,
        legacy_package_id::text as external_ref,
        'balisnap' as source_system,
        'TourVariant' as source_table,
        source_pk
    from source_variants
    where legacy_package_id is not null
    order by legacy_package_id asc, is_made desc, variant_id asc

),

packages_as_products as (

    select
        'PRODUCT' as entity_type,
        product_key as entity_key,
        'MANUAL' as channel_code,
        'BSTADMIN_PACKAGE_ID' as external_ref_kind,
        source_pk as external_ref,
        'bstadmin' as source_system,
        'tour_packages' as source_table,
        source_pk
    from package_targets
    where product_key is not null

),

packages_as_variants as (

    select
        'VARIANT' as entity_type,
        variant_key as entity_key,
        'MANUAL' as channel_code,
        'BSTADMIN_PACKAGE_ID' as external_ref_kind,
        source_pk as external_ref,
        'bstadmin' as source_system,
        'tour_packages' as source_table,
        source_pk
    from package_targets
    where variant_key is not null

),

-- a tour is one product only when every package of it is
tours_of_one_product as (

    select
        tour_id,
        (array_agg(product_key))[1] as product_key
    from package_targets
    where tour_id is not null
    group by tour_id
    having count(*) = count(product_key) and count(distinct product_key) = 1

),

tour_ids as (

    select
        'PRODUCT' as entity_type,
        tours_of_one_product.product_key as entity_key,
        'MANUAL' as channel_code,
        'BSTADMIN_TOUR_ID' as external_ref_kind,
        tours.tour_id::text as external_ref,
        'bstadmin' as source_system,
        'tours' as source_table,
        tours.tour_id::text as source_pk
    from tours
    inner join tours_of_one_product on tours.tour_id = tours_of_one_product.tour_id

),

refs as (

    select * from product_ids
    union all
    select * from variant_ids
    union all
    select * from legacy_ids_of_products
    union all
    select * from legacy_ids_of_variants
    union all
    select * from packages_as_products
    union all
    select * from packages_as_variants
    union all
    select * from tour_ids

),

final as (

    select
        -- a ref that ingestion made first keeps its key
        coalesce(
            in_bridge.external_ref_key,
            {{ function('external_ref_key') }}(
                refs.entity_type, refs.channel_code, refs.external_ref_kind, refs.external_ref
            )
        ) as external_ref_key,
        refs.*
    from refs
    left join in_bridge
        on
            refs.entity_type = in_bridge.entity_type
            and refs.channel_code = in_bridge.channel_code
            and refs.external_ref_kind = in_bridge.external_ref_kind
            and refs.external_ref = in_bridge.external_ref

)

select * from final
