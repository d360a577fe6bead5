with sizes as (
    select
        (select count(*) from {{ source('bridge', 'catalog_product') }}) as products,
        (select count(*) from {{ source('bridge', 'catalog_variant') }}) as variants
),

orphans as (
    select
        (
            select count(*)
            from {{ source('bridge', 'catalog_product') }} as p
            left join {{ source('bridge', 'catalog_variant') }} as v on p.product_key = v.product_key
            where v.variant_key is null
        )
        + (
            select count(*)
            from {{ source('bridge', 'catalog_variant') }} as v
            left join {{ source('bridge', 'catalog_product') }} as p on v.product_key = p.product_key
            where p.product_key is null
        )
        + (
            select count(*)
            from {{ source('bridge', 'channel_external_refs') }} as r
            left join {{ source('bridge', 'catalog_product') }} as p
                on r.entity_type = 'PRODUCT' and r.entity_key = p.product_key
            left join {{ source('bridge', 'catalog_variant') }} as v
                on r.entity_type = 'VARIANT' and r.entity_key = v.variant_key
            where r.entity_type <> 'BOOKING' and p.product_key is null and v.variant_key is null
        ) as orphans
),

open_rows as (
    select
        count(*) as open_rows,
        count(*) filter (where channel_code = 'DIRECT') as direct_rows,
        count(*) filter (where channel_code = 'MANUAL') as manual_rows,
        count(*) filter (where channel_code is null or channel_code not in ('DIRECT', 'MANUAL')) as other_rows
    from {{ source('bridge', 'unmapped_queue') }}
    where
        status in ('OPEN', 'IN_REVIEW')
        and queue_type in ('PRODUCT_MAPPING', 'VARIANT_MAPPING', 'CATALOG_EXTENDED_METADATA')
),

source_rows as (
    select
        (select count(*) from {{ source('balisnap', 'TourProduct') }})
        + (select count(*) from {{ source('balisnap', 'TourVariant') }}) as direct_rows,
        (select count(*) from {{ source('bstadmin', 'tour_packages') }}) as manual_rows
),

priced as (
    select count(distinct v.variant_key) as variants
    from {{ source('bridge', 'catalog_variant') }} as v
    inner join {{ source('bridge', 'catalog_variant_rate') }} as r on v.variant_key = r.variant_key
    where r.is_active
),

reasons as (
    select
        count(*) as all_rows,
        count(*) filter (where reason_code in ('NO_MATCH', 'MULTI_MATCH', 'INVALID_SOURCE')) as reasoned
    from {{ source('bridge', 'unmapped_queue') }}
),

measured as (
    select 'C-01' as gate_id, o.orphans as numerator, s.products + s.variants as denominator, null::jsonb as detail
    from sizes as s
    cross join orphans as o

    union all

    select
        'C-02' as gate_id,
        q.open_rows as numerator,
        s.products + s.variants as denominator,
        jsonb_build_object(
            'DIRECT', jsonb_build_object('open', q.direct_rows, 'source_rows', r.direct_rows),
            'MANUAL', jsonb_build_object('open', q.manual_rows, 'source_rows', r.manual_rows),
            'other', jsonb_build_object('open', q.other_rows, 'source_rows', 0)
        ) as detail
    from sizes as s
    cross join open_rows as q
    cross join source_rows as r

    union all

    select 'C-03' as gate_id, p.variants as numerator, s.variants as denominator, null as detail
    from sizes as s
    cross join priced as p

    union all

    select 'C-04' as gate_id, r.reasoned as numerator, r.all_rows as denominator, null as detail
    from reasons as r
)

select
    gate_id::text as gate_id,
    numerator::numeric as numerator,
    denominator::numeric as denominator,
    numerator::numeric / nullif(denominator, 0) as value,
    detail
from measured
