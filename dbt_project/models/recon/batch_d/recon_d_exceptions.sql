select
    'D-01'::text as gate_id,
    'booking'::text as entity,
    concat_ws(':', c.booking_key, c.channel_code, c.external_booking_ref) as key,
    'DUPLICATE_IDENTITY'::text as status,
    true as is_counted,
    jsonb_build_object('channel_code', c.channel_code, 'external_booking_ref', c.external_booking_ref) as detail
from {{ ref('recon_identity_collisions') }} as c
where c.position > 1

union all

select
    'D-02' as gate_id,
    'booking' as entity,
    cores.booking_key::text as key,
    case
        when cores.channel_code is null then 'CHANNEL_NULL'
        when channels.channel_code is null then 'CHANNEL_UNKNOWN'
        else 'REF_NULL'
    end as status,
    true as is_counted,
    jsonb_build_object('channel_code', cores.channel_code, 'external_booking_ref', cores.external_booking_ref) as detail
from {{ source('bridge', 'booking_core') }} as cores
left join {{ source('bridge', 'channel_registry') }} as channels on cores.channel_code = channels.channel_code
where channels.channel_code is null or nullif(btrim(cores.external_booking_ref), '') is null

union all

select
    'D-03' as gate_id,
    h.entity,
    h.key::text as key,
    h.status,
    true as is_counted,
    h.detail
from {{ ref('recon_head_counts') }} as h

union all

select
    'D-04' as gate_id,
    'booking' as entity,
    cores.booking_key::text as key,
    case
        when cores.package_ref_type is null then 'TYPE_NULL'
        when types.code is null then 'TYPE_UNKNOWN'
        else 'TYPE_WITHOUT_KEY'
    end as status,
    true as is_counted,
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
    'D-05' as gate_id,
    'booking' as entity,
    concat_ws(':', s.source_system, s.source_table, s.booking_id) as key,
    case
        when s.is_queued then 'QUEUED'
        when s.key_by_source_id is not null then 'OTHER_IDENTITY'
        else 'NO_IDENTITY'
    end as status,
    not s.is_queued as is_counted,
    jsonb_build_object('channel_code', s.channel_code, 'external_booking_ref', left(s.external_booking_ref, 128)) as detail
from {{ ref('recon_source_identities') }} as s
where s.key_by_identity is null

union all

select
    'D-06' as gate_id,
    'booking' as entity,
    u.booking_key::text as key,
    case when u.is_reviewed then 'UNDER_REVIEW' else 'NO_SOURCE' end as status,
    not u.is_reviewed as is_counted,
    jsonb_build_object('channel_code', u.channel_code, 'external_booking_ref', u.external_booking_ref) as detail
from {{ ref('recon_unsourced_bookings') }} as u
