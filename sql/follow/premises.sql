-- What must be as it was for a batch to follow changes, beside the project: the server has not crashed, no landing
-- copied everything, the catalog's ids mean what they meant, and so do the lists.
select
    (select max(s.since_crash::text) from phase2.since_crash as s) as since_crash,
    (
        select coalesce(max(r.landing_no), 0) from phase2.landing_runs as r
        where r.why_whole is not null or r.versions_of is null
    )::text as whole_landing,
    (
        select count(*)::text || ':' || coalesce(bit_xor(hashtextextended(k.said, 0)), 0)::text
        from (
            select
                concat_ws(
                    '|', e.entity_type, e.entity_key, e.channel_code, e.external_ref_kind, e.external_ref
                ) as said
            from public.channel_external_refs as e
            where e.entity_type in ('PRODUCT', 'VARIANT')
            union all
            select v.variant_key::text as said from public.catalog_variant as v
            union all
            select p.product_key::text as said from public.catalog_product as p
        ) as k
    ) as catalog,
    (
        select
            w.digest || ' '
            || (select string_agg(r.channel_code, ',' order by r.channel_code) from public.channel_registry as r)
            || ' '
            || coalesce(
                (
                    select string_agg(d.code, ',' order by d.code) from phase2.dictionary_codes() as d
                    where d.dictionary = 'ref_package_ref_type'
                ), ''
            )
        from phase2.warehouse_state as w
        where w.part = 'ground as made'
    ) as lists
