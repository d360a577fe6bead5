-- Bridge bookings that no landed booking and no event accounts for (gate D-06), and whether a person has them to review.
with identities as (
    select key_by_identity, key_by_source_id from {{ ref('recon_source_identities') }}
),

sourced as (
    select key_by_identity as booking_key from identities where key_by_identity is not null

    union all

    select key_by_source_id as booking_key from identities where key_by_source_id <> key_by_identity or key_by_identity is null
),

events as (
    select distinct channel_code, external_booking_ref from {{ source('bridge', 'ingest_event_log') }}
),

reviewed as (
    select distinct q.source_pk
    from {{ source('bridge', 'unmapped_queue') }} as q
    where
        q.source_system = 'canonical' and q.source_table = 'booking_identity'
        and q.queue_type = 'BOOKING_REVIEW' and q.reason_code = 'NO_MATCH'
        and {{ recon_queue_stands('q') }}
)

select
    cores.booking_key,
    cores.channel_code,
    cores.external_booking_ref,
    reviewed.source_pk is not null as is_reviewed
from {{ source('bridge', 'booking_core') }} as cores
left join events
    on cores.channel_code = events.channel_code and cores.external_booking_ref = events.external_booking_ref
left join {{ source('phase2', 'booking_freshness') }} as freshness on cores.booking_key = freshness.booking_key
left join reviewed on left(cores.channel_code || ':' || cores.external_booking_ref, 128) = reviewed.source_pk
where
    not exists (select 1 from sourced where sourced.booking_key = cores.booking_key)
    and events.channel_code is null
    and freshness.last_event_time is null
