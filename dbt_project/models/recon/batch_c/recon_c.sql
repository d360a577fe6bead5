-- What the verdict of batch C reads: measures, exceptions, parity and findings, in one reading of the database.
-- It reads the bridge as it is; in a build of the whole project it comes after the models that write it:
-- depends_on: {{ ref('catalog_external_refs') }}
-- depends_on: {{ ref('catalog_leftovers') }}
-- depends_on: {{ ref('catalog_product') }}
-- depends_on: {{ ref('catalog_queue') }}
-- depends_on: {{ ref('catalog_variant') }}
-- depends_on: {{ ref('catalog_variant_rate') }}
{{ config(twin='composite') }}

with{{ recon_global_ctes(['C']) }},

sizes as (
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

-- a variant that no ref leads to is retired: it stays, its rates go with the sources' (mapping 2)
variants as materialized (
    select
        v.variant_key,
        v.product_key,
        v.code,
        carried.entity_key is not null as is_carried,
        active.variant_key is not null as is_priced
    from {{ source('bridge', 'catalog_variant') }} as v
    left join (
        select distinct f.entity_key from {{ source('bridge', 'channel_external_refs') }} as f
        where f.entity_type = 'VARIANT'
    ) as carried on v.variant_key = carried.entity_key
    left join (
        select distinct r.variant_key from {{ source('bridge', 'catalog_variant_rate') }} as r
        where r.is_active
    ) as active on v.variant_key = active.variant_key
),

priced as (
    select
        count(*) filter (where v.is_carried) as carried,
        count(*) filter (where v.is_carried and v.is_priced) as priced,
        count(*) filter (where not v.is_carried) as retired
    from variants as v
),

reasons as (
    select
        count(*) as all_rows,
        count(*) filter (where reason_code in ('NO_MATCH', 'MULTI_MATCH', 'INVALID_SOURCE')) as reasoned
    from {{ source('bridge', 'unmapped_queue') }}
),

counted as (
    select
        'C-01' as gate_id,
        o.orphans as numerator,
        s.products + s.variants as denominator,
        null::jsonb as detail
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

    select
        'C-03' as gate_id,
        p.priced as numerator,
        p.carried as denominator,
        jsonb_build_object('retired', p.retired) as detail
    from priced as p

    union all

    select
        'C-04' as gate_id,
        r.reasoned as numerator,
        r.all_rows as denominator,
        null as detail
    from reasons as r
),

measured as (
    select
        r.gate_id,
        r.numerator,
        r.denominator,
        r.numerator::numeric / nullif(r.denominator, 0) as value,
        r.detail
    from counted as r
),

exceptions as (
    select
        'C-01'::text as gate_id,
        o.entity,
        o.key::text as key,
        o.status,
        true as is_counted,
        o.detail
    from findings as o
    where
        o.query = 'recon_orphans'
        and o.status in ('PRODUCT_WITHOUT_VARIANT', 'VARIANT_WITHOUT_PRODUCT', 'REF_TO_NOTHING')

    union all

    select
        'C-02' as gate_id,
        q.queue_type as entity,
        concat_ws(':', q.source_system, q.source_table, q.source_pk, q.reason_code) as key,
        q.status,
        true as is_counted,
        jsonb_build_object('channel_code', q.channel_code, 'reason_detail', q.reason_detail) as detail
    from {{ source('bridge', 'unmapped_queue') }} as q
    where
        q.status in ('OPEN', 'IN_REVIEW')
        and q.queue_type in ('PRODUCT_MAPPING', 'VARIANT_MAPPING', 'CATALOG_EXTENDED_METADATA')

    union all

    select
        'C-03' as gate_id,
        'variant' as entity,
        v.variant_key::text as key,
        case when v.is_carried then 'NO_PRICE' else 'RETIRED' end as status,
        v.is_carried as is_counted,
        jsonb_build_object('code', v.code, 'product_key', v.product_key) as detail
    from variants as v
    where not (v.is_carried and v.is_priced)

    union all

    select
        'C-04' as gate_id,
        q.queue_type as entity,
        q.queue_key::text as key,
        case when q.reason_code is null then 'NO_REASON' else 'UNKNOWN_REASON' end as status,
        true as is_counted,
        jsonb_build_object('reason_code', q.reason_code, 'source_table', q.source_table, 'source_pk', q.source_pk)
            as detail
    from {{ source('bridge', 'unmapped_queue') }} as q
    where coalesce(q.reason_code, '') not in ('NO_MATCH', 'MULTI_MATCH', 'INVALID_SOURCE')
)

{{ recon_measure_rows('measured') }}

union all

{{ recon_exception_rows('exceptions') }}

union all

{{ recon_global_rows() }}
