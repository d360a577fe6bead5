{{ config(materialized='view') }} -- one model reads it, once
with candidates as (
    select
        booking_key,
        channel_code,
        external_booking_ref,
        source_system,
        source_table,
        source_pk,
        candidate_rank
    from {{ ref('int_booking_candidates') }}
),

-- One BOOKING_REF an identity, from its winner, and one id a candidate (mapping 4.2).
wanted as (
    select
        booking_key,
        channel_code,
        'BOOKING_REF'::text as external_ref_kind,
        external_booking_ref as external_ref,
        source_system,
        source_table,
        source_pk
    from candidates
    where candidate_rank = 1
    union all
    select
        booking_key,
        channel_code,
        case source_system when 'balisnap' then 'BALISNAP_BOOKING_ID' else 'BSTADMIN_BOOKING_ID' end
            as external_ref_kind,
        source_pk as external_ref,
        source_system,
        source_table,
        source_pk
    from candidates
),

held as (
    select
        external_ref_key,
        channel_code,
        external_ref_kind,
        external_ref
    from {{ source('bridge', 'channel_external_refs') }}
    where entity_type = 'BOOKING'
)

-- A row that ingestion made for the same value keeps its key.
select
    coalesce(
        held.external_ref_key,
        {{ function('external_ref_key') }}(
            'BOOKING', wanted.channel_code, wanted.external_ref_kind, wanted.external_ref
        )
    ) as external_ref_key,
    'BOOKING'::text as entity_type,
    wanted.booking_key as entity_key,
    wanted.channel_code,
    wanted.external_ref_kind,
    wanted.external_ref,
    wanted.source_system,
    wanted.source_table,
    wanted.source_pk
from wanted
left join held
    on
        wanted.channel_code = held.channel_code
        and wanted.external_ref_kind = held.external_ref_kind
        and wanted.external_ref = held.external_ref
