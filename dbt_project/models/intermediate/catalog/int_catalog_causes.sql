-- Everything of the catalog that a person has to look at, one row per cause (mapping 1, 3.1, 3.2, 3.6).
-- Each block lists the causes of one kind of source row: when one applies, its type and reason, and the raw values.
with source_products as (

    select * from {{ ref('int_catalog_source_products') }}

),

source_variants as (

    select * from {{ ref('int_catalog_source_variants') }}

),

package_targets as (

    select * from {{ ref('int_catalog_packages') }}

),

packages as (

    select * from {{ ref('stg_bstadmin__tour_packages') }}

),

tour_packages as (

    select * from {{ ref('stg_balisnap__tour_packages') }}

),

plans as (

    select * from {{ ref('stg_balisnap__variant_rate_plans') }}

),

products as (

    select * from {{ ref('int_catalog_products') }}

),

variants as (

    select * from {{ ref('int_catalog_variants') }}

),

active_rates as (

    select distinct variant_key from {{ ref('int_catalog_rates') }}
    where is_active

),

of_source_products as (

    select
        'PRODUCT_MAPPING' as queue_type,
        'balisnap' as source_system,
        'TourProduct' as source_table,
        source_pk,
        'INVALID_SOURCE' as reason_code,
        'neither usable name nor slug' as cause,
        jsonb_build_object('product_name', raw_product_name, 'slug', raw_slug) as detail
    from source_products
    where product_key is null

),

of_source_variants as (

    select
        'VARIANT_MAPPING' as queue_type,
        'balisnap' as source_system,
        'TourVariant' as source_table,
        source_pk,
        'INVALID_SOURCE' as reason_code,
        'its product is missing or not bridged' as cause,
        jsonb_build_object('product_id', product_id, 'variant_code', raw_variant_code) as detail
    from source_variants
    where variant_key is null

),

of_packages as (

    select
        c.queue_type,
        'bstadmin' as source_system,
        'tour_packages' as source_table,
        package_targets.source_pk,
        c.reason_code,
        c.cause,
        c.detail
    from package_targets
    inner join packages on package_targets.package_id = packages.package_id
    cross join
        lateral (
            values
            (
                package_targets.natural_status <> 'MAPPED'
                and package_targets.resolution_status is distinct from 'OBEYED',
                'PRODUCT_MAPPING',
                package_targets.natural_status,
                case package_targets.natural_status
                    when 'INVALID_SOURCE' then 'neither usable name nor slug'
                    when 'MULTI_MATCH' then 'more than one product fits, or slug and name contradict the id'
                    else 'no product fits by id, slug or name'
                end,
                jsonb_build_object(
                    'package_name', packages.raw_package_name,
                    'slug', packages.raw_slug,
                    'candidates', package_targets.candidates
                )
            ),
            (
                package_targets.natural_status <> 'INVALID_SOURCE' and not packages.has_currency,
                'CATALOG_EXTENDED_METADATA',
                'INVALID_SOURCE',
                'currency is not three letters: USD taken',
                jsonb_build_object('base_currency', packages.raw_base_currency)
            ),
            (
                package_targets.natural_status <> 'INVALID_SOURCE' and not packages.has_money,
                'CATALOG_EXTENDED_METADATA',
                'INVALID_SOURCE',
                'price is NaN or beyond the type: 0 taken',
                jsonb_build_object(
                    'price_per_person', packages.raw_price_per_person::text,
                    'price_per_child', packages.raw_price_per_child::text
                )
            )
        ) as c (applies, queue_type, reason_code, cause, detail)
    where c.applies

),

of_tour_packages as (

    select
        'CATALOG_EXTENDED_METADATA' as queue_type,
        'balisnap' as source_system,
        'TourPackage' as source_table,
        package_id::text as source_pk,
        'INVALID_SOURCE' as reason_code,
        'price is NaN or beyond the type: 0 taken' as cause,
        jsonb_build_object(
            'price_per_person', raw_price_per_person::text,
            'price_per_child', raw_price_per_child::text
        ) as detail
    from tour_packages
    where not has_money

),

plans_with_variant as (

    select
        plans.*,
        coalesce(source_variants.is_made, false) as has_variant
    from plans
    left join source_variants on plans.variant_id = source_variants.variant_id

),

