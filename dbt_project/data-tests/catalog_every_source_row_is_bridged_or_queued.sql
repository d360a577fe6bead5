-- depends_on: {{ ref('catalog_external_refs') }}
-- depends_on: {{ ref('catalog_queue') }}
-- A product, variant or package of the sources without a ref is in the queue, so that nobody loses it (mapping 3).
with source_rows as (

    select
        'TourProduct' as source_table,
        'BALISNAP_PRODUCT_ID' as external_ref_kind,
        product_id::text as source_pk
    from {{ ref('stg_balisnap__tour_products') }}

    union all

    select
        'TourVariant' as source_table,
        'BALISNAP_VARIANT_ID' as external_ref_kind,
        variant_id::text as source_pk
    from {{ ref('stg_balisnap__tour_variants') }}

    union all

    select
        'tour_packages' as source_table,
        'BSTADMIN_PACKAGE_ID' as external_ref_kind,
        package_id::text as source_pk
    from {{ ref('stg_bstadmin__tour_packages') }}

)

select source_rows.*
from source_rows
where
    not exists (
        select 1 from {{ source('bridge', 'channel_external_refs') }} as refs
        where
            refs.external_ref_kind = source_rows.external_ref_kind
            and refs.external_ref = source_rows.source_pk
    )
    and not exists (
        select 1 from {{ source('bridge', 'unmapped_queue') }} as queue
        where
            queue.queue_type in ('PRODUCT_MAPPING', 'VARIANT_MAPPING')
            and queue.source_table = source_rows.source_table
            and queue.source_pk = source_rows.source_pk
    )
