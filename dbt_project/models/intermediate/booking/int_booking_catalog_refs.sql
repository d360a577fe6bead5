-- depends_on: {{ ref('catalog_external_refs') }}
-- depends_on: {{ ref('catalog_variant') }}
-- depends_on: {{ ref('catalog_product') }}
with refs as (
    select
        entity_type,
        entity_key,
        external_ref_kind,
        external_ref
    from {{ source('bridge', 'channel_external_refs') }}
    where
        entity_type in ('PRODUCT', 'VARIANT')
        and (
            (channel_code = 'DIRECT' and external_ref_kind in ('BALISNAP_VARIANT_ID', 'LEGACY_PACKAGE_ID'))
            or (channel_code = 'MANUAL' and external_ref_kind = 'BSTADMIN_PACKAGE_ID')
        )
),

-- A ref to nothing is an orphan of the catalogue (gate C-01), never a package of a booking.
existing as (
    select
        refs.external_ref_kind,
        refs.external_ref,
        'CATALOG_VARIANT'::text as package_ref_type,
        refs.entity_key as package_ref_key,
        1 as place
    from refs
    inner join {{ source('bridge', 'catalog_variant') }} as variants on refs.entity_key = variants.variant_key
    where refs.entity_type = 'VARIANT'
    union all
    select
        refs.external_ref_kind,
        refs.external_ref,
        'CATALOG_PRODUCT'::text as package_ref_type,
        refs.entity_key as package_ref_key,
        2 as place
    from refs
    inner join {{ source('bridge', 'catalog_product') }} as products on refs.entity_key = products.product_key
    where refs.entity_type = 'PRODUCT'
),

-- A balisnap package is first what balisnap's own columns say, then the bstadmin package of that id (mapping 4.8).
asked as (
    select
        'variant'::text as asked_for,
        existing.*
    from existing
    where existing.external_ref_kind = 'BALISNAP_VARIANT_ID' and existing.package_ref_type = 'CATALOG_VARIANT'
    union all
    select
        'bstadmin'::text as asked_for,
        existing.*
    from existing
    where existing.external_ref_kind = 'BSTADMIN_PACKAGE_ID'
    union all
    select
        'balisnap'::text as asked_for,
        external_ref_kind,
        external_ref,
        package_ref_type,
        package_ref_key,
        place + case external_ref_kind when 'LEGACY_PACKAGE_ID' then 0 else 2 end as place
    from existing
    where external_ref_kind in ('LEGACY_PACKAGE_ID', 'BSTADMIN_PACKAGE_ID')
)

select distinct on (asked_for, external_ref)
    asked_for,
    external_ref as source_id,
    package_ref_type,
    package_ref_key
from asked
order by asked_for, external_ref, place, package_ref_key
