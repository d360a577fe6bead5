-- The canonical variants: balisnap's, and those that unmatched packages become (mapping 3.1, 3.4, 3.5, 3.7).
with variants as (

    select * from {{ ref('stg_balisnap__tour_variants') }}

),

source_variants as (

    select * from {{ ref('int_catalog_source_variants') }}
    where is_made

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

in_bridge as (

    select * from {{ source('bridge', 'catalog_variant') }}

),

-- of several packages that map to a variant the one matched at the strongest level supplies, then the lowest id
supplying_packages as (

    select distinct on (variant_key)
        variant_key,
        package_id
    from package_targets
    where outcome = 'MAPPED' and variant_key is not null
    order by variant_key, match_level, package_id

),

from_balisnap as (

    select
        source_variants.variant_key,
        source_variants.product_key,
        'balisnap' as source_system,
        'TourVariant' as source_table,
        source_variants.source_pk,
        variants.variant_id as source_id,
        1 as source_rank,
        coalesce(variants.variant_code, 'VAR-' || variants.variant_id) as natural_code,
        coalesce(variants.variant_name, left(variants.variant_code, 64), 'VAR-' || variants.variant_id) as name,
        variants.service_type,
        coalesce(variants.duration_days, packages.duration_days) as duration_days,
        variants.duration_nights,
        coalesce(variants.min_pax, packages.min_booking) as min_pax,
        coalesce(variants.max_pax, packages.max_booking) as max_pax,
        coalesce(variants.raw_currency_code, packages.raw_base_currency) as raw_currency_code,
        variants.is_default,
        variants.is_active,
        variants.booking_cutoff_hours,
        variants.cancellation_policy,
        variants.variant_code is null as is_code_made_up,
        variants.variant_name is null as is_name_made_up,
        variants.raw_variant_code as raw_code,
        variants.raw_variant_name as raw_name
    from source_variants
    inner join variants on source_variants.variant_id = variants.variant_id
    left join supplying_packages on source_variants.variant_key = supplying_packages.variant_key
    left join packages on supplying_packages.package_id = packages.package_id

),

from_bstadmin as (

    select
        package_targets.variant_key,
        package_targets.product_key,
        'bstadmin' as source_system,
        'tour_packages' as source_table,
        package_targets.source_pk,
        packages.package_id as source_id,
        2 as source_rank,
        'PKG-' || packages.package_id as natural_code,
        coalesce(packages.package_name, packages.slug) as name,
        'PRIVATE' as service_type,
        packages.duration_days,
        null::integer as duration_nights,
        packages.min_booking as min_pax,
        packages.max_booking as max_pax,
        packages.raw_base_currency as raw_currency_code,
        true as is_default,
        coalesce(tours.is_active, true) as is_active,
        24 as booking_cutoff_hours,
        null as cancellation_policy,
        false as is_code_made_up,
        false as is_name_made_up,
        null as raw_code,
        packages.raw_package_name as raw_name
    from package_targets
    inner join packages on package_targets.package_id = packages.package_id
    left join tours on packages.tour_id = tours.tour_id
    where package_targets.outcome = 'OWN'

),

all_variants as (

    select * from from_balisnap
    union all
    select * from from_bstadmin

),

wanted_codes as (

    select
        variant_key as entity_key,
        product_key as scope,
        natural_code as wanted,
        source_pk,
        row_number() over (order by source_rank, source_id) as place
    from all_variants

),

-- a variant that the sources no longer carry stays, and keeps its code
reserved_codes as (

    select
        in_bridge.product_key as scope,
        in_bridge.code as taken
    from in_bridge
    where
        not exists (
            select 1 from all_variants
            where all_variants.variant_key = in_bridge.variant_key
        )

),

given_codes as (

    {{ first_keeps_it('wanted_codes', 'reserved_codes', 64) }}

),

bounded as (

    select
        *,
        greatest(coalesce(min_pax, 1), 1) as least_pax
    from all_variants

),

final as (

    select
        bounded.variant_key,
        bounded.product_key,
        bounded.source_system,
        bounded.source_table,
        bounded.source_pk,
        given_codes.given as code,
        left(bounded.name, 255) as name,
        left(bounded.service_type, 32) as service_type,
        greatest(coalesce(bounded.duration_days, 1), 1) as duration_days,
        case when bounded.duration_nights >= 0 then bounded.duration_nights end as duration_nights,
        bounded.least_pax as min_pax,
        case when bounded.max_pax >= bounded.least_pax then bounded.max_pax end as max_pax,
        {{ function('norm_currency') }}(bounded.raw_currency_code) as currency_code,
        bounded.is_default,
        bounded.is_active,
        greatest(bounded.booking_cutoff_hours, 0) as booking_cutoff_hours,
        bounded.cancellation_policy,
        {{ function('is_currency') }}(bounded.raw_currency_code) as has_currency,
        bounded.is_code_made_up,
        bounded.is_name_made_up,
        case when length(bounded.natural_code) > 64 then bounded.raw_code end as cut_code,
        case when length(bounded.name) > 255 then bounded.raw_name end as cut_name,
        bounded.raw_currency_code,
        bounded.raw_code,
        bounded.raw_name
    from bounded
    inner join given_codes on bounded.variant_key = given_codes.entity_key

)

select * from final
