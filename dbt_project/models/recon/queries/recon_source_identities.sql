-- Grain: one landed booking. What its source calls it, and where the bridge has it: by that identity, and by the ref
-- with its source id. Gates D-01, D-05 and D-06 read this.
{{ config(
    twin='kept',
    indexes=[
        {'columns': ['booking_id']}, {'columns': ['key_by_identity']}, {'columns': ['key_by_source_id']},
        {'columns': ['external_booking_ref'], 'type': 'hash'}
    ]
) }}

with queued as (
    select 'balisnap:' || b.source_pk as source_row
    from ({{ recon_queued('balisnap', 'Booking', 'BOOKING_REVIEW', ['INVALID_SOURCE']) }}) as b

    union all

    select 'bstadmin:' || o.source_pk as source_row
    from ({{ recon_queued('bstadmin', 'bookings', 'BOOKING_REVIEW', ['INVALID_SOURCE']) }}) as o
)

select
    landed.source_system,
    landed.source_table,
    landed.booking_id,
    landed.channel_code,
    landed.external_booking_ref,
    cores.booking_key as key_by_identity,
    links.booking_key as key_by_source_id,
    queued.source_row is not null and not landed.is_bridgeable as is_queued
from {{ ref('recon_source_bookings') }} as landed
left join {{ source('bridge', 'booking_core') }} as cores
    on landed.channel_code = cores.channel_code and landed.external_booking_ref = cores.external_booking_ref
left join {{ ref('recon_booking_links') }} as links
    on landed.source_system = links.source_system and landed.booking_id = links.booking_id
left join queued on landed.source_system || ':' || landed.booking_id::text = queued.source_row
