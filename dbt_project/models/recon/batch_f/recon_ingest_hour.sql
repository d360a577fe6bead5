-- Grain: one event accepted in the hour up to the newest one, so that a quiet night is no failure. What still waits has
-- waited until now. Of what was accepted before the queue was last switched on and applied after it, the time counts
-- from the first event that was applied then: waiting for the switch, and for the worker to see it, is no latency.
with newest as (
    select max(request_received_at) as received_at from {{ source('bridge', 'ingest_event_log') }}
),

switched as (
    select max(changed_at) as on_since from {{ source('phase2', 'flags') }}
    where flag = 'INGEST_QUEUE_ENABLED' and enabled
),

resumed as (
    select
        switched.on_since,
        min(log.processed_at) as first_at
    from switched
    left join {{ source('bridge', 'ingest_event_log') }} as log on switched.on_since < log.processed_at
    group by switched.on_since
),

letters as (
    select distinct event_key from {{ source('bridge', 'ingest_dead_letter') }}
),

events as (
    select
        e.*,
        e.process_status = 'DONE' as is_done,
        not phase2.is_pending(e.process_status, e.next_retry_at) as has_ended,
        coalesce(case when e.process_status = 'DONE' then e.processed_at end, now()) as until_at,
        d.event_key is not null as has_dead_letter
    from {{ source('bridge', 'ingest_event_log') }} as e
    left join letters as d on e.event_key = d.event_key
    where e.request_received_at > (select n.received_at from newest as n) - interval '1 hour'
)

select
    events.event_key,
    events.channel_code,
    events.process_status,
    events.is_done,
    events.has_ended,
    events.has_dead_letter,
    extract(
        epoch from events.until_at
        - case
            when
                events.request_received_at < resumed.on_since and events.until_at > resumed.on_since
                then case when events.is_done then resumed.first_at else resumed.on_since end
            else events.request_received_at
        end
    ) as seconds
from events
cross join resumed
