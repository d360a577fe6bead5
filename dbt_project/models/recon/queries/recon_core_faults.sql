-- Gates D-02 and D-04, and what D-01 asks of a ref: bridge bookings without a channel and ref, without a type of
-- package ref, or with a ref in another spelling than its normal form. Grain: one booking and gate.
{{ config(twin='kept') }}

select
    'D-02' as gate_id,
    'booking' as entity,
    cores.booking_key as key,
    case
        when cores.channel_code is null then 'CHANNEL_NULL'
        when channels.channel_code is null then 'CHANNEL_UNKNOWN'
        else 'REF_NULL'
    end as status,
    jsonb_build_object('channel_code', cores.channel_code, 'external_booking_ref', cores.external_booking_ref)
        as detail
from {{ source('bridge', 'booking_core') }} as cores
left join {{ source('bridge', 'channel_registry') }} as channels on cores.channel_code = channels.channel_code
where channels.channel_code is null or {{ recon_is_blank_ref('cores.external_booking_ref') }}

union all

select
    'D-04' as gate_id,
    'booking' as entity,
    cores.booking_key as key,
    case
        when cores.package_ref_type is null then 'TYPE_NULL'
        when types.code is null then 'TYPE_UNKNOWN'
        else 'TYPE_WITHOUT_KEY'
    end as status,
    jsonb_build_object(
        'external_booking_ref', cores.external_booking_ref, 'package_ref_type', cores.package_ref_type
    ) as detail
from {{ source('bridge', 'booking_core') }} as cores
left join {{ ref('recon_dictionaries') }} as types
    on
        types.dictionary = 'ref_package_ref_type'
        and types.is_found
        and cores.package_ref_type = types.code
where
    types.code is null
    or (cores.package_ref_type <> 'LEGACY_PACKAGE' and cores.package_ref_key is null)

union all

select
    'D-01' as gate_id,
    'booking' as entity,
    cores.booking_key as key,
    'OTHER_SPELLING' as status,
    jsonb_build_object(
        'channel_code', cores.channel_code, 'ref', {{ recon_norm_ref('cores.external_booking_ref') }}
    ) as detail
from {{ source('bridge', 'booking_core') }} as cores
where cores.external_booking_ref is distinct from {{ recon_norm_ref('cores.external_booking_ref') }}
