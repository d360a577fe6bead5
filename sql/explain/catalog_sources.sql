-- The landed rows that products and variants (phase2.explain_keys) are made of, with the key that each makes; a package
-- that maps to one of them supplies it and makes nothing.
with asked as materialized (
    select unnest(current_setting('phase2.explain_keys')::uuid[]) as key
),

packages as materialized (
    select
        p.package_id,
        p.product_key,
        p.variant_key,
        p.outcome
    from dbt_intermediate.int_catalog_packages as p
    where p.product_key in (select asked.key from asked) or p.variant_key in (select asked.key from asked)
),

suppliers as materialized (
    select s.* from dbt_intermediate.int_catalog_rate_suppliers as s
    where s.variant_key in (select asked.key from asked)
),

found as (
    select
        1 as place,
        'balisnap' as source_system,
        'TourProduct' as source_table,
        t.product_id as id,
        rulebook.row_key('product', 'balisnap', 'TourProduct', t.product_id::text) as makes,
        null as supplies,
        to_jsonb(t) as said
    from landing_balisnap."TourProduct" as t
    where rulebook.row_key('product', 'balisnap', 'TourProduct', t.product_id::text) in (select asked.key from asked)
    union all
    select
        2 as place,
        'balisnap' as source_system,
        'TourVariant' as source_table,
        t.variant_id as id,
        rulebook.row_key('variant', 'balisnap', 'TourVariant', t.variant_id::text) as makes,
        null as supplies,
        to_jsonb(t) as said
    from landing_balisnap."TourVariant" as t
    where rulebook.row_key('variant', 'balisnap', 'TourVariant', t.variant_id::text) in (select asked.key from asked)
    union all
    select
        3 as place,
        'balisnap' as source_system,
        'VariantRatePlan' as source_table,
        t.rate_plan_id as id,
        rulebook.row_key('rate', 'balisnap', 'VariantRatePlan', t.rate_plan_id::text) as makes,
        null as supplies,
        to_jsonb(t) as said
    from landing_balisnap."VariantRatePlan" as t
    where rulebook.row_key('variant', 'balisnap', 'TourVariant', t.variant_id::text) in (select asked.key from asked)
    union all
    select
        4 as place,
        'bstadmin' as source_system,
        'tour_packages' as source_table,
        t.package_id as id,
        rulebook.row_key(made.entity, 'bstadmin', 'tour_packages', t.package_id::text) as makes,
        'mapped to it' as supplies,
        to_jsonb(t) as said
    from landing_bstadmin.tour_packages as t
    inner join packages on t.package_id = packages.package_id
    cross join (values ('product'), ('variant')) as made (entity)
    union all
    select
        5 as place,
        s.source_system,
        s.source_table,
        s.package_id as id,
        rulebook.named_key(
            'variant',
            s.source_system || ':' || s.source_table || ':' || s.package_id || ':fallback:' || s.variant_key || ':'
            || priced.traveler_type
        ) as makes,
        'asked for a price in place ' || s.place as supplies,
        jsonb_build_object(
            'price_per_person', s.price_per_person, 'price_per_child', s.price_per_child, 'currency', s.currency_code
        ) as said
    from suppliers as s
    cross join (values ('ADULT'), ('CHILD')) as priced (traveler_type)
)

select
    source_system,
    source_table,
    id::text as source_pk,
    makes,
    supplies,
    said
from found
order by place, id, makes
