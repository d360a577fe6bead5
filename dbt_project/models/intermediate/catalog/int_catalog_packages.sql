-- Where each bstadmin package maps to: a person's decision, else the match, else its own product (mapping 3.2 to 3.4).
with packages as (

    select * from {{ ref('stg_bstadmin__tour_packages') }}

),

matches as (

    select * from {{ ref('int_catalog_package_matches') }}

),

source_products as (

    select * from {{ ref('int_catalog_source_products') }}
    where is_made

),

source_variants as (

    select * from {{ ref('int_catalog_source_variants') }}
    where is_made

),

resolutions as (

    select * from {{ ref('int_catalog_resolutions') }}
    where source_system = 'bstadmin' and source_table = 'tour_packages'

),

products_in_bridge as (

    select product_key from {{ source('bridge', 'catalog_product') }}

),

variants_in_bridge as (

    select * from {{ source('bridge', 'catalog_variant') }}

),

keyed as (

    select
        packages.package_id,
        packages.package_id::text as source_pk,
        packages.tour_id,
        matches.match_status as natural_status,
        matches.match_level as natural_level,
        matches.product_key as natural_product_key,
        matches.candidates,
        {{ function('row_key') }}('product', 'bstadmin', 'tour_packages', packages.package_id::text) as own_product_key,
        {{ function('row_key') }}('variant', 'bstadmin', 'tour_packages', packages.package_id::text) as own_variant_key
    from packages
    inner join matches on packages.package_id = matches.package_id

),

decided as (

    select
        keyed.*,
        resolutions.entity_type as chosen_type,
        resolutions.entity_key as chosen_key,
        (
            keyed.natural_status <> 'INVALID_SOURCE'
            and coalesce(resolutions.entity_key in (keyed.own_product_key, keyed.own_variant_key), false)
        ) as chose_itself
    from keyed
    left join resolutions on keyed.source_pk = resolutions.source_pk

),

-- packages that are a product of their own whatever others decide, so that another may be mapped to them
standing_alone as (

    select
        own_product_key,
        own_variant_key
    from decided
    where chose_itself or (natural_status = 'NO_MATCH' and chosen_key is null)

),

known_products as (

    select product_key from source_products
    union distinct
    select own_product_key from standing_alone
    union distinct
    select product_key from products_in_bridge

),

-- the bridge's own rows count only where no source row speaks: a variant that is gone is no target of rule 3.3
known_variants as (

    select
        variant_key,
        product_key,
        legacy_package_id,
        is_default,
        is_active,
        variant_id,
        true as is_carried
    from source_variants

    union all

    select
        own_variant_key as variant_key,
        own_product_key as product_key,
        null as legacy_package_id,
        true as is_default,
        true as is_active,
        null as variant_id,
        true as is_carried
    from standing_alone

    union all

    select
        variants_in_bridge.variant_key,
        variants_in_bridge.product_key,
        null as legacy_package_id,
        variants_in_bridge.is_default,
        variants_in_bridge.is_active,
        null as variant_id,
        not exists (
            select 1 from source_products
            where source_products.product_key = variants_in_bridge.product_key
        ) as is_carried
    from variants_in_bridge
    where
        not exists (
            select 1 from source_variants
            where source_variants.variant_key = variants_in_bridge.variant_key
        )
        and not exists (
            select 1 from standing_alone
            where standing_alone.own_variant_key = variants_in_bridge.variant_key
        )

),

obeyed as (

    select
        decided.*,
        (decided.chosen_key is not null and not decided.chose_itself) as chose_another,
        coalesce(known_products.product_key, known_variants.product_key) as chosen_product_key,
        known_variants.variant_key as chosen_variant_key
    from decided
    left join known_products
        on decided.chosen_type = 'PRODUCT' and decided.chosen_key = known_products.product_key
    left join known_variants
        on decided.chosen_type = 'VARIANT' and decided.chosen_key = known_variants.variant_key

),

mapped as (

    select
        *,
        case
            when chose_itself then 'OWN'
            when chosen_product_key is not null then 'MAPPED'
            when natural_status = 'NO_MATCH' then 'OWN'
            else natural_status
        end as outcome
    from obeyed

),

placed as (

    select
        *,
        case
            when outcome = 'OWN' then own_product_key
            when outcome = 'MAPPED' and chosen_product_key is not null then chosen_product_key
            when outcome = 'MAPPED' then natural_product_key
        end as product_key,
        case
            when outcome = 'OWN' then 4
            when outcome = 'MAPPED' and chosen_product_key is not null then 0
            when outcome = 'MAPPED' then natural_level
        end as match_level
    from mapped

),

variant_counts as (

    select
        product_key,
        count(*) as variants
    from known_variants
    where is_carried
    group by product_key

),

variant_choices as (

    select distinct on (placed.package_id)
        placed.package_id,
        known_variants.variant_key,
        case
            when known_variants.legacy_package_id = placed.package_id then 'LEGACY_ID'
            when known_variants.is_default then 'DEFAULT'
            else 'ONLY'
        end as variant_rule
    from placed
    inner join known_variants on placed.product_key = known_variants.product_key and known_variants.is_carried
    inner join variant_counts on placed.product_key = variant_counts.product_key
    where
        placed.outcome = 'MAPPED'
        and (
            known_variants.legacy_package_id = placed.package_id
            or known_variants.is_default
            or variant_counts.variants = 1
        )
    order by
        placed.package_id asc,
        coalesce(known_variants.legacy_package_id = placed.package_id, false) desc,
        known_variants.is_active desc,
        known_variants.variant_id asc,
        known_variants.variant_key asc

),

final as (

    select
        placed.package_id,
        placed.source_pk,
        placed.tour_id,
        placed.natural_status,
        placed.outcome,
        placed.match_level,
        placed.product_key,
        case
            when placed.outcome = 'OWN' then placed.own_variant_key
            when placed.chosen_variant_key is not null then placed.chosen_variant_key
            else variant_choices.variant_key
        end as variant_key,
        case
            when placed.outcome = 'OWN' then 'OWN'
            when placed.chosen_variant_key is not null then 'CHOSEN'
            else variant_choices.variant_rule
        end as variant_rule,
        placed.own_variant_key,
        case
            when placed.chosen_key is null then null
            when placed.chose_itself or placed.chosen_product_key is not null then 'OBEYED'
            else 'UNKNOWN_ENTITY'
        end as resolution_status,
        placed.candidates
    from placed
    left join variant_choices on placed.package_id = variant_choices.package_id

)

select * from final
