-- Everything of the catalog that a person has to look at, one row per cause (mapping 1, 3.1, 3.2, 3.6).
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

rates as (

    select * from {{ ref('int_catalog_rates') }}

),

unusable_products as (

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

unmapped_packages as (

    select
        'PRODUCT_MAPPING' as queue_type,
        'bstadmin' as source_system,
        'tour_packages' as source_table,
        package_targets.source_pk,
        package_targets.natural_status as reason_code,
        case package_targets.natural_status
            when 'INVALID_SOURCE' then 'neither usable name nor slug'
            when 'MULTI_MATCH' then 'more than one product fits, or slug and name contradict the id'
            else 'no product fits by id, slug or name'
        end as cause,
        jsonb_build_object(
            'package_name', packages.raw_package_name,
            'slug', packages.raw_slug,
            'candidates', package_targets.candidates
        ) as detail
    from package_targets
    inner join packages on package_targets.package_id = packages.package_id
    where
        package_targets.natural_status <> 'MAPPED'
        and package_targets.resolution_status is distinct from 'OBEYED'

),

variants_without_product as (

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

plans_with_variant as (

    select
        plans.*,
        plans.rate_plan_id::text as source_pk,
        coalesce(source_variants.is_made, false) as has_variant
    from plans
    left join source_variants on plans.variant_id = source_variants.variant_id

),

metadata as (

    select
        'balisnap' as source_system,
        'VariantRatePlan' as source_table,
        source_pk,
        'NO_MATCH' as reason_code,
        'its variant is missing or not bridged' as cause,
        jsonb_build_object('variant_id', variant_id) as detail
    from plans_with_variant
    where not has_variant

    union all

    select
        'balisnap',
        'VariantRatePlan',
        source_pk,
        'INVALID_SOURCE',
        'price is null, NaN or below 0: not bridged',
        jsonb_build_object('price', raw_price::text)
    from plans_with_variant
    where has_variant and not has_price

    union all

    select
        'balisnap',
        'VariantRatePlan',
        source_pk,
        'INVALID_SOURCE',
        'price is beyond the type: 0 taken',
        jsonb_build_object('price', raw_price::text)
    from plans_with_variant
    where has_variant and has_price and not is_money

    union all

    select
        'balisnap',
        'VariantRatePlan',
        source_pk,
        'INVALID_SOURCE',
        'currency is not three letters: USD taken',
        jsonb_build_object('currency_code', raw_currency_code)
    from plans_with_variant
    where has_variant and has_price and not has_currency

    union all

    -- a product of its own shows its package's currency: that review is the package's, below
    select
        source_system,
        source_table,
        source_pk,
        'INVALID_SOURCE',
        'currency is not three letters: USD taken',
        jsonb_build_object('currency_code', raw_currency_code)
    from variants
    where not has_currency and source_system = 'balisnap'

    union all

    select
        'bstadmin',
        'tour_packages',
        package_targets.source_pk,
        'INVALID_SOURCE',
        'currency is not three letters: USD taken',
        jsonb_build_object('base_currency', packages.raw_base_currency)
    from package_targets
    inner join packages on package_targets.package_id = packages.package_id
    where not packages.has_currency and package_targets.natural_status <> 'INVALID_SOURCE'

    union all

    select
        'bstadmin',
        'tour_packages',
        package_targets.source_pk,
        'INVALID_SOURCE',
        'price is NaN or beyond the type: 0 taken',
        jsonb_build_object(
            'price_per_person', packages.raw_price_per_person::text,
            'price_per_child', packages.raw_price_per_child::text
        )
    from package_targets
    inner join packages on package_targets.package_id = packages.package_id
    where not packages.has_money and package_targets.natural_status <> 'INVALID_SOURCE'

    union all

    select
        'balisnap',
        'TourPackage',
        package_id::text,
        'INVALID_SOURCE',
        'price is NaN or beyond the type: 0 taken',
        jsonb_build_object(
            'price_per_person', raw_price_per_person::text,
            'price_per_child', raw_price_per_child::text
        )
    from tour_packages
    where not has_money

    union all

    select
        source_system,
        source_table,
        source_pk,
        'INVALID_SOURCE',
        'neither slug nor name gives a slug: one made of the id',
        jsonb_build_object('name', raw_name, 'slug', raw_slug, 'given', slug)
    from products
    where is_slug_made_up

    union all

    select
        source_system,
        source_table,
        source_pk,
        'INVALID_SOURCE',
        'text longer than its column: cut',
        jsonb_strip_nulls(
            jsonb_build_object(
                'name', cut_name,
                'slug', cut_slug,
                'category', cut_category,
                'region', cut_region,
                'country_code', cut_country_code
            )
        )
    from products
    where num_nonnulls(cut_name, cut_slug, cut_category, cut_region, cut_country_code) > 0

    union all

    select
        case when color_from = 'tour_packages' then 'bstadmin' else 'balisnap' end,
        color_from,
        color_source_pk,
        'INVALID_SOURCE',
        'text longer than its column: cut',
        jsonb_build_object('color_code', cut_color_code)
    from products
    where cut_color_code is not null

    union all

    select
        source_system,
        source_table,
        source_pk,
        'INVALID_SOURCE',
        'code is missing: one made of the id',
        jsonb_build_object('variant_code', raw_code, 'given', code)
    from variants
    where is_code_made_up

    union all

    select
        source_system,
        source_table,
        source_pk,
        'INVALID_SOURCE',
        'name is missing: the code taken',
        jsonb_build_object('variant_name', raw_name)
    from variants
    where is_name_made_up

    union all

    -- a product of its own has one name for product and variant: one cause is enough
    select
        source_system,
        source_table,
        source_pk,
        'INVALID_SOURCE',
        'text longer than its column: cut',
        jsonb_strip_nulls(jsonb_build_object('variant_code', cut_code, 'variant_name', cut_name))
    from variants
    where source_system = 'balisnap' and num_nonnulls(cut_code, cut_name) > 0

    union all

    select
        variants.source_system,
        variants.source_table,
        variants.source_pk,
        'INVALID_SOURCE',
        'neither an active rate nor a package with an adult price',
        jsonb_build_object('code', variants.code, 'name', variants.name)
    from variants
    where
        not exists (
            select 1 from rates
            where rates.variant_key = variants.variant_key and rates.is_active
        )

),

final as (

    select * from unusable_products
    union all
    select * from unmapped_packages
    union all
    select * from variants_without_product
    union all
    select
        'CATALOG_EXTENDED_METADATA' as queue_type,
        metadata.*
    from metadata

)

select * from final
