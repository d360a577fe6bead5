-- Grain: one booking, or one entity of the catalog. A number made of its identity and its refs, all that the queries of
-- duplicates read: where each is what it was, these find what they found (bridge/measure.py).
{{ config(twin='kept', indexes=[{'columns': ['entity_key']}]) }}

select
    case when r.is_booking then 'D' else 'C' end as batch,
    r.entity_key,
    bit_xor(r.mark) as mark
from (
    select
        true as is_booking,
        booking_key as entity_key,
        hash_record_extended(row(channel_code, external_booking_ref), 0) as mark
    from {{ source('bridge', 'booking_core') }}

    union all

    select
        entity_type = 'BOOKING' as is_booking,
        entity_key,
        hash_record_extended(
            row(
                external_ref_key, entity_type, channel_code, external_ref_kind, external_ref,
                -- of a booking's ref nobody asks which row has said it, and another one may win
                case
                    when external_ref_kind <> 'BOOKING_REF'
                        then hash_record_extended(row(source_system, source_table, source_pk), 0)
                end
            ),
            0
        ) as mark
    from {{ source('bridge', 'channel_external_refs') }}
) as r
group by r.is_booking, r.entity_key
