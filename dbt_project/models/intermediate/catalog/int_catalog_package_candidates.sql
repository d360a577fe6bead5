-- Every balisnap product that a valid bstadmin package fits, with the level at which it does (mapping 3.2).
with packages as (

    select * from {{ ref('stg_bstadmin__tour_packages') }}
    where package_name is not null or slug is not null

),

products as (

    select * from {{ ref('int_catalog_source_products') }}
    where is_made

),

variants as (

    select * from {{ ref('int_catalog_source_variants') }}
    where is_made

),

by_product_id as (

    select
        packages.package_id,
        1 as match_level,
        products.product_key
    from packages
    inner join products on packages.package_id = products.legacy_package_id

),

by_variant_id as (

    select
        packages.package_id,
        1 as match_level,
        variants.product_key
    from packages
    inner join variants on packages.package_id = variants.legacy_package_id

),

by_slug as (

    select
        packages.package_id,
        2 as match_level,
        products.product_key
    from packages
    inner join products on packages.slug = products.slug

),

by_name as (

    select
        packages.package_id,
        3 as match_level,
        products.product_key
    from packages
    inner join products on packages.match_name = products.match_name

),

final as (

    -- union, not union all: a product may be named by its own id and by a variant's
    select * from by_product_id
    union distinct
    select * from by_variant_id
    union distinct
    select * from by_slug
    union distinct
    select * from by_name

)

select * from final
