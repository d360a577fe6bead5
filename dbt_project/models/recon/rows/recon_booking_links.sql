-- Grain: one landed booking, and the bridge row that the ref with its source id leads to (null: none).
{{ config(twin='kept', indexes=[{'columns': ['booking_id']}]) }}

select
    'balisnap' as source_system,
    landed.booking_id,
    cores.booking_key,
    landed.updated_at
from {{ source('balisnap', 'Booking') }} as landed
left join ({{ recon_refs('BOOKING', 'BALISNAP_BOOKING_ID') }}) as refs
    on landed.booking_id::text = refs.external_ref and refs.channel_code = 'DIRECT'
left join {{ source('bridge', 'booking_core') }} as cores on refs.entity_key = cores.booking_key

union all

select
    'bstadmin' as source_system,
    landed.booking_id,
    cores.booking_key,
    landed.updated_at
from {{ source('bstadmin', 'bookings') }} as landed
left join ({{ recon_channels() }}) as channels on landed.source = channels.source
left join ({{ recon_refs('BOOKING', 'BSTADMIN_BOOKING_ID') }}) as refs
    on landed.booking_id::text = refs.external_ref and channels.channel_code = refs.channel_code
left join {{ source('bridge', 'booking_core') }} as cores on refs.entity_key = cores.booking_key
