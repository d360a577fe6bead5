-- What became of bstadmin's packages: of the one in phase2.explain, or of those that products and variants
-- (phase2.explain_keys) were candidates for.
with asked as materialized (
    select unnest(current_setting('phase2.explain_keys')::uuid[]) as key
)

select
    p.package_id::text as package_id,
    p.natural_status,
    p.outcome,
    p.match_level,
    p.product_key,
    p.variant_key,
    p.variant_rule,
    p.resolution_status,
    p.candidates
from dbt_intermediate.int_catalog_packages as p
where
    p.package_id::text = current_setting('phase2.explain')
    or exists (
        select 1 from asked
        where
            asked.key in (p.product_key, p.variant_key)
            or p.candidates @> jsonb_build_array(jsonb_build_object('product_key', asked.key))
    )
order by p.package_id