of_plans as (

    select
        'CATALOG_EXTENDED_METADATA' as queue_type,
        'balisnap' as source_system,
        'VariantRatePlan' as source_table,
        plans_with_variant.rate_plan_id::text as source_pk,
        c.reason_code,
        c.cause,
        c.detail
    from plans_with_variant
    cross join
        lateral (
            values
            (
                not plans_with_variant.has_variant,
                'NO_MATCH',
                'its variant is missing or not bridged',
                jsonb_build_object('variant_id', plans_with_variant.variant_id)
            ),
            (
                plans_with_variant.has_variant and not plans_with_variant.has_price,
                'INVALID_SOURCE',
                'price is null, NaN or below 0: not bridged',
                jsonb_build_object('price', plans_with_variant.raw_price::text)
            ),
            (
                plans_with_variant.has_variant and plans_with_variant.has_price and not plans_with_variant.is_money,
                'INVALID_SOURCE',
                'price is beyond the type: 0 taken',
                jsonb_build_object('price', plans_with_variant.raw_price::text)
            ),
            (
                plans_with_variant.has_variant and plans_with_variant.has_price and not plans_with_variant.has_currency,
                'INVALID_SOURCE',
                'currency is not three letters: USD taken',
                jsonb_build_object('currency_code', plans_with_variant.raw_currency_code)
            )
        ) as c (applies, reason_code, cause, detail)
    where c.applies

),

of_products as (

    select
        'CATALOG_EXTENDED_METADATA' as queue_type,
        products.source_system,
        products.source_table,
        products.source_pk,
        'INVALID_SOURCE' as reason_code,
        c.cause,
        c.detail
    from products
    cross join
        lateral (
            values
            (
                products.is_slug_made_up,
                'neither slug nor name gives a slug: one made of the id',
                jsonb_build_object('name', products.raw_name, 'slug', products.raw_slug, 'given', products.slug)
            ),
            (
                num_nonnulls(
                    products.cut_name, products.cut_slug, products.cut_category, products.cut_region,
                    products.cut_country_code
                ) > 0,
                'text longer than its column: cut',
                jsonb_strip_nulls(
                    jsonb_build_object(
                        'name', products.cut_name,
                        'slug', products.cut_slug,
                        'category', products.cut_category,
                        'region', products.cut_region,
                        'country_code', products.cut_country_code
                    )
                )
            )
        ) as c (applies, cause, detail)
    where c.applies

),

-- a colour may come from a package: the review is about the row that it came from
of_colors as (

    select
        'CATALOG_EXTENDED_METADATA' as queue_type,
        case color_from when 'tour_packages' then 'bstadmin' else 'balisnap' end as source_system,
        color_from as source_table,
        color_source_pk as source_pk,
        'INVALID_SOURCE' as reason_code,
        'text longer than its column: cut' as cause,
        jsonb_build_object('color_code', cut_color_code) as detail
    from products
    where cut_color_code is not null

),

-- name and currency of a variant that a package became are the package's and its product's, reviewed above
of_variants as (

    select
        'CATALOG_EXTENDED_METADATA' as queue_type,
        variants.source_system,
        variants.source_table,
        variants.source_pk,
        'INVALID_SOURCE' as reason_code,
        c.cause,
        c.detail
    from variants
    left join active_rates on variants.variant_key = active_rates.variant_key
    cross join
        lateral (
            values
            (
                variants.source_system = 'balisnap' and not variants.has_currency,
                'currency is not three letters: USD taken',
                jsonb_build_object('currency_code', variants.raw_currency_code)
            ),
            (
                variants.is_code_made_up,
                'code is missing: one made of the id',
                jsonb_build_object('variant_code', variants.raw_code, 'given', variants.code)
            ),
            (
                variants.is_name_made_up,
                'name is missing: the code taken',
                jsonb_build_object('variant_name', variants.raw_name)
            ),
            (
                variants.source_system = 'balisnap' and num_nonnulls(variants.cut_code, variants.cut_name) > 0,
                'text longer than its column: cut',
                jsonb_strip_nulls(
                    jsonb_build_object('variant_code', variants.cut_code, 'variant_name', variants.cut_name)
                )
            ),
            (
                active_rates.variant_key is null,
                'neither an active rate nor a package with an adult price',
                jsonb_build_object('code', variants.code, 'name', variants.name)
            )
        ) as c (applies, cause, detail)
    where c.applies

),

final as (

    select * from of_source_products
    union all
    select * from of_source_variants
    union all
    select * from of_packages
    union all
    select * from of_tour_packages
    union all
    select * from of_plans
    union all
    select * from of_products
    union all
    -- one package may supply its colour to several products
    (select distinct * from of_colors)
    union all
    select * from of_variants

)

select * from final
