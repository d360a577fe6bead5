-- Grain: one dead letter from the busiest ten minutes of the last day (of the day up to the newest event) to two hours
-- after them, with how many there were in the hour that it begins.
with events as (
    select
        request_received_at,
        max(request_received_at) over () as newest_at
    from {{ source('bridge', 'ingest_event_log') }}
),

tens as (
    select date_bin('10 minutes', request_received_at, timestamptz '2000-01-01 00:00:00+00') as began_at
    from events
    where request_received_at > newest_at - interval '1 day'
),

peak as (
    select began_at
    from tens
    group by began_at
    order by count(*) desc, began_at desc
    limit 1
)

select
    letters.dead_letter_key,
    letters.event_key,
    letters.reason_code,
    letters.first_failed_at,
    peak.began_at as peak_at,
    count(*) over (
        order by letters.first_failed_at
        range between current row and interval '1 hour' following
    ) as in_its_hour
from {{ source('bridge', 'ingest_dead_letter') }} as letters
cross join peak
where
    letters.first_failed_at >= peak.began_at
    and letters.first_failed_at < peak.began_at + interval '2 hours 10 minutes'
