select
    'C-01'::text as gate_id,
    o.entity,
    o.key::text as key,
    o.status,
    true as is_counted,
    o.detail
from {{ ref('recon_orphans') }} as o
where
    o.batch = 'C' and o.status in ('PRODUCT_WITHOUT_VARIANT', 'VARIANT_WITHOUT_PRODUCT', 'REF_TO_NOTHING')

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
    'NO_PRICE' as status,
    true as is_counted,
    jsonb_build_object('code', v.code, 'product_key', v.product_key) as detail
from {{ source('bridge', 'catalog_variant') }} as v
where not exists (
    select 1 from {{ source('bridge', 'catalog_variant_rate') }} as r
    where r.variant_key = v.variant_key and r.is_active
)

union all

select
    'C-04' as gate_id,
    q.queue_type as entity,
    q.queue_key::text as key,
    'UNKNOWN_REASON' as status,
    true as is_counted,
    jsonb_build_object('reason_code', q.reason_code, 'source_table', q.source_table, 'source_pk', q.source_pk) as detail
from {{ source('bridge', 'unmapped_queue') }} as q
where q.reason_code not in ('NO_MATCH', 'MULTI_MATCH', 'INVALID_SOURCE')
