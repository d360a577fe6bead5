{{
    config(
        table='channel_external_refs',
        key='external_ref_key',
        range_by='entity_key',
        part="t.entity_type = 'BOOKING'",
        remove_where="t.entity_type = 'BOOKING' and t.source_system in ('balisnap', 'bstadmin') and {{ touched_key('t.entity_key') }}"
    )
}}
-- depends_on: {{ ref('booking_core') }}

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
from {{ ref('int_booking_external_refs') }}
