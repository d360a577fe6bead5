-- The bridge's rows of one product, or of one variant and its product (phase2.explain_key): table, key, row.
with asked as materialized (
    select current_setting('phase2.explain_key')::uuid as key
),

variants as materialized (
    select v.* from public.catalog_variant as v
    inner join asked on asked.key in (v.variant_key, v.product_key)
),

products as materialized (
    select p.* from public.catalog_product as p
    where
        p.product_key = (select asked.key from asked)
        or p.product_key in (select v.product_key from variants as v)
),

found as (
    select
        1 as place,
        'catalog_product' as table_name,
        t.product_key as key,
        to_jsonb(t) as said
    from products as t
    union all
    select
        2 as place,
        'catalog_variant' as table_name,
        t.variant_key as key,
        to_jsonb(t) as said
    from variants as t
    union all
    select
        3 as place,
        'catalog_variant_rate' as table_name,
        t.variant_rate_key as key,
        to_jsonb(t) as said
    from public.catalog_variant_rate as t
    inner join variants on t.variant_key = variants.variant_key
    union all
    select
        4 as place,
        'channel_external_refs' as table_name,
        t.external_ref_key as key,
        to_jsonb(t) as said
    from public.channel_external_refs as t
    where
        t.entity_type in ('PRODUCT', 'VARIANT')
        and (
            t.entity_key in (select p.product_key from products as p)
            or t.entity_key in (select v.variant_key from variants as v)
        )
)

select
    table_name,
    key,
    said
from found
order by place, key
