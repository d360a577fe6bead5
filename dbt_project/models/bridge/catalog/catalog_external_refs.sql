{{
    config(
        table='channel_external_refs',
        key='external_ref_key',
        part="t.entity_type in ('PRODUCT', 'VARIANT')",
        remove_where="t.entity_type in ('PRODUCT', 'VARIANT') and t.source_system in ('balisnap', 'bstadmin')"
    )
}}
-- depends_on: {{ ref('catalog_variant') }}

select
    external_ref_key,
    entity_type,
    entity_key,
    channel_code,
    external_ref_kind,
    external_ref,
    source_system,
    source_table,
    source_pk
from {{ ref('int_catalog_refs') }}
