-- Every package that may price a variant, in the order in which they are asked (mapping 3.6).
with variants as (

    select * from {{ ref('int_catalog_variants') }}

),

source_variants as (

    select * from {{ ref('int_catalog_source_variants') }}
    where is_made

),

source_products as (

    select * from {{ ref('int_catalog_source_products') }}
    where is_made

),

package_targets as (

    select * from {{ ref('int_catalog_packages') }}

),

bstadmin_packages as (

    select
        package_id,
        'bstadmin' as source_system,
        'tour_packages' as source_table,
        1 as source_rank,
        price_per_person,
        price_per_child,
        currency_code
    from {{ ref('stg_bstadmin__tour_packages') }}
    where package_name is not null or slug is not null

),

legacy_packages as (

    select * from bstadmin_packages

    union all

    -- balisnap's package has no currency of its own: the variant's is taken
    select
        package_id,
        'balisnap' as source_system,
        'TourPackage' as source_table,
        2 as source_rank,
        price_per_person,
        price_per_child,
        null as currency_code
    from {{ ref('stg_balisnap__tour_packages') }}

),

legacy_id_of_variant as (

    select
        variants.variant_key,
        1 as step,
        0 as match_level,
        variants.currency_code as variant_currency_code,
        legacy_packages.*
    from variants
    inner join source_variants on variants.variant_key = source_variants.variant_key
    inner join legacy_packages on source_variants.legacy_package_id = legacy_packages.package_id

),

mapped_to_variant as (

    select
        variants.variant_key,
        2 as step,
        package_targets.match_level,
        variants.currency_code as variant_currency_code,
        bstadmin_packages.*
    from variants
    inner join package_targets on variants.variant_key = package_targets.variant_key
    inner join bstadmin_packages on package_targets.package_id = bstadmin_packages.package_id

),

legacy_id_of_product as (

    select
        variants.variant_key,
        3 as step,
        0 as match_level,
        variants.currency_code as variant_currency_code,
        legacy_packages.*
    from variants
    inner join source_products on variants.product_key = source_products.product_key
    inner join legacy_packages on source_products.legacy_package_id = legacy_packages.package_id

),

mapped_to_product as (

    select
        variants.variant_key,
        4 as step,
        package_targets.match_level,
        variants.currency_code as variant_currency_code,
        bstadmin_packages.*
    from variants
    inner join package_targets on variants.product_key = package_targets.product_key
    inner join bstadmin_packages on package_targets.package_id = bstadmin_packages.package_id

),

suppliers as (

    select * from legacy_id_of_variant
    union all
    select * from mapped_to_variant
    union all
    select * from legacy_id_of_product
    union all
    select * from mapped_to_product

),

final as (

    select
        variant_key,
        row_number() over (
            partition by variant_key
            order by step, match_level, source_rank, package_id
        ) as place,
        source_system,
        source_table,
        package_id,
        price_per_person,
        price_per_child,
        coalesce(currency_code, variant_currency_code) as currency_code
    from suppliers

)

select * from final
