-- The rates: one per valid rate plan; fallback rates for variants without an active one (mapping 3.1, 3.6).
with plans as (

    select * from {{ ref('stg_balisnap__variant_rate_plans') }}
    where has_price

),

source_variants as (

    select * from {{ ref('int_catalog_source_variants') }}
    where is_made

),

variants as (

    select variant_key from {{ ref('int_catalog_variants') }}

),

suppliers as (

    select * from {{ ref('int_catalog_rate_suppliers') }}

),

from_plans as (

    select
        {{ function('row_key') }}('rate', 'balisnap', 'VariantRatePlan', plans.rate_plan_id::text) as variant_rate_key,
        source_variants.variant_key,
        left(plans.traveler_type, 16) as traveler_type,
        plans.currency_code,
        plans.price,
        plans.min_quantity,
        plans.max_quantity,
        plans.valid_from,
        plans.valid_to,
        plans.is_active,
        false as is_fallback,
        'VariantRatePlan' as source_table,
        plans.rate_plan_id::text as source_pk
    from plans
    inner join source_variants on plans.variant_id = source_variants.variant_id

),

without_active_rate as (

    select variants.variant_key
    from variants
    where
        not exists (
            select 1 from from_plans
            where from_plans.variant_key = variants.variant_key and from_plans.is_active
        )

),

-- the first package with an adult price gives both prices
chosen_suppliers as (

    select distinct on (suppliers.variant_key) suppliers.*
    from suppliers
    inner join without_active_rate on suppliers.variant_key = without_active_rate.variant_key
    where suppliers.price_per_person > 0
    order by suppliers.variant_key, suppliers.place

),

fallback_prices as (

    select
        chosen_suppliers.*,
        'ADULT' as traveler_type,
        chosen_suppliers.price_per_person as price
    from chosen_suppliers

    union all

    select
        chosen_suppliers.*,
        'CHILD' as traveler_type,
        chosen_suppliers.price_per_child as price
    from chosen_suppliers
    where chosen_suppliers.price_per_child > 0

),

from_packages as (

    select
        {{ function('named_key') }}(
            'variant',
            source_system || ':' || source_table || ':' || package_id || ':fallback:'
            || variant_key || ':' || traveler_type
        ) as variant_rate_key,
        variant_key,
        traveler_type,
        currency_code,
        price,
        null::integer as min_quantity,
        null::integer as max_quantity,
        null::timestamptz as valid_from,
        null::timestamptz as valid_to,
        true as is_active,
        true as is_fallback,
        source_table,
        package_id::text as source_pk
    from fallback_prices

),

final as (

    select * from from_plans
    union all
    select * from from_packages

)

select * from final
