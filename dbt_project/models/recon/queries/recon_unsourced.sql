-- Gate D-06: bridge bookings that no landed booking accounts for; events that do are asked for where it is counted.
-- Grain: one booking.
{{ config(twin='kept') }}

with identities as materialized (
    select
        key_by_identity,
        key_by_source_id
    from {{ ref('recon_source_identities') }}
),

sourced as (
    select key_by_identity as booking_key from identities
    where key_by_identity is not null

    union all

    select key_by_source_id as booking_key from identities
    where key_by_source_id <> key_by_identity or (key_by_identity is null and key_by_source_id is not null)
)

select
    cores.booking_key,
    cores.channel_code,
    cores.external_booking_ref
from {{ source('bridge', 'booking_core') }} as cores
where
    not exists (
        select 1 from sourced
        where sourced.booking_key = cores.booking_key
    )
