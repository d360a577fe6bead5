-- Bookings whose bridge is newer than all of their sources: a backfill only fills nulls there (mapping 4.13), so that
-- their values may differ from the sources' with a reason.
{{ config(twin='part') }}

select links.booking_key
from {{ source('phase2', 'booking_freshness') }} as freshness
inner join {{ ref('recon_booking_links') }} as links on freshness.booking_key = links.booking_key
group by links.booking_key
having
    max(greatest(freshness.last_event_time, freshness.last_core_write_at))
    > max({{ function('utc_instant') }}(links.updated_at))
