-- Required query: external refs that say the same of two entities, or two things of one source row.
-- Kinds that hold ids are equal when their text is; a booking's ref is equal in its normal form.
with refs as (
    select
        entity_type,
        channel_code,
        external_ref_kind,
        case
            when external_ref_kind = 'BOOKING_REF' then {{ recon_norm_ref('external_ref') }} else external_ref
        end as ref,
        entity_key,
        external_ref_key,
        source_system || ':' || source_table || ':' || source_pk as source_row
    from {{ source('bridge', 'channel_external_refs') }}
)

select
    case entity_type when 'BOOKING' then 'D' else 'C' end as batch,
    lower(entity_type collate "C") as entity,
    concat_ws(':', channel_code, external_ref_kind, ref) as key,
    'SAME_REF' as status,
    jsonb_build_object('entity_keys', jsonb_agg(entity_key order by entity_key)) as detail
from refs
group by entity_type, channel_code, external_ref_kind, ref
having count(*) > 1

union all

select
    case entity_type when 'BOOKING' then 'D' else 'C' end as batch,
    lower(entity_type collate "C") as entity,
    concat_ws(':', external_ref_kind, source_row) as key,
    'SAME_SOURCE_ROW' as status,
    jsonb_build_object('entity_keys', jsonb_agg(entity_key order by entity_key)) as detail
from refs
where external_ref_kind <> 'BOOKING_REF'
group by entity_type, external_ref_kind, source_row
having count(*) > 1
