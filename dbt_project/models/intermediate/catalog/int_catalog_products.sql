-- The canonical products: balisnap's valid ones, and those that unmatched packages become (mapping 3.1, 3.4, 3.5).
with products as (

    select * from {{ ref('stg_balisnap__tour_products') }}

),

source_products as (

    select * from {{ ref('int_catalog_source_products') }}
    where is_made

),

tour_packages as (

    select * from {{ ref('stg_balisnap__tour_packages') }}

),

packages as (

    select * from {{ ref('stg_bstadmin__tour_packages') }}

),

package_targets as (

    select * from {{ ref('int_catalog_packages') }}

),

tours as (

    select * from {{ ref('stg_bstadmin__tours') }}

),

balisnap_covers as (

    select distinct on (package_id)
        package_id,
        url
    from {{ ref('stg_balisnap__tour_images') }}
    where url is not null
    order by package_id, image_id

),

bstadmin_covers as (

    select distinct on (package_id)
        package_id,
        url
    from {{ ref('stg_bstadmin__tour_images') }}
    where url is not null
    order by package_id, image_id

),

in_bridge as (

    select * from {{ source('bridge', 'catalog_product') }}

),

-- of several packages the one matched at the strongest level supplies, then the lowest id
supplying_packages as (

    select distinct on (product_key)
        product_key,
        package_id
    from package_targets
    where outcome = 'MAPPED'
    order by product_key, match_level, package_id

),

from_balisnap as (

    select
        source_products.product_key,
        'balisnap' as source_system,
        'TourProduct' as source_table,
        source_products.source_pk,
        products.product_id as source_id,
        1 as source_rank,
        coalesce(products.slug, products.name_slug) as natural_slug,
        'product-' || products.product_id as made_up_slug,
        coalesce(products.product_name, products.slug) as name,
        products.product_category,
        coalesce(products.short_description, tour_packages.short_description, packages.short_description)
            as short_description,
        coalesce(products.description, tour_packages.description, packages.description) as description,
        products.is_active,
        products.is_featured,
        coalesce(
            products.thumbnail_url, tour_packages.thumbnail_url, packages.thumbnail_url,
            balisnap_covers.url, bstadmin_covers.url
        ) as thumbnail_url,
        coalesce(products.color_code, tour_packages.color_code, packages.color_code) as color_code,
        case
            when products.color_code is not null then 'TourProduct'
            when tour_packages.color_code is not null then 'TourPackage'
            else 'tour_packages'
        end as color_from,
        case
            when products.color_code is not null then products.product_id
            when tour_packages.color_code is not null then tour_packages.package_id
            else packages.package_id
        end::text as color_source_pk,
        coalesce(products.priority, tour_packages.priority, packages.priority) as priority,
        products.country_code,
        products.region,
        products.base_meeting_point,
        products.raw_product_name as raw_name,
        products.raw_slug
    from source_products
    inner join products on source_products.product_id = products.product_id
    left join tour_packages on products.legacy_package_id = tour_packages.package_id
    left join balisnap_covers on tour_packages.package_id = balisnap_covers.package_id
    left join supplying_packages on source_products.product_key = supplying_packages.product_key
    left join packages on supplying_packages.package_id = packages.package_id
    left join bstadmin_covers on supplying_packages.package_id = bstadmin_covers.package_id

),

from_bstadmin as (

    select
        package_targets.product_key,
        'bstadmin' as source_system,
        'tour_packages' as source_table,
        package_targets.source_pk,
        packages.package_id as source_id,
        2 as source_rank,
        coalesce(packages.slug, packages.name_slug) as natural_slug,
        'package-' || packages.package_id as made_up_slug,
        coalesce(packages.package_name, packages.slug) as name,
        null as product_category,
        packages.short_description,
        packages.description,
        coalesce(tours.is_active, true) as is_active,
        packages.is_featured,
        coalesce(packages.thumbnail_url, bstadmin_covers.url) as thumbnail_url,
        packages.color_code,
        'tour_packages' as color_from,
        package_targets.source_pk as color_source_pk,
        packages.priority,
        'ID' as country_code,
        null as region,
        null as base_meeting_point,
        packages.raw_package_name as raw_name,
        packages.raw_slug
    from package_targets
    inner join packages on package_targets.package_id = packages.package_id
    left join tours on packages.tour_id = tours.tour_id
    left join bstadmin_covers on packages.package_id = bstadmin_covers.package_id
    where package_targets.outcome = 'OWN'

),

all_products as (

    select * from from_balisnap
    union all
    select * from from_bstadmin

),

wanted_slugs as (

    select
        product_key as entity_key,
        'all products' as scope,
        coalesce(natural_slug, made_up_slug) as wanted,
        source_pk,
        row_number() over (order by source_rank, source_id) as place
    from all_products

),

-- a product that the sources no longer carry stays, and keeps its slug
reserved_slugs as (

    select
        'all products' as scope,
        in_bridge.slug as taken
    from in_bridge
    where
        not exists (
            select 1 from all_products
            where all_products.product_key = in_bridge.product_key
        )

),

given_slugs as (

    {{ first_keeps_it('wanted_slugs', 'reserved_slugs', 191) }}

),

final as (

    select
        all_products.product_key,
        all_products.source_system,
        all_products.source_table,
        all_products.source_pk,
        given_slugs.given as slug,
        left(all_products.name, 255) as name,
        left(all_products.product_category, 128) as product_category,
        all_products.short_description,
        all_products.description,
        all_products.is_active,
        all_products.is_featured,
        all_products.thumbnail_url,
        left(all_products.color_code, 32) as color_code,
        all_products.priority,
        left(all_products.country_code, 2) as country_code,
        left(all_products.region, 128) as region,
        all_products.base_meeting_point,
        all_products.natural_slug is null as is_slug_made_up,
        -- the review needs to know what was cut, and from which row it came (mapping 1, values that do not fit)
        case when length(all_products.name) > 255 then all_products.raw_name end as cut_name,
        case when length(all_products.natural_slug) > 191 then all_products.raw_slug end as cut_slug,
        case when length(all_products.product_category) > 128 then all_products.product_category end as cut_category,
        case when length(all_products.region) > 128 then all_products.region end as cut_region,
        case when length(all_products.country_code) > 2 then all_products.country_code end as cut_country_code,
        case when length(all_products.color_code) > 32 then all_products.color_code end as cut_color_code,
        all_products.color_from,
        all_products.color_source_pk,
        all_products.raw_name,
        all_products.raw_slug
    from all_products
    inner join given_slugs on all_products.product_key = given_slugs.entity_key

)

select * from final
