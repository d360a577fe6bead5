-- Required query: external refs that say the same of two entities, or two things of one source row.
-- Kinds that hold ids are equal when their text is; a booking's ref is equal in its normal form.
{{ config(twin='together') }}

{%- set ref -%}
    case when external_ref_kind = 'BOOKING_REF' then {{ recon_norm_ref('external_ref') }} else external_ref end
{%- endset -%}
{%- set by_ref -%}
    hash_record_extended(row(entity_type, channel_code, external_ref_kind, {{ ref }}), 0)
{%- endset -%}
{%- set by_source_row -%}
    hash_record_extended(row(entity_type, external_ref_kind, source_system, source_table, source_pk), 0)
{%- endset %}
-- a number for each instead of its texts: what stands once is most of them, and left behind here
with suspects as materialized (
    select {{ by_ref }} as suspect
    from {{ source('bridge', 'channel_external_refs') }}
    group by suspect
    having count(*) > 1

    union all

    select {{ by_source_row }} as suspect
    from {{ source('bridge', 'channel_external_refs') }}
    where external_ref_kind <> 'BOOKING_REF'
    group by suspect
    having count(*) > 1
),

refs as materialized (
    select
        entity_type,
        channel_code,
        external_ref_kind,
        {{ ref }} as ref,
        entity_key,
        source_system,
        source_table,
        source_pk
    from {{ source('bridge', 'channel_external_refs') }}
    where
        exists (select 1 from suspects)
        and (
            {{ by_ref }} in (select s.suspect from suspects as s)
            or {{ by_source_row }} in (select s.suspect from suspects as s)
        )
),

-- first the few that stand twice, then what they point at
same_ref as (
    select
        entity_type,
        channel_code,
        external_ref_kind,
        ref
    from refs
    group by entity_type, channel_code, external_ref_kind, ref
    having count(*) > 1
),

same_source_row as (
    select
        entity_type,
        external_ref_kind,
        source_system,
        source_table,
        source_pk
    from refs
    where external_ref_kind <> 'BOOKING_REF'
    group by entity_type, external_ref_kind, source_system, source_table, source_pk
    having count(*) > 1
),

found as (
    select
        refs.entity_type,
        concat_ws(':', refs.channel_code, refs.external_ref_kind, refs.ref) as key,
        'SAME_REF' as status,
        refs.entity_key
    from refs
    inner join same_ref
        on
            refs.entity_type = same_ref.entity_type
            and refs.channel_code = same_ref.channel_code
            and refs.external_ref_kind = same_ref.external_ref_kind
            and refs.ref = same_ref.ref

    union all

    select
        refs.entity_type,
        concat_ws(
            ':', refs.external_ref_kind, refs.source_system, refs.source_table, refs.source_pk
        ) as key,
        'SAME_SOURCE_ROW' as status,
        refs.entity_key
    from refs
    inner join same_source_row
        on
            refs.entity_type = same_source_row.entity_type
            and refs.external_ref_kind = same_source_row.external_ref_kind
            and refs.source_system = same_source_row.source_system
            and refs.source_table = same_source_row.source_table
            and refs.source_pk = same_source_row.source_pk
)

select
    case entity_type when 'BOOKING' then 'D' else 'C' end as batch,
    lower(entity_type collate "C") as entity,
    key,
    status,
    jsonb_build_object('entity_keys', jsonb_agg(entity_key order by entity_key)) as detail
from found
group by entity_type, key, status
